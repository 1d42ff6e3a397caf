package archive_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// FuzzImport: any bytes are an archive or an error that says where and why. What is
// read before the error are commits, in order.
func FuzzImport(f *testing.F) {
	for _, pack := range []bool{false, true} {
		for _, cdc := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
			h := archive.Header{
				Store: "bank", StoreID: "k3q5x7wzabcde", Format: jetstream.FormatVersion, Partitions: 64, Codec: cdc.String(), To: 9,
				Created: time.Unix(1_700_000_000, 0).UTC(),
			}
			if pack {
				h.Compression = "s2"
			}
			whole, err := archive.WriteForTest(h, fuzzMessages(cdc)...)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(whole, false)
			f.Add(whole[:len(whole)-40], false)
			f.Add(whole, true)
		}
	}
	f.Add([]byte("rossby-archive 1\nH\x00\x00\x00\x02{}"), false)
	f.Add([]byte("rossby-archive 2\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend {
			// Checksums would stop the fuzzer at each frame.
			b = archive.MendForTest(b)
		}
		r, err := archive.NewReader(bytes.NewReader(b))
		last := uint64(0)
		if err == nil {
			h := r.Header()
			for m, failed := range r.Messages() {
				if failed != nil {
					err = failed
					break
				}
				if m.Sequence <= last || m.Sequence <= h.After {
					t.Fatalf("sequence %d after %d", m.Sequence, last)
				}
				last = m.Sequence
				if _, err := jetstream.Decode(&m); err != nil {
					t.Fatalf("no commit: %v", err)
				}
			}
		}
		var fault *archive.FormatError
		if err != nil && (!errors.As(err, &fault) || fault.Offset < 0 || fault.Offset > int64(len(b)) || fault.Record == 0 || fault.Reason == "") {
			t.Fatalf("%v", err)
		}
	})
}

// fuzzMessages are some commits as a store returns them.
func fuzzMessages(cdc jetstream.Codec) []jetstream.Message {
	at := time.Unix(1_700_000_000, 5).UTC()
	headers := func(more ...string) nats.Header {
		h := nats.Header{"Rossby-Format": {"1"}, "Content-Type": {cdc.ContentType()}, "Rossby-Events": {"moved"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = []string{more[i+1]}
		}
		return h
	}
	return []jetstream.Message{
		{Subject: "bank.event.account.3.a1", Sequence: 2, Time: at, Data: payload(cdc), Header: headers(
			"Rossby-Commit", "c1", "Rossby-Chain", "1 1 -", "Nats-Expected-Last-Subject-Sequence", "0")},
		{Subject: "bank.event.account.3.a1", Sequence: 5, Time: at.Add(time.Second), Data: payload(cdc), Header: headers(
			"Rossby-Commit", "c2", "Rossby-Chain", "2 2 c1", "Nats-Expected-Last-Subject-Sequence", "2",
			"Rossby-Origin", "abc 7 2026-03-01T12:00:00Z", "Rossby-Tx", "t 1/2")},
		{Subject: "bank.event.order.0.ü", Sequence: 6, Time: at.Add(time.Second), Data: payload(cdc), Header: headers(
			"Rossby-Commit", "c3", "Rossby-Chain", "1 1 -", "Rossby-Tx", "t 2/2")},
	}
}
