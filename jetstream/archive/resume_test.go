package archive_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// TestExportFileResumes: a file that ends anywhere, or has anything behind its last
// whole frame, is completed, and then is the file of an export that was never
// interrupted. Commits that came meanwhile are not in it.
func TestExportFileResumes(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	n := many()
	f := fill(t, s, n)
	whole := filepath.Join(t.TempDir(), "whole")
	end, err := archive.ExportFile(t.Context(), s, whole, archive.Config{})
	if err != nil || end.Commits != uint64(n) {
		t.Fatalf("%+v, %v", end, err)
	}
	want, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.ExportFile(t.Context(), s, whole, archive.Config{}); !errors.Is(err, archive.ErrComplete) {
		t.Errorf("again: %v", err)
	}
	f.fill(50)
	parts := frames(t, want)
	seam := len(parts[0]) + len(parts[1]) + len(parts[2])
	path := filepath.Join(t.TempDir(), "part")
	for _, begin := range [][]byte{
		want[:seam], want[:seam+3], want[:seam+len(parts[3])/2], want[:seam-1], want[:len(want)-1],
		want[:len(parts[0])+len(parts[1])], append(bytes.Clone(want[:seam]), make([]byte, 5000)...),
	} {
		if err := os.WriteFile(path, begin, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := archive.ExportFile(t.Context(), s, path, archive.Config{})
		if err != nil || got.Summary != end.Summary {
			t.Fatalf("%d bytes: %+v, %v", len(begin), got, err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%d bytes: another file of %d bytes, %v", len(begin), len(b), err)
		}
	}
	// Of what did not get beyond its header, nothing is worth keeping.
	for _, begin := range []string{"", "rossby-ar", string(want[:len(parts[0])+9])} {
		if err := os.WriteFile(path, []byte(begin), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := archive.ExportFile(t.Context(), s, path, archive.Config{}); err != nil || got.Commits != uint64(n)+50 {
			t.Errorf("%q: %+v, %v", begin, got, err)
		}
	}
	// What others have written is not touched.
	other := open(t, s.Conn(), jetstream.Config{})
	fill(t, other, 10)
	for what, c := range map[string]struct {
		store *jetstream.Store
		begin []byte
		cfg   archive.Config
		want  error
	}{
		"another store":     {other, want[:seam], archive.Config{}, archive.ErrOtherExport},
		"another selection": {s, want[:seam], archive.Config{Type: "order"}, archive.ErrOtherExport},
		"another range":     {s, want[:seam], archive.Config{UpTo: s.Position(7)}, archive.ErrOtherExport},
		"another beginning": {s, want[:seam], archive.Config{After: s.Position(7)}, archive.ErrOtherExport},
		"no archive":        {s, []byte("a letter to a friend"), archive.Config{}, archive.ErrNotArchive},
		"a newer one":       {s, []byte("rossby-archive 2\n"), archive.Config{}, archive.ErrNewer},
	} {
		if err := os.WriteFile(path, c.begin, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.ExportFile(t.Context(), c.store, path, c.cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, c.begin) {
			t.Errorf("%s: the file was touched", what)
		}
	}
}

// TestExportIsCancelled: an export whose context ends leaves a file that the next
// one completes.
func TestExportIsCancelled(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	fill(t, s, many())
	path := filepath.Join(t.TempDir(), "file")
	attempts := 0
	natstest.Eventually(t, "the export", func() error {
		attempts++
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := archive.ExportFile(ctx, s, path, archive.Config{Progress: func(p archive.Progress) {
			if p.Commits > 0 && p.Sequence < p.To {
				cancel()
			}
		}})
		return err
	})
	if attempts < 2 {
		t.Errorf("nothing was interrupted: %d attempts", attempts)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := open(t, s.Conn(), jetstream.Config{})
	mustImport(t, b, to)
	wantCopy(t, s, to)
}

// TestImportResumes: an import and a copy that are ended at random commits, each time
// gone on with over another connection, while the leader resigns, give the copy of
// one that was left alone; transactions are whole at every moment.
func TestImportResumes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, connect func() *nats.Conn, replicas int, c *natstest.Cluster) {
		t.Helper()
		n := 3000
		if testing.Short() {
			n = 1400
		}
		from := open(t, connect(), jetstream.Config{}) // with one replica, also where the copy has three
		fill(t, from, n)
		b, _ := export(t, from, archive.Config{Compress: true})
		for name, step := range map[string]func(ctx context.Context, to *jetstream.Store, report func(archive.Progress)) error{
			"import": func(ctx context.Context, to *jetstream.Store, report func(archive.Progress)) error {
				_, err := archive.Import(ctx, bytes.NewReader(b), to, archive.ImportConfig{Progress: report})
				return err
			},
			"copy": func(ctx context.Context, to *jetstream.Store, report func(archive.Progress)) error {
				_, err := archive.Copy(ctx, from, to, archive.CopyConfig{Progress: report})
				return err
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cfg := jetstream.Config{Name: natstest.Name(t), Replicas: replicas, Partitions: 9}
				open(t, connect(), cfg)
				var wg sync.WaitGroup
				defer wg.Wait()
				rng := rand.New(rand.NewPCG(7, 8))
				rounds := 0
				for done := false; !done; rounds++ {
					nc := connect()
					to := open(t, nc, cfg)
					ctx, cancel := context.WithCancel(t.Context())
					var report func(archive.Progress)
					switch {
					case rounds < min(3, n/500-1): // after some hundreds of commits, with others on their way
						report = func(archive.Progress) { cancel() }
					case rounds < 6: // in the middle of whatever it is doing
						time.AfterFunc(time.Duration(rng.IntN(60))*time.Millisecond, cancel)
					}
					if c != nil && rounds%2 == 0 {
						wg.Go(func() { c.StepDown(t, cfg.Name) })
					}
					err := step(ctx, to, report)
					cancel()
					switch {
					case err == nil:
						done = true
					case !errors.Is(err, context.Canceled) || rounds >= 6:
						t.Fatalf("round %d: %v", rounds, err)
					}
					nc.Close()
					wantWholeTransactions(t, open(t, connect(), cfg))
				}
				if rounds < min(4, n/500) {
					t.Errorf("only %d rounds", rounds)
				}
				wantCopy(t, from, open(t, connect(), cfg))
			})
		}
	})
}

// wantWholeTransactions checks that no transaction ends with the store.
func wantWholeTransactions(t *testing.T, s *jetstream.Store) {
	t.Helper()
	var last *jetstream.Commit
	for c, err := range every(t, s) {
		if err != nil {
			t.Fatal(err)
		}
		last = c
	}
	if last != nil && last.LastSequence() != last.Sequence {
		t.Errorf("the store ends with commit %d of %d of a transaction", last.Tx.Index, last.Tx.Count)
	}
}
