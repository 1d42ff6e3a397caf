package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/opening"
)

// trickleEvery is the time between the seeded bank's transfers.
const trickleEvery = 700 * time.Millisecond

var seeded = []struct {
	id, name, email string
	accounts        []string
	cents           int64
}{
	{"ada", "Ada Lovelace", "ada@example.com", []string{"ada-giro", "ada-savings"}, 500_00},
	{"bela", "Béla Bartók", "bela@example.com", []string{"bela-giro"}, 320_00},
	{"chen", "Chen Jingrun", "chen@example.com", []string{"chen-giro", "chen-savings"}, 410_00},
	{"dora", "Dora Maar", "dora@example.com", []string{"dora-giro"}, 150_00},
}

// The account that pays the bonus of those who open one, and how much.
const (
	houseID    = "house"
	houseCents = 100_000_00
	bonusCents = 5_00
)

// applyEvery is how often somebody applies for an account. The first money is sent
// when the next one applies, but each third forgets it.
const (
	applyEvery   = 20 * time.Second
	applyForgets = 3
)

// Seed makes the demo's customers and accounts. Those that exist already, since
// the store was kept, stay as they are.
func (a *App) Seed(ctx context.Context) error {
	for _, c := range seeded {
		_, err := a.Customers.Create(ctx, c.id, commands.CreateCustomer{Name: c.name, Email: c.email})
		if err != nil && !errors.Is(err, aggregate.ErrExists) {
			return fmt.Errorf("seed customer %q: %w", c.id, err)
		}
		for _, id := range c.accounts {
			open := commands.OpenAccount{CustomerID: c.id, Title: id, InitialCents: c.cents}
			if _, err := a.Accounts.Create(ctx, id, open); err != nil && !errors.Is(err, aggregate.ErrExists) {
				return fmt.Errorf("seed account %q: %w", id, err)
			}
		}
	}
	house := commands.OpenAccount{Title: "the house", InitialCents: houseCents}
	if _, err := a.Accounts.Create(ctx, houseID, house); err != nil && !errors.Is(err, aggregate.ErrExists) {
		return fmt.Errorf("seed account %q: %w", houseID, err)
	}
	for i, c := range seeded {
		other := seeded[(i+1)%len(seeded)]
		link := commands.AddToAccount{AccountID: other.accounts[0], Title: other.name + "'s account", Owner: other.name}
		if _, err := a.Customers.Execute(ctx, c.id, link); err != nil {
			return fmt.Errorf("seed customer %q: %w", c.id, err)
		}
	}
	return nil
}

// Trickle makes a transfer between seeded accounts every now and then until ctx
// ends. Some ask for more than there is.
func (a *App) Trickle(ctx context.Context, log *slog.Logger) {
	var accounts []string
	for _, c := range seeded {
		accounts = append(accounts, c.accounts...)
	}
	tick := time.NewTicker(trickleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		from, to := rand.IntN(len(accounts)), rand.IntN(len(accounts)-1)
		if to >= from {
			to++
		}
		cents := 100 + rand.Int64N(60_00)
		if rand.IntN(12) == 0 {
			cents = 5_000_00
		}
		_, err := a.Transfers.Create(ctx, "", commands.CreateTransfer{
			FromAccountID: accounts[from], ToAccountID: accounts[to], Cents: cents, Description: "trickle",
		})
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "trickle: transfer not made", "error", err)
		}
	}
}

// Applications applies for an account now and then until ctx ends. Some get no money,
// and are closed again.
func (a *App) Applications(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(applyEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		c := seeded[n%len(seeded)]
		res, err := a.Openings.Create(ctx, "", saga.Start[opening.Application]{Data: opening.Application{
			CustomerID: c.id, Title: c.name + "'s new one", Payer: houseID, BonusCents: bonusCents,
		}})
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "applications: no account is opened", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err != nil || n%applyForgets == applyForgets-1 {
			continue
		}
		_, err = a.Transfers.Create(ctx, "", commands.CreateTransfer{
			FromAccountID: c.accounts[0], ToAccountID: res.ID, Cents: 10_00, Description: "the first money",
		})
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "applications: transfer not made", "error", err)
		}
	}
}
