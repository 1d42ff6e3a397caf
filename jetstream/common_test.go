package jetstream_test

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// stream gives raw access to the stream of a store.
//
//nolint:ireturn // nats.go has nothing else
func stream(t testing.TB, nc *nats.Conn, name string) natsjs.Stream {
	t.Helper()
	js := natstest.JetStream(t, nc)
	var s natsjs.Stream
	found := natstest.Retry(t, "stream "+name, func(ctx context.Context) (err error) {
		s, err = js.Stream(ctx, name)
		return err
	})
	if !found {
		t.FailNow()
	}
	return s
}

// edit changes a live stream behind the store's back.
func edit(t *testing.T, nc *nats.Conn, name string, change func(*natsjs.StreamConfig)) {
	t.Helper()
	js, cfg := natstest.JetStream(t, nc), stream(t, nc, name).CachedInfo().Config
	change(&cfg)
	edited := natstest.Retry(t, "edit stream "+name, func(ctx context.Context) error {
		_, err := js.UpdateStream(ctx, cfg)
		return err
	})
	if !edited {
		t.FailNow()
	}
}

// open opens a store and fails the test if it cannot. Its appends and reads take as
// long as a busy machine needs for them.
func open(t testing.TB, nc *nats.Conn, cfg jetstream.Config) *jetstream.Store {
	t.Helper()
	cfg.AppendTimeout = cmp.Or(cfg.AppendTimeout, natstest.Patience)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	s, err := jetstream.Open(ctx, nc, cfg)
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

// longAttempt is for attempts that must not run out on a busy machine: one that did
// would leave it open whether it is stored.
const longAttempt = natstest.Patience / 4

// told calls f until it knows what became of what it sent. When the machine stands
// still, or a leader resigns, an attempt runs out, and then a refusal proves nothing.
func told(t *testing.T, f func(context.Context) error) (err error) {
	t.Helper()
	natstest.Eventually(t, "a known outcome", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), longAttempt)
		defer cancel()
		if err = f(ctx); errors.Is(err, jetstream.ErrUnknownOutcome) {
			return err
		}
		return nil
	})
	return err
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
