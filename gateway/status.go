package gateway

import (
	"context"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// ErrNeverRan is returned by [ReadStatus] for a gateway that never ran.
var ErrNeverRan = follow.ErrNoRecord

// Status is what a gateway is doing.
type Status = follow.Status

// Status is this instance's view; it asks nobody.
func (g *Gateway) Status() Status { return g.follower.Status() }

// ReadStatus asks the servers about a gateway, wherever it runs. Returns [ErrNeverRan].
func ReadStatus(ctx context.Context, store *jetstream.Store, name string) (Status, error) {
	if err := jetstream.ValidateName("gateway name", name); err != nil {
		return Status{}, err
	}
	return follow.ReadStatus(ctx, store.Conn(), store.Name(), store.Name()+"__followers", name)
}
