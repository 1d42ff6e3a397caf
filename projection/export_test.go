package projection

// Steps lets a function be told of each step of an updater, before Run: "opened", "read",
// "folded", "key", "each", "batch", "put" and "stored", of partial rebuilds
// "refolded" and "rebuilt", of switches "sealed".
func Steps(u *Updater, step func(string)) { u.step = step }

// SinkSteps is [Steps] for an updater of a sink: "opened", "read", "put", "applied" and
// "stored".
func SinkSteps(u *SinkUpdater, step func(string)) { u.step = step }

// MaxMatches bounds what a reader's searches sort.
func MaxMatches[V any](r *Reader[V], n int) { r.matches = n }

// NarrowEvery is after how many sequences an updater looks again whether its consumer
// should have a filter.
func NarrowEvery(u *Updater, n uint64) { u.narrowEvery = n }

// PartOf is the part of an index that a key's entries are in.
func PartOf(key string) string { return partOf(key) }
