package archive_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// TestExportFileOfAStoreThatWentBack: a file that is damaged, or was not completed,
// is left as it is when the store has lost what belongs there. It may be all that is
// left of it.
func TestExportFileOfAStoreThatWentBack(t *testing.T) {
	t.Parallel()
	dir, backup, name := t.TempDir(), t.TempDir(), natstest.Name(t)
	// run opens the store on a server of its own, which it stops.
	run := func(f func(s *jetstream.Store)) {
		srv, err := embedded.Start(embedded.Config{
			Listen: "127.0.0.1:0", StoreDir: dir, LazySync: true, ReadyTimeout: natstest.Patience,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := srv.Stop(); err != nil {
				t.Error(err)
			}
		}()
		f(open(t, natstest.Conn(t, srv.URL()), jetstream.Config{Name: name}))
	}
	path := filepath.Join(t.TempDir(), "file")
	export := func(s *jetstream.Store) error {
		_, err := archive.ExportFile(t.Context(), s, path, archive.Config{})
		return err
	}
	var f *filler
	run(func(s *jetstream.Store) { f = fill(t, s, 800) })
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	run(func(s *jetstream.Store) {
		f.store = s
		f.fill(800)
		if err := export(s); err != nil {
			t.Fatal(err)
		}
	})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	parts := frames(t, whole)
	damaged := bytes.Clone(whole)
	damaged[len(parts[0])+len(parts[1])+len(parts[2])/2] ^= 1
	run(func(s *jetstream.Store) {
		for what, begin := range map[string][]byte{
			"damaged where the store has what belongs there": damaged,
			"not completed, where the store has lost it":     whole[:len(whole)-1],
			"not completed, where the store has it":          whole[:len(parts[0])+len(parts[1])+len(parts[2])+5],
		} {
			if err := os.WriteFile(path, begin, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := export(s); !errors.Is(err, jetstream.ErrStoreWentBack) {
				t.Errorf("%s: %v", what, err)
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, begin) {
				t.Errorf("%s: the file was touched", what)
			}
		}
	})
}
