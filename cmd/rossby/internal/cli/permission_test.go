package cli_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/jetstream/roles"
)

// TestPermissions: each command works with the role that docs/cli.md names, over TLS,
// and what the server denies is refused, at once and by name.
func TestPermissions(t *testing.T) {
	t.Parallel()
	one := func(name string, all ...roles.Role) roles.User { return roles.User{Name: name, Roles: all} }
	role := func(kind roles.Kind, name string) roles.Role {
		return roles.Role{Kind: kind, Store: "bank", Name: name, Makes: true}
	}
	srv, err := embedded.Start(embedded.Config{
		Listen: "127.0.0.1:0", StoreDir: t.TempDir(), LazySync: true, ReadyTimeout: natstest.Patience,
		Users: []roles.User{
			one("app", roles.Role{Kind: roles.Operator, Store: "bank"}, role(roles.Command, ""), role(roles.Projection, "accounts"),
				role(roles.Query, "accounts"), roles.Role{
					Kind: roles.Gateway, Store: "bank", Name: "letters", Types: []string{"account"}, Makes: true,
				}),
			one("front", roles.Role{Kind: roles.Client, Store: "bank", Types: []string{"account"}}),
			one("views", roles.Role{Kind: roles.ProjectionAdmin, Store: "bank", Name: "accounts"}),
			one("keeper", roles.Role{Kind: roles.FollowersAdmin, Store: "bank"}),
			one("archive", roles.Role{Kind: roles.Archive, Store: "bank"}),
			one("copy", roles.Role{Kind: roles.Operator, Store: "copy"}, roles.Role{Kind: roles.Import, Store: "copy"}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
	})
	config := func(user string) jetstream.ConnectConfig {
		cfg, err := srv.ConnectConfig(user)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Wait, cfg.Logger = natstest.Patience, quiet
		return cfg
	}
	b := &bank{t: t, url: srv.URL()}
	if b.nc, err = jetstream.Connect(t.Context(), config("app")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.nc.Close)
	if b.store, err = jetstream.Open(t.Context(), b.nc, jetstream.Config{Name: "bank"}); err != nil {
		t.Fatal(err)
	}
	if b.repo, err = aggregate.NewRepository(b.store, typ, aggregate.RepositoryConfig{}); err != nil {
		t.Fatal(err)
	}
	b.account("a1", 700)
	b.service()
	b.view()
	b.gateway()
	as := func(user string, args ...string) result {
		cfg := config(user)
		return b.rossby(append([]string{
			"--tlscert", cfg.TLSCert, "--tlskey", cfg.TLSKey, "--tlsca", cfg.TLSCA, "--inbox-prefix", cfg.InboxPrefix,
			"--store", "bank",
		}, args...)...)
	}
	file := filepath.Join(t.TempDir(), "bank.rossby")

	as("front", "command", "send", "account", "debit", "a1", `{"Cents":5}`).ends(0).says("version 2")
	if r := as("front", "store", "info").ends(6); strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, "permission denied") {
		t.Error(r.err)
	}
	as("views", "view", "status", "accounts").ends(0)
	as("views", "view", "rebuild", "accounts").ends(0)
	as("views", "view", "compare", "accounts", "1", "2").ends(0)
	as("views", "view", "switch", "accounts", "2", "--yes").ends(0)
	as("views", "view", "remove", "accounts", "1", "--yes").ends(0)
	as("views", "view", "pause", "accounts").ends(0)
	as("views", "view", "resume", "accounts").ends(0)
	as("views", "view", "ls").ends(6).fails("permission")
	as("keeper", "follower", "status", "letters").ends(0)
	as("keeper", "follower", "ls").ends(0).says("letters")
	as("keeper", "follower", "pause", "letters").ends(0)
	as("keeper", "follower", "resume", "letters").ends(0)
	as("keeper", "parked", "ls").ends(0)
	as("keeper", "view", "pause", "accounts").ends(6).fails("permission")
	as("archive", "store", "verify").ends(0)
	as("archive", "store", "export", file).ends(0)
	as("archive", "events", "tail", "--no-follow").ends(0)
	as("archive", "aggregate", "show", "account/a1").ends(0)
	as("copy", "store", "import", file, "--store", "copy", "--compare").ends(0)
	as("copy", "store", "verify").ends(6).fails("permission")
}
