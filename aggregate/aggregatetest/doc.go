// Package aggregatetest tests the command side without a server.
//
// What it runs is what runs in production – [aggregate.Repository] with its
// lookup, decisions, encoding, applying, stored states and search for duplicates –
// over a store in memory. So what passes here differs from production by the wire
// and nothing else.
//
// # An aggregate: given, when, then
//
//	aggregatetest.Given(t, commands.AccountType(), account.Opened{Cents: 700}).
//		When(commands.Debit{Cents: 500}).
//		Then(account.Debited{Cents: 500}).
//		State(commands.Account{Cents: 200})
//
// Whatever the scenario, it fails when the stored state is not what the events
// alone make.
//
// # Golden histories
//
// An Apply that changes its meaning leaves the states that are stored already as
// they are, and aggregates go on from them. [Golden] records histories with the
// states that they lead to, and fails when they lead to others without a new
// [aggregate.StateVersion].
//
//	aggregatetest.Golden(t, commands.AccountType(), "testdata/account",
//		aggregatetest.History{Name: "overdrawn", Events: []any{
//			account.Opened{Cents: 700}, account.Debited{Cents: 900},
//		}},
//	)
package aggregatetest
