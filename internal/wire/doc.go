// Package wire speaks the few JetStream requests that Rossby needs and that
// nats.go either lacks or hides: leader reads, batch direct gets, consistent
// reads of several subjects, single publishes that keep the server's error
// code, and atomic batch publishes that cost one round trip.
//
// Everything here is one request and its answer. Retrying, waiting and deciding
// what an answer proves is the business of the packages above.
package wire
