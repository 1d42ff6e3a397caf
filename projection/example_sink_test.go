package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
)

// totals is a database of one number, to show what a sink is: record and rows
// change together, or not at all. See examples/sqlview for SQLite and PostgreSQL.
type totals struct {
	mu      sync.Mutex
	records map[string]projection.SinkRecord
	cents   int64
}

func (d *totals) Load(_ context.Context, name string) (projection.SinkRecord, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.records[name], nil
}

// Transact lets apply change a copy of the number.
func (d *totals) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(cents *int64) error,
) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.records[name].Revision != expected {
		return projection.ErrSinkConflict
	}
	cents := d.cents
	if err := errors.Join(apply(&cents), ctx.Err()); err != nil {
		return err
	}
	d.cents, d.records[name] = cents, projection.SinkRecord{Revision: expected + 1, Data: data}
	return nil
}

func (d *totals) Transient(error) bool { return false }

// A view that is kept in a database of one's own.
func ExampleNewSinkUpdater() {
	view := projection.NewSinkDefinition("totals",
		func(_ context.Context, cents *int64) error { // Empties what is there.
			*cents = 0
			return nil
		},
		projection.OnSink(accountEvents, func(_ context.Context, cents *int64, e credited, _ jetstream.Meta) error {
			*cents += e.Cents
			return nil
		}),
	)

	ctx, cancel := context.WithCancel(context.Background())
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	data, err := accountEvents.Encode(credited{Cents: 70}, store.Codec())
	if err != nil {
		log.Fatal(err)
	}
	head, err := store.Append(ctx, jetstream.Write{Type: "account", ID: "a1", Decisions: []jetstream.Decision{
		{Time: time.Now(), Events: []jetstream.EventData{data, data}},
	}})
	if err != nil {
		log.Fatal(err)
	}

	db := &totals{records: map[string]projection.SinkRecord{}}
	cfg := projection.SinkConfig{Logger: slog.New(slog.DiscardHandler)}
	up, err := projection.NewSinkUpdater(store, view, db, cfg)
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- up.Run(ctx) }()

	// Wait for the own write, and read number and record together.
	for range time.Tick(time.Millisecond) {
		db.mu.Lock()
		reached, err := db.records[projection.SinkName("bank", "totals")].Reached(store.Position(head.Sequence))
		cents := db.cents
		db.mu.Unlock()
		if err != nil {
			log.Fatal(err)
		}
		if reached {
			fmt.Println(cents)
			break
		}
	}
	admin, err := projection.NewSinkAdmin(store, db, "totals") // in any process
	if err != nil {
		log.Fatal(err)
	}
	status, err := admin.Status(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("caught up:", status.CaughtUp())
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// 140
	// caught up: true
}
