package aggregate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// VerifyConfig says which aggregates [Repository.Verify] looks at. The zero value
// is all of the type.
type VerifyConfig struct {
	// IDs names them.
	IDs []string
	// Sample is how many are looked at instead of all, at most: those that random
	// commits belong to, so busy ones are likelier. It costs what these cost, however
	// large the store is. Defaults to 0, all.
	Sample int
	// Progress, unless nil, is told after each aggregate.
	Progress func(VerifyProgress)
}

// Validate reports every field that [Repository.Verify] would refuse, joined.
func (c VerifyConfig) Validate() error {
	errs := []error{notNegative("VerifyConfig.Sample", c.Sample)}
	if c.Sample > 0 && len(c.IDs) > 0 {
		errs = append(errs, &jetstream.InvalidError{
			Field: "VerifyConfig.Sample", Value: strconv.Itoa(c.Sample), Reason: "is set beside IDs, which name the aggregates",
		})
	}
	for _, id := range c.IDs {
		errs = append(errs, jetstream.ValidateID(id))
	}
	return errors.Join(errs...)
}

// VerifyProgress is how far a verification has come.
type VerifyProgress struct {
	// Aggregates, their Commits and the States that were compared, and Findings.
	Aggregates, Commits, States, Findings uint64
	// Sequence is where in the store the verification is, Last where it ends. They
	// are 0 for named aggregates and for samples.
	Sequence, Last uint64
}

// StateFault is what is wrong with a state.
type StateFault uint8

// The faults. Only the first makes loads wrong.
const (
	// StateDiffers is a state that is used and is not what the events make: an Apply
	// has changed its meaning without a new [StateVersion], or depends on more than
	// state, event and Meta.
	StateDiffers StateFault = iota + 1
	// StateUnreadable is a state under this fingerprint that does not decode. In the
	// bucket it is not used.
	StateUnreadable
	// StateStray is a state in the bucket that follows a commit which the aggregate
	// does not have. It is not used.
	StateStray
	// EventsFail are events that do not make a state: they do not decode, are
	// damaged, or an Apply fails.
	EventsFail
)

// String is a word for the fault.
func (f StateFault) String() string {
	switch f {
	case StateDiffers:
		return "differs"
	case StateUnreadable:
		return "unreadable"
	case StateStray:
		return "stray"
	case EventsFail:
		return "events fail"
	default:
		return fmt.Sprintf("fault(%d)", uint8(f))
	}
}

// StateFinding is something that [Repository.Verify] found.
type StateFinding struct {
	Fault    StateFault
	Type, ID string
	// Version is the aggregate's after the commit that the state follows, Sequence
	// the commit's.
	Version, Sequence uint64
	// InBucket tells that the state stands in the bucket of states, not in the
	// commit.
	InBucket bool
	// Detail says it for people: of states that differ, which fields, with the stored
	// and the replayed value.
	Detail string
}

// String is one line for people, and more for the fields that differ.
func (f StateFinding) String() string {
	where := "in its commit"
	if f.InBucket {
		where = "in the bucket"
	}
	return fmt.Sprintf("%s %q version %d (sequence %d), state %s: %s: %s",
		f.Type, f.ID, f.Version, f.Sequence, where, f.Fault, f.Detail)
}

// Verify applies the events of aggregates from the first on, and compares what they
// make with every state of this type's fingerprint that is stored, in the commits
// and in the bucket. States are compared as they decode: a different order of a
// map's keys, and empty instead of nil, is no difference. Each aggregate's first
// state that differs is reported, not those that follow from it.
//
// So it finds an Apply that has changed its meaning without a new [StateVersion].
//
// It ends early only with an error, which says that not everything was looked at.
// One aggregate is in memory at a time. All aggregates cost a scan of the type's
// commits, and one get more for each; nothing is written.
func (r *Repository[S]) Verify(ctx context.Context, cfg VerifyConfig) iter.Seq2[StateFinding, error] {
	return func(yield func(StateFinding, error) bool) {
		v := &stateVerifier{core: r.core, cfg: cfg, yield: yield}
		err := cfg.Validate()
		if err == nil {
			err = v.run(ctx)
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(StateFinding{}, fmt.Errorf("verify states of %q: %w", r.typ.Name(), err))
		}
	}
}

// DropOtherStates removes from the bucket of states what stands there under other
// fingerprints of this type, and returns how many that were: what earlier versions
// of a program left behind. Call it when none of them runs any more; one that does
// replays its aggregates once. It reads the bucket's keys, and needs permission to
// watch and to purge it.
func (r *Repository[S]) DropOtherStates(ctx context.Context) (int, error) {
	if r.core.states == nil {
		return 0, nil
	}
	n, err := r.core.states.dropOthers(ctx)
	if err != nil {
		return n, fmt.Errorf("states of %q under other fingerprints: %w", r.typ.Name(), err)
	}
	return n, nil
}

// errEnough is a caller that wants no more.
var errEnough = errors.New("enough")

type stateVerifier struct {
	*core

	cfg   VerifyConfig
	yield func(StateFinding, error) bool
	done  VerifyProgress
}

