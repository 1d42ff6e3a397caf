// Package follow is the engine under reactors and gateways: it hands every
// event of a stream to a handler, in order per lane, at least once, with one
// owner at a time among any number of instances.
//
// # Record and cursor
//
// A follower is two things on the server. The record is one value in a
// key-value bucket, changed only by compare-and-set. It holds the position, the
// unfinished lanes, the lease and the fence at once, and says: every followed
// event up to the position is done, except those of a listed lane within its
// range. The cursor is a durable consumer without acknowledgements. It carries
// no truth, anybody may disturb it; at take-over and at every gap it is reset
// to the record's position.
//
// # Lanes
//
// A lane, by default a subject, runs one event at a time. A failing event blocks
// its own lane only. A lane that waits long keeps one small entry; its events
// are read again from the stream when it is due, so the stream is the queue and
// memory stays bounded.
//
// # Guarantees
//
// Per lane each owner runs a sequence without gaps that starts at or before the
// first event not done. A crash repeats at most [Config.MaxUnrecorded] events, a
// graceful stop none but those cut off by [Config.Grace]. A process that was
// frozen may finish the handlers it is inside; handlers therefore get the epoch
// and should be idempotent.
package follow
