package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// generationRow is a generation as it is shown.
type generationRow struct {
	Number   int                     `json:"number"`
	Version  int                     `json:"version"`
	Role     string                  `json:"role"`
	State    projection.State        `json:"state"`
	Owner    string                  `json:"owner,omitempty"`
	Done     float64                 `json:"done"`
	Lag      uint64                  `json:"lag"`
	Rate     float64                 `json:"rate"`
	Left     string                  `json:"left,omitempty"`
	Made     time.Time               `json:"made"`
	Error    string                  `json:"error,omitempty"`
	Failed   *projection.FailedEvent `json:"failed,omitempty"`
	Position jetstream.Position      `json:"position"`
}

func generationOf(g *projection.Generation) generationRow {
	row := generationRow{
		Number: g.Number, Version: g.Version, Role: "old", State: g.State, Owner: g.Owner, Done: g.Done, Lag: g.Lag,
		Rate: g.Rate, Made: g.Made, Error: g.Error, Failed: g.Failed, Position: g.Position,
	}
	switch {
	case g.Live:
		row.Role = "live"
	case g.Building && g.Auto:
		row.Role = "next"
	case g.Building:
		row.Role = "building"
	}
	if g.Left > 0 {
		row.Left = g.Left.Round(time.Second).String()
	}
	return row
}

func (a *app) viewStatus() *cobra.Command {
	return a.onView("status VIEW", "Shows where a view is, and its generations",
		"  rossby view status accounts --store bank", cobra.ExactArgs(1),
		func(ctx context.Context, at place, admin *projection.Admin, args []string) error {
			ctx, cancel := a.short(ctx)
			defer cancel()
			s, err := admin.Status(ctx)
			if errors.Is(err, projection.ErrViewNotFound) {
				if row, sinkErr := sink(ctx, at, args[0]); sinkErr == nil {
					return a.showSink(row)
				}
			}
			if err != nil {
				return err
			}
			gens, err := admin.Generations(ctx)
			if err != nil {
				return err
			}
			out := struct {
				viewRow

				Generations []generationRow `json:"generations"`
			}{viewRow: viewOf(&s)}
			for i := range gens {
				out.Generations = append(out.Generations, generationOf(&gens[i]))
			}
			return a.show(out, func(w io.Writer) {
				paused, failed := "", ""
				if s.Pause != nil {
					paused = fmt.Sprintf("since %s: %s", stamp(s.Pause.Time), s.Pause.Reason)
				}
				if f := s.Failed; f != nil {
					failed = fmt.Sprintf("sequence %d: %s %s of %s/%s", f.Sequence, f.Event, f.EventID, f.Type, f.ID)
				}
				fields(w, field{"View", s.View}, field{"State", stateText(&out.viewRow)}, field{"Paused", paused},
					field{"Stopped at", failed}, field{"Error", s.Error}, field{"Owner", s.Owner},
					field{"Lag", fmt.Sprintf("%s commits, %s", number(s.Lag), seconds(s.Behind.Seconds()))},
					field{"Skipped", number(s.Skipped)}, field{labelPosition, s.Position.String()}, field{"Updated", stamp(s.Updated)})
				_, _ = fmt.Fprintln(w)
				table(w, []string{"GENERATION", "ROLE", "STATE", "VERSION", "DONE", "LAG", "LEFT", "OWNER", "ERROR"},
					out.Generations, func(g generationRow) []string {
						return []string{
							number(g.Number), g.Role, string(g.State), number(g.Version), fmt.Sprintf("%.0f %%", 100*g.Done),
							number(g.Lag), g.Left, g.Owner, g.Error,
						}
					})
			})
		})
}

// rebuildPoll is how often a rebuild is looked at.
const rebuildPoll = 250 * time.Millisecond

