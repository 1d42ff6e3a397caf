package projection

import (
	"context"
	"errors"
	"reflect"

	"github.com/rossby-go/rossby/jetstream"
)

// SinkDefinition says how the events of a store become rows in a [Sink]. It is
// immutable and may be shared. Mistakes are kept and returned by
// [SinkDefinition.Err] and by [NewSinkUpdater].
type SinkDefinition[T any] struct {
	core    *core
	prepare func(ctx context.Context, tx T) error
}

// SinkHandler writes what one event means: see [OnSink].
type SinkHandler[T any] struct{ route route }

// OnSink writes what an event of the schema means, with the sink's transaction
// and nothing else: the transaction is rolled back and the handler called again
// when anything fails. It must give up when ctx ends, and wrap the database's
// errors (%w), so that [Sink.Transient] knows them. An error that is not transient
// says that the event cannot be folded: see [SinkConfig.OnError].
func OnSink[T, E any](
	schema *jetstream.Schema, write func(ctx context.Context, tx T, e E, m jetstream.Meta) error,
) SinkHandler[T] {
	run := func(ctx context.Context, tx, event any, m *jetstream.Meta) error {
		e, _ := event.(E)
		t, _ := tx.(T)
		return write(ctx, t, e, *m)
	}
	return SinkHandler[T]{route: route{schema: schema, typ: reflect.TypeFor[E](), sink: run}}
}

// NewSinkDefinition defines a view that is kept in a database. Its name is one or
// more of a–z, 0–9 and '-'; no other view of the store may have it.
//
// Prepare leaves the view's tables empty: it makes those that are missing and
// deletes every row of those that are there. It is called in the transaction that
// makes the view's record, and again when [SinkDefinition.Version] was raised:
// then every event is read again.
func NewSinkDefinition[T any](
	view string, prepare func(ctx context.Context, tx T) error, handlers ...SinkHandler[T],
) *SinkDefinition[T] {
	routes := make([]route, len(handlers))
	for i, h := range handlers {
		routes[i] = h.route
	}
	var mistake error
	if prepare == nil {
		mistake = errors.New("prepare is nil")
	}
	return &SinkDefinition[T]{core: defineCore(view, kindSink, routes, mistake), prepare: prepare}
}

// Version returns the definition with another version; 1 is what it begins with.
// Raise it whenever handlers or tables change: the rows are then deleted, by
// prepare, and written anew from the first event on. Who must not see that gives
// the view and its tables another name, and reads those once they have caught up.
func (d *SinkDefinition[T]) Version(n int) *SinkDefinition[T] {
	return &SinkDefinition[T]{core: d.core.at(n), prepare: d.prepare}
}

// View is the view's name.
func (d *SinkDefinition[T]) View() string { return d.core.view }

// Err returns every mistake in the definition, joined.
func (d *SinkDefinition[T]) Err() error { return d.core.err }
