package projection_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestReadYourWrites: on three servers, each of which may answer, a read with the
// position of the caller's own write has it.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	f := fixtureAt(t, strings.Join(c.URLs(), ","), 3)
	start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	f.append("a0", opened{})
	get(t, r, "a0", projection.AtLeast(f.last))
	loops := 500
	if testing.Short() {
		loops = 100 // as with the race detector
	}
	took := make([]time.Duration, 0, loops)
	for i := range loops {
		pos := f.append("a0", credited{Cents: 1})
		began := time.Now()
		e := get(t, r, "a0", projection.AtLeast(pos))
		took = append(took, time.Since(began))
		if e.Value.Cents != int64(i+1) {
			t.Fatalf("loop %d: %+v", i, e)
		}
		// Nothing older than what was served, without being asked.
		if e := get(t, r, "a0"); e.Value.Cents != int64(i+1) {
			t.Fatalf("loop %d: went back to %+v", i, e)
		}
	}
	slices.Sort(took)
	t.Logf("append acknowledged → read with its position: p50 %v, p99 %v", took[loops/2], took[loops*99/100])
}

// behind reads what a view has not reached, with more time each time, until it is told
// how far the view is.
func behind(t testing.TB, read func(context.Context) error) (stale *projection.StaleError) {
	t.Helper()
	timeout := 50 * time.Millisecond
	told := natstest.Eventually(t, "it is told how far the view is", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		timeout *= 2
		if err := read(ctx); !errors.As(err, &stale) || stale.State == "" {
			return fmt.Errorf("in %v: %w", timeout/2, err)
		}
		return nil
	})
	if !told {
		t.FailNow()
	}
	return stale
}

func TestStale(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pos := f.append("a1", opened{})
	up := start(t, f.store, accounts(), lasting())
	r := reader[account](t, f, "accounts")
	get(t, r, "a1", projection.AtLeast(pos))
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	later := f.append("a1", closed{})
	stale := behind(t, func(ctx context.Context) error {
		_, err := r.Get(ctx, "a1", projection.AtLeast(later))
		return err
	})
	if !errors.Is(stale, projection.ErrStale) || stale.Wanted != later || stale.Position != pos || stale.Behind != 1 ||
		stale.Lag <= 0 || stale.State != projection.StateFree {
		t.Errorf("Get: %+v", stale)
	}
	// A position that the store has yet to reach is not told from one that the view has.
	head, _ := f.store.Sequence(later)
	stale = behind(t, func(ctx context.Context) error {
		_, err := r.Position(ctx, projection.AtLeast(f.store.Position(head+1000)))
		return err
	})
	if stale.Behind != 1001 {
		t.Errorf("Position: %+v", stale)
	}
	// Why it is behind.
	bad, _ := waiting()
	start(t, f.store, projection.NewKeyed("accounts2",
		projection.OnRow(accountEvents, func(*projection.Row[account], opened, jetstream.Meta) error { return errors.New("cannot be") })), bad)
	r2 := reader[account](t, f, "accounts2")
	natstest.Eventually(t, "the view stops", func() error {
		stale := behind(t, func(ctx context.Context) error {
			_, err := r2.Get(ctx, "a1", projection.AtLeast(later))
			return err
		})
		if stale.State != projection.StateStopped || !strings.Contains(stale.Cause, "cannot be") ||
			!strings.Contains(stale.Error(), "stopped: ") {
			return stale
		}
		return nil
	})
	foreign, err := jetstream.ParsePosition("elsewhere-7")
	if err != nil {
		t.Fatal(err)
	}
	var fe *jetstream.ForeignPositionError
	if _, err := r.Get(t.Context(), "a1", projection.AtLeast(foreign)); !errors.As(err, &fe) {
		t.Errorf("Get: %v", err)
	}
	if _, err := projection.NewReader[account](t.Context(), f.nc, f.store.Name(), "nothing", projection.ReaderConfig{OpenWait: -1}); !errors.Is(err, projection.ErrViewNotFound) {
		t.Errorf("NewReader: %v", err)
	}
}

