package projection

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// Sink is a database that keeps a view's rows and the view's record together, so
// that both change in one transaction. That makes each event's effect happen
// exactly once, whatever crashes. T is what handlers write with: a *sql.Tx, a
// pgx.Tx, a session.
//
// A record is a few hundred bytes under a name, with a revision that counts its
// writes: a table of three columns will do. Names are those of [SinkName] and
// begin with it. Package sinktest holds what every sink must do; a sink may be
// used by many updaters at once.
type Sink[T any] interface {
	// Load returns the record that was committed last under a name, the zero
	// SinkRecord when there is none. It must not ask a replica that may be behind.
	Load(ctx context.Context, name string) (SinkRecord, error)
	// Transact begins a transaction; gives the record the data and the revision
	// expected+1, if its revision is still the expected one, 0 for no record yet;
	// calls apply; and commits. In this order: whoever else wants the record waits
	// then until the transaction has ended.
	//
	// It returns [ErrSinkConflict] when the revision is another one, and calls
	// nothing. Whenever it returns an error that is known, nothing is stored: an
	// error of apply, which it returns wrapped, rolls everything back. Only an error
	// of the commit may leave it open. The end of ctx ends the transaction, even
	// while apply goes on, and nobody waits for it any longer.
	Transact(ctx context.Context, name string, expected uint64, data []byte, apply func(tx T) error) error
	// Transient tells whether an error may pass by itself: the database cannot be
	// reached, is busy or full, or has ended the transaction for another's sake. It
	// is asked about errors of the sink, and of handlers that used its transaction:
	// no event is blamed for those, and they are tried for as long as it takes.
	Transient(err error) bool
}

// SinkRecord is what a sink keeps for an updater beside the view's rows. Read
// together with the rows, in one snapshot, it tells how far they are.
type SinkRecord struct {
	// Revision counts the writes; 0 is no record.
	Revision uint64
	// Data is JSON. Its field "position" is the sequence in the store's stream up to
	// which every event is in the rows; [SinkRecord.Position] is that as a position.
	Data []byte
}

// Position is how far the rows are that were read with the record.
func (r SinkRecord) Position() (jetstream.Position, error) {
	cp, err := decodeSinkCheckpoint(r)
	if err != nil {
		return jetstream.Position{}, err
	}
	return makePosition(cp.Store, cp.Position), nil
}

// Reached tells whether the rows that were read with the record hold every event
// up to a position, such as that of the caller's own write.
func (r SinkRecord) Reached(p jetstream.Position) (bool, error) {
	cp, err := decodeSinkCheckpoint(r)
	if err != nil {
		return false, err
	}
	store, sequence := splitPosition(p)
	switch {
	case sequence == 0:
		return true, nil
	case cp.Store == "":
		return false, nil // Its updater never ran.
	case cp.Store != store:
		return false, &jetstream.ForeignPositionError{Position: p, Store: cp.View}
	}
	return cp.Position >= sequence, nil
}

// SinkName is the name of a view's record: <store>_<view>.
func SinkName(store, view string) string { return store + "_" + view }

// controlName is the name of the record that tells a view's updaters what people
// want.
func controlName(name string) string { return name + "_control" }

// maxRecorded bounds the events that a checkpoint lists as left out.
const maxRecorded = 100

// sinkCheckpoint is what is in a view's record.
type sinkCheckpoint struct {
	checkpoint

	// Left are the events that were left out by policy, the latest of them.
	Left []Skipped `json:"left,omitempty"`
}

// leave records that an event is left out.
func (c *sinkCheckpoint) leave(e *FoldError) {
	left := Skipped{FailedEvent: *e.event(), Reason: shorten(e.Cause.Error()), Time: time.Now().UTC()}
	c.Left = append(append([]Skipped(nil), c.Left...), left)
	if n := len(c.Left); n > maxRecorded {
		c.Left = c.Left[n-maxRecorded:]
	}
	c.Skipped++
}

func decodeSinkCheckpoint(r SinkRecord) (*sinkCheckpoint, error) {
	c := new(sinkCheckpoint)
	if r.Revision == 0 {
		return c, nil
	}
	if err := json.Unmarshal(r.Data, c); err != nil {
		return nil, fmt.Errorf("%w: the view's record: %w", ErrSink, err)
	}
	if c.Format != checkpointFormat {
		return nil, fmt.Errorf("%w: the view's record is of format %d, this program reads %d",
			ErrSink, c.Format, checkpointFormat)
	}
	return c, nil
}

func decodeSinkControl(r SinkRecord) (*control, error) {
	c := &control{Format: checkpointFormat}
	if r.Revision == 0 {
		return c, nil
	}
	if err := json.Unmarshal(r.Data, c); err != nil {
		return nil, fmt.Errorf("%w: the view's control record: %w", ErrSink, err)
	}
	if c.Format != checkpointFormat {
		return nil, fmt.Errorf("%w: the view's control record is of format %d, this program reads %d",
			ErrSink, c.Format, checkpointFormat)
	}
	return c, nil
}

// sinkPatience is how long the database may take for what is always little work.
const sinkPatience = 10 * time.Second

// anySink is a [Sink] of any transaction.
type anySink interface {
	load(ctx context.Context, name string) (SinkRecord, error)
	transact(ctx context.Context, name string, expected uint64, data []byte, apply func(tx any) error) error
	transient(err error) bool
}

type sinkOf[T any] struct{ sink Sink[T] }

func (s sinkOf[T]) load(ctx context.Context, name string) (SinkRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, sinkPatience)
	defer cancel()
	return s.sink.Load(ctx, name)
}

func (s sinkOf[T]) transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx any) error,
) error {
	return s.sink.Transact(ctx, name, expected, data, func(tx T) error { return apply(tx) })
}

func (s sinkOf[T]) transient(err error) bool { return s.sink.Transient(err) }
