package compat_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/golden"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// What format 1 has left: the whole store of a server of the oldest version, with
// its views and followers, and an archive of it. They are never written again: a
// new format gets files of its own.
const (
	firstStore   = "testdata/format-1.tar.gz"
	firstArchive = "testdata/format-1.archive"
)

// TestFirstFormat: what format 1 has stored is opened, verified, loaded, followed
// and imported by this version, and written on.
func TestFirstFormat(t *testing.T) {
	t.Parallel()
	if golden.Update() {
		writeFirstFormat(t)
	}
	dir := t.TempDir()
	unpack(t, firstStore, dir)
	w := newWorkload(t, versions["Newest"].start(t, dir, 1), 1)
	w.verifies()
	for id, want := range map[string]account{"a0": {Owner: "ada", Cents: 6}, "x": {Owner: "x", Cents: 1}, "y": {Owner: "y"}} {
		loaded, err := w.repo.Load(w.ctx, id)
		if err != nil || loaded.State != want {
			t.Errorf("%s: %+v, %v", id, loaded, err)
		}
		n := uint64(0)
		for e, err := range w.repo.History(w.ctx, id) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; e.Version != n {
				t.Errorf("%s: version %d is number %d", id, e.Version, n)
			}
		}
		if n != loaded.Version {
			t.Errorf("%s: %d events, version %d", id, n, loaded.Version)
		}
	}
	owner, err := w.store.Owner(w.ctx, jetstream.Key{Name: "email", Value: "ada@example.com"})
	if err != nil || owner.ID != "k1" {
		t.Errorf("the unique key: %+v, %v", owner, err)
	}
	w.view(account{Owner: "ada", Cents: 6})
	if _, err := w.repo.Execute(w.ctx, "a0", credit{Cents: 4}); err != nil {
		t.Fatal(err)
	}
	w.view(account{Owner: "ada", Cents: 10})

	data, err := os.ReadFile(firstArchive)
	if err != nil {
		t.Fatal(err)
	}
	to, err := jetstream.Open(w.ctx, w.store.Conn(), jetstream.Config{Name: "imported"})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := archive.Import(w.ctx, bytes.NewReader(data), to, archive.ImportConfig{}); err != nil || p.Commits == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	last, err := to.Last(w.ctx, "account", "a0", jetstream.Leader)
	if err != nil || last.Version != 5 {
		t.Errorf("%+v, %v", last, err)
	}
}

func writeFirstFormat(t *testing.T) {
	t.Helper()
	if jetstream.FormatVersion != 1 {
		t.Fatalf("this version writes format %d", jetstream.FormatVersion)
	}
	dir := t.TempDir()
	old := versions["Oldest"].start(t, dir, 1)
	w := newWorkload(t, old, 1)
	w.appends()
	w.commands()
	w.view(account{Owner: "ada", Cents: 6})
	var file bytes.Buffer
	if _, err := archive.Export(w.ctx, w.store, &file, archive.Config{}); err != nil {
		t.Fatal(err)
	}
	w.end()
	old.stop()
	if err := os.WriteFile(firstArchive, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	pack(t, dir, firstStore)
}

func pack(t *testing.T, dir, path string) {
	t.Helper()
	var file bytes.Buffer
	z := gzip.NewWriter(&file)
	out := tar.NewWriter(z)
	if err := errors.Join(out.AddFS(os.DirFS(dir)), out.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, path, dir string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeDir {
			err = root.MkdirAll(name, 0o750)
		} else {
			var data []byte
			if data, err = io.ReadAll(in); err == nil {
				err = errors.Join(root.MkdirAll(filepath.Dir(name), 0o750), root.WriteFile(name, data, 0o600))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
