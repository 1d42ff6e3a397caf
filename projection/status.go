package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// ViewStatus is a view's state as its bucket tells it.
type ViewStatus struct {
	Store, View string
	// Generation is the one that is read, Version its definition's.
	Generation, Version int
	State               State
	// Owner is the instance that writes, "" for none, Epoch counts the owners.
	Owner string
	Epoch uint64
	// Position is how far the view is, Head where the store ends.
	Position, Head jetstream.Position
	// Lag is the number of commits in the store after Position. Behind is for
	// how long the first of them has been stored, 0 when the view has caught up.
	Lag    uint64
	Behind time.Duration
	// Rate is the commits a second that the view went over lately.
	Rate float64
	// Skipped counts the events that were left out by [SkipOnError] or [Admin.Skip].
	Skipped uint64
	// Error says why it stopped, Failed at which event: see [Admin.Skip]. While it is
	// tried again they stay, until the view is past the event.
	Error  string
	Failed *FailedEvent
	// Pause is set while the view was told to wait: see [Admin.Pause].
	Pause *Pause
	// Building is the definition version of a generation that is being built
	// beside, 0 for none; BuildPosition is how far it is.
	Building      int
	BuildPosition jetstream.Position
	// Updated is when the checkpoint was written last.
	Updated time.Time
}

// CaughtUp tells whether every commit of the store is in the view.
func (s *ViewStatus) CaughtUp() bool { return s.Lag == 0 && !s.Head.IsZero() }

// ReadStatus asks bucket and store, from outside, how a view is. It needs leave
// to read both. Returns [ErrViewNotFound] and [ErrUnavailable].
func ReadStatus(ctx context.Context, nc *nats.Conn, store, view string) (ViewStatus, error) {
	s := ViewStatus{Store: store, View: view}
	if err := validateNames(store, view); err != nil {
		return s, err
	}
	b := newBucket(nc, store, view)
	m, err := b.leader(ctx, b.pointerSubject())
	if errors.Is(err, wire.ErrNotFound) || missing(err) {
		return s, b.absent()
	}
	if err != nil {
		return s, fmt.Errorf("status of view %q: %w: %w", view, ErrUnavailable, err)
	}
	p, err := decodePointer(m)
	if err != nil {
		return s, err
	}
	told, _, err := b.control(ctx)
	if err != nil {
		return s, fmt.Errorf("status of view %q: %w: %w", view, ErrUnavailable, err)
	}
	s.Pause = told.Pause
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.State == generationOld {
			continue
		}
		m, err := b.leader(ctx, b.checkpointSubject(g.Number))
		if err != nil {
			return s, fmt.Errorf("status of view %q: %w: %w", view, ErrUnavailable, err)
		}
		cp, err := decodeCheckpoint(m)
		if err != nil {
			return s, err
		}
		if g.State == generationBuilding {
			s.Building, s.BuildPosition = g.Version, makePosition(cp.Store, cp.Position)
			continue
		}
		s.Generation, s.Version, s.State, s.Owner, s.Epoch = g.Number, g.Version, cp.State, cp.Owner, cp.Epoch
		s.Position, s.Skipped, s.Error, s.Updated = makePosition(cp.Store, cp.Position), cp.Skipped, cp.Error, cp.Time
		s.Rate, s.Failed = cp.Rate, cp.Failed
		if err := s.head(ctx, b, cp); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *ViewStatus) head(ctx context.Context, b *bucket, cp *checkpoint) error {
	head, err := b.head(ctx)
	if err != nil {
		return err
	}
	s.Head = makePosition(cp.Store, head)
	if head <= cp.Position {
		return nil
	}
	s.Lag = head - cp.Position
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	next, err := wire.LeaderNext(ctx, b.nc, b.store, b.store+".event.>", cp.Position+1)
	if err != nil {
		return fmt.Errorf("status of view %q: %w: %w", b.view, ErrUnavailable, err)
	}
	s.Behind = max(time.Since(next.Time), 1) // The servers' clocks may be ahead.
	return nil
}
