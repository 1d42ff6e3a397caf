// Package sqlsink keeps views of Rossby in SQL databases, by database/sql: a
// [projection.Sink] for SQLite and for PostgreSQL. Copy it, or write your own
// from it: package sinktest says whether it is right.
package sqlsink

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Sink keeps the records of views in the table rossby, next to the tables that
// the views' handlers write with the same transactions. It implements
// [projection.Sink].
type Sink struct {
	// DB is the database, for the program's own reading.
	DB *sql.DB

	transient func(error) bool
	// snapshot is how a transaction is begun that sees one moment.
	snapshot sql.TxOptions
}

var _ projection.Sink[*sql.Tx] = (*Sink)(nil)

// prepare makes the table of records.
func (s *Sink) prepare(ctx context.Context) error {
	_, err := s.DB.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS rossby (
		name     VARCHAR(200) PRIMARY KEY,
		revision BIGINT NOT NULL,
		data     TEXT NOT NULL
	)`)
	if err != nil {
		return fmt.Errorf("make the table of records: %w", err)
	}
	return nil
}

// Close closes the database.
func (s *Sink) Close() error { return s.DB.Close() }

// Load returns the record with a name.
func (s *Sink) Load(ctx context.Context, name string) (projection.SinkRecord, error) {
	return load(ctx, s.DB, name)
}

func load(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, name string,
) (projection.SinkRecord, error) {
	var r projection.SinkRecord
	err := db.QueryRowContext(ctx, `SELECT revision, data FROM rossby WHERE name = $1`, name).Scan(&r.Revision, &r.Data)
	if errors.Is(err, sql.ErrNoRows) {
		return projection.SinkRecord{}, nil
	}
	return r, err
}

// Transact changes record and rows together. The record comes first: it is the
// lock for which all who want to write the view queue up, and its revision fences
// off those who lost the view.
func (s *Sink) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx *sql.Tx) error,
) error {
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	query := `UPDATE rossby SET revision = revision + 1, data = $1 WHERE name = $2 AND revision = $3`
	if expected == 0 {
		query = `INSERT INTO rossby (data, name, revision) VALUES ($1, $2, $3 + 1) ON CONFLICT DO NOTHING`
	}
	result, err := tx.ExecContext(ctx, query, string(data), name, int64(expected)) //nolint:gosec // counts writes
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, projection.ErrSinkConflict)
	}
	if err := apply(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Transient tells whether an error may pass by itself.
func (s *Sink) Transient(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) || s.transient(err)
}

// Read calls read with a transaction that sees one moment, in which the view holds
// every event up to a position, such as that of the caller's own write. It waits
// for that until ctx ends, and returns then a [*projection.StaleError]. The zero
// position waits for nothing.
func (s *Sink) Read(
	ctx context.Context, store, view string, atLeast jetstream.Position, read func(tx *sql.Tx) error,
) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var at jetstream.Position
	for {
		reached, now, err := s.try(ctx, projection.SinkName(store, view), atLeast, read)
		switch {
		case reached || err != nil && ctx.Err() == nil:
			return err
		case err == nil:
			at = now
		}
		select {
		case <-ctx.Done():
			stale := &projection.StaleError{View: view, Wanted: atLeast, Position: at}
			return fmt.Errorf("%w: %w", stale, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (s *Sink) try(
	ctx context.Context, name string, atLeast jetstream.Position, read func(tx *sql.Tx) error,
) (reached bool, at jetstream.Position, err error) {
	tx, err := s.DB.BeginTx(ctx, &s.snapshot)
	if err != nil {
		return false, at, err
	}
	defer func() { _ = tx.Rollback() }()
	record, err := load(ctx, tx, name)
	if err != nil {
		return false, at, err
	}
	if at, err = record.Position(); err != nil {
		return false, at, err
	}
	if reached, err = record.Reached(atLeast); err != nil || !reached {
		return false, at, err
	}
	return true, at, read(tx)
}
