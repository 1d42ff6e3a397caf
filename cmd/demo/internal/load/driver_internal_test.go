package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// paper is a bank on paper, with faults.
type paper struct {
	mu       sync.Mutex
	calls    int
	cents    map[string]int64
	done     map[string]string // outcome by key
	ended    map[string]transfer.State
	flaky    bool // every third call fails, after it was carried out
	loses    bool // a cent of each transfer
	hangs    bool // transfers do not end
	crooked  bool // says that its books do not balance
	unsuited bool // refuses every transfer
}

func newPaper() *paper {
	return &paper{cents: map[string]int64{}, done: map[string]string{}, ended: map[string]transfer.State{}}
}

func (p *paper) fault() error {
	if p.calls++; p.flaky && p.calls%3 == 0 {
		return fmt.Errorf("%w: away", errAgain)
	}
	return nil
}

func (p *paper) open(_ context.Context, key, _ string, cents int64) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.done[key]; !ok {
		p.done[key] = "a" + strconv.Itoa(len(p.cents))
		p.cents[p.done[key]] = cents
	}
	return p.done[key], p.fault()
}

func (p *paper) transfer(_ context.Context, key string, o order) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsuited {
		return "", errors.New("422: no")
	}
	if _, ok := p.done[key]; !ok {
		id := "t" + strconv.Itoa(len(p.done))
		p.done[key] = id
		switch {
		case p.hangs:
			p.ended[id] = transfer.Debited
		case p.cents[o.FromAccountID] < o.Cents:
			p.ended[id] = transfer.FailedInsufficientFunds
		default:
			p.cents[o.FromAccountID] -= o.Cents
			p.cents[o.ToAccountID] += o.Cents
			if p.loses {
				p.cents[o.ToAccountID]--
			}
			p.ended[id] = transfer.Completed
		}
	}
	return p.done[key], p.fault()
}

func (p *paper) states(_ context.Context, ids []string) (map[string]transfer.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := map[string]transfer.State{}
	for _, id := range ids {
		states[id] = p.ended[id]
	}
	return states, p.fault()
}

func (p *paper) head(context.Context) (jetstream.Position, error) { return jetstream.Position{}, nil }

func (p *paper) balance(_ context.Context, id string, _ jetstream.Position) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cents[id], p.fault()
}

func (p *paper) books(context.Context) (books, error) { return books{holds: !p.crooked}, nil }

func TestDriver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set  func(*paper)
		want string // in the error
		out  string
	}{
		"Good":     {func(*paper) {}, "", "they balance"},
		"Flaky":    {func(p *paper) { p.flaky = true }, "", "they balance"},
		"Loses":    {func(p *paper) { p.loses = true }, ErrInvariant.Error(), "THEY DO NOT BALANCE"},
		"Crooked":  {func(p *paper) { p.crooked = true }, ErrInvariant.Error(), "THEY DO NOT BALANCE"},
		"Hangs":    {func(p *paper) { p.hangs = true }, "did not end", ""},
		"Unsuited": {func(p *paper) { p.unsuited = true }, "422", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPaper()
			test.set(p)
			patience := natstest.Patience
			if p.hangs {
				patience = 200 * time.Millisecond
			}
			var out bytes.Buffer
			d := newDriver(Config{
				Transfers: 100, Clients: 8, Accounts: 5, InitialCents: 10_000, Patience: patience, Out: &out,
			}, p)
			err := d.run(t.Context())
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if !strings.Contains(out.String(), test.out) {
				t.Errorf("want %q in\n%s", test.out, out.String())
			}
			if name == "Flaky" && d.retries == 0 {
				t.Error("nothing was repeated")
			}
		})
	}
}

func TestDriverEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPaper()
	p.hangs = true
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	d := newDriver(Config{Transfers: 10, Clients: 2, Accounts: 2, InitialCents: 10, Patience: time.Minute, Out: new(bytes.Buffer)}, p)
	if err := d.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	sorted := make([]time.Duration, 0, 100)
	for i := range 100 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	for p, want := range map[int]int64{0: 1, 50: 50, 99: 99, 100: 100} {
		if got := percentile(sorted, p); got.Milliseconds() != want {
			t.Errorf("p%d %v", p, got)
		}
	}
	if percentile(nil, 50) != 0 {
		t.Error("of nothing")
	}
}
