package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// maxSkips bounds the events that are skipped on command.
const maxSkips = 1000

// FailedEvent is the event that a view has stopped at.
type FailedEvent struct {
	// Sequence is the stream sequence of its commit. EventID is empty when the
	// whole commit could not be read.
	Sequence uint64 `json:"sequence"`
	EventID  string `json:"eventId,omitempty"`
	// Event is its name, Type and ID are those of its aggregate, Key is the view's
	// key when one was folded.
	Event string `json:"event,omitempty"`
	Type  string `json:"type,omitempty"`
	ID    string `json:"id,omitempty"`
	Key   string `json:"key,omitempty"`
}

// Skipped is an event that a person has told the view to leave out: see
// [Admin.Skip].
type Skipped struct {
	FailedEvent

	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Pause says why a view was told to wait, and when.
type Pause struct {
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// control is what people tell the updaters of a view.
type control struct {
	Format int `json:"format"`
	// Pause is set while the view must wait.
	Pause *Pause `json:"pause,omitempty"`
	// Resumes counts the commands to go on: a stopped updater tries again.
	Resumes uint64 `json:"resumes,omitempty"`
	// Skips are left out by every generation, so that a rebuilt view is as the one
	// before.
	Skips []Skipped `json:"skips,omitempty"`
	// Rebuilds are the partial rebuilds that were asked for, with their outcome.
	Rebuilds []rebuild `json:"rebuilds,omitempty"`
}

func (c *control) skips(sequence uint64, eventID string) bool {
	return slices.ContainsFunc(c.Skips, func(s Skipped) bool {
		return s.Sequence == sequence && (s.EventID == "" || s.EventID == eventID)
	})
}

// skip adds an event that is to be left out.
func (c *control) skip(event FailedEvent, reason string) error {
	if c.skips(event.Sequence, event.EventID) {
		c.Resumes++
		return nil
	}
	if len(c.Skips) >= maxSkips {
		return fmt.Errorf("%w: %d events are skipped already", ErrGeneration, maxSkips)
	}
	c.Skips = append(c.Skips, Skipped{FailedEvent: event, Reason: reason, Time: time.Now().UTC()})
	return nil
}

func validateSkip(event FailedEvent, reason string) error {
	if event.Sequence == 0 || reason == "" {
		return &jetstream.InvalidError{
			Field: "skip", Value: fmt.Sprintf("sequence %d, reason %q", event.Sequence, reason),
			Reason: "needs the event's sequence and a reason",
		}
	}
	return nil
}

func notFailed(event FailedEvent) error {
	return fmt.Errorf("%w: the view has not stopped at event %q of sequence %d",
		ErrGeneration, event.EventID, event.Sequence)
}

func (b *bucket) controlSubject() string { return b.prefix + "_rossby.control" }

// control reads what the view's updaters were told, and the revision of that, 0
// when nothing was ever said.
func (b *bucket) control(ctx context.Context) (*control, uint64, error) {
	c := &control{Format: checkpointFormat}
	m, err := b.leader(ctx, b.controlSubject())
	if errors.Is(err, wire.ErrNotFound) {
		return c, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if err := decodeControl(m, c); err != nil {
		return nil, 0, err
	}
	return c, m.Sequence, nil
}

func decodeControl(m *jetstream.Message, c *control) error {
	if err := json.Unmarshal(m.Data, c); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBucket, m.Subject, err)
	}
	if c.Format != checkpointFormat {
		return fmt.Errorf("%w: %s is of format %d, this program reads %d", ErrBucket, m.Subject, c.Format, checkpointFormat)
	}
	return nil
}

// errControl ends a session because people said something new.
var errControl = errors.New("the view was told something new")

// watchControl ends with [errControl] when there is something new. It looks four
// times in the time of a lease, or of the default one if that is shorter, and when it
// gets a hint.
func (u *Updater) watchControl(ctx context.Context, known uint64, hint *hints) error {
	for {
		if err := u.pause(ctx, u.cfg.often(4), hint); err != nil {
			return err
		}
		_, rev, err := u.b.control(ctx)
		if err == nil && rev != known {
			return errControl
		}
		if u.b.nc.IsClosed() {
			return closedError(u.b.nc)
		}
	}
}

// pause waits for a time, a hint, or the end of ctx, which is an error.
func (u *Updater) pause(ctx context.Context, d time.Duration, hint *hints) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-hint.ch:
	case <-t.C:
	}
	return nil
}

// change changes what the updaters are told, by compare-and-set, and wakes them.
func (b *bucket) change(ctx context.Context, change func(*control) error) error {
	for wait := newBackoff(5*time.Millisecond, 200*time.Millisecond); ; {
		c, rev, err := b.control(ctx)
		if err == nil {
			if err := change(c); err != nil {
				return err
			}
			err = b.write(ctx, b.controlSubject(), c, rev)
			if err == nil {
				b.wake()
				return nil
			}
		}
		if missing(err) {
			return b.absent()
		}
		if stop := errors.Join(wait.next(ctx), closedError(b.nc)); stop != nil {
			return errors.Join(ErrUnavailable, err, stop)
		}
	}
}

// write stores one of the toolkit's own keys, expecting its revision.
func (b *bucket) write(ctx context.Context, subject string, value any, rev uint64) error {
	m, err := b.message(subject, value, rev)
	if err != nil {
		return err
	}
	_, err = send(ctx, b, []*nats.Msg{m})
	return err
}

// wake lets the updaters look at once instead of a little later.
func (b *bucket) wake() {
	_ = b.nc.Publish(b.hintSubject(), nil)
	_ = b.nc.Flush()
}
