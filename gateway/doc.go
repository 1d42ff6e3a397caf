// Package gateway follows events and calls the outside world: mail, payment,
// other people's web services.
//
// A gateway's handler gets a typed event and an idempotency key that is the same
// on every attempt, in every process, for ever. A call that failed, or whose
// outcome is unknown, is made again with the same key; an error wrapped with
// [Permanent] parks the aggregate's events until somebody resumes them. Events of
// one aggregate are delivered in order and one at a time, those of different
// aggregates in parallel.
//
// Deliveries may be repeated after a crash – those of at most
// [Config.MaxUnrecorded] commits, and of a commit of several events those before
// one that failed – so the service behind must honour the key. Nothing can do
// better: a process may die between the call and the note that it was made.
package gateway
