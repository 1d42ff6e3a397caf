package projection

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// A partial rebuild has two steps. The first reads the store while the view goes
// on: it finds the keys and folds what there is of them into values of its own.
// The second begins a new session, as an owner that takes over does, so that nobody
// writes and nothing is remembered: it folds the little that came since, compares,
// and stores what differs, fenced as every write is. Then the view goes on from
// what the bucket holds.

// refold is a partial rebuild under way.
type refold struct {
	number string
	gen    int
	// skips is how many events were skipped on command when it began.
	skips int
	fo    *folder
	pos   uint64
	keys  []string
}

// rebuildKeys does what is left of a partial rebuild, before the owner follows the
// events: all of it when that is little, or when the view stands still anyway. It
// returns [errAgain] when it did something.
func (u *Updater) rebuildKeys(ctx context.Context, o *ownership, fl *flusher, still bool) error {
	asked := o.told.waiting()
	if o.building || asked == nil {
		return nil
	}
	r := u.refolded
	u.refolded = nil
	ready := r != nil && r.number == asked.Number && r.gen == o.gen && r.skips == len(o.told.Skips)
	if !ready {
		if u.scans() && !still {
			return nil // The session prepares it.
		}
		r = u.newRefold(o, asked)
	}
	lease := func(ctx context.Context) error { return fl.run(ctx, nil, nil) }
	outcome := *asked
	var bases map[string]base
	err := r.aside(ctx, u, lease, func(ctx context.Context) (err error) {
		if !ready {
			if err = u.begin(ctx, r, asked, o.cp.Position); err != nil {
				return err
			}
		}
		bases, err = u.last(ctx, o, fl, r)
		return err
	})
	if err == nil {
		outcome.Keys = len(r.keys)
		outcome.Changed, err = u.mend(ctx, fl, r, bases)
	}
	if err := outcome.failed(err); err != nil {
		return err
	}
	return u.record(ctx, &outcome)
}

// failed keeps an error that says that the rebuild cannot be done, and returns
// any other: then it is tried again.
func (r *rebuild) failed(err error) error {
	partial, refused := errors.AsType[*PartialError](err)
	_, value := errors.AsType[*ValueError](err)
	switch {
	case refused:
		r.Error = partial.Reason
	case errors.Is(err, ErrFold), value:
		r.Error = err.Error()
	}
	if r.Error != "" {
		return nil
	}
	return err
}

