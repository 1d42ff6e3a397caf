package aggregate

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// StateLimitDefault is the size, encoded, up to which an aggregate's state
// travels in its commits.
const StateLimitDefault = 1 << 10

// Type is an aggregate type with state S: what its events do to the state, and
// what its commands decide. It is immutable and may be shared.
type Type[S any] struct {
	schema *jetstream.Schema
	def    definition
	err    error
}

// definition is the part of a type that its options fill in.
type definition struct {
	state        reflect.Type
	schema       *jetstream.Schema
	apply        map[reflect.Type]applyFunc
	handlers     map[string]*handler
	byType       map[reflect.Type]*handler
	stateVersion int
	stateLimit   int
	fingerprint  string
}

type (
	applyFunc  func(state, event any, m jetstream.Meta)
	decideFunc func(state, command any, d Decision) ([]any, error)
)

// handler is what one command does.
type handler struct {
	name string
	// key stands for the command in what is stored: its first name.
	key     string
	command reflect.Type
	create  bool
	decide  decideFunc
}

// Option is a part of a [Type]'s definition.
type Option func(*definition) error

// New defines an aggregate type. Mistakes – an event without [Apply], a state
// whose encoding would lose fields, a command declared twice – are kept and
// returned by [Type.Err] and by everything that is given the type.
func New[S any](schema *jetstream.Schema, opts ...Option) *Type[S] {
	t := &Type[S]{schema: schema, def: definition{
		state: reflect.TypeFor[S](), schema: schema, apply: map[reflect.Type]applyFunc{}, handlers: map[string]*handler{},
		byType: map[reflect.Type]*handler{}, stateVersion: 1, stateLimit: StateLimitDefault,
	}}
	if schema == nil {
		t.err = errors.New("aggregate type: the schema is nil")
		return t
	}
	errs := []error{schema.Err()}
	for _, o := range opts {
		errs = append(errs, o(&t.def))
	}
	for _, name := range schema.Names() {
		if goType := schema.GoType(name); t.def.apply[goType] == nil {
			errs = append(errs,
				fmt.Errorf("event %q: no Apply for %s: declare one, or Ignore[%s]", name, goType, goType))
		}
	}
	if len(t.def.handlers) == 0 {
		errs = append(errs, errors.New("no commands are declared"))
	}
	if t.def.state.Kind() != reflect.Struct {
		errs = append(errs, &jetstream.InvalidError{
			Field: "state type", Value: t.def.state.String(), Reason: "is not a struct",
		})
	} else {
		errs = append(errs, codec.Check(t.def.state))
	}
	if err := errors.Join(errs...); err != nil {
		t.err = fmt.Errorf("aggregate type %q: %w", schema.Type(), err)
		return t
	}
	t.def.fingerprint = fingerprint(&t.def)
	return t
}

// Apply declares what an event does to the state. It must be pure and cannot
// fail: the event has happened. Its Meta says the aggregate's id, the version,
// the time and the metadata; what depends on where the event is stored
// (EventID, Position, StoredAt) is empty, since the state must not.
func Apply[S, E any](apply func(state *S, event E, m jetstream.Meta)) Option {
	return func(d *definition) error {
		event := reflect.TypeFor[E]()
		if apply == nil {
			return fmt.Errorf("the Apply of %s is a nil function", event)
		}
		if err := d.wants(reflect.TypeFor[S](), "Apply of "+event.String()); err != nil {
			return err
		}
		if _, ok := d.schema.NameOf(event); !ok {
			return fmt.Errorf("an Apply of %s: it is not an event of the schema", event)
		}
		if d.apply[event] != nil {
			return fmt.Errorf("event %s has two Applies", event)
		}
		d.apply[event] = func(state, event any, m jetstream.Meta) {
			apply(state.(*S), event.(E), m) //nolint:forcetypeassert // looked up by these types
		}
		return nil
	}
}

// Handle declares a command on an existing aggregate: given the state, it
// decides which events happen. No events is a decision, too: nothing changes. It
// must be pure, because it runs again when another writer came first; a refusal
// is [Reject].
//
// The state is the handler's own copy.
func Handle[S, C any](name string, decide func(state S, command C, d Decision) ([]any, error)) Option {
	return func(d *definition) error {
		if err := d.wants(reflect.TypeFor[S](), "command "+strconv.Quote(name)); err != nil {
			return err
		}
		if decide == nil {
			return fmt.Errorf("command %q has a nil function", name)
		}
		return d.add(&handler{
			name: name, command: reflect.TypeFor[C](),
			decide: func(state, command any, dec Decision) ([]any, error) {
				return decide(*state.(*S), command.(C), dec) //nolint:forcetypeassert // looked up by these types
			},
		})
	}
}

// Create declares a command that makes an aggregate. Where one exists already it
// is not called: the answer is [ErrExists].
func Create[C any](name string, decide func(command C, d Decision) ([]any, error)) Option {
	return func(d *definition) error {
		if decide == nil {
			return fmt.Errorf("command %q has a nil function", name)
		}
		return d.add(&handler{
			name: name, command: reflect.TypeFor[C](), create: true,
			decide: func(_, command any, dec Decision) ([]any, error) {
				return decide(command.(C), dec) //nolint:forcetypeassert // looked up by this type
			},
		})
	}
}