func (v *stateVerifier) run(ctx context.Context) error {
	store, ok := v.store.(*jetstream.Store)
	if !ok {
		return errors.New("the store is in memory")
	}
	switch {
	case len(v.cfg.IDs) > 0:
		for _, id := range v.cfg.IDs {
			if err := v.aggregate(ctx, id); err != nil {
				return err
			}
		}
		return nil
	case v.cfg.Sample > 0:
		return v.sample(ctx, store)
	}
	last, err := store.LastSequence(ctx)
	if err != nil {
		return err
	}
	v.done.Last = last
	for c, err := range store.Scan(ctx, v.typeName, jetstream.Range{}) {
		if err != nil {
			return err
		}
		if c.Ordinal != 1 {
			continue // every aggregate has one first commit
		}
		v.done.Sequence = c.Sequence
		if err := v.aggregate(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// drawsFor is how many random commits are looked at for a sample: aggregates that
// were drawn already count for nothing.
func drawsFor(sample int) int { return 4*sample + 16 }

func (v *stateVerifier) sample(ctx context.Context, store *jetstream.Store) error {
	filter := store.SubjectFilter(v.typeName)
	last, err := wire.LeaderLast(ctx, v.store.Conn(), store.Name(), filter)
	if errors.Is(err, wire.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	drawn := map[string]bool{}
	for i := 0; i < drawsFor(v.cfg.Sample) && len(drawn) < v.cfg.Sample; i++ {
		// From the first commit of the type at a random place or after it.
		m, err := wire.DirectNext(ctx, v.store.Conn(), store.Name(), filter, 1+rand.Uint64N(last.Sequence))
		if errors.Is(err, wire.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		c, err := jetstream.Decode(&m)
		if err != nil {
			return err
		}
		if drawn[c.ID] {
			continue
		}
		drawn[c.ID] = true
		if err := v.aggregate(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// found hands on a finding.
func (v *stateVerifier) found(f StateFinding) error {
	f.Type = v.typeName
	v.done.Findings++
	if !v.yield(f, nil) {
		return errEnough
	}
	return nil
}

// aggregate verifies one. A fault of the aggregate is a finding, not an error.
func (v *stateVerifier) aggregate(ctx context.Context, id string) error {
	beside, err := v.beside(ctx, id) // before the history, which then reaches its commit
	if err != nil {
		return err
	}
	if err := v.replayed(ctx, id, beside); err != nil {
		return err
	}
	v.done.Aggregates++
	if v.cfg.Progress != nil {
		v.cfg.Progress(v.done)
	}
	return nil
}

// beside is the aggregate's state in the bucket, nil when there is none to compare.
func (v *stateVerifier) beside(ctx context.Context, id string) (*base, error) {
	if v.states == nil {
		return nil, nil //nolint:nilnil // none, and that is no error
	}
	b, err := v.states.read(ctx, id, wire.DirectLast, new(outage))
	switch {
	case err == nil:
		return &b, nil
	case errors.Is(err, wire.ErrNotFound):
		return nil, nil //nolint:nilnil // none, and that is no error
	case errors.Is(err, errNoState):
		return nil, v.found(StateFinding{Fault: StateUnreadable, ID: id, InBucket: true, Detail: err.Error()})
	default:
		return nil, fmt.Errorf("%q: its state in bucket %q: %w", id, v.states.bucket, err)
	}
}

// replayed applies an aggregate's events and compares the states on the way.
func (v *stateVerifier) replayed(ctx context.Context, id string, beside *base) error {
	state, err := v.decodeState(id, v.zero)
	if err != nil {
		return err
	}
	at := StateFinding{ID: id}
	differs := false
	for c, err := range v.store.History(ctx, v.typeName, id, jetstream.Range{}) {
		if err == nil {
			at.Version, at.Sequence = c.Version, c.Sequence
			v.done.Commits++
			err = v.applyCommit(state, c)
		}
		if err != nil {
			if interrupted(ctx, err) {
				return err
			}
			at.Fault, at.Detail = EventsFail, err.Error()
			return v.found(at)
		}
		if data, ok := v.fits(c.State); ok && !differs {
			f, err := v.compared(at, state, data)
			if err != nil {
				return err
			}
			differs = f
		}
		if beside != nil && beside.head == c.Head {
			at := at
			at.InBucket = true
			if _, err := v.compared(at, state, beside.data); err != nil {
				return err
			}
			beside = nil
		}
	}
	if beside == nil {
		return nil
	}
	return v.found(StateFinding{
		Fault: StateStray, ID: id, Version: beside.head.Version, Sequence: beside.head.Sequence, InBucket: true,
		Detail: fmt.Sprintf("it follows commit %s, which is not there", beside.head.CommitID),
	})
}

// interrupted tells errors that say nothing about the aggregate.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, nats.ErrConnectionClosed)
}

// compared compares what the events make with a stored state, and tells whether
// that is another.
func (v *stateVerifier) compared(at StateFinding, state any, stored []byte) (differs bool, err error) {
	v.done.States++
	data, err := v.encodeState(at.ID, state)
	if err != nil {
		at.Fault, at.Detail = EventsFail, err.Error()
		return true, v.found(at)
	}
	if string(data) == string(stored) {
		return false, nil
	}
	replayed, err := v.decodeState(at.ID, data)
	if err != nil {
		at.Fault, at.Detail = EventsFail, err.Error()
		return true, v.found(at)
	}
	was, err := v.decodeState(at.ID, stored)
	if err != nil {
		at.Fault, at.Detail = StateUnreadable, err.Error()
		return true, v.found(at)
	}
	if at.Detail = differences(was, replayed); at.Detail == "" {
		return false, nil
	}
	at.Fault = StateDiffers
	return true, v.found(at)
}
