package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rossby-go/rossby/test/torture/check"
)

// history is what clients saw.
type history struct {
	began time.Time

	mu       sync.Mutex
	ops      []check.Op
	elements []check.Element
	alarms   []string // what no client must ever see
	faults   []fault
	windows  []check.Window
	views    int // reads of views that had to be as new as a write
	stale    int // those that gave up
}

// fault is one disturbance: when it began and ended, and how long it took until
// everything worked again.
type fault struct {
	Name      string        `json:"name"`
	From      int64         `json:"from"`
	To        int64         `json:"to"`
	Recovered time.Duration `json:"recovered"`
	// Leaders is how much of that it took until the servers had elected leaders.
	Leaders time.Duration `json:"leaders"`
	// Steps are when each step of the recovery was made: leaders of JetStream, streams
	// and consumers, the commands, followers and the view.
	Steps map[string]time.Duration `json:"steps,omitempty"`
	// Count is how many times something was done: kills, cuts.
	Count int    `json:"count"`
	Error string `json:"error,omitempty"`
}

func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

func (h *history) op(o check.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

func (h *history) element(e check.Element) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.elements = append(h.elements, e)
}

func (h *history) alarm(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.alarms) < 20 && !slices.Contains(h.alarms, text) {
		h.alarms = append(h.alarms, text)
	}
}

func (h *history) view(fresh bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.views++; !fresh {
		h.stale++
	}
}

// save keeps everything in a directory, for whoever looks for the cause.
func (h *history) save(dir string, handled []check.Handled, stored []check.Stored) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(
		lines(filepath.Join(dir, "operations.jsonl"), h.ops), lines(filepath.Join(dir, "elements.jsonl"), h.elements),
		lines(filepath.Join(dir, "faults.jsonl"), h.faults), lines(filepath.Join(dir, "handled.jsonl"), handled),
		lines(filepath.Join(dir, "stored.jsonl"), stored), lines(filepath.Join(dir, "windows.jsonl"), h.windows),
	)
}

func lines[T any](path string, items []T) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	e := json.NewEncoder(w)
	for i := range items {
		if err := e.Encode(items[i]); err != nil {
			return err
		}
	}
	return w.Flush()
}
