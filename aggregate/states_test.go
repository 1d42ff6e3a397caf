package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	noted struct{ Text string }
	notes struct {
		Seen  map[string]int
		Order []string
	}
	note   struct{ Text string }
	begin  struct{}
	begun  struct{ Size int }
	spoil  struct{}
	sizing struct{ Bytes int }
	shout  struct {
		Text  string
		Times int
	}
)

// newNotes is a type whose state holds maps and slices, with handlers that change
// them.
func newNotes(more ...aggregate.Option) *aggregate.Type[notes] {
	schema := jetstream.NewSchema("notes", jetstream.Event[begun]("begun"), jetstream.Event[noted]("noted"))
	damage := func(n notes) {
		n.Seen["spoilt"] = 1
		n.Order[0] = "spoilt"
	}
	return aggregate.New[notes](schema, append([]aggregate.Option{
		aggregate.Apply(func(n *notes, e begun, _ jetstream.Meta) {
			n.Seen, n.Order = map[string]int{"begun": 1}, []string{"begun" + strings.Repeat("x", e.Size)}
		}),
		aggregate.Apply(func(n *notes, e noted, m jetstream.Meta) {
			n.Seen[e.Text]++
			n.Order = append(n.Order, e.Text)
			m.Metadata["applied"] = "changed"
		}),
		aggregate.Create("begin", func(begin, aggregate.Decision) ([]any, error) { return []any{begun{}}, nil }),
		aggregate.Create("sized", func(c sizing, _ aggregate.Decision) ([]any, error) { return []any{begun{c.Bytes}}, nil }),
		aggregate.Handle("note", func(n notes, c note, d aggregate.Decision) ([]any, error) {
			damage(n)
			d.Metadata["decided"] = "changed"
			return []any{noted(c)}, nil
		}),
		aggregate.Handle("shout", func(_ notes, c shout, _ aggregate.Decision) ([]any, error) {
			return []any{noted{strings.Repeat(c.Text, c.Times)}}, nil
		}),
		aggregate.Handle("spoil", func(n notes, _ spoil, _ aggregate.Decision) ([]any, error) {
			damage(n)
			return nil, aggregate.Reject("spoilt", "")
		}),
	}, more...)...)
}

func TestHandlersChangeOnlyTheirCopy(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	repo := repoOf(t, store, newNotes())
	must(t, repo, "n1", begin{})
	if _, err := repo.Execute(t.Context(), "n1", spoil{}); !errors.Is(err, aggregate.ErrRejected) {
		t.Fatal(err)
	}
	_, err := repo.ExecuteFunc(t.Context(), "n1", func(n notes, _ aggregate.Decision) (any, error) {
		if n.Order[0] != "begun" {
			return nil, fmt.Errorf("spoilt before: %v", n)
		}
		n.Order[0] = "spoilt"
		clear(n.Seen)
		return note{"hello"}, nil
	}, aggregate.Metadata(map[string]string{"k": "v"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*aggregate.Repository[notes]{repo, repoOf(t, store, newNotes())} {
		snap, err := r.Load(t.Context(), "n1")
		if err != nil || !maps.Equal(snap.State.Seen, map[string]int{"begun": 1, "hello": 1}) || snap.State.Order[0] != "begun" {
			t.Fatalf("%+v %v", snap, err)
		}
		snap.State.Order[0] = "changed by the reader"
	}
	for e, err := range repo.History(t.Context(), "n1") {
		if err != nil || e.Version == 2 && (e.Metadata["k"] != "v" || e.Metadata["decided"] != "" || e.Metadata["applied"] != "") {
			t.Fatal(e, err)
		}
	}
}

// States of any size, under any fingerprint: what a load finds is the same.
func TestStates(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	for name, opts := range map[string][]aggregate.Option{
		"InTheCommit": nil,
		"Never":       {aggregate.StateLimit(0)},
		"UpTo100":     {aggregate.StateLimit(100)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t, nc, jetstream.Config{})
			writer := repoOf(t, store, newNotes(opts...))
			must(t, writer, "n1", sizing{20})
			meta := aggregate.Metadata(map[string]string{"k": "v"})
			other := repoOf(t, store, newNotes(opts...))
			for i := range 12 {
				must(t, writer, "n1", note{strings.Repeat("t", 10) + string(rune('a'+i))}, meta)
				if i%3 == 0 {
					must(t, other, "n1", note{"other"}, meta) // with a cache that is some commits behind
				}
			}
			want, err := writer.Load(t.Context(), "n1")
			if err != nil || want.Version != 17 || len(want.State.Order) != 17 {
				t.Fatalf("%+v %v", want, err)
			}
			for what, more := range map[string][]aggregate.Option{
				"cold": opts, "another fold": append([]aggregate.Option{aggregate.StateVersion(2)}, opts...),
			} {
				got, err := repoOf(t, store, newNotes(more...)).Load(t.Context(), "n1")
				if err != nil || got.Version != 17 || strings.Join(got.State.Order, ",") != strings.Join(want.State.Order, ",") ||
					!maps.Equal(got.State.Seen, want.State.Seen) {
					t.Errorf("%s: %+v %v", what, got, err)
				}
			}
		})
	}
}

// A fold that changed its meaning is not mixed with states of the old one.
func TestStateVersionAppliesTheEventsAgain(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{100})
	must(t, repo, "a1", credit{5})
	mended := repoOf(t, store, aggregate.New[account](events, aggregate.StateVersion(2),
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) { a.Cents += 10 * e.Cents }),
		aggregate.Handle("debit", func(_ account, c debit, _ aggregate.Decision) ([]any, error) { return []any{debited(c)}, nil }),
	))
	balance(t, mended, "a1", 150, 2)
	must(t, mended, "a1", debit{50})
	balance(t, newRepo(t, store), "a1", 55, 3) // each reads its own
	balance(t, mended, "a1", 100, 3)
}

// What does not fit into a message is refused, and nothing of it is stored.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	nc := natstest.Conn(t, srv.URL())
	store := newStore(t, nc, jetstream.Config{})
	repo := repoOf(t, store, newNotes(aggregate.StateLimit(1<<30)))
	most := int(nc.MaxPayload())
	must(t, repo, "n1", sizing{most}) // a large state of a small event
	_, err := repo.Execute(t.Context(), "n1", note{strings.Repeat("y", most)}, aggregate.Metadata(map[string]string{"k": "v"}))
	wantAs[*jetstream.RefusedError](t, err)
	if snap, err := repo.Load(t.Context(), "n1"); err != nil || snap.Version != 1 || len(snap.State.Order[0]) < most {
		t.Fatal(snap.Version, err)
	}
	// An event and a state that fit alone but not together: the state stays out.
	must(t, repo, "n2", begin{})
	text := strings.Repeat("y", most*2/5)
	meta := aggregate.Metadata(map[string]string{"k": "v"})
	for range 3 {
		must(t, repo, "n2", note{text}, meta)
	}
	got, err := repoOf(t, store, newNotes(aggregate.StateLimit(1<<30))).Load(t.Context(), "n2")
	if err != nil || got.State.Seen[text] != 3 {
		t.Fatal(got.State.Seen[text], err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := repo.Execute(ctx, "n3", begin{}); !errors.Is(err, jetstream.ErrUnavailable) {
		t.Fatal(err)
	}
}
