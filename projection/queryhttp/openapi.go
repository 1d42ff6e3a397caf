package queryhttp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/jsonschema"
	"github.com/rossby-go/rossby/internal/problem"
)

type object = map[string]any

// valueID is the id of the value's schema.
const valueID = "urn:rossby:view:value"

// OpenAPI answers with an OpenAPI 3.1 document of the view, whose values are
// described by their Go type. All of a handler's path is a key, so the document has
// an address that the program gives it, under the same directory:
//
//	mux.HandleFunc("GET /accounts/openapi.json", h.OpenAPI)
func (h *Handler) OpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(h.openAPI)
}

// document writes the OpenAPI document.
func document[V any]() ([]byte, error) {
	// What has a JSON of its own, or none that is known, is any value.
	value := object{}
	if t := reflect.TypeFor[V](); t.Kind() == reflect.Struct && codec.Check(t) == nil {
		text, err := jsonschema.Of(t, "value")
		if err != nil {
			return nil, fmt.Errorf("schema of %v: %w", t, err)
		}
		if err := json.Unmarshal(text, &value); err != nil {
			return nil, fmt.Errorf("schema of %v: %w", t, err)
		}
		open(value)
	}
	// References within the schema are to itself, not to this document.
	value["$id"] = valueID
	var (
		text    = object{"type": "string"}
		integer = object{"type": "integer"}
		after   = parameter("after", "query", text)
		wait    = parameter("Prefer", "header", text)
		match   = parameter("If-None-Match", "header", text)
		key     = object{"name": "key", "in": "path", "required": true, "schema": text}
		many    = object{"type": "array", "items": text}
		limit   = object{"type": "integer", "minimum": 1, "maximum": LimitMax, "default": LimitDefault}
	)
	get := func(id, schema string, parameters ...object) object {
		return object{"get": object{
			"operationId": id, "parameters": append(parameters, after, wait, match),
			"responses": object{
				"200": object{"description": "what the view holds", "content": content("application/json", schema)},
				"304": object{"description": "it is the same as before"},
				"default": object{
					"description": "a problem", "content": content(problem.ContentType, "#/components/schemas/problem"),
				},
			},
		}}
	}
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": "View", "version": "1"},
		"servers": []object{{"url": "."}},
		"paths": object{
			"/{key}": get("get", "#/components/schemas/value", key),
			"/": get("list", "#/components/schemas/page",
				parameter("prefix", "query", text), parameter("page", "query", text), parameter("limit", "query", limit),
				parameter("key", "query", many), parameter("index", "query", text), parameter("value", "query", text),
				parameter("from", "query", text), parameter("before", "query", text),
				parameter("reverse", "query", object{"type": "boolean"})),
		},
		"components": object{"schemas": object{
			"value": value,
			"entry": object{
				"type": "object",
				"properties": object{
					"key": text, "value": object{"$ref": "#/components/schemas/value"}, "position": text, "sequence": integer,
					"revision": integer, "generation": integer, "time": object{"type": "string", "format": "date-time"},
					"etag": text, "indexed": text,
				},
				"required": []string{"key", "value", "position", "sequence", "revision", "generation", "time", "etag"},
			},
			"page": object{
				"type": "object",
				"properties": object{
					"entries": object{"type": "array", "items": object{"$ref": "#/components/schemas/entry"}}, "next": text,
				},
				"required": []string{"entries"},
			},
			"problem": object{
				"type": "object",
				"properties": object{
					"type": text, "title": text, "status": integer, "detail": text, "instance": text, "field": text, "value": text,
					"wanted": text, "position": text, "behind": integer, "lagSeconds": object{"type": "number"}, "state": text,
				},
				"required": []string{"type", "title", "status"},
			},
		}},
	})
}

// open takes back that a schema refuses other fields: it describes what is sent, and
// a value may have more fields in a later version.
func open(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["additionalProperties"] == false {
			delete(v, "additionalProperties")
		}
		for _, x := range v {
			open(x)
		}
	case []any:
		for _, x := range v {
			open(x)
		}
	}
}

func parameter(name, in string, schema object) object {
	return object{"name": name, "in": in, "schema": schema}
}

func content(media, schema string) object {
	return object{media: object{"schema": object{"$ref": schema}}}
}
