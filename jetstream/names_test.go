package jetstream_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestValidateName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "bank-2", "0", strings.Repeat("x", 128)} {
		if err := jetstream.ValidateName("store name", name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "Bank", "a_b", "_a", "a.b", "a b", "ä", "a*", "a>", "a\n", strings.Repeat("x", 129)} {
		var invalid *jetstream.InvalidError
		if err := jetstream.ValidateName("store name", name); !errors.As(err, &invalid) || invalid.Field != "store name" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestValidateID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "A_b-9:/$@ü", jetstream.NewID(), strings.Repeat("x", 128)} {
		if err := jetstream.ValidateID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", " ", "a b", "a.b", "*", "a>", "a\tb", "a\x00", "a\u2028b", "\x7f", "\xff", strings.Repeat("ü", 65)} {
		if err := jetstream.ValidateID(id); !is[*jetstream.InvalidError](err) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestPartitionIsTheServers proves that a partition can be computed by a subject
// mapping, too.
func TestPartitionIsTheServers(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	js := natstest.JetStream(t, nc)
	_, err := js.CreateStream(t.Context(), natsjs.StreamConfig{
		Name: "in", Subjects: []string{"in.*"},
		SubjectTransform: &natsjs.SubjectTransformConfig{Source: "in.*", Destination: "out.{{partition(64,1)}}.{{wildcard(1)}}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := stream(t, nc, "in")
	seen := map[int]bool{}
	for i := range 200 {
		id := jetstream.NewID()
		switch i % 4 {
		case 1:
			id = strconv.Itoa(i)
		case 2:
			id = strings.Repeat("ü", i%64+1)
		case 3:
			id = fmt.Sprintf("Customer:%d/$", i)
		}
		if err := jetstream.ValidateID(id); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "in."+id, nil); err != nil {
			t.Fatal(err)
		}
		m, err := raw.GetMsg(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		p := jetstream.Partition(id, 64)
		if want := fmt.Sprintf("out.%d.%s", p, id); m.Subject != want {
			t.Errorf("the server makes %q, we %q", m.Subject, want)
		}
		seen[p] = true
	}
	if len(seen) < 50 {
		t.Errorf("200 ids in %d partitions only", len(seen))
	}
	if jetstream.Partition("a", 1) != 0 || jetstream.Partition("a", 0) != 0 {
		t.Error("one partition is not partition 0")
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	if got, err := s.Subject("account", "a1"); got != goldenSubject || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, c := range [][2]string{{"Account", "a"}, {"account", "a.b"}, {"", "a"}, {"account", ""}} {
		if got, err := s.Subject(c[0], c[1]); !is[*jetstream.InvalidError](err) {
			t.Errorf("%q: %q, %v", c, got, err)
		}
	}
	if s.SubjectFilter("") != "bank.event.>" || s.SubjectFilter("account") != "bank.event.account.>" {
		t.Error("other filters")
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	before := time.Now().Truncate(time.Millisecond)
	seen := map[string]bool{}
	for range 1000 {
		id := jetstream.NewID()
		if seen[id] || len(id) != 26 || id != strings.ToLower(id) || jetstream.ValidateID(id) != nil {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	id := jetstream.NewCommandID()
	at, ok := jetstream.CommandIDTime(id)
	if !ok || at.Before(before) || at.After(time.Now()) || at.Location() != time.UTC {
		t.Errorf("%q bears %v, %v", id, at, ok)
	}
	for _, foreign := range []string{"", "cmd-", "cmd-x", jetstream.NewID(), "cmd-" + jetstream.NewID() + "x", "order-4711", "cmd-01jn8x9c00000000000000000u"} {
		if at, ok := jetstream.CommandIDTime(foreign); ok {
			t.Errorf("%q bears %v", foreign, at)
		}
	}
}

// AC-A17: ids are in the order in which they were made.
func TestIDsAreMonotonic(t *testing.T) {
	t.Parallel()
	const timePart = 10 // characters
	last, inOne := "", 0
	for range 20_000 {
		id := jetstream.NewID()
		if last != "" && id[:timePart] == last[:timePart] {
			inOne++
			if id <= last {
				t.Fatalf("%s was made after %s", id, last)
			}
		}
		last = id
	}
	if inOne == 0 {
		t.Error("no two ids were made in one millisecond")
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[string]bool{}
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				id := jetstream.NewID()
				mu.Lock()
				if seen[id] {
					t.Errorf("%s twice", id)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	full := func(b byte) (id [16]byte) {
		for i := range id[6:] {
			id[6+i] = b
		}
		id[5] = 7 // the millisecond
		return id
	}
	for name, c := range map[string]struct {
		last [16]byte
		ms   uint64
		more bool
	}{
		"the same millisecond": {full(0), 7, true},
		"carried over":         {[16]byte{5: 7, 8: 255, 9: 255, 10: 255, 11: 255, 12: 255, 13: 255, 14: 255, 15: 255}, 7, true},
		"no room left":         {full(255), 7, false},
		"the clock goes back":  {full(255), 6, false},
		"later":                {full(255), 8, true},
	} {
		got := jetstream.NextID(c.last, c.ms)
		if (bytes.Compare(got[:], c.last[:]) > 0) != c.more || uint64(got[5]) != c.ms || bytes.Equal(got[:6], make([]byte, 6)) {
			t.Errorf("%s: after %x comes %x", name, c.last, got)
		}
	}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	other := jetstream.NewStoreForTest("bank", "zzzzzzzzzzzzz", 64)
	for _, seq := range []uint64{1, 35, 36, 1<<63 + 5, 1<<64 - 1} {
		p := s.Position(seq)
		got, err := jetstream.ParsePosition(p.String())
		if got != p || err != nil || p.IsZero() {
			t.Errorf("%d: %#v, %v", seq, got, err)
		}
		if n, err := s.Sequence(got); n != seq || err != nil {
			t.Errorf("%d: %d, %v", seq, n, err)
		}
		var foreign *jetstream.ForeignPositionError
		if _, err := other.Sequence(p); !errors.As(err, &foreign) || foreign.Position != p || foreign.Store != "bank" {
			t.Errorf("%d: another store's position: %v", seq, err)
		}
		var viaJSON struct {
			P jetstream.Position `json:"P"`
		}
		data, err := json.Marshal(map[string]any{"P": p})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &viaJSON); err != nil || viaJSON.P != p {
			t.Errorf("%s: %v, %v", data, viaJSON, err)
		}
	}
	if n, err := s.Sequence(s.Position(0)); n != 0 || err != nil {
		t.Errorf("0: %d, %v", n, err)
	}
	zero, err := jetstream.ParsePosition("")
	if n, err2 := s.Sequence(zero); !zero.IsZero() || err != nil || err2 != nil || n != 0 || zero.String() != "" {
		t.Errorf("zero: %v %v %v %d", zero, err, err2, n)
	}
	for _, text := range []string{"x", "-1", "a-", "a-!", "a-0 ", "a-A", "a-01", "a-+1", "a.b-1", strings.Repeat("a", 33) + "-1", "a-3w5e11264sgsg0"} {
		if p, err := jetstream.ParsePosition(text); !is[*jetstream.InvalidError](err) {
			t.Errorf("%q: %#v, %v", text, p, err)
		}
	}
}

func TestMicroTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 5, 0, 0, 123456789, time.FixedZone("x", 3600))
	if got, want := jetstream.MicroTime(at), time.Date(2026, 1, 1, 4, 0, 0, 123456000, time.UTC); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestWritesThatCannotBeReadAreRefused: nothing is sent, so a store without a
// connection will do.
func TestWritesThatCannotBeReadAreRefused(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	decision := func(edit func(*jetstream.Decision)) func(*jetstream.Write) {
		return func(w *jetstream.Write) { edit(&w.Decisions[0]) }
	}
	text := "\xff"
	for want, edit := range map[string]func(*jetstream.Write){
		"aggregate type": func(w *jetstream.Write) { w.Type = "A" },
		"aggregate id":   func(w *jetstream.Write) { w.ID = "a.b" },
		"decisions":      func(w *jetstream.Write) { w.Decisions = nil },
		"head":           func(w *jetstream.Write) { w.After.Sequence = 5 },
		"head ":          func(w *jetstream.Write) { w.After.Version = 1 },
		"commit id": func(w *jetstream.Write) {
			w.After = jetstream.Head{Sequence: 1, CommitID: "a.b", Ordinal: 1, Version: 1}
		},
		"traceparent":  func(w *jetstream.Write) { w.TraceParent = "a\r\nX: y" },
		"origin store": func(w *jetstream.Write) { w.Origin = &jetstream.Origin{Store: "a b"} },
		"origin time": func(w *jetstream.Write) {
			w.Origin = &jetstream.Origin{Store: "x", Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}
		},
		"event name":          decision(func(d *jetstream.Decision) { d.Events[0].Name = "a,b" }),
		"event name ":         decision(func(d *jetstream.Decision) { d.Events[0].Name = "" }),
		"event version":       decision(func(d *jetstream.Decision) { d.Events[0].Version = -1 }),
		"event codec":         decision(func(d *jetstream.Decision) { d.Events[0].Codec = 7 }),
		"event key reference": decision(func(d *jetstream.Decision) { d.Events[0].KeyRef = text }),
		"outcome":             decision(func(d *jetstream.Decision) { d.Events = nil }),
		"outcome ":            decision(func(d *jetstream.Decision) { d.Outcome = jetstream.OutcomeNone }),
		"outcome  ":           decision(func(d *jetstream.Decision) { d.Outcome = 9 }),
		"decision kind":       decision(func(d *jetstream.Decision) { d.Kind = 9 }),
		"trigger":             decision(func(d *jetstream.Decision) { d.Kind = jetstream.KindTrigger }),
		"trigger ":            decision(func(d *jetstream.Decision) { d.Trigger.Step = "x" }),
		"command id":          decision(func(d *jetstream.Decision) { d.CommandID = text }),
		"command id ": decision(func(d *jetstream.Decision) {
			d.Kind, d.Trigger = jetstream.KindTrigger, jetstream.Trigger{Subscriber: "a", EventID: "b"}
		}),
		"correlation":           decision(func(d *jetstream.Decision) { d.Correlation = text }),
		"metadata":              decision(func(d *jetstream.Decision) { d.Metadata = map[string]string{"a": text} }),
		"metadata key":          decision(func(d *jetstream.Decision) { d.Metadata = map[string]string{text: ""} }),
		"state fingerprint":     func(w *jetstream.Write) { w.State = &jetstream.State{Fingerprint: text} },
		"state codec":           func(w *jetstream.Write) { w.State = &jetstream.State{Codec: 7} },
		"events":                func(w *jetstream.Write) { w.Decisions[0].Events = manyEvents(300) },
		"decisions ":            func(w *jetstream.Write) { w.Decisions = make([]jetstream.Decision, jetstream.MaxDecisions+1) },
		"trigger's event id":    decision(func(d *jetstream.Decision) { d.Trigger.EventID = text }),
		"traceparent ":          decision(func(d *jetstream.Decision) { d.TraceParent = text }),
		"traceparent  ":         func(w *jetstream.Write) { w.TraceParent = strings.Repeat("a", 257) },
		"trigger's subscriber ": decision(func(d *jetstream.Decision) { d.Trigger.Subscriber = text }),
	} {
		w := write("a1", "cmd-1", jetstream.Head{})
		edit(&w)
		_, err := s.Append(t.Context(), w)
		var invalid *jetstream.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != strings.TrimSpace(want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// manyEvents have names that no header holds together.
func manyEvents(n int) []jetstream.EventData {
	events := make([]jetstream.EventData, n)
	for i := range events {
		events[i] = event(strings.Repeat("n", 120), "\xc0")
	}
	return events
}

// TestReasonsAreMadeText: a reason is for people, and often another program's
// words; the outcome has to be recorded all the same.
func TestReasonsAreMadeText(t *testing.T) {
	t.Parallel()
	for _, cdc := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		c := goldens()["trigger-rejected"].commit
		c.Decisions[0].Reason = "bad \xff byte"
		m, err := jetstream.EncodeCommit(goldenSubject, &c, cdc)
		if err != nil {
			t.Fatal(err)
		}
		got, err := jetstream.Decode(message(m, 7))
		if err != nil || got.Decisions[0].Reason != "bad \uFFFD byte" {
			t.Errorf("%v: %v, %v", cdc, got, err)
		}
	}
}

func TestJSONRefusesDataThatIsNoJSON(t *testing.T) {
	t.Parallel()
	c := goldens()["json"].commit
	c.Decisions = []jetstream.Decision{command("1", jetstream.EventData{Name: "credited", Version: 1, Codec: jetstream.JSON, Data: []byte("{")})}
	var m *nats.Msg
	m, err := jetstream.EncodeCommit(goldenSubject, &c, jetstream.JSON)
	if !is[*jetstream.InvalidError](err) {
		t.Errorf("%v, %v", m, err)
	}
}
