package gateway

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// ErrNeverRan is returned by [ReadStatus] for a gateway that never ran.
var ErrNeverRan = follow.ErrNoRecord

// FollowerStatus is how far a gateway has come.
type FollowerStatus = follow.Status

// Status is what a gateway is doing, as one instance sees it.
type Status struct {
	FollowerStatus

	// Destinations are those that this instance has met, by name.
	Destinations []DestinationStatus
	// Overdue are deliveries whose handlers have not returned though their time is
	// over, the oldest first.
	Overdue []Overdue
}

// Overdue is a delivery whose handler has not returned.
type Overdue struct {
	Type    string    `json:"type"`
	ID      string    `json:"id"`
	EventID string    `json:"eventId"`
	Began   time.Time `json:"began"`
}

// Status is this instance's view; it asks nobody.
func (g *Gateway) Status() Status {
	s := Status{FollowerStatus: g.follower.Status()}
	g.def.mu.Lock()
	destinations := slices.Collect(maps.Values(g.def.destinations))
	for _, o := range g.def.running {
		if time.Since(o.Began) > g.def.cfg.Timeout {
			s.Overdue = append(s.Overdue, o)
		}
	}
	g.def.mu.Unlock()
	for _, d := range destinations {
		s.Destinations = append(s.Destinations, d.status())
	}
	slices.SortFunc(s.Destinations, func(a, b DestinationStatus) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Overdue, func(a, b Overdue) int { return a.Began.Compare(b.Began) })
	return s
}

// ReadStatus asks the servers about a gateway, wherever it runs. Limits are known
// to the instance that delivers only. Returns [ErrNeverRan].
func ReadStatus(ctx context.Context, store *jetstream.Store, name string) (FollowerStatus, error) {
	if err := jetstream.ValidateName("gateway name", name); err != nil {
		return FollowerStatus{}, err
	}
	return follow.ReadStatus(ctx, store.Conn(), store.Name(), store.Name()+"__followers", name)
}
