package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/rossby-go/rossby/jetstream"
)

// ImportConfig tunes an [Import].
type ImportConfig struct {
	// Progress is told how far it is, now and then. It must not take long.
	Progress func(Progress)
}

// Import appends the commits of an archive to a new store, which may have another
// name and another number of partitions, but has the same codec. After an error it
// can be called again, with the archive from its beginning: it goes on where the
// store stands. An archive that goes on after another one is imported after that.
//
// Returns a [*FormatError] for the archive and the errors of
// [jetstream.Store.AppendCopies]. What was appended before an error is whole and
// in order.
func Import(ctx context.Context, r io.Reader, to *jetstream.Store, cfg ImportConfig) (Progress, error) {
	in, err := NewReader(r)
	if err != nil {
		return Progress{}, err
	}
	h := in.Header()
	if err := sameCodec(h.Codec, to); err != nil {
		return Progress{}, err
	}
	from := jetstream.CopySource{StoreID: h.StoreID, Follows: h.AfterCommit, Part: h.Part()}
	return appendAll(ctx, to, from, in.Messages(), h.To, cfg.Progress)
}

func sameCodec(codec string, to *jetstream.Store) error {
	if to.Codec().String() == codec {
		return nil
	}
	return &jetstream.SettingsError{
		Store: to.Name(), Field: "Codec", Want: codec, Got: to.Codec().String(),
		Advice: "a copy keeps its bytes: make the store with the codec of the source",
	}
}

func appendAll(
	ctx context.Context, to *jetstream.Store, from jetstream.CopySource, messages iter.Seq2[jetstream.Message, error],
	last uint64, report func(Progress),
) (Progress, error) {
	convert := func(p jetstream.CopyProgress) Progress {
		return Progress{Commits: p.Commits, Bytes: p.Bytes, Present: p.Present, Sequence: p.Source, To: last}
	}
	if report != nil {
		from.Report = func(p jetstream.CopyProgress) { report(convert(p)) }
	}
	p, err := to.AppendCopies(ctx, from, messages)
	return convert(p), err
}

// CopyConfig says what is copied. The zero value is the whole store.
type CopyConfig struct {
	// Type limits it to one aggregate type, ID to one aggregate of that type.
	Type, ID string
	// Progress is told how far it is, now and then. It must not take long.
	Progress func(Progress)
}

// Copy appends the commits of one store to another, which may be on another
// server: everything that the source's leader has when it begins. Called again it
// goes on where the copy stands, so a copy of a store in use is brought up to date
// until its writers move over: docs/archive.md has the procedure. That of a
// selection reads it from its beginning each time.
//
// Errors are those of [Import], and of reading the source.
func Copy(ctx context.Context, from, to *jetstream.Store, cfg CopyConfig) (Progress, error) {
	if err := (Config{Type: cfg.Type, ID: cfg.ID}).Validate(); err != nil {
		return Progress{}, err
	}
	if err := sameCodec(from.Codec().String(), to); err != nil {
		return Progress{}, err
	}
	fail := func(err error) (Progress, error) {
		return Progress{}, fmt.Errorf("copy store %q: %w", from.Name(), err)
	}
	last, err := from.LastSequence(ctx)
	if err != nil {
		return fail(err)
	}
	after := uint64(0)
	h := Header{Type: cfg.Type, ID: cfg.ID}
	copied, err := to.LastCopied(ctx)
	switch {
	case errors.Is(err, jetstream.ErrNotFound), err == nil && h.Part():
		// What is there of a selection is counted from the beginning.
	case err != nil:
		return fail(err)
	default:
		at, err := locate(ctx, from, copied)
		if err != nil {
			return fail(err)
		}
		after = max(at, 1) - 1 // begins with the commit that the copy ends with
	}
	source := jetstream.CopySource{StoreID: from.ID(), Part: h.Part()}
	return appendAll(ctx, to, source, whole(ctx, from, &h, after), last, cfg.Progress)
}

// locate finds a copied commit in the store that it was copied from, 0 when it is
// not where it should be.
func locate(ctx context.Context, from *jetstream.Store, copied *jetstream.Commit) (uint64, error) {
	if copied.Origin == nil {
		return 0, nil
	}
	if copied.Origin.Store == from.ID() {
		return copied.Origin.Sequence, nil
	}
	if strings.HasPrefix(copied.Type, "_") {
		return 0, nil // not a type to ask for: the copy reads from the beginning
	}
	// The source is a copy itself: the place there is not the origin's.
	for m, err := range from.Messages(ctx, copied.Type, copied.ID, jetstream.Range{}) {
		if err != nil {
			return 0, err
		}
		if one(m.Header, headerCommit) == copied.CommitID {
			return m.Sequence, nil
		}
	}
	return 0, nil
}
