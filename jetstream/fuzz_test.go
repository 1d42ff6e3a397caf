package jetstream_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// FuzzSubject: no subject is taken apart wrongly, and each that the store makes is
// taken apart as what it was made of.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{
		"bank.event.account.3.a1", "bank.event._store.0.genesis", "bank.event.account.3.", "bank.event.account.3.a.b", "....", "",
		"bank.cmd.account.3.a1", ".event.account.3.a1", "bank.event..3.a1",
	} {
		f.Add(s, "account", "a1")
	}
	f.Add("", "account", "ü\u00a0")
	f.Add("", "account", strings.Repeat("x", 129))
	store := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	f.Fuzz(func(t *testing.T, subject, typ, id string) {
		if typ, id, ok := jetstream.SplitSubject(subject); ok {
			parts := strings.Split(subject, ".")
			if len(parts) != 5 || parts[1] != "event" || parts[2] != typ || parts[4] != id {
				t.Errorf("%q is taken apart into %q, %q", subject, typ, id)
			}
		}
		made, err := store.Subject(typ, id)
		if err != nil {
			var invalid *jetstream.InvalidError
			if !errors.As(err, &invalid) || made != "" || jetstream.ValidateName("", typ) == nil && jetstream.ValidateID(id) == nil {
				t.Errorf("%q, %q: %q, %v", typ, id, made, err)
			}
			return
		}
		if strings.ContainsAny(made, " *>\t\r\n\x00") || strings.Count(made, ".") != 4 {
			t.Errorf("%q, %q: %q is no literal subject", typ, id, made)
		}
		if typ2, id2, ok := jetstream.SplitSubject(made); !ok || typ2 != typ || id2 != id {
			t.Errorf("%q is taken apart into %q, %q, %v", made, typ2, id2, ok)
		}
	})
}

// FuzzPosition: a text is a position that writes the same text, or an error.
func FuzzPosition(f *testing.F) {
	for _, s := range []string{"", "k3q5x7wzabcde-2s", "a-0", "a-1", "-", "a-b-c", "a-3w5e11264sgsf", "a-3w5e11264sgsg", "a-A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := jetstream.ParsePosition(text)
		if err != nil {
			var invalid *jetstream.InvalidError
			if !errors.As(err, &invalid) || !p.IsZero() {
				t.Errorf("%q: %#v, %v", text, p, err)
			}
			return
		}
		if p.String() != text || p.IsZero() != (text == "") {
			t.Errorf("%q is %#v", text, p)
		}
		var q jetstream.Position
		if data, err := p.MarshalText(); err != nil || q.UnmarshalText(data) != nil || q != p {
			t.Errorf("%q: %s, %v, %#v", text, data, err, q)
		}
	})
}

// FuzzHeaders: what headers say is kept or refused, whatever they hold.
func FuzzHeaders(f *testing.F) {
	m := readGolden(f, goldenPath("first"))
	f.Add("1 1 -", "", "", "0", "1", "c1", "")
	f.Add("2 9 c0", "k3q5x7wzabcde 7 2026-01-02T03:04:05.000006Z", "tx 1/2", "41", "1", "c1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("18446744073709551615 18446744073709551615 c0", "s 0 0001-01-01T00:00:00Z", "tx 1000/1000", "18446744073709551615", "1", "c", "x")
	f.Add("01 +1 -", "s  x", "tx 0/0", "-1", "1 flag", "c.1", "")
	f.Fuzz(func(t *testing.T, chain, origin, tx, expected, format, commit, trace string) {
		h := nats.Header{
			"Rossby-Events": m.Header["Rossby-Events"], "Content-Type": m.Header["Content-Type"], "Rossby-Chain": {chain},
			"Rossby-Format": {format}, "Rossby-Commit": {commit}, "Nats-Expected-Last-Subject-Sequence": {expected},
			"traceparent": {trace}, "Rossby-Origin": {origin}, "Rossby-Tx": {tx},
		}
		msg := &jetstream.Message{Subject: m.Subject, Sequence: 1 << 40, Time: storedAt, Header: h, Data: m.Data}
		c, err := jetstream.Decode(msg)
		if err != nil {
			if !errors.Is(err, jetstream.ErrFormat) || c != nil {
				t.Errorf("%v, %+v", err, c)
			}
			return
		}
		if format != "1" || c.CommitID != commit || c.Ordinal == 0 || (c.Previous == "") != (c.Ordinal == 1) || c.TraceParent != trace {
			t.Errorf("%+v", c)
		}
		if c.LastSequence() < c.Sequence || c.LastSequence()-c.Sequence >= 1000 {
			t.Errorf("sequence %d, last of its transaction %d", c.Sequence, c.LastSequence())
		}
		if expected == "" {
			return // Nobody's append: written again it would be one.
		}
		again, err := jetstream.EncodeCommit(m.Subject, c, jetstream.Msgpack)
		if err != nil {
			t.Fatal(err)
		}
		c2, err := jetstream.Decode(&jetstream.Message{Subject: m.Subject, Sequence: 1 << 40, Time: storedAt, Header: again.Header, Data: again.Data})
		if err != nil || !reflect.DeepEqual(c, c2) {
			t.Errorf("written again: %v\n%+v\n%+v", err, c, c2)
		}
	})
}

// FuzzSchemaDecode: any stored event becomes events of the schema or an error,
// whatever name, version and codec it claims.
func FuzzSchemaDecode(f *testing.F) {
	for _, e := range []jetstream.EventData{
		{Name: "credited", Version: 1, Data: []byte("\x81\xa5euros\x02")}, {Name: "added", Version: 3, Data: []byte("\x82\xa5cents\x02\xa4note\xa1x")},
		{Name: "moved", Version: 1, Codec: jetstream.JSON, Data: []byte(`{"cents":5}`)}, {Name: "paid", Version: 2, Data: []byte("\xc1")},
		{Name: "noise", Version: 9, Codec: jetstream.JSON, Data: []byte("null")}, {Name: "hushed", Version: -1}, {Name: "x", Codec: 7},
	} {
		f.Add(e.Name, e.Version, uint8(e.Codec), e.KeyRef, e.Data)
	}
	f.Fuzz(func(t *testing.T, name string, version int, codec uint8, key string, data []byte) {
		e := jetstream.EventData{Name: name, Version: version, Codec: jetstream.Codec(codec), KeyRef: key, Data: data}
		events, err := evolved.Decode(e)
		if err != nil {
			if events != nil || err.Error() == "" {
				t.Errorf("%v, %v", events, err)
			}
			return
		}
		for _, event := range events {
			if _, ok := evolved.NameOf(reflect.TypeOf(event)); !ok {
				t.Fatalf("%T is no event of the schema", event)
			}
			for _, cdc := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
				again, err := evolved.Encode(event, cdc)
				if err != nil {
					t.Fatalf("%+v cannot be written: %v", event, err)
				}
				back, err := evolved.Decode(again)
				if err != nil || len(back) != 1 || cdc == jetstream.Msgpack && back[0] != event {
					t.Fatalf("%+v is read as %+v, %v", event, back, err)
				}
			}
		}
	})
}
