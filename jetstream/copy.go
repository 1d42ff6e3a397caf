package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// Messages yields the messages that hold the commits of the store, of one
// aggregate type, or of one aggregate, in order and as they are stored. The
// genesis is left out. It is complete as [Store.Scan] is; of the range, Backwards
// and Events are refused. It is for copies: who reads commits uses [Store.Scan] and
// [Store.History].
func (s *Store) Messages(ctx context.Context, typ, id string, r Range) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		filter, err := s.selection(typ, id)
		err = errors.Join(err, r.validate(false))
		if r.Backwards || len(r.Events) > 0 {
			err = errors.Join(err, &InvalidError{
				Field: "Range", Value: fmt.Sprint(r), Reason: "is backwards or of some events only, which is no copy",
			})
		}
		if err != nil {
			yield(Message{}, err)
			return
		}
		b, err := s.span(ctx, filter, &r)
		if err != nil {
			yield(Message{}, fmt.Errorf("messages of store %q: %w", s.name, err))
			return
		}
		if b.end <= b.after {
			return
		}
		s.messages(ctx, filter, b, func(m Message, err error) bool {
			switch {
			case err != nil:
				return yield(Message{}, fmt.Errorf("messages of store %q: %w", s.name, err))
			case IsGenesis(&m):
				return true
			}
			return yield(m, nil)
		})
	}
}

// selection is the filter of a selection.
func (s *Store) selection(typ, id string) (string, error) {
	switch {
	case id != "":
		return s.Subject(typ, id)
	case typ != "":
		return s.SubjectFilter(typ), ValidateName("aggregate type", typ)
	}
	return wire.Everything, nil
}

func (s *Store) leaderLast(ctx context.Context, subject string) (Message, error) {
	m, err := s.last(ctx, subject, Leader)
	if errors.Is(err, wire.ErrNotFound) {
		err = ErrNotFound
	}
	return m, err
}

// CopySource is what the messages given to [Store.AppendCopies] were read from.
type CopySource struct {
	// StoreID is the id of the store they come from.
	StoreID string
	// Follows is the id of the commit before the first message, in the order of the
	// source. Empty: the messages begin at the beginning, or, unless Part is set, with
	// the store's last commit.
	Follows string
	// Part tells that the messages leave out some of the store's aggregates. Of a
	// transaction that loses commits that way, the rest is numbered anew.
	Part bool
	// Report is told how far the copy is, now and then and at its end. It must not
	// take long.
	Report func(CopyProgress)
}

// CopyProgress is how far a copy is.
type CopyProgress struct {
	// Commits are those copied by this call, Present those that the store had
	// before, and Bytes the size of the payloads of Commits.
	Commits, Present, Bytes uint64
	// Source is the sequence of the last of them in the source.
	Source uint64
	// Sequence is the sequence of the last one in this store.
	Sequence uint64
}

// AppendCopies appends commits of another store, in their order, each stored
// exactly once. Ids, chain, ordinals, versions and payloads stay what they are,
// byte for byte; the subject is the one that belongs to this store's partitions;
// [Commit.Origin] says where and when the commit was stored first, and stays what
// it is on a commit that was copied before.
//
// It goes on where the store stands: messages up to the one that is the store's
// last commit are passed over. So after any error it can be called again with the
// same messages, by any process. A store that holds anything else than copies of
// these messages is refused, and nobody else may write to it meanwhile: the order
// of the store is guarded, message by message, and a foreign commit ends the copy.
//
// A transaction is appended as one. Many commits are on their way at once, but on
// a replicated stream never two of one aggregate.
//
// Returns a [*CopyError], a [*FormatError] for a message that is no commit, a
// [*RefusedError] for one that the server will not store, a [*PermissionError],
// [ErrUnavailable] when
// NATS did not answer for [Config.AppendTimeout] and ctx has no deadline, the
// cause of ctx's end, and the errors of messages.
func (s *Store) AppendCopies(
	ctx context.Context, from CopySource, messages iter.Seq2[Message, error],
) (CopyProgress, error) {
	if from.StoreID == s.id {
		return CopyProgress{}, &CopyError{Store: s.name, Reason: "would copy the store into itself"}
	}
	if !token(from.StoreID) {
		return CopyProgress{}, &InvalidError{Field: "StoreID", Value: from.StoreID, Reason: reasonToken}
	}
	var progress CopyProgress
	mine := func(subject string) bool { return strings.HasPrefix(subject, s.prefix) }
	err := wire.Watched(ctx, s.nc, mine, func(ctx context.Context) (err error) {
		progress, err = s.appendCopies(ctx, from, messages)
		return err
	})
	if denied, ok := errors.AsType[*PermissionError](err); ok {
		return progress, fmt.Errorf("copy into store %q: %w", s.name, denied)
	}
	return progress, err
}

func (s *Store) appendCopies(
	ctx context.Context, from CopySource, messages iter.Seq2[Message, error],
) (CopyProgress, error) {
	c, err := newCopier(ctx, s, from)
	if err != nil {
		return CopyProgress{}, err
	}
	defer c.close()
	for m, err := range messages {
		var commit *Commit
		if err == nil {
			commit, err = Decode(&m)
		}
		if err != nil {
			// What is on its way is decided, so that the report is true.
			c.group = nil
			if ctx.Err() == nil {
				err = errors.Join(err, c.finish(ctx))
			}
			return c.progress, err
		}
		if err := c.add(ctx, &m, commit); err != nil {
			return c.progress, err
		}
	}
	if err := c.finish(ctx); err != nil {
		return c.progress, err
	}
	if c.skipTo != "" {
		last := c.last
		return c.progress, &CopyError{
			Store: s.name, Type: last.Type, ID: last.ID, CommitID: last.CommitID,
			Reason: "is the store's last and is not among what is to be copied", Cause: ErrNotACopy,
		}
	}
	c.report()
	return c.progress, nil
}

// copyHeaders are the headers of a copy without its place: what NATS said of the
// message where it stood is left out.
func copyHeaders(m *Message, storeID string) nats.Header {
	h := make(nats.Header, len(m.Header)+3)
	maps.Copy(h, m.Header)
	maps.DeleteFunc(h, func(name string, _ []string) bool { return foreignHeader(name) })
	if header(h, headerOrigin) == "" {
		h[headerOrigin] = []string{originText(&Origin{Store: storeID, Sequence: m.Sequence, Time: m.Time})}
	}
	return h
}

// foreignHeader tells headers that mean something to the server.
func foreignHeader(name string) bool { return len(name) >= 5 && strings.EqualFold(name[:5], "Nats-") }

func originText(o *Origin) string {
	return o.Store + " " + strconv.FormatUint(o.Sequence, 10) + " " + o.Time.UTC().Format(time.RFC3339Nano)
}

// AddedHeader tells headers that the server adds to the messages that it returns:
// they were not published.
func AddedHeader(name string) bool {
	switch name {
	case nats.JSStream, nats.JSSubject, nats.JSSequence, nats.JSTimeStamp, nats.JSLastSequence, "Nats-Num-Pending",
		"Nats-UpTo-Sequence":
		return true
	}
	return false
}
