package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/tracing"
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
	cache    *cache
	receipts *receipts
	states   *states
	copied   copied
	lanes    lanes
	counters counters
	tracer   *tracing.Tracer // nil without tracing
	took     durations
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
	if err := checkInterceptors(cfg.Interceptors, def.state); err != nil {
		return nil, err
	}
	cache, err := newCache(cfg.CacheBytes)
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
	took, err := newDurations(cfg.MeterProvider, store.Name(), typeName)
	if err != nil {
		return nil, err
	}
	return &core{
		def: def, typeName: typeName, store: store, cfg: cfg, decoder: decoder, cache: cache,
		receipts: newReceipts(store, cfg.ReceiptTTL), states: newStates(store, def.fingerprint, typeName, cfg),
		newState: newState, zero: zero, now: time.Now,
		tracer: tracing.New(cfg.TracerProvider), took: took,
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
	// span is nil without tracing, began zero without a meter.
	span  trace.Span
	began time.Time
}

func (r *core) executeCommand(ctx context.Context, id string, command any, c *call) (Result, error) {
	h, command, err := r.def.resolve(command, c)
	if err != nil {
		return Result{}, err
	}
	return r.execute(ctx, id, request{call: c, name: h.name, create: h.create, decide: h.decide, command: command})
}

func (r *core) execute(ctx context.Context, id string, req request) (Result, error) {
	t, err := r.line(ctx, id, req)
	if err != nil {
		return Result{}, err
	}
	return r.wait(id, t) //nolint:contextcheck // the ticket has it
}

// enter gives the command its place in the aggregate's line and returns at once:
// commands are decided in the order of these calls. The function that it returns
// must be called, from any goroutine; it returns what came of the command.
func (r *core) enter(ctx context.Context, id string, req request) (wait func() (Result, error), err error) {
	t, err := r.line(ctx, id, req)
	if err != nil {
		return nil, err
	}
	return func() (Result, error) { return r.wait(id, t) }, nil //nolint:contextcheck // the ticket has it
}

func (r *core) line(ctx context.Context, id string, req request) (*ticket, error) {
	err := errors.Join(jetstream.ValidateID(id), req.call.validate(r.now()),
		checkInterceptors(req.call.interceptors, r.def.state))
	if err != nil {
		return nil, err
	}
	r.counters.commands.Add(1)
	req.began = r.took.command.Now()
	if r.tracer != nil {
		ctx, req.span = r.traceCommand(ctx, id, req)
	}
	return r.lanes.enter(ctx, id, req), nil
}

// wait returns what came of the command; it works on it when nobody else does.
func (r *core) wait(id string, t *ticket) (Result, error) {
	if t.alone {
		r.alone(id, t)
		return t.res, r.ended(t, t.res, t.err)
	}
	res, left, err := t.wait(r.typeName, id)
	if left {
		r.counters.withdrawn.Add(1)
	}
	return res, r.ended(t, res, err)
}

// ended notes how a command ended.
func (r *core) ended(t *ticket, res Result, err error) error {
	if r.took.command != nil {
		r.took.command.Since(t.ctx, t.req.began, t.req.name, measuredOutcome(res, err))
	}
	if t.req.span != nil {
		endCommand(t.req.span, r.store, res, err)
	}
	return r.counted(err)
}

// counted counts how a command ended.
func (r *core) counted(err error) error {
	switch {
	case err == nil:
	case isRefusal(err):
		r.counters.refusals.Add(1)
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		r.counters.unknown.Add(1)
	}
	return err
}

// isRefusal tells the errors that are a command's outcome.
func isRefusal(err error) bool {
	if errors.Is(err, ErrRejected) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
		return true
	}
	_, version := errors.AsType[*VersionError](err)
	return version
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
