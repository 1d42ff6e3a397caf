package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/wire"
)

// Store is an open event store. It holds no resources of its own: closing the
// connection ends it. It is safe for concurrent use.
type Store struct {
	nc         *nats.Conn
	name       string
	id         string
	prefix     string
	partitions int
	codec      Codec
	replicas   int
	attempt    time.Duration
	timeout    time.Duration
	horizon    *horizon
	keys       *keyring
	batches    chan struct{} // a place for each transaction under way
}

// maxBatches is how many transactions a store has under way: the server takes 50,
// of all programs together, and on one server does them one by one anyway.
const maxBatches = 16

const genesisSuffix = ".event._store.0.genesis"

// genesis is the store's first message. The stream's metadata is a copy of it
// for people; metadata can be edited, the genesis cannot.
type genesis struct {
	Store      string `json:"store"`
	Format     int    `json:"format"`
	Partitions int    `json:"partitions"`
	Codec      string `json:"codec"`
}

const adviceForeign = "the stream was not made by Rossby; choose another store name"

// genesisOf reads back what metadata wrote.
func genesisOf(cfg Config, metadata map[string]string) (genesis, error) {
	g := genesis{Store: metadata["rossby.store"], Codec: metadata["rossby.codec"]}
	var err1, err2 error
	g.Format, err1 = strconv.Atoi(metadata["rossby.format"])
	g.Partitions, err2 = strconv.Atoi(metadata["rossby.partitions"])
	if g.Store == "" || g.Codec == "" || err1 != nil || err2 != nil || g.Partitions < 1 {
		return genesis{}, &SettingsError{
			Store: cfg.Name, Field: "metadata", Want: "Rossby's", Got: fmt.Sprint(metadata), Advice: adviceForeign,
		}
	}
	return g, nil
}

func (g genesis) metadata() map[string]string {
	return map[string]string{
		"rossby.store": g.Store, "rossby.format": strconv.Itoa(g.Format),
		"rossby.partitions": strconv.Itoa(g.Partitions), "rossby.codec": g.Codec,
	}
}

// Open opens a store and makes it when it does not exist. The connection should
// come from [Connect]: appends need one that does not buffer while it is
// disconnected.
//
// Returns [ErrNoJetStream], [ErrServerTooOld], [ErrUnavailable] when NATS did not answer
// before ctx ended or [Config.AppendTimeout] was over, an [*InvalidError], a
// [*PermissionError], a [*DurabilityError], a [*StoreLostError] for a store of which
// only other streams are left, or a [*SettingsError] for each difference between the
// store and cfg, or between the stream and what keeps commits safe.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return open(ctx, nc, cfg, true)
}

// Attach opens a store that somebody else makes, with the settings it has: for
// views, queries and gateways. Errors are those of [Open], and [ErrStoreNotFound].
func Attach(ctx context.Context, nc *nats.Conn, name string) (*Store, error) {
	if err := ValidateName("store name", name); err != nil {
		return nil, err
	}
	return open(ctx, nc, Config{Name: name}, false)
}

func open(ctx context.Context, nc *nats.Conn, cfg Config, create bool) (*Store, error) {
	asked := cfg
	cfg = cfg.withDefaults()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.AppendTimeout)
		defer cancel()
	}
	if err := checkServer(ctx, nc); err != nil {
		return nil, fmt.Errorf("open store %q: %w", cfg.Name, err)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", cfg.Name, err)
	}
	info, err := findStream(ctx, js, cfg, create)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", cfg.Name, err)
	}
	live := info.Config
	if err := checkStream(asked, live); err != nil {
		return nil, errors.Join(err, checkGenesis(ctx, nc, cfg, create, info))
	}
	g, err := readGenesis(ctx, nc, cfg, create, info)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", cfg.Name, err)
	}
	if err := g.check(cfg, create, live.Metadata); err != nil {
		return nil, err
	}
	cdc, err := codec.Parse(g.Codec)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", cfg.Name, err)
	}
	s := &Store{
		nc: nc, name: cfg.Name, id: g.Store, prefix: cfg.Name + ".event.", partitions: g.Partitions,
		codec: cdc, replicas: live.Replicas, attempt: cfg.AttemptTimeout, timeout: cfg.AppendTimeout,
		keys: new(keyring), batches: make(chan struct{}, maxBatches),
		horizon: new(horizon),
	}
	if cfg.RequireDurability > DurabilityUnknown {
		if err := s.requireDurability(ctx, cfg); err != nil {
			return nil, fmt.Errorf("open store %q: %w", cfg.Name, err)
		}
	}
	return s, nil
}

