package wire

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// Arrived is called after unsubscribing, of a service that answers what it was sent. It
// waits until the messages that the server had sent before it heard of that have been
// handed to their handlers, for as long as timeout: another subscription of the
// connection may be slow.
func Arrived(ctx context.Context, nc *nats.Conn, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return // nothing can be answered
	}
	done := make(chan struct{})
	if err := nc.Barrier(func() { close(done) }); err != nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
