package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/rossby-go/rossby/internal/wire"
)

// verifier is one verification.
type verifier struct {
	*Store

	v       Verification
	yield   func(*DamageError, error) bool
	done    Verified
	schemas map[string]*Schema

	seed maphash.Seed
	// heads has for each subject, by its hash, a hash of what the next commit on it
	// must say of the one before it. Hashes that are not equal are looked into, so a
	// collision costs a read and proves nothing.
	heads map[uint64]uint64
	// first has for the id of each first commit, by its hash, the commit's sequence.
	first map[uint64]uint64
	// tx is the transaction that is under way, nil for none; txDue what is due next.
	tx    *Tx
	txDue int
}

func newVerifier(s *Store, v Verification, yield func(*DamageError, error) bool) *verifier {
	r := &verifier{
		Store: s, v: v, yield: yield, schemas: map[string]*Schema{}, seed: maphash.MakeSeed(),
		heads: map[uint64]uint64{}, first: map[uint64]uint64{},
	}
	for _, schema := range v.Schemas {
		r.schemas[schema.Type()] = schema
	}
	return r
}

// link is what a commit says of the one before it.
type link struct {
	id                         string
	sequence, ordinal, version uint64
}

// message checks the next message of the store.
func (r *verifier) message(ctx context.Context, m *Message) error {
	if m.Sequence == 1 || IsGenesis(m) {
		return r.genesis(m)
	}
	c, err := Decode(m)
	if err != nil {
		return errors.Join(r.unreadable(m, err), r.nextTx(m.Subject, m.Sequence, nil))
	}
	if err := r.nextTx(m.Subject, c.Sequence, c.Tx); err != nil {
		return err
	}
	if due, err := r.due(c); err != nil || due != m.Subject {
		err := r.found(&DamageError{
			Kind: DamagePartition, Subject: m.Subject, Sequence: m.Sequence, Through: m.Sequence,
			Detail: misplaced(due, err),
		})
		if err != nil {
			return err
		}
	}
	if err := r.chain(ctx, m.Subject, c); err != nil {
		return err
	}
	return r.commit(ctx, m.Subject, c)
}

// due is the subject that a commit belongs on.
func (r *verifier) due(c *Commit) (string, error) {
	if strings.HasPrefix(c.Type, own) {
		return r.subjectOf(c.Type, c.ID), nil
	}
	return r.Subject(c.Type, c.ID)
}

func misplaced(due string, err error) string {
	if err != nil {
		return "no aggregate has that subject: " + err.Error()
	}
	return fmt.Sprintf("the aggregate's subject is %q", due)
}

func (r *verifier) unreadable(m *Message, err error) error {
	return r.found(&DamageError{
		Kind: DamageUnreadable, Subject: m.Subject, Sequence: m.Sequence, Through: m.Sequence, Detail: unreadableDetail(err),
	})
}

// unreadableDetail leaves out where the message stands.
func unreadableDetail(err error) string {
	format, ok := errors.AsType[*FormatError](err)
	switch {
	case !ok:
		return err.Error()
	case format.Cause != nil:
		return format.Reason + ": " + format.Cause.Error()
	}
	return format.Reason
}

// genesis checks the first message, and that no other one looks like it.
func (r *verifier) genesis(m *Message) error {
	var g genesis
	var detail string
	switch err := json.Unmarshal(m.Data, &g); {
	case m.Sequence != 1:
		detail = "a genesis is the first message of a store, and no other"
	case m.Subject != r.name+genesisSuffix:
		detail = "the first message is not the genesis"
	case err != nil:
		detail = err.Error()
	case g != (genesis{Store: r.id, Format: FormatVersion, Partitions: r.partitions, Codec: r.codec.String()}):
		detail = fmt.Sprintf("the genesis is %+v, open is store %q with format %d, %d partitions and %s",
			g, r.id, FormatVersion, r.partitions, r.codec)
	default:
		return nil
	}
	return r.found(&DamageError{
		Kind: DamageGenesis, Subject: m.Subject, Sequence: m.Sequence, Through: m.Sequence, Detail: detail,
	})
}

