package main

import (
	"encoding/json"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/rossby-go/rossby/test/torture/check"
)

// receiver is the outside world: it keeps what followers tell it, in order. Of
// some events it refuses the first telling, and of some it takes it without an
// answer, or takes its time.
type receiver struct {
	*httptest.Server

	began time.Time

	mu      sync.Mutex
	handled []check.Handled
	met     map[string]bool
	refused int
	dropped map[string]int // by follower
}

func newReceiver(began time.Time) *receiver {
	r := &receiver{began: began, met: map[string]bool{}, dropped: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	return r
}

// One in so many events is refused, or taken without an answer, or answered late,
// the first time.
const (
	refuseOneIn = 16
	dropOneIn   = 17
	slowOneIn   = 9
	slowFor     = 80 * time.Millisecond
)

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	var h check.Handled
	if err := json.NewDecoder(req.Body).Decode(&h); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(h.EventID + h.Follower))
	n := sum.Sum32()
	r.mu.Lock()
	first := !r.met[h.EventID+h.Follower]
	r.met[h.EventID+h.Follower] = true
	if first && n%refuseOneIn == 0 {
		r.refused++
		r.mu.Unlock()
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	h.At = time.Since(r.began).Nanoseconds()
	r.handled = append(r.handled, h)
	drop := first && n%dropOneIn == 0
	if drop {
		r.dropped[h.Follower]++
	}
	r.mu.Unlock()
	if first && n%slowOneIn == 0 {
		pause(req.Context(), slowFor)
	}
	if drop {
		panic(http.ErrAbortHandler) // the way to end a connection without an answer
	}
	w.WriteHeader(http.StatusNoContent)
}

// all is what was told so far, and of a follower only.
func (r *receiver) all(follower string) []check.Handled {
	r.mu.Lock()
	defer r.mu.Unlock()
	if follower == "" {
		return slices.Clone(r.handled)
	}
	var some []check.Handled
	for _, h := range r.handled {
		if h.Follower == follower {
			some = append(some, h)
		}
	}
	return some
}

// busy tells whether a process has told something of a follower lately.
func (r *receiver) busy(follower, instance string, lately time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := (time.Since(r.began) - lately).Nanoseconds()
	for _, h := range slices.Backward(r.handled) {
		if h.At < since {
			return false
		}
		if h.Follower == follower && h.Instance == instance {
			return true
		}
	}
	return false
}

// has tells whether a follower has handled an event of an aggregate.
func (r *receiver) has(follower, aggregate string, version uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range slices.Backward(r.handled) {
		if h.Follower == follower && h.Aggregate == aggregate && h.Version == version {
			return true
		}
	}
	return false
}

// droppedOf is how many tellings of a follower were taken without an answer.
func (r *receiver) droppedOf(follower string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped[follower]
}
