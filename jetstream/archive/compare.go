package archive

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// DifferencesDefault is the default of [CompareConfig.Differences].
const DifferencesDefault = 20

// CompareConfig tunes a comparison. Type and ID are those of the copy.
type CompareConfig struct {
	// Type limits it to one aggregate type, ID to one aggregate of that type. An
	// archive says itself what it is limited to.
	Type, ID string
	// Differences ends the comparison after as many. Defaults to
	// [DifferencesDefault].
	Differences int
	// Progress is told how far it is, now and then. It must not take long.
	Progress func(Progress)
}

// Kind is how a copy differs from its source.
type Kind string

// The kinds of differences.
const (
	// Missing is a commit of the source that the copy lacks.
	Missing Kind = "missing"
	// Extra is a commit that the source lacks, or that stands in another order.
	Extra Kind = "extra"
	// Payload is a commit with other bytes.
	Payload Kind = "payload"
	// Headers is a commit with another place in its aggregate's history, other
	// events or other headers.
	Headers Kind = "headers"
	// Place is a commit on a subject that is not its aggregate's.
	Place Kind = "place"
	// Origin is a commit that does not say where it was stored first.
	Origin Kind = "origin"
)

// Difference is one difference between a copy and its source.
type Difference struct {
	Kind Kind
	// Source and Copy are the commit's sequences, 0 where it is not.
	Source, Copy       uint64
	Type, ID, CommitID string
	Detail             string
}

// String is the difference as one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s: commit %s of %s %q, at %d of the source, %d of the copy: %s",
		d.Kind, d.CommitID, d.Type, d.ID, d.Source, d.Copy, d.Detail)
}

// Report is what a comparison found.
type Report struct {
	// Commits are those found equal, Aggregates the number of aggregates that begin
	// among them.
	Commits, Aggregates uint64
	// Differences are the first ones, in order. There may be more when there are as
	// many as the configuration allows.
	Differences []Difference
}

// Equal tells whether the copy is one.
func (r *Report) Equal() bool { return len(r.Differences) == 0 }

// Compare compares a store with its copy, commit by commit in the order of the
// store: the same commits in the same order, each with the same payload byte for
// byte, the same place in its aggregate's history, the right subject and the right
// origin. Both are read once, in bounded memory, up to what their leaders have
// when it begins. Errors are those of reading them.
func Compare(ctx context.Context, from, to *jetstream.Store, cfg CompareConfig) (Report, error) {
	if err := (Config{Type: cfg.Type, ID: cfg.ID}).Validate(); err != nil {
		return Report{}, err
	}
	h := Header{Type: cfg.Type, ID: cfg.ID, StoreID: from.ID()}
	return compare(ctx, whole(ctx, from, &h, 0), &h, to, cfg)
}

// CompareArchive compares an archive with the store that it was imported into. An
// archive that goes on after another one is compared from where it begins. Errors
// are those of [Import].
func CompareArchive(ctx context.Context, r io.Reader, to *jetstream.Store, cfg CompareConfig) (Report, error) {
	in, err := NewReader(r)
	if err != nil {
		return Report{}, err
	}
	h := in.Header()
	return compare(ctx, in.Messages(), &h, to, cfg)
}

type comparison struct {
	h      *Header
	to     *jetstream.Store
	cfg    CompareConfig
	report Report
}

func compare(
	ctx context.Context, source iter.Seq2[jetstream.Message, error], h *Header, to *jetstream.Store, cfg CompareConfig,
) (Report, error) {
	if cfg.Differences <= 0 {
		cfg.Differences = DifferencesDefault
	}
	c := &comparison{h: h, to: to, cfg: cfg}
	begin := uint64(0)
	if h.After > 0 {
		var err error
		if begin, err = c.find(ctx, h.AfterCommit); err != nil {
			return c.report, err
		}
	}
	copies, stop := iter.Pull2(to.Messages(ctx, "", "", jetstream.Range{After: begin}))
	defer stop()
	next := func() (*side, error) {
		m, err, ok := copies()
		if err != nil || !ok {
			return nil, err
		}
		return newSide(m, to.ID())
	}
	there, err := next()
	if err != nil {
		return c.report, err
	}
	for m, err := range source {
		if err != nil {
			return c.report, err
		}
		here, err := newSide(m, h.StoreID)
		if err != nil {
			return c.report, err
		}
		for there != nil && there.before(here) {
			c.differ(Extra, nil, there, "the source lacks it, or has it elsewhere")
			if there, err = next(); err != nil || c.full() {
				return c.report, err
			}
		}
		if there == nil || there.commit.CommitID != here.commit.CommitID {
			c.differ(Missing, here, nil, "the copy lacks it, or has it elsewhere")
		} else {
			c.pair(here, there)
			if there, err = next(); err != nil {
				return c.report, err
			}
		}
		if c.full() {
			return c.report, nil
		}
	}
	for there != nil && !c.full() {
		c.differ(Extra, nil, there, "the source lacks it")
		if there, err = next(); err != nil {
			return c.report, err
		}
	}
	c.tell(0)
	return c.report, nil
}

