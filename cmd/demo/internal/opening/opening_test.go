package opening_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/opening"
)

// Every way through an opening. Each event is handled twice, as after a crash, and no
// money is lost or made.
func TestOpening(t *testing.T) {
	t.Parallel()
	const house, bonus, paid = 1000, 5, 300
	for name, c := range map[string]struct {
		id, payer string
		after     func(*aggregatetest.Store, aggregate.Target) error
		phase     saga.Phase
		code      string
		story     string
		open      bool
	}{
		"Waits": {
			"new", "house", nil, saga.Running, "",
			"started begun done begun accepted", true,
		},
		"Paid": {
			"new", "house", func(_ *aggregatetest.Store, accounts aggregate.Target) error {
				_, err := accounts.Execute(t.Context(), "new", commands.Credit{TransferID: "first", Cents: paid})
				return err
			}, saga.Completed, "",
			"started begun done begun accepted done begun done completed", true,
		},
		"NeverPaid": {
			"new", "house", func(s *aggregatetest.Store, _ aggregate.Target) error {
				s.Advance(2 * time.Minute)
				return nil
			}, saga.Compensated, saga.CodeTimedOut,
			"started begun done begun accepted expired undoing undone undoing undone compensated", false,
		},
		"Taken": {
			"house", "house", nil, saga.Compensated, saga.CodeExists,
			"started begun done begun failed undoing undone compensated", true,
		},
		"NoBonus": {
			"new", "poor", nil, saga.Compensated, "insufficient-funds",
			"started begun failed compensated", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := aggregatetest.NewStore(t)
			accounts := aggregatetest.NewRepository(s, commands.AccountType())
			s.Append(account.Events, "house", account.Opened{Cents: house})
			s.Append(account.Events, "poor", account.Opened{Cents: bonus - 1})
			def := opening.New(accounts, time.Minute)
			instances := aggregatetest.NewRepository(s, def.Type())
			s.Run(def.Name(), def.Handlers(instances, opening.Links()...)...)
			start := saga.Start[opening.Application]{Data: opening.Application{Title: "t", Payer: c.payer, BonusCents: bonus}}
			if _, err := instances.Create(t.Context(), c.id, start); err != nil {
				t.Fatal(err)
			}
			s.Settle()
			money := int64(house)
			if c.after != nil {
				if err := c.after(s, accounts); err != nil {
					t.Fatal(err)
				}
				s.Settle()
			}
			i, err := instances.Load(t.Context(), c.id)
			if err != nil || i.State.Phase != c.phase || i.State.Failure.Code != c.code {
				t.Errorf("%+v, %v; want %s %q", i.State, err, c.phase, c.code)
			}
			var story []string
			for e, err := range instances.History(t.Context(), c.id) {
				if err != nil {
					t.Fatal(err)
				}
				story = append(story, e.Name)
			}
			if got := strings.Join(story, " "); got != c.story {
				t.Errorf("the story is\n%s\nwant\n%s", got, c.story)
			}
			switch c.phase { //nolint:exhaustive // the others have none of it back
			case saga.Running, saga.Completed:
				money -= bonus
			}
			if h, err := accounts.Load(t.Context(), "house"); err != nil || h.State.Cents != money {
				t.Errorf("the house has %d, want %d (%v)", h.State.Cents, money, err)
			}
			if c.id == "house" || c.code == "insufficient-funds" {
				return // there is no other account
			}
			want := commands.Account{Deleted: !c.open}
			if c.phase == saga.Completed {
				want.Cents = paid + bonus
			}
			if a, err := accounts.Load(t.Context(), c.id); err != nil || a.State != want {
				t.Errorf("%+v, want %+v (%v)", a.State, want, err)
			}
		})
	}
}
