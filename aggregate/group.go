package aggregate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/jetstream"
)

// Bounds of a group beside those of [RepositoryConfig].
const (
	// namesLimit bounds the names of a group's events: they travel in one header.
	namesLimit = 16 << 10
	// decisionOverhead and eventOverhead are about what they take beside their data.
	decisionOverhead = 160
	eventOverhead    = 32
)

// alone works on the command that found its aggregate free, in its caller's
// goroutine and context, and leaves those who came meanwhile to another.
func (r *core) alone(id string, t *ticket) {
	defer func() {
		if next := r.lanes.next(id, r.cfg.GroupLimit); next != nil {
			go r.work(id, next)
		}
	}()
	r.run(t.ctx, id, []*ticket{t})
}

// work decides those who wait for an aggregate, group by group, until nobody does.
func (r *core) work(id string, tickets []*ticket) {
	for tickets != nil {
		ctx, cancel := together(tickets)
		r.lanes.back(id, r.run(ctx, id, tickets))
		cancel()
		tickets = r.lanes.next(id, r.cfg.GroupLimit)
	}
}

// group is what commands led to, before it is stored: decided one after the other,
// each on the state as those before leave it.
type group struct {
	base *view
	// work is the base with the group's events applied.
	work      view
	members   []member
	decisions []jetstream.Decision
	// keys finds the members that are stored under a command id or a trigger.
	keys map[key]int
	// reserve and release are the keys of a group's only command.
	reserve, release []jetstream.Key
	trace            string
	events           int
	bytes, names     int
	// A command alone needs room for one.
	member1   [1]member
	decision1 [1]jetstream.Decision
	scratch   decided
}

func newGroup(v *view, commands int) *group {
	g := &group{base: v, work: *v}
	if commands == 1 {
		g.members, g.decisions = g.member1[:0], g.decision1[:0]
	} else {
		g.members, g.decisions = make([]member, 0, commands), make([]jetstream.Decision, 0, commands)
	}
	return g
}

// member is one command of a group whose outcome hangs on the group's commit.
type member struct {
	ticket  *ticket
	refusal error
	// version is the aggregate's after the command.
	version uint64
	// place is how many decisions of the group the member's outcome rests on, its
	// own among them.
	place    int
	recorded []jetstream.Recorded
	// same is the member, from 1, that is the same command: its outcome is both's.
	same int
}

// run decides commands, in order, and stores what they led to as one commit; all
// of them again, in the same order, when another writer came first. At its end
// every ticket is finished but for the rest, for which there was no room.
func (r *core) run(ctx context.Context, id string, tickets []*ticket) (rest []*ticket) {
	defer func() {
		if p := recover(); p != nil { // a type of the user's that encodes itself
			finishAll(tickets, fmt.Errorf("%s %q: %w", r.typeName, id, panicked("its code", p)))
		}
	}()
	v, err := r.load(ctx, id)
	if err != nil {
		finishAll(tickets, err)
		return nil
	}
	r.bounds(id, tickets, v)
	for attempt := 1; ; {
		g := newGroup(v, len(tickets))
		n := r.decideAll(ctx, id, g, tickets, attempt)
		tickets, rest = tickets[:n], slices.Concat(tickets[n:], rest)
		switch next := r.settle(ctx, id, g, attempt); next {
		case nil:
			return rest
		case v: // nobody came first
		default:
			v = next
			attempt++
		}
	}
}

// bounds works out for each command how far back it can have been handled already.
// Receipts are made side by side.
func (r *core) bounds(id string, tickets []*ticket, v *view) {
	var wg sync.WaitGroup
	for _, t := range tickets {
		if t.left() || t.bounded {
			continue
		}
		find := func() {
			var err error
			if t.bound, err = r.bound(t.ctx, id, t.req.call, v); err != nil {
				t.finish(Result{}, err)
			}
			t.bounded = true
		}
		if len(tickets) > 1 && t.req.call.needsReceipt() {
			wg.Go(find)
		} else {
			find()
		}
	}
	wg.Wait()
}

// decideAll decides the commands one after the other, and returns how many there
// was room for.
func (r *core) decideAll(ctx context.Context, id string, g *group, tickets []*ticket, attempt int) int {
	for i, t := range tickets {
		if !t.left() && !r.decideOne(ctx, id, g, t, attempt) {
			return i
		}
	}
	return len(tickets)
}