// findStream returns the store's stream and makes it when that is asked for.
// Errors of servers that are about to elect a leader are waited for.
func findStream(ctx context.Context, js natsjs.JetStream, cfg Config, create bool) (*natsjs.StreamInfo, error) {
	for i, wait := 0, newBackoff(); ; i++ {
		attempt, cancel := openAttempt(ctx, cfg, i)
		var stream natsjs.Stream
		err := wire.API(attempt, js.Conn(), cfg.Name, func(attempt context.Context) (err error) {
			stream, err = js.Stream(attempt, cfg.Name)
			if errors.Is(err, natsjs.ErrStreamNotFound) && create {
				if err := checkNew(attempt, js, cfg.Name); err != nil {
					return err
				}
				wanted := genesis{
					Store: newStoreID(), Format: FormatVersion, Codec: cfg.Codec.String(),
					Partitions: cmp.Or(cfg.Partitions, PartitionsDefault),
				}
				stream, err = js.CreateStream(attempt, streamConfig(cfg, wanted))
			}
			return err
		})
		cancel()
		if err == nil {
			info := stream.CachedInfo()
			if info.Cluster == nil || info.Cluster.Leader != "" {
				return info, nil
			}
			err = wire.ErrNoLeader // any replica answers then, with what it has
		}
		api, refused := errors.AsType[*natsjs.APIError](err)
		_, lost := errors.AsType[*StoreLostError](err)
		switch {
		case lost:
			return nil, err
		case errors.Is(err, natsjs.ErrStreamNotFound):
			return nil, fmt.Errorf("%w: start a command-side program first, which makes it with jetstream.Open",
				ErrStoreNotFound)
		case errors.Is(err, natsjs.ErrStreamNameAlreadyInUse):
			// Another program has made it meanwhile: look again.
		case refused && !transient(int(api.ErrorCode)):
			return nil, err
		case !refused && ctx.Err() == nil && !retryable(err):
			return nil, err
		}
		if stop := wait.next(ctx); stop != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(stop, err))
		}
	}
}

// openAttempt bounds the i-th attempt: a stream that is about to get its first
// leader answers nothing, so the first attempts are short.
func openAttempt(ctx context.Context, cfg Config, i int) (context.Context, context.CancelFunc) {
	const first, doublings = 200 * time.Millisecond, 8
	return context.WithTimeout(ctx, min(first<<min(i, doublings), cfg.AttemptTimeout))
}

// retryable tells errors without an answer of the server.
func retryable(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, wire.ErrNoLeader) || unsent(err)
}

// checkServer finds servers that lack what Rossby needs before the first commit
// does.
func checkServer(ctx context.Context, nc *nats.Conn) error {
	version := nc.ConnectedServerVersion()
	if version == "" {
		return fmt.Errorf("%w: the connection is %s", ErrUnavailable, nc.Status())
	}
	if older(version, OldestServer) {
		return fmt.Errorf("%w: %s is version %s, Rossby needs %s or newer: upgrade it",
			ErrServerTooOld, nc.ConnectedUrlRedacted(), version, OldestServer)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, AppendTimeoutDefault)
		defer cancel()
	}
	for i, wait := 0, newBackoff(); ; i++ {
		// A cluster that has no leader yet does not answer, and after a while says so.
		attempt, cancel := openAttempt(ctx, Config{AttemptTimeout: AttemptTimeoutDefault}, i)
		err = wire.API(attempt, nc, "", func(ctx context.Context) error {
			_, err := js.AccountInfo(ctx)
			return err
		})
		cancel()
		api, refused := errors.AsType[*natsjs.APIError](err)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, natsjs.ErrJetStreamNotEnabled), errors.Is(err, natsjs.ErrJetStreamNotEnabledForAccount),
			errors.Is(err, nats.ErrNoResponders):
			return fmt.Errorf("%w at %s: start nats-server with -js, or enable JetStream for the account",
				ErrNoJetStream, nc.ConnectedUrlRedacted())
		case wire.Denied(err), refused && !transient(int(api.ErrorCode)), !refused && ctx.Err() == nil && !retryable(err):
			return err
		}
		if stop := wait.next(ctx); stop != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(stop, err))
		}
	}
}