// keys makes so many keys, a hundred with each commit.
func (f *fixture) keys(prefix string, n int) {
	f.t.Helper()
	for from := 0; from < n; from += 100 {
		events := make([]any, 0, 100)
		for i := from; i < min(from+100, n); i++ {
			key := prefix + strconv.Itoa(i)
			events = append(events, moved{From: key, To: key, Cents: 1})
		}
		f.append("keys", events...)
	}
}

// TestListWhileTheCheckpointMoves: the end of a large view is found while its
// updater writes without a pause.
func TestListWhileTheCheckpointMoves(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const keys = 1100
	f.keys("k", keys)
	up := start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	get(t, r, "k1", projection.AtLeast(f.last))
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	subject := "$KV." + f.store.Name() + "_accounts._rossby.1"
	m, err := f.nc.Request("$JS.API.DIRECT.GET.KV_"+f.store.Name()+"_accounts."+subject, nil, natstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for ctx.Err() == nil {
				for range 5 {
					if err := f.nc.Publish(subject, m.Data); err != nil {
						t.Error(err)
					}
				}
				if err := f.nc.FlushTimeout(natstest.Patience); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := 0
	for _, err := range r.List(t.Context(), projection.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
	}
	cancel()
	writers.Wait()
	if seen != keys {
		t.Errorf("%d keys were listed, wanted %d", seen, keys)
	}
}

// TestListLarge: a view that no single request can read, while it changes.
func TestListLarge(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const keys = 2500
	f.keys("k", keys)
	start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	list := func(o projection.ListOptions) (keys []string) {
		t.Helper()
		var last uint64
		for e, err := range r.List(t.Context(), o) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Revision < last {
				t.Errorf("not in order of last change: %+v", e)
			}
			last = e.Revision
			keys = append(keys, e.Key)
		}
		return keys
	}
	all := list(projection.ListOptions{AtLeast: f.last})
	if len(all) != keys {
		t.Fatalf("%d keys", len(all))
	}
	if some := list(projection.ListOptions{Prefix: "k24", Limit: 50}); len(some) != 50 {
		t.Errorf("%d keys", len(some))
	}
	// By tokens, in small pages, while keys change all the time.
	ctx, cancel := context.WithCancel(t.Context())
	wrote := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil && n < 400; n++ {
			f.append("k"+strconv.Itoa(n*6), credited{Cents: 1}) //nolint:contextcheck // it appends until the test ends
		}
		wrote <- n
	}()
	seen := map[string]bool{}
	for token := ""; ; {
		n := 0
		for e, err := range r.List(t.Context(), projection.ListOptions{After: token, Limit: 100}) {
			if err != nil {
				t.Fatal(err)
			}
			seen[e.Key], token = true, e.Token()
			n++
		}
		if n < 100 {
			break
		}
	}
	cancel()
	t.Logf("%d writes meanwhile", <-wrote)
	if len(seen) != keys {
		t.Errorf("%d keys were seen, wanted %d", len(seen), keys)
	}
	if _, err := r.GetMany(t.Context(), make([]string, 1001)); err == nil {
		t.Error("1001 keys: no error")
	}
	for _, err := range r.List(t.Context(), projection.ListOptions{After: "7-1"}) {
		if !errors.Is(err, projection.ErrTokenExpired) {
			t.Errorf("foreign token: %v", err)
		}
	}
	for _, err := range r.List(t.Context(), projection.ListOptions{After: "x"}) {
		if _, ok := errors.AsType[*jetstream.InvalidError](err); !ok {
			t.Errorf("bad token: %v", err)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"})
	f.append("b1", opened{Owner: "bob"})
	pos := f.append("a2", opened{Owner: "cid"})
	start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	get(t, r, "a2", projection.AtLeast(pos))
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	var got []string
	for c, err := range r.Watch(ctx, projection.WatchOptions{Prefix: "a"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Kind.String()+" "+c.Entry.Key)
		switch len(got) {
		case 3:
			f.append("b1", credited{Cents: 1})
			f.append("a1", credited{Cents: 1})
		case 4:
			if c.Entry.Value.Cents != 1 {
				t.Errorf("%+v", c)
			}
			f.append("a2", closed{})
		}
		if len(got) == 5 {
			break
		}
	}
	if !slices.Equal(got, []string{"put a1", "put a2", "ready ", "put a1", "delete a2"}) {
		t.Errorf("saw %q", got)
	}
	// A loop that is left when its context has ended is not gone on with.
	both, stopBoth := context.WithCancel(t.Context())
	defer stopBoth()
	for _, err := range r.Watch(both, projection.WatchOptions{}) {
		if err != nil {
			t.Error(err)
		}
		stopBoth()
		break
	}
	// It ends with its context.
	ended, stop := context.WithCancel(t.Context())
	stop()
	for _, err := range r.Watch(ended, projection.WatchOptions{}) {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestQueryService(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 30 {
		f.append(id(i), opened{Owner: strconv.Itoa(i)})
	}
	f.append("ü@x", opened{Owner: "umlaut"})
	up := start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	q, err := projection.NewQueryService(f.nc, projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Stop(); err != nil {
			t.Error(err)
		}
	}()
	nc := natstest.Conn(t, f.url)
	c := projection.NewQueryClient[account](nc, f.store.Name(), "accounts")
	e, err := c.Get(patient(t), "ü@x", projection.AtLeast(f.last))
	if err != nil || e.Value.Owner != "umlaut" || e.Position != f.last || e.Revision == 0 || e.Generation != 1 || e.Sequence == 0 || e.Time.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	// As anybody asks.
	msg, err := nc.Request(f.store.Name()+".query.accounts.get.a7", nil, natstest.Patience)
	if err != nil || string(msg.Data) != `{"owner":"7","cents":0,"events":1}` || msg.Header.Get(projection.HeaderPosition) == "" {
		t.Errorf("%s %v %v", msg.Data, msg.Header, err)
	}
	msg, err = nc.Request(f.store.Name()+".query.accounts.list", []byte(`{"prefix":"a1","limit":3}`), natstest.Patience)
	var reply struct {
		Entries []struct {
			Key   string  `json:"key"`
			Value account `json:"value"`
		} `json:"entries"`
		Next string `json:"next"`
	}
	if err != nil || json.Unmarshal(msg.Data, &reply) != nil || len(reply.Entries) != 3 || reply.Next == "" || reply.Entries[0].Key != "a1" {
		t.Errorf("%s %v", msg.Data, err)
	}
	n := 0
	for _, err := range c.List(patient(t), projection.ListOptions{Prefix: "a"}) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 30 {
		t.Errorf("%d entries", n)
	}

	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	later := f.append("a1", closed{})
	stale := behind(t, func(ctx context.Context) error {
		_, err := c.Get(ctx, "a1", projection.AtLeast(later))
		return err
	})
	if !errors.Is(stale, projection.ErrStale) {
		t.Errorf("stale: %v", stale)
	}
	if _, err := c.Get(patient(t), "nobody"); !errors.Is(err, projection.ErrNotFound) {
		t.Errorf("not found: %v", err)
	}
	foreign, _ := jetstream.ParsePosition("elsewhere-7")
	var fe *jetstream.ForeignPositionError
	if _, err := c.Get(patient(t), "a1", projection.AtLeast(foreign)); !errors.As(err, &fe) {
		t.Errorf("foreign: %v", err)
	}
	code := func(subject, body, after, want string) {
		t.Helper()
		m := nats.NewMsg(f.store.Name() + ".query.accounts." + subject)
		m.Data = []byte(body)
		if after != "" {
			m.Header.Set(projection.HeaderAfter, after)
		}
		reply, err := nc.RequestMsg(m, natstest.Patience)
		if err != nil || reply.Header.Get("Nats-Service-Error-Code") != want || reply.Header.Get("Nats-Service-Error") == "" {
			t.Errorf("%s: %v %v", subject, reply, err)
		}
	}
	code("get.nobody", "", "", projection.CodeNotFound)
	code("get.=1", "", "", projection.CodeInvalid)
	code("get.a1", "", "what?", projection.CodeInvalid)
	code("list", "{", "", projection.CodeInvalid)
	code("list", `{"after":"9-1"}`, "", projection.CodeExpired)
	if _, err := projection.NewQueryClient[account](nc, f.store.Name(), "nothing").Get(t.Context(), "a"); !errors.Is(err, projection.ErrUnavailable) {
		t.Errorf("nobody answers: %v", err)
	}
}
