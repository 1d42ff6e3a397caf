package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	joined struct{ Email string }
	moved  struct{ From, To string }
	left   struct{}

	member struct {
		Email string
		Gone  bool
	}

	join   struct{ Email string }
	moveTo struct{ Email string }
	leave  struct{}
	bare   struct{}
	touch  struct{}
	claim  struct{ Name string }
)

var members = aggregate.New[member](
	jetstream.NewSchema("member",
		jetstream.Event[joined]("joined"), jetstream.Event[moved]("moved"), jetstream.Event[left]("left")),
	aggregate.Apply(func(m *member, e joined, _ jetstream.Meta) { m.Email = e.Email }),
	aggregate.Apply(func(m *member, e moved, _ jetstream.Meta) { m.Email = e.To }),
	aggregate.Apply(func(m *member, _ left, _ jetstream.Meta) { m.Gone = true }),
	aggregate.Create("join", func(c join, _ aggregate.Decision) ([]any, error) {
		return []any{joined(c), aggregate.Reserve("email", c.Email)}, nil
	}),
	aggregate.Handle("move", func(m member, c moveTo, _ aggregate.Decision) ([]any, error) {
		if m.Gone {
			return nil, aggregate.Reject("gone", "the member has left")
		}
		return []any{aggregate.Release("email", m.Email), moved{m.Email, c.Email}, aggregate.Reserve("email", c.Email)}, nil
	}),
	aggregate.Handle("leave", func(m member, _ leave, _ aggregate.Decision) ([]any, error) {
		return []any{left{}, aggregate.Release("email", m.Email)}, nil
	}),
	aggregate.Handle("touch", func(m member, _ touch, _ aggregate.Decision) ([]any, error) {
		return []any{moved{m.Email, m.Email}}, nil
	}),
	aggregate.Handle("bare", func(member, bare, aggregate.Decision) ([]any, error) {
		return []any{aggregate.Reserve("email", "x")}, nil
	}),
	aggregate.Handle("claim", func(_ member, c claim, _ aggregate.Decision) ([]any, error) {
		return []any{left{}, aggregate.Reserve(c.Name, "x")}, nil
	}),
)

func takenBy(t *testing.T, err error, owner string) {
	t.Helper()
	if r := as[*aggregate.RejectedError](t, err); !errors.Is(err, aggregate.ErrRejected) || r.Code != "email-taken" || strings.Contains(r.Reason, "@") {
		t.Errorf("%+v", r)
	}
	if k := as[*jetstream.KeyTakenError](t, err); k.Key != "email" || k.Owner.ID != owner || k.Owner.Type != "member" {
		t.Errorf("%+v", k)
	}
}

func TestUniqueKeys(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repo := repoOf(t, store, members)
		owner := func(email, want string) {
			t.Helper()
			o, err := store.Owner(t.Context(), jetstream.Key{Name: "email", Value: email})
			if got := o.ID; got != want || err != nil && (want != "" || !errors.Is(err, jetstream.ErrNotFound)) {
				t.Errorf("%s belongs to %q (%v), want %q", email, got, err, want)
			}
		}
		id := aggregate.CommandID("join m1")
		res := must(t, repo, "m1", join{"a@x"}, id)
		if res.Version != 1 || len(res.Events) != 1 || res.Events[0].Event != (joined{"a@x"}) {
			t.Fatalf("%+v", res)
		}
		if again := must(t, repoOf(t, store, members), "m1", join{"a@x"}, id); !again.Duplicate {
			t.Errorf("%+v", again)
		}
		owner("a@x", "m1")

		// Taken: a refusal, and nothing is left behind.
		_, err := repo.Execute(t.Context(), "m2", join{"a@x"})
		takenBy(t, err, "m1")
		if _, err := repo.Load(t.Context(), "m2"); !errors.Is(err, aggregate.ErrNotFound) {
			t.Error(err)
		}
		must(t, repo, "m2", join{"b@x"})
		_, err = repo.Execute(t.Context(), "m2", moveTo{"a@x"})
		takenBy(t, err, "m1")
		owner("b@x", "m2")

		// A trigger's refusal is recorded, and stays when the key is free.
		trigger := aggregate.TriggeredBy(aggregate.Trigger{Subscriber: "s", EventID: "e", Step: "x"})
		_, err = repo.Execute(t.Context(), "m2", moveTo{"a@x"}, trigger)
		takenBy(t, err, "m1")
		must(t, repo, "m1", moveTo{"c@x"})
		owner("a@x", "")
		owner("c@x", "m1")
		res, err = repo.Execute(t.Context(), "m2", moveTo{"a@x"}, trigger)
		if r := as[*aggregate.RejectedError](t, err); r.Code != "email-taken" || !res.Duplicate {
			t.Errorf("%+v %+v", res, r)
		}

		// The same again is no conflict, and what was given up is free.
		must(t, repo, "m1", moveTo{"c@x"})
		must(t, repo, "m2", moveTo{"a@x"})
		owner("a@x", "m2")
		must(t, repo, "m2", leave{})
		owner("a@x", "")
		must(t, repo, "m3", join{"a@x"})
		if snap, err := repo.Load(t.Context(), "m2"); err != nil || snap.State != (member{"a@x", true}) || snap.Version != 3 {
			t.Errorf("%+v %v", snap, err)
		}

		// Mistakes.
		before := head(t, store)
		if _, err := repo.Execute(t.Context(), "m1", bare{}); err == nil || !strings.Contains(err.Error(), "beside an event") {
			t.Error(err)
		}
		_, err = repo.Execute(t.Context(), "m1", claim{"Two words"})
		wantAs[*jetstream.InvalidError](t, err)
		if head(t, store) != before {
			t.Error("something was stored")
		}
	})
}

