// Package signals tests what the modules together tell of themselves: traces,
// metrics, health. Everything is in its tests.
package signals
