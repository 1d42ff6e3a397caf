package aggregatetest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// ending is a test that is about to end.
type ending struct {
	testing.TB

	ctx context.Context
}

func (e ending) Context() context.Context { return e.ctx }

// T3.
func TestEventually(t *testing.T) {
	t.Parallel()
	n := 0
	aggregatetest.Eventually(t, "the third time", func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	natstest.Fails(t, func(t testing.TB) {
		aggregatetest.Eventually(ending{t, ctx}, "never", func() error { return errors.New("what it last said") })
	}, "never", "what it last said")
}

// T4.
func TestAwait(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, accountType(), aggregate.RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for _, id := range []string{"a1", "a2"} {
			if _, err := repo.Create(t.Context(), id, Open{Cents: 10}); err != nil {
				t.Error(err)
			}
			if _, err := repo.Execute(t.Context(), id, Debit{Cents: 3}); err != nil {
				t.Error(err)
			}
		}
	}()
	e, m := aggregatetest.Await(t, store, events, func(_ Debited, m jetstream.Meta) bool { return m.ID == "a2" })
	if e.Cents != 3 || m.ID != "a2" || m.Version != 2 {
		t.Errorf("%+v %+v", e, m)
	}
	if e, m := aggregatetest.Await[Opened](t, store, events, nil); e.Cents != 10 || m.ID != "a1" {
		t.Errorf("%+v %+v", e, m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	natstest.Fails(t, func(t testing.TB) {
		//nolint:contextcheck // that of the test that ends
		aggregatetest.Await(ending{t, ctx}, store, events, func(Debited, jetstream.Meta) bool { return false })
	}, "await a")
}
