package archive_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// bank is a store with some commits, on a server of its own.
func bank(ctx context.Context) (store *jetstream.Store, stop func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	if store, err = jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"}); err != nil {
		log.Fatal(err)
	}
	var head jetstream.Head
	for range 100 {
		head, err = store.Append(ctx, jetstream.Write{Type: "account", ID: "a1", After: head, Decisions: []jetstream.Decision{{
			Events: []jetstream.EventData{{Name: "credited", Data: []byte("\x81\xa5cents\x05")}},
		}}})
		if err != nil {
			log.Fatal(err)
		}
	}
	return store, func() {
		nc.Close()
		_ = srv.Stop()
	}
}

func ExampleExportFile() {
	ctx := context.Background()
	store, stop := bank(ctx)
	defer stop()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	// Interrupted, it is called again, and completes the file.
	path := filepath.Join(dir, "bank.archive")
	end, err := archive.ExportFile(ctx, store, path, archive.Config{Compress: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(end.Commits, "commits")
	_, err = archive.ExportFile(ctx, store, path, archive.Config{Compress: true})
	fmt.Println("complete:", errors.Is(err, archive.ErrComplete))

	// The next archive goes on where this one ends.
	next, err := archive.ExportFile(ctx, store, filepath.Join(dir, "bank.2.archive"), archive.Config{After: end.Position})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(next.Commits, "more")
	// Output:
	// 100 commits
	// complete: true
	// 0 more
}

func ExampleImport() {
	ctx := context.Background()
	store, stop := bank(ctx)
	defer stop()
	f, err := os.CreateTemp("", "bank.archive")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	if _, err := archive.Export(ctx, store, f, archive.Config{}); err != nil {
		log.Fatal(err)
	}

	// The new store has twice as many partitions, and may be on another server.
	restored, err := jetstream.Open(ctx, store.Conn(), jetstream.Config{Name: "bank-2", Partitions: 128})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 { // the second time, everything is there
		if _, err := f.Seek(0, 0); err != nil {
			log.Fatal(err)
		}
		done, err := archive.Import(ctx, f, restored, archive.ImportConfig{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(done.Commits, "commits imported,", done.Present, "were there")
	}
	if _, err := f.Seek(0, 0); err != nil {
		log.Fatal(err)
	}
	report, err := archive.CompareArchive(ctx, f, restored, archive.CompareConfig{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("equal:", report.Equal(), report.Commits)
	// Output:
	// 100 commits imported, 0 were there
	// 0 commits imported, 100 were there
	// equal: true 100
}

func ExampleCopy() {
	ctx := context.Background()
	from, stop := bank(ctx)
	defer stop()
	to, err := jetstream.Open(ctx, from.Conn(), jetstream.Config{Name: "bank-2", Partitions: 128})
	if err != nil {
		log.Fatal(err)
	}
	// Once while the old store is in use, and once more when its writers have stopped.
	for range 2 {
		done, err := archive.Copy(ctx, from, to, archive.CopyConfig{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(done.Commits, "commits copied")
	}
	report, err := archive.Compare(ctx, from, to, archive.CompareConfig{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("equal:", report.Equal())

	last, err := from.LastPosition(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := to.CopyOf(ctx, last); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 100 commits copied
	// 0 commits copied
	// equal: true
}
