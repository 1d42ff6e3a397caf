// Command sqlview keeps a view of events in SQL tables and prints it: in a SQLite
// file, or with -postgres in a PostgreSQL database.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/examples/sqlview/accounts"
	"github.com/rossby-go/rossby/examples/sqlview/sqlsink"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
)

func main() {
	file := flag.String("sqlite", filepath.Join(os.TempDir(), "sqlview.db"), "the SQLite `file`")
	dsn := flag.String("postgres", "", "the `address` of a PostgreSQL database to use instead: postgres://localhost/bank")
	flag.Parse()
	if err := run(context.Background(), *file, *dsn, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sqlview:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file, dsn string, out io.Writer) (err error) {
	// A server of its own, so that the example needs nothing else.
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Stop()) }()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		return err
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank-" + strconv.FormatInt(time.Now().Unix(), 10)})
	if err != nil {
		return err
	}

	// snippet:sink
	var sink *sqlsink.Sink
	if dsn != "" {
		sink, err = sqlsink.OpenPostgres(ctx, dsn, 0)
	} else {
		sink, err = sqlsink.OpenSQLite(ctx, file)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()

	view, err := projection.NewSinkUpdater(store, accounts.View, sink, projection.SinkConfig{})
	if err != nil {
		return err
	}
	// end:sink
	vctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- view.Run(vctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()

	if err := appendEvents(ctx, store, "a1", accounts.Opened{Owner: "ann"}, accounts.Credited{Cents: 70}); err != nil {
		return err
	}
	err = appendEvents(ctx, store, "a2", accounts.Opened{Owner: "bob"}, accounts.Moved{To: "a1", Cents: 5})
	if err != nil {
		return err
	}
	last, err := store.LastPosition(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return sink.Read(ctx, store.Name(), "accounts", last, func(tx *sql.Tx) error { return show(ctx, tx, out) })
}

func appendEvents(ctx context.Context, store *jetstream.Store, id string, events ...any) error {
	data := make([]jetstream.EventData, len(events))
	for i, e := range events {
		var err error
		if data[i], err = accounts.Events.Encode(e, store.Codec()); err != nil {
			return err
		}
	}
	_, err := store.Append(ctx, jetstream.Write{
		Type: "account", ID: id, Decisions: []jetstream.Decision{{Time: time.Now(), Events: data}},
	})
	return err
}

func show(ctx context.Context, tx *sql.Tx, out io.Writer) error {
	rows, err := tx.QueryContext(ctx, `SELECT id, owner, cents FROM account ORDER BY id`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, owner string
		var cents int64
		if err := rows.Scan(&id, &owner, &cents); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, id, owner, cents); err != nil {
			return err
		}
	}
	return rows.Err()
}
