// Package accounts is the example's domain: the events of accounts, and a view of
// them in two SQL tables.
package accounts

import (
	"context"
	"database/sql"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

type (
	// Opened begins an account, or names another owner.
	Opened struct{ Owner string }
	// Credited adds to it.
	Credited struct{ Cents int64 }
	// Moved takes from it what another one gets.
	Moved struct {
		To    string
		Cents int64
	}
	// Closed ends it.
	Closed struct{}
)

// Events are those of the aggregate type account.
var Events = jetstream.NewSchema("account",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Credited]("credited"),
	jetstream.Event[Moved]("moved"),
	jetstream.Event[Closed]("closed"),
)

// View keeps the tables account and entry. Its SQL is understood by SQLite and by
// PostgreSQL. Raise its version whenever anything in it changes.
var View = projection.NewSinkDefinition("accounts", prepare,
	projection.OnSink(Events, func(ctx context.Context, tx *sql.Tx, e Opened, m jetstream.Meta) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO account (id, owner, cents, events) VALUES ($1, $2, 0, 1)
			ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, events = account.events + 1`, m.ID, e.Owner)
		return err
	}),
	projection.OnSink(Events, func(ctx context.Context, tx *sql.Tx, e Credited, m jetstream.Meta) error {
		return book(ctx, tx, m.ID, e.Cents, m)
	}),
	projection.OnSink(Events, func(ctx context.Context, tx *sql.Tx, e Moved, m jetstream.Meta) error {
		if err := book(ctx, tx, m.ID, -e.Cents, m); err != nil {
			return err
		}
		return book(ctx, tx, e.To, e.Cents, m)
	}),
	projection.OnSink(Events, func(ctx context.Context, tx *sql.Tx, _ Closed, m jetstream.Meta) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM account WHERE id = $1`, m.ID)
		return err
	}),
)

// prepare leaves the tables empty.
func prepare(ctx context.Context, tx *sql.Tx) error {
	for _, statement := range []string{
		`DROP TABLE IF EXISTS entry`,
		`DROP TABLE IF EXISTS account`,
		`CREATE TABLE account (
			id     VARCHAR(128) PRIMARY KEY,
			owner  TEXT NOT NULL,
			cents  BIGINT NOT NULL,
			events BIGINT NOT NULL)`,
		// An entry that came twice could not be stored, nor one that cannot be right.
		`CREATE TABLE entry (
			event VARCHAR(200) NOT NULL,
			id    VARCHAR(128) NOT NULL,
			cents BIGINT NOT NULL CHECK (cents BETWEEN -1000000 AND 1000000),
			PRIMARY KEY (event, id))`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func book(ctx context.Context, tx *sql.Tx, id string, cents int64, m jetstream.Meta) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO entry (event, id, cents) VALUES ($1, $2, $3)`, m.EventID, id, cents)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO account (id, owner, cents, events) VALUES ($1, '', $2, 1)
		ON CONFLICT (id) DO UPDATE SET cents = account.cents + excluded.cents, events = account.events + 1`, id, cents)
	return err
}
