package page_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/page"
)

func get(t *testing.T, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	h, err := page.Handler()
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(w, r)
	return w
}

func TestFilesAreServedWithTheirTypes(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/":          "text/html; charset=utf-8",
		"/style.css": "text/css; charset=utf-8",
		"/app.js":    "text/javascript; charset=utf-8",
		"/forms.js":  "text/javascript; charset=utf-8",
		"/icon.svg":  "image/svg+xml",
	} {
		resp := get(t, http.MethodGet, path, nil)
		if resp.Code != http.StatusOK || resp.Body.Len() == 0 {
			t.Errorf("%s: status %d with %d bytes", path, resp.Code, resp.Body.Len())
		}
		if got := resp.Header().Get("Content-Type"); got != want {
			t.Errorf("%s: Content-Type %q, want %q", path, got, want)
		}
		if got := resp.Header().Get("Cache-Control"); got != "no-cache" {
			t.Errorf("%s: Cache-Control %q", path, got)
		}
		if got := resp.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'self'") {
			t.Errorf("%s: Content-Security-Policy %q", path, got)
		}
		again := get(t, http.MethodGet, path, http.Header{"If-None-Match": {resp.Header().Get("ETag")}})
		if again.Code != http.StatusNotModified {
			t.Errorf("%s: status %d for the same ETag", path, again.Code)
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/nothing", http.StatusNotFound},
		{http.MethodGet, "/static/app.js", http.StatusNotFound},
		{http.MethodPost, "/", http.StatusMethodNotAllowed},
		{http.MethodHead, "/", http.StatusOK},
	} {
		if resp := get(t, test.method, test.path, nil); resp.Code != test.want {
			t.Errorf("%s %s: status %d, want %d", test.method, test.path, resp.Code, test.want)
		}
	}
}

// sources are the page's files by name.
func sources(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("static/*")
	if err != nil || len(names) == 0 {
		t.Fatal("no files: ", err)
	}
	out := map[string]string{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(name)] = string(body)
	}
	return out
}

func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	// A namespace is a name, nothing that is fetched.
	elsewhere := regexp.MustCompile(`(?i)(\b(https?|wss?|ftp):|["'(=\s])//[a-z0-9]`)
	for name, text := range sources(t) {
		text = strings.ReplaceAll(text, `xmlns="http://www.w3.org/2000/svg"`, "")
		for _, found := range elsewhere.FindAllString(text, -1) {
			t.Errorf("%s refers to another site: %q", name, found)
		}
	}
}

func TestDataNeverBecomesMarkup(t *testing.T) {
	t.Parallel()
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	for name, text := range sources(t) {
		if found := markup.FindString(text); found != "" {
			t.Errorf("%s uses %s", name, found)
		}
	}
}

// What the policy forbids would only be seen in a browser.
func TestTheHTMLHasNothingInline(t *testing.T) {
	t.Parallel()
	inline := regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|<style|<script>|javascript:`)
	if found := inline.FindString(sources(t)["index.html"]); found != "" {
		t.Errorf("index.html has %q", found)
	}
}

// The scripts find their elements by id.
func TestEveryElementExists(t *testing.T) {
	t.Parallel()
	files := sources(t)
	for name, text := range files {
		if !strings.HasSuffix(name, ".js") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?:\$|form|copy)\("([a-z-]+)"`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(files["index.html"], `id="`+m[1]+`"`) {
				t.Errorf("%s looks for #%s, which index.html lacks", name, m[1])
			}
		}
	}
}
