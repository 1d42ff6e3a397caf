// Command bench measures Rossby side by side with raw nats.go, against a
// nats-server in a process of its own. docs/benchmarks.md says what each row
// measures and how to read the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

func main() {
	quiet()
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], childPrefix) {
		exit(runChild(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	exit(err)
}

// quiet leaves out what the library logs about its normal work.
func quiet() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

func exit(err error) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// row is one line of the output.
type row struct {
	name, about string
	// lower tells that the ratio is ours over raw and must not exceed the target.
	lower  bool
	target float64
	// full leaves the row to runs that name it or ask for all.
	full bool
	// replicas is the number of servers, 1 unless set; fsync lets them sync every
	// write.
	replicas int
	fsync    bool
	run      func(ctx context.Context, e *env) (*result, error)
}

func rows() []row { //nolint:funlen // a table
	return []row{
		{
			name: "append-1", target: 0.95, run: appendRow(1),
			about: "append one event, one writer; raw: PublishMsg of the same bytes",
		},
		{
			name: "append-64", target: 0.95, run: append64,
			about: "append one event, 64 writers; raw: PublishMsg of the same bytes",
		},
		{
			name: "append-10", target: 0.90, run: appendRow(10),
			about: "append ten events as one commit; raw: PublishMsg of the same bytes",
		},
		{
			name: "load-10k", target: 0.67, run: loadRow(10_000, 1000),
			about: "load, cold cache, 10 k commits of 1 k aggregates; raw: one direct get",
		},
		{
			name: "load-large-state", target: 0.67, run: largeState,
			about: "load, cold cache, a state of 16 KiB beside the commits; raw: two direct gets",
		},
		{name: "execute-cached", target: 0.87, run: executeCached, about: "a command in process; raw: PublishMsg"},
		{
			name: "execute-traced", target: 0.7, run: executeTraced,
			about: "a command with spans that are recorded; raw: without",
		},
		{
			name: "execute-measured", target: 0.95, run: executeMeasured,
			about: "a command whose durations go into histograms; raw: without",
		},
		{
			name: "execute-uncached", target: 0.87, run: executeUncached,
			about: "a command in process, cache evicted; raw: direct get and PublishMsg",
		},
		{
			name: "command", target: 0.77, run: command,
			about: "a command over request-reply; raw: core request and PublishMsg",
		},
		{
			name: "command-latency", target: 0.5, run: commandLatency,
			about: "a command's p99 at half of the load that saturates; raw: core request and PublishMsg, same load",
		},
		{
			name: "visible-r1", target: 1, lower: true, run: visible(1500 * time.Microsecond),
			about: "from an append's answer until the view shows it, at rest; raw: the bound",
		},
		{
			name: "visible-r3", target: 1, lower: true, run: visible(2 * time.Millisecond), replicas: clusterSize,
			about: "the same on three servers; raw: the bound",
		},
		{
			name: "reader-get", target: 0.5, run: readerGet,
			about: "one key of a view, in one snapshot with its position; raw: one direct get",
		},
		{
			name: "reader-list", target: 0.5, run: readerList,
			about: "a view of 1,000 keys, decoded; raw: the last messages of all of them in one request",
		},
		{
			name: "local-get", target: 1, lower: true, run: localGet,
			about: "one key of a view in memory; raw: the bound",
		},
		{
			name: "catchup-1", target: 0.8, full: true, run: locality(1),
			about: "catchup, one event of a key; raw: pull consumer without acks",
		},
		{
			name: "catchup-1000", target: 0.8, full: true, run: locality(1000),
			about: "catchup, a thousand events of a key; raw: pull consumer without acks",
		},
		{
			name: "catchup-r3", target: 0.8, full: true, run: locality(10), replicas: clusterSize,
			about: "catchup on three servers; raw: pull consumer without acks",
		},
		{
			name: "catchup", target: 0.8, run: catchup,
			about: "a keyed view catches up; raw: pull consumer without acks",
		},
		{
			name: "rebuild", target: 1.25, lower: true, full: true, run: rebuild,
			about: "an event of a view that is rebuilt, of most events; raw: of a tenth of them",
		},
		{
			name: "follower", target: 0.5, run: followed,
			about: "a reactor without effects, ordered by aggregate; raw: pull consumer, explicit acks",
		},
		{
			name: "handover", target: 1, lower: true, run: handover,
			about: "from the end of a gateway's owner to the next one's first delivery; raw: the bound",
		},
		{
			name: "bytes", target: 1.5, lower: true, run: bytesRow,
			about: "size of a one-event commit with state; raw: the event and 250 bytes",
		},
		{
			name: "export", target: 0.8, run: exportRow,
			about: "a store into an archive, with checksums; raw: ordered consumer, written to a file",
		},
		{
			name: "import", target: 0.8, run: importRow,
			about: "an archive into a new store; raw: PublishMsgAsync of the same messages with expectations",
		},
		{
			name: "scan", target: 0.8, run: scan,
			about: "the whole store, commit by commit; raw: an ordered consumer, nothing decoded",
		},
		{
			name: "history", target: 0.9, run: historyRow,
			about: "the history of an aggregate of 100 commits; raw: a direct get for each, one after the other",
		},
		{
			name: "load-events", target: 0.67, run: loadEvents,
			about: "load aggregates of 10 to 100 k events whose commits carry the state; raw: one direct get",
		},
		{
			name: "state-bytes", target: 1.5, lower: true, run: stateCost,
			about: "files of commits that carry the state; raw: of those that do not",
		},
		{
			name: "allocs-append", target: 1, lower: true, run: allocsAppend,
			about: "allocations of an append beyond nats.go's; raw: 30",
		},
		{
			name: "allocs-load", target: 1, lower: true, run: allocsLoad,
			about: "allocations of a load beyond nats.go's; raw: 30",
		},
		{
			name: "memory-1m", target: 1, lower: true, full: true, run: memory,
			about: "the server's heap for each of 1 M aggregates; raw: 400 B",
		},
		{
			name: "hot-aggregate", target: 20, run: hotAggregate(256), replicas: clusterSize, fsync: true,
			about: "256 clients, one aggregate, R3, fsync; raw: one writer's chain of PublishMsg",
		},
		{
			name: "hot-r1", target: 10, run: hotAggregate(256), fsync: true,
			about: "256 clients, one aggregate, R1, fsync; raw: one writer's chain of PublishMsg",
		},
		{
			name: "round-robin", target: 0.8, full: true, run: spread(false),
			about: "64 clients, 100 k aggregates in turn; raw: direct get and PublishMsg",
		},
		{
			name: "zipf", target: 0.8, full: true, run: spread(true),
			about: "64 clients, 100 k aggregates, a few of them most of the time; raw: PublishMsg",
		},
		{
			name: "load-1m", target: 0.67, full: true, run: loadRow(1_000_000, 100_000),
			about: "load, cold cache, 1 M commits of 100 k aggregates; raw: one direct get",
		},
	}
}

// options are the command line's.
type options struct {
	rows       string
	short      bool
	full       bool
	list       bool
	slices     int
	events     int
	dir        string
	cpuprofile string
	only       string
}

// run is the whole program.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.rows, "row", "", "rows to run, comma separated; default: all but the large ones")
	flags.BoolVar(&o.short, "short", false, "a small run that only shows that every row works")
	flags.BoolVar(&o.full, "full", false, "large rows, too, and catchup over 1 M events and 100 k keys")
	flags.BoolVar(&o.list, "list", false, "list the rows")
	flags.IntVar(&o.slices, "slices", 0, "slices of each side; default: the row's")
	flags.IntVar(&o.events, "events", 0, "most events of rebuild; default: 1 M")
	flags.StringVar(&o.dir, "dir", "", "directory for the servers' stores; default: a temporary one")
	flags.StringVar(&o.cpuprofile, "cpuprofile", "", "write a CPU profile of this process, with labels side=…")
	flags.StringVar(&o.only, "only", "", "ours or raw: run that side alone, for profiles")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.list {
		for _, r := range rows() {
			if _, err := fmt.Fprintf(out, "%-17s %s\n", r.name, r.about); err != nil {
				return err
			}
		}
		return nil
	}
	selected, err := selectRows(o)
	if err != nil {
		return err
	}
	if o.cpuprofile != "" {
		stop, err := profileTo(o.cpuprofile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	for _, r := range selected {
		if err := runRow(ctx, r, o, out); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// profileTo begins a CPU profile of this process.
func profileTo(name string) (stop func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func selectRows(o options) ([]row, error) {
	all := rows()
	if o.rows == "" {
		return slices.DeleteFunc(all, func(r row) bool { return r.full && !o.full }), nil
	}
	var selected []row
	for name := range strings.SplitSeq(o.rows, ",") {
		i := slices.IndexFunc(all, func(r row) bool { return r.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no row %q: see -list", name)
		}
		selected = append(selected, all[i])
	}
	return selected, nil
}

// runRow gives the row a server of its own.
func runRow(ctx context.Context, r row, o options, out io.Writer) (err error) {
	e, err := newEnv(ctx, o, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	res, err := r.run(ctx, e)
	if err != nil {
		return err
	}
	if o.only == "" {
		_, err = io.WriteString(out, res.lines(r))
	}
	return err
}
