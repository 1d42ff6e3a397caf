package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Change is one setting of a store that a [Migration] changes.
type Change struct {
	// Field is the setting's name in the server's configuration.
	Field string
	// From and To are its values before and after.
	From, To string
	// Why says what the change does, and why no commit is lost by it.
	Why string
}

// String is the change as one line.
func (c Change) String() string {
	return fmt.Sprintf("%s: %s -> %s (%s)", c.Field, c.From, c.To, c.Why)
}

// Migration is what would bring a store's stream to the settings that a [Config]
// and Rossby want. Making one changes nothing: print it, then call Apply.
type Migration struct {
	// Store is the store's name.
	Store string
	// Changes are what Apply changes, nothing when the store is as it should be.
	Changes []Change

	nc           *nats.Conn
	timeout      time.Duration
	before, want natsjs.StreamConfig
}

// String lists the changes, one a line.
func (m *Migration) String() string {
	if len(m.Changes) == 0 {
		return fmt.Sprintf("store %q is as it should be", m.Store)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "store %q:", m.Store)
	for _, c := range m.Changes {
		b.WriteString("\n  " + c.String())
	}
	return b.String()
}

// PlanMigration compares a store with what cfg asks for – Replicas and
// MaxConsumers, where they are set – and with what keeps commits safe. It reads
// only. Opening a store never changes it: this is how it is changed.
//
// Planned is what loses no commit: replicas, consumers, description, compression,
// the stream's metadata, which is written again from the store's first message,
// and limits and permissions that somebody set. What cannot be changed, or would
// lose commits, is a [*SettingsError] each, joined, and then nothing is planned:
// partitions, codec, storage, retention and what the server never takes back. For
// those, copy the store.
//
// Further errors are those of [Attach].
func PlanMigration(ctx context.Context, nc *nats.Conn, cfg Config) (*Migration, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	full := cfg.withDefaults()
	ctx, cancel := withBound(ctx, full.AppendTimeout)
	defer cancel()
	fail := func(err error) error { return fmt.Errorf("migrate store %q: %w", cfg.Name, err) }
	if err := checkServer(ctx, nc); err != nil {
		return nil, fail(err)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fail(err)
	}
	info, err := findStream(ctx, js, full, false)
	if err != nil {
		return nil, fail(err)
	}
	if info.State.LastSeq == 0 {
		return nil, fail(fmt.Errorf("%w: its stream is empty: open it first", ErrStoreNotFound))
	}
	g, err := readGenesis(ctx, nc, full, false, info)
	if err != nil {
		return nil, fail(err)
	}
	m := &Migration{Store: cfg.Name, nc: nc, timeout: full.AppendTimeout, before: info.Config}
	all := settings(cfg, info.Config)
	if cfg.MaxConsumers > 0 && cfg.MaxConsumers < info.State.Consumers {
		all = append(all, setting{
			field: "max_consumers", want: cfg.MaxConsumers, got: fmt.Sprintf("used by %d consumers", info.State.Consumers),
			advice: "remove followers that are no longer run, or ask for more",
		})
	}
	// The codec's zero value is one of the codecs, so only the other can be told
	// to be asked for.
	errs := []error{g.check(cfg, cfg.Codec != 0, g.metadata())}
	for _, s := range all {
		switch {
		case s.ok:
		case s.repair == nil:
			errs = append(errs, s.err(cfg.Name))
		default:
			m.Changes = append(m.Changes, Change{
				Field: s.field, From: text(s.got), To: text(s.want), Why: s.why,
			})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	m.want = repaired(info.Config, all)
	m.repairMetadata(g)
	return m, nil
}

// text shows a value so that an empty one is seen.
func text(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}

// repairMetadata writes the store's own keys again; those of others stay.
func (m *Migration) repairMetadata(g genesis) {
	m.want.Metadata = maps.Clone(m.want.Metadata)
	if m.want.Metadata == nil {
		m.want.Metadata = map[string]string{}
	}
	right := g.metadata()
	for _, key := range slices.Sorted(maps.Keys(right)) {
		if got := m.want.Metadata[key]; got != right[key] {
			m.Changes = append(m.Changes, Change{
				Field: "metadata " + key, From: strconv.Quote(got), To: strconv.Quote(right[key]),
				Why: "the store's first message says so; the metadata is its copy",
			})
			m.want.Metadata[key] = right[key]
		}
	}
}

// Apply makes the changes, and waits until the servers that came in have every
// commit. It may be called again after an error: what is done already is done.
// Returns [ErrMigrationOutdated] when the stream is neither as it was planned for
// nor as it should become.
//
// Programs that hold the store open keep working. They notice a new number of
// replicas when they open it again: start them anew afterwards.
func (m *Migration) Apply(ctx context.Context) error {
	if len(m.Changes) == 0 {
		return nil
	}
	ctx, cancel := withBound(ctx, m.timeout)
	defer cancel()
	if err := m.apply(ctx); err != nil {
		return fmt.Errorf("migrate store %q: %w", m.Store, err)
	}
	return nil
}

func (m *Migration) apply(ctx context.Context) error {
	js, err := natsjs.New(m.nc)
	if err != nil {
		return err
	}
	for wait := newBackoff(); ; {
		err := m.attempt(ctx, js)
		if err == nil {
			return nil
		}
		api, refused := errors.AsType[*natsjs.APIError](err)
		if errors.Is(err, ErrMigrationOutdated) || errors.Is(err, nats.ErrConnectionClosed) ||
			refused && !transient(int(api.ErrorCode)) {
			return err
		}
		if stop := wait.next(ctx); stop != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(stop, err))
		}
	}
}

// attempt changes the stream unless that is done, and returns nil once it is in
// effect.
func (m *Migration) attempt(ctx context.Context, js natsjs.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, AttemptTimeoutDefault)
	defer cancel()
	stream, err := js.Stream(ctx, m.Store)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	if !sameSettings(info.Config, m.want) {
		if !sameSettings(info.Config, m.before) {
			return ErrMigrationOutdated
		}
		if stream, err = js.UpdateStream(ctx, m.want); err != nil {
			return err
		}
		info = stream.CachedInfo()
	}
	return inSync(info, m.want.Replicas)
}

// sameSettings compares what the server says of a stream. It adds keys of its own
// to the metadata, which differ with its version.
func sameSettings(a, b natsjs.StreamConfig) bool {
	own := func(key, _ string) bool { return strings.HasPrefix(key, "_nats.") }
	a.Metadata, b.Metadata = maps.Clone(a.Metadata), maps.Clone(b.Metadata)
	maps.DeleteFunc(a.Metadata, own)
	maps.DeleteFunc(b.Metadata, own)
	if len(a.Metadata) == 0 && len(b.Metadata) == 0 {
		a.Metadata, b.Metadata = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// inSync returns nil when as many servers as wanted keep the whole stream.
func inSync(info *natsjs.StreamInfo, replicas int) error {
	if info.Cluster == nil {
		if replicas > 1 {
			return errors.New("the server is not in a cluster")
		}
		return nil
	}
	if info.Cluster.Leader == "" {
		return errors.New("the stream has no leader")
	}
	if n := 1 + len(info.Cluster.Replicas); n != replicas {
		return fmt.Errorf("the stream has %d of %d servers", n, replicas)
	}
	for _, peer := range info.Cluster.Replicas {
		if !peer.Current || peer.Offline {
			return fmt.Errorf("server %s has not caught up", peer.Name)
		}
	}
	return nil
}

// withBound gives a context without a deadline one.
func withBound(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}