func (a *app) viewRebuild() *cobra.Command {
	var opts projection.RebuildOptions
	detach := false
	var one, reason string
	c := a.onView("rebuild VIEW", "Builds a view anew beside the one that is read",
		"  rossby view rebuild accounts --store bank\n  rossby view rebuild accounts --switch --detach\n"+
			"  rossby view rebuild accounts --aggregate account/a1 --reason 'ticket 17'", cobra.ExactArgs(1),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			if one != "" {
				return a.rebuildOne(ctx, admin, args[0], one, reason)
			}
			asking, cancel := a.short(ctx)
			defer cancel()
			number, err := admin.Rebuild(asking, opts)
			if err != nil {
				return err
			}
			if detach {
				return a.done(args[0], number, fmt.Sprintf("generation %d is being built", number))
			}
			if err := a.awaitBuilt(ctx, admin, number, opts.Switch); err != nil {
				if ctx.Err() != nil {
					a.notef("rossby: generation %d goes on being built: rossby view status %s", number, args[0])
				}
				return err
			}
			text := fmt.Sprintf("generation %d has caught up: compare it, then switch to it", number)
			if opts.Switch {
				text = fmt.Sprintf("generation %d is live", number)
			}
			return a.done(args[0], number, text)
		})
	c.Long = "Builds a view anew beside the one that is read, and waits until it has caught up. Readers notice nothing\n" +
		"until the switch. The updaters do the work: it goes on when this command is interrupted."
	c.Flags().BoolVar(&opts.Switch, "switch", false, "let it take the live one's place when it has caught up")
	c.Flags().BoolVar(&detach, "detach", false, "do not wait for it")
	c.Flags().StringVar(&one, "aggregate", "", "only the keys of this aggregate, `TYPE/ID`, in the live view")
	c.Flags().StringVar(&reason, "reason", "", "`why`, for the view's record, with --aggregate")
	return c
}

// rebuildOne rebuilds the keys of one aggregate, in the view that is read.
func (a *app) rebuildOne(ctx context.Context, admin *projection.Admin, view, aggregate, reason string) error {
	typ, id, err := aggregateArg([]string{aggregate})
	if err != nil {
		return err
	}
	r, err := admin.RebuildAggregate(ctx, typ, id, reason)
	if err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "view %q: %s keys of %s/%s rebuilt, %s were not as they must be\n",
			view, number(r.Keys), typ, id, number(r.Changed))
	})
}

// done says what was done to a view.
func (a *app) done(view string, generation int, text string) error {
	out := struct {
		View       string `json:"view"`
		Generation int    `json:"generation,omitempty"`
		Done       string `json:"done"`
	}{view, generation, text}
	return a.show(out, func(w io.Writer) { _, _ = fmt.Fprintf(w, "view %q: %s\n", view, text) })
}

