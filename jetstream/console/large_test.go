package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/jetstream"
)

// Of a store of 100,000 events of 10,000 aggregates – 10,000 and 1,000 with -short –
// every page is as small as of a small one, and costs the servers no more.
func TestPagesOfALargeStoreStaySmall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	aggregates, commits := 10_000, 2
	if testing.Short() {
		aggregates = 1_000
	}
	w.load(aggregates, commits, 5)
	w.view("it has caught up", func(v viewNow) bool { return v.Lag == 0 && v.Position >= uint64(aggregates*commits) })

	// No page is longer than this, and none makes the servers send more than that.
	const page, traffic = 512 << 10, 8 << 20
	head := uint64(aggregates * commits)
	for _, path := range []string{
		"info", "status", "commands",
		"events?limit=200",
		fmt.Sprintf("events?limit=200&before=%d", head/2),
		"events?name=opened&limit=200",
		"events?name=nothing",
		"events?type=account&id=n7&limit=4",
		fmt.Sprintf("events/%d", head/2),
		fmt.Sprintf("events/%d/tree", head/2),
		"aggregates?limit=200",
		"aggregates?type=nothing",
		"aggregates/account/n7",
		"aggregates/account/n7/versions/10",
		"views/" + view,
		"views/" + view + "/entries?limit=200",
		"views/" + view + "/entries?prefix=n77&limit=200",
		"views/" + view + "/entry?key=n7",
		"deadlines", "sagas",
	} {
		before := w.nc.Stats().InBytes
		got, _, _ := w.decided(http.StatusOK, http.MethodGet, "api/"+path, nil, nil)
		asked := w.nc.Stats().InBytes - before
		if got.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.status, got.body)
			continue
		}
		if len(got.body) > page || asked > traffic {
			t.Errorf("%s: %d bytes, for which the servers sent %d", path, len(got.body), asked)
		}
		for name, list := range lists(t, got.body) {
			if list > 200 {
				t.Errorf("%s: %d %s", path, list, name)
			}
		}
		t.Logf("%-50s %7d bytes, %8d from the servers", path, len(got.body), asked)
	}
	// All of it can be reached, page by page.
	seen := map[string]bool{}
	for path := "views/" + view + "/entries?limit=200"; path != ""; {
		list := get[struct {
			Entries []struct{ Key string }
			After   string
		}](w, "api/"+path)
		for _, e := range list.Entries {
			seen[e.Key] = true
		}
		if path = ""; list.After != "" {
			path = "views/" + view + "/entries?limit=200&after=" + list.After
		}
	}
	if len(seen) != aggregates {
		t.Errorf("%d of %d entries were listed", len(seen), aggregates)
	}
}

// lists are the lengths of an answer's lists.
func lists(t *testing.T, body []byte) map[string]int {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for name, text := range fields {
		var list []json.RawMessage
		if strings.HasPrefix(string(text), "[") && json.Unmarshal(text, &list) == nil {
			out[name] = len(list)
		}
	}
	return out
}

// load appends commits of a few events to aggregates, many at once.
func (w *world) load(aggregates, commits, each int) {
	w.t.Helper()
	schema := events()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range aggregates {
		g.Go(func() error {
			var head jetstream.Head
			for n := range commits {
				data := make([]jetstream.EventData, each)
				for k := range data {
					var event any = credited{Cents: 10}
					if n == 0 && k == 0 {
						event = opened{Cents: 1}
					}
					var err error
					if data[k], err = schema.Encode(event, jetstream.JSON); err != nil {
						return err
					}
				}
				var err error
				head, err = w.store.Append(w.t.Context(), jetstream.Write{
					Type: "account", ID: fmt.Sprintf("n%d", i), After: head,
					Decisions: []jetstream.Decision{{CommandID: jetstream.NewCommandID(), Events: data}},
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		w.t.Fatal(err)
	}
}