// older compares the first three numbers of two versions.
func older(version, than string) bool {
	a, b := numbers(version), numbers(than)
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func numbers(version string) (n [3]int) {
	core, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	for i, part := range strings.SplitN(core, ".", 3) {
		n[i], _ = strconv.Atoi(part)
	}
	return n
}

// readGenesis returns the store's genesis and, with create, writes it first into
// an empty stream. What it writes is what the stream's metadata says, so it does
// not matter which of several programs made the stream and which writes first.
func readGenesis(
	ctx context.Context, nc *nats.Conn, cfg Config, create bool, info *natsjs.StreamInfo,
) (genesis, error) {
	subject := cfg.Name + genesisSuffix
	wanted, err := genesisOf(cfg, info.Config.Metadata)
	last := info.State.LastSeq
	if last == 0 && err == nil {
		err = wanted.check(cfg, create, info.Config.Metadata)
	}
	if last == 0 && err != nil {
		return genesis{}, err
	}
	for i, wait := 0, newBackoff(); ; i++ {
		attempt, cancel := openAttempt(ctx, cfg, i)
		m, err := wire.LeaderLast(attempt, nc, cfg.Name, subject)
		cancel()
		switch {
		case err == nil:
			var g genesis
			if err := json.Unmarshal(m.Data, &g); err != nil || g.Store == "" || g.Partitions < 1 {
				return genesis{}, &FormatError{Subject: m.Subject, Sequence: m.Sequence, Reason: "not a genesis", Cause: err}
			}
			return g, nil
		case wire.Denied(err):
			return genesis{}, err
		case errors.Is(err, wire.ErrNotFound) && last > 0:
			return genesis{}, &SettingsError{
				Store: cfg.Name, Field: "first message", Want: "Rossby's genesis", Got: "something else", Advice: adviceForeign,
			}
		case errors.Is(err, wire.ErrNotFound) && create:
			body, err := json.Marshal(wanted)
			if err != nil {
				return genesis{}, err
			}
			msg := wire.Expect(nats.NewMsg(subject), 0)
			msg.Header[headerFormat] = []string{formatText}
			msg.Header[headerContentType] = []string{JSON.ContentType()}
			msg.Data = body
			attempt, cancel := openAttempt(ctx, cfg, i)
			_, err = wire.Publish(attempt, nc, msg)
			cancel()
			if wire.Denied(err) {
				return genesis{}, err
			}
			if number := wire.Number(err); number != 0 && !wire.IsWrongLastSequence(err) && !transient(number) {
				return genesis{}, err
			}
			if err == nil {
				continue // Read it back: the leader has it.
			}
		}
		if err := wait.next(ctx); err != nil {
			return genesis{}, fmt.Errorf("%w: the store's first message could not be read or written: %w", ErrUnavailable, err)
		}
	}
}

// checkGenesis names what else is wrong with a store that is not opened anyway. It
// changes nothing, and what cannot be read now is not a fault.
func checkGenesis(ctx context.Context, nc *nats.Conn, cfg Config, create bool, info *natsjs.StreamInfo) error {
	g, err := genesisOf(cfg, info.Config.Metadata)
	if info.State.LastSeq > 0 {
		attempt, cancel := context.WithTimeout(ctx, cfg.AttemptTimeout)
		defer cancel()
		g, err = readGenesis(attempt, nc, cfg, false, info)
	}
	switch {
	case err == nil:
		return g.check(cfg, create, info.Config.Metadata)
	case errors.Is(err, ErrUnavailable):
		return nil
	}
	return err
}

// check compares the genesis with what the program asks for and with the
// stream's metadata, its copy.
func (g genesis) check(cfg Config, create bool, metadata map[string]string) error {
	var errs []error
	fault := func(field string, want, got any, advice string) {
		errs = append(errs, &SettingsError{
			Store: cfg.Name, Field: field, Want: fmt.Sprint(want), Got: fmt.Sprint(got), Advice: advice,
		})
	}
	const fixed = "it was fixed when the store was made; use that value in the program, or another store"
	if g.Format != FormatVersion {
		fault("format version", FormatVersion, g.Format, "use a version of Rossby that reads this format")
	}
	if cfg.Partitions != 0 && cfg.Partitions != g.Partitions {
		fault("Partitions", cfg.Partitions, g.Partitions, fixed)
	}
	if create && cfg.Codec.String() != g.Codec {
		fault("Codec", cfg.Codec, g.Codec, fixed)
	}
	for key, want := range g.metadata() {
		if got := metadata[key]; got != want {
			fault("metadata "+key, want, strconv.Quote(got),
				"somebody edited the stream's metadata; set it back with jetstream.PlanMigration, or `nats stream edit --metadata`")
		}
	}
	return errors.Join(errs...)
}

// newStoreID is 13 characters from 64 random bits: stores are few.
func newStoreID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// Name is the store's name.
func (s *Store) Name() string { return s.name }

// ID is the random id that the store was given when it was made.
func (s *Store) ID() string { return s.id }

// Partitions is the number of partitions.
func (s *Store) Partitions() int { return s.partitions }

// Codec is the codec that the store writes.
func (s *Store) Codec() Codec { return s.codec }

// Replicas is the number of servers that keep the stream.
func (s *Store) Replicas() int { return s.replicas }

// Conn is the connection that the store was opened with.
func (s *Store) Conn() *nats.Conn { return s.nc }
