package jetstream_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

var update = flag.Bool("update", false, "write the golden files of the stored format")

// storedAt and decidedAt are the times of every golden commit.
var (
	storedAt  = time.Date(2026, 3, 1, 12, 0, 1, 500, time.UTC)
	decidedAt = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
)

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func event(name, data string) jetstream.EventData {
	return jetstream.EventData{Name: name, Version: 1, Codec: jetstream.Msgpack, Data: []byte(data)}
}

func command(id string, events ...jetstream.EventData) jetstream.Decision {
	d := jetstream.Decision{CommandID: id, Time: decidedAt, Events: events}
	if len(events) == 0 {
		d.Outcome = jetstream.OutcomeNone
	}
	return d
}

// goldens are one commit of each sort that the format can hold. Head.Sequence
// and Time come from the server; Decode takes them from the message.
func goldens() map[string]golden {
	first := jetstream.Head{Sequence: 2, CommitID: "01jn8x9c0000000000000000c1", Ordinal: 1, Version: 1}
	second := func(version uint64) jetstream.Head {
		return jetstream.Head{Sequence: 7, CommitID: "01jn8x9c0000000000000000c2", Ordinal: 2, Version: version}
	}
	at := func(h jetstream.Head, decisions ...jetstream.Decision) jetstream.Commit {
		c := jetstream.Commit{Head: h, Type: "account", ID: "a1", Time: storedAt, Decisions: decisions}
		if h.Ordinal > 1 {
			c.Previous, c.PreviousSequence = first.CommitID, first.Sequence
		}
		for _, d := range decisions {
			for _, e := range d.Events {
				c.EventNames = append(c.EventNames, e.Name)
			}
		}
		return c
	}
	trigger := jetstream.Decision{
		Kind:    jetstream.KindTrigger,
		Trigger: jetstream.Trigger{Subscriber: "transfers", EventID: "01jn8x9c0000000000000000d1.0", Step: "debit"},
		Time:    decidedAt,
	}
	rejected, none := trigger, trigger
	rejected.Outcome, rejected.Code, rejected.Reason = jetstream.OutcomeRejected, "insufficient-funds", "5 are missing"
	none.Outcome = jetstream.OutcomeNone
	full := command("cmd-1", event("credited", "\x81\xa1c\x05"))
	full.BodyHash = []byte{0xde, 0xad, 0xbe, 0xef, 0, 1, 2, 3}
	full.Correlation, full.Causation, full.TraceParent = "corr", "01jn8x9c0000000000000000d1.0", trace
	full.Metadata = map[string]string{"user": "ann", "": "empty key", "ünicode": "ö", "a": ""}

	all := map[string]golden{
		"first":  {commit: at(first, command("cmd-1", event("opened", "\x81\xa5owner\xa3ann")))},
		"events": {commit: at(second(4), command("cmd-1", event("credited", "\x81\xa1c\x05"), event("debited", "\x81\xa1c\x03"), event("credited", "\x80")))},
		"decisions": {commit: at(second(3),
			command("cmd-1", event("credited", "\x81\xa1c\x05")), command("cmd-2"), command("", event("debited", "\x81\xa1c\x03")))},
		"trigger-events": {commit: at(second(2), func() jetstream.Decision {
			d := trigger
			d.Events = []jetstream.EventData{event("debited", "\x81\xa1c\x05")}
			return d
		}())},
		"trigger-rejected": {commit: at(second(1), rejected)},
		"trigger-none":     {commit: at(second(1), none)},
		"metadata":         {commit: at(second(2), full)},
		"bare":             {commit: at(second(2), jetstream.Decision{Events: []jetstream.EventData{event("noticed", "\xc0")}})},
	}
	add := func(name string, edit func(c *jetstream.Commit)) {
		c := at(second(2), command("cmd-1", event("credited", "\x81\xa1c\x05")))
		edit(&c)
		all[name] = golden{commit: c}
	}
	add("state", func(c *jetstream.Commit) {
		c.State = &jetstream.State{Fingerprint: "f1", Data: []byte("\x81\xa5cents\x05")}
	})
	add("version", func(c *jetstream.Commit) { c.Decisions[0].Events[0].Version = 300 })
	add("traceparent", func(c *jetstream.Commit) { c.TraceParent = trace })
	add("origin", func(c *jetstream.Commit) {
		c.Origin = &jetstream.Origin{Store: "k3q5x7wzabcde", Sequence: 99, Time: decidedAt.Add(-time.Hour)}
	})
	add("tx", func(c *jetstream.Commit) { c.Tx = &jetstream.Tx{ID: "01jn8x9c0000000000000000t1", Index: 2, Count: 3} })
	add("keyref", func(c *jetstream.Commit) {
		c.Decisions[0].Events[0].KeyRef = "key-7"
		c.Decisions[0].Events[0].Data = []byte{0xff, 0, 0x80}
		c.State = &jetstream.State{Fingerprint: "f1", KeyRef: "key-7", Data: []byte{0xfe, 1}}
	})
	add("mixed", func(c *jetstream.Commit) {
		c.Decisions[0].Events[0].Codec, c.Decisions[0].Events[0].Data = jetstream.JSON, []byte(`{"c":5}`)
	})
	add("long", func(c *jetstream.Commit) {
		// Lengths beyond each of msgpack's short forms.
		c.Decisions[0].CommandID = strings.Repeat("i", 40)
		c.Decisions[0].Correlation = strings.Repeat("c", 300)
		c.Decisions[0].Events[0].Data = bytes.Repeat([]byte{7}, 300)
		c.Decisions[0].Metadata = map[string]string{}
		for i := range 20 {
			c.Decisions[0].Metadata[fmt.Sprintf("k%02d", i)] = "v"
		}
	})

	jsonEvent := jetstream.EventData{Name: "credited", Version: 2, Codec: jetstream.JSON, Data: []byte(`{"cents":5,"note":"<a & b>"}`)}
	addJSON := func(name string, edit func(c *jetstream.Commit)) {
		c := at(second(2), command("cmd-1", jsonEvent))
		edit(&c)
		all[name] = golden{commit: c, codec: jetstream.JSON}
	}
	addJSON("json", func(*jetstream.Commit) {})
	addJSON("json-full", func(c *jetstream.Commit) {
		d := full
		d.Events = []jetstream.EventData{jsonEvent}
		c.Decisions = []jetstream.Decision{d, rejected, none}
		c.State = &jetstream.State{Fingerprint: "f1", Codec: jetstream.JSON, Data: []byte(`{"cents":5}`)}
	})
	addJSON("json-binary", func(c *jetstream.Commit) {
		c.Decisions[0].Events = []jetstream.EventData{
			{Name: "credited", Version: 1, Codec: jetstream.JSON, KeyRef: "key-7", Data: []byte{0xff, 0, 0x80}},
		}
		c.State = &jetstream.State{Fingerprint: "f1", Codec: jetstream.Msgpack, Data: []byte("\x81\xa5cents\x05")}
	})
	maps.Copy(all, ownGoldens())
	return all
}

