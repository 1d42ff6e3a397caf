package jetstream

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/once"
	"github.com/rossby-go/rossby/internal/wire"
)

// Key is a value that one aggregate of the store may have at a time, such as a
// user name or an e-mail address.
type Key struct {
	// Name says what the value is, [a-z0-9-]+. Values of different names never
	// collide.
	Name string
	// Value is compared byte for byte: bring it into one form first, such as lower
	// case. It is not stored; its keyed hash is.
	Value string
}

// Owner is the aggregate that has a key.
type Owner struct {
	Type, ID string
	// Position is where the key was taken.
	Position Position
}

// The toolkit's own aggregates.
const (
	typeKey   = "_key"
	typeStore = "_store"
	idSecret  = "keys"
)

// The events of keys, and of the secret that hashes them.
const (
	eventReserved = "reserved"
	eventReleased = "released"
	eventSecret   = "secret-made"
)

// keyChanged is the data of both events of a key.
type keyChanged struct {
	Key  string `json:"key"`
	Type string `json:"type"`
	ID   string `json:"id"`
}

// secretEvent is the data of the event that made the store's secret.
type secretEvent struct {
	Secret []byte `json:"secret"`
}

// maxKeyValue bounds a key's value, in bytes.
const maxKeyValue = 4096

const secretBytes = 32

// keyring is the store's secret, once it is known.
type keyring struct {
	known  once.Once
	secret []byte
}

func (w *Write) validateKeys() error {
	seen := make(map[Key]bool, len(w.Reserve)+len(w.Release))
	for _, keys := range [][]Key{w.Reserve, w.Release} {
		for _, k := range keys {
			if err := k.validate(); err != nil {
				return err
			}
			if seen[k] {
				return &InvalidError{Field: "key", Value: k.Name, Reason: "has the same value twice in one write"}
			}
			seen[k] = true
		}
	}
	return nil
}

func (k Key) validate() error {
	if err := ValidateName("key name", k.Name); err != nil {
		return err
	}
	if n := len(k.Value); n == 0 || n > maxKeyValue {
		return &InvalidError{
			Field: "key", Value: k.Name, Reason: fmt.Sprintf("has a value of %d bytes, allowed are 1 to %d", n, maxKeyValue),
		}
	}
	return nil
}

// Owner returns the aggregate that has a key, as the leader has it, or
// [ErrNotFound] when it is free. It costs one get.
func (s *Store) Owner(ctx context.Context, k Key) (Owner, error) {
	if err := k.validate(); err != nil {
		return Owner{}, err
	}
	secret, err := s.secret(ctx, false)
	if err != nil {
		return Owner{}, fmt.Errorf("key %q: %w", k.Name, err)
	}
	_, owner, err := s.lastOfKey(ctx, hashKey(secret, k))
	if err != nil {
		return Owner{}, fmt.Errorf("key %q: %w", k.Name, err)
	}
	if owner == (Owner{}) {
		return Owner{}, fmt.Errorf("key %q: its value is free: %w", k.Name, ErrNotFound)
	}
	return owner, nil
}

// lastOfKey is the head of a key's history and who has it, if anybody.
func (s *Store) lastOfKey(ctx context.Context, id string) (Head, Owner, error) {
	c, err := s.lastOf(ctx, s.subjectOf(typeKey, id))
	if errors.Is(err, wire.ErrNotFound) {
		return Head{}, Owner{}, nil
	}
	if err != nil {
		return Head{}, Owner{}, err
	}
	decision := c.Decisions[len(c.Decisions)-1]
	if len(decision.Events) == 0 {
		return Head{}, Owner{}, fmt.Errorf("%w: commit %d of a key has no events", ErrFormat, c.Sequence)
	}
	last := decision.Events[len(decision.Events)-1]
	if last.Name == eventReleased {
		return c.Head, Owner{}, nil
	}
	var e keyChanged
	err = last.Codec.Decode(last.Data, &e)
	if last.Name != eventReserved || err == nil && e.Type == "" {
		err = fmt.Errorf("it ends with event %q", last.Name)
	}
	if err != nil {
		return Head{}, Owner{}, fmt.Errorf("%w: commit %d of a key: %w", ErrFormat, c.Sequence, err)
	}
	return c.Head, Owner{Type: e.Type, ID: e.ID, Position: s.Position(c.Sequence)}, nil
}

