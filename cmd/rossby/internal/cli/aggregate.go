package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
)

func (a *app) aggregateCommands() *cobra.Command {
	return a.group("aggregate", "Single aggregates: their last commit, history, past",
		"  rossby aggregate show account/a1", a.aggregateShow(), a.aggregateHistory(), a.aggregateAt())
}

// aggregateArg reads TYPE/ID or TYPE ID.
func aggregateArg(args []string) (typ, id string, err error) {
	text := strings.Join(args, "/")
	typ, id, _ = strings.Cut(text, "/")
	if id == "" {
		return "", "", &usageError{fmt.Sprintf("aggregate %q: write it as TYPE/ID, such as account/a1", text), nil}
	}
	return typ, id, errors.Join(jetstream.ValidateName("aggregate type", typ), jetstream.ValidateID(id))
}

// noCommits is the error for an aggregate that is not there.
func noCommits(ctx context.Context, store *jetstream.Store, typ, id string) error {
	for _, err := range store.Scan(ctx, typ, jetstream.Range{Backwards: true}) {
		if err != nil {
			return err
		}
		return fmt.Errorf("aggregate %s/%s in store %q: %w", typ, id, store.Name(), errNotFound)
	}
	known, err := serviceTypes(ctx, placeOf(store))
	if err != nil {
		return err
	}
	return missing("an aggregate of type", typ, known)
}

const stateless = "(none is stored, and it cannot be folded without the program's types)"

func (a *app) aggregateShow() *cobra.Command {
	c := a.command("show TYPE/ID", "Shows an aggregate's last commit and stored state",
		"  rossby aggregate show account/a1 --store bank", cobra.RangeArgs(1, 2),
		func(ctx context.Context, args []string) error {
			typ, id, err := aggregateArg(args)
			if err != nil {
				return err
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			ctx, cancel := a.short(ctx)
			defer cancel()
			last, err := store.Last(ctx, typ, id, jetstream.Leader)
			if errors.Is(err, jetstream.ErrNotFound) {
				return noCommits(ctx, store, typ, id)
			}
			if err != nil {
				return err
			}
			return a.showCommit(ctx, store, last, 0)
		})
	c.Long = "Shows an aggregate's last commit and the state after it, where one travels with it or is kept in the\n" +
		"bucket of states; that may be of a version before. Without the program's types the events cannot be\n" +
		"folded; what is shown is what is stored."
	return c
}

// showCommit shows a commit with its state, or says that there is none. version, if
// not 0, is the one that was asked for.
func (a *app) showCommit(ctx context.Context, store *jetstream.Store, c *jetstream.Commit, version uint64) error {
	row := commitOf(store, c)
	if row.State == nil {
		var err error
		if row.State, err = keptState(ctx, store, c); err != nil {
			return err
		}
	}
	return a.show(row, func(w io.Writer) {
		row.print(w)
		if row.State == nil {
			_, _ = fmt.Fprintf(w, "\nState after it: %s\n", stateless)
		}
		if version > 0 && version < row.Version {
			_, _ = fmt.Fprintf(w, "\nVersion %d lies within this commit, which was stored as one and ends with version %d.\n",
				version, row.Version)
		}
	})
}

func (a *app) aggregateHistory() *cobra.Command {
	limit := 0
	backwards := false
	c := a.command("history TYPE/ID", "Lists an aggregate's events",
		"  rossby aggregate history account/a1 --store bank\n  rossby aggregate history account/a1 --newest -n 5",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
			typ, id, err := aggregateArg(args)
			if err != nil {
				return err
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			n, commits := 0, 0
			for c, err := range store.History(ctx, typ, id, jetstream.Range{Backwards: backwards}) {
				if err != nil {
					return err
				}
				commits++
				rows := eventsOf(store, c)
				for i := range rows {
					e := &rows[i]
					if backwards {
						e = &rows[len(rows)-1-i]
					}
					if err := a.line(e, e.print); err != nil {
						return err
					}
					if n++; n == limit {
						return nil
					}
				}
			}
			if commits == 0 {
				return noCommits(ctx, store, typ, id)
			}
			return nil
		})
	c.Long = "Lists an aggregate's events, the oldest first, as they are stored: not upcast. With --json each is a line."
	c.Flags().IntVarP(&limit, "limit", "n", 0, "`number` of events, 0 for all")
	c.Flags().BoolVar(&backwards, "newest", false, "the newest first")
	return c
}

func (a *app) aggregateAt() *cobra.Command {
	var version uint64
	var at string
	c := a.command("at TYPE/ID", "Shows an aggregate as it was at a version or a time",
		"  rossby aggregate at account/a1 --version 7 --store bank\n"+
			"  rossby aggregate at account/a1 --time 2026-11-25T12:00:00Z",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
			typ, id, err := aggregateArg(args)
			if err != nil {
				return err
			}
			var r jetstream.Range
			switch {
			case (version == 0) == (at == ""):
				return &usageError{"at: say either --version or --time", nil}
			case version > 0:
				r.UpToVersion = version
			default:
				if r.AsOf, err = time.Parse(time.RFC3339Nano, at); err != nil {
					return &usageError{fmt.Sprintf("--time %q: is not a time such as 2026-11-25T12:00:00Z", at), err}
				}
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			ctx, cancel := a.short(ctx)
			defer cancel()
			c, err := commitOn(ctx, store, typ, id, r)
			if err != nil {
				return err
			}
			return a.showCommit(ctx, store, c, version)
		})
	c.Long = "Shows the commit that an aggregate ended with at a version or a time and the state after it, where one\n" +
		"travels with it, or the newest kept one is of then or before. Any other cannot be folded without the\n" +
		"program's types: aggregate.Repository.LoadAt does that."
	c.Flags().Uint64Var(&version, "version", 0, "the `version`: the number of the aggregate's events")
	c.Flags().StringVar(&at, "time", "", "the `time`, RFC 3339, by the clock of the stream's leader")
	return c
}

// commitOn is the last commit of a range.
func commitOn(
	ctx context.Context, store *jetstream.Store, typ, id string, r jetstream.Range,
) (*jetstream.Commit, error) {
	if r.UpToVersion > 0 {
		last, err := store.Last(ctx, typ, id, jetstream.Leader)
		switch {
		case errors.Is(err, jetstream.ErrNotFound):
			return nil, noCommits(ctx, store, typ, id)
		case err != nil:
			return nil, err
		case last.Version < r.UpToVersion:
			return nil, fmt.Errorf("%s/%s at version %s, which has %s: %w", typ, id,
				strconv.FormatUint(r.UpToVersion, 10), strconv.FormatUint(last.Version, 10), errNotFound)
		}
	}
	r.Backwards = true
	for c, err := range store.History(ctx, typ, id, r) {
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	if r.UpToVersion == 0 {
		return nil, fmt.Errorf("%s/%s had no commits then: %w", typ, id, errNotFound)
	}
	return nil, noCommits(ctx, store, typ, id)
}
