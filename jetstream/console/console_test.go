package console_test

import (
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/console"
)

// types are what commands are told of.
type types struct {
	Types []struct {
		Type      string
		Instances int
		Commands  []struct {
			Name    string
			Creates bool
			Schema  map[string]any
		}
	}
}

type sent struct {
	Subject  string
	Outcomes map[string]int
	Answers  []struct {
		Outcome, ID, Key, Reason string
		OK                       bool
		Sequence                 uint64
		Reply                    struct{ Version uint64 }
	}
}

func TestCommandsAreFoundAndSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var found types
	natstest.Eventually(t, "the service is found", func() error {
		if found = get[types](w, "api/commands"); len(found.Types) == 0 {
			return errors.New("nothing")
		}
		return nil
	})
	if all := get[types](w, "api/commands?all"); len(all.Types) != 1 || len(all.Types[0].Commands) != 2 {
		t.Errorf("%+v", all)
	}
	if len(found.Types) != 1 || found.Types[0].Type != "account" || found.Types[0].Instances != 1 ||
		len(found.Types[0].Commands) != 2 || !found.Types[0].Commands[1].Creates ||
		found.Types[0].Commands[0].Schema["properties"] == nil {
		t.Fatalf("%+v", found)
	}
	send := func(command, id string, more map[string]any) sent {
		body := map[string]any{"type": "account", "command": command, "id": id}
		maps.Copy(body, more)
		return post[sent](w, "api/commands", body)
	}
	cents := map[string]any{"cents": 5}

	if got := send("open", "a1", map[string]any{"body": cents}); got.Outcomes["ok"] != 1 || got.Answers[0].Sequence == 0 ||
		got.Subject != w.store.Name()+".command.account.open.a1" {
		t.Errorf("%+v", got)
	}
	// The same key twice is one command.
	if got := send("credit", "a1", map[string]any{"body": cents, "times": 2}); got.Outcomes["ok"] != 1 ||
		got.Outcomes["duplicate"] != 1 || got.Answers[1].Reply.Version != 2 {
		t.Errorf("%+v", got)
	}
	// Of a hundred with one expectation one is the first.
	hundred := map[string]any{"body": cents, "times": 100, "together": true, "expectVersion": 2}
	if got := send("credit", "a1", hundred); got.Outcomes["ok"] != 1 || got.Outcomes["conflict: version"] != 99 ||
		len(got.Answers) != 2 {
		t.Errorf("%+v", got)
	}
	if got := send("credit", "a1", map[string]any{"body": map[string]any{"cents": -1}}); got.Outcomes["rejected: too-little"] != 1 {
		t.Errorf("%+v", got)
	}
	if got := send("nothing", "a1", nil); got.Outcomes["unavailable"] != 1 {
		t.Errorf("%+v", got)
	}
	for _, bad := range []map[string]any{
		{"type": "account", "command": "credit", "id": "a b"},
		{"type": "Account", "command": "credit", "id": "a1"},
		{"type": "account", "command": "credit", "id": "a1", "times": 101},
		{"type": "account", "command": "credit", "id": "a1", "tiems": 2},
	} {
		w.problem(http.StatusBadRequest, "invalid", http.MethodPost, "api/commands", bad, nil)
	}
}

func TestNothingActsUnlessItMay(t *testing.T) {
	t.Parallel()
	var asked []console.Action
	w := newWorld(t, func(c *console.Config) {
		c.Authorize = func(r *http.Request, a console.Action) error {
			asked = append(asked, a)
			if r.Header.Get("X-User") != "ada" {
				return errors.New("only Ada may do that")
			}
			return nil
		}
	})
	command := map[string]any{"type": "account", "command": "open", "id": "a1"}
	ada := http.Header{"X-User": {"ada"}}
	w.problem(http.StatusForbidden, "forbidden", http.MethodGet, "api/status", nil, nil)
	w.problem(http.StatusForbidden, "forbidden", http.MethodPost, "api/commands", command, nil)
	if got := w.do(http.MethodPost, "api/commands", command, ada); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
	want := console.Action{Name: console.ActionCommand, Target: "account/a1/open"}
	if got := asked[len(asked)-1]; got != want {
		t.Errorf("asked %+v, want %+v", got, want)
	}
	// Other sites' pages are refused even with the user's credentials.
	other := http.Header{"X-User": {"ada"}, "Sec-Fetch-Site": {"cross-site"}}
	w.problem(http.StatusForbidden, "cross-origin", http.MethodPost, "api/commands", command, other)
	form := http.Header{"X-User": {"ada"}, "Content-Type": {"text/plain"}}
	w.problem(http.StatusUnsupportedMediaType, "unsupported-media-type", http.MethodPost, "api/commands", command, form)

	reading := newWorld(t, func(c *console.Config) { c.Actions = false })
	for _, path := range []string{
		"api/commands", "api/followers/x/pause", "api/views/" + view + "/pause", "api/views/" + view + "/rebuild", "api/switches/x",
	} {
		reading.problem(http.StatusForbidden, "read-only", http.MethodPost, path, command, nil)
	}
	if i := get[struct{ Actions bool }](reading, "api/info"); i.Actions {
		t.Error("the page is told that it may act")
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	_, err := console.New(console.Config{
		Listeners: -1, States: make([]console.State, 1), Checks: make([]console.Check, 1),
		Switches: []console.Switch{{Name: "A B"}}, Views: []string{"_x"},
	})
	for _, want := range []string{"Store", "Listeners", "States[0]", "Checks[0]", "Switches[0]", "Views"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestThePageIsServedAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for path, want := range map[string]string{
		"":          "text/html; charset=utf-8",
		"app.js":    "text/javascript; charset=utf-8",
		"style.css": "text/css; charset=utf-8",
		"icon.svg":  "image/svg+xml",
	} {
		page := w.do(http.MethodGet, path, nil, nil)
		if page.status != http.StatusOK || len(page.body) == 0 || page.header.Get("Content-Type") != want {
			t.Errorf("%q: %d %v", path, page.status, page.header)
		}
		if got := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; script-src 'self';") {
			t.Errorf("%q: %q", path, got)
		}
		again := w.do(http.MethodGet, path, nil, http.Header{"If-None-Match": {page.header.Get("ETag")}})
		if again.status != http.StatusNotModified {
			t.Errorf("%q: %d for the same ETag", path, again.status)
		}
	}
	w.problem(http.StatusNotFound, "no-such-route", http.MethodPost, "app.js", map[string]any{}, nil)
	if got := w.do(http.MethodGet, "static/app.js", nil, nil); got.status != http.StatusNotFound {
		t.Error(got.status)
	}
}

// The page needs nothing from elsewhere, nothing inline, and makes no markup of data.
func TestThePageKeepsItsOwnRules(t *testing.T) {
	t.Parallel()
	elsewhere := regexp.MustCompile(`(?i)(\b(https?|wss?|ftp):|["'(=\s])//[a-z0-9]`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	inline := regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|<style|<script>|javascript:`)
	names, err := filepath.Glob("static/*")
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(body)
		for _, namespace := range []string{`xmlns="http://www.w3.org/2000/svg"`, `createElementNS("http://www.w3.org/2000/svg"`} {
			text = strings.ReplaceAll(text, namespace, "")
		}
		for _, rule := range []*regexp.Regexp{elsewhere, markup} {
			if found := rule.FindString(text); found != "" {
				t.Errorf("%s has %q", name, found)
			}
		}
		if found := inline.FindString(text); strings.HasSuffix(name, ".html") && found != "" {
			t.Errorf("%s has %q", name, found)
		}
	}
}
