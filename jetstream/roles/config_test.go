package roles_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/internal/golden"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/roles"
)

// TestServerConfig: nats-server reads what is printed, and means by it what the
// role says.
func TestServerConfig(t *testing.T) {
	t.Parallel()
	text, err := roles.ServerConfig("BANK", users()...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "roles.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(opts.Users) != len(users()) {
		t.Fatalf("%d users of %d", len(opts.Users), len(users()))
	}
	for i, u := range users() {
		got, want := opts.Users[i], u.Permissions()
		if got.Username != u.Name || got.Account.Name != "BANK" || !slices.Equal(got.Permissions.Publish.Allow, want.Publish) ||
			!slices.Equal(got.Permissions.Subscribe.Allow, want.Subscribe) || (got.Permissions.Response != nil) != (want.Responses > 0) {
			t.Errorf("%s: %+v", u.Name, got)
		}
		if r := got.Permissions.Response; r != nil && (r.MaxMsgs != want.Responses || r.Expires != roles.ResponseTime) {
			t.Errorf("%s: %+v", u.Name, r)
		}
	}
}

// TestPermissions pins the permissions of each kind: a change of them is a change
// that somebody has to look at.
func TestPermissions(t *testing.T) {
	t.Parallel()
	text, err := roles.ServerConfig("BANK", users()...)
	if err != nil {
		t.Fatal(err)
	}
	script, err := roles.NSC("BANK", users()[:2]...)
	if err != nil {
		t.Fatal(err)
	}
	pinned(t, "roles.conf", text)
	pinned(t, "roles.sh", script)
}

func pinned(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if golden.Update() {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s has changed: look at it, then run with %s=1\n%s", path, golden.Env, text)
	}
}

// TestNoRoleDestroys: whatever a role may do, it cannot delete or empty a store.
func TestNoRoleDestroys(t *testing.T) {
	t.Parallel()
	if len(roles.Kinds()) < 14 {
		t.Fatal("kinds are missing")
	}
	seen := map[roles.Kind]bool{}
	for _, u := range users() {
		seen[u.Roles[0].Kind] = true
		for _, allowed := range u.Permissions().Publish {
			for _, destroys := range []string{
				"$JS.API.STREAM.DELETE.bank", "$JS.API.STREAM.PURGE.bank", "$JS.API.STREAM.MSG.DELETE.bank",
				"$JS.API.STREAM.RESTORE.bank", "$JS.API.STREAM.DELETE.KV_bank_orders", "$JS.API.STREAM.LEADER.STEPDOWN.bank",
			} {
				if covers(allowed, destroys) {
					t.Errorf("%s may publish to %s", u.Name, allowed)
				}
			}
		}
	}
	for _, kind := range roles.Kinds() {
		if !seen[kind] {
			t.Errorf("no user is a %s", kind)
		}
	}
}

// covers tells whether a subject with wildcards matches a literal one.
func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		if token == ">" {
			return len(s) > i
		}
		if i >= len(s) || token != "*" && token != s[i] {
			return false
		}
	}
	return len(p) == len(s)
}

func TestLogins(t *testing.T) {
	t.Parallel()
	role := []roles.Role{{Kind: roles.Query, Store: "bank", Name: "orders"}}
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := roles.ServerConfig("A",
		roles.User{Name: "cert", Login: "CN=reader,O=Bank", Roles: role},
		roles.User{Name: "variable", Password: "$READER_PASSWORD", Roles: role},
		roles.User{Name: "hashed", Password: "$2a$11$abc", Roles: role},
		roles.User{Name: "nkey", NKey: key, Roles: role})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`user: "CN=reader,O=Bank"`, "password: $READER_PASSWORD\n", `password: "$2a$11$abc"`, "nkey: " + key + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]roles.Role{
		"Kind":              {Kind: "emperor", Store: "bank"},
		"store name":        {Kind: roles.Archive, Store: "Bank"},
		`Name ""`:           {Kind: roles.Gateway, Store: "bank"},
		"is not used":       {Kind: roles.Archive, Store: "bank", Name: "x"},
		"Types":             {Kind: roles.Query, Store: "bank", Name: "x", Types: []string{"order"}},
		"Views":             {Kind: roles.Gateway, Store: "bank", Name: "x", Views: []string{"orders"}},
		"and Views":         {Kind: roles.Client, Store: "bank"},
		"timers run":        {Kind: roles.Timers, Store: "bank"},
		`Types "a.>"`:       {Kind: roles.Client, Store: "bank", Types: []string{"a.>"}},
		`Views "a b"`:       {Kind: roles.Client, Store: "bank", Views: []string{"a b"}},
		`Name "orders.>"`:   {Kind: roles.Projection, Store: "bank", Name: "orders.>"},
		`store name "bank*`: {Kind: roles.Archive, Store: "bank*"},
	} {
		_, err := roles.ServerConfig("A", roles.User{Name: "u", Roles: []roles.Role{r}})
		if _, ok := errors.AsType[*jetstream.InvalidError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
	good := []roles.Role{{Kind: roles.Archive, Store: "bank"}}
	for want, all := range map[string][]roles.User{
		"there are no users": {},
		"stands there twice": {{Name: "u", Roles: good}, {Name: "u", Roles: good}},
		"user name":          {{Name: "U", Roles: good}},
		"are empty":          {{Name: "u"}},
		"takes the place":    {{Name: "u", NKey: "U", Password: "x", Roles: good}},
	} {
		if _, err := roles.NSC("A", all...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := roles.ServerConfig("A B", roles.User{Name: "u", Roles: good}); err == nil {
		t.Error("an account with a blank")
	}
	if _, err := (roles.User{Name: "u", Roles: good}).Claims("nonsense"); err == nil {
		t.Error("no key")
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (roles.User{Name: "u", Roles: good}).Credentials(user, "", 0); err == nil {
		t.Error("signed by a user")
	}
}
