package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

func (a *app) followerCommands() *cobra.Command {
	return a.group("follower", "Followers: reactors, gateways, timers", "  rossby follower ls",
		a.followerLs(), a.followerStatus(), a.followerPause(), a.followerResume(), a.followerReplay(), a.followerEndReplay(),
		a.followerActions())
}

// followerNames lists the followers that ever ran. It asks none of them.
func followerNames(ctx context.Context, at place) ([]string, error) {
	js, err := natsjs.New(at.nc)
	if err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, at.store+"__followers")
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the followers of store %q: %w", at.store, err)
	}
	all, err := kv.Keys(ctx)
	if err != nil && !errors.Is(err, natsjs.ErrNoKeysFound) {
		return nil, fmt.Errorf("list the followers of store %q: %w", at.store, err)
	}
	sortBy(all, func(s string) string { return s })
	return all, nil
}

// onFollower is a command for one follower: its first argument.
func (a *app) onFollower(
	use, short, example string, args cobra.PositionalArgs,
	run func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, args []string) error,
) *cobra.Command {
	c := a.command(use, short, example, args, func(ctx context.Context, args []string) error {
		store, end, err := a.open(ctx)
		if err != nil {
			return err
		}
		defer end()
		if len(args) > 0 {
			if err := jetstream.ValidateName("follower", strings.TrimPrefix(args[0], "_")); err != nil {
				return err
			}
		}
		err = run(ctx, store, followers.New(store), args)
		if errors.Is(err, followers.ErrNeverRan) {
			known, listErr := followerNames(ctx, placeOf(store))
			if listErr != nil {
				return errors.Join(err, listErr)
			}
			return missing("follower", args[0], known)
		}
		return err
	})
	c.ValidArgsFunction = a.completes(followerNames)
	return c
}

// by is who asks, for the followers' records.
func by(flag string) string {
	if flag != "" {
		return flag
	}
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return cmp.Or(name, "rossby")
}

func addBy(c *cobra.Command, flag *string) {
	c.Flags().StringVar(flag, "by", "", "`who` asks, for the record; the user by default")
}

func (a *app) followerLs() *cobra.Command {
	return a.onFollower("ls", "Lists the followers of a store", "  rossby follower ls --store bank", noArgs,
		func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, _ []string) error {
			rows, err := admin.List(ctx)
			if err != nil {
				return err
			}
			return list(a, rows, fmt.Sprintf("Store %q has no followers.", store.Name()),
				[]string{"FOLLOWER", "KIND", "STATE", "LAG", "BEHIND", "WAITING", "PARKED", "OWNER", "ERROR"},
				func(s followers.Status) []string {
					return []string{
						s.Name, s.Kind, s.State, number(s.Lag), seconds(s.LagSeconds), number(s.Waiting), number(s.Parked),
						s.Owner, s.LastError,
					}
				})
		})
}

func (a *app) followerStatus() *cobra.Command {
	return a.onFollower("status FOLLOWER", "Shows where a follower is and what it waits for",
		"  rossby follower status notifications --store bank", cobra.ExactArgs(1),
		func(ctx context.Context, _ *jetstream.Store, admin *followers.Admin, args []string) error {
			s, err := admin.Status(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) {
				paused, replay := "", ""
				if s.Paused != nil {
					paused = fmt.Sprintf("by %s at %s: %s", s.Paused.By, stamp(s.Paused.At), s.Paused.Reason)
				}
				if r := s.Replay; r != nil {
					replay = fmt.Sprintf("%d to %d, at %d, by %s: %s", r.From, r.To, r.Next, r.By, r.Reason)
				}
				fields(w, field{"Follower", s.Name}, field{"Kind", s.Kind}, field{"State", s.State}, field{"Owner", s.Owner},
					field{"Paused", paused}, field{"Replay", replay},
					field{"Lag", fmt.Sprintf("%s events, %s", number(s.Lag), seconds(s.LagSeconds))},
					field{labelPosition, fmt.Sprintf("%d of %d", s.Position, s.Head)},
					field{"Waiting", number(s.Waiting)}, field{"Parked", number(s.Parked)}, field{"Last error", s.LastError},
					field{"Details", string(s.Details)})
				if len(s.Lanes) > 0 {
					_, _ = fmt.Fprintln(w)
					lanes(w, s.Lanes)
				}
			})
		})
}

