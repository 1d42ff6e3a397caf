package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// envelope is what a commit may carry beside its event, in bytes.
const envelope = 250

// bytesRow compares the size of a commit of one event, with state, with the
// event's own bytes and an allowance.
func bytesRow(ctx context.Context, e *env) (*result, error) {
	event, err := accountEvents.Encode(credited(someCredit), e.store.Codec())
	if err != nil {
		return nil, err
	}
	const aggregates = 10
	repo, _, err := e.commandSide(ctx, 0, aggregates)
	if err != nil {
		return nil, err
	}
	id := aggregateID(0)
	plain, err := e.capture(id)
	if err != nil {
		return nil, err
	}
	before, err := e.uncompressed(ctx, storeName)
	if err != nil {
		return nil, err
	}
	commits := e.scaled(20_000)
	for i := range commits {
		_, err := repo.Execute(ctx, aggregateID(i%aggregates), someCredit, aggregate.CommandID(jetstream.NewCommandID()))
		if err != nil {
			return nil, err
		}
	}
	after, err := e.uncompressed(ctx, storeName)
	if err != nil {
		return nil, err
	}
	msg, err := e.capture(id)
	if err != nil {
		return nil, err
	}
	if msg.Subject, err = e.store.Subject(accountEvents.Type(), id); err != nil {
		return nil, err
	}
	header := headerSize(msg.Header)
	wire := len(msg.Subject) + header + len(msg.Data)
	r := &result{unit: "B", ours: float64(wire), raw: float64(len(event.Data) + envelope)}
	r.notef("the ratio is ours over raw and must not exceed the target; raw is %d of the event and %d",
		len(event.Data), envelope)
	r.notef("on the wire: subject %d, headers %d, payload %d", len(msg.Subject), header, len(msg.Data))
	r.notef("without a command id: %d", len(msg.Subject)+headerSize(plain.Header)+len(plain.Data))
	disk := float64(after-before) / float64(commits)
	r.notef("on disk: %.0f bytes a commit, %.2f of raw", disk, disk/r.raw)
	if err := e.stopServer(); err != nil {
		return nil, err
	}
	files, err := sizeOf(filepath.Join(e.home, "jetstream"), storeName)
	if err != nil {
		return nil, err
	}
	r.notef("files of the stream: %.0f bytes a commit",
		float64(files)/float64(commits))
	return r, e.startServer(ctx)
}

// headerSize is a header as it goes over the wire.
func headerSize(h nats.Header) int {
	n := len("NATS/1.0\r\n\r\n")
	for k, values := range h {
		for _, v := range values {
			n += len(k) + len(": ") + len(v) + len("\r\n")
		}
	}
	return n
}

// sizeOf adds up the files below the stream's directory.
func sizeOf(dir, stream string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, string(filepath.Separator)+stream+string(filepath.Separator)) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("size of %s: %w", path, err)
		}
		total += info.Size()
		return nil
	})
	return total, err
}