// chain checks that a commit follows the one that was met before on its subject.
func (r *verifier) chain(ctx context.Context, subject string, c *Commit) error {
	key := maphash.String(r.seed, subject)
	due, met := r.heads[key]
	r.heads[key] = maphash.Comparable(r.seed, link{c.CommitID, c.Sequence, c.Ordinal, c.Version})
	if !met {
		r.done.Aggregates++
	}
	events := uint64(c.Events()) //nolint:gosec // a length
	claimed := link{c.Previous, c.PreviousSequence, c.Ordinal - 1, c.Version - events}
	switch {
	case met && due == maphash.Comparable(r.seed, claimed):
		return nil
	case !met && c.Ordinal == 1:
		return r.firstCommit(ctx, subject, c)
	case !met && c.PreviousSequence > 0 && c.PreviousSequence <= r.v.After:
		return nil // What it follows is not looked at.
	}
	h := history{Store: r.Store, subject: subject}
	var fault *DamageError
	if c.Ordinal > 1 {
		_, err := h.previous(ctx, c)
		if format, ok := errors.AsType[*FormatError](err); ok {
			fault = chainError(c.Sequence, subject, fmt.Sprintf("it follows one at %d that is no commit: %v",
				c.PreviousSequence, format))
		} else if err != nil && !errors.As(err, &fault) {
			return err
		}
	}
	if fault != nil {
		return r.found(fault)
	}
	// It follows the commit it says. Another one may stand between them.
	from := c.PreviousSequence + 1
	if c.Ordinal == 1 {
		from = 1
	}
	m, err := r.firstFrom(ctx, subject, from)
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return err
	}
	if err == nil && m.Sequence < c.Sequence {
		return r.found(&DamageError{
			Kind: DamageChain, Subject: subject, Sequence: c.Sequence, Through: c.Sequence,
			Detail: fmt.Sprintf("the chain is broken: with ordinal %d it follows one at %d, but one at %d stands before it, too",
				c.Ordinal, from-1, m.Sequence),
		})
	}
	return nil
}

// firstCommit checks that an aggregate's first commit is no copy of another's, and
// that the server was told that it is the first.
func (r *verifier) firstCommit(ctx context.Context, subject string, c *Commit) error {
	fault, err := r.copied(ctx, subject, c)
	if err != nil {
		return err
	}
	h := history{Store: r.Store, subject: subject}
	if fault == nil && !errors.As(h.linked(c), &fault) {
		return nil
	}
	return r.found(fault)
}

// copied is a first commit that is a copy of another aggregate's: a chain that was
// copied as a whole holds.
func (r *verifier) copied(ctx context.Context, subject string, c *Commit) (*DamageError, error) {
	key := maphash.String(r.seed, c.CommitID)
	at, met := r.first[key]
	if !met {
		r.first[key] = c.Sequence
		return nil, nil //nolint:nilnil // no copy, and that is no error
	}
	m, err := r.peek(ctx, at)
	if err != nil || m == nil || header(m.Header, headerCommit) != c.CommitID {
		return nil, err
	}
	return &DamageError{
		Kind: DamageCopy, Subject: subject, Sequence: c.Sequence, Through: c.Sequence,
		Detail: fmt.Sprintf("commit %s stands at %d on %q, too: its events have the same ids", c.CommitID, at, m.Subject),
	}, nil
}

// commit checks what a commit holds, and counts it.
func (r *verifier) commit(_ context.Context, subject string, c *Commit) error {
	if r.done.Commits++; r.done.Commits%verifyEvery == 0 {
		r.progress()
	}
	schema := r.schemas[c.Type]
	if schema == nil {
		return nil
	}
	version := c.Version - uint64(c.Events()) //nolint:gosec // a length
	for i := range c.Decisions {
		for _, e := range c.Decisions[i].Events {
			version++
			if e.KeyRef != "" {
				continue
			}
			if _, err := schema.Decode(e); err != nil {
				err := r.found(&DamageError{
					Kind: DamageEvent, Subject: subject, Sequence: c.Sequence, Through: c.Sequence,
					Detail: fmt.Sprintf("event %q, version %d of the aggregate: %v", e.Name, version, err),
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// nextTx checks that a transaction's commits stand side by side.
func (r *verifier) nextTx(subject string, seq uint64, tx *Tx) error {
	if r.tx != nil && tx != nil && *tx == (Tx{ID: r.tx.ID, Index: r.txDue, Count: r.tx.Count}) {
		if r.txDue++; r.txDue > tx.Count {
			r.tx = nil
		}
		return nil
	}
	if err := r.endTx(seq); err != nil || tx == nil {
		return err
	}
	if tx.Index != 1 && seq > r.v.After+uint64(tx.Index)-1 { //nolint:gosec // an index is positive
		err := r.found(&DamageError{
			Kind: DamageTransaction, Subject: subject, Sequence: seq, Through: seq,
			Detail: fmt.Sprintf("it is commit %d of %d of transaction %q, which does not stand before it",
				tx.Index, tx.Count, tx.ID),
		})
		if err != nil {
			return err
		}
	}
	if tx.Index < tx.Count {
		r.tx, r.txDue = tx, tx.Index+1
	}
	return nil
}

// endTx finds a transaction that is not complete before a sequence.
func (r *verifier) endTx(seq uint64) error {
	tx := r.tx
	if r.tx = nil; tx == nil {
		return nil
	}
	return r.found(&DamageError{
		Kind: DamageTransaction, Sequence: seq, Through: seq,
		Detail: fmt.Sprintf("commit %d of %d of transaction %q is due there", r.txDue, tx.Count, tx.ID),
	})
}