func lanes(w io.Writer, all []followers.Lane) {
	table(w, []string{"LANE", "SEQUENCE", "ATTEMPTS", "PARKED", "SINCE", "NEXT", "ERROR"}, all,
		func(l followers.Lane) []string {
			return []string{
				l.Lane, number(l.Sequence), number(l.Attempts), yesNo(l.Parked), stampOf(l.Since), stampOf(l.Next), l.Error,
			}
		})
}

// told says what a follower was told.
func (a *app) told(follower, text string) error {
	out := struct {
		Follower string `json:"follower"`
		Done     string `json:"done"`
	}{follower, text}
	return a.show(out, func(w io.Writer) { _, _ = fmt.Fprintf(w, "follower %q: %s\n", follower, text) })
}

func (a *app) followerPause() *cobra.Command {
	var who, reason string
	c := a.onFollower("pause FOLLOWER", "Lets a follower begin nothing more",
		"  rossby follower pause notifications --store bank --reason 'provider is down'", cobra.ExactArgs(1),
		func(ctx context.Context, _ *jetstream.Store, admin *followers.Admin, args []string) error {
			if err := admin.Pause(ctx, args[0], by(who), reason); err != nil {
				return err
			}
			return a.told(args[0], "paused until rossby follower resume")
		})
	c.Flags().StringVar(&reason, "reason", "", "`why`, for the record")
	addBy(c, &who)
	return c
}

func (a *app) followerResume() *cobra.Command {
	who := ""
	c := a.onFollower("resume FOLLOWER", "Ends a follower's pause", "  rossby follower resume notifications --store bank",
		cobra.ExactArgs(1),
		func(ctx context.Context, _ *jetstream.Store, admin *followers.Admin, args []string) error {
			if err := admin.Resume(ctx, args[0], by(who)); err != nil {
				return err
			}
			return a.told(args[0], "goes on")
		})
	addBy(c, &who)
	return c
}

func (a *app) followerReplay() *cobra.Command {
	var who, reason string
	var from, to uint64
	c := a.asks(a.onFollower("replay FOLLOWER", "Lets a gateway deliver the events of a range again",
		"  rossby follower replay notifications --from 100 --to 200 --reason 'provider lost them' --store bank",
		cobra.ExactArgs(1),
		func(ctx context.Context, store *jetstream.Store, admin *followers.Admin, args []string) error {
			switch {
			case reason == "":
				return &usageError{"replay: say why with --reason: others will see everything again", nil}
			case from == 0 || to < from:
				return &usageError{fmt.Sprintf("replay: --from %d --to %d is not a range of sequences", from, to), nil}
			}
			if _, err := admin.Status(ctx, args[0]); err != nil {
				return err
			}
			question := fmt.Sprintf("Let %q deliver the events of sequences %d to %d again?", args[0], from, to)
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
			err := admin.Replay(ctx, args[0], store.Position(from), store.Position(to), by(who), reason)
			if err != nil {
				return err
			}
			return a.told(args[0], fmt.Sprintf("delivers sequences %d to %d again", from, to))
		}))
	c.Flags().Uint64Var(&from, "from", 0, "the first stream `sequence`")
	c.Flags().Uint64Var(&to, "to", 0, "the last stream `sequence`")
	c.Flags().StringVar(&reason, "reason", "", "`why`, for the record")
	addBy(c, &who)
	return c
}

func (a *app) followerEndReplay() *cobra.Command {
	var who, reason string
	c := a.onFollower("end-replay FOLLOWER", "Ends a replay after the event that it is at",
		"  rossby follower end-replay notifications --store bank", cobra.ExactArgs(1),
		func(ctx context.Context, _ *jetstream.Store, admin *followers.Admin, args []string) error {
			if err := admin.EndReplay(ctx, args[0], by(who), reason); err != nil {
				return err
			}
			return a.told(args[0], "ends its replay")
		})
	c.Flags().StringVar(&reason, "reason", "", "`why`, for the record")
	addBy(c, &who)
	return c
}

func (a *app) followerActions() *cobra.Command {
	return a.onFollower("actions [FOLLOWER]", "Lists what people asked followers to do",
		"  rossby follower actions --store bank", cobra.MaximumNArgs(1),
		func(ctx context.Context, _ *jetstream.Store, admin *followers.Admin, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			for action, err := range admin.Actions(ctx, name) {
				if err != nil {
					return err
				}
				err := a.line(action, func(w io.Writer) {
					_, _ = fmt.Fprintf(w, "%s  %s  %s  by %s  %s  %s\n", stamp(action.Time), action.Follower, action.Do,
						oneLine(action.By), action.Lane, oneLine(action.Reason))
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
}
