package main_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/rossby-go/rossby/examples/sqlview/sqlsink"
	"github.com/rossby-go/rossby/internal/natstest"
)

// database is one of the databases that the tests run against.
type database interface {
	// address is what open takes, also in other processes.
	address() string
	// away takes the database away until back is called.
	away(t *testing.T) (back func())
}

// each runs a test against every database.
func each(t *testing.T, test func(t *testing.T, db database)) {
	t.Helper()
	for name, start := range databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// open connects to a database by its address.
func open(ctx context.Context, address string) (*sqlsink.Sink, error) {
	if filepath.IsAbs(address) {
		return sqlsink.OpenSQLite(ctx, address)
	}
	return sqlsink.OpenPostgres(ctx, address, 0)
}

func connect(t *testing.T, db database) *sqlsink.Sink {
	t.Helper()
	var s *sqlsink.Sink
	opened := natstest.Eventually(t, "open the database", func() (err error) { // another process may keep it locked
		s, err = open(t.Context(), db.address())
		return err
	})
	if !opened {
		t.FailNow()
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sqlite is a file.
type sqlite struct{ file string }

func newSQLite(t *testing.T) database { //nolint:ireturn // one of several
	t.Helper()
	return &sqlite{file: filepath.Join(t.TempDir(), "a view?.db")}
}

func (s *sqlite) address() string { return s.file }

// away keeps the whole file locked.
func (s *sqlite) away(t *testing.T) func() {
	t.Helper()
	c, err := connect(t, s).DB.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the file is locked", func() error {
		_, err := c.ExecContext(t.Context(), "BEGIN EXCLUSIVE")
		return err
	})
	return func() {
		if _, err := c.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