type golden struct {
	commit jetstream.Commit
	codec  jetstream.Codec
	// subject defaults to goldenSubject.
	subject string
}

func (g golden) place() string { return cmp.Or(g.subject, goldenSubject) }

// goldenKeyID is the id of the key "email" with the value "ann@example.org" under
// goldenSecret.
const goldenKeyID = "k2nac3jx5imyn7wdwie6u3ntmlps3w2s"

func goldenSecret() []byte {
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i)
	}
	return secret
}

// ownGoldens are commits of the toolkit's own aggregates: a key that is taken with
// an aggregate's commit, one that moves between two, and the store's secret.
func ownGoldens() map[string]golden {
	const id1, id2, tx = "01jn8x9c0000000000000000c1", "01jn8x9c0000000000000000c2", "01jn8x9c0000000000000000t1"
	own := func(typ, id string, head jetstream.Head, d jetstream.Decision) jetstream.Commit {
		d.Time = decidedAt
		c := jetstream.Commit{Head: head, Type: typ, ID: id, Time: storedAt, Decisions: []jetstream.Decision{d}}
		for _, e := range d.Events {
			c.EventNames = append(c.EventNames, e.Name)
		}
		return c
	}
	reserved := own("_key", goldenKeyID, jetstream.Head{Sequence: 7, CommitID: id1, Ordinal: 1, Version: 1}, jetstream.Decision{
		Causation: "01jn8x9c0000000000000000e1", Events: []jetstream.EventData{event("reserved", goldenOwner("c1"))},
	})
	reserved.Tx = &jetstream.Tx{ID: tx, Index: 1, Count: 2}
	moved := own("_key", goldenKeyID, jetstream.Head{Sequence: 9, CommitID: id2, Ordinal: 2, Version: 3}, jetstream.Decision{
		Causation: "01jn8x9c0000000000000000e2",
		Events:    []jetstream.EventData{event("released", goldenOwner("c1")), event("reserved", goldenOwner("c2"))},
	})
	moved.Previous, moved.PreviousSequence = id1, 7
	moved.Tx = &jetstream.Tx{ID: tx, Index: 1, Count: 3}
	secret := own("_store", "keys", jetstream.Head{Sequence: 6, CommitID: id1, Ordinal: 1, Version: 1}, jetstream.Decision{
		Events: []jetstream.EventData{event("secret-made", "\x81\xa6secret\xc4\x20"+string(goldenSecret()))},
	})
	key := fmt.Sprintf("bank.event._key.%d.%s", jetstream.Partition(goldenKeyID, 64), goldenKeyID)
	return map[string]golden{
		"key-reserved": {commit: reserved, subject: key},
		"key-moved":    {commit: moved, subject: key},
		"secret":       {commit: secret, subject: fmt.Sprintf("bank.event._store.%d.keys", jetstream.Partition("keys", 64))},
	}
}

