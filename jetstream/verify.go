package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
)

// Verification says what [Store.Verify] looks at. The zero Verification is the whole
// store, without decoding the events themselves.
type Verification struct {
	// Type and ID name the one aggregate to verify. Defaults to all.
	Type, ID string
	// Sample verifies that many aggregates alone, at most, met at random places of the
	// store: those with more commits are likelier. Defaults to 0, the whole store.
	Sample int
	// After is the sequence that the whole store is verified from: what lies before
	// is taken to be right. Defaults to 0.
	After uint64
	// Schemas decode the events of their aggregate types, which finds those that no
	// reader can. Data under an encryption key is left alone. Defaults to none.
	Schemas []*Schema
	// Progress is told of every thousand commits, between the findings, and at the
	// end. Defaults to nobody.
	Progress func(Verified)
}

// Verified is how far a verification has come.
type Verified struct {
	// Sequence is the last one looked at, Last the one that it ends with. Of single
	// aggregates they are numbers of aggregates.
	Sequence, Last uint64
	// Commits, Aggregates and Findings count what was met so far.
	Commits, Aggregates, Findings uint64
}

// verifyEvery is how many commits a verification tells its progress after.
const verifyEvery = 1000

func (v *Verification) validate() error {
	var errs []error
	if v.Type != "" || v.ID != "" {
		errs = append(errs, ValidateName("Verification.Type", v.Type), ValidateID(v.ID))
		if v.Sample != 0 {
			errs = append(errs, &InvalidError{
				Field: "Verification.Sample", Value: strconv.Itoa(v.Sample),
				Reason: "is set beside Type and ID, which name one aggregate",
			})
		}
	}
	if v.Sample < 0 {
		errs = append(errs, &InvalidError{Field: "Verification.Sample", Value: strconv.Itoa(v.Sample), Reason: "is negative"})
	}
	if v.After > 0 && (v.Sample > 0 || v.Type != "") {
		errs = append(errs, &InvalidError{
			Field: "Verification.After", Value: strconv.FormatUint(v.After, 10), Reason: "is for the whole store",
		})
	}
	for _, s := range v.Schemas {
		errs = append(errs, s.Err())
	}
	return errors.Join(errs...)
}

// Verify reads the store and yields what is wrong with it: each fault once, as a
// value, with its subject and sequence; nothing when nothing is. An error, beside
// which there is no fault, ends it: then the rest was not looked at. [ErrStoreNotFound]
// is among them: a server that cannot read a stream's files does not know the stream.
//
// Of the whole store it checks the stream's settings, the genesis, that no sequence
// is missing, that every message is a commit, stands in its partition and follows
// the one before it on its subject, that no aggregate stands there twice, and that
// transactions are complete. Of single aggregates it checks their commits and the
// transactions that these are part of. Commits stored meanwhile are left out.
//
// A whole store is read once, in order. What is kept of each aggregate is 32 bytes
// in two maps, about 80 MB for a million, whatever the number of their commits.
func (s *Store) Verify(ctx context.Context, v Verification) iter.Seq2[*DamageError, error] {
	return func(yield func(*DamageError, error) bool) {
		if err := v.validate(); err != nil {
			yield(nil, err)
			return
		}
		r := newVerifier(s, v, yield)
		var err error
		switch {
		case v.Type != "":
			r.done.Last = 1
			var subject string
			if subject, err = s.Subject(v.Type, v.ID); err == nil {
				err = r.aggregate(ctx, subject)
			}
			r.done.Sequence = 1
		case v.Sample > 0:
			err = r.sample(ctx, v.Sample)
		default:
			err = r.store(ctx)
		}
		if errors.Is(err, errStopped) {
			return
		}
		if err != nil {
			yield(nil, fmt.Errorf("verify store %q: %w", s.name, err))
			return
		}
		r.progress()
	}
}

// errStopped is a caller that wants no more.
var errStopped = errors.New("stopped")

// found hands on a fault.
func (r *verifier) found(d *DamageError) error {
	r.done.Findings++
	if !r.yield(d, nil) {
		return errStopped
	}
	return nil
}

func (r *verifier) progress() {
	if r.v.Progress != nil {
		r.v.Progress(r.done)
	}
}