// find is where a commit stands in the copy.
func (c *comparison) find(ctx context.Context, commitID string) (uint64, error) {
	for m, err := range c.to.Messages(ctx, "", "", jetstream.Range{}) {
		if err != nil {
			return 0, err
		}
		if one(m.Header, headerCommit) == commitID {
			return m.Sequence, nil
		}
	}
	return 0, &jetstream.CopyError{
		Store: c.to.Name(), CommitID: commitID, Reason: "is what the archive goes on after, and is not there",
		Cause: jetstream.ErrNotACopy,
	}
}

func (c *comparison) full() bool { return len(c.report.Differences) >= c.cfg.Differences }

func (c *comparison) tell(sequence uint64) {
	if c.cfg.Progress != nil {
		c.cfg.Progress(Progress{Commits: c.report.Commits, Sequence: sequence, To: c.h.To})
	}
}

func (c *comparison) differ(kind Kind, here, there *side, detail string) {
	d := Difference{Kind: kind, Detail: detail}
	for _, s := range []*side{there, here} {
		if s != nil {
			d.Type, d.ID, d.CommitID = s.commit.Type, s.commit.ID, s.commit.CommitID
		}
	}
	if here != nil {
		d.Source = here.commit.Sequence
	}
	if there != nil {
		d.Copy = there.commit.Sequence
	}
	c.report.Differences = append(c.report.Differences, d)
}

// side is a commit as one of the two has it.
type side struct {
	message jetstream.Message
	commit  *jetstream.Commit
	// origin is where it was stored first: it orders the commits of both.
	origin jetstream.Origin
	native bool
}

func newSide(m jetstream.Message, storeID string) (*side, error) {
	c, err := jetstream.Decode(&m)
	if err != nil {
		return nil, err
	}
	s := &side{message: m, commit: c, native: c.Origin == nil}
	if s.native {
		s.origin = jetstream.Origin{Store: storeID, Sequence: m.Sequence, Time: m.Time.UTC()}
	} else {
		s.origin = *c.Origin
	}
	return s, nil
}

// before tells whether the copy's commit was to come before the source's. What was
// written into the copy itself is never in the source.
func (s *side) before(source *side) bool {
	if s.commit.CommitID == source.commit.CommitID {
		return false
	}
	return s.native || s.origin.Store == source.origin.Store && s.origin.Sequence < source.origin.Sequence
}

// pair compares a commit with its copy.
func (c *comparison) pair(here, there *side) {
	before := len(c.report.Differences)
	a, b := here.commit, there.commit
	if a.Type != b.Type || a.ID != b.ID {
		c.differ(Place, here, there, fmt.Sprintf("it is one of %s %q there", b.Type, b.ID))
	} else if want := place(c.to, b.Type, b.ID); there.message.Subject != want {
		c.differ(Place, here, there, fmt.Sprintf("subject %q is not %q", there.message.Subject, want))
	}
	if !bytes.Equal(here.message.Data, there.message.Data) {
		c.differ(Payload, here, there, fmt.Sprintf("%d bytes of %d differ", differing(here.message.Data, there.message.Data),
			len(here.message.Data)))
	}
	if there.native || !there.origin.Time.Equal(here.origin.Time) || there.origin.Store != here.origin.Store ||
		there.origin.Sequence != here.origin.Sequence {
		c.differ(Origin, here, there, fmt.Sprintf("%+v is not %+v", there.origin, here.origin))
	}
	want, got := headers(here.message.Header), headers(there.message.Header)
	if c.h.Part() && want[headerTx] != got[headerTx] {
		// The rest of a transaction is one by itself, and says what it was.
		want[headerOriginTx] = cmp.Or(want[headerOriginTx], want[headerTx])
		delete(want, headerTx)
		delete(got, headerTx)
	}
	if !maps.Equal(want, got) {
		c.differ(Headers, here, there, fmt.Sprintf("%v are not %v", got, want))
	}
	if len(c.report.Differences) > before {
		return
	}
	c.report.Commits++
	if a.Ordinal == 1 {
		c.report.Aggregates++
	}
	if c.report.Commits%1000 == 0 {
		c.tell(a.Sequence)
	}
}

func place(s *jetstream.Store, typ, id string) string {
	return s.Name() + ".event." + typ + "." + strconv.Itoa(jetstream.Partition(id, s.Partitions())) + "." + id
}

func differing(a, b []byte) int {
	n := max(len(a), len(b)) - min(len(a), len(b))
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// headers are those that a copy keeps, as texts.
func headers(h nats.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if !strings.HasPrefix(strings.ToLower(name), "nats-") && name != headerOrigin {
			out[name] = strings.Join(values, "\n")
		}
	}
	return out
}