// StateVersion declares the version of what the Applies mean; 1 is the default.
// Raise it whenever an Apply changes its meaning, or a type in the state that
// encodes itself changes how: states stored under another version are not used, and
// the events are applied again.
func StateVersion(n int) Option {
	return func(d *definition) error {
		d.stateVersion = n
		if n < 1 {
			return &jetstream.InvalidError{Field: "StateVersion", Value: strconv.Itoa(n), Reason: "is below 1"}
		}
		return nil
	}
}

// StateLimit declares up to which encoded size the state travels in commits, in
// bytes; [StateLimitDefault] is the default and 0 never. Larger states are kept
// beside the events, every [RepositoryConfig.StateEvery] commits, and a load
// replays the rest.
func StateLimit(bytes int) Option {
	return func(d *definition) error {
		d.stateLimit = bytes
		if bytes < 0 {
			return &jetstream.InvalidError{Field: "StateLimit", Value: strconv.Itoa(bytes), Reason: "is negative"}
		}
		return nil
	}
}

func (d *definition) wants(state reflect.Type, what string) error {
	if state != d.state {
		return fmt.Errorf("%s is for state %s, the type's is %s", what, state, d.state)
	}
	return nil
}

func (d *definition) add(h *handler) error {
	errs := []error{jetstream.ValidateName("command name", h.name)}
	if h.command.Kind() != reflect.Struct {
		errs = append(errs, &jetstream.InvalidError{
			Field: "command type", Value: h.command.String(), Reason: "is not a struct",
		})
	} else {
		errs = append(errs, codec.Check(h.command))
	}
	if d.handlers[h.name] != nil {
		errs = append(errs, fmt.Errorf("command %q is declared twice", h.name))
	}
	if other := d.byType[h.command]; other != nil {
		errs = append(errs, fmt.Errorf("command type %s is declared as %q and %q", h.command, other.name, h.name))
	}
	h.key = h.name
	d.handlers[h.name], d.byType[h.command] = h, h
	return errors.Join(errs...)
}

// RenamedCommand declares that a command was called old before. Services answer
// to both names, and what is stored under the old one – the effects of reactors,
// the hashes of command ids – counts for the new one. It stands after the command;
// for one that was renamed twice, declare both old names, the oldest last.
func RenamedCommand(old, name string) Option {
	return func(d *definition) error {
		h := d.handlers[name]
		if h == nil {
			return fmt.Errorf("RenamedCommand(%q, %q): no command %q was declared before", old, name, name)
		}
		if err := jetstream.ValidateName("command name", old); err != nil {
			return err
		}
		if d.handlers[old] != nil {
			return fmt.Errorf("RenamedCommand(%q, %q): there is a command %q", old, name, old)
		}
		h.key = old
		d.handlers[old] = h
		return nil
	}
}

// Ignore declares events that the state takes no notice of: an [Apply] that does
// nothing, for each.
func Ignore[E any]() Option {
	return func(d *definition) error {
		event := reflect.TypeFor[E]()
		if _, ok := d.schema.NameOf(event); !ok {
			return fmt.Errorf("an Ignore of %s: it is not an event of the schema", event)
		}
		if d.apply[event] != nil {
			return fmt.Errorf("event %s has two Applies", event)
		}
		d.apply[event] = func(any, any, jetstream.Meta) {}
		return nil
	}
}

// Name is the aggregate type's name, that of its schema.
func (t *Type[S]) Name() string {
	if t.schema == nil {
		return ""
	}
	return t.schema.Type()
}

// Schema is the type's events.
func (t *Type[S]) Schema() *jetstream.Schema { return t.schema }

// Err returns every mistake in the definition, joined.
func (t *Type[S]) Err() error { return t.err }

// Fingerprint is what states are stored under, "" for a type with mistakes. It
// changes with the state's Go type, with [StateVersion], and with the names and
// versions of the schema's events; a state stored under another one is not used.
func (t *Type[S]) Fingerprint() string { return t.def.fingerprint }

// Commands lists the commands, sorted by name; former names are not among them.
func (t *Type[S]) Commands() []CommandInfo { return t.def.commands() }

// lookup finds the handler of a command given as a struct or a pointer to one,
// and returns the struct.
func (d *definition) lookup(command any) (*handler, any, error) {
	v := reflect.ValueOf(command)
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.IsValid() {
		if h := d.byType[v.Type()]; h != nil {
			return h, v.Interface(), nil
		}
	}
	return nil, nil, &jetstream.InvalidError{
		Field: "command", Value: fmt.Sprintf("%T", command), Reason: fmt.Sprintf("is not a command of %q", d.schema.Type()),
	}
}

// fingerprint changes with everything that a stored state depends on: the state's
// Go type, StateVersion, and the schema's event names and versions.
func fingerprint(d *definition) string {
	var b strings.Builder
	describe(&b, d.state, map[reflect.Type]bool{})
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", b.String(), d.stateVersion, d.schema.Signature()))
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

func describe(b *strings.Builder, t reflect.Type, seen map[reflect.Type]bool) {
	b.WriteString(t.String())
	if t.Name() != "" {
		b.WriteString(" " + t.Kind().String()) // a name does not say what it stands for
	}
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Array:
		b.WriteString(strconv.Itoa(t.Len()))
		describe(b, t.Elem(), seen)
	case reflect.Pointer, reflect.Slice:
		describe(b, t.Elem(), seen)
	case reflect.Map:
		describe(b, t.Key(), seen)
		describe(b, t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() {
				fmt.Fprintf(b, "{%s %s ", f.Name, f.Tag.Get("json"))
				describe(b, f.Type, seen)
				b.WriteString("}")
			}
		}
	default:
	}
}