// Of many that want one key at once, one gets it, and the others are told who.
func TestUniqueKeysAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repos := []*aggregate.Repository[member]{repoOf(t, store, members), repoOf(t, reopen(t, connect(), store), members)}
		const rounds, rivals = 3, 6
		for round := range rounds {
			var (
				wg   sync.WaitGroup
				mu   sync.Mutex
				won  []string
				lost []error
			)
			for i := range rivals {
				id := fmt.Sprint("r", round, "-", i)
				wg.Go(func() {
					_, err := repos[i%2].Execute(t.Context(), id, join{fmt.Sprint(round, "@x")})
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						lost = append(lost, err)
					} else {
						won = append(won, id)
					}
				})
			}
			wg.Wait()
			if len(won) != 1 || len(lost) != rivals-1 {
				t.Fatalf("%v won, %v", won, lost)
			}
			for _, err := range lost {
				takenBy(t, err, won[0])
			}
		}
	})
}

// Commands that change keys wait in line like others, and are stored alone.
func TestUniqueKeysInAGroup(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	repo := repoOf(t, store, members)
	must(t, repo, "m1", join{"a@x"})
	must(t, repo, "m2", join{"b@x"})
	got := grouped(t, repo, "m1",
		asked{command: touch{}}, asked{command: moveTo{"b@x"}}, asked{command: touch{}}, asked{command: moveTo{"c@x"}},
		asked{command: leave{}}, asked{command: moveTo{"d@x"}})
	takenBy(t, got[1].err, "m2")
	for i, version := range map[int]uint64{0: 2, 2: 3, 3: 4, 4: 5} {
		if got[i].err != nil || got[i].res.Version != version {
			t.Errorf("%d: %+v", i, got[i])
		}
	}
	if r := as[*aggregate.RejectedError](t, got[5].err); r.Code != "gone" {
		t.Error(r)
	}
}

// In memory it is the same.
func TestUniqueKeysInMemory(t *testing.T) {
	t.Parallel()
	repo, err := aggregate.NewTestRepository(memstore.New(), members, aggregate.RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	must(t, repo, "m1", join{"a@x"})
	_, err = repo.Execute(t.Context(), "m2", join{"a@x"})
	takenBy(t, err, "m1")
	must(t, repo, "m1", moveTo{"b@x"})
	must(t, repo, "m2", join{"a@x"})
}

func ExampleReserve() {
	register := aggregate.Create("join", func(c join, _ aggregate.Decision) ([]any, error) {
		email := strings.ToLower(c.Email)
		return []any{joined{Email: email}, aggregate.Reserve("email", email)}, nil
	})
	typ := aggregate.New[member](jetstream.NewSchema("member", jetstream.Event[joined]("joined")), register,
		aggregate.Apply(func(m *member, e joined, _ jetstream.Meta) { m.Email = e.Email }))
	repo, err := aggregate.NewTestRepository(memstore.New(), typ, aggregate.RepositoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	_, err = repo.Execute(ctx, "m1", join{"Ann@example.org"})
	fmt.Println(err)
	_, err = repo.Execute(ctx, "m2", join{"ann@example.org"})
	var rejected *aggregate.RejectedError
	fmt.Println(errors.As(err, &rejected), rejected)
	// Output:
	// <nil>
	// true rejected: email-taken: another member has this email
}