func (a *app) awaitBuilt(ctx context.Context, admin *projection.Admin, number int, live bool) error {
	p := a.progress("rebuild")
	defer p.end()
	tick := time.NewTicker(rebuildPoll)
	defer tick.Stop()
	noted := false
	for {
		gens, err := admin.Generations(ctx)
		if err != nil && !errors.Is(err, projection.ErrUnavailable) {
			return err
		}
		found := false
		for i := range gens {
			g := &gens[i]
			if g.Number != number {
				continue
			}
			found = true
			p.at(uint64(g.Done*1e6), 1e6)
			switch {
			case g.Live, !live && g.CaughtUp():
				return nil
			case g.State == projection.StateStopped:
				return fmt.Errorf("generation %d has stopped: %s", number, g.Error)
			case !noted && (g.State == projection.StatePaused || g.Owner == ""):
				noted = true
				a.notef("rossby: nobody builds generation %d yet: an updater of the view must run, and not be paused", number)
			}
		}
		if err == nil && !found {
			return fmt.Errorf("%w: generation %d was removed", projection.ErrGeneration, number)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// generationArg reads the number of a generation.
func generationArg(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, &usageError{fmt.Sprintf("generation %q: is no number: rossby view status lists them", text), err}
	}
	return n, nil
}

func (a *app) viewCompare() *cobra.Command {
	var opts projection.CompareOptions
	const mostDefault = 20
	most := mostDefault
	c := a.onView("compare VIEW FIRST SECOND", "Compares two generations of a view, key by key",
		"  rossby view compare accounts 1 2 --store bank\n  rossby view compare accounts 1 2 --one-in 100",
		cobra.ExactArgs(3),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			first, err1 := generationArg(args[1])
			second, err2 := generationArg(args[2])
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if opts.OneIn < 1 || most < 1 {
				return &usageError{"--one-in and --most must be 1 or more", nil}
			}
			return a.compare(ctx, admin, args[0], first, second, opts, most)
		})
	c.Long = "Compares two generations of a view, key by key, while both go on. Each difference is a line, then a\n" +
		"summary. Exit code 4 with any."
	f := c.Flags()
	f.IntVar(&opts.OneIn, "one-in", 1, "compare one key in so `many`")
	f.StringSliceVar(&opts.Keys, "key", nil, "compare these `keys` only")
	f.IntVar(&most, "most", mostDefault, "end after so `many` differences")
	return c
}

func (a *app) compare(
	ctx context.Context, admin *projection.Admin, view string, first, second int, opts projection.CompareOptions, most int,
) error {
	var counts projection.Compared
	found := 0
	for d, err := range admin.Compare(ctx, first, second, opts, &counts) {
		if err != nil {
			return err
		}
		found++
		row := struct {
			Key    string          `json:"key"`
			First  json.RawMessage `json:"first,omitempty"`
			Second json.RawMessage `json:"second,omitempty"`
		}{d.Key, d.A, d.B}
		err := a.line(row, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "%s\n  %d: %s\n  %d: %s\n", oneLine(d.Key), first, value(d.A), second, value(d.B))
		})
		if err != nil {
			return err
		}
		if found == most {
			break
		}
	}
	sum := struct {
		View        string `json:"view"`
		Keys        int    `json:"keys"`
		Differences int    `json:"differences"`
	}{view, counts.Keys, found}
	err := a.line(sum, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "view %q: %s keys compared: %s differences\n", view, number(sum.Keys), number(found))
	})
	if err == nil && found > 0 {
		err = fmt.Errorf("generations %d and %d of view %q: %w", first, second, view, errFound)
	}
	return err
}

func value(data []byte) string {
	if data == nil {
		return "(none)"
	}
	return string(data)
}

func (a *app) viewSwitch() *cobra.Command {
	c := a.onView("switch VIEW GENERATION", "Lets a generation take the live one's place",
		"  rossby view switch accounts 2 --store bank --yes", cobra.ExactArgs(2),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			number, err := generationArg(args[1])
			if err != nil {
				return err
			}
			if _, err := admin.Status(ctx); err != nil {
				return err
			}
			if err := a.confirm(ctx, fmt.Sprintf("Let readers of view %q read generation %d?", args[0], number)); err != nil {
				return err
			}
			asking, cancel := a.short(ctx)
			defer cancel()
			if err := admin.Switch(asking, number); err != nil {
				return a.notLive(args[0], number, err)
			}
			return a.done(args[0], number, fmt.Sprintf("generation %d is live", number))
		})
	c.Long = "Lets a generation take the live one's place, and waits until it has, at most --timeout. It catches up\n" +
		"first. Where that takes longer it goes live all the same; the same command waits for it."
	return a.asks(c)
}

// notLive says how to wait for a switch that takes longer. To repeat a rollback that
// came to its end meanwhile would undo it.
func (a *app) notLive(view string, number int, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		a.notef("rossby: generation %d goes live as soon as it can; this waits for it: rossby view switch %s %d",
			number, view, number)
	}
	return err
}

