package projection

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// Definition says how the events of a store become a view: a set of values V
// under keys. It is immutable and may be shared. Mistakes are kept and returned
// by [Definition.Err] and by [NewUpdater].
type Definition[V any] struct{ core *core }

// AnyDefinition is a [Definition] of any value type.
type AnyDefinition interface{ definition() *core }

// The kinds of definitions.
const (
	kindKeyed  = "keyed"
	kindLookup = "lookup"
	kindSink   = "sink"
)

// core is a definition without its value type.
type core struct {
	view     string
	kind     string
	version  int
	routes   map[reflect.Type]*route
	schemas  []*jetstream.Schema
	newValue func() any
	indexes  []indexed
	err      error
}

// route leads an event to its handler.
type route struct {
	schema *jetstream.Schema
	typ    reflect.Type
	keys   func(event any, m *jetstream.Meta) []string // nil: the aggregate id
	fold   func(s *slot, event any, m *jetstream.Meta) error
	tx     func(tx *txState, event any, m *jetstream.Meta) error
	sink   func(ctx context.Context, tx, event any, m *jetstream.Meta) error
}

// Handler folds one event into a keyed view: see [On] and [OnRow].
type Handler[V any] struct{ route route }

// TxHandler folds one event into a lookup view: see [OnTx].
type TxHandler[V any] struct{ route route }

// EventOption says more about one event of a keyed view.
type EventOption[E any] func(*route)

// Keys names the keys that an event touches; each is folded on its own. Without
// it an event touches one key, its aggregate's id. It must be pure. Any text is a
// key; repeated ones count once, and no key at all leaves the event out.
func Keys[E any](keys func(e E, m jetstream.Meta) []string) EventOption[E] {
	return func(r *route) {
		r.keys = func(event any, m *jetstream.Meta) []string {
			e, _ := event.(E)
			return keys(e, *m)
		}
	}
}

// On folds an event of the schema into the value of its key. The value is zero
// when the key is new. The fold must be pure: it may run again.
func On[V, E any](schema *jetstream.Schema, fold func(v *V, e E, m jetstream.Meta), opts ...EventOption[E]) Handler[V] {
	return newHandler[V](schema, opts, func(s *slot, event any, m *jetstream.Meta) error {
		e, _ := event.(E)
		v, _ := s.value.(*V)
		fold(v, e, *m)
		return nil
	})
}

// Row is one key of a keyed view while an event is folded into it.
type Row[V any] struct {
	// Key is the view's key, Value what it holds: zero when it does not exist.
	Key   string
	Value *V
	// Exists tells whether the view held the key before the event.
	Exists bool

	deleted bool
}

// Delete takes the key out of the view. Without it the view holds the key after
// the fold.
func (r *Row[V]) Delete() { r.deleted = true }

// OnRow is [On] for folds that delete, that want to know their key, or that can
// fail: see [UpdaterConfig.OnError] for what an error does.
func OnRow[V, E any](
	schema *jetstream.Schema, fold func(row *Row[V], e E, m jetstream.Meta) error, opts ...EventOption[E],
) Handler[V] {
	return newHandler[V](schema, opts, func(s *slot, event any, m *jetstream.Meta) error {
		e, _ := event.(E)
		v, _ := s.value.(*V)
		row := Row[V]{Key: s.key, Value: v, Exists: s.exists}
		if err := fold(&row, e, *m); err != nil {
			return err
		}
		s.value, s.gone = row.Value, row.deleted
		if row.Value == nil && !row.deleted {
			return errors.New("the fold set the row's Value to nil: call Delete to remove the key")
		}
		return nil
	})
}

func newHandler[V, E any](
	schema *jetstream.Schema, opts []EventOption[E], fold func(*slot, any, *jetstream.Meta) error,
) Handler[V] {
	r := route{schema: schema, typ: reflect.TypeFor[E](), fold: fold}
	for _, o := range opts {
		o(&r)
	}
	return Handler[V]{route: r}
}

// OnTx folds an event of the schema into a lookup view: the fold reads and writes
// any key. It must be pure: it may run again.
func OnTx[V, E any](schema *jetstream.Schema, fold func(tx *Tx[V], e E, m jetstream.Meta) error) TxHandler[V] {
	run := func(tx *txState, event any, m *jetstream.Meta) error {
		e, _ := event.(E)
		return fold(&Tx[V]{state: tx}, e, *m)
	}
	return TxHandler[V]{route: route{schema: schema, typ: reflect.TypeFor[E](), tx: run}}
}

// NewKeyed defines a view whose events name the keys that they touch, the
// aggregate's id unless [Keys] says otherwise, and whose folds see that key only.
// Prefer it to [NewLookup]: it is much faster.
//
// The view is kept in the bucket <store>_<view>; its name is one or more of a–z,
// 0–9 and '-'.
func NewKeyed[V any](view string, handlers ...Handler[V]) *Definition[V] {
	routes := make([]route, len(handlers))
	for i, h := range handlers {
		routes[i] = h.route
	}
	return define[V](view, kindKeyed, routes)
}

