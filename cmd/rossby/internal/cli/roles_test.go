package cli_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRoles: the permissions are those of package roles, whose tests run modules with
// them; here is what the command adds.
func TestRoles(t *testing.T) {
	t.Parallel()
	run(t, "roles", "projection", "accounts", "--store", "bank").ends(0).
		says(`user: "accounts"`, "$KV.bank_accounts.>", "ROSSBY {")
	run(t, "roles", "query", "accounts", "--store", "bank", "--format", "subjects").ends(0).
		says("Inbox prefix:      _INBOX_accounts", "publish    $JS.API.DIRECT.GET.KV_bank_accounts")
	run(t, "roles", "gateway", "letters", "--store", "bank", "--types", "account", "--format", "nsc").ends(0).
		says("#!/bin/sh", "bank.command.account.")
	var users []struct {
		User               string
		Publish, Subscribe []string
	}
	run(t, "roles", "query", "accounts", "--store", "bank", "--name", "reader", "--json").ends(0).decode(&users)
	if len(users) != 1 || users[0].User != "reader" || len(users[0].Publish) == 0 || len(users[0].Subscribe) == 0 {
		t.Errorf("%+v", users)
	}

	file := filepath.Join(t.TempDir(), "users.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[{"name":"app","login":"CN=app","roles":[{"kind":"command","store":"bank"},{"kind":"query","store":"bank","name":"accounts"}]}]`)
	run(t, "roles", "--file", file, "--account", "BANK").ends(0).says("BANK {", `user: "CN=app"`, "bank.event.*.*.*")
	write(`[{"name":"app","rolls":[]}]`)
	run(t, "roles", "--file", file).ends(2).fails("rolls")
	write(`[]`)
	run(t, "roles", "--file", file).ends(2).fails("has no users")
	run(t, "roles", "--file", file+"-none").ends(3)
	run(t, "roles", "projecton", "accounts", "--store", "bank").ends(2).fails("did you mean projection?")
	run(t, "roles", "projection", "--store", "bank").ends(2).fails("Name")
	run(t, "roles", "projection", "accounts").ends(2).fails("--store")
	run(t, "roles", "projection", "accounts", "--store", "bank", "--format", "xml").ends(2).fails("xml")
	run(t, "roles").ends(2).fails("projection-admin")
}
