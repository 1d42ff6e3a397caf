package cli_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// counter is a database of one number.
type counter struct {
	mu      sync.Mutex
	records map[string]projection.SinkRecord
	n       int
}

func (c *counter) Load(_ context.Context, name string) (projection.SinkRecord, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.records[name], nil
}

func (c *counter) Transact(ctx context.Context, name string, expected uint64, data []byte, apply func(n *int) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records[name].Revision != expected {
		return projection.ErrSinkConflict
	}
	n := c.n
	if err := errors.Join(apply(&n), ctx.Err()); err != nil {
		return err
	}
	c.n, c.records[name] = n, projection.SinkRecord{Revision: expected + 1, Data: data}
	return nil
}

func (c *counter) Transient(error) bool { return false }

// TestViewInADatabase: it is listed, and how far it has read is shown; for the rest the
// database is named.
func TestViewInADatabase(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700, 500)
	def := projection.NewSinkDefinition("totals",
		func(_ context.Context, n *int) error { *n = 0; return nil },
		projection.OnSink(events, func(_ context.Context, n *int, _ opened, _ jetstream.Meta) error { *n++; return nil }))
	db := &counter{records: map[string]projection.SinkRecord{}}
	up, err := projection.NewSinkUpdater(b.store, def, db, projection.SinkConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	b.rossby("view", "status", "totals").ends(3).fails(`view "totals"`)
	b.run(up.Run)
	var row struct {
		View     string
		Database bool
		State    string
		Lag      int
		CaughtUp bool
	}
	natstest.Eventually(t, "the view has read", func() error {
		r := b.rossby("view", "status", "totals", "--json")
		if r.code != 0 {
			return errors.New(r.err)
		}
		r.decode(&row)
		if !row.CaughtUp || row.State != "running" {
			return errors.New(r.out)
		}
		return nil
	})
	if row.View != "totals" || !row.Database || row.Lag != 0 {
		t.Errorf("%+v", row)
	}
	b.until(words("view ls"), "totals  running", "in a database")
	b.rossby("view", "status", "totals").ends(0).says("totals, in a database", "projection.SinkAdmin")
	b.rossby("view", "rebuild", "totals").ends(2).fails("kept in a database")
	b.rossby("view", "status", "total").ends(3).fails("did you mean totals?")
}
