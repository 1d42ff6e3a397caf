// Package check decides whether what clients, followers and outside services saw
// can have come from a correct system. Each function returns what cannot, in words;
// nothing is no violation.
package check
