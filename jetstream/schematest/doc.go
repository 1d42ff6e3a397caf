// Package schematest keeps what a program has ever stored readable: golden files
// of every event in every version, which fail the test that would forget one.
package schematest
