package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
)

// order is a transfer to be made.
type order struct {
	FromAccountID string `json:"fromAccountId"`
	ToAccountID   string `json:"toAccountId"`
	Cents         int64  `json:"cents"`
	Description   string `json:"description"`
}

// books are the bank's own idea of its books.
type books struct {
	deposited, balances, underWay int64
	holds                         bool
}

// bank is a bank, however it is reached. Errors that another attempt may mend are
// errAgain. Commands with one key happen once.
type bank interface {
	open(ctx context.Context, key, title string, cents int64) (id string, err error)
	transfer(ctx context.Context, key string, o order) (id string, err error)
	// states are those of the transfers that the view knows.
	states(ctx context.Context, ids []string) (map[string]transfer.State, error)
	// head is where the store ends.
	head(ctx context.Context) (jetstream.Position, error)
	// balance is that of an account as of a position or later.
	balance(ctx context.Context, id string, after jetstream.Position) (int64, error)
	books(ctx context.Context) (books, error)
}

// errAgain is matched by errors that may be gone next time.
var errAgain = errors.New("not now")

// Bounds of the wait between attempts.
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = time.Second
)

// persist calls until it is done, fails for good, or patience is over.
func persist[T any](
	ctx context.Context, patience time.Duration, again func(error), call func(context.Context) (T, error),
) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		v, err := call(ctx)
		if err == nil || !errors.Is(err, errAgain) {
			return v, err
		}
		again(err)
		if sleep(ctx, wait/2+rand.N(wait/2)) != nil {
			return v, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
