package aggregate

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// commitAt is the n-th commit of a history whose sequences are multiples of ten.
func commitAt(n int, at time.Time) *jetstream.Commit {
	return &jetstream.Commit{
		Head: jetstream.Head{Sequence: uint64(10 * n)}, PreviousSequence: uint64(10 * (n - 1)), Time: at,
		Decisions: []jetstream.Decision{{CommandID: strconv.Itoa(n)}},
	}
}

func looked(r *recent, n int, b bound) string {
	seq, found, gaps := r.find(key{command: strconv.Itoa(n)}, b)
	if found {
		return strconv.FormatUint(seq, 10)
	}
	return fmt.Sprint(gaps)
}

func TestRecent(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	want := func(t *testing.T, r *recent, n int, b bound, want string) {
		t.Helper()
		if got := looked(r, n, b); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}

	t.Run("Gaps", func(t *testing.T) {
		t.Parallel()
		r := newRecent(1 << 30)
		want(t, r, 1, bound{}, "[]")
		for _, n := range []int{5, 6, 7, 12, 13} { // 8 to 11 are another process's
			r.add(commitAt(n, start))
		}
		r.add(commitAt(12, start)) // known already
		want(t, r, 6, bound{}, "60")
		want(t, r, 13, bound{}, "130")
		want(t, r, 9, bound{}, "[{110 70} {40 0}]")
		want(t, r, 9, bound{after: 110}, "[]")
		want(t, r, 9, bound{after: 70}, "[{110 70}]")
		want(t, r, 9, bound{after: 40}, "[{110 70}]")
		want(t, r, 9, bound{since: start.Add(time.Second)}, "[]")
		// A walk that did not reach the older stretch.
		r.join([]remembered{r.remember(commitAt(11, start)), r.remember(commitAt(10, start))})
		want(t, r, 10, bound{}, "100")
		want(t, r, 9, bound{}, "[{90 70} {40 0}]")
		// One that was overtaken changes nothing.
		r.join([]remembered{r.remember(commitAt(11, start))})
		want(t, r, 9, bound{}, "[{90 70} {40 0}]")
		r.join([]remembered{r.remember(commitAt(9, start)), r.remember(commitAt(8, start))})
		want(t, r, 3, bound{}, "[{40 0}]")
		want(t, r, 8, bound{}, "80")
		r.join([]remembered{r.remember(commitAt(4, start)), r.remember(commitAt(3, start)), r.remember(commitAt(2, start)), r.remember(commitAt(1, start))})
		want(t, r, 99, bound{}, "[]") // the whole history
		if len(r.items) != 13 || len(r.index) != 13 || r.older != nil {
			t.Error(len(r.items), len(r.index), r.older)
		}
	})

	t.Run("LongerStretchIsKept", func(t *testing.T) {
		t.Parallel()
		r := newRecent(1 << 30)
		for n := 1; n <= 5; n++ {
			r.add(commitAt(n, start))
		}
		r.add(commitAt(8, start))
		r.add(commitAt(11, start)) // 8 is given up, 1 to 5 are not
		want(t, r, 8, bound{}, "[{100 50}]")
		want(t, r, 3, bound{}, "30")
		if len(r.index) != 6 {
			t.Error(len(r.index))
		}
	})

	t.Run("TheLastMinutesStay", func(t *testing.T) {
		t.Parallel()
		r := newRecent(1 << 30)
		const all = 5000
		at := func(n int) time.Time { return start.Add(time.Duration(n) * 100 * time.Millisecond) }
		for n := 1; n <= all; n++ {
			r.add(commitAt(n, at(n)))
		}
		// An id made now is answered without a read, one of the last minutes, too.
		want(t, r, 0, bound{since: at(all).Add(-commandSkew)}, "[]")
		want(t, r, all-1000, bound{since: at(all - 1000).Add(-commandSkew)}, strconv.Itoa(10*(all-1000)))
		if n := len(r.items); n < 1200 || n > 1300 || n != len(r.index) {
			t.Error(n, len(r.index))
		}
		// What a trigger looks for stays as long as triggers look that far.
		want(t, r, 0, bound{after: 10 * (all - 1000)}, "[]")
		for n := all + 1; n <= 2*all; n++ {
			r.add(commitAt(n, at(n)))
		}
		if n := len(r.items); n != all+1000 {
			t.Error(n)
		}
		want(t, r, 0, bound{after: 10 * 2 * all}, "[]")
		r.add(commitAt(2*all+1, at(2*all+1)))
		if n := len(r.items); n > 1300 {
			t.Error(n)
		}
	})

	t.Run("Bounded", func(t *testing.T) {
		t.Parallel()
		const most = 400 * (rememberedBytes + keyBytes)
		r := newRecent(most)
		r.find(key{command: "x"}, bound{}) // wants everything
		for n := 1; n <= 2000; n++ {
			r.add(commitAt(n, start)) // all at once: ids may be of the last minute
		}
		if len(r.items) != 400 || len(r.index) != 400 || r.bytes != most {
			t.Error(len(r.items), len(r.index), r.bytes)
		}
		want(t, r, 1, bound{}, "[{16000 0}]")
		r.join([]remembered{r.remember(commitAt(1600, start))}) // no room
		want(t, r, 1, bound{}, "[{16000 0}]")
		// What is older than a minute makes do with a quarter.
		r.add(commitAt(2001, start.Add(rememberSurely+time.Second)))
		if len(r.items) != 100 || r.bytes != most/4 {
			t.Error(len(r.items), r.bytes)
		}
	})

	t.Run("OneHashTwice", func(t *testing.T) {
		t.Parallel()
		r := newRecent(1 << 30)
		for n := 1; n <= 3; n++ {
			r.add(commitAt(n, start))
		}
		r.note([]remembered{{sequence: 40, keys: []hashed{r.hash(key{command: "2"})}}})
		want(t, r, 2, bound{}, "[{30 0}]") // both must be read
		want(t, r, 3, bound{}, "30")
	})
}

func TestLanesLeaveNothing(t *testing.T) {
	t.Parallel()
	var l lanes
	first := l.enter(t.Context(), "a", request{})
	if !first.alone || !l.enter(t.Context(), "b", request{}).alone {
		t.Error("a free aggregate was not given")
	}
	waiting := make([]*ticket, 0, 5)
	for range 5 {
		waiting = append(waiting, l.enter(t.Context(), "a", request{}))
	}
	if l.length() != 5 || waiting[0].alone {
		t.Error(l.length())
	}
	group := l.next("a", 3)
	if !slices.Equal(group, waiting[:3]) {
		t.Error("not the first three")
	}
	l.back("a", group[1:])
	if !slices.Equal(l.next("a", 10), waiting[1:]) {
		t.Error("not the others, in order")
	}
	if l.next("a", 10) != nil || l.next("b", 10) != nil || len(l.waiting) != 0 {
		t.Error(l.waiting)
	}
}
