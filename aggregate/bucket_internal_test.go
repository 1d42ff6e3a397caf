package aggregate

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Every aggregate id has a key of its own, which NATS accepts in a bucket, and
// which tells the id.
func TestKeysTellIDs(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^[-/_=.a-zA-Z0-9]+$`)
	seen := map[string]string{}
	for _, id := range []string{
		"a1", "A1", "a=31", "=", "==", "=3D", "a/b", "a:b", "Customer:5/$@", "ü", "a~b", "a\\b", "\"", "%41", "-_",
		strings.Repeat("ü", 64), jetstream.NewID(),
	} {
		if err := jetstream.ValidateID(id); err != nil {
			t.Fatal(err)
		}
		key := protocol.StateKey(id)
		if other, taken := seen[key]; taken || !valid.MatchString(key) || strings.Contains(key, ".") {
			t.Errorf("%q has key %q (%q)", id, key, other)
		}
		seen[key] = id
		var back []byte
		for i := 0; i < len(key); i++ {
			c := key[i]
			if c == '=' {
				n, err := strconv.ParseUint(key[i+1:i+3], 16, 8)
				if err != nil {
					t.Fatal(key, err)
				}
				c, i = byte(n), i+2
			}
			back = append(back, c)
		}
		if string(back) != id {
			t.Errorf("%q has key %q, which says %q", id, key, back)
		}
	}
}

// What waits to be written is bounded in number and bytes, and of one aggregate
// only the newest waits.
func TestWaitingStatesAreBounded(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := newStates(store, "f", "notes", RepositoryConfig{Logger: slog.New(slog.DiscardHandler)})
	s.writing = true // by somebody who is stuck
	at := func(sequence uint64, size int) base {
		return base{data: make([]byte, size), head: jetstream.Head{CommitID: "c", Sequence: sequence, Ordinal: 1, Version: 1}}
	}
	total := func() (n int) {
		for _, b := range s.waiting {
			n += len(b.data)
		}
		return n
	}
	for _, sequence := range []uint64{5, 9, 7} {
		s.offer("a1", at(sequence, int(sequence)))
	}
	if len(s.waiting) != 1 || s.waiting["a1"].head.Sequence != 9 || s.bytes != 9 {
		t.Errorf("%d wait, %d bytes: %+v", len(s.waiting), s.bytes, s.waiting["a1"].head)
	}
	for i := range 2 * waitingStates {
		s.offer(fmt.Sprint("b", i), at(1, 10))
	}
	if len(s.waiting) != waitingStates || s.bytes != total() {
		t.Errorf("%d wait, %d bytes, not %d", len(s.waiting), s.bytes, total())
	}
	s.offer("a1", at(10, 20)) // in place of its older one
	if s.waiting["a1"].head.Sequence != 10 {
		t.Error("a newer state of one that waits is refused")
	}
	for range waitingStates {
		s.next()
	}
	s.writing = true
	for i := range 100 {
		s.offer(fmt.Sprint("c", i), at(1, 1_000_000))
	}
	if s.bytes > waitingBytes || s.bytes != total() || len(s.waiting) != waitingBytes/1_000_000 {
		t.Errorf("%d wait, %d bytes, not %d", len(s.waiting), s.bytes, total())
	}
	// The writer that is no longer stuck writes them all, and ends. What takes the server
	// too long is left out: then once more.
	all := maps.Clone(s.waiting)
	natstest.Eventually(t, "they are written", func() error {
		s.write()
		if len(s.waiting) != 0 || s.bytes != 0 || s.writing {
			t.Errorf("%d wait, %d bytes", len(s.waiting), s.bytes)
		}
		for id := range all {
			if _, found := s.get(t.Context(), id, false); !found {
				s.reads, s.writes, s.writing = outage{}, outage{}, true
				for id, b := range all {
					s.offer(id, b)
				}
				return errors.New(id + " was not written")
			}
		}
		return nil
	})
	// Without the connection it gives up at once.
	nc.Close()
	s.writing = true
	for i := range 10 {
		s.offer(fmt.Sprint("d", i), at(1, 10))
	}
	s.write()
	if len(s.waiting) != 0 || s.bytes != 0 || s.writing || s.writes.wait == 0 {
		t.Errorf("%d wait, %d bytes", len(s.waiting), s.bytes)
	}
}

// A bucket that could not be written, since slow servers had not made it in time, is
// tried again soon, and then less often; what loads wait for is left alone for longer.
func TestBucketIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	store, err := jetstream.Open(t.Context(), natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := newStates(store, "f", "notes", RepositoryConfig{Logger: slog.New(slog.DiscardHandler)})
	fails := func(err error, o *outage) time.Duration {
		s.fail("write", err, o)
		if left := time.Until(o.until); left > o.wait || left < o.wait-natstest.Patience {
			t.Errorf("left alone for %v, not %v", left, o.wait)
		}
		return o.wait / time.Second
	}
	slow := errors.New("too slow")
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if got := fails(slow, &s.writes); got != want {
			t.Errorf("failure %d: %d s, want %d", i+1, got, want)
		}
	}
	b := base{data: []byte("x"), head: jetstream.Head{CommitID: "c", Sequence: 1, Ordinal: 1, Version: 1}}
	natstest.Eventually(t, "it is written", func() error { return s.put("a1", &b) })
	if got := fails(slow, &s.writes); got != 1 {
		t.Errorf("after a success: %d s", got)
	}
	if got := fails(&wire.PermissionError{Op: "publish", Cause: nats.ErrPermissionViolation}, &s.writes); got != 30 {
		t.Errorf("denied: %d s", got)
	}
	if got := fails(slow, &s.reads); got != 30 {
		t.Errorf("a read: %d s", got)
	}
}
