package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// Archives hold some commits of some aggregates, in no order.
const (
	archiveCommits    = 20_000
	archiveAggregates = 2_000
)

// archived fills the store and returns how many commits it has.
func (e *env) archived(ctx context.Context) (int, error) {
	if _, err := e.fill(ctx, e.scaled(archiveCommits), e.scaled(archiveAggregates)); err != nil {
		return 0, err
	}
	last, err := e.store.LastSequence(ctx)
	return int(last) - 1, err //nolint:gosec // a small number, without the genesis
}

// exportRow writes the store into a file; raw reads the stream with an ordered
// consumer and writes what it gets.
func exportRow(ctx context.Context, e *env) (*result, error) {
	n, err := e.archived(ctx)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(e.home, "export")
	var last archive.End
	side := func(cfg archive.Config) func(context.Context, int) (time.Duration, error) {
		return func(ctx context.Context, ops int) (time.Duration, error) {
			_ = os.Remove(path)
			begin := time.Now()
			end, err := archive.ExportFile(ctx, e.store, path, cfg)
			if err == nil && end.Commits != uint64(ops) { //nolint:gosec // a count
				err = fmt.Errorf("exported %d of %d commits", end.Commits, ops)
			}
			last = end
			return time.Since(begin), err
		}
	}
	p := e.plan(12, n)
	p.ops, p.cold = n, true
	r, err := measure(ctx, e, p,
		contender{"ours", side(archive.Config{})},
		contender{"raw", func(ctx context.Context, ops int) (time.Duration, error) {
			begin := time.Now()
			err := e.rawExport(ctx, path, ops)
			return time.Since(begin), err
		}},
		contender{"compressed", side(archive.Config{Compress: true})})
	if err != nil || e.only != "" {
		return r, err
	}
	r.rate = true
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	r.notef("%d commits of %d bytes of payload each; the last file has %.1f MB",
		last.Commits, last.Bytes/max(last.Commits, 1), float64(info.Size())/1e6)
	return r, nil
}

// rawExport writes headers and payloads of a stream as they come.
func (e *env) rawExport(ctx context.Context, path string, commits int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	w := bufio.NewWriterSize(f, 256<<10)
	cons, err := e.js.OrderedConsumer(ctx, storeName, natsjs.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	n := 0
	cc, err := cons.Consume(func(m natsjs.Msg) {
		meta, err := m.Metadata()
		if err == nil {
			_, err = fmt.Fprintf(w, "%d %d %s ", meta.Sequence.Stream, meta.Timestamp.UnixNano(), m.Subject())
		}
		for name, values := range m.Headers() {
			_, _ = io.WriteString(w, name)
			_, _ = io.WriteString(w, strings.Join(values, ","))
		}
		_, _ = w.Write(m.Data())
		if n++; err != nil || n == commits+1 { // and the genesis
			select {
			case failed <- err:
			default:
			}
		}
	}, natsjs.PullMaxMessages(window))
	if err != nil {
		return err
	}
	defer cc.Stop()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, w.Flush())
}

// importRow appends an archive to a new store; raw publishes the same messages to a
// new stream without waiting for each.
func importRow(ctx context.Context, e *env) (*result, error) {
	n, err := e.archived(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := archive.Export(ctx, e.store, &b, archive.Config{}); err != nil {
		return nil, err
	}
	made := 0
	name := func() string { made++; return "copy-" + strconv.Itoa(made) }
	p := e.plan(12, n)
	p.ops, p.cold = n, true
	r, err := measure(ctx, e, p,
		contender{"ours", func(ctx context.Context, ops int) (time.Duration, error) {
			to, err := jetstream.Open(ctx, e.nc, jetstream.Config{Name: name()})
			if err != nil {
				return 0, err
			}
			begin := time.Now()
			done, err := archive.Import(ctx, bytes.NewReader(b.Bytes()), to, archive.ImportConfig{})
			if err == nil && done.Commits != uint64(ops) { //nolint:gosec // a count
				err = fmt.Errorf("imported %d of %d commits", done.Commits, ops)
			}
			return time.Since(begin), errors.Join(err, e.js.DeleteStream(ctx, to.Name()))
		}},
		contender{"raw", func(ctx context.Context, ops int) (time.Duration, error) {
			stream := name()
			messages, err := e.republished(ctx, b.Bytes(), stream)
			if err != nil {
				return 0, err
			}
			begin := time.Now()
			err = e.publishAll(ctx, messages)
			d := time.Since(begin)
			s, err2 := e.js.Stream(ctx, stream)
			if err = errors.Join(err, err2); err == nil && s.CachedInfo().State.Msgs != uint64(ops) { //nolint:gosec // a count
				err = fmt.Errorf("published %d of %d messages", s.CachedInfo().State.Msgs, ops)
			}
			return d, errors.Join(err, e.js.DeleteStream(ctx, stream))
		}})
	if err != nil || e.only != "" {
		return r, err
	}
	r.rate = true
	r.notef("an archive of %.1f MB in memory", float64(b.Len())/1e6)
	return r, nil
}

// republished are the archive's messages, ready for a new stream, which it makes.
func (e *env) republished(ctx context.Context, b []byte, stream string) ([]*nats.Msg, error) {
	s, err := e.js.Stream(ctx, storeName)
	if err != nil {
		return nil, err
	}
	cfg := s.CachedInfo().Config
	cfg.Name, cfg.Subjects = stream, []string{stream + ".event.>"}
	if _, err := e.js.CreateStream(ctx, cfg); err != nil {
		return nil, err
	}
	r, err := archive.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var out []*nats.Msg
	for m, err := range r.Messages() {
		if err != nil {
			return nil, err
		}
		h := maps.Clone(m.Header)
		// The genesis is not there, so everything stands one place before.
		if seq, err := strconv.ParseUint(h.Get(nats.ExpectedLastSubjSeqHdr), 10, 64); err == nil && seq > 0 {
			h[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(seq-1, 10)}
		}
		out = append(out, &nats.Msg{Subject: stream + strings.TrimPrefix(m.Subject, storeName), Header: h, Data: m.Data})
	}
	return out, nil
}

func (e *env) publishAll(ctx context.Context, messages []*nats.Msg) error {
	acks := make([]natsjs.PubAckFuture, 0, len(messages))
	for _, m := range messages {
		ack, err := e.js.PublishMsgAsync(m)
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
