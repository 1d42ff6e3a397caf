// Package rig runs NATS servers, and other children, as processes of their own
// that can be killed and frozen, behind TCP proxies that can cut, hold and delay
// what passes, and lose acknowledgements.
package rig
