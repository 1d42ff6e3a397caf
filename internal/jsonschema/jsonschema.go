// Package jsonschema describes Go types as JSON Schemas (draft 2020-12), by the
// rules by which encoding/json reads them. The libraries that do so refuse types
// that the codec takes – recursive ones, maps with integer keys – or describe
// others wrongly: they know neither base64 nor embedding.
package jsonschema

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Draft is the dialect of every schema.
const Draft = "https://json-schema.org/draft/2020-12/schema"

// Of describes what is read into a value of the type, which must have passed
// codec.Check. Fields are those of the `json` tags; none is required, because an
// absent one is read as its zero value; others are refused.
func Of(t reflect.Type, title string) ([]byte, error) {
	g := &generator{names: map[reflect.Type]string{}, defs: map[string]*schema{}}
	g.count(t, map[reflect.Type]bool{})
	root := itself(t)
	if root == nil {
		root = g.object(t)
	}
	root.Draft, root.Title = Draft, title
	if len(g.defs) > 0 {
		root.Defs = g.defs
	}
	return json.Marshal(root)
}

// schema is the part of the vocabulary that is used.
type schema struct {
	Draft      string             `json:"$schema,omitempty"`
	Title      string             `json:"title,omitempty"`
	Ref        string             `json:"$ref,omitempty"`
	Type       any                `json:"type,omitempty"`
	Format     string             `json:"format,omitempty"`
	Encoding   string             `json:"contentEncoding,omitempty"`
	Minimum    json.Number        `json:"minimum,omitempty"`
	Maximum    json.Number        `json:"maximum,omitempty"`
	Items      *schema            `json:"items,omitempty"`
	MaxItems   *int               `json:"maxItems,omitempty"`
	Names      *schema            `json:"propertyNames,omitempty"`
	Pattern    string             `json:"pattern,omitempty"`
	Properties map[string]*schema `json:"properties,omitempty"`
	// Additional is a *schema or false.
	Additional any                `json:"additionalProperties,omitempty"`
	AnyOf      []*schema          `json:"anyOf,omitempty"`
	Defs       map[string]*schema `json:"$defs,omitempty"`
}

const (
	typeArray   = "array"
	typeBoolean = "boolean"
	typeInteger = "integer"
	typeNull    = "null"
	typeNumber  = "number"
	typeObject  = "object"
	typeString  = "string"
)

type generator struct {
	// names are those of the structs that get a definition of their own, because
	// they occur more than once.
	names map[reflect.Type]string
	defs  map[string]*schema
}

// count finds the named structs that occur more than once, in themselves perhaps.
func (g *generator) count(t reflect.Type, seen map[reflect.Type]bool) {
	switch {
	case t == timeType || itself(t) != nil:
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map:
		g.count(t.Elem(), seen)
	case t.Kind() == reflect.Struct:
		if seen[t] {
			if g.names[t] == "" {
				g.names[t] = t.Name() + strconv.Itoa(len(g.names)+1)
			}
			return
		}
		seen[t] = t.Name() != ""
		for _, f := range fieldsOf(t) {
			g.count(f.typ, seen)
		}
	}
}

//nolint:gochecknoglobals // constants, which Go has none of this type
var (
	timeType = reflect.TypeFor[time.Time]()
	readJSON = reflect.TypeFor[json.Unmarshaler]()
	readText = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// itself is the schema of a type that reads itself: a text, or anything.
func itself(t reflect.Type) *schema {
	ptr := reflect.PointerTo(t)
	switch {
	case t == reflect.TypeFor[json.Number]():
		return &schema{Type: typeNumber}
	case ptr.Implements(readJSON):
		return new(schema)
	case ptr.Implements(readText):
		return &schema{Type: typeString}
	}
	return nil
}

func (g *generator) of(t reflect.Type) *schema {
	if t == timeType {
		return &schema{Type: typeString, Format: "date-time"}
	}
	if t.Kind() == reflect.Pointer {
		return orNull(g.of(t.Elem()))
	}
	if s := itself(t); s != nil {
		return s
	}
	switch t.Kind() {
	case reflect.Bool:
		return &schema{Type: typeBoolean}
	case reflect.String:
		return &schema{Type: typeString}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: typeNumber}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && itself(t.Elem()) == nil {
			return &schema{Type: []string{typeString, typeNull}, Encoding: "base64"}
		}
		return &schema{Type: []string{typeArray, typeNull}, Items: g.of(t.Elem())}
	case reflect.Array:
		n := t.Len()
		return &schema{Type: typeArray, Items: g.of(t.Elem()), MaxItems: &n}
	case reflect.Map:
		s := &schema{Type: []string{typeObject, typeNull}, Additional: g.of(t.Elem())}
		switch {
		case itself(t.Key()) != nil || t.Key().Kind() == reflect.String:
		case integers[t.Key().Kind()].Minimum == "0":
			s.Names = &schema{Pattern: "^[0-9]+$"}
		default:
			s.Names = &schema{Pattern: "^-?[0-9]+$"}
		}
		return s
	case reflect.Struct:
		return g.structure(t)
	default:
		s := integers[t.Kind()]
		s.Type = typeInteger
		return &s
	}
}

