package commandhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/commandhttp"
	"github.com/rossby-go/rossby/jetstream"
)

// Over a repository and over a client of a service alike.
func TestCommands(t *testing.T) {
	t.Parallel()
	repo, client := setup(t)
	for name, target := range map[string]aggregate.Target{"repository": repo, "client": client} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, commandhttp.Config{Targets: []aggregate.Target{target}})
			at := url + "/account/" + name

			made := do(t, "POST", at+"/open", `{"cents":100}`)
			if made.StatusCode != http.StatusCreated || made.Header.Get("ETag") != `"1"` || made.Header.Get("Location") != "./"+name ||
				made.Header.Get("Rossby-Position") == "" || made.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("%d %v %s", made.StatusCode, made.Header, made.body)
			}
			if b := made.json(t); b["id"] != name || b["version"] != 1.0 || b["position"] != made.Header.Get("Rossby-Position") ||
				fmt.Sprint(b["events"].([]any)[0].(map[string]any)["data"]) != "map[Cents:100]" { //nolint:forcetypeassert // fails the test
				t.Errorf("%s", made.body)
			}

			key := []string{"Idempotency-Key", `"k 1"`, "If-Match", `"1"`}
			first := do(t, "POST", at+"/debit", `{"cents":5}`, key...)
			again := do(t, "POST", at+"/debit", `{"cents":5}`, "Idempotency-Key", "k 1", "If-Match", `"1"`)
			if first.StatusCode != http.StatusOK || again.StatusCode != http.StatusOK || first.Header.Get("ETag") != `"2"` || again.Header.Get("ETag") != `"2"` ||
				first.Header.Get("Idempotent-Replayed") != "" || again.Header.Get("Idempotent-Replayed") != "true" ||
				first.Header.Get("Rossby-Position") != again.Header.Get("Rossby-Position") {
				t.Errorf("%d %v %d %v", first.StatusCode, first.Header, again.StatusCode, again.Header)
			}
			reused := do(t, "POST", at+"/debit", `{"cents":6}`, key...)
			if p := reused.json(t); reused.StatusCode != http.StatusUnprocessableEntity || !strings.HasSuffix(fmt.Sprint(p["type"]), "#key-reused") {
				t.Errorf("%s", reused.body)
			}
			stale := do(t, "POST", at+"/debit", `{"cents":5}`, "If-Match", `"1"`)
			if p := stale.json(t); stale.StatusCode != http.StatusPreconditionFailed || stale.Header.Get("ETag") != `"2"` || p["expected"] != 1.0 || p["actual"] != 2.0 {
				t.Errorf("%d %v %s", stale.StatusCode, stale.Header, stale.body)
			}

			// Nothing but headers.
			short := do(t, "POST", at+"/debit", `{"cents":5}`, "Prefer", "respond-async, return=minimal; x, wait=60")
			if short.StatusCode != http.StatusNoContent || len(short.body) != 0 || short.Header.Get("ETag") != `"3"` ||
				short.Header.Get("Preference-Applied") != "return=minimal" || short.Header.Get("Rossby-Position") == "" {
				t.Errorf("%d %v %s", short.StatusCode, short.Header, short.body)
			}
			// msgpack, and media types that end as JSON.
			packed, err := msgpack.Marshal(map[string]int{"cents": 5})
			if err != nil {
				t.Fatal(err)
			}
			if a := do(t, "POST", at+"/debit", string(packed), "Content-Type", "application/msgpack"); a.StatusCode != http.StatusOK {
				t.Errorf("%s", a.body)
			}
			if a := do(t, "POST", at+"/debit", `{"cents":5}`, "Content-Type", "application/vnd.bank+json; v=1"); a.StatusCode != http.StatusOK {
				t.Errorf("%s", a.body)
			}
			if a := do(t, "POST", at+"/debit", "", "If-Match", "*"); a.StatusCode != http.StatusOK || a.Header.Get("ETag") != `"6"` { // {}
				t.Errorf("%v %s", a.Header, a.body)
			}
			// Without an id: one aggregate for one key.
			id := func(key string) string {
				a := do(t, "POST", url+"/account/open", `{"cents":1}`, "Idempotency-Key", key, "Prefer", "return=minimal")
				if a.StatusCode != http.StatusCreated || len(a.body) != 0 {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
				return a.Header.Get("Location")
			}
			if one := id(name + "1"); one != id(name+"1") || one == id(name+"2") {
				t.Error(one)
			}
			for what, c := range map[string]struct {
				path, body string
				header     []string
				status     int
				kind, more string
			}{
				"rejected":         {"/debit", `{"cents":1000}`, nil, 422, "rejected", "insufficient-funds"},
				"exists":           {"/open", `{"cents":1}`, nil, 409, "exists", ""},
				"exists, unwanted": {"/open", `{"cents":1}`, []string{"If-None-Match", "*"}, 412, "exists", ""},
				"absent":           {"-absent/debit", `{"cents":1}`, []string{"If-Match", "*"}, 404, "not-found", ""},
				"internal":         {"/fail", `{}`, nil, 500, "internal", ""},
				"unknown field":    {"/debit", `{"cent":1}`, nil, 400, "invalid", `"field":"cent"`},
				"wrong type":       {"/debit", `{"cents":"1"}`, nil, 400, "invalid", `"field":"cents"`},
				"no JSON":          {"/debit", `cents=1`, nil, 400, "invalid", `"value":"cents=1"`},
				"bad id":           {"%20/debit", `{"cents":1}`, nil, 400, "invalid", `"field":"aggregate id"`},
				"bad key":          {"/debit", `{}`, []string{"Idempotency-Key", `""`}, 400, "invalid", `"field":"Idempotency-Key"`},
				"long key":         {"/debit", `{}`, []string{"Idempotency-Key", strings.Repeat("x", 129)}, 400, "invalid", "128"},
				"bad match":        {"/debit", `{}`, []string{"If-Match", "7"}, 400, "invalid", `"field":"If-Match"`},
				"two matches":      {"/debit", `{}`, []string{"If-Match", `"7", "8"`}, 400, "invalid", `"field":"If-Match"`},
				"weak match":       {"/debit", `{}`, []string{"If-Match", `W/"6"`}, 412, "version", ""},
				"no match":         {"/open", `{}`, []string{"If-None-Match", `"1"`}, 400, "invalid", `"field":"If-None-Match"`},
				"bad wait":         {"/debit", `{}`, []string{"Prefer", "wait=soon"}, 400, "invalid", `"field":"Prefer"`},
				"form":             {"/debit", `cents=1`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported-media-type", ""},
				"untyped":          {"/debit", `{}`, []string{"Content-Type", ""}, 415, "unsupported-media-type", ""},
				"gzip":             {"/debit", `{}`, []string{"Content-Encoding", "gzip"}, 415, "unsupported-media-type", ""},
				"too large":        {"/debit", `{"note":"` + strings.Repeat("x", commandhttp.MaxBodyDefault) + `"}`, nil, 413, "too-large", ""},
				"no command":       {"/steal", `{}`, nil, 404, "no-such-command", ""},
				"bad mark":         {"/debit", `{}`, []string{"Rossby-Record-Rejections", "yes"}, 400, "invalid", `"field":"Rossby-Record-Rejections"`},
				"correlation":      {"/debit", `{}`, []string{"Rossby-Correlation", strings.Repeat("x", 300)}, 400, "invalid", `"field":"correlation"`},
			} {
				a := do(t, "POST", at+c.path, c.body, c.header...)
				p := a.json(t)
				if a.StatusCode != c.status || p["type"] != commandhttp.ProblemBaseDefault+c.kind || !strings.Contains(string(a.body), c.more) ||
					p["status"] != float64(c.status) || a.Header.Get("Content-Type") != "application/problem+json" ||
					p["title"] != http.StatusText(c.status) || p["instance"] != "/commands/account/"+name+c.path {
					t.Errorf("%s: %d %s", what, a.StatusCode, a.body)
				}
				if strings.Contains(string(a.body), "secret") {
					t.Errorf("%s: %s", what, a.body)
				}
			}
		})
	}
}

