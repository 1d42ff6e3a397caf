package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// keyChange is what a transaction does to one key.
type keyChange struct {
	id, name string
	// from is the write that gives it up, to the one that takes it; -1 is none.
	from, to int
}

// keyChanges are the keys that the writes take and give up. One that moves from one
// aggregate of the transaction to another is one change.
func (s *Store) keyChanges(ctx context.Context, writes []Write) ([]*keyChange, error) {
	var changes []*keyChange
	byID := map[string]*keyChange{}
	for i := range writes {
		w := &writes[i]
		if len(w.Reserve)+len(w.Release) == 0 {
			continue
		}
		secret, err := s.secret(ctx, true)
		if err != nil {
			return nil, fmt.Errorf("%s %q: keys: %w", w.Type, w.ID, err)
		}
		change := func(k Key, of func(*keyChange) *int, what string) error {
			id := hashKey(secret, k)
			c := byID[id]
			if c == nil {
				c = &keyChange{id: id, name: k.Name, from: -1, to: -1}
				byID[id] = c
				changes = append(changes, c)
			}
			if *of(c) >= 0 {
				return &InvalidError{Field: "key", Value: k.Name, Reason: "is " + what + " by two writes of one transaction"}
			}
			*of(c) = i
			return nil
		}
		for _, k := range w.Release {
			if err := change(k, func(c *keyChange) *int { return &c.from }, eventReleased); err != nil {
				return nil, err
			}
		}
		for _, k := range w.Reserve {
			if err := change(k, func(c *keyChange) *int { return &c.to }, eventReserved); err != nil {
				return nil, err
			}
		}
	}
	return changes, nil
}

// changeKey is the commit of the change, after what the leader has of the key now.
// It is written even when it changes nothing: its expectation guards that.
func (s *Store) changeKey(ctx context.Context, k *keyChange, commits []*Commit) (*Commit, error) {
	head, owner, err := s.lastOfKey(ctx, k.id)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", k.name, err)
	}
	d := Decision{Time: MicroTime(time.Now())}
	allowed := owner == (Owner{})
	var writer *Commit
	for _, step := range []struct {
		event string
		by    int
	}{{eventReleased, k.from}, {eventReserved, k.to}} {
		if step.by < 0 {
			continue
		}
		writer = commits[step.by]
		allowed = allowed || owner.Type == writer.Type && owner.ID == writer.ID
		data, err := s.codec.Encode(keyChanged{Key: k.name, Type: writer.Type, ID: writer.ID})
		if err != nil {
			return nil, err
		}
		d.Causation = writer.CommitID
		d.Events = append(d.Events, EventData{Name: step.event, Version: 1, Codec: s.codec, Data: data})
	}
	if !allowed {
		return nil, &KeyTakenError{Type: writer.Type, ID: writer.ID, Key: k.name, Owner: owner}
	}
	return s.commit(&Write{Type: typeKey, ID: k.id, Decisions: []Decision{d}}, head), nil
}

// explained turns a conflict about a key into who has it now.
func (s *Store) explained(ctx context.Context, p *pending, err error) error {
	conflict, ok := errors.AsType[*ConflictError](err)
	if !ok || conflict.Type != typeKey {
		return err
	}
	_, owner, readErr := s.lastOfKey(ctx, conflict.ID)
	c := p.main()
	if readErr != nil || owner == (Owner{}) || owner.Type == c.Type && owner.ID == c.ID {
		return err
	}
	for i, name := range p.keys {
		if p.commits[i].ID == conflict.ID {
			return &KeyTakenError{Type: c.Type, ID: c.ID, Key: name, Owner: owner}
		}
	}
	return err
}
