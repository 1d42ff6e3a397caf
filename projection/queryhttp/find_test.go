package queryhttp_test

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// TestFind: an index is searched by its parameters, page by page by the links alone.
func TestFind(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const n = 25
	for i := range n {
		f.append(fmt.Sprint("a", i), credited{Cents: int64(i - 5)})
	}
	at := f.serve(queryhttp.Config{ProblemBase: "urn:problem:"})
	follow := func(query string) (keys []string, pages int) {
		t.Helper()
		base, err := url.Parse(at + "?" + query)
		if err != nil {
			t.Fatal(err)
		}
		for address := base.String(); address != ""; pages++ {
			r := do(t, "GET", address)
			if r.Header.Get("Rossby-Position") != f.last.String() {
				t.Errorf("%s: %d %v %s", address, r.StatusCode, r.Header, r.body)
			}
			for _, e := range list(t, r).Entries {
				keys = append(keys, e.Key)
				if e.Indexed != projection.IntValue(e.Value.Cents) {
					t.Errorf("%+v", e)
				}
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
		return keys, pages
	}
	all := make([]string, 0, n)
	for i := range n {
		all = append(all, fmt.Sprint("a", i))
	}
	after := "&after=" + f.last.String()
	if keys, pages := follow("index=cents&limit=10" + after); !slices.Equal(keys, all) || pages != 3 {
		t.Errorf("%d pages, %q", pages, keys)
	}
	slices.Reverse(all)
	if keys, pages := follow("index=cents&reverse=true&limit=25" + after); !slices.Equal(keys, all) || pages != 1 {
		t.Errorf("%d pages, %q", pages, keys)
	}
	for query, want := range map[string][]string{
		"value=" + projection.IntValue(3): {"a8"}, "prefix=n&limit=2": {"a0", "a1", "a2", "a3", "a4"},
		"from=" + projection.IntValue(-1) + "&before=" + projection.IntValue(1): {"a4", "a5"},
	} {
		if keys, _ := follow("index=cents&" + query + after); !reflect.DeepEqual(keys, want) {
			t.Errorf("%s: %q", query, keys)
		}
	}
	for query, want := range map[string]struct {
		status      int
		kind, field string
	}{
		"index=colour":           {404, "no-such-index", ""},
		"index=":                 {400, "invalid", "index"},
		"index=Cents":            {400, "invalid", "index name"},
		"value=x":                {400, "invalid", "value"},
		"index=cents&value=":     {400, "invalid", "value"},
		"index=cents&reverse=2":  {400, "invalid", "reverse"},
		"index=cents&page=1-1":   {400, "invalid", "find token"},
		"index=cents&key=a1":     {400, "invalid", "index"},
		"index=cents&index=note": {400, "invalid", "index"},
	} {
		r := do(t, "GET", at+"?"+query)
		if p := r.json(t); r.StatusCode != want.status || p["type"] != "urn:problem:"+want.kind || want.field != "" && p["field"] != want.field {
			t.Errorf("%s: %d %s", query, r.StatusCode, r.body)
		}
	}
	if r := do(t, "GET", at+"?index=cents", "Accept", "text/event-stream"); r.StatusCode != http.StatusBadRequest {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// TestPageETag: a page is not sent again while its entries are the same, however far
// the view has moved meanwhile, and is when one of them changes, comes or goes.
func TestPageETag(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 4 {
		f.append(fmt.Sprint("a", i), credited{Cents: int64(i)})
	}
	at := f.serve(queryhttp.Config{})
	tags := map[string]string{}
	queries := []string{"prefix=a", "prefix=a&limit=2", "key=a1&key=a2", "index=cents", "index=cents&reverse=true"}
	look := func(query string) response {
		return do(t, "GET", at+"?"+query+"&after="+f.last.String(), "If-None-Match", tags[query])
	}
	same := func(query string, want bool) {
		t.Helper()
		r := look(query)
		if is := r.StatusCode == http.StatusNotModified; is != want || is && len(r.body) > 0 || r.Header.Get("Rossby-Position") != f.last.String() {
			t.Errorf("%s: %d %v %s", query, r.StatusCode, r.Header, r.body)
		}
		tags[query] = r.Header.Get("ETag")
		if !strings.HasPrefix(tags[query], `W/"`) {
			t.Errorf("%s: %v", query, r.Header)
		}
	}
	for _, q := range queries {
		same(q, false)
		same(q, true)
	}
	f.append("b", closed{}) // The view moves on, and holds the same.
	for _, q := range queries {
		same(q, true)
	}
	f.append("a1", credited{Cents: 50})
	for _, q := range queries {
		same(q, false)
		same(q, true)
	}
	f.append("a3", closed{})
	for _, q := range queries {
		// The first two of four in the order of their change are the same, too.
		same(q, q == "key=a1&key=a2" || q == "prefix=a&limit=2")
	}
}
