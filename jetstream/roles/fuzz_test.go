package roles_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/conf"

	"github.com/rossby-go/rossby/jetstream/roles"
)

// FuzzServerConfig: whatever somebody calls users, logins and stores, the text is
// refused, or the server reads one user in it who has that login and no other
// permissions.
func FuzzServerConfig(f *testing.F) {
	f.Add("BANK", "mails", "CN=mails", "", "bank", "mailer", "order")
	f.Add("B}", "a", "\"}\n", "$PASS", "bank", "m", "order")
	f.Add("B", "a", "x\" }, { user: y", "p\"", "bank", "m", "order")
	f.Add("B", "a", "\\", "$2a$11$x", "b.>", "*", ">")
	f.Fuzz(func(t *testing.T, account, name, login, password, store, gateway, typ string) {
		u := roles.User{
			Name: name, Login: login, Password: password,
			Roles: []roles.Role{{Kind: roles.Gateway, Store: store, Name: gateway, Types: []string{typ}}},
		}
		text, err := roles.ServerConfig(account, u)
		if err != nil {
			return
		}
		t.Setenv("PASS", "secret")
		parsed, err := conf.Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		accounts, _ := parsed["accounts"].(map[string]any)
		of, _ := accounts[account].(map[string]any)
		users, _ := of["users"].([]any)
		if len(parsed) != 1 || len(accounts) != 1 || len(of) != 2 || len(users) != 1 {
			t.Fatalf("%d accounts, %d users:\n%s", len(accounts), len(users), text)
		}
		user, _ := users[0].(map[string]any)
		want := login
		if want == "" {
			want = name
		}
		if user["user"] != want {
			t.Fatalf("the user is %q, not %q:\n%s", user["user"], want, text)
		}
		permissions, _ := user["permissions"].(map[string]any)
		for _, what := range []string{"publish", "subscribe"} {
			list, _ := permissions[what].(map[string]any)
			subjects, _ := list["allow"].([]any)
			p := u.Permissions()
			n := len(p.Publish)
			if what == "subscribe" {
				n = len(p.Subscribe)
			}
			if len(subjects) != n {
				t.Fatalf("%d subjects to %s, not %d:\n%s", len(subjects), what, n, text)
			}
		}
	})
}
