package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

func (a *app) viewCommands() *cobra.Command {
	return a.group("view", "Views: read them, watch them, rebuild them", "  rossby view ls",
		a.viewLs(), a.viewGet(), a.viewKeys(), a.viewWatch(), a.viewStatus(), a.viewRebuild(), a.viewCompare(),
		a.viewSwitch(), a.viewRollback(), a.viewRemove(), a.viewPause(), a.viewResume(), a.viewSkip())
}

// viewRow is a view as it is shown.
type viewRow struct {
	View string `json:"view"`
	// Database tells that it is kept in a database: only how far it has read is known.
	Database   bool                    `json:"database,omitempty"`
	Generation int                     `json:"generation"`
	Version    int                     `json:"version"`
	State      projection.State        `json:"state"`
	CaughtUp   bool                    `json:"caughtUp"`
	Lag        uint64                  `json:"lag"`
	LagSeconds float64                 `json:"lagSeconds"`
	Rate       float64                 `json:"rate"`
	Owner      string                  `json:"owner,omitempty"`
	Epoch      uint64                  `json:"epoch"`
	Position   jetstream.Position      `json:"position"`
	Skipped    uint64                  `json:"skipped"`
	Error      string                  `json:"error,omitempty"`
	Failed     *projection.FailedEvent `json:"failed,omitempty"`
	Pause      *projection.Pause       `json:"pause,omitempty"`
	Updated    time.Time               `json:"updated"`
}

func viewOf(s *projection.ViewStatus) viewRow {
	return viewRow{
		View: s.View, Generation: s.Generation, Version: s.Version, State: s.State, CaughtUp: s.CaughtUp(), Lag: s.Lag,
		LagSeconds: s.Behind.Seconds(), Rate: s.Rate, Owner: s.Owner, Epoch: s.Epoch, Position: s.Position,
		Skipped: s.Skipped, Error: s.Error, Failed: s.Failed, Pause: s.Pause, Updated: s.Updated,
	}
}

