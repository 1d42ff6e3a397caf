package acceptance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/internal/natstest"
)

// receiver is a notification service that counts what it gets per key.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	byKey    map[string]int
	transfer map[string]map[string]bool // keys by transfer
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{byKey: map[string]int{}, transfer: map[string]map[string]bool{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var n struct {
			TransferID string `json:"transferId"`
		}
		key := req.Header.Get("Idempotency-Key")
		if err := json.NewDecoder(req.Body).Decode(&n); err != nil || key == "" || n.TransferID == "" {
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.byKey[key]++
		if r.transfer[n.TransferID] == nil {
			r.transfer[n.TransferID] = map[string]bool{}
		}
		r.transfer[n.TransferID][key] = true
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

// keys are the keys that came for a transfer.
func (r *receiver) keys(transfer string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.transfer[transfer])
}

// monolith starts everything in one process. Unless args say so, nobody gives a transfer
// or a new account up because the machine is slow.
func monolith(t testing.TB, args ...string) (p *process, base, natsURL string) {
	t.Helper()
	p = start(t, "monolith", nil, demoBinary(t),
		append([]string{"--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--seed=false", "--deadline", "1h"}, args...)...)
	return p, p.line(t, "The bank is open:"), p.line(t, "NATS clients join at")
}

// modules are the bank's modules as processes of their own: each of the set-up's
// lists is one.
func modules() [][]string {
	return [][]string{
		{"account-commands"}, {"customer-commands"}, {"transfer-commands"}, {"transfer-process", "account-opening"},
		{"account-view"}, {"customer-view"}, {"transfer-view", "ledger-view"}, {"queries"}, {"notifications"}, {"http"},
	}
}

// services are the bank as many processes.
type services struct {
	t      testing.TB
	nats   string
	http   string
	notify string

	mu      sync.Mutex
	running map[string]*process
	kills   atomic.Int64
}

func microservices(t testing.TB, notifyURL string) *services {
	t.Helper()
	s := &services{t: t, nats: server(t), http: natstest.Addr(t), notify: notifyURL, running: map[string]*process{}}
	for _, m := range modules() {
		s.start(m)
		if m[0] == "account-commands" {
			// It makes the store, which the views need.
			s.process(m[0]).line(t, "running")
		}
	}
	s.process("http").line(t, "running")
	return s
}

func (s *services) start(modules []string) {
	args := append([]string{"run"}, modules...)
	args = append(args, "--nats", s.nats, "--http", s.http, "--notify", s.notify, "--ttl", "1s", "--wait", patience.String(),
		"--deadline", "1h") // nobody gives a transfer up because the machine is slow
	p := start(s.t, modules[0], nil, demoBinary(s.t), args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[modules[0]] = p
}

func (s *services) process(name string) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[name]
}

// chaos kills one module after the other, in random order, round after round, and
// starts it again, until ctx ends; then all modules run.
func (s *services) chaos(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		all := modules()
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, m := range all {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			s.process(m[0]).kill()
			s.kills.Add(1)
			s.start(m)
		}
	}
}

func TestMonolith(t *testing.T) { //nolint:tparallel // the group ends before the process does
	t.Parallel()
	p, base, _ := monolith(t)
	c := newClient(base)
	t.Run("Suite", func(t *testing.T) { suite(t, c) })
	books(t, c)
	oneTrace(t, c, 1)
	if err := p.stop(t); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
}

func TestMicroservices(t *testing.T) { //nolint:tparallel // the rounds come one after the other
	t.Parallel()
	s := microservices(t, newReceiver(t).URL)
	c := newClient("http://" + s.http)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return s.chaos(ctx, 700*time.Millisecond) })
	// Until every module has been killed under it.
	for round := 1; s.kills.Load() < int64(len(modules())); round++ {
		t.Run(fmt.Sprintf("Suite%d", round), func(t *testing.T) { suite(t, c) })
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	books(t, c)
	// Nobody is killed meanwhile, which would take spans along. Two command services, the
	// reactor, two processes with views, and the gateway have a part in it.
	oneTrace(t, c, 6)
	opens(t, c)
}

// TestStoreIsKept: with --store a restart continues.
func TestStoreIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, base, _ := monolith(t, "--store", dir)
	c := newClient(base)
	from, to := c.open(t, 1000), c.open(t, 0)
	c.ended(t, c.transfer(t, from, to, 300), completed)
	if err := p.stop(t); err != nil {
		t.Fatal(err)
	}
	p, base, _ = monolith(t, "--store", dir)
	c = newClient(base)
	c.balance(t, from, 700)
	c.ended(t, c.transfer(t, from, to, 300), completed)
	c.balance(t, to, 600)
	p.kill()
	_, base, _ = monolith(t, "--store", dir)
	newClient(base).balance(t, to, 600)
}

