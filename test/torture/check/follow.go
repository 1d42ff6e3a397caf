package check

import (
	"cmp"
	"slices"
)

// Handled is an event that a follower has handled, in the order in which it did.
type Handled struct {
	Follower  string `json:"follower"`
	Aggregate string `json:"aggregate"`
	Version   uint64 `json:"version"`
	EventID   string `json:"eventId"`
	// Key is the idempotency key of a gateway's call.
	Key string `json:"key,omitempty"`
	// Instance is the process that did.
	Instance string `json:"instance"`
	// At is when, in nanoseconds since the run began.
	At int64 `json:"at"`
}

type lane struct{ follower, aggregate string }

// Order checks that a follower has handled every event of an aggregate after those
// before it. It may have gone back, after a crash, but never jumped.
func Order(handled []Handled) []string {
	var jumps findings
	reached := map[lane]uint64{}
	for _, h := range handled {
		l := lane{h.Follower, h.Aggregate}
		if h.Version > reached[l]+1 {
			jumps.addf("%s handled event %d of %s after %d", h.Follower, h.Version, h.Aggregate, reached[l])
		}
		reached[l] = max(reached[l], h.Version)
	}
	return jumps.all("events handled out of order")
}

// Complete checks that the followers have handled every event: versions are those
// of the aggregates.
func Complete(handled []Handled, followers []string, versions map[string]uint64) []string {
	var missing findings
	seen := map[lane]map[uint64]bool{}
	for _, h := range handled {
		l := lane{h.Follower, h.Aggregate}
		if seen[l] == nil {
			seen[l] = map[uint64]bool{}
		}
		seen[l][h.Version] = true
	}
	for _, aggregate := range sorted(versions) {
		for _, f := range followers {
			for v := uint64(1); v <= versions[aggregate]; v++ {
				if !seen[lane{f, aggregate}][v] {
					missing.addf("%s has not handled event %d of %s", f, v, aggregate)
				}
			}
			if n := uint64(len(seen[lane{f, aggregate}])); n > versions[aggregate] {
				missing.addf("%s handled %d events of %s, which has %d", f, n, aggregate, versions[aggregate])
			}
		}
	}
	return missing.all("events not handled")
}

// Keys checks that every event was delivered under one key, and every key for one
// event. Repeats counts deliveries under a key that had been made before.
func Keys(handled []Handled) (violations []string, repeats int) {
	var doubled findings
	keyOf, eventOf := map[string]string{}, map[string]string{}
	for _, h := range handled {
		key, known := keyOf[h.EventID]
		event, used := eventOf[h.Key]
		switch {
		case known && key != h.Key:
			doubled.addf("event %s was delivered under the keys %s and %s", h.EventID, key, h.Key)
		case used && event != h.EventID:
			doubled.addf("key %s was used for the events %s and %s", h.Key, event, h.EventID)
		case known:
			repeats++
		}
		keyOf[h.EventID], eventOf[h.Key] = h.Key, h.EventID
	}
	return doubled.all("effects under several keys"), repeats
}

// Row is what a view, or a fold of the log, says of an aggregate.
type Row struct {
	Balance int64  `json:"balance"`
	Events  uint64 `json:"events"`
	// Sum adds up the numbers of the events: one left out for another shows.
	Sum uint64 `json:"sum"`
}

// Equal checks that a view is the fold of the log.
func Equal(view string, got, want map[string]Row) []string {
	var differ findings
	for _, key := range sorted(want) {
		if g, ok := got[key]; !ok {
			differ.addf("view %s lacks %s: want %+v", view, key, want[key])
		} else if g != want[key] {
			differ.addf("view %s says of %s %+v, its log says %+v", view, key, g, want[key])
		}
	}
	for _, key := range sorted(got) {
		if _, ok := want[key]; !ok {
			differ.addf("view %s has %s, which the log lacks", view, key)
		}
	}
	return differ.all("rows that differ")
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
