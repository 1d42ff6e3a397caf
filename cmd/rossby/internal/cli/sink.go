package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// sinkEnd ends the name of the consumer by which a view in a database reads.
const sinkEnd = "_sink"

// Whether somebody reads for a view in a database. Its record says more.
const (
	sinkRunning projection.State = "running"
	sinkAway    projection.State = "nobody runs it"
)

// sinks lists the views of a store that are kept in databases. NATS knows of them how
// far they have read; their records lie beside their rows.
func sinks(ctx context.Context, at place) ([]viewRow, error) {
	js, err := natsjs.New(at.nc)
	if err != nil {
		return nil, err
	}
	var rows []viewRow
	err = wire.API(ctx, at.nc, at.store, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, at.store)
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		consumers := stream.ListConsumers(ctx)
		for info := range consumers.Info() {
			if row, ok := sinkRow(info); ok {
				rows = append(rows, row)
			}
		}
		return consumers.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list the views of store %q: %w", at.store, err)
	}
	return uniqueBy(rows, func(r viewRow) string { return r.View }), nil
}

func sinkRow(info *natsjs.ConsumerInfo) (viewRow, bool) {
	view, ok := strings.CutSuffix(info.Name, sinkEnd)
	if !ok || jetstream.ValidateName("view", view) != nil {
		return viewRow{}, false
	}
	row := viewRow{View: view, Database: true, State: sinkAway, Lag: info.NumPending, CaughtUp: info.NumPending == 0}
	if info.NumWaiting > 0 {
		row.State = sinkRunning
	}
	if info.Delivered.Last != nil {
		row.Updated = info.Delivered.Last.UTC()
	}
	return row, true
}

// sink finds a view that is kept in a database.
func sink(ctx context.Context, at place, view string) (*viewRow, error) {
	rows, err := sinks(ctx, at)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(rows, func(r viewRow) bool { return r.View == view })
	if i < 0 {
		return nil, fmt.Errorf("view %q: %w", view, projection.ErrViewNotFound)
	}
	return &rows[i], nil
}

func (a *app) showSink(row *viewRow) error {
	return a.show(row, func(w io.Writer) {
		read := "never"
		if !row.Updated.IsZero() {
			read = stamp(row.Updated)
		}
		fields(w, field{"View", row.View + ", in a database"}, field{"State", string(row.State)},
			field{"Lag", number(row.Lag) + " commits that it has not read"}, field{"Read", read})
		_, _ = fmt.Fprintln(w, "\nThe database has the rest: projection.SinkAdmin shows it, pauses, resumes and skips.")
	})
}