// TestTransfersUnderKills: 2,000 random transfers over 50 accounts from 16
// clients while module processes are killed and restarted. Every transfer ends,
// the books are exact, and every end is told once per key.
func TestTransfersUnderKills(t *testing.T) { //nolint:paralleltest // it takes both cores
	const transfers, accounts, clients, initial = 2000, 50, 16, 1000_00
	r := newReceiver(t)
	s := microservices(t, r.URL)
	c := newClient("http://" + s.http)
	ids := make([]string, accounts)
	for i := range ids {
		ids[i] = c.open(t, initial)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	chaos, calm := context.WithCancel(ctx)
	defer calm()
	var killer errgroup.Group
	killer.Go(func() error { return s.chaos(chaos, 300*time.Millisecond) })

	made := make([]string, transfers)
	work := make(chan int)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for i := range transfers {
			select {
			case work <- i:
			case <-gctx.Done():
				return nil
			}
		}
		return nil
	})
	for range clients {
		g.Go(func() error {
			for i := range work {
				from, to := rand.IntN(accounts), rand.IntN(accounts-1)
				if to >= from {
					to++
				}
				a, err := c.do(gctx, "POST", "/api/transfers", fmt.Sprintf("transfer-%d", i), object{
					"fromAccountId": ids[from], "toAccountId": ids[to], "cents": 1 + rand.IntN(300_00),
				})
				if err != nil || a.status != http.StatusAccepted {
					return fmt.Errorf("transfer %d: %d %s: %w", i, a.status, a.body, err)
				}
				var v transferReply
				if err := json.Unmarshal(a.body, &v); err != nil {
					return err
				}
				made[i] = v.TransferID
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "every module killed", func() error {
		if n := s.kills.Load(); n < int64(len(modules())) {
			return fmt.Errorf("%d kills", n)
		}
		return nil
	})
	calm()
	if err := killer.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	outcomes := map[string]int{}
	for _, id := range made {
		if seen[id] {
			t.Fatalf("two requests made transfer %s", id)
		}
		seen[id] = true
		var v transferView
		eventually(ctx, t, "end of "+id, func() error {
			a, err := c.do(ctx, "GET", "/api/transfers/"+id, "", nil)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(a.body, &v); err != nil {
				return err
			}
			if !v.Notified {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
		outcomes[v.State]++
		if n := r.keys(id); n != 1 {
			t.Errorf("transfer %s was told under %d keys", id, n)
		}
	}
	books(t, c)
	var sum int64
	for _, id := range ids {
		sum += call[accountView](t, c, 200, "GET", "/api/accounts/"+id, nil).BalanceCents
	}
	if sum != accounts*initial {
		t.Fatalf("the accounts hold %d cents, %d were deposited", sum, accounts*initial)
	}
	if outcomes[completed] == 0 || outcomes[completed]+outcomes[failedFunds] != transfers {
		t.Fatalf("outcomes: %v", outcomes)
	}
	repeats := 0
	for _, n := range r.byKey {
		repeats += n - 1
	}
	t.Logf("outcomes %v; %d kills; %d notifications, %d deliveries repeated under their key",
		outcomes, s.kills.Load(), len(r.byKey), repeats)
}

// TestHangingTransferTimesOut: with nobody to debit, the deadline ends the
// transfer; the late debit is given back.
func TestHangingTransferTimesOut(t *testing.T) {
	t.Parallel()
	natsURL, addr := server(t), natstest.Addr(t)
	demo := demoBinary(t)
	run := func(name string, modules ...string) *process {
		p := start(
			t,
			name,
			nil,
			demo,
			append(
				append([]string{"run"}, modules...),
				"--nats",
				natsURL,
				"--http",
				addr,
				"--deadline",
				"1s",
				"--ttl",
				"1s",
				"--wait",
				patience.String(),
			)...)
		p.line(t, "running")
		return p
	}
	accounts := run("accounts", "account-commands")
	run("rest", "transfer-commands", "customer-commands", "transfer-process", "account-view", "customer-view",
		"transfer-view", "ledger-view", "notifications", "http")
	c := newClient("http://" + addr)
	from, to := c.open(t, 500), c.open(t, 0)
	accounts.kill()
	id := c.transfer(t, from, to, 100)
	c.ended(t, id, failedTimeout)
	run("accounts", "account-commands")
	shows(t, c, "/api/accounts/"+from, "the late debit's refund", func(v accountView) bool {
		return v.BalanceCents == 500 && slices.ContainsFunc(v.History, func(e historyEntry) bool {
			return e.Type == "refunded" && e.TransferID == id
		})
	})
	c.ended(t, id, failedTimeout)
	c.balance(t, to, 0)
	books(t, c)
}
