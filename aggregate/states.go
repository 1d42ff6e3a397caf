package aggregate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rossby-go/rossby/jetstream"
)

// base is a state and the commit that it follows. The zero Head is the state
// before the first commit.
type base struct {
	data []byte
	head jetstream.Head
	// kept is the ordinal of the newest commit, up to head's, whose state others
	// can load: from the commit itself or from the bucket.
	kept uint64
}

// older tells whether the base may stand before a commit of its aggregate. That it
// does is proved by the commit that follows.
func (b *base) older(last *jetstream.Head) bool {
	return b.head.Sequence < last.Sequence && b.head.Ordinal < last.Ordinal && b.head.Version <= last.Version
}

const (
	// fewCommits are not worth a look for a state: each costs about one get.
	fewCommits = 2
	// farCommits are so many that it is worth looking for one harder.
	farCommits = 64
	// stepsBack is how many commits, the newest first, are looked at for a state of
	// ours when the last one has another's; at most a part of those to replay.
	stepsBack = 128
	shareBack = 4
	// bytesBack bounds what is in memory meanwhile.
	bytesBack = 4 << 20
)

var (
	// errOtherChain is a base that is not among the aggregate's commits.
	errOtherChain = errors.New("the state follows a commit that is not there")
	// errBehind is a read from a replica that lacks what others have seen.
	errBehind = errors.New("the replica is behind")
)

// stateAt is the state after a commit: the one that travels in it, or the events
// applied to the newest one known. A commit that a replica gave may be behind what
// others have seen: that is errBehind, and the leader is to be asked.
func (r *core) stateAt(
	ctx context.Context, id string, last *jetstream.Commit, known *view, from jetstream.Source,
) (base, error) {
	if known != nil && known.head.CommitID == last.CommitID {
		return base{known.state, known.head, known.kept}, nil
	}
	if data, ok := r.fits(last.State); ok {
		return base{data, last.Head, last.Ordinal}, nil
	}
	if last.Version == 0 {
		return base{r.zero, last.Head, last.Ordinal}, nil
	}
	bases := []base{{data: r.zero}} // the newest last
	if known != nil {
		if b := (base{known.state, known.head, known.kept}); b.older(&last.Head) {
			bases = append(bases, b)
		}
	}
	newest := func() *base { return &bases[len(bases)-1] }
	if last.Ordinal-newest().head.Ordinal > fewCommits {
		b, found := r.states.get(ctx, id, last.Ordinal-newest().head.Ordinal > farCommits)
		switch {
		case !found:
		case b.head == last.Head:
			return b, nil
		case b.head.Sequence > last.Sequence && from == jetstream.Replica:
			return base{}, errBehind
		case b.older(&last.Head) && b.head.Sequence > newest().head.Sequence:
			bases = append(bases, b)
		}
	}
	if far := last.Ordinal - newest().head.Ordinal; last.State != nil && far > fewCommits {
		// Another program's state: ours may stand a few commits before.
		if b, found := r.stepBack(ctx, id, last, min(max(far/shareBack, 1), stepsBack)); found {
			return b, nil
		}
	}
	for {
		b, err := r.replay(ctx, id, *newest(), last)
		if len(bases) == 1 || !errors.Is(err, errOtherChain) {
			return b, err
		}
		if known != nil && newest().head == known.head {
			r.cache.remove(id) // what was remembered with it is not stored either
		}
		bases = bases[:len(bases)-1]
	}
}

// stepBack looks for a state in the commits just before the last one, and applies
// those after it. What goes wrong here, the replay finds, too, and tells.
func (r *core) stepBack(ctx context.Context, id string, last *jetstream.Commit, steps uint64) (base, bool) {
	walked, size := []*jetstream.Commit{last}, 0
	for range steps {
		c := walked[len(walked)-1]
		before, err := r.store.At(ctx, r.typeName, id, c.PreviousSequence)
		if err != nil || !follows(c, &before.Head) {
			return base{}, false
		}
		if data, ok := r.fits(before.State); ok {
			out := base{head: last.Head, kept: before.Ordinal}
			out.data, err = r.applyBack(id, data, walked)
			return out, err == nil
		}
		if size += dataSize(before); size > bytesBack {
			return base{}, false
		}
		walked = append(walked, before)
	}
	return base{}, false
}

