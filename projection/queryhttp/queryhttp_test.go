package queryhttp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

func TestGet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := f.serve(queryhttp.Config{})
	pos := f.append("a1", credited{Cents: 5})
	r := do(t, "GET", at+"a1?after="+pos.String(), "Prefer", "respond-async, wait=30")
	etag := r.Header.Get("ETag")
	if r.StatusCode != http.StatusOK || string(r.body) != `{"cents":5,"note":"<a1>"}`+"\n" || r.Header.Get("Rossby-Position") != pos.String() ||
		r.Header.Get("Content-Type") != "application/json" || etag == "" || r.Header.Get("Cache-Control") != "no-cache" ||
		r.Header.Get("Vary") != "Accept" || r.Header.Get("Last-Modified") == "" {
		t.Fatalf("%d %v %s", r.StatusCode, r.Header, r.body)
	}
	for _, tags := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		if r := do(t, "GET", at+"a1", "If-None-Match", tags); r.StatusCode != http.StatusNotModified || len(r.body) != 0 || r.Header.Get("ETag") != etag {
			t.Errorf("%s: %d %v %s", tags, r.StatusCode, r.Header, r.body)
		}
	}
	if r := do(t, "HEAD", at+"a1"); r.StatusCode != http.StatusOK || len(r.body) != 0 || r.Header.Get("ETag") != etag {
		t.Errorf("%d %v %s", r.StatusCode, r.Header, r.body)
	}
	// Read your writes: each of them, at once, and the entity tag changes with it.
	for i := range 20 {
		pos = f.append("a1", credited{Cents: 1})
		r := do(t, "GET", at+"a1?after="+pos.String(), "If-None-Match", etag)
		if r.StatusCode != http.StatusOK || r.json(t)["cents"] != float64(6+i) || r.Header.Get("ETag") == etag {
			t.Fatalf("%d: %d %v %s", i, r.StatusCode, r.Header, r.body)
		}
		etag = r.Header.Get("ETag")
	}
	// Keys of every kind.
	for _, key := range []string{"a/b c", "ü%2F", "x//y?z", "#1", "..a"} {
		if r := do(t, "GET", at+url.PathEscape(key)); r.StatusCode != http.StatusNotFound || r.Header.Get("Rossby-Position") == "" ||
			!strings.HasSuffix(fmt.Sprint(r.json(t)["type"]), "docs/queries.md#not-found") || r.json(t)["instance"] != "/balances/"+url.PathEscape(key) {
			t.Errorf("%q: %d %v %s", key, r.StatusCode, r.Header, r.body)
		}
	}
	for _, id := range []string{"a/b", "ü", "x?y", "50%"} {
		pos := f.append(id, credited{Cents: 9})
		if r := do(t, "GET", at+url.PathEscape(id)+"?after="+pos.String()); r.StatusCode != http.StatusOK || r.json(t)["cents"] != 9.0 {
			t.Errorf("%q: %d %s", id, r.StatusCode, r.body)
		}
	}
	// The slash may stand as it is.
	if r := do(t, "GET", at+"a/b"); r.StatusCode != http.StatusOK {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := f.serve(queryhttp.Config{ProblemBase: "urn:problem:"})
	pos := f.append("a1", credited{Cents: 5})
	if r := do(t, "GET", at+"a1?after="+pos.String()); r.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	f.stop()
	later := f.append("a1", credited{Cents: 5})
	// What was not even read in that time is unavailable.
	patiently := func(method, url string, headers ...string) (r response) {
		t.Helper()
		for wait := time.Second; wait < natstest.Patience; wait *= 2 {
			r = do(t, method, url, append(headers, "Prefer", fmt.Sprintf("wait=%d", wait/time.Second))...)
			if r.StatusCode != http.StatusServiceUnavailable {
				break
			}
		}
		return r
	}
	began := time.Now()
	r := patiently("GET", at+"a1?after="+later.String())
	p := r.json(t)
	if r.StatusCode != http.StatusGatewayTimeout || p["type"] != "urn:problem:stale" || p["title"] != "Gateway Timeout" || p["status"] != 504.0 ||
		p["wanted"] != later.String() || p["position"] != pos.String() || p["behind"] != 1.0 || p["state"] != "free" || p["lagSeconds"] == nil ||
		r.Header.Get("Retry-After") != "1" || r.Header.Get("Content-Type") != "application/problem+json" || time.Since(began) < time.Second {
		t.Errorf("%d %v %s", r.StatusCode, r.Header, r.body)
	}
	for _, c := range []struct {
		method, path, kind string
		status             int
		field              string
		headers            []string
	}{
		{"POST", "a1", "method-not-allowed", 405, "", nil},
		{"GET", "a1?after=elsewhere-7", "foreign-position", 409, "", nil},
		{"GET", "a1?after=x", "invalid", 400, "", nil},
		{"GET", "a1?after=" + pos.String() + "&after=" + pos.String(), "invalid", 400, "after", nil},
		{"GET", "a1?prefix=b", "invalid", 400, "prefix", nil},
		{"GET", "a1", "invalid", 400, "Prefer", []string{"Prefer", "wait=soon"}},
		{"GET", "%FF", "invalid", 400, "key", nil},
		{"GET", "?limit=0", "invalid", 400, "limit", nil},
		{"GET", "?limit=1001", "invalid", 400, "limit", nil},
		{"GET", "?limt=10", "invalid", 400, "limt", nil},
		{"GET", "?page=x", "invalid", 400, "list token", nil},
		{"GET", "?page=9-1", "expired", 410, "", nil},
		{"GET", "?a=%zz", "invalid", 400, "query", nil},
		{"GET", "?key=", "invalid", 400, "key", nil},
		{"GET", "?page=1-1", "invalid", 400, "", []string{"Accept", "text/event-stream"}},
		{"GET", "", "invalid", 400, "list token", []string{"Accept", "text/event-stream", "Last-Event-ID", "what?"}},
		{"GET", "?after=" + later.String(), "stale", 504, "", []string{"Accept", "text/event-stream"}},
	} {
		var r response
		if c.kind == "stale" {
			r = patiently(c.method, at+c.path, c.headers...)
		} else {
			r = do(t, c.method, at+c.path, c.headers...)
		}
		if p := r.json(t); r.StatusCode != c.status || p["type"] != "urn:problem:"+c.kind || c.field != "" && p["field"] != c.field || p["detail"] == "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.StatusCode, r.body)
		}
	}
	if r := do(t, "PUT", at); r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%v", r.Header)
	}
	f.nc.Close()
	if r := do(t, "GET", at+"a1"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", r.StatusCode, r.Header, r.body)
	}
}

