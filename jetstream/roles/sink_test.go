package roles_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// figures are a view "orders" in a database, which is memory here.
type figures struct {
	mu      sync.Mutex
	placed  int
	records map[string]projection.SinkRecord
}

func (f *figures) definition() *projection.SinkDefinition[*int] {
	return projection.NewSinkDefinition("orders",
		func(_ context.Context, n *int) error {
			*n = 0
			return nil
		},
		projection.OnSink(orderEvents, func(_ context.Context, n *int, _ placed, _ jetstream.Meta) error {
			*n++
			return nil
		}))
}

// figures runs the view's updater, with the role of the one in a bucket.
func (w *world) figures(quiet *slog.Logger) *figures {
	w.Helper()
	f := &figures{}
	up, err := projection.NewSinkUpdater(w.attach("list", "bank"), f.definition(), f, projection.SinkConfig{Logger: quiet})
	if err != nil {
		w.Fatal(err)
	}
	w.run("view in a database", up.Run)
	return f
}

// follows tells whether an order has arrived.
func (f *figures) follows() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.placed == 0 {
		return errors.New("no order has arrived")
	}
	return nil
}

func (f *figures) Load(ctx context.Context, name string) (projection.SinkRecord, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[name], ctx.Err()
}

func (f *figures) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx *int) error,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.records[name].Revision != expected {
		return projection.ErrSinkConflict
	}
	n := f.placed
	if err := errors.Join(apply(&n), ctx.Err()); err != nil {
		return err
	}
	f.records = maps.Clone(f.records)
	if f.records == nil {
		f.records = map[string]projection.SinkRecord{}
	}
	f.placed, f.records[name] = n, projection.SinkRecord{Revision: expected + 1, Data: data}
	return nil
}

func (f *figures) Transient(error) bool { return false }
