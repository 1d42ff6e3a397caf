package acceptance_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// opens lets the saga open an account, each of whose parts acts as its own user.
func opens(t *testing.T, c *client) {
	t.Helper()
	from := c.open(t, firstBalance)
	id := fmt.Sprintf("opened-%d", unique.Add(1))
	send := func(typ, id, command string, body any) {
		t.Helper()
		eventually(t.Context(), t, command, func() error {
			a, err := c.do(t.Context(), "POST", "/console/api/commands", "", map[string]any{
				"type": typ, "id": id, "command": command, "body": body, "key": command + "-" + id,
			})
			if err == nil && (a.status != http.StatusOK || !strings.Contains(string(a.body), `"outcome":"ok"`) &&
				!strings.Contains(string(a.body), `"outcome":"duplicate"`)) {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return err
		})
	}
	is := func(path, text string) {
		t.Helper()
		eventually(t.Context(), t, path, func() error {
			a, err := c.do(t.Context(), "GET", path, "", nil)
			if err == nil && !strings.Contains(string(a.body), text) {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return err
		})
	}
	send("account-opening", id, "start", map[string]any{"data": map[string]any{"title": "new", "payer": from, "bonusCents": 5}})
	is("/console/api/sagas", `"id":"`+id+`"`)
	is("/console/api/aggregates/account-opening/"+id, `"name":"accepted"`)
	send("account", from, "debit", map[string]any{"transferId": id + "-first", "cents": 7})
	send("account", id, "credit", map[string]any{"transferId": id + "-first", "cents": 7})
	is("/console/api/aggregates/account-opening/"+id, `"name":"completed"`)
	is("/api/accounts/"+id, `"balanceCents":12`)
}

// TestSecure: the whole bank works with each module under a role of its own, and
// the server denies none of them anything; others do not get in.
func TestSecure(t *testing.T) { //nolint:tparallel // the group ends before the process does
	t.Parallel()
	p, base, natsURL := monolith(t, "--secure")
	if !strings.HasPrefix(natsURL, "tls://") {
		t.Errorf("clients join at %s", natsURL)
	}
	c := newClient(base)
	t.Run("Suite", func(t *testing.T) { suite(t, c) })
	books(t, c)
	oneTrace(t, c, 7) // of as many users
	opens(t, c)
	// The page can break each module, though each is a user of its own.
	for _, flip := range []struct{ part, option string }{
		{"customer-view", "killed"}, {"customer-view", "runs"}, {"account-commands", "stopped"}, {"account-commands", "runs"},
		{"server", "stopped"}, {"server", "runs"},
	} {
		eventually(t.Context(), t, flip.part+" is "+flip.option, func() error {
			a, err := c.do(t.Context(), "POST", "/console/api/switches/"+flip.part, "", map[string]string{"option": flip.option})
			if err == nil && (a.status != http.StatusOK || !strings.Contains(string(a.body), `"state":"`+flip.option+`"`)) {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return err
		})
	}
	books(t, c)
	for _, path := range []string{
		"/console/", "/console/api/status", "/console/api/commits", "/console/api/aggregates", "/console/api/events",
		"/console/api/deadlines", "/console/api/sagas", "/console/api/followers/notifications", "/console/api/views/accounts",
		"/console/api/views/accounts/entries",
	} {
		eventually(t.Context(), t, path, func() error {
			a, err := c.do(t.Context(), "GET", path, "", nil)
			if err == nil && a.status >= 500 {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return err
		})
	}
	for name, opts := range map[string][]nats.Option{
		"anybody": nil, "without a certificate": {nats.Secure(nil)},
		"with a password": {nats.UserInfo("http", "http")},
	} {
		if nc, err := nats.Connect(natsURL, opts...); err == nil {
			nc.Close()
			t.Errorf("%s gets in", name)
		}
	}
	if err := p.stop(t); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
	if out := p.output(); strings.Contains(strings.ToLower(out), "permission") {
		t.Errorf("something was denied:\n%s", out)
	}
}
