package jetstream_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
)

// stream gives raw access to the stream of a store.
//
//nolint:ireturn // nats.go has nothing else
func stream(t testing.TB, nc *nats.Conn, name string) natsjs.Stream {
	t.Helper()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open opens a store and fails the test if it cannot.
func open(t testing.TB, nc *nats.Conn, cfg jetstream.Config) *jetstream.Store {
	t.Helper()
	s, err := jetstream.Open(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write is a commit of one event by one command.
func write(id, commandID string, after jetstream.Head) jetstream.Write {
	return jetstream.Write{
		Type: "account", ID: id, After: after,
		Decisions: []jetstream.Decision{command(commandID, event("credited", "\x81\xa1c\x05"))},
	}
}

// appendN appends n commits of one event each and returns the last head.
func appendN(t testing.TB, s *jetstream.Store, id string, n int) []jetstream.Head {
	t.Helper()
	heads := make([]jetstream.Head, 0, n)
	var head jetstream.Head
	for range n {
		var err error
		if head, err = s.Append(t.Context(), write(id, "", head)); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
	}
	return heads
}

// history reads an aggregate's commits.
func history(ctx context.Context, s *jetstream.Store, id string, r jetstream.Range) ([]*jetstream.Commit, error) {
	return collect(s.History(ctx, "account", id, r))
}

// collect reads commits until there are no more, or an error.
func collect(seq iter.Seq2[*jetstream.Commit, error]) ([]*jetstream.Commit, error) {
	var commits []*jetstream.Commit
	for c, err := range seq {
		if err != nil {
			return commits, err
		}
		commits = append(commits, c)
	}
	return commits, nil
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