func (a *app) viewRollback() *cobra.Command {
	c := a.onView("rollback VIEW", "Lets the generation that was live before take its place back",
		"  rossby view rollback accounts --store bank", cobra.ExactArgs(1),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			if _, err := admin.Status(ctx); err != nil {
				return err
			}
			question := fmt.Sprintf("Let readers of view %q go back to the generation before?", args[0])
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
			asking, cancel := a.short(ctx)
			defer cancel()
			number, err := admin.Rollback(asking)
			if err != nil && number > 0 {
				return a.notLive(args[0], number, err)
			}
			if err != nil {
				return err
			}
			return a.done(args[0], number, fmt.Sprintf("generation %d is live again", number))
		})
	c.Long = "Lets the generation that was live before take its place back, and waits until it has, at most --timeout.\n" +
		"It catches up first. Where that takes longer it goes live all the same, and rossby view switch waits for it."
	return a.asks(c)
}

func (a *app) viewRemove() *cobra.Command {
	return a.asks(a.onView("remove VIEW GENERATION", "Deletes a generation that is not live, and all of its keys",
		"  rossby view remove accounts 1 --store bank", cobra.ExactArgs(2),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			number, err := generationArg(args[1])
			if err != nil {
				return err
			}
			if _, err := admin.Status(ctx); err != nil {
				return err
			}
			question := fmt.Sprintf("Delete generation %d of view %q and all of its keys?", number, args[0])
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
			if err := admin.Remove(ctx, number); err != nil {
				return err
			}
			return a.done(args[0], number, fmt.Sprintf("generation %d is removed", number))
		}))
}

func (a *app) viewPause() *cobra.Command {
	reason := ""
	c := a.onView("pause VIEW", "Lets a view wait where it is",
		"  rossby view pause accounts --store bank --reason 'disk is filling up'", cobra.ExactArgs(1),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			ctx, cancel := a.short(ctx)
			defer cancel()
			if _, err := admin.Status(ctx); err != nil {
				return err
			}
			if err := admin.Pause(ctx, reason); err != nil {
				return err
			}
			return a.done(args[0], 0, "paused until rossby view resume")
		})
	c.Flags().StringVar(&reason, "reason", "", "why, for `people` who look at the status")
	return c
}

func (a *app) viewResume() *cobra.Command {
	return a.onView("resume VIEW", "Lets a paused view go on, and a stopped one try again",
		"  rossby view resume accounts --store bank", cobra.ExactArgs(1),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			ctx, cancel := a.short(ctx)
			defer cancel()
			if _, err := admin.Status(ctx); err != nil {
				return err
			}
			if err := admin.Resume(ctx); err != nil {
				return err
			}
			return a.done(args[0], 0, "goes on")
		})
}

func (a *app) viewSkip() *cobra.Command {
	reason := ""
	c := a.asks(a.onView("skip VIEW", "Lets a view leave out the event that it has stopped at",
		"  rossby view skip accounts --store bank --reason 'broken import, ticket 17'", cobra.ExactArgs(1),
		func(ctx context.Context, _ place, admin *projection.Admin, args []string) error {
			if reason == "" {
				return &usageError{"skip: say why with --reason: the view will lack the event for ever", nil}
			}
			gens, err := admin.Generations(ctx)
			if err != nil {
				return err
			}
			var failed *projection.FailedEvent
			for i := range gens {
				if f := gens[i].Failed; f != nil {
					failed = f
				}
			}
			if failed == nil {
				return fmt.Errorf("%w: view %q has not stopped at an event", projection.ErrGeneration, args[0])
			}
			question := fmt.Sprintf("Leave %s %s of %s/%s out of view %q for ever?", failed.Event, failed.EventID, failed.Type,
				failed.ID, args[0])
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
			if err := admin.Skip(ctx, *failed, reason); err != nil {
				return err
			}
			return a.done(args[0], 0, fmt.Sprintf("leaves out event %q of sequence %d", failed.EventID, failed.Sequence))
		}))
	c.Flags().StringVar(&reason, "reason", "", "`why`; kept with the view")
	return c
}
