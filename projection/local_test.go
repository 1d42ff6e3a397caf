package projection_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

func local(t testing.TB, r *projection.Reader[account], cfg projection.LocalConfig) *projection.LocalView[account] {
	t.Helper()
	l, err := projection.NewLocalView(t.Context(), r, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestLocalView(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"})
	f.append("a2", opened{Owner: "bob"})
	f.append("b1", opened{Owner: "cid"})
	up := start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	get(t, r, "b1", projection.AtLeast(f.last))
	l := local(t, r, projection.LocalConfig{Prefix: "a"})
	if s := l.Status(); s.Keys != 2 || !s.Complete || s.Position != f.last || s.Generation != 1 || s.Bytes == 0 || !s.Connected ||
		s.Err != nil || time.Since(s.Checked) > natstest.Patience || time.Since(s.Written) > natstest.Patience {
		t.Errorf("%+v", s)
	}
	want := get(t, r, "a1")
	if e, err := l.Get(t.Context(), "a1"); err != nil || e.Value.Owner != "ann" || e.ETag() != want.ETag() || e.Position != want.Position || !e.Time.Equal(want.Time) {
		t.Errorf("%+v, %v; %+v", e, err, want)
	}
	// What was not asked to be held is there all the same.
	if e, err := l.Get(t.Context(), "b1"); err != nil || e.Value.Owner != "cid" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := l.Get(t.Context(), "a3"); !errors.Is(err, projection.ErrNotFound) || e.Key != "a3" || e.Position != f.last {
		t.Errorf("%+v, %v", e, err)
	}
	if _, ok := errors.AsType[*projection.KeyError](second(local(t, r, projection.LocalConfig{}).Get(t.Context(), ""))); !ok {
		t.Error("an empty key: no error")
	}
	// Its own writes, in every order.
	for i := range 50 {
		pos := f.append("a1", credited{Cents: 1})
		if e, err := l.Get(t.Context(), "a1", projection.AtLeast(pos)); err != nil || e.Value.Cents != int64(i+1) || e.Position != pos {
			t.Fatalf("%d: %+v, %v", i, e, err)
		}
	}
	pos := f.append("a2", closed{})
	if e, err := l.Get(t.Context(), "a2", projection.AtLeast(pos)); !errors.Is(err, projection.ErrNotFound) {
		t.Errorf("%+v, %v", e, err)
	}
	if at, err := l.Position(t.Context(), projection.AtLeast(pos)); err != nil || at != pos {
		t.Errorf("%v, %v", at, err)
	}
	// Behind.
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	later := f.append("a1", credited{Cents: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var stale *projection.StaleError
	if _, err := l.Get(ctx, "a1", projection.AtLeast(later)); !errors.As(err, &stale) || stale.Behind != 1 || stale.Position != pos {
		t.Errorf("%+v", err)
	}
	var foreign *jetstream.ForeignPositionError
	if _, err := l.Get(t.Context(), "a1", projection.AtLeast(position(t, "elsewhere-7"))); !errors.As(err, &foreign) {
		t.Errorf("%v", err)
	}
	// After its end it is a reader.
	l.Close()
	if s := l.Status(); !errors.Is(s.Err, context.Canceled) || s.Complete || s.Keys != 0 {
		t.Errorf("%+v", s)
	}
	if e, err := l.Get(t.Context(), "a1"); err != nil || e.Value.Cents != 50 {
		t.Errorf("%+v, %v", e, err)
	}
	if err := (projection.LocalConfig{MaxBytes: -1, MaxKeys: -1}).Validate(); err == nil || !strings.Contains(err.Error(), "MaxKeys") || !strings.Contains(err.Error(), "MaxBytes") {
		t.Errorf("%v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func position(t testing.TB, text string) jetstream.Position {
	t.Helper()
	p, err := jetstream.ParsePosition(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLocalViewFull: what finds no room is read from the bucket, and is never older
// than it was, whatever is deleted and made again.
func TestLocalViewFull(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const keys = 20
	for i := range keys {
		f.append(id(i), opened{Owner: fmt.Sprint("o", i)})
	}
	start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	get(t, r, "a0", projection.AtLeast(f.last))
	for name, cfg := range map[string]projection.LocalConfig{"keys": {MaxKeys: 7}, "bytes": {MaxBytes: 7 * 400}} {
		l := local(t, r, cfg)
		check := func(want map[int]int64) {
			t.Helper()
			if s := l.Status(); s.Complete || s.Keys == 0 || s.Keys > 7 || cfg.MaxBytes > 0 && s.Bytes > cfg.MaxBytes {
				t.Errorf("%s: %+v", name, s)
			}
			for i := range keys {
				e, err := l.Get(t.Context(), id(i), projection.AtLeast(f.last))
				if want[i] < 0 && !errors.Is(err, projection.ErrNotFound) || want[i] >= 0 && (err != nil || e.Value.Cents != want[i]) {
					t.Errorf("%s: %s is %+v, %v; wanted %d", name, id(i), e, err, want[i])
				}
			}
			if _, err := l.Get(t.Context(), "nobody"); !errors.Is(err, projection.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		want := map[int]int64{}
		check(want)
		for i := range keys {
			f.append(id(i), credited{Cents: 5})
			want[i] = 5
		}
		check(want)
		for i := range keys / 2 {
			f.append(id(i), closed{})
			want[i] = -1
		}
		check(want)
		for i := range keys {
			f.append(id(i), opened{Owner: "again"})
			want[i] = max(want[i], 0)
		}
		check(want)
		for i := range keys {
			f.append(id(i), closed{}, opened{Owner: fmt.Sprint("o", i)})
		}
		l.Close()
	}
}

// TestLocalViewIsOneSnapshot: of a lookup view, whose commits move between keys what
// must add up, no two keys are ever seen apart.
func TestLocalViewIsOneSnapshot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	def := projection.NewLookup("pair", projection.OnTx(accountEvents, func(tx *projection.Tx[account], e moved, _ jetstream.Meta) error {
		from, _ := tx.Get(e.From)
		to, _ := tx.Get(e.To)
		from.Cents -= e.Cents
		to.Cents += e.Cents
		from.Events++
		to.Events++
		tx.Put(e.From, from)
		tx.Put(e.To, to)
		return nil
	}))
	start(t, f.store, def, quiet())
	f.append("x", moved{From: "a", To: "b", Cents: 1})
	r := reader[account](t, f, "pair")
	get(t, r, "a", projection.AtLeast(f.last))
	l := local(t, r, projection.LocalConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	reads := 0
	wg.Go(func() {
		for paced(ctx, 100*time.Microsecond) {
			// b is read after a: its position is the same only if nothing came between.
			a, err1 := l.Get(ctx, "a")
			b, err2 := l.Get(ctx, "b")
			if err := errors.Join(err1, err2); err != nil {
				t.Error(err)
				return
			}
			if a.Position == b.Position && (a.Value.Cents+b.Value.Cents != 0 || a.Value.Events != b.Value.Events) {
				t.Errorf("%+v, %+v", a, b)
				return
			}
			reads++
		}
	})
	for range 300 {
		f.append("x", moved{From: "a", To: "b", Cents: 1})
	}
	if e, err := l.Get(t.Context(), "b", projection.AtLeast(f.last)); err != nil || e.Value.Cents != 301 {
		t.Errorf("%+v, %v", e, err)
	}
	cancel()
	wg.Wait()
	t.Logf("%d reads", reads)
}

// TestLocalViewOfOtherValues: values that V cannot hold are errors of their keys.
func TestLocalViewOfOtherValues(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"})
	start(t, f.store, accounts(), quiet())
	get(t, reader[account](t, f, "accounts"), "a1", projection.AtLeast(f.last))
	type other struct {
		Owner int `json:"owner"`
	}
	r := reader[other](t, f, "accounts")
	l, err := projection.NewLocalView(t.Context(), r, projection.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var bad *projection.ValueError
	if _, err := l.Get(t.Context(), "a1"); !errors.As(err, &bad) || bad.Key != "a1" {
		t.Error(err)
	}
	// A watch ends there.
	var ended error
	for _, err := range r.Watch(t.Context(), projection.WatchOptions{}) {
		ended = err
	}
	if !errors.As(ended, &bad) {
		t.Error(ended)
	}
}

// BenchmarkLocalGet is what a read of a local view costs.
func BenchmarkLocalGet(b *testing.B) {
	f := newFixture(b)
	for i := range 100 {
		f.append(id(i), opened{Owner: "o"})
	}
	start(b, f.store, accounts(), quiet())
	r := reader[account](b, f, "accounts")
	get(b, r, "a1", projection.AtLeast(f.last))
	l := local(b, r, projection.LocalConfig{})
	ctx := b.Context()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := l.Get(ctx, "a50"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLocalGetAllocatesNothing: neither does a read that finds nothing.
func TestLocalGetAllocatesNothing(t *testing.T) { //nolint:paralleltest // allocations are counted
	f := newFixture(t)
	f.append("a1", opened{Owner: "o"})
	start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	get(t, r, "a1", projection.AtLeast(f.last))
	l := local(t, r, projection.LocalConfig{})
	for _, key := range []string{"a1", "nobody"} {
		// What the server and the updater allocate meanwhile counts, too.
		natstest.Eventually(t, "a read of "+key+" allocates nothing", func() error {
			if n := testing.AllocsPerRun(1000, func() { _, _ = l.Get(t.Context(), key) }); n != 0 {
				return fmt.Errorf("%v allocations", n)
			}
			return nil
		})
	}
}
