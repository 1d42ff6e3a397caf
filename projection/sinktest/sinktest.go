// Package sinktest holds what every [projection.Sink] must do, as tests that a
// sink's own tests run against its database:
//
//	func TestSink(t *testing.T) {
//		sinktest.Run(t, sinktest.Backend[*sql.Tx]{Open: …, Put: …, Get: …})
//	}
package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/projection"
)

// Backend is the database under test, empty or not: every test uses names and
// keys of its own.
type Backend[T any] struct {
	// Open returns a sink with a connection of its own; all of them use the same
	// database.
	Open func(t *testing.T) projection.Sink[T]
	// Put writes a value under a key with a transaction of the sink.
	Put func(ctx context.Context, tx T, key, value string) error
	// Get reads what is committed under a key, "" for nothing.
	Get func(ctx context.Context, key string) (string, error)
}

// Run runs the tests.
func Run[T any](t *testing.T, b Backend[T]) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Backend[T]){
		"RecordAndRowsTogether": together[T],
		"OtherRevision":         otherRevision[T],
		"ApplyFails":            applyFails[T],
		"ContextEnds":           contextEnds[T],
		"ContextEndsWithin":     contextEndsWithin[T],
		"NamesApart":            namesApart[T],
		"LargeRecord":           largeRecord[T],
		"NotSeenBefore":         notSeenBefore[T],
		"OneOfMany":             oneOfMany[T],
		"Transient":             transient[T],
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// name is a record's name, and a key, of this test.
func name(t *testing.T) string {
	t.Helper()
	return strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
}

func record[T any](t *testing.T, s projection.Sink[T], name string, revision uint64, data string) {
	t.Helper()
	r, err := s.Load(t.Context(), name)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if r.Revision != revision || string(r.Data) != data {
		t.Errorf("the record is at revision %d with data %q, wanted %d and %q", r.Revision, r.Data, revision, data)
	}
}

func row[T any](t *testing.T, b Backend[T], key, want string) {
	t.Helper()
	got, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	if got != want {
		t.Errorf("the row holds %q, wanted %q", got, want)
	}
}

func (b Backend[T]) put(ctx context.Context, key, value string) func(tx T) error {
	return func(tx T) error { return b.Put(ctx, tx, key, value) }
}

func together[T any](t *testing.T, b Backend[T]) {
	s, key := b.Open(t), name(t)
	record(t, s, key, 0, "")
	for i := range 3 {
		value := strconv.Itoa(i + 1)
		err := s.Transact(t.Context(), key, uint64(i), []byte(`{"n":`+value+`}`), b.put(t.Context(), key, value))
		if err != nil {
			t.Fatalf("Transact: %v", err)
		}
		record(t, s, key, uint64(i+1), `{"n":`+value+`}`)
		record(t, b.Open(t), key, uint64(i+1), `{"n":`+value+`}`)
		row(t, b, key, value)
	}
}

func otherRevision[T any](t *testing.T, b Backend[T]) {
	s, key := b.Open(t), name(t)
	write := func(expected uint64) error {
		return s.Transact(t.Context(), key, expected, []byte("{}"), func(tx T) error {
			return b.Put(t.Context(), tx, key, strconv.FormatUint(expected, 10))
		})
	}
	for _, expected := range []uint64{1, 7} {
		if err := write(expected); !errors.Is(err, projection.ErrSinkConflict) {
			t.Errorf("expecting revision %d of no record: %v, wanted ErrSinkConflict", expected, err)
		}
	}
	record(t, s, key, 0, "")
	for expected := range uint64(2) {
		if err := write(expected); err != nil {
			t.Fatalf("Transact: %v", err)
		}
	}
	for _, expected := range []uint64{0, 1, 3} {
		called := false
		err := s.Transact(t.Context(), key, expected, []byte(`"other"`), func(tx T) error {
			called = true
			return b.Put(t.Context(), tx, key, "other")
		})
		if !errors.Is(err, projection.ErrSinkConflict) || called {
			t.Errorf("expecting %d of revision 2: %v, apply was called: %v; wanted ErrSinkConflict and no call",
				expected, err, called)
		}
	}
	record(t, s, key, 2, "{}")
	row(t, b, key, "1")
}

func applyFails[T any](t *testing.T, b Backend[T]) {
	s, key := b.Open(t), name(t)
	failed := errors.New("failed")
	for expected := range uint64(2) {
		err := s.Transact(t.Context(), key, expected, []byte(`"not"`), func(tx T) error {
			return errors.Join(b.Put(t.Context(), tx, key, "not"), failed)
		})
		if !errors.Is(err, failed) {
			t.Errorf("Transact: %v, wanted apply's error", err)
		}
		want := ""
		if expected > 0 {
			want = `"kept"`
		}
		record(t, s, key, expected, want)
		row(t, b, key, strings.Trim(want, `"`))
		if expected == 0 { // The sink can still be used.
			if err := s.Transact(t.Context(), key, 0, []byte(`"kept"`), b.put(t.Context(), key, "kept")); err != nil {
				t.Fatalf("Transact: %v", err)
			}
		}
	}
}

func contextEnds[T any](t *testing.T, b Backend[T]) {
	s, key := b.Open(t), name(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Transact(ctx, key, 0, []byte("{}"), func(tx T) error {
		err := b.Put(ctx, tx, key, "not")
		cancel()
		return errors.Join(err, ctx.Err())
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Transact: %v, wanted context.Canceled", err)
	}
	if err := s.Transact(ctx, key, 0, []byte("{}"), b.put(ctx, key, "not")); err == nil {
		t.Error("Transact with a context that has ended gave no error")
	}
	record(t, s, key, 0, "")
	row(t, b, key, "")
	for { // The transaction may still be on its way back, and lock what it has written.
		err := s.Transact(t.Context(), key, 0, []byte("{}"), b.put(t.Context(), key, "kept"))
		if err == nil {
			break
		}
		if !s.Transient(err) || t.Context().Err() != nil {
			t.Errorf("Transact after that: %v", err)
			break
		}
	}
	row(t, b, key, "kept")
}

// contextEndsWithin: a transaction whose context has ended keeps nobody waiting,
// even if apply does not come back, and is never committed.
func contextEndsWithin[T any](t *testing.T, b Backend[T]) {
	s, other, key := b.Open(t), b.Open(t), name(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Transact(ctx, key, 0, []byte(`"not"`), func(tx T) error {
			err := b.Put(ctx, tx, key, "not")
			close(begun)
			<-release
			return err
		})
	}()
	<-begun
	cancel()
	for {
		err := other.Transact(t.Context(), key, 0, []byte(`"kept"`), b.put(t.Context(), key, "kept"))
		if err == nil {
			break
		}
		if !other.Transient(err) || t.Context().Err() != nil {
			t.Errorf("Transact: %v", err)
			break
		}
	}
	close(release)
	if err := <-ended; err == nil {
		t.Error("a transaction whose context had ended was committed")
	}
	record(t, s, key, 1, `"kept"`)
	row(t, b, key, "kept")
}

func namesApart[T any](t *testing.T, b Backend[T]) {
	s, key := b.Open(t), name(t)
	names := []string{key, key + "_control", strings.Repeat("n", 150)}
	for i, n := range names {
		if err := s.Transact(t.Context(), n, 0, []byte(strconv.Itoa(i)), b.put(t.Context(), key, "x")); err != nil {
			t.Fatalf("Transact: %v", err)
		}
	}
	for i, n := range names {
		record(t, s, n, 1, strconv.Itoa(i))
	}
}

func largeRecord[T any](t *testing.T, b Backend[T]) {
	s, key := b.Open(t), name(t)
	data := []byte(`"` + string(bytes.Repeat([]byte("ä"), 200<<10)) + `"`)
	if err := s.Transact(t.Context(), key, 0, data, b.put(t.Context(), key, "x")); err != nil {
		t.Fatalf("Transact: %v", err)
	}
	record(t, s, key, 1, string(data))
}

// notSeenBefore: nobody sees rows or record before the commit.
func notSeenBefore[T any](t *testing.T, b Backend[T]) {
	s, other, key := b.Open(t), b.Open(t), name(t)
	err := s.Transact(t.Context(), key, 0, []byte("{}"), func(tx T) error {
		if err := b.Put(t.Context(), tx, key, "x"); err != nil {
			return err
		}
		record(t, other, key, 0, "")
		row(t, b, key, "")
		return nil
	})
	if err != nil {
		t.Fatalf("Transact: %v", err)
	}
	record(t, other, key, 1, "{}")
	row(t, b, key, "x")
}

// oneOfMany: of those that expect the same revision at the same time one wins, and
// the others say so, or that the database was busy.
func oneOfMany[T any](t *testing.T, b Backend[T]) {
	const writers, rounds = 4, 10
	s, key := b.Open(t), name(t)
	sinks := make([]projection.Sink[T], writers)
	for i := range sinks {
		sinks[i] = b.Open(t)
	}
	for round := range uint64(rounds) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var winners []string
		for i, sink := range sinks {
			wg.Go(func() {
				me := fmt.Sprint(round, "-", i)
				for {
					err := sink.Transact(t.Context(), key, round, []byte(`"`+me+`"`), b.put(t.Context(), key, me))
					switch {
					case err == nil:
						mu.Lock()
						winners = append(winners, me)
						mu.Unlock()
						return
					case errors.Is(err, projection.ErrSinkConflict):
						return
					case !sink.Transient(err) || t.Context().Err() != nil:
						t.Errorf("Transact beside others: %v, wanted ErrSinkConflict or an error that is transient", err)
						return
					}
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d writers have won: %q", len(winners), winners)
		}
		record(t, s, key, round+1, `"`+winners[0]+`"`)
		row(t, b, key, winners[0])
	}
}

func transient[T any](t *testing.T, b Backend[T]) {
	s := b.Open(t)
	for _, err := range []error{errors.New("no such account"), projection.ErrSinkConflict} {
		if s.Transient(err) || s.Transient(fmt.Errorf("credited: %w", err)) {
			t.Errorf("%q is transient, wanted not: its event would be tried for ever", err)
		}
	}
}
