package jetstream_test

import (
	"errors"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
)

func TestRemovedEvents(t *testing.T) {
	t.Parallel()
	type kept struct{ N int }
	s := jetstream.NewSchema("account", jetstream.Event[kept]("kept"), jetstream.Removed("gone"))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if events, err := s.Decode(jetstream.EventData{Name: "gone", Version: 7, Data: []byte("anything")}); err != nil || len(events) != 0 {
		t.Errorf("%v %v", events, err)
	}
	if _, err := s.Decode(jetstream.EventData{Name: "other", Version: 1}); !errors.Is(err, jetstream.ErrUnknownEvent) {
		t.Error(err)
	}
	for name, opt := range map[string]jetstream.SchemaOption{
		"declared": jetstream.Removed("kept"), "bad": jetstream.Removed("two words"),
	} {
		if jetstream.NewSchema("account", jetstream.Event[kept]("kept"), opt).Err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if jetstream.NewSchema("account", jetstream.Event[kept]("kept"), jetstream.Renamed("old", "kept"), jetstream.Removed("old")).Err() == nil {
		t.Error("renamed and removed: no error")
	}
}
