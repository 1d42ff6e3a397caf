package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

const compressionS2 = "s2"

// Progress is how far an export, an import, a copy or a comparison is.
type Progress struct {
	// Commits and Bytes are what was written, or compared, by this call: commits,
	// and the size of their payloads. Present are the commits that were there.
	Commits, Bytes, Present uint64
	// Sequence is the sequence of the last of them in the source, To the one that is
	// to be reached, 0 when it is not known.
	Sequence, To uint64
}

// Config says what is exported. The zero value is the whole store.
type Config struct {
	// Type limits it to one aggregate type, ID to one aggregate of that type.
	Type, ID string
	// After begins after the commit at a position. It must be one of the commits
	// that are exported: usually [End.Position] of the archive that this one goes on
	// after. Defaults to the beginning.
	After jetstream.Position
	// UpTo ends with the commit at a position, or with the transaction that it is
	// in. Defaults to the last commit that the leader has when the export begins.
	UpTo jetstream.Position
	// Compress packs the records with S2.
	Compress bool
	// Progress is told how far it is, now and then. It must not take long.
	Progress func(Progress)
}

// Validate reports every field that [Export] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Type != "" {
		errs = append(errs, jetstream.ValidateName("Type", c.Type))
	}
	if c.ID != "" {
		errs = append(errs, jetstream.ValidateID(c.ID))
		if c.Type == "" {
			errs = append(errs, &jetstream.InvalidError{Field: "ID", Value: c.ID, Reason: "needs a Type"})
		}
	}
	return errors.Join(errs...)
}

// End is what came of an export.
type End struct {
	Header Header
	Summary
	// Position is where an export that goes on after this one begins: its
	// [Config.After].
	Position jetstream.Position
}

// Export writes the commits of a store as an archive. It ends with what the
// stream's leader has when it begins, complete or with an error.
//
// Returns the error of w, those of [jetstream.Store.Scan], and an
// [*jetstream.InvalidError] or [*jetstream.ForeignPositionError] for the
// configuration.
func Export(ctx context.Context, store *jetstream.Store, w io.Writer, cfg Config) (End, error) {
	h, err := newHeader(ctx, store, cfg)
	if err != nil {
		return End{}, fmt.Errorf("export store %q: %w", store.Name(), err)
	}
	out, err := newWriter(w, &h)
	if err != nil {
		return End{}, err
	}
	return export(ctx, store, out, h, cfg)
}

// newHeader fixes what is exported.
func newHeader(ctx context.Context, store *jetstream.Store, cfg Config) (Header, error) {
	if err := cfg.Validate(); err != nil {
		return Header{}, err
	}
	after, err := store.Sequence(cfg.After)
	if err != nil {
		return Header{}, err
	}
	to, err := store.Sequence(cfg.UpTo)
	if err != nil {
		return Header{}, err
	}
	last, err := store.LastSequence(ctx)
	if err != nil {
		return Header{}, err
	}
	switch {
	case to > last:
		return Header{}, &jetstream.InvalidError{
			Field: "UpTo", Value: cfg.UpTo.String(), Reason: fmt.Sprintf("is beyond the store's last commit at %d", last),
		}
	case after > last:
		return Header{}, &jetstream.InvalidError{
			Field: "After", Value: cfg.After.String(), Reason: fmt.Sprintf("is beyond the store's last commit at %d", last),
		}
	case to == 0:
		to = last
	}
	h := Header{
		Store: store.Name(), StoreID: store.ID(), Format: jetstream.FormatVersion, Partitions: store.Partitions(),
		Codec: store.Codec().String(), Type: cfg.Type, ID: cfg.ID, After: after, To: to,
		Created: time.Now().UTC().Truncate(time.Second),
	}
	if cfg.Compress {
		h.Compression = compressionS2
	}
	if after == 0 {
		return h, nil
	}
	c, err := commitAt(ctx, store, &h, after)
	switch {
	case err != nil:
		return Header{}, err
	case c == nil:
		return Header{}, &jetstream.InvalidError{
			Field: "After", Value: cfg.After.String(), Reason: "is not the position of a commit that would be exported",
		}
	case c.LastSequence() != c.Sequence:
		for m, err := range store.Messages(ctx, h.Type, h.ID, jetstream.Range{After: after}) {
			if err != nil {
				return Header{}, err
			}
			if m.Sequence > c.LastSequence() {
				break // the rest of the transaction is not exported anyway
			}
			return Header{}, &jetstream.InvalidError{
				Field: "After", Value: cfg.After.String(),
				Reason: fmt.Sprintf("stands within a transaction, which ends at %s", store.Position(c.LastSequence())),
			}
		}
	}
	h.AfterCommit = c.CommitID
	return h, nil
}