// Who sends a command again because its outcome is unknown says so: what it hears then
// holds for the first request, too, which may come later. It could not be said.
func TestRepetitionsAreMarked(t *testing.T) {
	t.Parallel()
	repo, client := setup(t)
	for name, target := range map[string]aggregate.Target{"repository": repo, "client": client} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, commandhttp.Config{Targets: []aggregate.Target{target}})
			for mark, want := range map[string]int{"true": http.StatusNotFound, "false": http.StatusOK} {
				at, key := url+"/account/"+name+mark, jetstream.NewCommandID()
				refused := do(t, "POST", at+"/debit", `{"cents":5}`, "Idempotency-Key", key, "Rossby-Record-Rejections", mark)
				if refused.StatusCode != http.StatusNotFound {
					t.Errorf("%s", refused.body)
				}
				if a := do(t, "POST", at+"/open", `{"cents":100}`); a.StatusCode != http.StatusCreated {
					t.Errorf("%s", a.body)
				}
				if first := do(t, "POST", at+"/debit", `{"cents":5}`, "Idempotency-Key", key); first.StatusCode != want {
					t.Errorf("a refusal that was recorded (%s), then the first request: %d %s", mark, first.StatusCode, first.body)
				}
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	repo, _ := setup(t)
	url := serve(t, commandhttp.Config{Targets: []aggregate.Target{repo}})
	for _, c := range []struct {
		method, path string
		status       int
		allow, kind  string
	}{
		{"GET", "/account/a/open", 405, "POST", "method-not-allowed"},
		{"DELETE", "/account/open", 405, "POST", "method-not-allowed"},
		{"POST", "/openapi.json", 405, "GET, HEAD", "method-not-allowed"},
		{"POST", "/account", 404, "", "no-such-command"},
		{"POST", "/", 404, "", "no-such-command"},
		{"POST", "/account/a/open/b", 404, "", "no-such-command"},
		{"POST", "/customer/a/open", 404, "", "no-such-command"},
		{"POST", "/account/debit", 404, "", "no-such-command"},
	} {
		a := do(t, c.method, url+c.path, "")
		if p := a.json(t); a.StatusCode != c.status || a.Header.Get("Allow") != c.allow || !strings.HasSuffix(fmt.Sprint(p["type"]), "#"+c.kind) {
			t.Errorf("%s %s: %d %v %s", c.method, c.path, a.StatusCode, a.Header, a.body)
		}
	}
}

