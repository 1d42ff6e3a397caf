package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// SinkAdmin looks after a view that is kept in a sink, from any process that
// reaches store and database.
type SinkAdmin struct {
	store *jetstream.Store
	sink  anySink
	view  string
	name  string
}

// NewSinkAdmin is the administration of a view of a store.
func NewSinkAdmin[T any](store *jetstream.Store, sink Sink[T], view string) (*SinkAdmin, error) {
	if store == nil || sink == nil {
		return nil, errors.New("projection: the administration of a view needs a store and a sink")
	}
	if err := jetstream.ValidateName("view name", view); err != nil {
		return nil, err
	}
	return &SinkAdmin{store: store, sink: sinkOf[T]{sink}, view: view, name: SinkName(store.Name(), view)}, nil
}

// Status tells how the view is. Returns [ErrViewNotFound] and [ErrUnavailable].
func (a *SinkAdmin) Status(ctx context.Context) (ViewStatus, error) {
	s := ViewStatus{Store: a.store.Name(), View: a.view}
	cp, err := a.checkpoint(ctx)
	if err != nil {
		return s, err
	}
	told, _, err := a.control(ctx)
	if err != nil {
		return s, err
	}
	s.Version, s.State, s.Owner, s.Epoch, s.Pause = cp.Version, cp.State, cp.Owner, cp.Epoch, told.Pause
	s.Position, s.Skipped, s.Error, s.Updated = makePosition(cp.Store, cp.Position), cp.Skipped, cp.Error, cp.Time
	s.Rate, s.Failed = cp.Rate, cp.Failed
	return s, s.head(ctx, newBucket(a.store.Conn(), a.store.Name(), a.view), &cp.checkpoint)
}

// Pause lets all updaters of the view wait where they are until [SinkAdmin.Resume].
func (a *SinkAdmin) Pause(ctx context.Context, reason string) error {
	return a.change(ctx, func(c *control) error {
		c.Pause = &Pause{Reason: reason, Time: time.Now().UTC()}
		return nil
	})
}

// Resume lets a paused view go on, and a stopped one try again at once.
func (a *SinkAdmin) Resume(ctx context.Context) error {
	return a.change(ctx, func(c *control) error {
		c.Pause = nil
		c.Resumes++
		return nil
	})
}

// Skip lets the view leave out the event that it has stopped at, which is
// [ViewStatus.Failed], and go on. It is left out by later versions of the
// definition, too. Returns [ErrGeneration] when the view has not stopped there.
func (a *SinkAdmin) Skip(ctx context.Context, event FailedEvent, reason string) error {
	if err := validateSkip(event, reason); err != nil {
		return err
	}
	cp, err := a.checkpoint(ctx)
	if err != nil {
		return err
	}
	if f := cp.Failed; f == nil || f.Sequence != event.Sequence || f.EventID != event.EventID {
		return notFailed(event)
	}
	return a.change(ctx, func(c *control) error { return c.skip(event, reason) })
}

// Skips lists the events that were left out on command, and of those that
// [SkipOnError] has left out the latest hundred, with the reasons.
func (a *SinkAdmin) Skips(ctx context.Context) ([]Skipped, error) {
	told, _, err := a.control(ctx)
	if err != nil {
		return nil, err
	}
	cp, err := a.checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	return append(told.Skips, cp.Left...), nil
}

func (a *SinkAdmin) checkpoint(ctx context.Context) (*sinkCheckpoint, error) {
	rec, err := a.sink.load(ctx, a.name)
	if err != nil {
		return nil, fmt.Errorf("view %q: %w: %w", a.view, ErrUnavailable, err)
	}
	if rec.Revision == 0 {
		return nil, fmt.Errorf("%w: there is no record %q: its updater never ran", ErrViewNotFound, a.name)
	}
	return decodeSinkCheckpoint(rec)
}

func (a *SinkAdmin) control(ctx context.Context) (*control, uint64, error) {
	rec, err := a.sink.load(ctx, controlName(a.name))
	if err != nil {
		return nil, 0, fmt.Errorf("view %q: %w: %w", a.view, ErrUnavailable, err)
	}
	c, err := decodeSinkControl(rec)
	return c, rec.Revision, err
}

// change changes what the updaters are told, by compare-and-set.
func (a *SinkAdmin) change(ctx context.Context, change func(*control) error) error {
	for wait := newBackoff(5*time.Millisecond, 200*time.Millisecond); ; {
		c, rev, err := a.control(ctx)
		if errors.Is(err, ErrSink) {
			return err
		}
		if err == nil {
			if err := change(c); err != nil {
				return err
			}
			body, err := json.Marshal(c)
			if err != nil {
				return err
			}
			err = a.sink.transact(ctx, controlName(a.name), rev, body, func(any) error { return nil })
			if err == nil {
				return nil
			}
			if !errors.Is(err, ErrSinkConflict) && !a.sink.transient(err) {
				return fmt.Errorf("view %q: %w: %w", a.view, ErrSink, err)
			}
		}
		if stop := wait.next(ctx); stop != nil {
			return errors.Join(ErrUnavailable, err, stop)
		}
	}
}