// integers are the bounds. Those of 64 bits are a format: few programs compare
// such numbers exactly.
//
//nolint:gochecknoglobals // constants, which Go has none of this type
var integers = map[reflect.Kind]schema{
	reflect.Int: {Format: "int64"}, reflect.Int64: {Format: "int64"},
	reflect.Int8:  {Minimum: "-128", Maximum: "127"},
	reflect.Int16: {Minimum: "-32768", Maximum: "32767"},
	reflect.Int32: {Minimum: "-2147483648", Maximum: "2147483647"},
	reflect.Uint:  {Minimum: "0", Format: "uint64"}, reflect.Uint64: {Minimum: "0", Format: "uint64"},
	reflect.Uint8:  {Minimum: "0", Maximum: "255"},
	reflect.Uint16: {Minimum: "0", Maximum: "65535"},
	reflect.Uint32: {Minimum: "0", Maximum: "4294967295"},
}

// orNull takes null as well, as a pointer does.
func orNull(s *schema) *schema {
	switch t := s.Type.(type) {
	case string:
		s.Type = []string{t, typeNull}
	case []string:
	default:
		if s.Ref != "" {
			return &schema{AnyOf: []*schema{s, {Type: typeNull}}}
		}
	}
	return s
}

// structure is a reference to the struct's definition, or its description.
func (g *generator) structure(t reflect.Type) *schema {
	name := g.names[t]
	if name == "" {
		return g.object(t)
	}
	if g.defs[name] == nil {
		g.defs[name] = new(schema) // seen: its fields refer to it
		*g.defs[name] = *g.object(t)
	}
	return &schema{Ref: "#/$defs/" + name}
}

func (g *generator) object(t reflect.Type) *schema {
	s := &schema{Type: typeObject, Properties: map[string]*schema{}, Additional: false}
	for _, f := range fieldsOf(t) {
		p := g.of(f.typ)
		if f.quoted {
			p = quote(p)
		}
		s.Properties[f.name] = p
	}
	return s
}

// quote describes the option "string": the value stands in quotes.
func quote(p *schema) *schema {
	quoted := &schema{Type: typeString}
	if types, ok := p.Type.([]string); ok && slices.Contains(types, typeNull) {
		return orNull(quoted)
	}
	return quoted
}

type field struct {
	name   string
	typ    reflect.Type
	quoted bool
	tagged bool
	depth  int
}

// fieldsOf lists what encoding/json reads: a name that several embedded structs
// have is the shallowest one's, of several there the only tagged one's, else
// nobody's.
func fieldsOf(t reflect.Type) []field {
	var all []field
	collect(t, 0, map[reflect.Type]bool{}, &all)
	var out []field
	for i, f := range all {
		hidden := false
		for j, o := range all {
			hidden = hidden || i != j && o.name == f.name && o.hides(f)
		}
		if !hidden {
			out = append(out, f)
		}
	}
	return out
}

// hides tells whether a field of the same name is read instead of f, or neither.
func (o field) hides(f field) bool {
	return o.depth < f.depth || o.depth == f.depth && (o.tagged || !f.tagged)
}

func collect(t reflect.Type, depth int, within map[reflect.Type]bool, all *[]field) {
	if within[t] {
		return // deeper than itself: hidden
	}
	within[t] = true
	defer delete(within, t)
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case tag == "-":
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			collect(inner, depth+1, within, all)
		case f.IsExported():
			out := field{name: name, typ: f.Type, tagged: name != "", depth: depth}
			if name == "" {
				out.name = f.Name
			}
			out.quoted = slices.Contains(strings.Split(options, ","), "string") && quotable(inner)
			*all = append(*all, out)
		}
	}
}

// quotable tells the types for which the option "string" means something.
func quotable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64:
		return true
	default:
		_, integer := integers[t.Kind()]
		return integer
	}
}
