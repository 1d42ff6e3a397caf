package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/torture/check"
	"github.com/rossby-go/rossby/test/torture/rig"
)

// target is one way to an account: a repository, or a client of the services.
type target interface {
	Execute(ctx context.Context, id string, command any, opts ...aggregate.CallOption) (aggregate.Result, error)
	Create(ctx context.Context, id string, command any, opts ...aggregate.CallOption) (aggregate.Result, error)
}

// The ways: two repositories that do not know of each other, and the wire.
const (
	pathA    = "a"
	pathB    = "b"
	pathWire = "wire"
)

// writers are the clients in this process.
type writers struct {
	*history

	conns  []*nats.Conn
	stores map[string]*jetstream.Store
	repos  map[string]*aggregate.Repository[state]
	paths  map[string]target
	reader *projection.Reader[check.Row]

	mu       sync.Mutex
	versions map[string]uint64 // the newest that was acknowledged
	serial   int
}

func newWriters(ctx context.Context, h *history, proxies []*rig.Proxy, store string, replicas int) (*writers, error) {
	w := &writers{
		history: h, stores: map[string]*jetstream.Store{}, repos: map[string]*aggregate.Repository[state]{},
		paths: map[string]target{}, versions: map[string]uint64{},
	}
	quiet := slog.New(slog.DiscardHandler)
	for i, name := range []string{pathA, pathB} {
		nc, err := connect(ctx, "torture-"+name, rig.URL(proxies, i), quiet)
		if err != nil {
			return nil, err
		}
		w.conns = append(w.conns, nc)
		if w.stores[name], err = openStore(ctx, nc, store, replicas); err != nil {
			return nil, err
		}
		if w.repos[name], err = aggregate.NewRepository(w.stores[name], accountType, aggregate.RepositoryConfig{
			Logger: quiet,
		}); err != nil {
			return nil, err
		}
		w.paths[name] = w.repos[name]
	}
	client, err := aggregate.NewClient(w.conns[0], store, accountType, aggregate.ClientConfig{AttemptTimeout: time.Second})
	if err != nil {
		return nil, err
	}
	w.paths[pathWire] = client
	return w, nil
}

func (w *writers) close() {
	for _, nc := range w.conns {
		nc.Close()
	}
}

// openReader opens the view that is asked while the load runs.
func (w *writers) openReader(ctx context.Context, store string) (err error) {
	w.reader, err = projection.NewReader[check.Row](ctx, w.conns[1], store, accountsView, projection.ReaderConfig{
		OpenWait: time.Minute,
	})
	return err
}

// tag is a name that no other operation has.
func (w *writers) tag(kind string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serial++
	return fmt.Sprintf("%s-%d", kind, w.serial)
}

const (
	attemptFor = 3 * time.Second
	// patience bounds a command that is repeated with its id.
	patience = 12 * time.Second
)

// outcomeOf is what a command's error says.
func outcomeOf(err error) check.Outcome {
	_, version := errors.AsType[*aggregate.VersionError](err)
	_, refused := errors.AsType[*jetstream.RefusedError](err)
	switch {
	case err == nil:
		return check.OK
	case version:
		return check.Conflict
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		return check.Unknown
	case errors.Is(err, aggregate.ErrRejected):
		return check.Rejected
	case errors.Is(err, aggregate.ErrNotFound):
		return check.NotFound
	case errors.Is(err, aggregate.ErrExists):
		return check.Exists
	case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, aggregate.ErrBusy),
		errors.Is(err, aggregate.ErrContended), refused:
		return check.Failed
	}
	return check.Unknown
}

// alarming tells errors that no fault which the configuration bears may lead to.
func alarming(err error) bool {
	return errors.Is(err, jetstream.ErrStoreWentBack) || errors.Is(err, jetstream.ErrDamaged) ||
		errors.Is(err, jetstream.ErrFormat) || errors.Is(err, aggregate.ErrOtherPayload)
}

// command makes an operation's command. To is the account that is paid, or the name
// that is claimed.
func command(o *check.Op, to string) any {
	switch o.Kind {
	case check.Open:
		return openAccount{o.Amount, o.Tag}
	case check.Deposit:
		return deposit{o.Amount, o.Tag}
	case check.Twice:
		return twice{o.Amount, o.Tag}
	case check.Withdraw:
		return withdraw{o.Amount, o.Tag, to}
	case check.Claim:
		return claim{to, o.Tag}
	case check.Touch, check.Read:
	}
	return touch{o.Tag}
}

