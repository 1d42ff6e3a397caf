package projection_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// long lets TestRebuildUnderCommands rebuild 1 M events.
func long() bool { return os.Getenv("ROSSBY_LONG") != "" }

// TestRebuildUnderCommands builds a view of many events anew while 500 commands a
// second go on: no read fails, finds the view empty or in part, or is older than
// one before.
func TestRebuildUnderCommands(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		events, ids, patience := 4000, 400, natstest.Patience
		if long() {
			events, ids, patience = 1_000_000, 100_000, 30*time.Minute
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		m, keys := model{}, make([]string, 30)
		for i := range keys {
			keys[i] = fmt.Sprint("c", i)
			f.append(keys[i], opened{})
			m.apply(keys[i], opened{})
		}
		f.fill(events, ids)
		cfg := quiet()
		cfg.LeaseTTL = 2 * time.Second
		start(t, f.store, accounts(), cfg)
		r := reader[account](t, f, "accounts")
		if _, err := r.Position(ctx, projection.AtLeast(f.last)); err != nil {
			t.Fatal(err)
		}
		watch := readAllTheTime(t, f, keys)
		many := getManyAllTheTime(t, f, keys)
		endCommands := f.commands(m, keys, 500)

		a := admin(t, f, "accounts")
		began := time.Now()
		n, err := a.Rebuild(ctx, projection.RebuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Switch(ctx, n); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		written := endCommands()
		watch.stop()
		t.Logf("%d events rebuilt in %v, %d commands, %d reads, %d of many keys", events, took, written, watch.reads.Load(), many())
		// The new generation holds everything, once.
		for key, want := range m {
			if e := get(t, r, key, projection.AtLeast(f.last)); e.Generation != n || e.Value.Events != want.Events || e.Value.Cents != want.Cents {
				t.Errorf("%s is %+v, wanted %+v", key, e, want)
			}
		}
		for from := 0; from < ids; from += 500 {
			var some []string
			for i := from; i < min(from+500, ids); i++ {
				some = append(some, id(i))
			}
			entries, err := r.GetMany(ctx, some)
			if err != nil || len(entries) != len(some) {
				t.Fatalf("%d of %d keys, %v", len(entries), len(some), err)
			}
			for _, e := range entries {
				if e.Value.Events != events/ids || e.Value.Cents != int64(events/ids) {
					t.Errorf("%s is %+v", e.Key, e.Value)
				}
			}
		}
	})
}

// commands appends so many times a second until it is told to stop, and then
// returns how often. Nobody else may write to the keys.
func (f *fixture) commands(m model, keys []string, rate int) (stop func() int) {
	f.t.Helper()
	const writers = 10
	end := make(chan struct{})
	var wg sync.WaitGroup
	var n atomic.Int64
	var models sync.Mutex
	for w := range writers {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * writers / time.Duration(rate))
			defer tick.Stop()
			for i := w; ; i += writers {
				select {
				case <-end:
					return
				case <-tick.C:
				}
				key, e := keys[i%len(keys)], credited{Cents: int64(i)}
				f.alone(key, e)
				models.Lock()
				m.apply(key, e)
				models.Unlock()
				n.Add(1)
			}
		})
	}
	once := sync.OnceFunc(func() { close(end); wg.Wait() })
	f.t.Cleanup(once)
	return func() int { once(); return int(n.Load()) }
}

// alone appends to an aggregate that nobody else writes to, beside others.
func (f *fixture) alone(key string, e any) {
	f.t.Helper()
	data, err := accountEvents.Encode(e, f.store.Codec())
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	after := f.heads["account"+key]
	f.mu.Unlock()
	head, err := f.store.Append(f.t.Context(), jetstream.Write{
		Type: "account", ID: key, After: after,
		Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	})
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heads["account"+key] = head
	if last, _ := f.store.Sequence(f.last); head.Sequence > last {
		f.last = f.store.Position(head.Sequence)
	}
}

// getManyAllTheTime gets many keys again and again: each answer must hold
// all of them, at one position, not before that of the one before.
func getManyAllTheTime(t *testing.T, f *fixture, keys []string) (stop func() int) {
	t.Helper()
	r := reader[account](t, f, "accounts")
	ctx, cancel := context.WithCancel(t.Context())
	ended, n := make(chan struct{}), 0
	go func() {
		defer close(ended)
		for floor := uint64(0); paced(ctx, 5*time.Millisecond); n++ {
			entries, err := r.GetMany(ctx, keys)
			if ctx.Err() != nil {
				return
			}
			if err != nil || len(entries) != len(keys) {
				t.Errorf("%d of %d keys: %v", len(entries), len(keys), err)
				return
			}
			for _, e := range entries {
				at, err := f.store.Sequence(e.Position)
				if err != nil || at < floor || e.Position != entries[0].Position {
					t.Errorf("position %d after %d: %v", at, floor, err)
					return
				}
				floor = at
			}
		}
	}()
	once := sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(once)
	return func() int { once(); return n }
}
