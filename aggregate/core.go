package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/rossby-go/rossby/jetstream"
)

// core is a repository without the type of its state, so that services and
// reactors can hold repositories of several types.
type core struct {
	def      *definition
	typeName string
	store    eventStore
	cfg      RepositoryConfig
	decoder  *jetstream.Decoder
	cache    *lru.Cache[string, *entry]
	receipts *receipts
	turns    turns
	newState func() any
	zero     []byte
	// now is the clock of decisions.
	now func() time.Time
}

func newCore(
	store eventStore, def *definition, typeName string, cfg RepositoryConfig, newState func() any,
) (*core, error) {
	decoder, err := jetstream.NewDecoder(jetstream.StopOnUnknown, def.schema)
	if err != nil {
		return nil, err
	}
	cache, err := lru.New[string, *entry](cfg.CacheSize)
	if err != nil {
		return nil, err
	}
	zero, err := store.Codec().Encode(newState())
	if err != nil {
		return nil, fmt.Errorf("aggregate type %q: the state does not encode: %w", typeName, err)
	}
	if err := store.Codec().Decode(zero, newState()); err != nil {
		return nil, fmt.Errorf("aggregate type %q: the state does not survive its own encoding: %w", typeName, err)
	}
	return &core{
		def: def, typeName: typeName, store: store, cfg: cfg, decoder: decoder, cache: cache,
		receipts: newReceipts(store), newState: newState, zero: zero, now: time.Now,
	}, nil
}

// request is one command on its way through the core.
type request struct {
	call   *call
	name   string
	create bool
	decide decideFunc
	// command is decided upon; compute, unless nil, makes it from the state.
	command any
	compute func(state any, d Decision) (any, error)
}

func (r *core) executeCommand(ctx context.Context, id string, command any, c *call) (Result, error) {
	h, command, err := r.def.lookup(command)
	if err != nil {
		return Result{}, err
	}
	if c.commandID != "" && c.hash == nil {
		body, err := jetstream.JSON.Encode(command)
		if err != nil {
			return Result{}, &jetstream.InvalidError{Field: "command", Value: h.name, Reason: "does not encode: " + err.Error()}
		}
		c.hash = bodyHash(h.name, body)
	}
	return r.execute(ctx, id, request{call: c, name: h.name, create: h.create, decide: h.decide, command: command})
}

// bodyHash identifies a request: its name and its bytes as they were sent.
func bodyHash(name string, body []byte) []byte {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(body)
	return h.Sum(nil)[:8]
}

// commandSkew is how far the clocks of clients and servers may differ.
const commandSkew = time.Minute

// newAggregateID derives an id from what identifies the call, so that a repeated
// call makes the same aggregate.
func (c *call) newAggregateID() string {
	switch {
	case c.trigger != nil:
		return derivedID(c.trigger.Subscriber + "\n" + c.trigger.EventID + "\n" + c.trigger.Step)
	case c.commandID != "":
		return derivedID(c.commandID)
	default:
		return jetstream.NewID()
	}
}

func derivedID(text string) string {
	if _, ok := jetstream.CommandIDTime(text); ok {
		_, id, _ := strings.Cut(text, "-")
		return id
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:13])
}

