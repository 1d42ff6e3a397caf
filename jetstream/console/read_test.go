package console_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/console"
)

type listed struct {
	Events []struct {
		Sequence, Version              uint64
		Type, ID, Name, EventID, Cause string
		Data                           map[string]int64
	}
	Before   uint64
	Searched int
}

// fill makes accounts with a few events each.
func (w *world) fill(accounts, credits int) {
	w.t.Helper()
	for i := range accounts {
		id := fmt.Sprintf("a%d", i)
		if _, err := w.repo.Create(w.t.Context(), id, open{Cents: 1}); err != nil {
			w.t.Fatal(err)
		}
		for range credits {
			if _, err := w.repo.Execute(w.t.Context(), id, credit{Cents: 10}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func TestEventsArePaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.fill(3, 3)
	var got []string
	for path := "api/events?limit=5"; path != ""; {
		page := get[listed](w, path)
		for _, e := range page.Events {
			got = append(got, fmt.Sprintf("%s.%d %s %d", e.ID, e.Version, e.Name, e.Data["cents"]))
		}
		if path = ""; page.Before > 0 {
			path = fmt.Sprintf("api/events?limit=5&before=%d", page.Before)
		}
	}
	want := []string{
		"a2.4 credited 10", "a2.3 credited 10", "a2.2 credited 10", "a2.1 opened 1",
		"a1.4 credited 10", "a1.3 credited 10", "a1.2 credited 10", "a1.1 opened 1",
		"a0.4 credited 10", "a0.3 credited 10", "a0.2 credited 10", "a0.1 opened 1",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if page := get[listed](w, "api/events?name=opened&id=a1"); len(page.Events) != 1 || page.Events[0].ID != "a1" {
		t.Errorf("%+v", page)
	}
	// One aggregate's are found without a search, and paged, too.
	page := get[listed](w, "api/events?type=account&id=a0&limit=3")
	if len(page.Events) != 3 || page.Events[0].Version != 4 || page.Searched != 3 {
		t.Errorf("%+v", page)
	}
	w.problem(http.StatusBadRequest, "invalid", http.MethodGet, "api/events?type=account&id=a0&before=13", nil, nil)
	page = get[listed](w, fmt.Sprintf("api/events?type=account&id=a0&limit=3&before=%d", page.Before))
	if len(page.Events) != 1 || page.Events[0].Version != 1 || page.Before != 0 {
		t.Errorf("%+v", page)
	}
	for _, bad := range []string{"limit=0", "limit=201", "limit=x", "before=-1"} {
		w.problem(http.StatusBadRequest, "invalid", http.MethodGet, "api/events?"+bad, nil, nil)
	}
	w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/events/99999", nil, nil)
	recent := get[struct{ Aggregates []struct{ ID string } }](w, "api/aggregates?limit=2")
	if len(recent.Aggregates) != 2 || recent.Aggregates[0].ID != "a2" || recent.Aggregates[1].ID != "a1" {
		t.Errorf("%+v", recent)
	}
}

// Replicas may be behind; what was just done is found all the same.
func TestWhatWasJustDoneIsFoundOnReplicas(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, natstest.RunCluster(t).Conn(t), 3, nil)
	for i := range 20 {
		id := fmt.Sprintf("a%d", i)
		body := map[string]any{"type": "account", "command": "open", "id": id, "key": "key-" + id}
		a := post[sent](w, "api/commands", body).Answers[0]
		// Three servers may elect a leader: what got no answer is sent again with its key.
		natstest.Eventually(t, "it is done", func() error {
			if a.OK {
				return nil
			}
			a = post[sent](w, "api/commands", body).Answers[0]
			return fmt.Errorf("%+v", a)
		})
		if !a.OK {
			t.FailNow()
		}
		if got := get[listed](w, fmt.Sprintf("api/events/%d", a.Sequence)); got.Events[0].ID != a.ID {
			t.Errorf("%+v", got)
		}
		if got := get[listed](w, "api/events?limit=1"); got.Events[0].ID != a.ID {
			t.Errorf("%+v", got)
		}
		if got := get[listed](w, "api/aggregates/account/"+a.ID); got.Events[0].Version != 1 {
			t.Errorf("%+v", got)
		}
	}
}

func TestTimeTravel(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]bool{"replayed": true, "stored": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := newWorldWithStates
			if !given {
				start = func(t *testing.T) *world { t.Helper(); return newWorld(t, nil) }
			}
			w := start(t)
			w.fill(1, 3)
			type at struct {
				State, Before *account
				Source        string
				Event         struct{ Name string }
			}
			for version, cents := range []int64{1, 11, 21, 31} {
				got := get[at](w, fmt.Sprintf("api/aggregates/account/a0/versions/%d", version+1))
				if got.Source != name || got.State == nil || got.State.Cents != cents {
					t.Errorf("version %d: %+v", version+1, got)
				}
				if (got.Before == nil) != (version == 0) || version > 0 && got.Before.Cents != cents-10 {
					t.Errorf("before version %d: %+v", version+1, got.Before)
				}
			}
			page := get[listed](w, "api/aggregates/account/a0?limit=2")
			if len(page.Events) != 2 || page.Events[0].Version != 4 || page.Before != 3 {
				t.Errorf("%+v", page)
			}
			page = get[listed](w, "api/aggregates/account/a0?limit=5&before=3")
			if len(page.Events) != 2 || page.Events[0].Version != 2 || page.Before != 0 {
				t.Errorf("%+v", page)
			}
			w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/aggregates/account/a0/versions/5", nil, nil)
			w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/aggregates/account/nobody", nil, nil)
		})
	}
}

