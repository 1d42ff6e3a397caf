package archive_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// TestRoundTrip: a store of 3,000 commits, through an archive and directly, into
// stores with other numbers of partitions, on one server and on three, in both
// codecs, packed or not.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, connect func() *nats.Conn, replicas int, _ *natstest.Cluster) {
		t.Helper()
		for _, c := range []struct {
			name  string
			codec jetstream.Codec
			pack  bool
		}{{"msgpack", jetstream.Msgpack, true}, {"json", jetstream.JSON, false}} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				nc := connect()
				from := open(t, nc, jetstream.Config{Replicas: replicas, Codec: c.codec})
				f := fill(t, from, 3000)
				b, end := export(t, from, archive.Config{Compress: c.pack})
				if end.Commits != 3000 || end.Last != end.Header.To {
					t.Errorf("%+v", end)
				}
				t.Logf("%d bytes", len(b))
				imported := open(t, connect(), jetstream.Config{Replicas: replicas, Codec: c.codec, Partitions: 7})
				if p := mustImport(t, b, imported); p.Commits != 3000 || p.Bytes != end.Bytes || p.Sequence != end.Last {
					t.Errorf("%+v of %+v", p, end)
				}
				wantCopy(t, from, imported)
				copied := open(t, connect(), jetstream.Config{Replicas: replicas, Codec: c.codec, Partitions: 1})
				if p, err := archive.Copy(t.Context(), from, copied, archive.CopyConfig{}); err != nil || p.Commits != 3000 {
					t.Fatalf("%+v, %v", p, err)
				}
				wantCopy(t, from, copied)
				wantKeys(t, f, imported)
				wantKeys(t, f, copied)
			})
		}
	})
}
