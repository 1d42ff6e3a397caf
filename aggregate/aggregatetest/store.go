package aggregatetest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// Store is an event store in memory. It keeps what a store would keep, and has
// nothing of the wire: no server, no replicas, no delay.
type Store struct {
	t        testing.TB
	mem      *memstore.Store
	targets  []aggregate.Target
	reactors []*running
}

// NewStore makes an empty store.
func NewStore(t testing.TB) *Store { return &Store{t: t, mem: memstore.New()} }

// NewRepository makes a repository of the store's aggregates of one type: the same
// that programs use, with the same outcomes. Mistakes in the type fail the test.
func NewRepository[S any](s *Store, typ *aggregate.Type[S]) *aggregate.Repository[S] {
	s.t.Helper()
	repo, err := aggregate.NewTestRepository(s.mem, typ, aggregate.RepositoryConfig{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.targets = append(s.targets, repo)
	return repo
}

// Append lets events have happened to an aggregate, one commit each, whatever it
// would have decided. An event may be a [jetstream.Recorded]; see [Given].
func (s *Store) Append(schema *jetstream.Schema, id string, events ...any) {
	s.t.Helper()
	if err := jetstream.ValidateID(id); err != nil {
		s.t.Fatal(err)
	}
	var after jetstream.Head
	if last, err := s.mem.Last(s.t.Context(), schema.Type(), id, jetstream.Leader); err == nil {
		after = last.Head
	}
	for _, e := range events {
		d := jetstream.Decision{Time: jetstream.MicroTime(s.mem.Now())}
		trace := ""
		if r, ok := e.(jetstream.Recorded); ok {
			e = r.Event
			d.Correlation, d.Causation, d.Metadata, trace = r.Correlation, r.Causation, r.Metadata, r.TraceParent
			if !r.Time.IsZero() {
				d.Time = jetstream.MicroTime(r.Time)
			}
		}
		data, err := schema.Encode(e, s.mem.Codec())
		if err != nil {
			s.t.Fatalf("given event %T of %q: %v", e, schema.Type(), err)
		}
		d.Events = []jetstream.EventData{data}
		after, err = s.mem.Append(s.t.Context(), jetstream.Write{
			Type: schema.Type(), ID: id, After: after, Decisions: []jetstream.Decision{d}, TraceParent: trace,
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// diff describes how two values differ, "" when they do not.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true }))
}

// show is values on one line.
func show(values []any) string {
	if len(values) == 0 {
		return "nothing"
	}
	texts := make([]string, 0, len(values))
	for _, v := range values {
		texts = append(texts, fmt.Sprintf("%T%+v", v, v))
	}
	return strings.Join(texts, ", ")
}
