package aggregate

import (
	"fmt"
	"reflect"

	"github.com/rossby-go/rossby/jetstream"
)

// Interception is a decision before it is stored.
type Interception struct {
	// Decision is what the handler was given.
	Decision
	// Name is the command's, Command what was decided upon; nil when an ExecuteFunc
	// had nothing to do.
	Name    string
	Command any
	// Attempt is 1 at first, and grows when another writer came first.
	Attempt int
	// Events are what the handler decided, or the interceptor before; Err is its
	// refusal or its fault.
	Events []any
	Err    error
}

// Interceptor stands between the handlers and the store: see [Intercept].
type Interceptor struct {
	state reflect.Type
	run   func(state any, i Interception) ([]any, error)
}

// Intercept makes an interceptor, which is called with each decision of a handler
// and returns what is stored instead: i.Events and i.Err as they are, events added,
// changed or dropped, events in place of a refusal, a refusal in place of events.
// It is called again whenever the command is decided again, so it must be pure
// like a handler. The state is that before the decision, a copy of its own.
//
// It is not asked when there was nothing to decide: for an aggregate that does not
// exist, one that exists already, another version than expected, a duplicate.
//
// Give it to a repository with [RepositoryConfig], or to a call with [Intercepted].
func Intercept[S any](f func(state S, i Interception) ([]any, error)) Interceptor {
	i := Interceptor{state: reflect.TypeFor[S]()}
	if f != nil {
		i.run = func(state any, i Interception) ([]any, error) {
			return f(*state.(*S), i) //nolint:forcetypeassert // check has compared the types
		}
	}
	return i
}

// check wants an interceptor for the repository's states.
func (i Interceptor) check(state reflect.Type) error {
	switch {
	case i.run == nil:
		return &jetstream.InvalidError{Field: "interceptor", Value: fmt.Sprint(i.state), Reason: "has no function"}
	case i.state != state:
		return &jetstream.InvalidError{
			Field: "interceptor", Value: i.state.String(), Reason: "is for another state than " + state.String(),
		}
	}
	return nil
}

func checkInterceptors(all []Interceptor, state reflect.Type) error {
	for _, i := range all {
		if err := i.check(state); err != nil {
			return err
		}
	}
	return nil
}

// intercept lets the repository's interceptors and then the call's see a decision.
func (r *core) intercept(id string, t *decided, state []byte) error {
	for _, list := range [][]Interceptor{r.cfg.Interceptors, t.call.interceptors} {
		for _, i := range list {
			copied, err := r.decodeState(id, state)
			if err != nil {
				return err
			}
			t.Events, t.Err = i.guarded(copied, t.Interception)
		}
	}
	return nil
}

// guarded makes an error of a panic.
func (i Interceptor) guarded(state any, in Interception) (events []any, err error) {
	defer func() {
		if p := recover(); p != nil {
			events, err = nil, panicked("the interceptor", p)
		}
	}()
	return i.run(state, in)
}
