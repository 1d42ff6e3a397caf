package aggregate

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// What the cache counts is what it takes, to a third. Not parallel: the heap is
// everybody's.
func TestCacheCountsWhatItTakes(t *testing.T) { //nolint:paralleltest // measures the process's memory
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	size := 4
	if testing.Short() {
		size = 1
	}
	for _, c := range []struct {
		name                              string
		entries, state, commits, commands int
	}{
		{"small", 5_000 * size, 100, 1, 1},
		{"busy", 25 * size, 1000, 2000, 1},
		{"grouped", 2, 100, 500 * size, 200},
		{"large", 125 * size, 50_000, 1, 1},
	} {
		before := heap()
		kept, err := newCache(1 << 30)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		for i := range c.entries {
			id := fmt.Sprint("aggregate-", i)
			e := kept.keep(id, newEntry(0, 1<<30))
			decisions := make([]jetstream.Decision, c.commands)
			for n := 1; n <= c.commits; n++ {
				for k := range decisions {
					decisions[k].CommandID = jetstream.NewCommandID()
				}
				e.recent.add(&jetstream.Commit{
					Head: jetstream.Head{Sequence: uint64(n)}, PreviousSequence: uint64(n - 1), Time: now,
					Decisions: decisions,
				})
			}
			e.set(&view{state: make([]byte, c.state), head: jetstream.Head{CommitID: fmt.Sprint(id, "-commit")}, recent: e.recent})
			kept.charge(id, e)
		}
		took := heap() - before
		entries, counted, _ := kept.figures()
		t.Logf("%s: %d entries take %d bytes, counted %d (%.2f)", c.name, entries, took, counted, float64(took)/float64(counted))
		if entries != c.entries || took > counted*4/3 || took < counted/2 {
			t.Errorf("%s: %d entries take %d bytes, counted %d", c.name, entries, took, counted)
		}
		runtime.KeepAlive(kept)
	}
}
