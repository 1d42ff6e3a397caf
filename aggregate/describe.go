package aggregate

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/rossby-go/rossby/internal/jsonschema"
)

// CommandInfo describes a command.
type CommandInfo struct {
	Name string
	// Creates tells a command that makes an aggregate.
	Creates bool
	// Schema is a JSON Schema (draft 2020-12) of the command's JSON. No field is
	// required: an absent one is read as its zero value.
	Schema json.RawMessage
}

func (d *definition) commands() []CommandInfo {
	var list []CommandInfo
	for name, h := range d.handlers {
		if name == h.name {
			list = append(list, CommandInfo{Name: name, Creates: h.create, Schema: h.schema()})
		}
	}
	slices.SortFunc(list, func(a, b CommandInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// schema is nil for a command whose type is none: the definition has that error.
func (h *handler) schema() json.RawMessage {
	if h.command.Kind() != reflect.Struct {
		return nil
	}
	text, err := jsonschema.Of(h.command, h.name)
	if err != nil {
		return nil
	}
	return text
}

// The keys of an endpoint's metadata.
const (
	metadataSchema  = "schema"
	metadataCreates = "creates"
)

// metadata describes each command to whoever asks the service what it is. All of
// it travels in one message: where the schemas would take more than half of one,
// the largest are left out.
func (s *Service) metadata(ctx context.Context, payload int64) map[*handler]map[string]string {
	all, size := map[*handler]map[string]string{}, map[*handler]int{}
	left := int(payload / 2)
	for _, h := range s.core.def.handlers { // under former names, too
		m := map[string]string{metadataSchema: string(h.schema())}
		if h.create {
			m[metadataCreates] = "true"
		}
		all[h] = m
		size[h] += quotedSize(m[metadataSchema])
		left -= quotedSize(m[metadataSchema])
	}
	largest := slices.SortedFunc(maps.Keys(all), func(a, b *handler) int { return size[b] - size[a] })
	for _, h := range largest {
		if left >= 0 {
			break
		}
		left += size[h]
		delete(all[h], metadataSchema)
		s.cfg.Logger.WarnContext(ctx, "the command's schema is too large to be told", "command", h.name)
	}
	return all
}

// quotedSize is the size of a JSON text within a JSON string.
func quotedSize(text string) int { return len(text) + strings.Count(text, `"`) + 2 }