// viewNames lists the views of a store: its buckets but the toolkit's own.
func viewNames(ctx context.Context, at place) ([]string, error) {
	js, err := natsjs.New(at.nc)
	if err != nil {
		return nil, err
	}
	prefix := "KV_" + at.store + "_"
	var all []string
	listing := func(subject string) bool { return subject == "$JS.API.STREAM.NAMES" }
	err = wire.Watched(ctx, at.nc, listing, func(ctx context.Context) error {
		names := js.StreamNames(ctx)
		for name := range names.Name() {
			if view, ok := strings.CutPrefix(name, prefix); ok && jetstream.ValidateName("view", view) == nil {
				all = append(all, view)
			}
		}
		return names.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list the views of store %q: %w", at.store, err)
	}
	return uniqueBy(all, func(s string) string { return s }), nil
}

// noView names the views that there are when one is not among them.
func noView(ctx context.Context, at place, view string, err error) error {
	if !errors.Is(err, projection.ErrViewNotFound) {
		return err
	}
	known, listErr := viewNames(ctx, at)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	others, listErr := sinks(ctx, at)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	for i := range others {
		if others[i].View == view {
			return &usageError{fmt.Sprintf("view %q is kept in a database, which this does not reach: "+
				"see rossby view status, and projection.SinkAdmin", view), err}
		}
		known = append(known, others[i].View)
	}
	if len(known) == 0 {
		if stores, listErr := listStores(ctx, at.nc); listErr == nil && !slices.Contains(storeNames(stores), at.store) {
			return missing("store", at.store, storeNames(stores))
		}
	}
	return missing("view", view, known)
}

// onView is a command for one view: its first argument.
func (a *app) onView(
	use, short, example string, args cobra.PositionalArgs,
	run func(ctx context.Context, at place, admin *projection.Admin, args []string) error,
) *cobra.Command {
	c := a.command(use, short, example, args, func(ctx context.Context, args []string) error {
		at, end, err := a.named(ctx)
		if err != nil {
			return err
		}
		defer end()
		admin, err := projection.NewAdmin(at.nc, at.store, args[0])
		if err != nil {
			return err
		}
		return noView(ctx, at, args[0], run(ctx, at, admin, args))
	})
	c.ValidArgsFunction = a.completes(viewNames)
	return c
}

func (a *app) viewLs() *cobra.Command {
	return a.command("ls", "Lists the views of a store", "  rossby view ls --store bank", noArgs,
		func(ctx context.Context, _ []string) error {
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			ctx, cancel := a.short(ctx)
			defer cancel()
			known, err := viewNames(ctx, placeOf(store))
			if err != nil {
				return err
			}
			var rows []viewRow
			for _, view := range known {
				s, err := projection.ReadStatus(ctx, store.Conn(), store.Name(), view)
				if errors.Is(err, projection.ErrViewNotFound) {
					continue // a bucket of somebody else's
				}
				if err != nil {
					return err
				}
				rows = append(rows, viewOf(&s))
			}
			others, err := sinks(ctx, placeOf(store))
			if err != nil {
				return err
			}
			rows = append(rows, others...)
			return list(a, rows, fmt.Sprintf("Store %q has no views.", store.Name()),
				[]string{"VIEW", "STATE", "LAG", "BEHIND", "GENERATION", "VERSION", "OWNER", "ERROR"}, func(r viewRow) []string {
					if r.Database {
						return []string{r.View, string(r.State), number(r.Lag), "", "in a database", "", "", ""}
					}
					return []string{
						r.View, stateText(&r), number(r.Lag), seconds(r.LagSeconds), number(r.Generation), number(r.Version),
						r.Owner, r.Error,
					}
				})
		})
}

func stateText(r *viewRow) string {
	if r.Pause != nil {
		return "paused"
	}
	return string(r.State)
}

// entryRow is an entry as it is shown.
type entryRow struct {
	Change     string             `json:"change,omitempty"`
	Key        string             `json:"key,omitempty"`
	Value      json.RawMessage    `json:"value,omitempty"`
	Position   jetstream.Position `json:"position"`
	Sequence   uint64             `json:"sequence,omitempty"`
	Revision   uint64             `json:"revision,omitempty"`
	Generation int                `json:"generation,omitempty"`
	Time       *time.Time         `json:"time,omitempty"`
	// Token is where a watch goes on.
	Token string `json:"token,omitempty"`
}

func entryOf(e *projection.Entry[json.RawMessage]) entryRow {
	row := entryRow{
		Key: e.Key, Value: e.Value, Position: e.Position, Sequence: e.Sequence, Revision: e.Revision,
		Generation: e.Generation,
	}
	if !e.Time.IsZero() {
		row.Time = &e.Time
	}
	return row
}

// reader opens a view for reading values as they are.
func reader(
	ctx context.Context, at place, view string,
) (*projection.Reader[json.RawMessage], error) {
	return projection.NewReader[json.RawMessage](ctx, at.nc, at.store, view,
		projection.ReaderConfig{OpenWait: -1})
}

func (a *app) viewGet() *cobra.Command {
	var atLeast string
	c := a.onView("get VIEW KEY", "Reads a key of a view",
		"  rossby view get accounts a1 --store bank\n  rossby view get accounts a1 --at-least zi7jtbbug2xhk-8f",
		cobra.ExactArgs(2), func(ctx context.Context, at place, _ *projection.Admin, args []string) error {
			position, err := jetstream.ParsePosition(atLeast)
			if err != nil {
				return err
			}
			ctx, cancel := a.short(ctx)
			defer cancel()
			r, err := reader(ctx, at, args[0])
			if err != nil {
				return err
			}
			e, err := r.Get(ctx, args[1], projection.AtLeast(position))
			if err != nil {
				return err
			}
			return a.show(entryOf(&e), func(w io.Writer) { _, _ = fmt.Fprintln(w, string(e.Value)) })
		})
	c.Flags().StringVar(&atLeast, "at-least", "", "wait until the view has reached this `position`")
	return c
}

func (a *app) viewKeys() *cobra.Command {
	var o projection.ListOptions
	const limitDefault = 100
	c := a.onView("keys VIEW [PREFIX]", "Lists entries of a view, in the order of their last change",
		"  rossby view keys accounts --store bank\n  rossby view keys accounts a. --limit 10 --json",
		cobra.RangeArgs(1, 2), func(ctx context.Context, at place, _ *projection.Admin, args []string) error {
			if len(args) > 1 {
				o.Prefix = args[1]
			}
			if o.Limit < 0 {
				return &usageError{"--limit must not be negative", nil}
			}
			r, err := reader(ctx, at, args[0])
			if err != nil {
				return err
			}
			n, token := 0, ""
			for e, err := range r.List(ctx, o) {
				if err != nil {
					return err
				}
				row := entryOf(&e)
				err := a.line(row, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%s\t%s\n", oneLine(e.Key), e.Value) })
				if err != nil {
					return err
				}
				n, token = n+1, e.Token()
			}
			if o.Limit > 0 && n == o.Limit {
				a.notef("rossby: that is as many as --limit allows; --after %s goes on", token)
			}
			return nil
		})
	c.Flags().IntVar(&o.Limit, "limit", limitDefault, "`number` of entries, 0 for all")
	c.Flags().StringVar(&o.After, "after", "", "go on after this `token`")
	return c
}

func (a *app) viewWatch() *cobra.Command {
	changes := false
	var o projection.WatchOptions
	c := a.onView("watch VIEW [PREFIX]", "Shows what a view holds, then each change",
		"  rossby view watch accounts --store bank\n  rossby view watch accounts a1 --changes --json", cobra.RangeArgs(1, 2),
		func(ctx context.Context, at place, _ *projection.Admin, args []string) error {
			if len(args) > 1 {
				o.Prefix = args[1]
			}
			r, err := reader(ctx, at, args[0])
			if err != nil {
				return err
			}
			ready := false
			for c, err := range r.Watch(ctx, o) {
				if err != nil {
					if ctx.Err() != nil {
						return nil // that is how it ends
					}
					return err
				}
				ready = ready || c.Kind == projection.Ready
				if changes && !ready {
					continue
				}
				row := entryOf(&c.Entry)
				row.Change, row.Token = c.Kind.String(), c.Token()
				err := a.line(row, func(w io.Writer) {
					_, _ = fmt.Fprintln(w, strings.TrimSpace(row.Change+"\t"+oneLine(row.Key)+"\t"+string(row.Value)))
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	c.Long = "Shows what a view holds, then each change, until it is interrupted. With --json each is a line."
	c.Flags().BoolVar(&changes, "changes", false, "leave out what the view holds already")
	c.Flags().StringVar(&o.After, "after", "", "go on after this `token` of an earlier watch")
	return c
}
