package archive_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// TestCutOver walks the procedure of docs/archive.md: a store in use moves to another
// server, with another name, number of partitions and number of replicas.
func TestCutOver(t *testing.T) {
	t.Parallel()
	here := natstest.Conn(t, natstest.Run(t).URL())
	there := natstest.RunCluster(t).Conn(t)
	from := open(t, here, jetstream.Config{})
	f := fill(t, from, 500)

	// 1. The new store, empty.
	to := open(t, there, jetstream.Config{Replicas: 3, Partitions: 16})

	// 2. Copied while writers are at work, until what is left is little.
	const passes = 4
	begun := make(chan struct{}, passes)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range begun {
			f.fill(60)
		}
	})
	stop := sync.OnceFunc(func() { close(begun); wg.Wait() })
	defer stop()
	var before uint64
	for pass := range passes {
		begun <- struct{}{}
		p, err := archive.Copy(t.Context(), from, to, archive.CopyConfig{})
		if err != nil {
			t.Fatalf("pass %d: %v", pass, err)
		}
		if pass > 0 && p.Sequence < before {
			t.Errorf("pass %d ended at %d, the one before at %d", pass, p.Sequence, before)
		}
		before = p.Sequence
	}

	// 3. The writers stop.
	stop()

	// 4. The rest, and the check.
	p, err := archive.Copy(t.Context(), from, to, archive.CopyConfig{})
	if err != nil || p.Sequence != f.last {
		t.Fatalf("%+v of %d, %v", p, f.last, err)
	}
	report, err := archive.Compare(t.Context(), from, to, archive.CompareConfig{})
	if err != nil || !report.Equal() || report.Commits != f.last-1 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantCopy(t, from, to)

	// 5. The writers go on there, with what they know of the old store's positions.
	last, err := from.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.Sequence(last); !is[*jetstream.ForeignPositionError](err) {
		t.Errorf("a position of the old store: %v", err)
	}
	p1, err := to.CopyOf(t.Context(), last)
	if err != nil {
		t.Fatal(err)
	}
	if p2, err := to.LastPosition(t.Context()); err != nil || p1 != p2 {
		t.Errorf("the last position is %v, %v, %v", p1, p2, err)
	}
	after := f.heads
	f.store, f.heads = to, map[string]jetstream.Head{}
	for key := range after {
		f.heads[key] = headOf(t, to, key)
		if len(f.heads) == 20 {
			break
		}
	}
	f.ids = nil
	for key := range f.heads {
		f.ids = append(f.ids, key)
	}
	f.fill(50)
	wantChains(t, to)

	// 6. Whoever copies once more by mistake is told.
	if _, err := archive.Copy(t.Context(), from, to, archive.CopyConfig{}); !errors.Is(err, jetstream.ErrNotACopy) {
		t.Errorf("copied again: %v", err)
	}
}

func headOf(t *testing.T, s *jetstream.Store, key string) jetstream.Head {
	t.Helper()
	c, err := s.Last(t.Context(), typeOf(key), idOf(key), jetstream.Leader)
	if err != nil {
		t.Fatal(err)
	}
	return c.Head
}

// TestCopyOfACopy: origins stay those of the first store, and a copy goes on where it
// stands, also when its source was copied, and written to, itself.
func TestCopyOfACopy(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, connect func() *nats.Conn, replicas int, _ *natstest.Cluster) {
		t.Helper()
		nc := connect()
		first := open(t, nc, jetstream.Config{Replicas: replicas})
		fill(t, first, 300)
		second, third := open(t, nc, jetstream.Config{Replicas: replicas, Partitions: 5}), open(t, nc, jetstream.Config{Replicas: replicas, Partitions: 6})
		pass := func(from, to *jetstream.Store, want uint64) {
			t.Helper()
			p, err := archive.Copy(t.Context(), from, to, archive.CopyConfig{})
			if err != nil || p.Commits != want {
				t.Fatalf("%+v, %v", p, err)
			}
			wantCopy(t, from, to)
		}
		pass(first, second, 300)
		// The copy of the copy is interrupted within what was copied twice.
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		part := func(yield func(jetstream.Message, error) bool) {
			for m, err := range second.Messages(ctx, "", "", jetstream.Range{}) {
				if n++; n == 120 || !yield(m, err) {
					cancel()
					return
				}
			}
		}
		if _, err := third.AppendCopies(t.Context(), jetstream.CopySource{StoreID: second.ID(), Part: true}, part); err != nil {
			t.Fatal(err)
		}
		cancel()
		got, err := third.LastCopied(t.Context())
		if err != nil || got.Origin.Store != first.ID() {
			t.Fatalf("%+v, %v", got, err)
		}
		pass(second, third, 300-got.Sequence+1)
		if got, err := third.LastCopied(t.Context()); err != nil || got.Origin.Store != first.ID() || got.Origin.Sequence != 301 {
			t.Errorf("%+v, %v", got, err)
		}
		// The second lives on.
		var head jetstream.Head
		for range 10 {
			if head, err = second.Append(t.Context(), one("later", head, []byte{0xc0})); err != nil {
				t.Fatal(err)
			}
		}
		pass(second, third, 10)
		if got, err := third.LastCopied(t.Context()); err != nil || got.Origin.Store != second.ID() {
			t.Errorf("%+v, %v", got, err)
		}
		for _, p := range []jetstream.Position{first.Position(7), second.Position(305)} {
			if _, err := third.CopyOf(t.Context(), p); err != nil {
				t.Errorf("%v: %v", p, err)
			}
		}
	})
}
