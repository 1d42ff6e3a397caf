package projection_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// row is what the totals' view holds: an account under "account." and its id, and
// under "owner." and a name how many accounts somebody has, and what is on them.
type row struct {
	Owner    string `json:"owner,omitempty"`
	Cents    int64  `json:"cents"`
	Accounts int    `json:"accounts,omitempty"` // of owners only
}

// count adds an account to the total of its owner, or takes it out with -1.
func count(tx *projection.Tx[row], a row, sign int) {
	key := "owner." + a.Owner
	total, _ := tx.Get(key)
	total.Accounts += sign
	total.Cents += int64(sign) * a.Cents
	if total.Accounts == 0 {
		tx.Delete(key)
		return
	}
	tx.Put(key, total)
}

// change changes an account, and the totals with it: what it was is taken out of
// one, what it is goes into one. A nil do deletes it.
func change(tx *projection.Tx[row], id string, do func(*row)) {
	key := "account." + id
	a, found := tx.Get(key)
	if found {
		count(tx, a, -1)
	}
	if do == nil {
		tx.Delete(key)
		return
	}
	do(&a)
	count(tx, a, +1)
	tx.Put(key, a)
}

// ownerTotals counts and sums up the accounts of each owner. Its indexes rank owners
// and accounts by what they have.
func ownerTotals() *projection.Definition[row] {
	rank := func(owners bool) func(row) []string {
		return func(r row) []string {
			if (r.Accounts > 0) != owners {
				return nil
			}
			return []string{projection.IntValue(r.Cents)}
		}
	}
	return projection.NewLookup("totals",
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], e opened, m jetstream.Meta) error {
			change(tx, m.ID, func(r *row) { r.Owner = e.Owner })
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], e credited, m jetstream.Meta) error {
			change(tx, m.ID, func(r *row) { r.Cents += e.Cents })
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], e moved, _ jetstream.Meta) error {
			change(tx, e.From, func(r *row) { r.Cents -= e.Cents })
			if e.To != e.From {
				change(tx, e.To, func(r *row) { r.Cents += e.Cents })
			}
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], _ closed, m jetstream.Meta) error {
			change(tx, m.ID, nil)
			return nil
		}),
	).Index("owners", rank(true)).Index("accounts", rank(false))
}

// Counts, sums and a ranking over many keys. Functions and definition are those
// above: what an account was is taken out of its owner's total before an event,
// what it is goes into one after it.
func ExampleReader_Find_topOwners() {
	nc, last, end := bank(ownerTotals())
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[row](ctx, nc, "bank", "totals", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	top := projection.FindOptions{Reverse: true, Limit: 10, AtLeast: last}
	for owner, err := range reader.Find(ctx, "owners", top) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s has %d in %d account\n", owner.Key, owner.Value.Cents, owner.Value.Accounts)
	}
	// Output:
	// owner.ann has 70 in 1 account
	// owner.bob has 5 in 1 account
}
