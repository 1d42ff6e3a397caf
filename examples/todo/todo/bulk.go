package todo

import (
	"context"
	"errors"
	"slices"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// BulkMax is how many to-dos one bulk deletion takes.
const BulkMax = 1000

// What happens to a bulk deletion. It is an aggregate of its own, so that it is
// carried to its end by whichever process runs, and one can ask how it went.
type (
	BulkRequested struct{ IDs []string }
	BulkFinished  struct{ Deleted, Missing int }
)

// BulkEvents are the events of a bulk deletion.
var BulkEvents = jetstream.NewSchema("bulk",
	jetstream.Event[BulkRequested]("requested"),
	jetstream.Event[BulkFinished]("finished"),
)

// Bulk is the state of a bulk deletion.
type Bulk struct {
	Finished bool
	Result   BulkFinished
}

// The commands of a bulk deletion. Finish is the reactor's.
type (
	DeleteMany struct{ IDs []string }
	Finish     struct{ Deleted, Missing int }
)

// BulkType is the aggregate type of bulk deletions.
var BulkType = aggregate.New[Bulk](BulkEvents,
	aggregate.Ignore[BulkRequested](),
	aggregate.Apply(func(b *Bulk, e BulkFinished, _ jetstream.Meta) { b.Finished, b.Result = true, e }),
	aggregate.Create("delete-many", func(c DeleteMany, _ aggregate.Decision) ([]any, error) {
		ids := slices.Compact(slices.Sorted(slices.Values(c.IDs)))
		if len(ids) > BulkMax {
			return nil, aggregate.Reject("too-many", "%d to-dos; at most %d", len(ids), BulkMax)
		}
		return []any{BulkRequested{IDs: ids}}, nil
	}),
	aggregate.Handle("finish", func(b Bulk, c Finish, _ aggregate.Decision) ([]any, error) {
		if b.Finished {
			return nil, nil
		}
		return []any{BulkFinished(c)}, nil
	}),
)

// Deleter is the reactor that carries bulk deletions out. It may die between any two
// of them: what was done is not done again, and the count comes out the same.
func Deleter(todos, bulks aggregate.Target) aggregate.ReactorOption {
	return aggregate.On(BulkEvents, func(
		ctx context.Context, e BulkRequested, m jetstream.Meta, do *aggregate.Do,
	) error {
		var finish Finish
		for _, id := range e.IDs {
			_, err := do.Update(ctx, todos, id, Delete{})
			switch {
			case errors.Is(err, aggregate.ErrNotFound):
				finish.Missing++
			case err != nil:
				return err // tried again, from the first
			default:
				finish.Deleted++
			}
		}
		_, err := do.Update(ctx, bulks, m.ID, finish)
		return err
	})
}
