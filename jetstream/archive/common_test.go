package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// open makes a store of its own.
func open(t testing.TB, nc *nats.Conn, cfg jetstream.Config) *jetstream.Store {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = natstest.Name(t)
	}
	cfg.AppendTimeout = natstest.Patience
	s, err := jetstream.Open(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// filler writes commits of every kind.
type filler struct {
	t     testing.TB
	store *jetstream.Store
	rand  *rand.Rand
	heads map[string]jetstream.Head
	ids   []string // "type id"
	last  uint64
	keys  map[jetstream.Key]jetstream.Owner
}

func newFiller(t testing.TB, s *jetstream.Store) *filler {
	t.Helper()
	return &filler{
		t: t, store: s, rand: rand.New(rand.NewPCG(1, 2)), heads: map[string]jetstream.Head{}, keys: map[jetstream.Key]jetstream.Owner{},
	}
}

// many is how many messages a large store has.
func many() int {
	if testing.Short() {
		return 800
	}
	return 3000
}

// fill appends n messages: commits of three types, some without events, some with
// state, some in transactions.
func fill(t testing.TB, s *jetstream.Store, n int) *filler {
	t.Helper()
	f := newFiller(t, s)
	f.fill(n)
	return f
}

func (f *filler) fill(n int) {
	f.t.Helper()
	begin := max(f.last, 1)
	for f.last = begin; f.last < begin+uint64(n); {
		if left := begin + uint64(n) - f.last; f.rand.IntN(60) == 0 && left > 10 {
			f.transaction(2 + f.rand.IntN(4))
			continue
		}
		f.append(f.pick())
	}
}

// pick chooses an aggregate, a new one now and then.
func (f *filler) pick() string {
	if len(f.ids) == 0 || f.rand.IntN(8) == 0 {
		types := []string{"account", "order", "customer"}
		f.ids = append(f.ids, fmt.Sprintf("%s %x-ü", types[f.rand.IntN(3)], f.rand.Uint64()))
		return f.ids[len(f.ids)-1]
	}
	return f.ids[f.rand.IntN(len(f.ids))]
}

// write is a commit after the aggregate's last one.
func (f *filler) write(key string) jetstream.Write {
	typ, id, _ := strings.Cut(key, " ")
	data := []byte(fmt.Sprintf(`{"n":%d,"text":%q}`, f.rand.IntN(1000), strings.Repeat("x", f.rand.IntN(80))))
	cdc := f.store.Codec()
	if cdc == jetstream.Msgpack {
		data = append([]byte{0x81, 0xa1, 'b', 0xc4, byte(len(data))}, data...)
	}
	event := jetstream.EventData{Name: "happened", Version: 1, Codec: cdc, Data: data}
	d := jetstream.Decision{CommandID: jetstream.NewCommandID(), Time: time.Now(), Events: []jetstream.EventData{event}}
	switch f.rand.IntN(5) {
	case 0:
		d.Events = append(d.Events, event, event)
	case 1:
		d = jetstream.Decision{
			Kind: jetstream.KindTrigger, Trigger: jetstream.Trigger{Subscriber: "s", EventID: "e." + strconv.Itoa(f.rand.IntN(1e6)), Step: "p"},
			Outcome: jetstream.OutcomeRejected, Code: "no",
		}
	case 2:
		d.Metadata = map[string]string{"user": "ann", "é": "ü"}
	}
	w := jetstream.Write{Type: typ, ID: id, After: f.heads[key], Decisions: []jetstream.Decision{d}}
	if f.rand.IntN(2) == 0 {
		w.State = &jetstream.State{Fingerprint: "f", Codec: cdc, Data: data}
	}
	if f.rand.IntN(4) == 0 {
		w.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	}
	return w
}

func (f *filler) append(key string) {
	f.t.Helper()
	head, err := f.store.Append(f.t.Context(), f.write(key))
	if err != nil {
		f.t.Fatal(err)
	}
	f.heads[key] = head
	f.last = head.Sequence
}

// transaction appends one commit to each of n aggregates at once, and reserves a key
// now and then.
func (f *filler) transaction(n int) {
	f.t.Helper()
	keys := map[string]bool{}
	for len(keys) < n {
		keys[f.pick()] = true
	}
	var ordered []string
	var writes []jetstream.Write
	for _, key := range f.ids {
		if keys[key] {
			ordered = append(ordered, key)
			writes = append(writes, f.write(key))
		}
	}
	if f.rand.IntN(2) == 0 {
		k := jetstream.Key{Name: "email", Value: strconv.FormatUint(f.rand.Uint64(), 36)}
		writes[0].Reserve = []jetstream.Key{k}
		f.keys[k] = jetstream.Owner{Type: writes[0].Type, ID: writes[0].ID}
	}
	heads, err := f.store.AppendAll(f.t.Context(), writes...)
	if err != nil {
		f.t.Fatal(err)
	}
	for i, key := range ordered {
		f.heads[key] = heads[i]
	}
	if f.last, err = f.store.LastSequence(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// payload is a commit of one event "moved" without data.
func payload(cdc jetstream.Codec) []byte {
	if cdc == jetstream.JSON {
		return []byte(`{"d":[{"ev":[{"n":"moved","d":{}}]}]}`)
	}
	return []byte("\x81\xa1d\x91\x81\xa2ev\x91\x82\xa1n\xa5moved\xa1d\xc4\x01\x80")
}

// stored is what a store holds, without what depends on the store.
type stored struct {
	id     string
	origin jetstream.Origin
	text   string
}

// contents reads a store without help of the package under test.
func contents(t testing.TB, s *jetstream.Store) []stored {
	t.Helper()
	var all []stored
	for c, err := range every(t, s) {
		if err != nil {
			t.Fatal(err)
		}
		origin := jetstream.Origin{Store: s.ID(), Sequence: c.Sequence, Time: c.Time}
		if c.Origin != nil {
			origin = *c.Origin
		}
		plain := *c
		plain.Sequence, plain.PreviousSequence, plain.Time, plain.Origin, plain.Tx, plain.State = 0, 0, time.Time{}, nil, nil, nil
		text := fmt.Sprintf("%+v", plain)
		if c.State != nil {
			text += fmt.Sprintf(" state %+v", *c.State)
		}
		if c.Tx != nil {
			text += fmt.Sprintf(" tx %+v", *c.Tx)
		}
		all = append(all, stored{id: c.CommitID, origin: origin, text: text})
	}
	return all
}

// wantCopy checks that a store is a copy, by the package's comparison and without it.
func wantCopy(t testing.TB, from, to *jetstream.Store) {
	t.Helper()
	a, b := contents(t, from), contents(t, to)
	if len(a) != len(b) || len(a) == 0 {
		t.Errorf("%d commits, %d in the copy", len(a), len(b))
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Errorf("commit %d:\n%.500v\n%.500v", i, a[i], b[i])
			break
		}
	}
	aggregates := wantChains(t, to)
	report, err := archive.Compare(t.Context(), from, to, archive.CompareConfig{})
	if err != nil || !report.Equal() || report.Commits != uint64(len(a)) || report.Aggregates != uint64(aggregates) {
		t.Errorf("%d of %d equal, %v: %v", report.Commits, len(a), err, report.Differences)
	}
}

// wantKeys checks that a copy knows who has the keys, and gives them to nobody else.
func wantKeys(t testing.TB, f *filler, to *jetstream.Store) {
	t.Helper()
	if len(f.keys) == 0 {
		t.Error("no keys: nothing was tested")
	}
	for k, want := range f.keys {
		got, err := to.Owner(t.Context(), k)
		if err != nil || got.Type != want.Type || got.ID != want.ID {
			t.Errorf("%+v is of %+v, %v", k, got, err)
		}
		w := one("thief", jetstream.Head{}, nil)
		w.Reserve = []jetstream.Key{k}
		if _, err := to.Append(t.Context(), w); !is[*jetstream.KeyTakenError](err) {
			t.Errorf("%+v was taken by another: %v", k, err)
		}
	}
}

// wantChains checks that every history can be walked, forwards and backwards, and
// that every commit lies where it belongs. It counts the aggregates.
func wantChains(t testing.TB, s *jetstream.Store) int {
	t.Helper()
	last := map[string]*jetstream.Commit{}
	for c, err := range every(t, s) {
		if err != nil {
			t.Fatal(err)
		}
		key := c.Type + " " + c.ID
		before := last[key]
		if before == nil {
			before = new(jetstream.Commit)
		}
		if c.PreviousSequence != before.Sequence || c.Previous != before.CommitID || c.Ordinal != before.Ordinal+1 {
			t.Fatalf("%s: %+v follows %+v", key, c, before)
		}
		last[key] = c
	}
	for key, want := range last {
		typ, id, _ := strings.Cut(key, " ")
		if strings.HasPrefix(typ, "_") {
			continue // the toolkit's own
		}
		got, err := s.Last(t.Context(), typ, id, jetstream.Leader)
		if err != nil || got.Sequence != want.Sequence {
			t.Fatalf("%s: %+v, %v", key, got, err)
		}
	}
	return len(last)
}

// export is the archive of a store.
func export(t testing.TB, s *jetstream.Store, cfg archive.Config) ([]byte, archive.End) {
	t.Helper()
	var b bytes.Buffer
	end, err := archive.Export(t.Context(), s, &b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), end
}

func mustImport(t testing.TB, b []byte, to *jetstream.Store) archive.Progress {
	t.Helper()
	p, err := archive.Import(t.Context(), bytes.NewReader(b), to, archive.ImportConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// messages reads an archive.
func messages(b []byte) ([]jetstream.Message, *archive.Reader, error) {
	r, err := archive.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	var all []jetstream.Message
	for m, err := range r.Messages() {
		if err != nil {
			return all, r, err
		}
		all = append(all, m)
	}
	return all, r, nil
}

// both runs a test on one server and on a cluster.
func both(t *testing.T, test func(t *testing.T, connect func() *nats.Conn, replicas int, c *natstest.Cluster)) {
	t.Helper()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		url := natstest.Run(t).URL()
		test(t, func() *nats.Conn { return natstest.Conn(t, url) }, 1, nil)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		test(t, func() *nats.Conn { return c.Conn(t) }, 3, c)
	})
}

func typeOf(key string) string { typ, _, _ := strings.Cut(key, " "); return typ }
func idOf(key string) string   { _, id, _ := strings.Cut(key, " "); return id }

// every yields each commit of a store, the toolkit's own, too.
func every(t testing.TB, s *jetstream.Store) iter.Seq2[*jetstream.Commit, error] {
	t.Helper()
	return func(yield func(*jetstream.Commit, error) bool) {
		for m, err := range s.Messages(t.Context(), "", "", jetstream.Range{}) {
			var c *jetstream.Commit
			if err == nil {
				c, err = jetstream.Decode(&m)
			}
			if !yield(c, err) {
				return
			}
		}
	}
}