type listed struct {
	Entries []struct {
		Key      string             `json:"key"`
		Value    balance            `json:"value"`
		ETag     string             `json:"etag"`
		Indexed  string             `json:"indexed"`
		Position jetstream.Position `json:"position"`
	} `json:"entries"`
	Next string `json:"next"`
}

func list(t *testing.T, r response) listed {
	t.Helper()
	var out listed
	if err := json.Unmarshal(r.body, &out); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%d %s: %v", r.StatusCode, r.body, err)
	}
	return out
}

func TestList(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := f.serve(queryhttp.Config{})
	if r := do(t, "GET", at); string(r.body) != `{"entries":[]}`+"\n" || r.Header.Get("Link") != "" {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	const n = 25
	for i := range n {
		f.append(fmt.Sprint("a", i), credited{Cents: int64(i)})
	}
	f.append("b", credited{})
	// From page to page by the links alone.
	base, err := url.Parse(at + "?limit=10&prefix=a&after=" + f.last.String())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	pages := 0
	for address := base.String(); address != ""; pages++ {
		r := do(t, "GET", address)
		for _, e := range list(t, r).Entries {
			keys = append(keys, e.Key)
			if fmt.Sprint("a", e.Value.Cents) != e.Key || e.Value.Note != "<"+e.Key+">" || e.Position != f.last {
				t.Errorf("%+v", e)
			}
			if r := do(t, "GET", at+e.Key, "If-None-Match", e.ETag); r.StatusCode != http.StatusNotModified {
				t.Errorf("%s: %d", e.Key, r.StatusCode)
			}
		}
		if r.Header.Get("Rossby-Position") != f.last.String() {
			t.Errorf("%v", r.Header)
		}
		link, found := strings.CutPrefix(r.Header.Get("Link"), "<")
		if address = ""; found {
			ref, err := base.Parse(strings.TrimSuffix(link, `>; rel="next"`))
			if err != nil {
				t.Fatal(err)
			}
			address = ref.String()
		}
	}
	if pages != 3 || len(keys) != n || keys[0] != "a0" || !slices.IsSortedFunc(keys, func(a, b string) int { return len(a) - len(b) }) {
		t.Errorf("%d pages, %q", pages, keys)
	}
	// Some keys, as they stood together.
	if l := list(t, do(t, "GET", at+"?key=a3&key=nobody&key=a1")); len(l.Entries) != 2 || l.Entries[0].Key != "a3" || l.Entries[1].Key != "a1" || l.Next != "" {
		t.Errorf("%+v", l)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	err := queryhttp.Config{Heartbeat: -1, MaxWatches: -1, ProblemBase: ":", Timeout: -1, WriteTimeout: -1}.Validate()
	for _, field := range []string{"Heartbeat", "MaxWatches", "ProblemBase", "Timeout", "WriteTimeout"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in %v", field, err)
		}
	}
	if _, err := queryhttp.New[balance](nil, queryhttp.Config{}); err == nil {
		t.Error("no source: no error")
	}
	if _, ok := errors.AsType[*jetstream.InvalidError](err); !ok {
		t.Error(err)
	}
	var _ queryhttp.Source[balance] = (*projection.Reader[balance])(nil)
}
