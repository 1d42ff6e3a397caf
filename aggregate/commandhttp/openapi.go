package commandhttp

import (
	"encoding/json"
	"fmt"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/protocol"
)

type object = map[string]any

// describe writes an OpenAPI 3.1 document of the commands: its schemas are those
// of the commands as they are.
func describe(targets []aggregate.Target) ([]byte, error) {
	paths := object{}
	for _, t := range targets {
		for _, c := range t.Commands() {
			schema := object{}
			if err := json.Unmarshal(c.Schema, &schema); err != nil {
				return nil, fmt.Errorf("schema of %s %q: %w", t.TypeName(), c.Name, err)
			}
			// References within the schema are to itself, not to this document.
			schema["$id"] = "urn:rossby:command:" + t.TypeName() + ":" + c.Name
			at := fmt.Sprintf("/%s/{id}/%s", t.TypeName(), c.Name)
			paths[at] = object{"post": operation(t.TypeName(), c, schema, true)}
			if c.Creates {
				again := object{"$ref": schema["$id"]}
				paths["/"+t.TypeName()+"/"+c.Name] = object{"post": operation(t.TypeName(), c, again, false)}
			}
		}
	}
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": "Commands", "version": "1"},
		"servers": []object{{"url": "."}},
		"paths":   paths,
		"components": object{"schemas": object{
			"reply": object{
				"type": "object",
				"properties": object{
					"id": object{"type": "string"}, "version": object{"type": "integer"}, "position": object{"type": "string"},
					"duplicate": object{"type": "boolean"}, "events": object{"type": "array", "items": object{"type": "object"}},
				},
				"required": []string{"id", "version", "position", "events"},
			},
			"problem": object{
				"type": "object",
				"properties": object{
					"type": object{"type": "string"}, "title": object{"type": "string"}, "status": object{"type": "integer"},
					"detail": object{"type": "string"}, "instance": object{"type": "string"}, "code": object{"type": "string"},
					"field": object{"type": "string"}, "value": object{"type": "string"},
					"expected": object{"type": "integer"}, "actual": object{"type": "integer"},
				},
				"required": []string{"type", "title", "status"},
			},
		}},
	})
}

func operation(typ string, c aggregate.CommandInfo, schema object, withID bool) object {
	status, id := "200", typ+"."+c.Name
	parameters := []object{
		header(headerKey), header("If-Match"), header("Prefer"), header(protocol.HeaderRecordRejections),
	}
	if c.Creates {
		status = "201"
		parameters = append(parameters, header("If-None-Match"))
	}
	if withID {
		parameters = append(parameters, object{
			"name": "id", "in": "path", "required": true, "schema": object{"type": "string", "maxLength": 128},
		})
	} else {
		id += ".new"
	}
	content := func(media, name string) object {
		return object{media: object{"schema": object{"$ref": "#/components/schemas/" + name}}}
	}
	return object{
		"operationId": id, "tags": []string{typ}, "parameters": parameters,
		"requestBody": object{"content": object{"application/json": object{"schema": schema}}},
		"responses": object{
			status:    object{"description": "what came of it", "content": content("application/json", "reply")},
			"default": object{"description": "a problem", "content": content("application/problem+json", "problem")},
		},
	}
}

func header(name string) object {
	return object{"name": name, "in": "header", "schema": object{"type": "string"}}
}