// commitAt is the commit at a sequence, nil when the selection has none there.
func commitAt(ctx context.Context, store *jetstream.Store, h *Header, sequence uint64) (*jetstream.Commit, error) {
	for m, err := range store.Messages(ctx, h.Type, h.ID, jetstream.Range{After: sequence - 1}) {
		if err != nil || m.Sequence != sequence {
			return nil, err
		}
		return jetstream.Decode(&m)
	}
	return nil, nil //nolint:nilnil // none is an answer
}

// export writes what comes after the writer's last record, and the end.
func export(ctx context.Context, store *jetstream.Store, out *writer, h Header, cfg Config) (End, error) {
	p := Progress{To: h.To, Present: out.summary.Commits, Sequence: out.summary.Last}
	tell := func() {
		if cfg.Progress != nil {
			cfg.Progress(p)
		}
	}
	fail := func(err error) (End, error) {
		return End{Header: h, Summary: out.whole}, fmt.Errorf("export store %q: %w", h.Store, err)
	}
	tell()
	for m, err := range commits(ctx, store, &h, max(h.After, out.summary.Last)) {
		if err != nil {
			// What was read is whole: it need not be read again.
			return fail(errors.Join(err, out.flush()))
		}
		flushed, err := out.add(&m)
		if err != nil {
			return fail(err)
		}
		p.Commits++
		p.Bytes += uint64(len(m.Data))
		p.Sequence = m.Sequence
		if flushed {
			tell()
		}
	}
	s, err := out.end()
	if err != nil {
		return fail(err)
	}
	p.Sequence = h.To
	tell()
	return End{Header: h, Summary: s, Position: store.Position(max(s.Last, h.After))}, nil
}

