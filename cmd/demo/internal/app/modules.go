// Package app puts the bank together: any subset of its modules in one process,
// against one NATS server or cluster.
package app

import (
	"fmt"
	"slices"
)

// Module is one deployable part of the bank.
type Module string

// The modules.
const (
	AccountCommands  Module = "account-commands"
	CustomerCommands Module = "customer-commands"
	TransferCommands Module = "transfer-commands"
	TransferProcess  Module = "transfer-process"
	AccountOpening   Module = "account-opening"
	AccountView      Module = "account-view"
	CustomerView     Module = "customer-view"
	TransferView     Module = "transfer-view"
	LedgerView       Module = "ledger-view"
	Queries          Module = "queries"
	Notifications    Module = "notifications"
	HTTP             Module = "http"
)

// Modules lists all modules, in the order in which they start.
func Modules() []Module {
	return []Module{
		AccountCommands, CustomerCommands, TransferCommands, TransferProcess, AccountOpening,
		AccountView, CustomerView, TransferView, LedgerView, Queries, Notifications, HTTP,
	}
}

// ParseModules reads module names; "all" is every module.
func ParseModules(names []string) ([]Module, error) {
	var modules []Module
	for _, name := range names {
		m := Module(name)
		switch {
		case name == "all":
			modules = append(modules, Modules()...)
		case slices.Contains(Modules(), m):
			modules = append(modules, m)
		default:
			return nil, fmt.Errorf("module %q is not one of: %v, all", name, Modules())
		}
	}
	slices.Sort(modules)
	return slices.Compact(modules), nil
}

// decides tells whether the module takes commands.
func (m Module) decides() bool {
	return m == AccountCommands || m == CustomerCommands || m == TransferCommands || m == AccountOpening
}

// commandSide tells whether the module makes the store when it does not exist.
func (m Module) commandSide() bool {
	return m.decides() || m == TransferProcess
}
