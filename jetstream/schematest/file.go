package schematest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/rossby-go/rossby/jetstream"
)

// file is a golden file: an event as each codec stores it, and what it is read as.
type file struct {
	Type    string `json:"type"`
	Event   string `json:"event"`
	Version int    `json:"version"`
	// JSON and Msgpack, in hexadecimal, are the stored data.
	JSON    json.RawMessage `json:"json"`
	Msgpack string          `json:"msgpack"`
	// Reads are the events of today that it is read as.
	Reads []reading `json:"reads"`

	// changed tells that Reads is not what the file holds.
	changed bool
}

type reading struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// readFiles reads what was recorded; a directory that is not there has nothing.
func readFiles(dir string) (map[string]*file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := map[string]*file{}
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		f := new(file)
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(f); err != nil {
			return nil, fmt.Errorf("golden file %s: %w", path, err)
		}
		files[path] = f
	}
	return files, nil
}

// encode makes the file of a sample, but for what it is read as.
func encode(typ string, s Stored) (*file, error) {
	asJSON, err := jetstream.JSON.Encode(s.Event)
	if err != nil {
		return nil, fmt.Errorf("encode as JSON: %w", err)
	}
	asMsgpack, err := jetstream.Msgpack.Encode(s.Event)
	if err != nil {
		return nil, fmt.Errorf("encode as msgpack: %w", err)
	}
	return &file{Type: typ, Event: s.Name, Version: s.Version, JSON: asJSON, Msgpack: hex.EncodeToString(asMsgpack)}, nil
}

// same tells whether two files hold the same as stored, under whatever name.
func (f *file) same(other *file) bool {
	return f.Type == other.Type && f.Version == other.Version &&
		f.Msgpack == other.Msgpack && bytes.Equal(compact(f.JSON), compact(other.JSON))
}

func compact(data json.RawMessage) []byte {
	var buf bytes.Buffer
	if json.Compact(&buf, data) != nil {
		return data
	}
	return buf.Bytes()
}

func (f *file) text() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(f)
	return buf.Bytes(), err
}

// rewrite corrects what a file is read as.
func (f *file) rewrite(path string) error {
	data, err := f.text()
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// create writes a file that was not there.
func (f *file) create(dir string) error {
	data, err := f.text()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	const most = 1000
	for i := range most {
		path := filepath.Join(dir, fmt.Sprintf("%s.v%d.json", f.Event, f.Version))
		if i > 0 {
			path = filepath.Join(dir, fmt.Sprintf("%s.v%d-%d.json", f.Event, f.Version, i+1))
		}
		w, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return errors.Join(err, w.Close())
	}
	return fmt.Errorf("event %q version %d has %d golden files already", f.Event, f.Version, most)
}

// check compares a file with the schema, and corrects what it is read as when that
// is asked for.
func (g *goldens) check(f *file) error {
	reads, err := g.read(f)
	if err != nil {
		return err
	}
	was, is := readings(f.Reads), readings(reads)
	if was == is {
		return nil
	}
	if !g.update {
		return fmt.Errorf("event %q version %d is read as something else now. If that is meant, %s\nwas: %s\nis:  %s",
			f.Event, f.Version, howToRecord, was, is)
	}
	f.Reads, f.changed = reads, true
	return nil
}

// readings is the list as one line.
func readings(list []reading) string {
	lines := make([]string, 0, len(list))
	for _, r := range list {
		lines = append(lines, r.Event+" "+string(compact(r.Data)))
	}
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, ", ")
}

// read is what a stored event is read as, the same by either codec.
func (g *goldens) read(f *file) ([]reading, error) {
	if err := g.known(f); err != nil {
		return nil, err
	}
	asMsgpack, err := hex.DecodeString(f.Msgpack)
	if err != nil {
		return nil, fmt.Errorf("its msgpack is not hexadecimal: %w", err)
	}
	byJSON, err := g.readAs(f, jetstream.JSON, f.JSON)
	if err != nil {
		return nil, err
	}
	byMsgpack, err := g.readAs(f, jetstream.Msgpack, asMsgpack)
	if err != nil {
		return nil, err
	}
	if one, two := readings(byJSON), readings(byMsgpack); one != two {
		return nil, fmt.Errorf("event %q version %d is read differently from each codec\njson:    %s\nmsgpack: %s",
			f.Event, f.Version, one, two)
	}
	return byJSON, g.lossless(f)
}

// known finds events that the schema has forgotten.
func (g *goldens) known(f *file) error {
	if f.Type != g.schema.Type() {
		return fmt.Errorf("it is of aggregate type %q, and the schema of %q: the name of a type must never change",
			f.Type, g.schema.Type())
	}
	if !slices.Contains(g.schema.WireNames(), f.Event) {
		return fmt.Errorf("event %q is stored somewhere, but the schema of %q has forgotten it: "+
			"keep it, or declare jetstream.Renamed, Retired or Removed", f.Event, f.Type)
	}
	if types := g.schema.Versions(f.Event); types != nil && f.Version > len(types) {
		return fmt.Errorf("event %q was stored in version %d, and the schema knows %d: versions only grow, "+
			"and each keeps its upcaster", f.Event, f.Version, len(types))
	}
	return nil
}

func (g *goldens) readAs(f *file, cdc jetstream.Codec, data []byte) ([]reading, error) {
	events, err := g.schema.Decode(jetstream.EventData{Name: f.Event, Version: f.Version, Codec: cdc, Data: data})
	if err != nil {
		return nil, fmt.Errorf("what is stored can no longer be read (was the type of a field changed? "+
			"raise jetstream.Version and add the jetstream.Upcast from the old type): %w", err)
	}
	list := make([]reading, 0, len(events))
	for _, event := range events {
		// Decode gives events of the schema only.
		name, _ := g.schema.NameOf(reflect.TypeOf(event))
		data, err := jetstream.JSON.Encode(event)
		if err != nil {
			return nil, err
		}
		list = append(list, reading{Event: name, Data: data})
	}
	return list, nil
}

// lossless finds stored fields that the version's Go type has no place for any
// more: reading skips them, so a field that was renamed looks as if it were empty.
func (g *goldens) lossless(f *file) error {
	types := g.schema.Versions(f.Event)
	if types == nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(f.JSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(reflect.New(types[f.Version-1]).Interface()); err != nil {
		return fmt.Errorf("%s has no place for what event %q version %d has stored (was a field renamed or dropped? "+
			"raise jetstream.Version and add the jetstream.Upcast from the old type): %w",
			types[f.Version-1], f.Event, f.Version, err)
	}
	return nil
}
