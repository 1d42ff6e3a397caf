package queryhttp_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// TestOpenAPI: the document describes what is answered: values, pages, problems.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", credited{Cents: 5})
	h, err := queryhttp.New(f.reader(), queryhttp.Config{Timeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	mux := http.NewServeMux()
	mux.Handle("/balances/", http.StripPrefix("/balances", h))
	mux.HandleFunc("GET /balances/openapi.json", h.OpenAPI)
	srv := httptest.NewServer(mux)
	defer srv.Close()
	at := srv.URL + "/balances/"
	r := do(t, "GET", at+"openapi.json")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.body))
	if err != nil || r.json(t)["openapi"] != "3.1.0" || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v %s: %v", r.Header, r.body, err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("urn:doc", doc); err != nil {
		t.Fatal(err)
	}
	for path, name := range map[string]string{
		"a1?after=" + f.last.String(): "value", "?after=" + f.last.String(): "page", "?index=cents&value=" + projection.IntValue(5) + "&after=" + f.last.String(): "page",
		"?key=a1&after=" + f.last.String(): "page", "nobody": "problem", "?limit=x": "problem",
	} {
		schema, err := c.Compile("urn:doc#/components/schemas/" + name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body := do(t, "GET", at+path).body
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s is no %s: %s: %v", path, name, body, err)
		}
		wrong, err := jsonschema.UnmarshalJSON(strings.NewReader(strings.Replace(string(body), `:5`, `:"5"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if name != "problem" && schema.Validate(wrong) == nil {
			t.Errorf("%s takes %v", name, wrong)
		}
	}
	// Every parameter that is described is known, and the other way round.
	for _, name := range []string{"prefix", "page", "limit", "key", "index", "value", "from", "before", "reverse", "after"} {
		if !strings.Contains(string(r.body), `"name":"`+name+`"`) {
			t.Errorf("parameter %s is not described", name)
		}
	}
}