// newWorldWithStates is a world whose console was given the repository.
func newWorldWithStates(t *testing.T) *world {
	t.Helper()
	return newWorld(t, func(c *console.Config) {
		repo, err := aggregate.NewRepository(c.Store, accountType(events()), aggregate.RepositoryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		c.States = []console.State{console.StateOf(repo)}
	})
}

func TestTreeFollowsCauses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ctx := t.Context()
	w.fill(1, 0)
	first := get[listed](w, "api/events?limit=1").Events[0]
	if _, err := w.repo.Create(ctx, "other", open{}); err != nil {
		t.Fatal(err)
	}
	trigger := aggregate.TriggeredBy(aggregate.Trigger{
		Subscriber: "reactor", EventID: first.EventID, Step: "credit", Position: w.store.Position(first.Sequence),
	})
	if _, err := w.repo.Execute(ctx, "other", credit{Cents: 1}, trigger); err != nil {
		t.Fatal(err)
	}
	second := get[listed](w, "api/events?limit=1").Events[0]
	trigger = aggregate.TriggeredBy(aggregate.Trigger{
		Subscriber: "reactor", EventID: second.EventID, Step: "refused", Position: w.store.Position(second.Sequence),
	})
	if _, err := w.repo.Execute(ctx, "a0", credit{}, trigger); !aggregate.IsRefusal(err) {
		t.Fatal(err)
	}
	type node struct{ ID, Name, Causation, Subscriber, Step, Rejected string }
	for _, from := range []uint64{first.Sequence, second.Sequence} {
		got := get[struct {
			Nodes    []node
			Complete bool
		}](w, fmt.Sprintf("api/events/%d/tree", from))
		want := []node{
			{ID: "a0", Name: "opened"},
			{ID: "other", Name: "credited", Causation: first.EventID, Subscriber: "reactor", Step: "credit"},
			{ID: "a0", Causation: second.EventID, Subscriber: "reactor", Step: "refused", Rejected: "too-little"},
		}
		if fmt.Sprint(got.Nodes) != fmt.Sprint(want) || !got.Complete {
			t.Errorf("from %d: %+v, want %+v", from, got, want)
		}
	}
}

// A page hears of what happens, of the status, and is told when there are too many.
func TestPagesListen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *console.Config) { c.Listeners = 1 })
	w.fill(1, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"api/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	w.problem(http.StatusServiceUnavailable, "too-many", http.MethodGet, "api/stream", nil, nil)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	var name string
	names, seen, later := map[string]int{}, []string{}, false
	for lines.Scan() {
		if event, is := strings.CutPrefix(lines.Text(), "event: "); is {
			name = event
		}
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if !is {
			continue
		}
		names[name]++
		var e struct {
			ID      string `json:"id"`
			Version int    `json:"version"`
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatal(err, data)
		}
		if name == "event" {
			seen = append(seen, fmt.Sprintf("%s.%d", e.ID, e.Version))
		}
		if len(seen) == 2 && names["status"] > 0 && !later {
			later = true
			if _, err := w.repo.Execute(t.Context(), "a0", credit{Cents: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) == 3 {
			break
		}
	}
	if got := strings.Join(seen, " "); got != "a0.1 a0.2 a0.3" {
		t.Errorf("%s (%v)", got, lines.Err())
	}
}