// goldenOwner is the data of a key's events: the key's name, the aggregate's type
// and id.
func goldenOwner(id string) string {
	return "\x83\xa3key\xa5email\xa4type\xa8customer\xa2id\xa2" + id
}

func goldenPath(name string) string { return filepath.Join("testdata", "format", name+".golden") }

const goldenSubject = "bank.event.account.39.a1"

// dump writes a message so that people can read it and readGolden can, too.
func dump(m *nats.Msg) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", m.Subject)
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range m.Header {
			if !yield(k) {
				return
			}
		}
	}) {
		fmt.Fprintf(&b, "%s: %s\n", k, m.Header[k][0])
	}
	b.WriteByte('\n')
	if strings.HasSuffix(m.Header["Content-Type"][0], "json") {
		b.Write(m.Data)
		b.WriteByte('\n')
	} else {
		b.WriteString(hex.Dump(m.Data))
	}
	return b.Bytes()
}

func readGolden(t testing.TB, path string) *nats.Msg {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	head, body, _ := strings.Cut(string(text), "\n\n")
	m := &nats.Msg{Header: nats.Header{}}
	for i, line := range strings.Split(head, "\n") {
		if i == 0 {
			m.Subject = line
			continue
		}
		k, v, _ := strings.Cut(line, ": ")
		m.Header[k] = []string{v}
	}
	if strings.HasSuffix(m.Header["Content-Type"][0], "json") {
		m.Data = []byte(strings.TrimSuffix(body, "\n"))
		return m
	}
	for line := range strings.Lines(body) {
		if len(line) < 60 {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		m.Data = append(m.Data, b...)
	}
	return m
}

func compareGolden(t *testing.T, name string, m *nats.Msg) {
	t.Helper()
	if *update {
		if err := os.WriteFile(goldenPath(name), dump(m), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenPath(name))
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if got := dump(m); !bytes.Equal(got, want) {
		t.Errorf("the stored format has changed: what is written is\n%s\nwhat was written is\n%s", got, want)
	}
}

func message(m *nats.Msg, seq uint64) *jetstream.Message {
	return &jetstream.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Sequence: seq, Time: storedAt}
}

// TestGolden fixes the stored format for ever: what is written does not change,
// and what was written is read as what it was.
func TestGolden(t *testing.T) {
	t.Parallel()
	if p := jetstream.Partition("a1", 64); !strings.Contains(goldenSubject, fmt.Sprintf(".%d.", p)) {
		t.Fatalf("a1 is in partition %d", p)
	}
	for name, g := range goldens() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := jetstream.EncodeCommit(g.place(), &g.commit, g.codec)
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, name, m)
			stored := message(readGolden(t, goldenPath(name)), g.commit.Sequence)
			if names := jetstream.EventNames(stored); !slices.Equal(names, g.commit.EventNames) {
				t.Errorf("event names %q, want %q", names, g.commit.EventNames)
			}
			got, err := jetstream.Decode(stored)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, &g.commit) {
				t.Errorf("decoded\n%+v\nwant\n%+v", got, g.commit)
			}
		})
	}
	files, err := filepath.Glob(goldenPath("*"))
	if err != nil || len(files) != len(goldens())+1 {
		t.Errorf("%d golden files for %d commits and the genesis: %v", len(files), len(goldens()), err)
	}
}