// times is how many events an operation makes.
func times(k check.Kind) int {
	switch k {
	case check.Twice:
		return 2
	case check.Touch, check.Read:
		return 0
	case check.Open, check.Deposit, check.Withdraw, check.Claim:
	}
	return 1
}

// execute runs an operation to its end: one with an id is sent again, by whichever
// way, until it is known. What came of it is noted.
func (w *writers) execute(ctx context.Context, rng *rand.Rand, o check.Op, to string) check.Op {
	cmd := command(&o, to)
	opts := options(&o)
	o.Call = w.now()
	deadline := time.Now().Add(patience)
	open := false
	for {
		once, cancel := context.WithTimeout(ctx, attemptFor)
		var res aggregate.Result
		var err error
		if o.Kind == check.Open {
			res, err = w.paths[o.Path].Create(once, o.Account, cmd, opts...)
		} else {
			res, err = w.paths[o.Path].Execute(once, o.Account, cmd, opts...)
		}
		cancel()
		if alarming(err) {
			w.alarm(fmt.Sprintf("%s %s by %s: %v", o.Kind, o.Account, o.Path, err))
		}
		o.Outcome = outcomeOf(err)
		if err != nil {
			o.Error = err.Error()
		} else {
			o.Error, o.Version, o.Position = "", res.Version, res.Position.String()
			break
		}
		if o.Outcome == check.Unknown && !open {
			// What is still on its way must find the outcome that we get now.
			open, opts = true, append(opts, aggregate.RecordRejections())
		}
		if o.Outcome != check.Unknown && o.Outcome != check.Failed {
			break
		}
		if o.ID == "" || ctx.Err() != nil || time.Now().After(deadline) {
			break
		}
		o.Path = []string{pathA, pathB, pathWire}[rng.IntN(3)]
	}
	if open && o.Outcome == check.Failed {
		o.Outcome = check.Unknown // one of the attempts may have done it
	}
	o.Return = w.now()
	w.noted(&o)
	return o
}

func options(o *check.Op) []aggregate.CallOption {
	var opts []aggregate.CallOption
	if o.ID != "" {
		opts = append(opts, aggregate.CommandID(o.ID))
	}
	if o.Expect != nil {
		opts = append(opts, aggregate.ExpectVersion(*o.Expect))
	}
	if o.Exact {
		opts = append(opts, aggregate.RecordRejections())
	}
	return opts
}

// noted keeps what an operation means for the store as a set, and the newest
// version.
func (w *writers) noted(o *check.Op) {
	if n := times(o.Kind); n > 0 {
		e := check.Element{Tag: o.Tag, Outcome: o.Outcome, Times: n}
		if p, err := jetstream.ParsePosition(o.Position); err == nil && !p.IsZero() {
			e.Sequence, _ = w.stores[pathA].Sequence(p)
		}
		w.element(e)
	}
	if o.Outcome == check.OK {
		w.mu.Lock()
		w.versions[o.Account] = max(w.versions[o.Account], o.Version)
		w.mu.Unlock()
	}
}

// read loads an account.
func (w *writers) read(ctx context.Context, o check.Op) check.Op {
	if o.Path == pathWire {
		o.Path = pathA // the services answer commands only
	}
	o.Call = w.now()
	once, cancel := context.WithTimeout(ctx, attemptFor)
	snap, err := w.repos[o.Path].Load(once, o.Account)
	cancel()
	o.Return = w.now()
	if alarming(err) {
		w.alarm(fmt.Sprintf("load %s by %s: %v", o.Account, o.Path, err))
	}
	switch {
	case err == nil:
		o.Outcome, o.Version, o.Balance, o.HasBalance = check.OK, snap.Version, snap.State.Cents, true
	case errors.Is(err, aggregate.ErrNotFound):
		o.Outcome = check.NotFound
	default:
		o.Outcome, o.Error = check.Failed, err.Error()
	}
	return o
}

// look reads the view, which must show at least what an operation has done.
func (w *writers) look(ctx context.Context, o *check.Op) {
	p, err := jetstream.ParsePosition(o.Position)
	if err != nil || p.IsZero() {
		return
	}
	once, cancel := context.WithTimeout(ctx, attemptFor)
	defer cancel()
	e, err := w.reader.Get(once, o.Account, projection.AtLeast(p))
	w.view(err == nil)
	if err == nil && e.Value.Events < o.Version || errors.Is(err, projection.ErrNotFound) {
		w.alarm(fmt.Sprintf("view of %s at least at %s: %d events, the command made version %d (%v)",
			o.Account, o.Position, e.Value.Events, o.Version, err))
	}
}