// commits yields the messages of a selection up to the header's To, and those of
// the transaction that ends beyond it.
func commits(ctx context.Context, store *jetstream.Store, h *Header, after uint64) iter.Seq2[jetstream.Message, error] {
	return func(yield func(jetstream.Message, error) bool) {
		var last *jetstream.Commit
		for m, err := range whole(ctx, store, h, after) {
			if err == nil && m.Sequence > h.To && (last == nil || last.Tx == nil || last.LastSequence() < m.Sequence) {
				return
			}
			if err == nil {
				last, err = jetstream.Decode(&m)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// whole yields the messages of a selection to its last, and the rest of a
// transaction that the leader was about to store when it was asked for its last.
func whole(ctx context.Context, store *jetstream.Store, h *Header, after uint64) iter.Seq2[jetstream.Message, error] {
	return func(yield func(jetstream.Message, error) bool) {
		r := jetstream.Range{After: after}
		for {
			var last *jetstream.Message
			for m, err := range store.Messages(ctx, h.Type, h.ID, r) {
				if !yield(m, err) || err != nil {
					return
				}
				last = &m
			}
			if last == nil || h.Part() {
				return
			}
			c, err := jetstream.Decode(last)
			if err != nil || c.LastSequence() == c.Sequence {
				return // who ranges over it has seen the error
			}
			r = jetstream.Range{After: c.Sequence, To: c.LastSequence()}
		}
	}
}

// ExportFile exports into a file. A file that an interrupted export of the same
// store and selection left behind is completed: it goes on after the last part
// that is whole, up to where the first attempt was to go. Two of them must not
// write one file.
//
// Returns [ErrComplete], [ErrOtherExport], [ErrNotArchive] or [ErrNewer] for a
// file that it must not touch, [jetstream.ErrStoreWentBack] for one of which the
// store has lost something, which it does not touch either, and the errors of
// [Export].
func ExportFile(ctx context.Context, store *jetstream.Store, path string, cfg Config) (_ End, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return End{}, fmt.Errorf("export store %q: %w", store.Name(), err)
	}
	defer func() {
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}()
	info, err := f.Stat()
	if err != nil {
		return End{}, fmt.Errorf("export store %q: %w", store.Name(), err)
	}
	if info.Size() == 0 {
		return Export(ctx, store, f, cfg)
	}
	end, err := resume(ctx, store, f, cfg)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return end, err
}

// resume completes a file.
func resume(ctx context.Context, store *jetstream.Store, f *os.File, cfg Config) (End, error) {
	if err := cfg.Validate(); err != nil {
		return End{}, err
	}
	h, offset, last, err := examine(f)
	if errors.Is(err, errBegin) {
		if err := f.Truncate(0); err != nil {
			return End{}, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return End{}, err
		}
		return Export(ctx, store, f, cfg)
	}
	if err != nil {
		return End{}, err
	}
	if err := sameExport(store, &h, cfg); err != nil {
		return End{}, err
	}
	// As long as the store does not have what belongs there, the file may be all that
	// is left of it.
	if err := held(ctx, store, &h, last); err != nil {
		return End{}, err
	}
	out, err := reopen(f, &h, offset)
	if err != nil {
		return End{}, err
	}
	return export(ctx, store, out, h, cfg)
}

// held checks that the store still has what the file holds, and goes on to where the
// first attempt was to go.
func held(ctx context.Context, store *jetstream.Store, h *Header, last Summary) error {
	if err := store.CheckPosition(ctx, store.Position(h.To)); err != nil {
		return err
	}
	if last.Commits == 0 {
		return nil
	}
	c, err := commitAt(ctx, store, h, last.Last)
	if err == nil && (c == nil || c.CommitID != last.LastCommit) {
		err = fmt.Errorf("%w: the file's last commit %s is not at %d of the store any more",
			jetstream.ErrStoreWentBack, last.LastCommit, last.Last)
	}
	return err
}

// errBegin tells a file with nothing whole in it.
var errBegin = errors.New("nothing is whole")

// examine finds where the last whole part of an incomplete archive ends.
func examine(f *os.File) (h Header, offset int64, last Summary, err error) {
	r, err := NewReader(f)
	if errors.Is(err, ErrTruncated) {
		return h, 0, last, errBegin
	}
	if err != nil {
		return h, 0, last, err
	}
	for _, err := range r.Messages() {
		if err == nil {
			continue
		}
		// Whatever stands there, the store has what belongs there.
		if errors.Is(err, ErrTruncated) || errors.Is(err, ErrDamaged) {
			return r.header, r.offset, r.summary, nil
		}
		return h, 0, last, err
	}
	return h, 0, last, fmt.Errorf("%w: it ends with the commit at %d", ErrComplete, r.summary.Last)
}

// sameExport refuses to go on with what another export began.
func sameExport(store *jetstream.Store, h *Header, cfg Config) error {
	after, err := store.Sequence(cfg.After)
	if err != nil {
		return err
	}
	to, err := store.Sequence(cfg.UpTo)
	if err != nil {
		return err
	}
	switch {
	case h.StoreID != store.ID():
		err = fmt.Errorf("%w: of store %q with id %s, this one has id %s", ErrOtherExport, h.Store, h.StoreID, store.ID())
	case h.Type != cfg.Type || h.ID != cfg.ID:
		err = fmt.Errorf("%w: limited to type %q and id %q, not %q and %q", ErrOtherExport, h.Type, h.ID, cfg.Type, cfg.ID)
	case h.After != after, to != 0 && h.To != to:
		err = fmt.Errorf("%w: from %d to %d", ErrOtherExport, h.After, h.To)
	}
	return err
}

// reopen goes on behind the last whole part of a file, whose checksums it needs
// from the beginning.
func reopen(f *os.File, h *Header, offset int64) (*writer, error) {
	if err := f.Truncate(offset); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := NewReader(f)
	if err != nil {
		return nil, err
	}
	for _, err := range r.Messages() {
		if err != nil && (r.offset != offset || !errors.Is(err, ErrTruncated)) {
			return nil, err
		}
	}
	_, err = f.Seek(offset, io.SeekStart)
	return &writer{w: f, hash: r.hash, pack: h.Compression != "", summary: r.summary, whole: r.summary}, err
}
