// Package projectiontest tests views: given events, then view.
//
//	projectiontest.New(t, views.Accounts()).
//		Given(account.Events, "a1", account.Opened{Owner: "ann"}, account.Credited{Cents: 70}).
//		Given(account.Events, "a2", account.Opened{Owner: "bob"}).
//		Then(map[string]views.Account{
//			"a1": {Owner: "ann", Cents: 70},
//			"a2": {Owner: "bob"},
//		}).
//		Finds("owner", "ann", "a1")
//
// No server is needed: what runs is what runs in an updater – decoding, keys,
// folds, pages, encoding, indexes – over a store in memory, and differs from
// production by the wire and nothing else.
//
// # Folds must be pure
//
// An updater folds events in pages, folds a page again when a write fails, and
// folds all of them anew in a rebuild. Whatever is asked of a [Scenario], it first
// folds the events several times: each page twice, in pages of several sizes, from
// the beginning again, and at another time of day. The test fails when any two of
// these make different views, and says what differs: the fold uses the clock,
// random numbers or the order of a map, or keeps or shares something between
// events.
//
// # Rebuilt equals live
//
// [Rebuild] does the same with a store on a server: it has the view built anew and
// compares it with the one that is there.
package projectiontest
