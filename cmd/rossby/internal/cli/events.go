package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
)

func (a *app) eventsCommands() *cobra.Command {
	return a.group("events", "Events as they are stored: follow them, show a commit", "  rossby events tail",
		a.eventsTail(), a.eventsShow())
}

// tail is what events tail looks for.
type tail struct {
	typ, id  string
	events   []string
	last     int
	since    time.Duration
	noFollow bool
}

func (a *app) eventsTail() *cobra.Command {
	var t tail
	const lastDefault = 10
	c := a.command("tail", "Shows the newest events, then each as it is stored",
		"  rossby events tail --store bank --type account\n"+
			"  rossby events tail --event debited --since 1h --no-follow --json", noArgs,
		func(ctx context.Context, _ []string) error {
			switch {
			case t.id != "" && t.typ == "":
				return &usageError{"--id needs --type", nil}
			case t.last < 0 || t.since < 0:
				return &usageError{"--last and --since must not be negative", nil}
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			err = a.tail(ctx, store, t)
			if ctx.Err() != nil && errors.Is(err, context.Canceled) && !t.noFollow {
				return nil // that is how it ends
			}
			return err
		})
	c.Long = "Shows the newest events, then each as it is stored, until it is interrupted. With --json each is a line."
	f := c.Flags()
	f.StringVar(&t.typ, "type", "", "only aggregates of this `type`")
	f.StringVar(&t.id, "id", "", "only the aggregate with this `id`, with --type")
	f.StringSliceVar(&t.events, "event", nil, "only events with these `names`")
	f.IntVarP(&t.last, "last", "n", lastDefault, "`number` of events to begin with")
	f.DurationVar(&t.since, "since", 0, "begin with the events of so `long`, instead of --last")
	f.BoolVar(&t.noFollow, "no-follow", false, "end with the newest event")
	return c
}

func (a *app) tail(ctx context.Context, store *jetstream.Store, t tail) error {
	to, err := store.LastSequence(ctx)
	if err != nil {
		return err
	}
	// The end is fixed before the beginning is read, so nothing comes twice or is left
	// out between the two.
	if t.since > 0 {
		err = a.tailSince(ctx, store, t, to)
	} else {
		err = a.tailLast(ctx, store, t, to)
	}
	if err != nil || t.noFollow {
		return err
	}
	return a.follow(ctx, store, t, to)
}

// read is a read of the store, a type or an aggregate.
func (t *tail) read(
	ctx context.Context, store *jetstream.Store, r jetstream.Range,
) iter.Seq2[*jetstream.Commit, error] {
	r.Events = t.events
	if t.id != "" {
		return store.History(ctx, t.typ, t.id, r)
	}
	return store.Scan(ctx, t.typ, r)
}

func (t *tail) wants(e *eventRow) bool {
	return len(t.events) == 0 || slices.Contains(t.events, e.Name)
}

func (a *app) tailSince(ctx context.Context, store *jetstream.Store, t tail, to uint64) error {
	for c, err := range t.read(ctx, store, jetstream.Range{Since: time.Now().Add(-t.since)}) {
		if err != nil {
			return err
		}
		if c.Sequence > to {
			break
		}
		if err := a.printEvents(eventsOf(store, c), t.wants); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) tailLast(ctx context.Context, store *jetstream.Store, t tail, to uint64) error {
	var rows []eventRow // the newest first
	if t.last > 0 {
		for c, err := range t.read(ctx, store, jetstream.Range{Backwards: true}) {
			if err != nil {
				return err
			}
			if c.Sequence > to {
				continue
			}
			of := eventsOf(store, c)
			slices.Reverse(of)
			for i := range of {
				if t.wants(&of[i]) {
					rows = append(rows, of[i])
				}
			}
			if len(rows) >= t.last {
				break
			}
		}
	}
	rows = rows[:min(len(rows), t.last)]
	slices.Reverse(rows)
	return a.printEvents(rows, t.wants)
}

// follow prints what is stored after a sequence.
func (a *app) follow(ctx context.Context, store *jetstream.Store, t tail, after uint64) error {
	js, err := natsjs.New(store.Conn())
	if err != nil {
		return err
	}
	filter := store.SubjectFilter(t.typ)
	if t.id != "" {
		if filter, err = store.Subject(t.typ, t.id); err != nil {
			return err
		}
	}
	cons, err := js.OrderedConsumer(ctx, store.Name(), natsjs.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	})
	if err != nil {
		return fmt.Errorf("follow store %q: %w", store.Name(), err)
	}
	messages, err := cons.Messages()
	if err != nil {
		return fmt.Errorf("follow store %q: %w", store.Name(), err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		m := jetstream.Message{
			Subject: msg.Subject(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: msg.Headers(),
			Data: msg.Data(),
		}
		if isInternal(store, m.Subject) {
			continue
		}
		c, err := jetstream.Decode(&m)
		if err != nil {
			return err
		}
		if err := a.printEvents(eventsOf(store, c), t.wants); err != nil {
			return err
		}
	}
}

// isInternal tells messages that Rossby keeps in the store for itself.
func isInternal(store *jetstream.Store, subject string) bool {
	return strings.HasPrefix(subject, store.Name()+".event._")
}

func (a *app) eventsShow() *cobra.Command {
	c := a.command("show SEQUENCE|POSITION|ID", "Shows a commit: who decided what, and its events",
		"  rossby events show 42 --store bank\n  rossby events show 'rJ3bnO2xQ0aG1k9c.0'", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error {
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			c, err := a.find(ctx, store, args[0])
			if err != nil {
				return err
			}
			row := commitOf(store, c)
			return a.show(row, row.print)
		})
	c.Long = "Shows a commit: who decided what, and its events. By an event's or a commit's id it is looked for from\n" +
		"the store's end on, which takes its time in a large store; by its stream sequence or position it is read at once."
	return c
}

// find finds the commit with a sequence, a position, a commit's or an event's id.
func (a *app) find(ctx context.Context, store *jetstream.Store, what string) (*jetstream.Commit, error) {
	if seq, err := strconv.ParseUint(what, 10, 64); err == nil {
		return commitAt(ctx, store, seq)
	}
	if p, err := jetstream.ParsePosition(what); err == nil {
		if seq, err := store.Sequence(p); err == nil {
			return commitAt(ctx, store, seq)
		}
	}
	commit, _, _ := strings.Cut(what, ".")
	p := a.progress("search")
	defer p.end()
	last := uint64(0)
	for c, err := range store.Scan(ctx, "", jetstream.Range{Backwards: true}) {
		if err != nil {
			return nil, err
		}
		last = max(last, c.Sequence)
		p.at(last-c.Sequence, last)
		if c.CommitID == commit {
			return c, nil
		}
	}
	return nil, fmt.Errorf("a commit or an event %q in store %q: %w", what, store.Name(), errNotFound)
}

// commitAt is the commit with a stream sequence.
func commitAt(ctx context.Context, store *jetstream.Store, seq uint64) (*jetstream.Commit, error) {
	last, err := store.LastSequence(ctx)
	if err != nil {
		return nil, err
	}
	if seq > 0 && seq <= last {
		for c, err := range store.Scan(ctx, "", jetstream.Range{After: seq - 1}) {
			if err != nil {
				return nil, err
			}
			if c.Sequence == seq {
				return c, nil
			}
			break
		}
	}
	return nil, fmt.Errorf("a commit with sequence %d in store %q, which ends with %d: %w",
		seq, store.Name(), last, errNotFound)
}

func (a *app) printEvents(rows []eventRow, wants func(*eventRow) bool) error {
	for i := range rows {
		if !wants(&rows[i]) {
			continue
		}
		if err := a.line(rows[i], rows[i].print); err != nil {
			return err
		}
	}
	return nil
}

// print writes the event as a line.
func (e *eventRow) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s  #%d  %s/%s v%d  %s  %s\n", stamp(e.StoredAt), e.Sequence, e.Type, e.ID, e.Version, e.Name,
		e.dataText())
}
