package aggregatetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/golden"
	"github.com/rossby-go/rossby/jetstream"
)

// History is what happened to an aggregate, to be recorded by [Golden].
type History struct {
	// Name names the history and its file: [a-z0-9-]+.
	Name string
	// Events are what happened, in order, one commit each. An event may be a
	// [jetstream.Recorded], whose Meta then gives its time, correlation, causation
	// and metadata; the time is otherwise one second later with each event, from the
	// beginning of 2026.
	Events []any
}

// Golden keeps histories with the states that they lead to, one file each in dir,
// and fails when they lead to other states now: then what an Apply means has
// changed, and aggregates whose states are stored already would keep the old
// meaning. Raise [aggregate.StateVersion], or mend the Apply.
//
// Files are written when the environment has ROSSBY_UPDATE=1, or the test a flag
// -update that is set. They belong to the sources. A history that was recorded is
// never changed, whether or not the test still names it: its events must lead to
// states for ever. Its states are recorded anew only under another
// [aggregate.Type.Fingerprint], because then no stored state is used again.
func Golden[S any](t testing.TB, typ *aggregate.Type[S], dir string, histories ...History) {
	t.Helper()
	if err := typ.Err(); err != nil {
		t.Fatal(err)
	}
	files, err := readRecordings(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := &goldenFiles[S]{typ: typ, dir: dir, update: golden.Update()}
	seen := map[string]bool{}
	for _, h := range histories {
		file := files[h.Name]
		err := jetstream.ValidateName("history name", h.Name)
		switch {
		case err != nil:
		case seen[h.Name]:
			err = errors.New("two histories have this name")
		case file == nil:
			err = g.record(t, h)
		default:
			err = g.unchanged(t, h, file)
		}
		seen[h.Name] = true
		if err != nil {
			t.Errorf("history %q: %v", h.Name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := g.check(t, name, files[name]); err != nil {
			t.Errorf("history %q: %v", name, err)
		}
	}
	if len(files)+len(histories) == 0 {
		t.Errorf("no histories: none are given, and there are none in %s", dir)
	}
}

// recording is a file: a history with its states.
type recording struct {
	Type        string         `json:"type"`
	Fingerprint string         `json:"fingerprint"`
	Steps       []recordedStep `json:"steps"`
}

type recordedStep struct {
	Event       string            `json:"event"`
	Version     int               `json:"version"`
	Time        time.Time         `json:"time"`
	Correlation string            `json:"correlation,omitempty"`
	Causation   string            `json:"causation,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Data        json.RawMessage   `json:"data"`
	// State is the aggregate's after the event.
	State json.RawMessage `json:"state"`
}

// readRecordings reads what was recorded; a directory that is not there has nothing.
func readRecordings(dir string) (map[string]*recording, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := map[string]*recording{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		file := new(recording)
		if err := json.Unmarshal(data, file); err != nil {
			return nil, fmt.Errorf("recorded history %s: %w", filepath.Join(dir, e.Name()), err)
		}
		files[name] = file
	}
	return files, nil
}

type goldenFiles[S any] struct {
	typ    *aggregate.Type[S]
	dir    string
	update bool
}

func (g *goldenFiles[S]) path(name string) string { return filepath.Join(g.dir, name+".json") }

const howToRecord = "look at it and record it with " + golden.Env + "=1 go test"

// record writes a history down that was not yet.
func (g *goldenFiles[S]) record(t testing.TB, h History) error {
	t.Helper()
	if !g.update {
		return errors.New("it is not recorded yet: " + howToRecord)
	}
	file, err := g.steps(h)
	if err != nil {
		return err
	}
	if err := g.states(t, file); err != nil {
		return err
	}
	return g.write(h.Name, file)
}

// steps encodes a history's events.
func (g *goldenFiles[S]) steps(h History) (*recording, error) {
	if len(h.Events) == 0 {
		return nil, errors.New("it has no events")
	}
	file := &recording{Type: g.typ.Name()}
	at := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	for _, e := range h.Events {
		step := recordedStep{Time: at}
		at = at.Add(time.Second)
		if r, ok := e.(jetstream.Recorded); ok {
			e = r.Event
			step.Correlation, step.Causation, step.Metadata = r.Correlation, r.Causation, r.Metadata
			if !r.Time.IsZero() {
				step.Time = jetstream.MicroTime(r.Time)
			}
		}
		data, err := g.typ.Schema().Encode(e, jetstream.JSON)
		if err != nil {
			return nil, err
		}
		step.Event, step.Version, step.Data = data.Name, data.Version, data.Data
		file.Steps = append(file.Steps, step)
	}
	return file, nil
}

func (s *recordedStep) event() jetstream.EventData {
	return jetstream.EventData{Name: s.Event, Version: s.Version, Codec: jetstream.JSON, Data: s.Data}
}

// unchanged wants a history that is recorded to be the one that the test gives: a
// changed one would otherwise never be looked at.
func (g *goldenFiles[S]) unchanged(t testing.TB, h History, file *recording) error {
	t.Helper()
	given, err := g.steps(h)
	if err != nil {
		return err
	}
	want, err := g.events(file)
	if err != nil {
		return nil //nolint:nilerr // check says what is wrong with the file
	}
	got, err := g.events(given)
	if err != nil {
		return err
	}
	if d := diff(want, got); d != "" {
		return fmt.Errorf("it is recorded with other events, and stays: "+
			"give the new one another name (- recorded, + given)\n%s", d)
	}
	return nil
}

func (g *goldenFiles[S]) events(file *recording) ([]any, error) {
	var out []any
	for i := range file.Steps {
		events, err := g.typ.Schema().Decode(file.Steps[i].event())
		if err != nil {
			return nil, err
		}
		out = append(out, events...)
	}
	return out, nil
}

// check replays a file.
func (g *goldenFiles[S]) check(t testing.TB, name string, file *recording) error {
	t.Helper()
	if file.Type != g.typ.Name() {
		return fmt.Errorf("%s is of aggregate type %q, not %q", g.path(name), file.Type, g.typ.Name())
	}
	now := &recording{Type: file.Type, Steps: slices.Clone(file.Steps)}
	if err := g.states(t, now); err != nil {
		return err
	}
	if file.Fingerprint != now.Fingerprint {
		if g.update {
			return g.write(name, now)
		}
		return errors.New("its states are recorded under another fingerprint: the state's type, StateVersion or " +
			"the schema has changed; " + howToRecord)
	}
	for i := range file.Steps {
		var want, got S
		if err := jetstream.JSON.Decode(file.Steps[i].State, &want); err != nil {
			return fmt.Errorf("event %d: its recorded state: %w", i+1, err)
		}
		if err := jetstream.JSON.Decode(now.Steps[i].State, &got); err != nil {
			return fmt.Errorf("event %d: its state: %w", i+1, err)
		}
		if d := diff(want, got); d != "" {
			return fmt.Errorf("event %d, %s, leads to another state than it did, so stored states are wrong now: "+
				"raise aggregate.StateVersion, or mend the Apply (- recorded, + now)\n%s", i+1, file.Steps[i].Event, d)
		}
	}
	return nil
}

// states fills in the states that the steps lead to, as repositories make them:
// each event is applied to what was encoded and decoded after the one before.
func (g *goldenFiles[S]) states(t testing.TB, file *recording) error {
	t.Helper()
	store := NewStore(t)
	repo := NewRepository(store, g.typ)
	file.Fingerprint = g.typ.Fingerprint()
	var after jetstream.Head
	for i := range file.Steps {
		s := &file.Steps[i]
		var err error
		after, err = store.mem.Append(t.Context(), jetstream.Write{
			Type: file.Type, ID: IDDefault, After: after,
			Decisions: []jetstream.Decision{{
				Time: s.Time, Correlation: s.Correlation, Causation: s.Causation, Metadata: s.Metadata,
				Events: []jetstream.EventData{s.event()},
			}},
		})
		if err != nil {
			return err
		}
		snap, err := repo.Load(t.Context(), IDDefault)
		if err != nil {
			return fmt.Errorf("event %d, %s version %d: %w", i+1, s.Event, s.Version, err)
		}
		if s.State, err = jetstream.JSON.Encode(snap.State); err != nil {
			return fmt.Errorf("event %d, %s: its state does not encode as JSON: %w", i+1, s.Event, err)
		}
	}
	return nil
}

func (g *goldenFiles[S]) write(name string, file *recording) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		return err
	}
	if err := os.MkdirAll(g.dir, 0o755); err != nil { //nolint:gosec // sources are for everybody
		return err
	}
	return os.WriteFile(g.path(name), buf.Bytes(), 0o644) //nolint:gosec // sources are for everybody
}
