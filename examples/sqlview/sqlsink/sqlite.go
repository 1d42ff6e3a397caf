package sqlsink

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// OpenSQLite opens a database file, and makes it when there is none. Several
// processes may use it; a process that freezes within a transaction keeps all
// others waiting, since the whole file is locked.
func OpenSQLite(ctx context.Context, file string) (*Sink, error) {
	query := url.Values{"_pragma": {
		"busy_timeout(1000)",
		"journal_mode(WAL)",  // Readers see the last commit while another is being written.
		"synchronous(FULL)",  // A commit is on the disk.
		"foreign_keys(TRUE)", // As everywhere else.
	}}
	address := url.URL{Scheme: "file", Opaque: url.PathEscape(file), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", address.String())
	if err != nil {
		return nil, err
	}
	s := &Sink{DB: db, transient: transientSQLite, snapshot: sql.TxOptions{ReadOnly: true}}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// transientSQLite knows the faults of the file and of others who use it.
func transientSQLite(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return errors.Is(err, driver.ErrBadConn)
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_INTERRUPT, lib.SQLITE_IOERR, lib.SQLITE_FULL,
		lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL, lib.SQLITE_NOMEM, lib.SQLITE_READONLY:
		return true
	}
	return false
}
