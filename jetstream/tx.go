package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// MaxTransaction is the most messages of one transaction: a commit of each
// aggregate, and one of each unique key. MaxTransactionBytes bounds them together.
const (
	MaxTransaction      = wire.MaxBatch
	MaxTransactionBytes = 16 << 20
)

// AppendAll stores the commits of several aggregates, all or none, each with an
// expectation of its own, and returns their new heads in the order of the writes.
// Outcomes are those of [Store.Append], and are those of all commits: a
// [*ConflictError] names one that another writer came before, the others may be
// the next ones.
//
// It is an atomic batch: one round trip, with [Write.Expect] and unique keys a read
// of each before. On an unreplicated store it takes milliseconds where an append
// takes a tenth of one, so what belongs to one aggregate belongs into one write.
// More than [MaxTransaction] messages or [MaxTransactionBytes], or one aggregate
// twice, is an [*InvalidError]. A server takes 50 transactions of a store at a
// time: a Store has 16 under way at most, and what is beyond waits.
func (s *Store) AppendAll(ctx context.Context, writes ...Write) ([]Head, error) {
	if len(writes) == 0 {
		return nil, &InvalidError{Field: "transaction", Value: "0", Reason: "is its number of writes: it needs some"}
	}
	messages := 0
	subjects := make(map[string]bool, len(writes))
	for i := range writes {
		w := &writes[i]
		subject, err := s.Subject(w.Type, w.ID)
		if err != nil {
			return nil, err
		}
		if subjects[subject] {
			return nil, &InvalidError{
				Field: "aggregate id", Value: w.ID, Reason: "stands twice in a transaction: put its decisions into one write",
			}
		}
		subjects[subject] = true
		if err := w.validate(); err != nil {
			return nil, fmt.Errorf("%s %q: %w", w.Type, w.ID, err)
		}
		messages += 1 + len(w.Reserve) + len(w.Release)
	}
	if len(writes) == 1 && messages == 1 && writes[0].Expect.kind == expectAfter {
		head, err := s.Append(ctx, writes[0])
		if err != nil {
			return nil, err
		}
		return []Head{head}, nil
	}
	return s.appendAll(ctx, writes)
}

// appendAll reads what the writes expect, sends them, and does so again when
// somebody came between the two.
func (s *Store) appendAll(ctx context.Context, writes []Write) ([]Head, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for wait := newBackoff(); ; {
		if err := s.ahead(&writes[0]); err != nil {
			return nil, err
		}
		p, err := s.plan(ctx, writes)
		if err != nil {
			return nil, err
		}
		err = s.decideStateless(ctx, p)
		if err == nil {
			return p.heads(), nil
		}
		conflict, ok := errors.AsType[*ConflictError](err)
		if !ok || !mayFollow(writes, conflict) {
			return nil, err
		}
		if err := again(ctx, wait, conflict); err != nil {
			return nil, err
		}
	}
}

// mayFollow tells whether the conflict is about a head that the store read itself.
func mayFollow(writes []Write, c *ConflictError) bool {
	for i := range writes {
		if w := &writes[i]; w.Type == c.Type && w.ID == c.ID {
			return w.Expect.kind != expectAfter
		}
	}
	return true // A key.
}

// plan turns the writes into messages, those of keys first: a reader that does
// not follow keys sees the end of the transaction with its last commit.
func (s *Store) plan(ctx context.Context, writes []Write) (*pending, error) {
	keys, err := s.keyChanges(ctx, writes)
	if err != nil {
		return nil, err
	}
	if mutate.On(mutate.NoKeys) {
		keys = nil
	}
	n := len(keys) + len(writes)
	if n > MaxTransaction {
		return nil, &InvalidError{
			Field: "transaction", Value: strconv.Itoa(n),
			Reason: fmt.Sprintf("is its number of commits, those of keys included: at most %d can be stored together",
				MaxTransaction),
		}
	}
	commits := make([]*Commit, len(writes))
	for i := range writes {
		head, err := s.resolve(ctx, &writes[i])
		if err != nil {
			return nil, err
		}
		commits[i] = s.commit(&writes[i], head)
	}
	p := &pending{store: s, first: len(keys)}
	for _, k := range keys {
		c, err := s.changeKey(ctx, k, commits)
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, k.name)
		p.add(s.subjectOf(typeKey, k.id), c)
	}
	for _, c := range commits {
		p.add(s.subjectOf(c.Type, c.ID), c)
	}
	if n > 1 {
		id := newCommitID()
		for i, c := range p.commits {
			c.Tx = &Tx{ID: id, Index: i + 1, Count: n}
		}
	}
	return p, p.encode(s)
}

func (p *pending) add(subject string, c *Commit) {
	p.msgs = append(p.msgs, &nats.Msg{Subject: subject})
	p.commits = append(p.commits, c)
}

// encode makes the messages. A state that makes one too large is left out.
func (p *pending) encode(s *Store) error {
	total, limit := 0, int(s.nc.MaxPayload())
	if len(p.msgs) == 1 {
		limit = 0 // The client itself looks at it.
	}
	for i, c := range p.commits {
		m, err := encodeCommit(p.msgs[i].Subject, c, s.codec)
		if err != nil {
			return err
		}
		if limit > 0 && size(m) > limit && c.State != nil {
			c.State = nil
			if m, err = encodeCommit(m.Subject, c, s.codec); err != nil {
				return err
			}
		}
		if limit > 0 && size(m) > limit {
			return &RefusedError{Type: c.Type, ID: c.ID, Cause: nats.ErrMaxPayload}
		}
		p.msgs[i] = m
		total += size(m)
	}
	if total > MaxTransactionBytes && len(p.msgs) > 1 {
		return &InvalidError{
			Field: "transaction", Value: strconv.Itoa(total),
			Reason: fmt.Sprintf("is its size in bytes: at most %d can be stored together", MaxTransactionBytes),
		}
	}
	return nil
}

// batchHeaders is more than what the headers of a batch add to a message.
const batchHeaders = 128

// size is the message's on its way, with the headers of a batch.
func size(m *nats.Msg) int {
	n := len(m.Data) + batchHeaders
	for k, v := range m.Header {
		n += len(k) + len(v[0]) + 4
	}
	return n
}