// What a caller hears of the errors that need more than a wrong request.
func TestProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		kind   string
		retry  string
	}{
		{&aggregate.BusyError{RetryAfter: 1200 * time.Millisecond}, 429, "busy", "2"},
		{&aggregate.BusyError{}, 429, "busy", "1"},
		{fmt.Errorf("x: %w", aggregate.ErrContended), 429, "contended", "1"},
		{&jetstream.UnknownError{Cause: errors.New("x")}, 504, "unknown", "1"},
		{&jetstream.UnknownError{Cause: fmt.Errorf("after %w", aggregate.ErrContended)}, 504, "unknown", "1"},
		{fmt.Errorf("x: %w", jetstream.ErrUnavailable), 503, "unavailable", "1"},
		{context.DeadlineExceeded, 503, "unavailable", "1"},
		{&jetstream.RefusedError{Cause: nats.ErrMaxPayload}, 413, "too-large", ""},
		{&jetstream.RefusedError{Cause: errors.New("no space")}, 507, "refused", ""},
		{&jetstream.ForeignPositionError{Store: "bank"}, 400, "invalid", ""},
		{&jetstream.InvalidError{Field: "f", Value: strings.Repeat("ü", 1000)}, 400, "invalid", ""},
		{errors.New("a secret"), 500, "internal", ""},
	} {
		url := serve(t, commandhttp.Config{ProblemBase: "urn:bank:", Targets: []aggregate.Target{stub{newClient(t), c.err}}})
		a := do(t, "POST", url+"/account/a/debit", `{}`, "Idempotency-Key", "k")
		if p := a.json(t); a.StatusCode != c.status || p["type"] != "urn:bank:"+c.kind || a.Header.Get("Retry-After") != c.retry ||
			strings.Contains(string(a.body), "secret") || len(a.body) > 1000 {
			t.Errorf("%v: %d %v %s", c.err, a.StatusCode, a.Header, a.body)
		}
		// Under this key it may be repeated.
		if key := a.Header.Get("Idempotency-Key"); (key == `"k"`) != (c.kind == "unknown") {
			t.Errorf("%v: %q", c.err, key)
		}
		if c.kind == "unknown" {
			a := do(t, "POST", url+"/account/a/debit", `{}`)
			if !strings.HasPrefix(a.Header.Get("Idempotency-Key"), `"cmd-`) {
				t.Error(a.Header)
			}
		}
	}
}

