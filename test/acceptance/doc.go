// Package acceptance tests the bank of cmd/demo from outside: over HTTP, over
// NATS, and with the standard nats command line, as one process and as many.
package acceptance
