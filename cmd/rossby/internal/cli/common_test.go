package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/rossby/internal/cli"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// The bank of the tests.
type (
	opened  struct{ Cents int64 }
	debited struct{ Cents int64 }

	account struct{ Cents int64 }

	open  struct{ Cents int64 }
	debit struct{ Cents int64 }

	accountView struct {
		Cents int64 `json:"cents"`
	}
)

var (
	events = jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[debited]("debited"))
	typ    = aggregate.New[account](events,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("debit", func(a account, c debit, _ aggregate.Decision) ([]any, error) {
			if a.Cents < c.Cents {
				return nil, aggregate.Reject("insufficient-funds", "the balance is %d", a.Cents)
			}
			return []any{debited(c)}, nil
		}),
	)
	accounts = projection.NewKeyed("accounts",
		projection.On(events, func(v *accountView, e opened, _ jetstream.Meta) { v.Cents = e.Cents }),
		projection.OnRow(events, func(row *projection.Row[accountView], e debited, _ jetstream.Meta) error {
			if e.Cents == unfoldable {
				return errors.New("nobody debits that much")
			}
			row.Value.Cents -= e.Cents
			return nil
		}),
	)
	quiet = slog.New(slog.DiscardHandler)
)

// unfoldable is what the view stops at, unpayable what the gateway parks.
const (
	unfoldable = 13
	unpayable  = 17
)

// bank is a server with a store in use.
type bank struct {
	t     testing.TB
	url   string
	nc    *nats.Conn
	store *jetstream.Store
	repo  *aggregate.Repository[account]
	// in is what a person types, inTerminal whether there is one.
	in         string
	inTerminal bool
	// errTerminal tells that somebody watches the error output.
	errTerminal bool
	// notes gets what is written for a person, unless nil.
	notes func(text string)
}

func newBank(t testing.TB) *bank {
	t.Helper()
	return newBankAt(t, natstest.Run(t).URL(), 1)
}

func newBankAt(t testing.TB, url string, replicas int) *bank {
	t.Helper()
	b := &bank{t: t, url: url}
	b.nc = natstest.Conn(t, b.url)
	var err error
	if b.store, err = jetstream.Open(t.Context(), b.nc, jetstream.Config{Name: "bank", Replicas: replicas}); err != nil {
		t.Fatal(err)
	}
	if b.repo, err = aggregate.NewRepository(b.store, typ, aggregate.RepositoryConfig{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// account makes an account and debits it.
func (b *bank) account(id string, cents int64, debits ...int64) jetstream.Position {
	b.t.Helper()
	res, err := b.repo.Create(b.t.Context(), id, open{cents})
	for _, d := range debits {
		if err == nil {
			res, err = b.repo.Execute(b.t.Context(), id, debit{d})
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return res.Position
}

// run is something that runs until the test ends.
func (b *bank) run(run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bank) service() {
	b.t.Helper()
	s, err := aggregate.NewService(b.repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(s.Run)
	select {
	case <-s.Ready():
	case <-b.t.Context().Done():
	}
}

func (b *bank) view() {
	b.t.Helper()
	u, err := projection.NewUpdater(b.store, accounts, projection.UpdaterConfig{Logger: quiet, FoldRetries: -1})
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(u.Run)
	natstest.Eventually(b.t, "the view has a reader", func() error {
		_, err := projection.ReadStatus(b.t.Context(), b.nc, "bank", "accounts")
		return err
	})
}

func (b *bank) gateway() {
	b.t.Helper()
	g, err := gateway.New(b.store, "letters", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: quiet, MinBackoff: time.Millisecond,
	}, gateway.On(events, func(_ context.Context, e debited, _ gateway.Delivery) error {
		if e.Cents == unpayable {
			return gateway.Permanent(errors.New("no such address"))
		}
		return nil
	}))
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(g.Run)
}

// result is what a command line printed, and its exit code.
type result struct {
	t        testing.TB
	args     []string
	out, err string
	code     int
	// again runs it once more.
	again func() result
}

func (b *bank) rossby(args ...string) result {
	b.t.Helper()
	return b.rossbyIn(b.t.Context(), args...)
}

func (b *bank) rossbyIn(ctx context.Context, args ...string) result {
	b.t.Helper()
	r := b.once(ctx, args...)
	r.again = func() result { return b.once(ctx, args...) }
	return r
}

func (b *bank) once(ctx context.Context, args ...string) result {
	b.t.Helper()
	var out bytes.Buffer
	errOut := noting{notes: b.notes}
	all := append([]string{"--server", b.url, "--no-context", "--timeout", natstest.Patience.String()}, args...)
	code := cli.Run(ctx, all, cli.Env{In: strings.NewReader(b.in), Out: &out, Err: &errOut, InTerminal: b.inTerminal, ErrTerminal: b.errTerminal})
	return result{t: b.t, args: args, out: out.String(), err: errOut.String(), code: code}
}

// until runs a command line until it prints what it should: whoever is asked may not
// answer in time, and the servers alone know less.
func (b *bank) until(args []string, texts ...string) {
	b.t.Helper()
	natstest.Eventually(b.t, strings.Join(args, " "), func() error {
		r := b.rossby(args...)
		for _, text := range texts {
			if r.code != 0 || !strings.Contains(r.out, text) {
				return fmt.Errorf("exit code %d, %q is not in %s%s", r.code, text, r.out, r.err)
			}
		}
		return nil
	})
}

// noting hands on what is written.
type noting struct {
	bytes.Buffer

	notes func(text string)
}

func (n *noting) Write(p []byte) (int, error) {
	if n.notes != nil {
		n.notes(string(p))
	}
	return n.Buffer.Write(p)
}

// unavailable is the exit code when nobody answered in time.
const unavailable = 5

// ends checks the exit code. When nobody answered in time it is run again, as a person
// would.
func (r result) ends(code int) result {
	r.t.Helper()
	if r.code == unavailable && code != unavailable && r.again != nil {
		again := r.again
		natstest.Eventually(r.t, strings.Join(r.args, " "), func() error {
			if r = again(); r.code == unavailable {
				return errors.New(r.err)
			}
			return nil
		})
	}
	if r.code != code {
		r.t.Fatalf("rossby %v: exit code %d, want %d\n%s%s", r.args, r.code, code, r.out, r.err)
	}
	return r
}

// says checks that texts stand in the output.
func (r result) says(texts ...string) result {
	r.t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.out, text) {
			r.t.Errorf("rossby %v: %q is not in\n%s", r.args, text, r.out)
		}
	}
	return r
}

// fails checks that texts stand in the error output.
func (r result) fails(texts ...string) result {
	r.t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.err, text) {
			r.t.Errorf("rossby %v: %q is not in\n%s", r.args, text, r.err)
		}
	}
	return r
}

// decode reads the output's first JSON value.
func (r result) decode(into any) {
	r.t.Helper()
	if err := json.NewDecoder(strings.NewReader(r.out)).Decode(into); err != nil {
		r.t.Fatalf("rossby %v: %v\n%s", r.args, err, r.out)
	}
}
