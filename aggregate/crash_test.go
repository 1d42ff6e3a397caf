package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// crash is the scene: from's debit makes its reactor set a deadline, credit the
// one account, fail to debit the other and therefore give the money back.
type crash struct {
	store *jetstream.Store
	name  string // of the reactor and, with an end, of its accounts
}

func (c crash) id(role string) string { return c.name + "-" + role }

// reactor handles the events of its own accounts only.
func (c crash) reactor(store *jetstream.Store, ttl time.Duration, begin, end func()) (*aggregate.Reactor, error) {
	repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{})
	if err != nil {
		return nil, err
	}
	cfg := reactorConfig()
	cfg.TTL = ttl
	return aggregate.NewReactor(store, c.name, cfg, aggregate.On(events,
		func(ctx context.Context, e debited, m jetstream.Meta, do *aggregate.Do) error {
			if m.ID != c.id("from") {
				return nil
			}
			begin()
			if err := do.After(ctx, time.Hour, repo, m.ID, debit{1}); err != nil {
				return err
			}
			if _, err := do.Update(ctx, repo, c.id("to"), credit(e)); err != nil {
				return err
			}
			_, err := do.Update(ctx, repo, c.id("poor"), debit{1000})
			if aggregate.IsRefusal(err) {
				_, err = do.Update(ctx, repo, m.ID, credit(e), aggregate.Step("give-back"))
			}
			if err != nil {
				return err
			}
			end()
			return nil
		}))
}

// open makes the accounts and the event.
func (c crash) open(t testing.TB) {
	t.Helper()
	repo := newRepo(t, c.store)
	must(t, repo, c.id("to"), open{0})
	must(t, repo, c.id("poor"), open{10})
	must(t, repo, c.id("from"), open{50})
	must(t, repo, c.id("from"), debit{30})
}

// history is everything that was decided, without what differs from run to run.
func (c crash) history(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, role := range []string{"from", "to", "poor"} {
		for commit, err := range c.store.History(t.Context(), "account", c.id(role), jetstream.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range commit.Decisions {
				if d.Metadata["meanwhile"] != "" {
					continue
				}
				line := fmt.Sprint(role, " ", commit.Version, " ", d.Trigger.Step, " ", d.Outcome, " ", d.Code)
				parts := []string{line}
				for _, e := range d.Events {
					parts = append(parts, e.Name, string(e.Data))
				}
				out = append(out, strings.Join(parts, " "))
			}
		}
	}
	return out
}

// meanwhile makes what was refused acceptable, once the refusal is recorded: the
// handler has to take the same branch anyway (C18).
func (c crash) meanwhile(t testing.TB) {
	t.Helper()
	if slices.ContainsFunc(c.history(t), func(line string) bool { return strings.Contains(line, "insufficient-funds") }) {
		must(t, newRepo(t, c.store), c.id("poor"), credit{5000}, aggregate.Metadata(map[string]string{"meanwhile": "yes"}))
	}
}

