package docs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/docs/internal/account"
	"github.com/rossby-go/rossby/docs/internal/accounts"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/roles"
)

// docs/appends.md.
func Example_keys() {
	ctx := context.Background()
	_, store, end := bank(ctx)
	defer end()
	decisions := []jetstream.Decision{{Events: []jetstream.EventData{
		must(account.Events.Encode(account.Opened{Cents: 7}, store.Codec())),
	}}}
	email := "Ann@example.org"
	after := jetstream.Head{}

	// snippet:keys
	head, err := store.Append(ctx, jetstream.Write{
		Type: "customer", ID: "c1", After: after, Decisions: decisions,
		Reserve: []jetstream.Key{{Name: "email", Value: strings.ToLower(email)}},
	})
	// end:keys

	fmt.Println(head.Version, err)
	// Output: 1 <nil>
}

// docs/durability.md.
func Example_durability() {
	ctx := context.Background()
	nc, _, end := bank(ctx)
	defer end()

	monitoring := []string{"http://127.0.0.1:1"} // where no server tells

	// snippet:durability
	store, err := jetstream.Open(ctx, nc, jetstream.Config{
		Name: "payments", Replicas: 1, // in production 3
		RequireDurability: jetstream.DurabilityFsynced,
		DurabilitySources: jetstream.DurabilitySources{Monitoring: monitoring}, // http://n1:8222 and so on, of every server
	})
	if weak, ok := errors.AsType[*jetstream.DurabilityError](err); ok {
		fmt.Println("refused: it is", weak.Report.AtLeast, "at least")
	}
	// end:durability

	fmt.Println(store == nil)
	// Output:
	// refused: it is single-lazy at least
	// true
}

// The events of docs/evolution.md, as they are today and as they were.
type (
	Deposited  struct{ Cents int64 }
	FeeCharged struct{ Cents int64 }

	depositedV1 struct{ Euros int64 }
	settled     struct{ Cents, Fee int64 }
)

// docs/evolution.md.
func Example_evolution() {
	events := jetstream.NewSchema("account",
		// snippet:upcast
		jetstream.Event[Deposited]("deposited", jetstream.Version(2),
			jetstream.Upcast(func(old depositedV1) Deposited { return Deposited{Cents: old.Euros * 100} }),
		),
		// end:upcast
		jetstream.Event[FeeCharged]("fee-charged"),
		// snippet:renamed
		jetstream.Renamed("paid-in", "credited"),
		jetstream.Renamed("credited", "deposited"),
		// end:renamed
		// snippet:retired
		jetstream.Retired("settled", jetstream.UpcastMany(func(old settled) []any {
			return []any{Deposited{Cents: old.Cents}, FeeCharged{Cents: old.Fee}}
		})),
		// end:retired
		// snippet:removed
		jetstream.Removed("page-viewed"),
		// end:removed
	)
	for _, stored := range []struct{ name, data string }{
		{"paid-in", `{"Euros":5}`}, {"settled", `{"Cents":500,"Fee":2}`}, {"page-viewed", `{}`},
	} {
		fmt.Println(stored.name, must(events.Decode(jetstream.EventData{
			Name: stored.name, Version: 1, Codec: jetstream.JSON, Data: []byte(stored.data),
		})))
	}
	// Output:
	// paid-in [{500}]
	// settled [{500} {2}]
	// page-viewed []
}

// docs/integrity.md and docs/state.md.
func Example_verify() {
	ctx := context.Background()
	_, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{}))
	must(repo.Create(ctx, "a1", accounts.Open{Cents: 700}))
	show := func(v jetstream.Verified) { fmt.Println(v.Commits, "commit,", v.Findings, "findings") }

	verify := func() error {
		// snippet:verify
		for damage, err := range store.Verify(ctx, jetstream.Verification{
			Schemas: []*jetstream.Schema{account.Events}, Progress: show,
		}) {
			if err != nil {
				return err // the rest was not looked at
			}
			fmt.Println(damage) // kind, subject, sequence and, in words, what is wrong
		}
		// end:verify
		return nil
	}
	check(verify())

	states := func() error {
		// snippet:verify-states
		for finding, err := range repo.Verify(ctx, aggregate.VerifyConfig{Sample: 1000}) {
			if err != nil {
				return err // not everything was looked at
			}
			fmt.Println(finding) // account "a1" version 7 (sequence 4711), state in its commit: differs: Cents is 5, replayed 7
		}
		// end:verify-states
		return nil
	}
	check(states())
	// Output: 1 commit, 0 findings
}

// docs/security.md.
func Example_roles() {
	accountKey := must(nkeys.CreateAccount())

	write := func() error {
		// snippet:roles
		users := []roles.User{
			{Name: "accounts", Roles: []roles.Role{{Kind: roles.Command, Store: "bank", Name: "account"}}},
			{Name: "overview", Roles: []roles.Role{
				{Kind: roles.Projection, Store: "bank", Name: "accounts"},
				{Kind: roles.Query, Store: "bank", Name: "accounts"}, // a program with two modules has both roles
			}},
		}
		text, err := roles.ServerConfig("BANK", users...) // for nats-server.conf
		if err != nil {
			return err
		}
		script, err := roles.NSC("BANK", users...) // for nsc
		if err != nil {
			return err
		}
		creds, err := users[0].Credentials(accountKey, "", 0) // a credentials file, without nsc
		if err != nil {
			return err
		}
		// end:roles
		fmt.Println(strings.Contains(text, "BANK"), strings.Contains(script, "nsc"), strings.Contains(string(creds), "NATS USER JWT"))
		return nil
	}
	check(write())
	// Output: true true true
}
