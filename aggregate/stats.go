package aggregate

import "sync/atomic"

// GroupSizes are the upper bounds of the buckets of [Stats.Groups]: commits of one
// decision, of two, of three or four, and so on; the last bucket has no bound.
func GroupSizes() []int { return []int{1, 2, 4, 8, 16, 32, 64, 128, 256} }

const groupBuckets = 10

// Stats counts what a repository did since it was made. Counters only grow.
type Stats struct {
	// Commands are those that Execute, Create and ExecuteFunc were called with.
	Commands uint64
	// Commits are those stored; Decisions the decisions in them, more when commands
	// were grouped.
	Commits, Decisions uint64
	// Groups counts the commits by the number of their decisions: Groups[i] those
	// of up to GroupSizes()[i].
	Groups [groupBuckets]uint64
	// Conflicts are appends that another writer came before, Retries decisions that
	// were made again: after a conflict, or because a refusal had been decided upon
	// an old state.
	Conflicts, Retries uint64
	// Duplicates are commands and triggers that had been handled before.
	Duplicates uint64
	// Refusals are commands that ended in a refusal: rejected, not found, exists
	// already, another version.
	Refusals uint64
	// Unknown are commands whose outcome is unknown.
	Unknown uint64
	// Withdrawn are commands whose context ended while they waited for others:
	// nothing of them was sent.
	Withdrawn uint64
	// CacheHits are loads that the cache answered, CacheMisses those that asked the
	// store.
	CacheHits, CacheMisses uint64
	// CacheEvictions are aggregates that had to make room.
	CacheEvictions uint64
	// CacheEntries and CacheBytes are what the cache holds now; Waiting are the
	// commands that wait for their aggregate now.
	CacheEntries, CacheBytes, Waiting int
}

type counters struct {
	commands, commits, decisions, conflicts, retries, duplicates, refusals, unknown, withdrawn, hits, misses atomic.Uint64

	groups [groupBuckets]atomic.Uint64
}

// committed counts a commit of n decisions.
func (c *counters) committed(n int) {
	c.commits.Add(1)
	c.decisions.Add(uint64(n)) //nolint:gosec // a length
	i, most := 0, 1
	for n > most && i < groupBuckets-1 {
		i, most = i+1, 2*most
	}
	c.groups[i].Add(1)
}

// Stats returns the counters. It costs next to nothing.
func (r *Repository[S]) Stats() Stats { return r.core.stats() }

func (r *core) stats() Stats {
	c := &r.counters
	s := Stats{
		Commands: c.commands.Load(), Commits: c.commits.Load(), Decisions: c.decisions.Load(),
		Conflicts: c.conflicts.Load(), Retries: c.retries.Load(), Duplicates: c.duplicates.Load(),
		Refusals: c.refusals.Load(), Unknown: c.unknown.Load(), Withdrawn: c.withdrawn.Load(),
		CacheHits: c.hits.Load(), CacheMisses: c.misses.Load(),
		Waiting: r.lanes.length(),
	}
	for i := range s.Groups {
		s.Groups[i] = c.groups[i].Load()
	}
	s.CacheEntries, s.CacheBytes, s.CacheEvictions = r.cache.figures()
	return s
}
