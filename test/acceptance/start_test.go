package acceptance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
)

// fails starts the demo and wants it to end with an error that says all of what.
func fails(t *testing.T, args []string, what ...string) {
	t.Helper()
	p := start(t, "demo", nil, demoBinary(t), args...)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("demo %v did not end:\n%s", args, p.output())
	}
	if p.err == nil {
		t.Fatalf("demo %v ended without an error:\n%s", args, p.output())
	}
	for _, w := range what {
		if !strings.Contains(p.output(), w) {
			t.Errorf("demo %v: the error does not say %q:\n%s", args, w, p.output())
		}
	}
}

func TestErrorsAtStart(t *testing.T) {
	t.Parallel()
	url := server(t)
	dir := t.TempDir()
	_, base, taken := monolith(t, "--store", dir)
	_ = newClient(base).open(t, 1)
	for name, test := range map[string]struct {
		args []string
		what []string
	}{
		"ViewOnMissingStore":    {[]string{"run", "account-view", "--nats", url, "--wait", patience.String()}, []string{"store not found", "start a command-side program first"}},
		"GatewayOnMissingStore": {[]string{"run", "notifications", "--nats", url, "--wait", patience.String()}, []string{"store not found"}},
		"UnknownModule":         {[]string{"run", "acount-view", "--nats", url}, []string{`module "acount-view" is not one of`, "account-view"}},
		"NoModule":              {[]string{"run", "--nats", url}, []string{"say which modules to run"}},
		"NoServer":              {[]string{"run", "all", "--nats", "nats://127.0.0.1:1", "--wait", "1s"}, []string{"127.0.0.1:1"}},
		"NowhereToGo":           {[]string{"run", "all"}, []string{"say where NATS is"}},
		"OtherReplicas":         {[]string{"run", "account-commands", "--nats", taken, "--replicas", "3", "--wait", patience.String()}, []string{"num_replicas is 1, not 3"}},
		"UnknownCommand":        {[]string{"walk"}, []string{`unknown argument "walk"`}},
		"NATSPortTaken": {
			[]string{"--http", "127.0.0.1:0", "--nats-listen", strings.TrimPrefix(taken, "nats://")},
			[]string{"--nats-listen", "in use"},
		},
		"StoreTaken": {
			[]string{"--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--store", dir},
			[]string{"is in use by another process"},
		},
		"PortTaken": {[]string{"--http", strings.TrimPrefix(base, "http://")}, []string{"--http", "in use"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fails(t, test.args, test.what...)
		})
	}
}

// TestStandbyTakesOver: two instances of every follower; the first is killed. Nobody
// takes a place because the machine stood still for a while: a place is kept for longer
// than that.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	url, addr := server(t), natstest.Addr(t)
	run := func(name string, args ...string) *process {
		p := start(
			t,
			name,
			nil,
			demoBinary(t),
			append(append([]string{"run"}, args...), "--nats", url, "--ttl", "10s", "--wait", patience.String())...)
		p.line(t, "running")
		return p
	}
	run("commands", "account-commands", "customer-commands", "transfer-commands")
	followers := []string{
		"transfer-process",
		"account-view",
		"customer-view",
		"transfer-view",
		"ledger-view",
		"notifications",
	}
	first := run("first", followers...)
	run("http", "http", "--http", addr)
	c := newClient("http://" + addr)
	from, to := c.open(t, 1000), c.open(t, 0)
	c.ended(t, c.transfer(t, from, to, 100), completed)
	owners := func() map[string]string {
		m := map[string]string{}
		for _, f := range call[statusReply](t, c, 200, "GET", "/api/status", nil).Followers {
			m[f.Name] = f.Owner
		}
		return m
	}
	before := owners()
	run("second", followers...)
	c.ended(t, c.transfer(t, from, to, 100), completed)
	for name, owner := range owners() {
		if owner != before[name] {
			t.Errorf("%s went from %q to %q while its owner lived", name, before[name], owner)
		}
	}
	first.kill()
	c.ended(t, c.transfer(t, from, to, 100), completed)
	eventually(t.Context(), t, "the second owns every follower", func() error {
		for name, owner := range owners() {
			if owner == before[name] || owner == "" {
				return fmt.Errorf("%s is owned by %q", name, owner)
			}
		}
		return nil
	})
	books(t, c)
}
