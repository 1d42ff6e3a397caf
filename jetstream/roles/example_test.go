package roles_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/rossby-go/rossby/jetstream/roles"
)

// The program that answers queries about a view may read the view, listen to the
// queries, answer them, and nothing else.
func ExampleUser_Permissions() {
	user := roles.User{Name: "accounts-query", Roles: []roles.Role{
		{Kind: roles.Query, Store: "bank", Name: "accounts"},
	}}
	if err := user.Validate(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("inbox prefix:", user.InboxPrefix())
	for _, subject := range user.Permissions().Publish {
		fmt.Println("publish:", subject)
	}
	for _, subject := range user.Permissions().Subscribe {
		fmt.Println("subscribe:", subject)
	}
	// Output:
	// inbox prefix: _INBOX_accounts-query
	// publish: $JS.API.DIRECT.GET.KV_bank_accounts
	// publish: $JS.API.DIRECT.GET.KV_bank_accounts.>
	// publish: $JS.API.STREAM.INFO.KV_bank_accounts
	// publish: $JS.API.STREAM.MSG.GET.KV_bank_accounts
	// subscribe: $KV.bank_accounts._rossby.>
	// subscribe: $SRV.*
	// subscribe: $SRV.*.bank-query
	// subscribe: $SRV.*.bank-query.*
	// subscribe: _INBOX_accounts-query.>
	// subscribe: bank.query.accounts.>
}

// Users for nats-server.conf, and the same for those who work with nsc.
func ExampleServerConfig() {
	users := []roles.User{{Name: "overview", Roles: []roles.Role{
		{Kind: roles.Query, Store: "bank", Name: "accounts"},
	}}}
	text, err := roles.ServerConfig("BANK", users...)
	if err != nil {
		log.Fatal(err)
	}
	script, err := roles.NSC("BANK", users...)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(text, "BANK"), strings.Contains(script, "nsc "))

	_, err = roles.ServerConfig("BANK", roles.User{Name: "overview"})
	fmt.Println(err)
	// Output:
	// true true
	// Roles "overview" are empty: the user could do nothing
}