func dataSize(c *jetstream.Commit) (n int) {
	for i := range c.Decisions {
		for j := range c.Decisions[i].Events {
			n += len(c.Decisions[i].Events[j].Data)
		}
	}
	if c.State != nil {
		n += len(c.State.Data)
	}
	return n
}

// applyBack applies commits that were read backwards to a state.
func (r *core) applyBack(id string, data []byte, walked []*jetstream.Commit) ([]byte, error) {
	state, err := r.decodeState(id, data)
	if err != nil {
		return nil, err
	}
	for _, c := range slices.Backward(walked) {
		if err := r.applyCommit(state, c); err != nil {
			return nil, err
		}
	}
	return r.encodeState(id, state)
}

// replay applies the commits after a base, up to the last one. The first of them
// proves that the base's commit stands where its state says.
func (r *core) replay(ctx context.Context, id string, b base, last *jetstream.Commit) (base, error) {
	state, err := r.decodeState(id, b.data)
	if err != nil {
		return base{}, err
	}
	first := true
	for c, err := range r.store.History(
		ctx, r.typeName, id, jetstream.Range{After: b.head.Sequence, To: last.Sequence},
	) {
		if err != nil {
			return base{}, err
		}
		if first && b.head.Sequence > 0 && !follows(c, &b.head) {
			return base{}, fmt.Errorf("%s %q: %w", r.typeName, id, errOtherChain)
		}
		first = false
		if data, ok := r.fits(c.State); ok {
			if state, err = r.decodeState(id, data); err != nil {
				return base{}, err
			}
			b.kept = c.Ordinal
			continue
		}
		if err := r.applyCommit(state, c); err != nil {
			return base{}, err
		}
	}
	data, err := r.encodeState(id, state)
	return base{data, last.Head, b.kept}, err
}

// follows tells whether a commit is the next one after another.
func follows(c *jetstream.Commit, before *jetstream.Head) bool {
	return c.Previous == before.CommitID && c.PreviousSequence == before.Sequence && c.Ordinal == before.Ordinal+1
}

// applyCommit applies a commit's events to a state.
func (r *core) applyCommit(state any, c *jetstream.Commit) error {
	events, err := r.decoder.Events(r.store, c)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := r.apply(state, e.Event, e.Meta); err != nil {
			return err
		}
	}
	return nil
}

// decodeState makes a copy of a state for one use.
func (r *core) decodeState(id string, data []byte) (state any, err error) {
	defer r.guard(id, "decode", &err)
	state = r.newState()
	if err := r.store.Codec().Decode(data, state); err != nil {
		return nil, fmt.Errorf("%s %q: decode state: %w", r.typeName, id, err)
	}
	return state, nil
}

// encodeState writes a state down.
func (r *core) encodeState(id string, state any) (data []byte, err error) {
	defer r.guard(id, "encode", &err)
	if data, err = r.store.Codec().Encode(state); err != nil {
		return nil, fmt.Errorf("%s %q: encode state: %w", r.typeName, id, err)
	}
	return data, nil
}

// guard turns a panic in a type that encodes itself into an error.
func (r *core) guard(id, what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s %q: %s state: the state's own code panicked: %v", r.typeName, id, what, p)
	}
}

func (r *core) fits(s *jetstream.State) ([]byte, bool) {
	if s == nil || s.Fingerprint != r.def.fingerprint || s.KeyRef != "" || s.Codec != r.store.Codec() {
		return nil, false
	}
	return s.Data, true
}

// keepState hands a state to the bucket when others would have to replay much to
// get it. It never waits.
func (r *core) keepState(id string, b *base) {
	if every := r.cfg.StateEvery; every > 0 && b.head.Ordinal-b.kept >= uint64(every) && r.states != nil {
		r.states.offer(id, *b)
		b.kept = b.head.Ordinal
	}
}

// bulky tells whether the commit may have had to leave its state out, to fit into a
// message.
func (r *core) bulky(state []byte) bool {
	nc := r.store.Conn()
	return nc != nil && int64(2*len(state)) > nc.MaxPayload()
}

// travels tells whether a state is small enough to stand in its commit.
func (r *core) travels(state []byte) bool { return len(state) <= r.def.stateLimit }
