package projectiontest_test

import (
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

type (
	Opened struct {
		Owner string
		Tags  []string
	}
	Credited struct{ Cents int64 }
	Moved    struct {
		From, To string
		Cents    int64
	}
	Closed struct{}

	Account struct {
		Owner string   `json:"owner"`
		Cents int64    `json:"cents"`
		Tags  []string `json:"tags,omitempty"`
		By    string   `json:"by,omitempty"`
	}
)

var events = jetstream.NewSchema("account",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Credited]("credited"),
	jetstream.Event[Moved]("moved"),
	jetstream.Event[Closed]("closed"),
)

// mistaken are the parts of a definition that mistakes replace.
type mistaken struct {
	opened   func(*Account, Opened, jetstream.Meta)
	credited func(*Account, Credited, jetstream.Meta)
	owner    func(Account) []string
}

// accounts is a sound definition, but for the mistakes.
func accounts(mistakes ...func(*mistaken)) *projection.Definition[Account] {
	m := mistaken{
		opened: func(a *Account, e Opened, m jetstream.Meta) {
			a.Owner, a.Tags, a.By = e.Owner, e.Tags, m.Metadata["by"]
		},
		credited: func(a *Account, e Credited, _ jetstream.Meta) { a.Cents += e.Cents },
		owner:    func(a Account) []string { return []string{a.Owner} },
	}
	for _, mistake := range mistakes {
		mistake(&m)
	}
	return projection.NewKeyed("accounts",
		projection.On(events, m.opened),
		projection.On(events, m.credited),
		projection.OnRow(events, func(row *projection.Row[Account], e Moved, _ jetstream.Meta) error {
			if !row.Exists {
				return fmt.Errorf("there is no account %q", row.Key)
			}
			if row.Key == e.From {
				row.Value.Cents -= e.Cents
			} else {
				row.Value.Cents += e.Cents
			}
			return nil
		}, projection.Keys(func(e Moved, _ jetstream.Meta) []string { return []string{e.From, e.To} })),
		projection.OnRow(events, func(row *projection.Row[Account], _ Closed, _ jetstream.Meta) error {
			row.Delete()
			return nil
		}),
	).Index("owner", m.owner)
}

// fails wants a test to fail, and to say the words.
func fails(t *testing.T, test func(testing.TB), words ...string) {
	t.Helper()
	natstest.Fails(t, func(r testing.TB) { test(projectiontest.Bubbled{TB: r, T: t}) }, words...)
}