// decideOne adds a command to the group, or finishes it when what comes of it does
// not hang on the group. False tells that there is no room.
func (r *core) decideOne(ctx context.Context, id string, g *group, t *ticket, attempt int) (fits bool) {
	defer func() {
		if p := recover(); p != nil {
			t.finish(Result{}, fmt.Errorf("%s %q: command %q: %w", r.typeName, id, t.req.name, panicked("its code", p)))
			fits = true
		}
	}()
	if g.keyed() {
		return false
	}
	c := t.req.call
	k := c.key()
	if i, ok := g.keys[k]; ok {
		r.counters.duplicates.Add(1)
		if first := g.members[i].ticket.req.call; c.differs(first.hash) {
			t.finish(Result{}, r.otherPayload(id, c))
			return true
		}
		g.members = append(g.members, member{ticket: t, same: i + 1, place: g.members[i].place})
		return true
	}
	if found, res, err := r.handled(ctx, id, c, g.base, t.bound); found || err != nil {
		if found {
			r.counters.duplicates.Add(1)
		}
		t.finish(res, err)
		return true
	}
	if attempt > 1 {
		r.counters.retries.Add(1)
	}
	d := &g.scratch
	*d = decided{call: c}
	if t.taken != nil && t.takenAt == g.base.head {
		d.now, d.refusal = jetstream.MicroTime(r.now()), t.taken
	} else if err := r.decide(id, t.req, &g.work, attempt, d); err != nil {
		t.finish(Result{}, err)
		return true
	}
	m := member{ticket: t, refusal: d.refusal, version: g.work.head.Version, place: len(g.decisions)}
	if len(d.Events) > 0 || c.trigger != nil || c.recordRejections || r.cfg.RecordRejections {
		var err error
		if fits, err = r.add(id, g, &m, d, k); err != nil {
			t.finish(Result{}, err)
			return true
		}
		if !fits {
			return false
		}
	}
	g.members = append(g.members, m)
	return true
}

// add adds a decision to those that the group will store, and its events to the
// state.
func (r *core) add(id string, g *group, m *member, d *decided, k key) (fits bool, err error) {
	c := d.call
	dec := c.decision(d.now)
	events, reserve, release, err := keyChanges(d.Events)
	switch {
	case err != nil:
		return false, fmt.Errorf("%s %q: command %q: %w", r.typeName, id, d.Name, err)
	case len(reserve)+len(release) > 0 && len(g.members) > 0:
		return false, nil // alone, so that it alone fails when a key is taken
	case d.refusal != nil:
		dec.Outcome = jetstream.OutcomeRejected
		dec.Code, dec.Reason = refusalCode(d.refusal)
	case len(events) == 0:
		dec.Outcome = jetstream.OutcomeNone
	default:
		dec.Events = make([]jetstream.EventData, 0, len(events))
	}
	size, names := decisionOverhead+len(dec.Reason), 0
	for key, value := range dec.Metadata {
		size += len(key) + len(value)
	}
	for _, e := range events {
		data, err := r.def.schema.Encode(e, r.store.Codec())
		if err != nil {
			return false, fmt.Errorf("%s %q: command %q: %w", r.typeName, id, d.Name, err)
		}
		dec.Events = append(dec.Events, data)
		size += len(data.Data) + eventOverhead
		names += len(data.Name) + 1
	}
	if len(g.decisions) > 0 && (g.bytes+size > r.cfg.GroupBytes || g.names+names > namesLimit) {
		return false, nil
	}
	state, recorded, err := r.fold(id, &g.work, &dec, c.traceParent, g.events)
	if err != nil {
		return false, err
	}
	if len(g.decisions) == 0 {
		g.trace = c.traceParent // travels in a header
	} else {
		dec.TraceParent = c.traceParent
	}
	g.reserve, g.release = reserve, release
	g.bytes, g.names = g.bytes+size, g.names+names
	g.decisions = append(g.decisions, dec)
	g.events += len(dec.Events)
	g.work.state = state
	g.work.head.Version += uint64(len(dec.Events))
	m.version, m.place, m.recorded = g.work.head.Version, len(g.decisions), recorded
	if k != (key{}) {
		if g.keys == nil {
			g.keys = map[key]int{}
		}
		g.keys[k] = len(g.members)
	}
	return true, nil
}

// keyed tells a group whose only command changes keys.
func (g *group) keyed() bool { return len(g.reserve)+len(g.release) > 0 }

// settle stores what a group decided and finishes its members. It returns the view
// on which they have to be decided again, if they have.
func (r *core) settle(ctx context.Context, id string, g *group, attempt int) *view {
	if len(g.members) == 0 {
		return nil
	}
	if len(g.decisions) == 0 {
		fresh, same, err := r.confirm(ctx, id, g.base)
		switch {
		case err != nil:
			g.fail(err)
		case same:
			g.finish(r, id, g.base.head)
		case attempt < r.cfg.MaxAttempts:
			return fresh
		default:
			g.fail(fmt.Errorf("%s %q: %w", r.typeName, id, ErrContended))
		}
		return nil
	}
	if !g.send() {
		return g.base // somebody left: without that command
	}
	head, err := r.commit(ctx, id, g)
	if err == nil {
		g.finish(r, id, head)
		return nil
	}
	if conflict, ok := errors.AsType[*jetstream.ConflictError](err); ok {
		g.open()
		r.counters.conflicts.Add(1)
		if attempt >= r.cfg.MaxAttempts {
			g.fail(fmt.Errorf("%s %q: %w: %w", r.typeName, id, ErrContended, conflict))
			return nil
		}
		fresh, err := r.reload(ctx, id, attempt)
		if err != nil {
			g.fail(err)
		}
		return fresh
	}
	if taken, ok := errors.AsType[*jetstream.KeyTakenError](err); ok {
		// The refusal is recorded, or confirmed, like a handler's.
		g.open()
		t := g.members[0].ticket
		t.taken, t.takenAt = refuseKey(taken), g.base.head
		return g.base
	}
	if len(g.members) > 1 && refused(err) {
		// What is too much together may do one by one.
		g.open()
		for i := range g.members {
			r.run(ctx, id, []*ticket{g.members[i].ticket})
		}
		return nil
	}
	g.fail(err)
	return nil
}

