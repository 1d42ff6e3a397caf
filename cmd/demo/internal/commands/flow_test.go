package commands_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// bank is the command side with its reactor running.
type bank struct {
	accounts  *aggregate.Repository[commands.Account]
	transfers *aggregate.Repository[commands.Transfer]
}

func newBank(t *testing.T) *bank {
	t.Helper()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	b := new(bank)
	if b.accounts, err = aggregate.NewRepository(store, commands.AccountType(), aggregate.RepositoryConfig{}); err != nil {
		t.Fatal(err)
	}
	if b.transfers, err = aggregate.NewRepository(store, commands.TransferType(), aggregate.RepositoryConfig{}); err != nil {
		t.Fatal(err)
	}
	timers, err := aggregate.NewTimers(t.Context(), store, aggregate.TimersConfig{}, b.transfers)
	if err != nil {
		t.Fatal(err)
	}
	reactor, err := commands.NewReactor(
		store,
		b.accounts,
		b.transfers,
		time.Minute,
		aggregate.ReactorConfig{Start: jetstream.FromBeginning()},
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{timers.Run, reactor.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return b
}

func (b *bank) open(t *testing.T, cents int64) string {
	t.Helper()
	r, err := b.accounts.Create(t.Context(), "", commands.OpenAccount{Title: "x", InitialCents: cents})
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func (b *bank) transfer(t *testing.T, from, to string, cents int64) string {
	t.Helper()
	r, err := b.transfers.Create(
		t.Context(),
		"",
		commands.CreateTransfer{FromAccountID: from, ToAccountID: to, Cents: cents},
	)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func (b *bank) ended(t *testing.T, id string) transfer.State {
	t.Helper()
	var state transfer.State
	natstest.Eventually(t, "end of transfer "+id, func() error {
		s, err := b.transfers.Load(t.Context(), id)
		if err != nil {
			return err
		}
		if state = s.State.State; !state.Final() {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
	return state
}

func (b *bank) cents(t *testing.T, id string) int64 {
	t.Helper()
	s, err := b.accounts.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s.State.Cents
}

func TestTransfers(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	for _, test := range []struct {
		name         string
		cents        int64
		deleteFrom   bool
		deleteTo     bool
		unknownFrom  bool
		unknownTo    bool
		want         transfer.State
		wantFrom, to int64
	}{
		{name: "Completed", cents: 8000, want: transfer.Completed, wantFrom: 7000, to: 38000},
		{name: "InsufficientFunds", cents: 20000, want: transfer.FailedInsufficientFunds, wantFrom: 15000, to: 30000},
		{name: "FromDeleted", cents: 1, deleteFrom: true, want: transfer.FailedAccountDeleted, wantFrom: 15000, to: 30000},
		{name: "ToDeleted", cents: 1, deleteTo: true, want: transfer.FailedAccountDeleted, wantFrom: 15000, to: 30000},
		{name: "FromUnknown", cents: 1, unknownFrom: true, want: transfer.FailedAccountNotFound, wantFrom: 15000, to: 30000},
		{name: "ToUnknown", cents: 1, unknownTo: true, want: transfer.FailedAccountNotFound, wantFrom: 15000, to: 30000},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			from, to := b.open(t, 15000), b.open(t, 30000)
			for id, gone := range map[string]bool{from: test.deleteFrom, to: test.deleteTo} {
				if gone {
					if _, err := b.accounts.Execute(t.Context(), id, commands.DeleteAccount{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			f, o := from, to
			if test.unknownFrom {
				f = "nobody-" + from
			}
			if test.unknownTo {
				o = "nobody-" + to
			}
			if got := b.ended(t, b.transfer(t, f, o, test.cents)); got != test.want {
				t.Errorf("state %s, want %s", got, test.want)
			}
			if a, z := b.cents(t, from), b.cents(t, to); a != test.wantFrom || z != test.to {
				t.Errorf("balances %d and %d, want %d and %d", a, z, test.wantFrom, test.to)
			}
		})
	}
}

func TestManyTransfersKeepTheBooks(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	const accounts, transfers, initial = 10, 200, 10000
	ids := make([]string, accounts)
	for i := range ids {
		ids[i] = b.open(t, initial)
	}
	made := make([]string, transfers)
	for i := range made {
		from, to := rand.IntN(accounts), rand.IntN(accounts-1)
		if to >= from {
			to++
		}
		made[i] = b.transfer(t, ids[from], ids[to], 1+rand.Int64N(5000))
	}
	for _, id := range made {
		b.ended(t, id)
	}
	var sum int64
	for _, id := range ids {
		sum += b.cents(t, id)
	}
	if sum != accounts*initial {
		t.Fatalf("the accounts hold %d, deposited were %d", sum, accounts*initial)
	}
}
