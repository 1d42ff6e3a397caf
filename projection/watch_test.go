package projection_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// tally counts the events of a key. An event of an owner "all" touches a thousand
// keys and more, so that no page of a watch holds its changes.
type tally struct {
	N int `json:"n"`
}

const wide = 1050

func wideKeys() []string {
	keys := make([]string, wide)
	for i := range keys {
		keys[i] = "w" + strconv.Itoa(i)
	}
	return keys
}

func tallies() *projection.Definition[tally] {
	return projection.NewKeyed("tallies",
		projection.On(accountEvents, func(v *tally, _ credited, _ jetstream.Meta) { v.N++ }),
		projection.On(accountEvents, func(v *tally, _ opened, _ jetstream.Meta) { v.N++ },
			projection.Keys(func(opened, jetstream.Meta) []string { return wideKeys() })),
		projection.OnRow(accountEvents, func(r *projection.Row[tally], _ closed, _ jetstream.Meta) error {
			r.Delete()
			return nil
		}),
	)
}

// watched is what a watch has shown so far.
type watched struct {
	mu        sync.Mutex
	state     map[string]int
	last      uint64
	resets    int
	ready     bool
	watches   int
	empty     bool // the view may be at its beginning
	complaint error
}

func (w *watched) take(c projection.Change[tally]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == nil {
		w.state = map[string]int{}
	}
	complain := func(format string, args ...any) {
		w.complaint = errors.Join(w.complaint, fmt.Errorf(format, args...))
	}
	switch c.Kind {
	case projection.Reset:
		w.state, w.last, w.ready = map[string]int{}, 0, false
		w.resets++
	case projection.Ready:
		if w.ready {
			complain("ready twice")
		}
		w.ready = true
		if c.Entry.Position.IsZero() && !w.empty {
			complain("ready without a position")
		}
	case projection.Put, projection.Delete:
		if c.Entry.Revision <= w.last {
			complain("revision %d of %s after %d", c.Entry.Revision, c.Entry.Key, w.last)
		}
		w.last = c.Entry.Revision
		if c.Kind == projection.Delete {
			delete(w.state, c.Entry.Key)
		} else {
			w.state[c.Entry.Key] = c.Entry.Value.N
		}
	}
}

// shows tells how the watch's state differs from what is wanted.
func (w *watched) shows(want map[string]int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.complaint != nil || !w.ready {
		return errors.Join(w.complaint, fmt.Errorf("ready %v, %d keys", w.ready, len(w.state)))
	}
	if !maps.Equal(w.state, want) {
		for key, n := range want {
			if w.state[key] != n {
				return fmt.Errorf("%s is %d, not %d; %d keys, not %d", key, w.state[key], n, len(w.state), len(want))
			}
		}
		return fmt.Errorf("%d keys, not %d", len(w.state), len(want))
	}
	return nil
}

// follow watches until the test's context ends. Every so many changes it begins
// anew after the last token, with another reader.
func (w *watched) follow(ctx context.Context, t *testing.T, f *fixture, nc *nats.Conn, o projection.WatchOptions, most int) {
	t.Helper()
	for ctx.Err() == nil {
		r, err := projection.NewReader[tally](ctx, nc, f.store.Name(), "tallies", projection.ReaderConfig{OpenWait: natstest.Patience})
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("open: %v", err)
			}
			return
		}
		w.mu.Lock()
		w.watches++
		w.ready = false
		w.mu.Unlock()
		n := 0
		for c, err := range r.Watch(ctx, o) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("watch %+v: %v", o, err)
				}
				return
			}
			w.take(c)
			o.After = c.Token()
			if n++; n == most {
				break
			}
		}
	}
}

func under(state map[string]int, prefix string) map[string]int {
	out := map[string]int{}
	for key, n := range state {
		if strings.HasPrefix(key, prefix) {
			out[key] = n
		}
	}
	return out
}

// TestWatchMissesNothing: whatever connections, leaders and generations do, a watch
// shows the last value of each key in the end, and nothing twice or out of order; so
// does one that goes on from its tokens again and again; and what a local view says
// has all that it says it has.
func TestWatchMissesNothing(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var cluster *natstest.Cluster
			var url string
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				cluster = natstest.RunCluster(t)
				url = strings.Join(cluster.URLs(), ",")
			}
			f := fixtureAt(t, url, replicas)
			watchThroughout(t, f, cluster)
		})
	}
}

