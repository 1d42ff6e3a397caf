package archive_test

import (
	"bytes"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// TestRoundTrip: a store of thousands of commits, through an archive and directly, into
// stores with other numbers of partitions, on one server and on three, in both
// codecs, packed or not.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, connect func() *nats.Conn, replicas int, _ *natstest.Cluster) {
		t.Helper()
		n := many()
		for _, c := range []struct {
			name  string
			codec jetstream.Codec
			pack  bool
		}{{"msgpack", jetstream.Msgpack, true}, {"json", jetstream.JSON, false}} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				nc := connect()
				from := open(t, nc, jetstream.Config{Replicas: replicas, Codec: c.codec})
				f := fill(t, from, n)
				b, end := export(t, from, archive.Config{Compress: c.pack})
				if end.Commits != uint64(n) || end.Last != end.Header.To {
					t.Errorf("%+v", end)
				}
				t.Logf("%d bytes", len(b))
				imported := open(t, connect(), jetstream.Config{Replicas: replicas, Codec: c.codec, Partitions: 7})
				if p := mustImport(t, b, imported); p.Commits != uint64(n) || p.Bytes != end.Bytes || p.Sequence != end.Last {
					t.Errorf("%+v of %+v", p, end)
				}
				wantCopy(t, from, imported)
				copied := open(t, connect(), jetstream.Config{Replicas: replicas, Codec: c.codec, Partitions: 1})
				if p, err := archive.Copy(t.Context(), from, copied, archive.CopyConfig{}); err != nil || p.Commits != uint64(n) {
					t.Fatalf("%+v, %v", p, err)
				}
				wantCopy(t, from, copied)
				wantKeys(t, f, imported)
				wantKeys(t, f, copied)
			})
		}
	})
}

// TestProgress: whoever waits is told how far it is, and in the end that it is there.
func TestProgress(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := open(t, nc, jetstream.Config{})
	const n = 1600 // reported by the 500, compared by the 1,000
	fill(t, from, n)
	check := func(what string, least int, run func(report func(archive.Progress)) error) {
		t.Helper()
		var all []archive.Progress
		if err := run(func(p archive.Progress) { all = append(all, p) }); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(all) < least {
			t.Fatalf("%s: told %d times", what, len(all))
		}
		for i, p := range all {
			if p.To != n+1 || i > 0 && (p.Commits < all[i-1].Commits || p.Bytes < all[i-1].Bytes) {
				t.Errorf("%s: %+v after %+v", what, p, all[max(i, 1)-1])
			}
		}
		if last := all[len(all)-1]; last.Commits != n {
			t.Errorf("%s: the last is %+v", what, last)
		}
	}
	var b bytes.Buffer
	check("export", 4, func(report func(archive.Progress)) error {
		end, err := archive.Export(t.Context(), from, &b, archive.Config{Progress: report})
		if end.Position != from.Position(n+1) {
			t.Errorf("%+v", end)
		}
		return err
	})
	imported, copied := open(t, nc, jetstream.Config{}), open(t, nc, jetstream.Config{})
	check("import", 4, func(report func(archive.Progress)) error {
		_, err := archive.Import(t.Context(), bytes.NewReader(b.Bytes()), imported, archive.ImportConfig{Progress: report})
		return err
	})
	check("copy", 4, func(report func(archive.Progress)) error {
		_, err := archive.Copy(t.Context(), from, copied, archive.CopyConfig{Progress: report})
		return err
	})
	check("compare", 2, func(report func(archive.Progress)) error {
		_, err := archive.CompareArchive(t.Context(), bytes.NewReader(b.Bytes()), copied, archive.CompareConfig{Progress: report})
		return err
	})
}
