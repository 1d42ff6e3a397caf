package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
)

func (a *app) storeCommands() *cobra.Command {
	return a.group("store", "Event stores: list, inspect, verify, export, import", "  rossby store ls",
		a.storeLs(), a.storeInfo(), a.storeVerify(), a.storeExport(), a.storeImport(), a.storeDurability())
}

// storeRow is a store in a list.
type storeRow struct {
	Name       string    `json:"name"`
	ID         string    `json:"id"`
	Commits    uint64    `json:"commits"`
	Subjects   uint64    `json:"subjects"`
	Bytes      uint64    `json:"bytes"`
	Replicas   int       `json:"replicas"`
	Codec      string    `json:"codec"`
	Format     string    `json:"format"`
	Partitions string    `json:"partitions"`
	Consumers  int       `json:"consumers"`
	Leader     string    `json:"leader,omitempty"`
	LastTime   time.Time `json:"lastTime"`
	Created    time.Time `json:"created"`
}

func rowOf(info *natsjs.StreamInfo) storeRow {
	m := info.Config.Metadata
	r := storeRow{
		Name: info.Config.Name, ID: m["rossby.store"], Commits: info.State.Msgs, Bytes: info.State.Bytes,
		Replicas: max(info.Config.Replicas, 1), Codec: m["rossby.codec"], Format: m["rossby.format"],
		Partitions: m["rossby.partitions"], Consumers: info.State.Consumers, LastTime: info.State.LastTime,
		Created: info.Created,
	}
	// The first message describes the store and is no commit.
	if r.Commits > 0 {
		r.Commits--
	}
	if info.State.NumSubjects > 0 {
		r.Subjects = info.State.NumSubjects - 1
	}
	if info.Cluster != nil {
		r.Leader = info.Cluster.Leader
	}
	return r
}

func (a *app) storeLs() *cobra.Command {
	return a.command("ls", "Lists the stores", "  rossby store ls\n  rossby store ls --json | jq -r '.[].name'", noArgs,
		func(ctx context.Context, _ []string) error {
			nc, end, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer end()
			ctx, cancel := a.short(ctx)
			defer cancel()
			rows, err := listStores(ctx, nc)
			if err != nil {
				return err
			}
			return list(a, rows, "There is no store.",
				[]string{"NAME", "COMMITS", "SUBJECTS", "SIZE", "REPLICAS", "CODEC", "LAST"}, func(r storeRow) []string {
					return []string{
						r.Name, number(r.Commits), number(r.Subjects), size(r.Bytes), number(r.Replicas), r.Codec,
						stamp(r.LastTime),
					}
				})
		})
}

// storeArg lets a store be named as an argument, too.
func (a *app) storeArg(args []string) {
	if len(args) > 0 {
		a.store = args[0]
	}
}

func (a *app) storeInfo() *cobra.Command {
	c := a.command("info [STORE]", "Shows a store: its settings, size and end", "  rossby store info bank",
		cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			a.storeArg(args)
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			ctx, cancel := a.short(ctx)
			defer cancel()
			js, err := natsjs.New(store.Conn())
			if err != nil {
				return err
			}
			stream, err := js.Stream(ctx, store.Name())
			if err != nil {
				return fmt.Errorf("store %q: %w", store.Name(), err)
			}
			last, err := store.LastPosition(ctx)
			if err != nil {
				return err
			}
			info := struct {
				storeRow

				Position jetstream.Position `json:"position"`
			}{rowOf(stream.CachedInfo()), last}
			return a.show(info, func(w io.Writer) {
				fields(w, field{"Store", info.Name}, field{"Id", info.ID}, field{"Format", info.Format},
					field{"Codec", info.Codec}, field{"Partitions", info.Partitions},
					field{"Replicas", number(info.Replicas)}, field{"Leader", info.Leader},
					field{"Commits", number(info.Commits)}, field{"Subjects", number(info.Subjects)},
					field{"Size", size(info.Bytes)}, field{"Consumers", number(info.Consumers)},
					field{"Created", stamp(info.Created)}, field{"Last commit", stamp(info.LastTime)},
					field{labelPosition, last.String()})
			})
		})
	c.Long = "Shows a store: its settings, size and end. Subjects are its aggregates and, if there are, its unique keys."
	c.ValidArgsFunction = a.completeStores
	return c
}

// finding is a fault of a store.
type finding struct {
	Kind     jetstream.DamageKind `json:"kind"`
	Subject  string               `json:"subject,omitempty"`
	Sequence uint64               `json:"sequence,omitempty"`
	Through  uint64               `json:"through,omitempty"`
	Detail   string               `json:"detail"`
}