// execute runs a request until it is decided: load, look whether it was handled
// before, decide, append; again when another writer came first.
func (r *core) execute(ctx context.Context, id string, req request) (Result, error) {
	if err := errors.Join(jetstream.ValidateID(id), req.call.validate(r.now())); err != nil {
		return Result{}, err
	}
	if err := r.turns.take(ctx, id); err != nil {
		return Result{}, fmt.Errorf("%s %q: %w: another command runs: %w", r.typeName, id, jetstream.ErrUnavailable, err)
	}
	defer r.turns.give(id)
	v, err := r.load(ctx, id)
	if err != nil {
		return Result{}, err
	}
	bound, err := r.bound(ctx, id, req.call, v)
	if err != nil {
		return Result{}, err
	}
	for attempt := 1; ; attempt++ {
		if found, res, err := r.handled(ctx, id, req.call, v, bound); found || err != nil {
			return res, err
		}
		events, now, refusal, err := r.decide(id, req, v)
		if err != nil {
			return Result{}, err
		}
		if len(events) == 0 && req.call.trigger == nil {
			fresh, same, err := r.confirm(ctx, id, v)
			if err != nil {
				return Result{}, err
			}
			if same {
				return r.unchanged(id, v), refusal
			}
			if v = fresh; attempt < r.cfg.MaxAttempts {
				continue
			}
			return Result{}, fmt.Errorf("%s %q: %w", r.typeName, id, ErrContended)
		}
		res, err := r.commit(ctx, id, req, v, events, now, refusal)
		var conflict *jetstream.ConflictError
		if !errors.As(err, &conflict) {
			return res, err
		}
		if attempt == r.cfg.MaxAttempts {
			return Result{}, fmt.Errorf("%s %q: %w: %w", r.typeName, id, ErrContended, conflict)
		}
		if v, err = r.reload(ctx, id, attempt); err != nil {
			return Result{}, err
		}
	}
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

// decide runs the handler. A refusal is what the caller gets as the command's
// outcome; err is a fault, which decides nothing.
func (r *core) decide(id string, req request, v *view) (events []any, now time.Time, refusal, err error) {
	now = jetstream.MicroTime(r.now())
	exists := v.head.Version > 0
	if want := req.call.expectVersion; want != nil && *want != v.head.Version {
		return nil, now, &VersionError{Type: r.typeName, ID: id, Expected: *want, Actual: v.head.Version}, nil
	}
	if req.create && exists {
		return nil, now, fmt.Errorf("%s %q: %w", r.typeName, id, ErrExists), nil
	}
	if !req.create && !exists {
		return nil, now, fmt.Errorf("%s %q: %w", r.typeName, id, ErrNotFound), nil
	}
	d := Decision{
		ID: id, Version: v.head.Version, CommandID: req.call.commandID, Correlation: req.call.correlation,
		Causation: req.call.causation, Metadata: maps.Clone(req.call.metadata), now: now,
	}
	events, err = r.call(id, req, v, d)
	switch {
	case err == nil:
		return events, now, nil, nil
	case errors.Is(err, ErrRejected):
		if fault := checkRefusal(err); fault != nil {
			return nil, now, nil, fmt.Errorf("%s %q: command %q: %w", r.typeName, id, req.name, fault)
		}
		return nil, now, err, nil
	case errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound):
		return nil, now, err, nil
	}
	return nil, now, nil, fmt.Errorf("%s %q: command %q: %w", r.typeName, id, req.name, err)
}

// checkRefusal refuses refusals that would not be the same when they are read
// back.
func checkRefusal(err error) error {
	var rejected *RejectedError
	if !errors.As(err, &rejected) {
		return fmt.Errorf("the handler's %w: a refusal is made with aggregate.Reject", err)
	}
	if err := validText("rejection code", rejected.Code, maxCode); err != nil {
		return err
	}
	if rejected.Code == "" || rejected.Code[0] == '_' {
		return &jetstream.InvalidError{Field: "rejection code", Value: rejected.Code, Reason: "is empty or begins with '_'"}
	}
	return nil
}