// TestGoldenGenesis fixes the store's first message.
func TestGoldenGenesis(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	s, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: "bank"})
	if err != nil {
		t.Fatal(err)
	}
	raw := stream(t, nc, "bank")
	first, err := raw.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(first.Data), `"`+s.ID()+`"`) {
		t.Errorf("%s does not name %s", first.Data, s.ID())
	}
	m := &nats.Msg{
		Subject: first.Subject, Data: bytes.Replace(first.Data, []byte(s.ID()), []byte("k3q5x7wzabcde"), 1),
		Header: nats.Header{},
	}
	for k, v := range first.Header {
		if !strings.HasPrefix(k, "Nats-") || slices.Contains(jetstream.AllHeaders, k) {
			m.Header[k] = v
		}
	}
	compareGolden(t, "genesis", m)
	if !jetstream.IsGenesis(message(m, 1)) {
		t.Error("the genesis is not known as one")
	}
	if c, err := jetstream.Decode(message(m, 1)); !errors.Is(err, jetstream.ErrFormat) {
		t.Errorf("the genesis decodes to %+v, %v", c, err)
	}
	for name := range goldens() {
		if jetstream.IsGenesis(message(readGolden(t, goldenPath(name)), 1)) {
			t.Errorf("%s is taken for the genesis", name)
		}
	}
}

// TestPayloadIsPlaceFree: a copy elsewhere has the same bytes.
func TestPayloadIsPlaceFree(t *testing.T) {
	t.Parallel()
	for name, g := range goldens() {
		a, err := jetstream.EncodeCommit(goldenSubject, &g.commit, g.codec)
		if err != nil {
			t.Fatal(err)
		}
		moved := g.commit
		moved.Head = jetstream.Head{Sequence: 123456, CommitID: "01jn8x9c0000000000000000zz", Ordinal: 70, Version: 900}
		moved.Previous, moved.PreviousSequence = "01jn8x9c0000000000000000yy", 99999
		moved.Type, moved.ID, moved.Time = "other", "b2", storedAt.Add(time.Hour)
		moved.Origin, moved.Tx, moved.TraceParent = &jetstream.Origin{Store: "x", Sequence: 1}, &jetstream.Tx{ID: "t", Index: 1, Count: 1}, ""
		b, err := jetstream.EncodeCommit("x.event.other.1.b2", &moved, g.codec)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Data, b.Data) {
			t.Errorf("%s: the payload depends on the place", name)
		}
		if reflect.DeepEqual(a.Header, b.Header) {
			t.Errorf("%s: the headers do not", name)
		}
	}
}

func TestHeadersAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "docs", "format.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range jetstream.AllHeaders {
		if !bytes.Contains(doc, []byte("`"+h+"`")) {
			t.Errorf("docs/format.md does not describe %s", h)
		}
	}
	files, err := filepath.Glob(goldenPath("*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		m := readGolden(t, f)
		if id := m.Header["Nats-Msg-Id"]; id != nil {
			t.Errorf("%s: bears a Nats-Msg-Id", f)
		}
		for k := range m.Header {
			if !slices.Contains(jetstream.AllHeaders, k) {
				t.Errorf("%s: bears %s", f, k)
			}
		}
		if !bytes.Contains(doc, []byte(strings.TrimSuffix(filepath.Base(f), ".golden"))) {
			t.Errorf("docs/format.md does not name %s", f)
		}
	}
}

// TestDecodeRefuses lists what is no commit, each a golden one with one fault.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*jetstream.Message) {
		return func(m *jetstream.Message) { m.Header[name] = []string{value} }
	}
	data := func(text string) func(*jetstream.Message) {
		return func(m *jetstream.Message) { m.Data = []byte(text) }
	}
	for _, c := range []struct {
		name, golden, want string
		edit               func(*jetstream.Message)
	}{
		{"no headers", "first", "format version", func(m *jetstream.Message) { m.Header = nil }},
		{"newer format", "first", `format version "2"`, header("Rossby-Format", "2")},
		{"flag", "first", `needs "parts"`, header("Rossby-Format", "1 parts")},
		{"content type", "first", "content type", header("Content-Type", "application/msgpack; v=2")},
		{"no content type", "first", "content type", header("Content-Type", "")},
		{"wrong content type", "first", "payload", header("Content-Type", "application/json")},
		{"no commit id", "first", "commit id", header("Rossby-Commit", "")},
		{"dot in commit id", "first", "commit id", header("Rossby-Commit", "a.b")},
		{"chain of two", "first", "chain", header("Rossby-Chain", "1 1")},
		{"chain without number", "first", "chain", header("Rossby-Chain", "x 1 -")},
		{"chain without version", "first", "chain", header("Rossby-Chain", "1 x -")},
		{"first with a previous", "first", "chain", header("Rossby-Chain", "1 1 abc")},
		{"second without one", "state", "chain", header("Rossby-Chain", "2 2 -")},
		{"ordinal zero", "first", "chain", header("Rossby-Chain", "0 1 abc")},
		{"chain of four", "state", "chain", header("Rossby-Chain", "2 2 abc d")},
		{"first with too high a version", "first", "version 9", header("Rossby-Chain", "1 9 -")},
		{"version below events", "events", "version 1", header("Rossby-Chain", "2 1 abc")},
		{"expectation", "first", "expected sequence", header("Nats-Expected-Last-Subject-Sequence", "x")},
		{"other event name", "first", "other events", header("Rossby-Events", "closed")},
		{"missing event name", "first", "more events", header("Rossby-Events", "")},
		{"additional event name", "first", "more events", header("Rossby-Events", "opened,opened")},
		{"origin", "origin", "origin", header("Rossby-Origin", "a 1")},
		{"origin's sequence", "origin", "origin", header("Rossby-Origin", "a x 2026-03-01T12:00:00Z")},
		{"origin's time", "origin", "origin", header("Rossby-Origin", "a 1 yesterday")},
		{"origin's store", "origin", "origin", header("Rossby-Origin", " 1 2026-03-01T12:00:00Z")},
		{"tx", "tx", "transaction", header("Rossby-Tx", "t 1/2 x")},
		{"tx beyond its count", "tx", "transaction", header("Rossby-Tx", "t 3/2")},
		{"tx zero", "tx", "transaction", header("Rossby-Tx", "t 0/2")},
		{"tx too large", "tx", "transaction", header("Rossby-Tx", "t 1/1001")},
		{"empty payload", "first", "payload", data("")},
		{"bytes after it", "first", "after the commit", func(m *jetstream.Message) { m.Data = append(m.Data, 0xc0) }},
		{"cut short", "first", "payload", func(m *jetstream.Message) { m.Data = m.Data[:len(m.Data)-1] }},
		{"no map", "first", "payload", data("\x91\xc0")},
		{"unknown kind", "trigger-none", "kind 9", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte("\xa1k\x01"), []byte("\xa1k\x09"), 1)
		}},
		{"unknown outcome", "trigger-none", "outcome 9", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte("\xa1o\x01"), []byte("\xa1o\x09"), 1)
		}},
		{"negative kind", "trigger-none", "kind 255", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte("\xa1k\x01"), []byte("\xa1k\xff"), 1)
		}},
		{"unknown codec", "mixed", "unknown codec", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte("json"), []byte("yaml"), 1)
		}},
		{"event version 0", "version", "event version 0", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte("\xcd\x01\x2c"), []byte("\xcd\x00\x00"), 1)
		}},
		{"JSON: unknown codec", "json-binary", "unknown codec", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte(`"msgpack"`), []byte(`"yaml"`), 1)
		}},
		{"JSON: negative version", "json", "event version -2", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte(`"v":2`), []byte(`"v":-2`), 1)
		}},
		{"JSON: data twice", "json", "twice", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte(`"v":2`), []byte(`"v":2,"b":"AA=="`), 1)
		}},
		{"JSON: kind", "json", "payload", func(m *jetstream.Message) { m.Data = []byte(`{"d":[{"k":300}]}`) }},
		{"JSON: unknown outcome", "json", "outcome 4", func(m *jetstream.Message) {
			m.Data = bytes.Replace(m.Data, []byte(`"t":`), []byte(`"o":4,"t":`), 1)
		}},
		{"JSON: more after it", "json", "payload", func(m *jetstream.Message) { m.Data = append(m.Data, '{') }},
		{"JSON: too many events", "json", "more events", header("Rossby-Events", "")},
		{"subject of three", "first", "subject", func(m *jetstream.Message) { m.Subject = "bank.event.account" }},
		{"subject of six", "first", "subject", func(m *jetstream.Message) { m.Subject += ".x" }},
		{"subject without event", "first", "subject", func(m *jetstream.Message) { m.Subject = "bank.command.account.1.a" }},
		{"subject without id", "first", "subject", func(m *jetstream.Message) { m.Subject = "bank.event.account.1." }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := message(readGolden(t, goldenPath(c.golden)), 2)
			before := string(dump(&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}))
			c.edit(m)
			got, err := jetstream.Decode(m)
			var format *jetstream.FormatError
			if !errors.As(err, &format) || !errors.Is(err, jetstream.ErrFormat) {
				t.Fatalf("got %+v, %v of\n%s", got, err, before)
			}
			if !strings.Contains(err.Error(), c.want) || format.Sequence != 2 || format.Subject != m.Subject {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestDecodeIgnoresUnknownFields: fields may be added without a flag.
func TestDecodeIgnoresUnknownFields(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func([]byte) []byte{
		// The map's head counts one entry more: "zz" with an array of maps.
		"state": func(b []byte) []byte {
			b = append([]byte{b[0] + 1}, b[1:]...)
			return append(b, "\xa2zz\x92\x81\xa1a\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xc3"...)
		},
		"json-full": func(b []byte) []byte {
			b = bytes.ReplaceAll(b, []byte(`{"n":`), []byte(`{"zz":[{"a":1.5}],"n":`))
			return bytes.Replace(b, []byte(`{"d":[`), []byte(`{"zz":null,"d":[`), 1)
		},
	} {
		m := message(readGolden(t, goldenPath(name)), goldens()[name].commit.Sequence)
		m.Data = edit(m.Data)
		m.Header["X-Other"] = []string{"kept"}
		got, err := jetstream.Decode(m)
		if want := goldens()[name].commit; err != nil || !reflect.DeepEqual(got, &want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// TestSourcedCopyDecodes: the server strips the expectation from what a stream
// sources from another.
func TestSourcedCopyDecodes(t *testing.T) {
	t.Parallel()
	m := message(readGolden(t, goldenPath("state")), 7)
	delete(m.Header, nats.ExpectedLastSubjSeqHdr)
	c, err := jetstream.Decode(m)
	if err != nil || c.PreviousSequence != 0 || c.Previous == "" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestDecodeMemory: what a payload promises costs no memory, and what it holds
// costs a bounded multiple.
//
//nolint:paralleltest // measures what this goroutine allocates
func TestDecodeMemory(t *testing.T) {
	const size = 1 << 20
	array := func(n int) string { return string([]byte{0xdd, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) }
	dict := func(n int) string { return string([]byte{0xdf, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) }
	for name, b := range map[string]struct{ golden, data string }{
		"promised decisions": {"first", "\x81\xa1d" + array(size) + strings.Repeat("\xc0", size)},
		"empty decisions":    {"first", "\x81\xa1d" + array(size) + strings.Repeat("\x80", size)},
		"empty events":       {"first", "\x81\xa1d\x91\x81\xa2ev" + array(size) + strings.Repeat("\x80", size)},
		"metadata":           {"first", "\x81\xa1d\x91\x81\xa2md" + dict(size) + strings.Repeat("\xc0", size)},
		"nested":             {"first", "\x81\xa1z" + strings.Repeat("\x91", size)},
		"JSON decisions":     {"json", `{"d":[` + strings.Repeat("{},", size/3) + `{}]}`},
		"JSON nested":        {"json", `{"z":` + strings.Repeat("[", size)},
	} {
		m := message(readGolden(t, goldenPath(b.golden)), 2)
		m.Data = []byte(b.data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if c, err := jetstream.Decode(m); err == nil {
			t.Errorf("%s: decodes to %d decisions", name, len(c.Decisions))
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 64*size {
			t.Errorf("%s: %d MB for a payload of 1 MB", name, got>>20)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for name := range goldens() {
		m := readGolden(f, goldenPath(name))
		h := func(k string) string { return strings.Join(m.Header[k], "") }
		f.Add(m.Subject, h("Rossby-Format"), h("Rossby-Commit"), h("Rossby-Chain"), h("Rossby-Events"), h("Content-Type"),
			h("Nats-Expected-Last-Subject-Sequence"), h("Rossby-Origin"), h("Rossby-Tx"), m.Data)
	}
	f.Fuzz(func(t *testing.T, subject, format, commit, chain, events, content, expected, origin, tx string, data []byte) {
		m := &jetstream.Message{Subject: subject, Sequence: 9, Time: storedAt, Data: data, Header: nats.Header{}}
		for k, v := range map[string]string{
			"Rossby-Format": format, "Rossby-Commit": commit, "Rossby-Chain": chain, "Rossby-Events": events,
			"Content-Type": content, "Nats-Expected-Last-Subject-Sequence": expected, "Rossby-Origin": origin, "Rossby-Tx": tx,
		} {
			m.Header[k] = []string{v}
		}
		c, err := jetstream.Decode(m)
		if err != nil {
			var format *jetstream.FormatError
			if !errors.As(err, &format) || c != nil {
				t.Fatalf("%v (%T), %v", err, err, c)
			}
			_ = err.Error()
			return
		}
		if len(c.Decisions) > jetstream.MaxDecisions || c.Events() > len(events)+1 || c.LastSequence() < c.Sequence {
			t.Fatalf("%+v", c)
		}
		// What was read can be written, and is then read as the same.
		cdc := jetstream.Msgpack
		if content == "application/json" {
			cdc = jetstream.JSON
		}
		again, err := jetstream.EncodeCommit(subject, c, cdc)
		if err != nil {
			return
		}
		c2, err := jetstream.Decode(&jetstream.Message{Subject: subject, Sequence: 9, Time: storedAt, Data: again.Data, Header: again.Header})
		if err != nil {
			t.Fatalf("written again it is not read: %v", err)
		}
		if c2.Head != c.Head || c2.Previous != c.Previous || !slices.Equal(c2.EventNames, c.EventNames) || len(c2.Decisions) != len(c.Decisions) {
			t.Fatalf("written again:\n%+v\n%+v", c, c2)
		}
	})
}
