package jetstream_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

type opened struct {
	Owner string `json:"owner"`
	Cents int64  `json:"cents"`
}

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx := t.Context()
	s, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		t.Fatal(err)
	}
	schema := jetstream.NewSchema("account", jetstream.Event[opened]("opened"))
	e, err := schema.Encode(opened{Owner: "ann", Cents: 5}, s.Codec())
	if err != nil {
		t.Fatal(err)
	}
	var head jetstream.Head
	for i := range 10 {
		head, err = s.Append(ctx, jetstream.Write{Type: "account", ID: "a1", After: head, Decisions: []jetstream.Decision{{CommandID: "x", Events: []jetstream.EventData{e, e}}}})
		if err != nil {
			t.Fatal(i, err)
		}
	}
	_, err = s.Append(ctx, jetstream.Write{Type: "account", ID: "a1", Decisions: []jetstream.Decision{{CommandID: "x", Events: []jetstream.EventData{e}}}})
	var conflict *jetstream.ConflictError
	if !errors.As(err, &conflict) {
		t.Fatal(err)
	}
	n := 0
	for c, err := range s.History(ctx, "account", "a1", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		n += c.Events()
	}
	if n != 20 || head.Version != 20 {
		t.Fatal(n, head)
	}
	last, err := s.Last(ctx, "account", "a1", jetstream.Replica)
	if err != nil || last.Head != head {
		t.Fatal(last, err)
	}
	dec, _ := jetstream.NewDecoder(jetstream.StopOnUnknown, schema)
	evs, err := dec.Events(s, last)
	if err != nil || len(evs) != 2 || evs[1].Event != (opened{"ann", 5}) {
		t.Fatal(evs, err)
	}
	if _, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank", Partitions: 3}); err == nil {
		t.Fatal("no error")
	} else {
		t.Log(err)
	}
	if _, err := jetstream.Attach(ctx, nc, "bank2"); !errors.Is(err, jetstream.ErrStoreNotFound) {
		t.Fatal(err)
	}
}
