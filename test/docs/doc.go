// Package docs keeps the documents true: see the tests.
package docs
