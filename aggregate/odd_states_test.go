package aggregate_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	odd struct {
		Rate float64
		Self *odd
		Text stubborn
		Done int
	}
	// stubborn encodes itself, unless it is told not to.
	stubborn string

	became struct{ How string }
	become struct{ How string }
)

func (s stubborn) MarshalText() ([]byte, error) {
	switch s {
	case "error":
		return nil, errPlain
	case "panic":
		panic("on purpose")
	default:
		return []byte(s), nil
	}
}

func (s *stubborn) UnmarshalText(text []byte) error {
	*s = stubborn(text)
	return nil
}

var oddEvents = jetstream.NewSchema("odd", jetstream.Event[became]("became"))

func newOdd(version int, apply func(o *odd, e became, _ jetstream.Meta)) *aggregate.Type[odd] {
	events := func(how string) ([]any, error) { return []any{became{how}}, nil }
	return aggregate.New[odd](oddEvents, aggregate.Apply(apply), aggregate.StateVersion(version),
		aggregate.Create("open", func(open, aggregate.Decision) ([]any, error) { return events("fine") }),
		aggregate.Handle("become", func(_ odd, c become, _ aggregate.Decision) ([]any, error) { return events(c.How) }),
	)
}

func applyOdd(o *odd, e became, _ jetstream.Meta) {
	switch e.How {
	case "NaN":
		o.Rate = math.NaN()
	case "cycle":
		o.Self = o
	default:
		o.Text = stubborn(e.How)
	}
	o.Done++
}

// A command whose state does not encode fails with a clear error, and nothing of
// it is stored; the aggregate goes on. Events that are stored already, and lead to
// such a state under a new Apply, are not lost either: the load says what is wrong
// until the Apply is mended.
func TestStatesThatDoNotEncode(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	for _, codec := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			store := newStore(t, nc, jetstream.Config{Codec: codec})
			repo := repoOf(t, store, newOdd(1, applyOdd))
			must(t, repo, "o1", open{})
			before := head(t, store)
			ways := map[string]string{"cycle": "hold itself", "error": errPlain.Error(), "panic": "on purpose"}
			if codec == jetstream.JSON {
				ways["NaN"] = "NaN"
			}
			for how, want := range ways {
				_, err := repo.Execute(t.Context(), "o1", become{how})
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `odd "o1"`) ||
					!strings.Contains(err.Error(), "encode state") {
					t.Errorf("%s: %v", how, err)
				}
			}
			if head(t, store) != before {
				t.Error("something was stored")
			}
			must(t, repo, "o1", become{"better"})

			// The same with history: the Apply is another one now.
			for how, want := range ways {
				worse := newOdd(2, func(o *odd, e became, m jetstream.Meta) {
					if e.How == "better" {
						e.How = how
					}
					applyOdd(o, e, m)
				})
				_, err := repoOf(t, store, worse).Load(t.Context(), "o1")
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `odd "o1"`) {
					t.Errorf("load, %s: %v", how, err)
				}
				if _, err := repoOf(t, store, worse).Execute(t.Context(), "o1", become{"fine"}); err == nil || errors.Is(err, aggregate.ErrNotFound) {
					t.Errorf("execute, %s: %v", how, err)
				}
			}
			snap, err := repoOf(t, store, newOdd(3, applyOdd)).Load(t.Context(), "o1")
			if err != nil || snap.State.Done != 2 || snap.State.Text != "better" {
				t.Errorf("%+v %v", snap.State, err)
			}
		})
	}
}
