// Package gateway follows events and calls the outside world: mail, payment,
// other people's web services.
//
// A gateway's handler gets a typed event and an idempotency key that is the same
// on every attempt, in every process, for ever. A call that failed, or whose
// outcome is unknown, is made again with the same key. Events of one aggregate are
// delivered in order and one at a time, those of different aggregates in parallel.
//
// # Failures
//
// By default an error is tried again with back-off, without an end: a destination
// that is down for a day loses nothing. An error wrapped with [Permanent] parks
// the event: it and the later ones of its aggregate wait in the store until
// somebody resumes them, and all others flow on. [Config.Policies] say otherwise
// for classes of errors: how often, for how long, and then park, skip or stop.
//
// # Limits
//
// [Config.Limits] spare a destination: a rate, a number of deliveries at once, and
// a circuit breaker. What is held back by them is not tried, so no attempt is
// counted. An error made with [RetryAfter] silences the destination until then.
//
// # Once per key
//
// A delivery that was made is entered in a ledger on the servers before it counts
// as done, so that it is not made again after a crash. A process can still die
// between the call and the entry, so the service behind must honour the key;
// nothing can do better. Without the ledger, a crash repeats at most the
// deliveries of [Config.MaxUnrecorded] commits.
//
// # Outcomes
//
// [Report] turns what came of a delivery into a command, executed once like every
// effect of an event; [Delivery.Command] does so within a handler.
//
// # Ready gateways
//
// The packages below this one deliver without code of your own: webhook by signed
// POST, publish to another NATS subject, mail by SMTP.
package gateway