func watchThroughout(t *testing.T, f *fixture, cluster *natstest.Cluster) {
	t.Helper()
	const ids = 30
	want := map[string]int{}
	cfg, _ := waiting()
	start(t, f.store, tallies(), cfg)
	feed := func(commits int) {
		for i := range commits {
			key := id(rand.IntN(ids))
			switch {
			case i == commits/2 && commits > 10:
				f.append(key, opened{})
				for _, k := range wideKeys() {
					want[k]++
				}
			case rand.IntN(6) == 0:
				f.append(key, closed{})
				delete(want, key)
			default:
				f.append(key, credited{Cents: 1})
				want[key]++
			}
		}
	}
	feed(20)
	if _, err := reader[tally](t, f, "tallies").Position(t.Context(), projection.AtLeast(f.last)); err != nil {
		t.Fatal(err)
	}
	var conns []*nats.Conn
	conn := func() *nats.Conn {
		nc := natstest.Conn(t, f.url)
		conns = append(conns, nc)
		return nc
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var all, some, one, resumed, resumedKey watched
	every := []*watched{&all, &some, &one, &resumed, &resumedKey}
	// may says whether a watch may find the view at its beginning.
	may := func(empty bool) {
		for _, w := range every {
			w.mu.Lock()
			w.empty = empty
			w.mu.Unlock()
		}
	}
	may(true) // on a replica that is behind
	follow := func(w *watched, o projection.WatchOptions, most int) {
		nc := conn()
		wg.Go(func() { w.follow(ctx, t, f, nc, o, most) })
	}
	follow(&all, projection.WatchOptions{}, 0)
	follow(&some, projection.WatchOptions{Prefix: "a1"}, 0)
	follow(&one, projection.WatchOptions{Key: "a3"}, 0)
	follow(&resumed, projection.WatchOptions{}, 700)
	follow(&resumedKey, projection.WatchOptions{Key: "a4"}, 1)
	lr, err := projection.NewReader[tally](t.Context(), conn(), f.store.Name(), "tallies",
		projection.ReaderConfig{OpenWait: natstest.Patience, Wait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	local, err := projection.NewLocalView(t.Context(), lr, projection.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()

	a := admin(t, f, "tallies")
	check := func(what string) {
		t.Helper()
		for key := range want {
			if e, err := local.Get(t.Context(), key, projection.AtLeast(f.last)); err != nil || e.Value.N != want[key] {
				t.Errorf("%s: the local view's %s is %+v, not %d: %v", what, key, e, want[key], err)
			}
		}
		if s := local.Status(); !s.Complete || s.Err != nil || s.Keys != len(want) || s.Written.IsZero() || s.Checked.IsZero() {
			t.Errorf("%s: %+v, %d keys wanted", what, s, len(want))
		}
		for name, w := range map[string]*watched{"all": &all, "resumed": &resumed} {
			natstest.Eventually(t, what+", watch of "+name, func() error { return w.shows(want) })
		}
		natstest.Eventually(t, what+", watch of a1", func() error { return some.shows(under(want, "a1")) })
		for key, w := range map[string]*watched{"a3": &one, "a4": &resumedKey} {
			only := map[string]int{}
			if n := want[key]; n > 0 {
				only[key] = n
			}
			natstest.Eventually(t, what+", watch of "+key, func() error { return w.shows(only) })
		}
	}
	check("at rest")
	may(false)
	for _, nc := range conns {
		if err := nc.ForceReconnect(); err != nil {
			t.Error(err)
		}
	}
	feed(40)
	check("after reconnects")
	if cluster != nil {
		for _, commits := range []int{10, 10, 20} {
			cluster.StepDown(t, "KV_"+f.store.Name()+"_tallies")
			feed(commits)
		}
		check("after the leader resigned")
	}
	n, err := a.Rebuild(patient(t), projection.RebuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	feed(20)
	generation(t, a, n, "caught up", caughtUp)
	if err := a.Switch(patient(t), n); err != nil {
		t.Fatal(err)
	}
	feed(20)
	check("after the switch")
	for i, w := range every {
		natstest.Eventually(t, "one reset", func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.resets != 1 {
				return fmt.Errorf("watch %d: %d resets in %d watches", i, w.resets, w.watches)
			}
			return nil
		})
	}
	may(true)
	resumed.mu.Lock()
	t.Logf("%d watches went on from tokens", resumed.watches)
	resumed.mu.Unlock()

	// Another bucket of the same name.
	f.deleteBucket("tallies")
	feed(20)
	check("in a bucket made anew")
	left := 100 // of a thousand
	for key, n := range want {
		if left--; left < 0 {
			break
		}
		if e, err := lr.Get(t.Context(), key); err != nil || e.Value.N != n {
			t.Errorf("in a bucket made anew: %s is %+v, %v", key, e, err)
		}
	}
}