func (a *app) storeVerify() *cobra.Command {
	var v jetstream.Verification
	c := a.command("verify [STORE]", "Reads a store and reports what is wrong with it",
		"  rossby store verify bank\n  rossby store verify bank --type account --id a1", cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			a.storeArg(args)
			if v.ID != "" && v.Type == "" {
				return &usageError{"--id needs --type", nil}
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			return a.verify(ctx, store, v)
		})
	c.Long = "Reads a store and reports what is wrong with it: each fault on a line, then a summary. Exit code 4\n" +
		"with any. Events are checked as far as it goes without the program's schemas: jetstream.Verification takes those."
	f := c.Flags()
	f.StringVar(&v.Type, "type", "", "verify one aggregate of this `type`, with --id")
	f.StringVar(&v.ID, "id", "", "the aggregate's `id`")
	f.IntVar(&v.Sample, "sample", 0, "verify about so many aggregates, met at random")
	f.Uint64Var(&v.After, "after", 0, "take what lies before this stream `sequence` to be right")
	c.ValidArgsFunction = a.completeStores
	return c
}

func (a *app) verify(ctx context.Context, store *jetstream.Store, v jetstream.Verification) error {
	p := a.progress("verify")
	defer p.end()
	var last jetstream.Verified
	v.Progress = func(n jetstream.Verified) {
		last = n
		p.at(n.Sequence, n.Last)
	}
	found := 0
	for damage, err := range store.Verify(ctx, v) {
		if err != nil {
			return fmt.Errorf("verify store %q: %w", store.Name(), err)
		}
		found++
		p.end()
		f := finding{damage.Kind, damage.Subject, damage.Sequence, damage.Through, damage.Detail}
		err := a.line(f, func(w io.Writer) { _, _ = fmt.Fprintln(w, oneLine(damage.Error())) })
		if err != nil {
			return err
		}
	}
	p.end()
	sum := struct {
		Store      string `json:"store"`
		Commits    uint64 `json:"commits"`
		Aggregates uint64 `json:"aggregates"`
		Findings   int    `json:"findings"`
	}{store.Name(), last.Commits, last.Aggregates, found}
	err := a.line(sum, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s: %s commits of %s aggregates: %s faults\n",
			sum.Store, number(sum.Commits), number(sum.Aggregates), number(found))
	})
	if err == nil && found > 0 {
		err = fmt.Errorf("store %q: %w", store.Name(), errFound)
	}
	return err
}

func (a *app) storeDurability() *cobra.Command {
	var monitoring []string
	var require string
	c := a.command("durability [STORE]", "Shows what the servers do for an acknowledged commit",
		"  rossby store durability bank --monitoring http://n1:8222 --require quorum-lazy", cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			a.storeArg(args)
			level := jetstream.DurabilityUnknown
			if require != "" {
				var err error
				if level, err = jetstream.ParseDurabilityLevel(require); err != nil {
					return err
				}
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			ctx, cancel := a.short(ctx)
			defer cancel()
			d, err := store.Durability(ctx, jetstream.DurabilitySources{Monitoring: monitoring})
			if err != nil {
				return err
			}
			err = a.show(d, func(w io.Writer) { durability(w, d) })
			if err == nil && require != "" {
				err = d.Require(level)
			}
			return err
		})
	c.Long = "Shows what the servers do for an acknowledged commit. A plain client is not told when servers sync their\n" +
		"disks: --monitoring asks their monitoring ports. With --require, exit code 4 unless the level is certain."
	c.Flags().StringSliceVar(&monitoring, "monitoring", nil, "monitoring `addresses` of the servers")
	c.Flags().StringVar(&require, "require", "", "the least `level` that must be certain: "+strings.Join(levels(), ", "))
	c.ValidArgsFunction = a.completeStores
	return c
}

// levels are the names of the levels that can be required.
func levels() []string {
	var all []string
	for l := jetstream.DurabilityMemory; l <= jetstream.DurabilityFsynced; l++ {
		all = append(all, l.String())
	}
	return all
}

func durability(w io.Writer, d jetstream.Durability) {
	fields(w, field{"Level", d.Level.String()}, field{"At least", d.AtLeast.String()},
		field{"Replicas", fmt.Sprintf("%d, %d in sync", d.Replicas, d.InSync)}, field{"Storage", d.Storage},
		field{"Fsync", string(d.Fsync)}, field{"Server", d.ServerVersion})
	_, _ = fmt.Fprintln(w)
	table(w, []string{"SERVER", "ROLE", "STATE", "LAG", "FSYNC", "VERSION"}, d.Servers,
		func(s jetstream.ServerDurability) []string {
			role, state := "replica", "behind"
			if s.Leader {
				role = "leader"
			}
			switch {
			case s.Offline:
				state = "offline"
			case s.Current:
				state = "in sync"
			}
			return []string{s.Name, role, state, number(s.Lag), string(s.Fsync), cmp.Or(s.Version, "unknown")}
		})
	for _, p := range d.Problems {
		_, _ = fmt.Fprintln(w, "could not ask:", oneLine(p))
	}
}