// store verifies the whole store.
func (r *verifier) store(ctx context.Context) error {
	js, err := natsjs.New(r.nc)
	if err != nil {
		return err
	}
	var gone error
	stream, err := retried(ctx, r.Store, func(ctx context.Context) (natsjs.Stream, error) {
		stream, err := js.Stream(ctx, r.name)
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			gone, err = err, nil
		}
		return stream, err
	})
	if gone != nil {
		return fmt.Errorf("%w: %w", ErrStoreNotFound, gone)
	}
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	for _, set := range settings(Config{Name: r.name}, info.Config) {
		if set.ok || set.harmless {
			continue
		}
		if err := r.found(&DamageError{Kind: DamageSettings, Detail: set.err(r.name).Error()}); err != nil {
			return err
		}
	}
	last, err := r.last(ctx, wire.Everything, Leader)
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return err
	}
	head, known := last.Sequence, max(info.State.LastSeq, r.horizon.last.Load())
	r.done.Last = max(head, known)
	if r.v.After > r.done.Last {
		return r.checkReached(ctx, r.v.After)
	}
	for after := r.v.After; after < head; {
		hole, err := r.stretch(ctx, after, head)
		if err != nil || hole == nil {
			if err != nil {
				return err
			}
			break
		}
		if err := r.found(hole); err != nil {
			return err
		}
		after = hole.Through
	}
	if err := r.endTx(head + 1); err != nil {
		return err
	}
	if r.done.Sequence = r.done.Last; head >= known || r.v.After >= known {
		return nil
	}
	return r.found(&DamageError{
		Kind: DamageMissing, Sequence: max(head, r.v.After) + 1, Through: known,
		Detail: "nothing is there, though the store once went on to the last of them",
	})
}

// stretch checks messages up to a hole, or all there are.
func (r *verifier) stretch(ctx context.Context, after, to uint64) (hole *DamageError, err error) {
	b := span{after: after, end: to, fence: to, exact: true}
	r.messages(ctx, wire.Everything, b, func(m Message, readErr error) bool {
		if readErr != nil {
			var ok bool
			if hole, ok = errors.AsType[*DamageError](readErr); !ok {
				err = readErr
			}
			return false
		}
		r.done.Sequence = m.Sequence
		err = r.message(ctx, &m)
		return err == nil
	})
	return hole, err
}

// drawsFor is how many random messages are looked at for a sample: aggregates that
// were met already count for nothing.
func drawsFor(sample int) int { return 4*sample + 16 }

// sample verifies aggregates that stand at random places.
func (r *verifier) sample(ctx context.Context, n int) error {
	last, err := r.last(ctx, wire.Everything, Leader)
	if err != nil {
		return err
	}
	r.done.Last = uint64(n) //nolint:gosec // not negative
	seen := map[string]bool{}
	for draws := 0; draws < drawsFor(n) && len(seen) < n && last.Sequence > 1; draws++ {
		// The genesis, the first message, is no aggregate's.
		m, err := r.firstFrom(ctx, wire.Everything, 2+rand.Uint64N(last.Sequence-1))
		if err != nil {
			return err
		}
		if seen[m.Subject] || IsGenesis(&m) {
			continue
		}
		if err := r.aggregate(ctx, m.Subject); err != nil {
			return err
		}
		seen[m.Subject] = true
		r.done.Sequence++
		r.progress()
	}
	return nil
}

// aggregate verifies one aggregate alone: every message on its subject, one get
// each.
func (r *verifier) aggregate(ctx context.Context, subject string) error {
	end, err := r.last(ctx, subject, Leader)
	if errors.Is(err, wire.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for m := (Message{}); m.Sequence < end.Sequence; {
		if m, err = r.firstFrom(ctx, subject, m.Sequence+1); err != nil {
			return err
		}
		c, err := Decode(&m)
		if err != nil {
			err = r.unreadable(&m, err)
		} else if err = r.chain(ctx, subject, c); err == nil {
			if err = r.commit(ctx, subject, c); err == nil {
				err = r.members(ctx, subject, c)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// members checks that a commit's transaction stands around it.
func (r *verifier) members(ctx context.Context, subject string, c *Commit) error {
	if c.Tx == nil {
		return nil
	}
	for i := 1; i <= c.Tx.Count; i++ {
		seq := c.LastSequence() - uint64(c.Tx.Count-i) //nolint:gosec // i never exceeds Count
		m, err := r.peek(ctx, seq)
		if err != nil {
			return err
		}
		other := new(Commit)
		if m != nil && parseTx(header(m.Header, headerTx), other) == nil &&
			*other.Tx == (Tx{ID: c.Tx.ID, Index: i, Count: c.Tx.Count}) {
			continue
		}
		return r.found(&DamageError{
			Kind: DamageTransaction, Subject: subject, Sequence: c.Sequence, Through: c.Sequence,
			Detail: fmt.Sprintf("it is commit %d of %d of transaction %q, whose commit %d is not at %d",
				c.Tx.Index, c.Tx.Count, c.Tx.ID, i, seq),
		})
	}
	return nil
}

// peek is the message at a sequence, nil for none.
func (r *verifier) peek(ctx context.Context, seq uint64) (*Message, error) {
	m, err := r.Store.message(ctx, seq)
	if errors.Is(err, wire.ErrNotFound) {
		return nil, nil //nolint:nilnil // none, and that is no error
	}
	return &m, err
}
