package docs_test

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/docs/internal/account"
	"github.com/rossby-go/rossby/docs/internal/accounts"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// snippet:readme-view

// Balance is an account as it is read.
type Balance struct {
	Cents int64 `json:"cents"`
}

// Balances are all of them.
var Balances = projection.NewKeyed("accounts",
	projection.On(account.Events, func(b *Balance, e account.Opened, _ jetstream.Meta) { b.Cents = e.Cents }),
	projection.On(account.Events, func(b *Balance, e account.Credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	projection.On(account.Events, func(b *Balance, e account.Debited, _ jetstream.Meta) { b.Cents -= e.Cents }),
)

// end:readme-view

// The whole of the README, in one process.
func Example_readme() {
	ctx, stop := context.WithCancel(context.Background())
	nc, store, end := bank(ctx)
	defer end()
	told := make(chan string, 1)
	send := func(ctx context.Context, key string, _ account.Debited) error {
		told <- key
		return ctx.Err()
	}

	// snippet:readme-commands
	repo := must(aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{}))
	must(repo.Create(ctx, "a1", accounts.Open{Cents: 700}))
	id := jetstream.NewCommandID()
	res := must(repo.Execute(ctx, "a1", accounts.Debit{Cents: 500}, aggregate.CommandID(id))) // once, however often it is sent
	// end:readme-commands

	// snippet:readme-parts
	// Takes commands from any NATS client: nats req bank.command.account.open.a2 '{"Cents":5}'
	service := must(aggregate.NewService(repo, aggregate.ServiceConfig{}))

	// Events lead to commands, each once for ever.
	reactor := must(aggregate.NewReactor(store, "cashback", aggregate.ReactorConfig{Start: jetstream.FromBeginning()},
		aggregate.On(account.Events, func(ctx context.Context, e account.Debited, m jetstream.Meta, do *aggregate.Do) error {
			_, err := do.Update(ctx, repo, m.ID, accounts.Credit{Cents: e.Cents / 100})
			return err
		})))

	// Keeps the view: nats kv get bank_accounts 1.a1
	updater := must(projection.NewUpdater(store, Balances, projection.UpdaterConfig{}))

	// Events leave, with an idempotency key.
	letters := must(gateway.New(store, "letters", gateway.Config{Start: jetstream.FromBeginning()},
		gateway.On(account.Events, func(ctx context.Context, e account.Debited, d gateway.Delivery) error {
			return send(ctx, d.IdempotencyKey, e)
		})))

	var parts errgroup.Group
	for _, part := range []interface {
		Run(ctx context.Context) error
	}{service, reactor, updater, letters} {
		parts.Go(func() error { return part.Run(ctx) }) // until ctx ends; then it finishes what it has begun
	}
	// end:readme-parts

	// snippet:readme-read
	reader := must(projection.NewReader[Balance](ctx, nc, "bank", "accounts", projection.ReaderConfig{}))
	entry := must(reader.Get(ctx, "a1", projection.AtLeast(res.Position))) // reads its own writes
	// end:readme-read

	fmt.Println(entry.Key, entry.Value.Cents <= 205, <-told != "")
	stop()
	check(parts.Wait())
	// Output: a1 true true
}