// record says that a partial rebuild has ended.
func (u *Updater) record(ctx context.Context, outcome *rebuild) error {
	ctx, cancel := context.WithTimeout(ctx, max(u.cfg.LeaseTTL, 5*attemptTimeout))
	defer cancel()
	outcome.Done = time.Now().UTC()
	err := u.b.change(ctx, func(c *control) error {
		if now := c.rebuild(outcome.Number); now != nil {
			*now = *outcome
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.log.Warn("view has rebuilt an aggregate's keys", "type", outcome.Type, "id", outcome.ID, "reason", outcome.Reason,
		"keys", outcome.Keys, "changed", outcome.Changed, "error", outcome.Error)
	u.done("rebuilt")
	return errAgain
}

// prepare takes the first step of a partial rebuild, beside a session, which it
// ends.
func (u *Updater) prepare(ctx context.Context, o *ownership) error {
	asked := o.told.waiting()
	for wait := newBackoff(50*time.Millisecond, 5*time.Second); ; {
		r := u.newRefold(o, asked)
		err := r.aside(ctx, u, nil, func(ctx context.Context) error { return u.begin(ctx, r, asked, u.position.Load()) })
		outcome := *asked
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			u.refolded = r
			u.done("refolded")
			return errAgain
		case outcome.failed(err) == nil:
			if err = u.record(ctx, &outcome); errors.Is(err, errAgain) {
				return err
			}
		}
		u.log.Warn("view tries again to rebuild an aggregate's keys", "error", err)
		if err := wait.next(ctx); err != nil {
			return err
		}
	}
}

func (u *Updater) newRefold(o *ownership, asked *rebuild) *refold {
	return &refold{
		number: asked.Number, gen: o.gen, skips: len(o.told.Skips),
		fo: &folder{
			core: u.core, cfg: &u.cfg, log: u.log.With("rebuilding", asked.Type+" "+asked.ID), store: u.store,
			decoder: u.decoder, b: u.b, gen: o.gen, cache: newCache(0, true), page: newPage(0), told: o.told,
			skip: u.cfg.OnError == SkipOnError, only: map[string]struct{}{},
		},
	}
}

// errDone ends what goes on beside work that is done.
var errDone = errors.New("done")

// aside does work that calls folds, beside a watchdog and, when there is one, the
// renewal of the lease.
func (r *refold) aside(ctx context.Context, u *Updater, lease, work func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := work(ctx)
		if err == nil {
			err = errDone
		}
		cancel(err)
	}()
	var wg sync.WaitGroup
	wg.Go(func() { cancel(r.fo.dog.run(ctx, u.core.view, u.cfg.FoldTimeout)) })
	if lease != nil {
		wg.Go(func() { cancel(lease(ctx)) })
	}
	wg.Wait()
	err := context.Cause(ctx)
	if errors.Is(err, ErrFoldTimeout) {
		return err // Its goroutine ends when the fold does: what it works on is its own.
	}
	<-ended
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// scans tells whether events of any aggregate may touch a key.
func (u *Updater) scans() bool {
	for _, r := range u.core.routes {
		if r.keys != nil {
			return true
		}
	}
	return false
}

// begin finds the keys that an aggregate's events have touched, up to a sequence,
// and folds them that far.
func (u *Updater) begin(ctx context.Context, r *refold, asked *rebuild, upTo uint64) error {
	if u.core.kind != kindKeyed {
		return asked.refusal(u.core.view, lookupWhole)
	}
	if types := u.core.types(); !slices.Contains(types, asked.Type) {
		return asked.refusal(u.core.view, fmt.Sprintf("the view follows %v only", types))
	}
	none := true
	for m, err := range u.store.Messages(ctx, asked.Type, asked.ID, jetstream.Range{}) {
		if invalid, ok := errors.AsType[*jetstream.InvalidError](err); ok {
			return asked.refusal(u.core.view, invalid.Error())
		}
		if err != nil {
			return err
		}
		if m.Sequence > upTo {
			break
		}
		none = false
		if err := r.touched(u, &m); err != nil {
			return err
		}
		if len(r.fo.only) > maxRebuildKeys {
			return asked.refusal(u.core.view, fmt.Sprintf(
				"its events have touched more than %d keys: rebuild the view with Admin.Rebuild", maxRebuildKeys))
		}
	}
	if none {
		return asked.refusal(u.core.view, "the view has seen no such aggregate")
	}
	for key := range r.fo.only {
		r.keys = append(r.keys, key)
	}
	return r.advance(ctx, u, upTo)
}

// touched adds the keys that a commit's events name.
func (r *refold) touched(u *Updater, m *wire.Message) error {
	if u.ignorable(m) {
		return nil
	}
	it := itemOf(m)
	events, err := r.fo.events(&it)
	if err != nil {
		return err
	}
	for i := range events {
		rec := &events[i]
		route := u.core.routeOf(rec.Event)
		if route == nil || r.fo.leave(m.Sequence, rec.EventID) {
			continue
		}
		keys := []string{rec.ID}
		if route.keys != nil {
			keys, err = r.fo.keys(route, rec, m.Sequence)
		}
		if err != nil && r.fo.skip {
			continue
		}
		if err != nil {
			return err
		}
		for _, key := range keys {
			r.fo.only[key] = struct{}{}
		}
	}
	return nil
}

func itemOf(m *wire.Message) item {
	it := item{bytes: len(m.Data)}
	if it.commit, it.err = jetstream.Decode(m); it.err != nil {
		it.commit = &jetstream.Commit{Head: jetstream.Head{Sequence: m.Sequence}}
	}
	return it
}

// advance folds the keys up to a sequence.
func (r *refold) advance(ctx context.Context, u *Updater, to uint64) error {
	if to <= r.pos || len(r.keys) == 0 {
		r.pos = max(r.pos, to)
		return nil
	}
	items := make([]item, 0, chunkSize)
	fold := func() error {
		err := r.fo.fold(ctx, items, r.fo.skip)
		items = items[:0]
		return err
	}
	for m, err := range r.messages(ctx, u) {
		if err != nil {
			return err
		}
		if m.Sequence > to {
			break
		}
		if u.ignorable(&m) {
			continue
		}
		if items = append(items, itemOf(&m)); len(items) == chunkSize {
			if err := fold(); err != nil {
				return err
			}
		}
	}
	if err := fold(); err != nil {
		return err
	}
	r.pos = to
	return nil
}

// messages are those after what was folded that may touch the keys, in order.
func (r *refold) messages(ctx context.Context, u *Updater) iter.Seq2[jetstream.Message, error] {
	types, after := u.core.types(), jetstream.Range{After: r.pos}
	if !u.scans() && len(types) == 1 {
		return u.store.Messages(ctx, types[0], r.keys[0], after)
	}
	if !u.scans() {
		return r.merged(ctx, u, types, after)
	}
	if len(types) == 1 {
		return u.store.Messages(ctx, types[0], "", after)
	}
	return u.store.Messages(ctx, "", "", after)
}

// merged are the messages of aggregates of several types with the same id.
func (r *refold) merged(
	ctx context.Context, u *Updater, types []string, after jetstream.Range,
) iter.Seq2[jetstream.Message, error] {
	type source struct {
		m    jetstream.Message
		err  error
		more bool
		next func() (jetstream.Message, error, bool)
	}
	return func(yield func(jetstream.Message, error) bool) {
		sources := make([]source, len(types))
		for i, typ := range types {
			next, stop := iter.Pull2(u.store.Messages(ctx, typ, r.keys[0], after))
			defer stop()
			sources[i].next = next
			sources[i].m, sources[i].err, sources[i].more = next()
		}
		for {
			var first *source
			for i := range sources {
				s := &sources[i]
				if s.more && (first == nil || s.err != nil || first.err == nil && s.m.Sequence < first.m.Sequence) {
					first = s
				}
			}
			if first == nil || !yield(first.m, first.err) || first.err != nil {
				return
			}
			first.m, first.err, first.more = first.next()
		}
	}
}