// lastOf is the last commit on a subject, from the leader.
func (s *Store) lastOf(ctx context.Context, subject string) (*Commit, error) {
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
		return wire.LeaderLast(ctx, s.nc, s.name, subject)
	})
	if err != nil {
		return nil, err
	}
	return Decode(&m)
}

// subjectOf is the subject of one of the toolkit's own aggregates.
func (s *Store) subjectOf(typ, id string) string {
	return s.prefix + typ + "." + strconv.Itoa(Partition(id, s.partitions)) + "." + id
}

// hashKey is the id that a key's history has: nobody who sees it learns the value,
// and who does not know the secret cannot even try one.
func hashKey(secret []byte, k Key) string {
	const bytes = 20
	h := hmac.New(sha256.New, secret)
	_, _ = h.Write([]byte(k.Name + "\x00" + k.Value)) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:bytes]))
}

// secret is what the store's keys are hashed with: random, made with its first
// reservation. Without one and without create it is [ErrNotFound].
func (s *Store) secret(ctx context.Context, create bool) ([]byte, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err := s.keys.known.Do(ctx, func(ctx context.Context) (err error) {
		s.keys.secret, err = s.findSecret(ctx, create)
		return err
	})
	if err != nil {
		if errors.Is(err, context.Cause(ctx)) && !errors.Is(err, ErrUnavailable) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, err
	}
	return s.keys.secret, nil
}

// findSecret reads the secret, and makes it first where there is none.
func (s *Store) findSecret(ctx context.Context, create bool) ([]byte, error) {
	subject := s.subjectOf(typeStore, idSecret)
	for wait := newBackoff(); ; {
		c, err := s.lastOf(ctx, subject)
		switch {
		case err == nil:
			return secretOf(c)
		case !errors.Is(err, wire.ErrNotFound):
			return nil, err
		case !create:
			return nil, ErrNotFound
		}
		if err := s.makeSecret(ctx, subject); err != nil {
			return nil, err
		}
		// Read it back: the leader has it, ours or another's.
		if stop := wait.next(ctx); stop != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, stop)
		}
	}
}

func (s *Store) makeSecret(ctx context.Context, subject string) error {
	var e secretEvent
	e.Secret = make([]byte, secretBytes)
	_, _ = rand.Read(e.Secret) // never fails
	data, err := s.codec.Encode(e)
	if err != nil {
		return err
	}
	w := Write{Type: typeStore, ID: idSecret, Decisions: []Decision{{
		Time: MicroTime(time.Now()), Events: []EventData{{Name: eventSecret, Version: 1, Codec: s.codec, Data: data}},
	}}}
	p, err := s.single(subject, &w)
	if err != nil {
		return err
	}
	err = s.decide(ctx, p, false)
	if _, conflict := errors.AsType[*ConflictError](err); conflict {
		return nil
	}
	if errors.Is(err, ErrUnknownOutcome) {
		// Whoever comes next finds it or makes it: nothing of the caller's is open.
		return fmt.Errorf("%w: the store's secret for keys: %w", ErrUnavailable, errors.Unwrap(err))
	}
	return err
}

func secretOf(c *Commit) ([]byte, error) {
	for _, d := range c.Decisions {
		for _, ev := range d.Events {
			var e secretEvent
			if ev.Name != eventSecret {
				continue
			}
			if err := ev.Codec.Decode(ev.Data, &e); err == nil && len(e.Secret) >= secretBytes/2 {
				return e.Secret, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: commit %d does not hold the store's secret for keys", ErrFormat, c.Sequence)
}