// call runs the user's code, each function on a copy of the state of its own.
func (r *core) call(id string, req request, v *view, d Decision) (events []any, err error) {
	defer func() {
		if p := recover(); p != nil {
			events, err = nil, fmt.Errorf("the handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if req.compute != nil {
		state, err := r.decodeState(id, v.state)
		if err != nil {
			return nil, err
		}
		command, err := req.compute(state, d)
		if err != nil || command == nil {
			return nil, err
		}
		h, command, err := r.def.lookup(command)
		if err != nil {
			return nil, err
		}
		if h.create {
			return nil, fmt.Errorf("%s %q: %w", r.typeName, id, ErrExists)
		}
		req.decide, req.command = h.decide, command
	}
	state, err := r.decodeState(id, v.state)
	if err != nil {
		return nil, err
	}
	return req.decide(state, req.command, d)
}

// unchanged is the result of a command that led to nothing.
func (r *core) unchanged(id string, v *view) Result {
	return Result{ID: id, Version: v.head.Version, Position: r.store.Position(v.head.Sequence)}
}

// confirm asks the leader whether the aggregate still is as it was decided upon:
// a decision that writes nothing is not guarded by an expectation.
func (r *core) confirm(ctx context.Context, id string, v *view) (fresh *view, same bool, err error) {
	if v.leader {
		return v, true, nil
	}
	if fresh, err = r.loadFresh(ctx, id, jetstream.Leader); err != nil {
		return nil, false, err
	}
	return fresh, fresh.head == v.head, nil
}

// commit appends the decision and what it does to the state.
func (r *core) commit(
	ctx context.Context, id string, req request, v *view, events []any, now time.Time, refusal error,
) (Result, error) {
	dec := req.call.decision(now)
	switch {
	case refusal != nil:
		dec.Outcome = jetstream.OutcomeRejected
		dec.Code, dec.Reason = refusalCode(refusal)
	case len(events) == 0:
		dec.Outcome = jetstream.OutcomeNone
	}
	for _, e := range events {
		data, err := r.def.schema.Encode(e, r.store.Codec())
		if err != nil {
			return Result{}, fmt.Errorf("%s %q: command %q: %w", r.typeName, id, req.name, err)
		}
		dec.Events = append(dec.Events, data)
	}
	state, recorded, err := r.fold(id, v, &dec, req.call.traceParent)
	if err != nil {
		return Result{}, err
	}
	w := jetstream.Write{
		Type: r.typeName, ID: id, After: v.head, Decisions: []jetstream.Decision{dec}, TraceParent: req.call.traceParent,
	}
	if len(state) <= r.def.stateLimit {
		w.State = &jetstream.State{Fingerprint: r.def.fingerprint, Codec: r.store.Codec(), Data: state}
	}
	reconnects := r.reconnects()
	head, err := r.store.Append(ctx, w)
	if err != nil {
		if errors.Is(err, jetstream.ErrUnknownOutcome) || errors.Is(err, jetstream.ErrStoreWentBack) {
			r.cache.Remove(id) // what is stored is no longer known
		}
		if _, conflict := errors.AsType[*jetstream.ConflictError](err); conflict {
			if e := r.cached(id, reconnects); e != nil {
				e.outdated(v.head.Sequence)
			}
		}
		return Result{}, err
	}
	r.appended(id, v, head, state, &dec, reconnects)
	if refusal != nil {
		return Result{ID: id, Version: head.Version, Position: r.store.Position(head.Sequence)}, refusal
	}
	for i := range recorded {
		recorded[i].Position = r.store.Position(head.Sequence)
		recorded[i].EventID = head.CommitID + recorded[i].EventID
	}
	return Result{ID: id, Version: head.Version, Position: r.store.Position(head.Sequence), Events: recorded}, nil
}

// decision is the call as it is stored. The correlation and causation that follow
// from the ids are not stored twice.
func (c *call) decision(now time.Time) jetstream.Decision {
	d := jetstream.Decision{
		CommandID: c.commandID, BodyHash: c.hash, Time: now,
		Correlation: c.correlation, Causation: c.causation, Metadata: c.metadata,
	}
	if c.trigger != nil {
		d.Kind, d.Trigger, d.CommandID, d.BodyHash = jetstream.KindTrigger, c.trigger.key(), "", nil
		if d.Causation == c.trigger.EventID {
			d.Causation = ""
		}
	} else if d.Correlation == c.commandID {
		d.Correlation = ""
	}
	return d
}

func refusalCode(err error) (code, reason string) {
	var (
		rejected *RejectedError
		version  *VersionError
	)
	switch {
	case errors.As(err, &version):
		return codeVersion, fmt.Sprintf(versionReason, version.Expected, version.Actual)
	case errors.As(err, &rejected):
		return rejected.Code, rejected.Reason
	case errors.Is(err, ErrExists):
		return codeExists, ""
	default:
		return codeNotFound, ""
	}
}

// refusalError is the error that a recorded refusal stands for.
func (r *core) refusalError(id, code, reason string) error {
	switch code {
	case codeExists:
		return fmt.Errorf("%s %q: %w", r.typeName, id, ErrExists)
	case codeNotFound:
		return fmt.Errorf("%s %q: %w", r.typeName, id, ErrNotFound)
	case codeVersion:
		e := &VersionError{Type: r.typeName, ID: id}
		if _, err := fmt.Sscanf(reason, versionReason, &e.Expected, &e.Actual); err != nil {
			return fmt.Errorf("%s %q: recorded refusal %q: %w", r.typeName, id, reason, err)
		}
		return e
	default:
		return &RejectedError{Code: code, Reason: reason}
	}
}
