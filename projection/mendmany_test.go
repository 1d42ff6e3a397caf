package projection_test

import (
	"fmt"
	"strings"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestRebuildAggregateManyEntries: somebody has made up more index entries of one key
// than one batch can take out.
func TestRebuildAggregateManyEntries(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.append("a1", opened{Owner: "ann"}, credited{Cents: 7})
	m.apply("a1", opened{Owner: "ann"})
	m.apply("a1", credited{Cents: 7})
	start(t, f.store, indexed(), lasting())
	f.checkIndexes(t, m)
	js, err := natsjs.New(f.nc)
	if err != nil {
		t.Fatal(err)
	}
	bucket := f.store.Name() + "_accounts"
	stream, err := js.Stream(patient(t), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(patient(t), natsjs.WithSubjectFilter("$KV."+bucket+"._index.1.owner.>"))
	if err != nil || len(info.State.Subjects) != 1 {
		t.Fatalf("%v, %v", info, err)
	}
	for subject := range info.State.Subjects {
		for i := range 1500 {
			made := strings.Replace(subject, ".ann.", fmt.Sprintf(".bob%d.", i), 1)
			if _, err := js.PublishAsync(made, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-js.PublishAsyncComplete()
	done, err := admin(t, f, "accounts").RebuildAggregate(patient(t), "account", "a1", "")
	if err != nil || done.Changed != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	natstest.Eventually(t, "the markers of those taken out are gone", func() error {
		info, err := stream.Info(t.Context(), natsjs.WithSubjectFilter("$KV."+bucket+"._index.1.owner.>"))
		if err == nil && len(info.State.Subjects) != 1 {
			err = fmt.Errorf("%d entries", len(info.State.Subjects))
		}
		return err
	})
	f.checkIndexes(t, m)
}