// goesOn lets another instance take over, and wants the same history as without
// the crash, the deadline included.
func (c crash) goesOn(t testing.TB, nc *nats.Conn, want []string) {
	t.Helper()
	c.meanwhile(t)
	r, err := c.reactor(reopen(t, nc, c.store), brief, func() {}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	natstest.Eventually(t, "another instance has caught up", func() error {
		if s := r.Status(); !s.CaughtUp {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if got := c.history(t); !slices.Equal(got, want) {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := c.deadlines(t, nc); n != 1 {
		t.Errorf("%d deadlines, want 1", n)
	}
}

// deadlines counts those of the scene.
func (c crash) deadlines(t testing.TB, nc *nats.Conn) int {
	t.Helper()
	n := 0
	for _, data := range timerMessages(t, nc, c.store) {
		if strings.Contains(string(data), `"subscriber":"`+c.name+`"`) {
			n++
		}
	}
	return n
}

// undisturbed is the scene without a crash: what is decided, and where an instance
// could die.
func undisturbed(t *testing.T, nc *nats.Conn, url string, store *jetstream.Store) ([]string, []point) {
	t.Helper()
	c := crash{store, "undisturbed"}
	c.open(t)
	wire := newTrap(store.Name(), point{})
	victim := natstest.Conn(t, url, nats.SetCustomDialer(wire))
	r, err := c.reactor(reopen(t, victim, store), steady, wire.arm, wire.release)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, r)
	natstest.Eventually(t, "the event is recorded as handled", func() error {
		if p := wire.points(); len(p) == 0 || p[len(p)-1].Kind != sendsRecord {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	if c.deadlines(t, nc) != 1 {
		t.Error("no deadline was set")
	}
	return c.history(t), wire.points()
}

// A reactor's instance dies at every message of its loop, before it leaves or
// after it has arrived: before and after each load, after each decision (before
// its append), after each append, before and after the record. The next instance
// ends where it would have ended, and nothing happened twice.
func TestReactorDiesAtEveryStep(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, url string, replicas int) {
		t.Helper()
		nc := natstest.Conn(t, url)
		store := newStore(t, nc, jetstream.Config{Replicas: replicas})
		newTimers(t, store, newRepo(t, store))
		want, points := undisturbed(t, nc, url, store)
		kinds := map[string]bool{}
		for _, p := range points {
			kinds[p.Kind] = true
		}
		for _, kind := range []string{sendsLoad, sendsAppend, sendsTimer, sendsRecord} {
			if !kinds[kind] {
				t.Fatalf("no point of kind %s among %v", kind, points)
			}
		}
		t.Logf("%d points: %v", len(points), points)
		for i, p := range points {
			if testing.Short() && replicas > 1 && i%3 != 0 {
				continue // on one server it dies at all of them
			}
			t.Run(p.String(), func(t *testing.T) {
				t.Parallel()
				c := crash{store, fmt.Sprint("dies-", i)}
				c.open(t)
				wire := newTrap(store.Name(), p)
				victim := natstest.Conn(t, url, nats.SetCustomDialer(wire))
				r, err := c.reactor(reopen(t, victim, store), brief, wire.arm, wire.release)
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- r.Run(context.WithoutCancel(t.Context())) }()
				t.Cleanup(func() {
					victim.Close()
					t.Log("the dead instance:", <-ended)
				})
				wire.dies(t)
				c.goesOn(t, natstest.Conn(t, url), want)
			})
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		test(t, natstest.Run(t).URL(), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, strings.Join(natstest.RunCluster(t).URLs(), ","), 3)
	})
}

// The environment of a process that is to die: where and at what.
const (
	crashEnv      = "ROSSBY_TEST_CRASH"
	crashEnvURL   = "ROSSBY_TEST_CRASH_URL"
	crashEnvStore = "ROSSBY_TEST_CRASH_STORE"
	crashEnvName  = "ROSSBY_TEST_CRASH_NAME"
)

// crashing is the process that kills itself at the point. It returns what went
// wrong instead.
func crashing(text string) error {
	var p point
	if _, err := fmt.Sscanf(text, "%s %d %t", &p.Kind, &p.N, &p.After); err != nil {
		return fmt.Errorf("point %q: %w", text, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), natstest.Patience)
	defer cancel()
	wire := newTrap(os.Getenv(crashEnvStore), p)
	wire.die = func() {
		err := syscall.Kill(os.Getpid(), syscall.SIGKILL)
		panic(fmt.Sprint("survived: ", err))
	}
	nc, err := nats.Connect(os.Getenv(crashEnvURL), nats.SetCustomDialer(wire), nats.ReconnectBufSize(-1),
		nats.Timeout(natstest.Patience))
	if err != nil {
		return err
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: os.Getenv(crashEnvStore)})
	if err != nil {
		return err
	}
	r, err := crash{store, os.Getenv(crashEnvName)}.reactor(store, brief, wire.arm, wire.release)
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// The same with processes that die by SIGKILL.
func TestReactorProcessDies(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, url string, replicas int) {
		t.Helper()
		nc := natstest.Conn(t, url)
		store := newStore(t, nc, jetstream.Config{Replicas: replicas})
		newTimers(t, store, newRepo(t, store))
		want, _ := undisturbed(t, nc, url, store)
		for name, p := range map[string]point{
			"BeforeLoad": {sendsLoad, 1, false}, "AfterDecide": {sendsAppend, 2, false},
			"AfterAppend": {sendsAppend, 2, true}, "BeforeRecord": {sendsRecord, 1, false},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := crash{store, "process-" + strings.ToLower(name)}
				c.open(t)
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), self)
				cmd.Env = append(os.Environ(), crashEnv+"="+fmt.Sprint(p.Kind, " ", p.N, " ", p.After),
					crashEnvURL+"="+url, crashEnvStore+"="+store.Name(), crashEnvName+"="+c.name)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) {
					t.Fatalf("the process lives: %v\n%s", err, out)
				}
				if s, ok := exit.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
					t.Fatalf("%v\n%s", err, out)
				}
				c.goesOn(t, natstest.Conn(t, url), want)
			})
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		test(t, natstest.Run(t).URL(), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, strings.Join(natstest.RunCluster(t).URLs(), ","), 3)
	})
}
