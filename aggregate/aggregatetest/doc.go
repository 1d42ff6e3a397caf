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
package aggregatetest
