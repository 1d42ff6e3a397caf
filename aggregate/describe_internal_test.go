package aggregate

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
)

type (
	thing struct{ Field string }
	small struct{}
	large struct{ A, B, C, D, E, F thing }
)

// What a service tells of itself fits into one message, else it would tell
// nothing: the largest schemas stay at home.
func TestServiceDescriptionFits(t *testing.T) {
	t.Parallel()
	typ := New[thing](jetstream.NewSchema("t", jetstream.Event[thing]("e")), Ignore[thing](),
		Create("small", func(small, Decision) ([]any, error) { return nil, nil }),
		Handle("large", func(thing, large, Decision) ([]any, error) { return nil, nil }),
		RenamedCommand("larger", "large"),
	)
	if typ.Err() != nil {
		t.Fatal(typ.Err())
	}
	s := &Service{core: &core{def: &typ.def}, cfg: ServiceConfig{Logger: slog.New(slog.DiscardHandler)}}
	for payload, want := range map[int64]struct{ small, large bool }{1 << 20: {true, true}, 1000: {true, false}, 100: {false, false}} {
		all := s.metadata(t.Context(), payload)
		has := func(name string) bool {
			m := all[typ.def.handlers[name]]
			if m == nil || (m["creates"] == "true") != (name == "small") {
				t.Errorf("%s: %v", name, m)
			}
			schema, ok := m["schema"]
			return ok && json.Valid([]byte(schema))
		}
		if has("small") != want.small || has("large") != want.large {
			t.Errorf("%d bytes: %v", payload, all)
		}
	}
}