// refused tells errors of an append that proves that nothing was stored, and that
// may be due to its size.
func refused(err error) bool {
	if _, ok := errors.AsType[*jetstream.RefusedError](err); ok {
		return true
	}
	_, ok := errors.AsType[*jetstream.InvalidError](err)
	return ok
}

// reload waits a moment that grows with the attempts, so that writers who keep
// meeting part, and asks the leader.
func (r *core) reload(ctx context.Context, id string, attempt int) (*view, error) {
	t := time.NewTimer(rand.N(time.Duration(min(attempt, 10)) * 2 * time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%s %q: %w: %w", r.typeName, id, jetstream.ErrUnavailable, context.Cause(ctx))
	case <-t.C:
	}
	return r.loadFresh(ctx, id, jetstream.Leader)
}

// confirm asks the leader whether the aggregate still is as it was decided upon:
// decisions that write nothing are not guarded by an expectation.
func (r *core) confirm(ctx context.Context, id string, v *view) (fresh *view, same bool, err error) {
	if v.leader || mutate.On(mutate.Unconfirmed) {
		return v, true, nil
	}
	if fresh, err = r.loadFresh(ctx, id, jetstream.Leader); err != nil {
		return nil, false, err
	}
	return fresh, fresh.head == v.head, nil
}

// commit appends the group's decisions and what they do to the state.
func (r *core) commit(ctx context.Context, id string, g *group) (jetstream.Head, error) {
	w := jetstream.Write{
		Type: r.typeName, ID: id, After: g.base.head, Decisions: g.decisions, TraceParent: g.trace,
		Reserve: g.reserve, Release: g.release,
	}
	if r.travels(g.work.state) {
		w.State = &jetstream.State{Fingerprint: r.def.fingerprint, Codec: r.store.Codec(), Data: g.work.state}
	}
	reconnects := r.reconnects()
	var span trace.Span
	if r.tracer != nil {
		ctx, span = r.traceCommit(ctx, &w, g.events)
	}
	began := r.took.append.Now()
	head, err := r.store.Append(ctx, w)
	r.took.appendedIn(ctx, began, err)
	if span != nil {
		endCommit(span, head, err)
	}
	switch {
	case err == nil:
		r.counters.committed(len(g.decisions))
		//nolint:contextcheck // what it starts does not wait, and outlives the request
		r.appended(id, g.base, head, g.work.state, g.decisions, reconnects)
		return head, nil
	case errors.Is(err, jetstream.ErrUnknownOutcome) || errors.Is(err, jetstream.ErrStoreWentBack):
		r.cache.remove(id) // what is stored is no longer known
	default:
		if _, conflict := errors.AsType[*jetstream.ConflictError](err); conflict {
			if e := r.cached(id, reconnects); e != nil {
				e.outdated(g.base.head.Sequence)
			}
		}
	}
	return jetstream.Head{}, err
}

// send marks that all members are on their way. False tells that one of them has
// left.
func (g *group) send() bool {
	for i := range g.members {
		if !g.members[i].ticket.sent() {
			g.open()
			return false
		}
	}
	return true
}

func (g *group) open() {
	for i := range g.members {
		g.members[i].ticket.open()
	}
}

func (g *group) fail(err error) {
	for i := range g.members {
		g.members[i].ticket.finish(Result{}, err)
	}
}

// finish tells every member what came of it, given the aggregate's last commit.
func (g *group) finish(r *core, id string, head jetstream.Head) {
	stored, before := r.store.Position(head.Sequence), r.store.Position(g.base.head.Sequence)
	for i := range g.members {
		m := &g.members[i]
		if m.same > 0 {
			first := g.members[m.same-1].ticket
			res := first.res
			res.Duplicate, res.Events = true, slices.Clone(res.Events)
			m.ticket.finish(res, first.err)
			continue
		}
		res := Result{ID: id, Version: m.version, Position: before, Events: m.recorded}
		if m.place > 0 {
			res.Position = stored
		}
		for i := range m.recorded {
			m.recorded[i].Position = res.Position
			m.recorded[i].EventID = head.CommitID + m.recorded[i].EventID
		}
		m.ticket.finish(res, m.refusal)
	}
}

func finishAll(tickets []*ticket, err error) {
	for _, t := range tickets {
		t.finish(Result{}, err)
	}
}

// key is what the call's effect is known by.
func (c *call) key() key {
	switch {
	case c.trigger != nil:
		return key{trigger: c.trigger.key()}
	default:
		return key{command: c.commandID}
	}
}

// differs tells whether the call is another than the one with the hash.
func (c *call) differs(hash []byte) bool {
	return c.trigger == nil && len(c.hash) > 0 && len(hash) > 0 && !bytes.Equal(c.hash, hash)
}
