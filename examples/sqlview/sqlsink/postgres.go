package sqlsink

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// OpenPostgres uses a PostgreSQL database. Frozen is how long a transaction may be
// idle, as that of a process that has stopped in the middle: then the server ends
// it, and another instance can take the view over. Handlers must not think for as
// long between two statements. Defaults to 10 s.
func OpenPostgres(ctx context.Context, dsn string, frozen time.Duration) (*Sink, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	if frozen <= 0 {
		frozen = 10 * time.Second
	}
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = strconv.FormatInt(frozen.Milliseconds(), 10)
	s := &Sink{
		DB:        stdlib.OpenDB(*cfg),
		transient: transientPostgres,
		snapshot:  sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.DB.Close())
	}
	return s, nil
}

// transientPostgres knows the faults of the connection, the server and others who
// use it.
func transientPostgres(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code[:2] {
		case "08", // connection
			"40", // rolled back for another's sake: serialization, deadlock
			"53", // no space, no memory, too many connections
			"57", // shut down, cancelled, not ready
			"58": // the system's errors
			return true
		}
		switch e.Code {
		case "25P03", // idle for too long
			"25006", // a standby: read only
			"55P03": // a lock was not available
			return true
		}
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}
