package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
)

// The streams that the two sides write to. Names of one length, so that subjects
// are, too.
const (
	storeName = "rossby"
	rawName   = "simple"
)

// env is a server in a process of its own, a store on it, and a stream of the same
// settings for the raw side.
type env struct {
	options

	row row

	home    string
	servers []*process
	url     string

	// nc is our side's connection, rawNC the other's.
	nc, rawNC *nats.Conn
	store     *jetstream.Store
	js        natsjs.JetStream
}

func newEnv(ctx context.Context, o options, w row) (_ *env, err error) {
	e := &env{options: o, row: w}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if e.home, err = os.MkdirTemp(o.dir, "rossby-bench-"); err != nil {
		return nil, err
	}
	if err := e.startServer(ctx); err != nil {
		return nil, err
	}
	stream, err := e.js.Stream(ctx, storeName)
	if err != nil {
		return nil, err
	}
	cfg := stream.CachedInfo().Config
	cfg.Name, cfg.Subjects = rawName, []string{rawName + ".event.>"}
	if _, err := e.js.CreateStream(ctx, cfg); err != nil {
		return nil, err
	}
	// The store's first message is its genesis: the other stream has one, too.
	_, err = e.js.Publish(ctx, rawName+".event._store.0.genesis", nil)
	return e, err
}

// startServer starts the server, connects both sides and opens the store.
func (e *env) startServer(ctx context.Context) (err error) {
	if e.row.replicas > 1 {
		err = e.startCluster(ctx)
	} else {
		err = e.startAlone(ctx)
	}
	if err != nil {
		return err
	}
	if e.nc, err = jetstream.Connect(ctx, jetstream.ConnectConfig{URL: e.url, Wait: time.Minute}); err != nil {
		return err
	}
	if e.rawNC, err = nats.Connect(e.url, nats.Timeout(time.Minute)); err != nil {
		return err
	}
	if e.js, err = natsjs.New(e.rawNC); err != nil {
		return err
	}
	e.store, err = jetstream.Open(ctx, e.nc, jetstream.Config{Name: storeName, Replicas: e.row.replicas})
	return err
}

func (e *env) startAlone(ctx context.Context) error {
	p, err := start(ctx, "server", e.home, fsyncArg(e.row.fsync))
	if err != nil {
		return err
	}
	e.servers = append(e.servers, p)
	e.url, err = p.line()
	return err
}

func (e *env) stopServer() (err error) {
	for _, nc := range []*nats.Conn{e.nc, e.rawNC} {
		if nc != nil {
			nc.Close()
		}
	}
	for _, p := range e.servers {
		err = errors.Join(err, p.stop())
	}
	e.nc, e.rawNC, e.servers = nil, nil, nil
	return err
}

func (e *env) close() error {
	err := e.stopServer()
	if e.home != "" {
		err = errors.Join(err, os.RemoveAll(e.home))
	}
	return err
}

// plan is a row's usual amount of work, or a very small one.
func (e *env) plan(slices, ops int) plan {
	if e.short {
		return plan{slices: 3, ops: min(ops, 20)}
	}
	return plan{slices: slices, ops: ops}
}

// scaled is n, or a hundredth of it.
func (e *env) scaled(n int) int {
	if e.short {
		return max(n/100, 50)
	}
	return n
}

// aggregateID names the i-th aggregate as our ids look: 26 characters.
func aggregateID(i int) string { return fmt.Sprintf("01k6%022d", i) }

// subjects are those of the first n aggregates on the stream.
func (e *env) subjects(stream string, n int) []string {
	out := make([]string, n)
	for i := range out {
		id := aggregateID(i)
		partition := strconv.Itoa(jetstream.Partition(id, e.store.Partitions()))
		out[i] = stream + ".event." + accountEvents.Type() + "." + partition + "." + id
	}
	return out
}

// capture is the last message on a subject of the store as it was published,
// without its subject.
func (e *env) capture(id string) (*nats.Msg, error) {
	subject, err := e.store.Subject(accountEvents.Type(), id)
	if err != nil {
		return nil, err
	}
	msg, err := e.rawNC.Request("$JS.API.DIRECT.GET."+storeName+"."+subject, nil, time.Minute)
	if err != nil {
		return nil, err
	}
	for _, added := range []string{nats.JSStream, nats.JSSubject, nats.JSSequence, nats.JSTimeStamp} {
		delete(msg.Header, added)
	}
	if msg.Header.Get("Rossby-Commit") == "" {
		return nil, fmt.Errorf("%s holds no commit: %v", subject, msg.Header)
	}
	return &nats.Msg{Header: msg.Header, Data: msg.Data}, nil
}

// rawWriter publishes one message again and again with nats.go, each time
// expecting what stands on its subject.
type rawWriter struct {
	js       natsjs.JetStream
	messages []*nats.Msg
	last     []uint64
}

func (e *env) rawWriter(message *nats.Msg, aggregates int) *rawWriter {
	w := &rawWriter{js: e.js, last: make([]uint64, aggregates)}
	for _, subject := range e.subjects(rawName, aggregates) {
		w.messages = append(w.messages, &nats.Msg{Subject: subject, Header: maps.Clone(message.Header), Data: message.Data})
	}
	return w
}

// publish appends to the i-th subject. Two writers need two subjects.
func (w *rawWriter) publish(ctx context.Context, i int) error {
	for {
		ack, err := w.js.PublishMsg(ctx, w.messages[i], natsjs.WithExpectLastSequencePerSubject(w.last[i]))
		if err == nil {
			w.last[i] = ack.Sequence
			return nil
		}
		// Replicated streams refuse for now what is written to a subject while they
		// change leaders: ours waits for that, too.
		api, ok := errors.AsType[*natsjs.APIError](err)
		if !ok || api.ErrorCode != natsjs.JSErrCodeStreamWrongLastSequenceConstant || ctx.Err() != nil {
			return err
		}
	}
}

// directGet is a stream's last message on a subject, as bytes.
func directGet(nc *nats.Conn, stream, subject string) (*nats.Msg, error) {
	msg, err := nc.Request("$JS.API.DIRECT.GET."+stream+"."+subject, nil, time.Minute)
	if err == nil && msg.Header.Get("Status") != "" {
		return nil, fmt.Errorf("direct get of %s: %s", subject, msg.Header.Get("Description"))
	}
	return msg, err
}

// uncompressed is what the stream's messages take on disk before compression.
func (e *env) uncompressed(ctx context.Context, stream string) (uint64, error) {
	s, err := e.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Bytes, nil
}
