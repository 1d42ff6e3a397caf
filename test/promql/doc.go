// Package promql tests the alert rules and the dashboard with Prometheus' own engine
// for queries: a module of its own, since Rossby needs none of that. Everything is in
// its tests.
package promql