// NewLookup defines a view whose folds read and write any key. Every commit's
// changes become visible together.
func NewLookup[V any](view string, handlers ...TxHandler[V]) *Definition[V] {
	routes := make([]route, len(handlers))
	for i, h := range handlers {
		routes[i] = h.route
	}
	return define[V](view, kindLookup, routes)
}

func define[V any](view, kind string, routes []route) *Definition[V] {
	c := defineCore(view, kind, routes, codec.Check(reflect.TypeFor[V]()))
	c.newValue = func() any { return new(V) }
	return &Definition[V]{core: c}
}

// defineCore looks through a definition's routes; mistakes of what else it
// consists of are joined to theirs.
func defineCore(view, kind string, routes []route, mistakes ...error) *core {
	c := &core{view: view, kind: kind, version: 1, routes: map[reflect.Type]*route{}}
	errs := append([]error{jetstream.ValidateName("view name", view)}, mistakes...)
	if len(routes) == 0 {
		errs = append(errs, errors.New("no event is handled"))
	}
	for i := range routes {
		r := &routes[i]
		if r.schema == nil {
			errs = append(errs, fmt.Errorf("the schema of %v is nil", r.typ))
			continue
		}
		if !slices.Contains(c.schemas, r.schema) {
			c.schemas = append(c.schemas, r.schema)
			errs = append(errs, r.schema.Err())
		}
		if _, ok := r.schema.NameOf(r.typ); !ok {
			errs = append(errs, fmt.Errorf("%v is not an event of schema %q", r.typ, r.schema.Type()))
		}
		if c.routes[r.typ] != nil {
			errs = append(errs, fmt.Errorf("event %v is handled twice", r.typ))
		}
		c.routes[r.typ] = r
	}
	if err := errors.Join(errs...); err != nil {
		c.err = fmt.Errorf("definition of view %q: %w", view, err)
	}
	return c
}

// Version returns the definition with another version; 1 is what it begins with.
// Raise it whenever the folds, the keys or V change: the view is then rebuilt
// beside the one that is being read.
func (d *Definition[V]) Version(n int) *Definition[V] { return &Definition[V]{core: d.core.at(n)} }

// at is the definition with another version.
func (c *core) at(version int) *core {
	next := *c
	next.version = version
	if version < 1 {
		next.err = errors.Join(c.err, fmt.Errorf("definition of view %q: version %d is below 1", c.view, version))
	}
	return &next
}

// View is the view's name.
func (d *Definition[V]) View() string { return d.core.view }

// Err returns every mistake in the definition, joined.
func (d *Definition[V]) Err() error { return d.core.err }

func (d *Definition[V]) definition() *core { return d.core }

// hash changes with everything that can be seen of a definition: its name, kind,
// version, the names and versions of the events it handles, and its indexes.
func (c *core) hash() string {
	parts := make([]string, 0, 3+len(c.routes))
	parts = append(parts, c.view, c.kind, strconv.Itoa(c.version))
	for _, r := range c.routes {
		name, _ := r.schema.NameOf(r.typ)
		how := "id"
		if r.keys != nil {
			how = "keys"
		}
		parts = append(parts, fmt.Sprintf("%s.%s=%d:%s", r.schema.Type(), name, versions(r.schema)[name], how))
	}
	for _, name := range c.indexNames() {
		parts = append(parts, "index "+name)
	}
	slices.Sort(parts[3:])
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:8])
}

// versions are the event names of a schema with their versions.
func versions(s *jetstream.Schema) map[string]int {
	out := map[string]int{}
	for part := range strings.SplitSeq(s.Signature(), ",") {
		if name, number, ok := strings.Cut(part, "="); ok {
			out[name], _ = strconv.Atoi(number)
		}
	}
	return out
}

// types are the aggregate types that the definition follows, sorted.
func (c *core) types() []string {
	set := map[string]bool{}
	for _, s := range c.schemas {
		set[s.Type()] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// ignorable are, by aggregate type, the stored event names that no handler can
// be interested in: they need not be decoded. Names of before a renaming, and of
// events that an upcaster may turn into handled ones, are not in it.
func (c *core) ignorable() map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, s := range c.schemas {
		var handled []string
		for _, name := range s.Names() {
			if c.routes[s.GoType(name)] != nil {
				handled = append(handled, name)
			}
		}
		names := map[string]bool{}
		for _, name := range s.WireNames() {
			names[name] = true
		}
		for _, name := range s.StoredNames(handled...) {
			delete(names, name)
		}
		out[s.Type()] = names
	}
	return out
}
