package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

func (a *app) parkedCommands() *cobra.Command {
	return a.group("parked", "Events that wait for a person: show, retry, discard", "  rossby parked ls",
		a.parkedLs(), a.parkedShow(), a.parkedRetry(), a.parkedDiscard())
}

// parkedRow is a group of parked lanes of a follower.
type parkedRow struct {
	Follower string `json:"follower"`
	followers.Group
}

func (a *app) parkedLs() *cobra.Command {
	return a.onFollower("ls [FOLLOWER]", "Lists what waits for a person, grouped by failure",
		"  rossby parked ls --store bank\n  rossby parked ls notifications --json", cobra.MaximumNArgs(1),
		func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, args []string) error {
			which := args
			if len(args) == 0 {
				var err error
				if which, err = followerNames(ctx, placeOf(store)); err != nil {
					return err
				}
			}
			var rows []parkedRow
			for _, name := range which {
				groups, err := admin.Parked(ctx, name)
				if err != nil {
					return err
				}
				for _, g := range groups {
					rows = append(rows, parkedRow{name, g})
				}
			}
			return list(a, rows, "Nothing is parked.",
				[]string{"FOLLOWER", "GROUP", "COUNT", "OLDEST", "FIRST LANE", "FAILURE"}, func(r parkedRow) []string {
					first := ""
					if len(r.Lanes) > 0 {
						first = r.Lanes[0].Lane
					}
					return []string{r.Follower, r.ID, number(r.Count), stampOf(r.Oldest), first, r.Pattern}
				})
		})
}

// laneArg is a lane's name, which may be written as TYPE/ID.
func laneArg(store *jetstream.Store, text string) (string, error) {
	if typ, id, ok := strings.Cut(text, "/"); ok {
		return store.Subject(typ, id)
	}
	return text, nil
}

// lane finds a lane that waits.
func lane(
	ctx context.Context, store *jetstream.Store, admin *followers.Admin, follower, name string,
) (followers.Lane, error) {
	name, err := laneArg(store, name)
	if err != nil {
		return followers.Lane{}, err
	}
	s, err := admin.Status(ctx, follower)
	if err != nil {
		return followers.Lane{}, err
	}
	var known []string
	for _, l := range s.Lanes {
		if l.Lane == name {
			return l, nil
		}
		known = append(known, l.Lane)
	}
	return followers.Lane{}, missing(fmt.Sprintf("a lane of %q that waits", follower), name, known)
}

func (a *app) parkedShow() *cobra.Command {
	return a.onFollower("show FOLLOWER LANE", "Shows the commit that a lane waits for, and why",
		"  rossby parked show notifications account/a1 --store bank", cobra.ExactArgs(2),
		func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, args []string) error {
			l, err := lane(ctx, store, admin, args[0], args[1])
			if err != nil {
				return err
			}
			c, err := admin.Show(ctx, l)
			if err != nil {
				return err
			}
			out := struct {
				Lane   followers.Lane `json:"lane"`
				Commit commitRow      `json:"commit"`
			}{l, commitOf(store, c)}
			return a.show(out, func(w io.Writer) {
				fields(w, field{"Lane", l.Lane}, field{"Parked", yesNo(l.Parked)}, field{"Failed first", stampOf(l.Since)},
					field{"Attempts", number(l.Attempts)}, field{"Error", l.Error}, field{"Group", l.Group},
					field{"Done of it", number(l.Done)}, field{"Last to wait", number(l.Last)})
				_, _ = fmt.Fprintln(w)
				out.Commit.print(w)
			})
		})
}

func (a *app) parkedRetry() *cobra.Command {
	var what followers.Selection
	who := ""
	c := a.onFollower("retry FOLLOWER [LANE]", "Tries what waits again, at once",
		"  rossby parked retry notifications account/a1 --store bank\n  rossby parked retry notifications --group 5f2c0b1d",
		cobra.RangeArgs(1, 2),
		func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, args []string) error {
			if len(args) > 1 {
				var err error
				if what.Lane, err = laneArg(store, args[1]); err != nil {
					return err
				}
			}
			given := 0
			for _, b := range []bool{what.Lane != "", what.Group != "", what.All} {
				if b {
					given++
				}
			}
			if given != 1 {
				return &usageError{"retry: name a lane, or pass --group or --all", nil}
			}
			n, err := admin.Retry(ctx, args[0], what, by(who))
			if err != nil {
				return err
			}
			return a.told(args[0], fmt.Sprintf("tries %s lanes again", number(n)))
		})
	c.Flags().StringVar(&what.Group, "group", "", "what failed alike: the `id` that parked ls shows")
	c.Flags().BoolVar(&what.All, "all", false, "everything that waits")
	addBy(c, &who)
	return c
}

func (a *app) parkedDiscard() *cobra.Command {
	var who, reason string
	whole := false
	c := a.asks(a.onFollower("discard FOLLOWER LANE", "Gives up the event that a lane waits for, for good",
		"  rossby parked discard notifications account/a1 --reason 'address was never valid' --store bank",
		cobra.ExactArgs(2), func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, args []string) error {
			if reason == "" {
				return &usageError{"discard: say why with --reason: what is discarded is never done", nil}
			}
			l, err := lane(ctx, store, admin, args[0], args[1])
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Never handle the event of sequence %d that lane %q waits for (%s)?", l.Sequence, l.Lane,
				cmp.Or(oneLine(l.Error), "no error"))
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
			if err := admin.Discard(ctx, args[0], l, whole, by(who), reason); err != nil {
				return err
			}
			return a.told(args[0], fmt.Sprintf("gives up sequence %d of lane %q", l.Sequence, l.Lane))
		}))
	c.Flags().StringVar(&reason, "reason", "", "`why`, for the record")
	c.Flags().BoolVar(&whole, "whole", false, "give up all events that were stored together with it")
	addBy(c, &who)
	return c
}