// What is known of the caller reaches the events.
func TestOptions(t *testing.T) {
	t.Parallel()
	repo, _ := setup(t)
	url := serve(t, commandhttp.Config{
		Targets:  []aggregate.Target{repo},
		Location: func(typ, id string) string { return "/views/" + typ + "/" + id },
		Options: func(r *http.Request) ([]aggregate.CallOption, error) {
			user, _, ok := r.BasicAuth()
			if !ok {
				return nil, aggregate.Reject("anonymous", "say who you are")
			}
			return []aggregate.CallOption{aggregate.Metadata(map[string]string{"user": user})}, nil
		},
	})
	if a := do(t, "POST", url+"/account/a/open", `{"cents":1}`); a.StatusCode != http.StatusUnprocessableEntity || a.json(t)["code"] != "anonymous" {
		t.Errorf("%s", a.body)
	}
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a := do(t, "POST", url+"/account/a/open", `{"cents":1}`, "Authorization", "Basic dTE6cA==", "Traceparent", trace,
		"Rossby-Correlation", "conv", "Rossby-Causation", "cause", "Rossby-Meta-User", "forged")
	if a.StatusCode != http.StatusCreated || a.Header.Get("Location") != "/views/account/a" {
		t.Errorf("%v %s", a.Header, a.body)
	}
	for e, err := range repo.History(t.Context(), "a") {
		if err != nil || e.Metadata["user"] != "u1" || e.Correlation != "conv" || e.Causation != "cause" || e.TraceParent != trace {
			t.Errorf("%+v %v", e.Meta, err)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	repo, _ := setup(t)
	url := serve(t, commandhttp.Config{Targets: []aggregate.Target{repo}})
	a := do(t, "GET", url+"/openapi.json", "")
	var doc struct {
		OpenAPI string                               `json:"openapi"`
		Paths   map[string]map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || doc.OpenAPI != "3.1.0" || len(doc.Paths) != 4 ||
		doc.Paths["/account/{id}/debit"]["post"]["requestBody"] == nil || doc.Paths["/account/open"]["post"] == nil {
		t.Errorf("%s %v", a.body, err)
	}
	for _, want := range []string{`"cents":{"format":"int64","type":"integer"}`, `"$id":"urn:rossby:command:account:open"`} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
}

func TestConfigurationsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	client := newClient(t)
	_, err := commandhttp.New(commandhttp.Config{MaxBody: -1, Timeout: -1, ProblemBase: "%"})
	for _, field := range []string{"MaxBody", "Timeout", "ProblemBase", "Targets"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Error(field, err)
		}
	}
	_, err = commandhttp.New(commandhttp.Config{Targets: []aggregate.Target{nil, client, client}})
	if err == nil || !strings.Contains(err.Error(), "Targets[0]") || !strings.Contains(err.Error(), "Targets[2]") {
		t.Error(err)
	}
}

// Whoever leaves does not take the command along.
func TestCallersThatLeave(t *testing.T) {
	t.Parallel()
	repo, _ := setup(t)
	h, err := commandhttp.New(commandhttp.Config{Targets: []aggregate.Target{repo}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(gone, http.MethodPost, "/account/a/open", strings.NewReader(`{"cents":7}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if snap, err := repo.Load(t.Context(), "a"); err != nil || snap.State.Cents != 7 || w.Code != http.StatusCreated {
		t.Error(snap, err, w.Code)
	}
}
