//go:build !postgres

package main_test

import "testing"

// databases are those of a machine where PostgreSQL is not installed.
func databases() map[string]func(*testing.T) database {
	return map[string]func(*testing.T) database{"SQLite": newSQLite}
}
