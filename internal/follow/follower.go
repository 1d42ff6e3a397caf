package follow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
)

// Follower is one instance of a follower. Create it with [New].
type Follower struct {
	cfg   Config
	js    jetstream.JetStream
	place place

	mu      sync.Mutex
	running bool
	state   State
	owner   string // of the record as last seen
	seen    record // the record as last seen by a standby
	lastErr error
	tenure  *tenure
}

// New checks the configuration; [Follower.Run] does the rest.
func New(cfg Config) (*Follower, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	return &Follower{cfg: cfg, js: js, place: placeOf(cfg.Conn, cfg.Bucket, cfg.Name), state: StateStopped}, nil
}

// Run follows, or stands by for the instance that does, until ctx ends. It then
// lets running handlers end within [Config.Grace], gives the record up so that
// another instance goes on at once, and returns nil. It returns an error only
// for what waiting does not mend: see the errors of this package.
func (f *Follower) Run(ctx context.Context) error {
	f.mu.Lock()
	if f.running {
		f.mu.Unlock()
		return fmt.Errorf("follow: %q: %w", f.cfg.Name, ErrRunning)
	}
	f.running, f.lastErr = true, nil
	f.mu.Unlock()

	err := f.run(ctx)
	if err != nil {
		err = fmt.Errorf("follow: %q: %w", f.cfg.Name, err)
		f.cfg.Logger.Error("follower stopped", "error", err)
	}
	f.mu.Lock()
	f.running = false
	if err != nil {
		f.lastErr = err
	}
	f.mu.Unlock()
	f.enter(StateStopped, nil)
	return err
}

func (f *Follower) run(ctx context.Context) error {
	me := instance()
	for ctx.Err() == nil {
		f.enter(StateStandby, nil)
		taken, err := f.standby(ctx, me)
		if ctx.Err() != nil && err != nil {
			return nil //nolint:nilerr // stopped while standing by
		}
		if err != nil {
			return err
		}
		t := newTenure(ctx, f, taken.record, taken.rev, taken.sent)
		r := taken.record
		f.cfg.Logger.Info("owner", "epoch", r.Epoch, "position", r.Position, "lanes", len(r.Lanes))
		f.enter(StateActive, t)
		if err := t.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// instance names this run; it only has to be unique, the host is for people.
func instance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text())
}

// streamInfo asks the stream's leader. It returns [ErrNoStream] when there is no
// stream, and [wire.ErrNoLeader].
func (f *Follower) streamInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	var s jetstream.Stream
	err := f.api(ctx, f.cfg.Stream, func(ctx context.Context) (err error) {
		s, err = f.js.Stream(ctx, f.cfg.Stream)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: %q", ErrNoStream, f.cfg.Stream)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for stream %q: %w", f.cfg.Stream, err)
	}
	if c := s.CachedInfo().Cluster; c != nil && c.Leader == "" {
		// Any replica answers then, with what it has.
		return nil, fmt.Errorf("ask for stream %q: %w", f.cfg.Stream, wire.ErrNoLeader)
	}
	return s.CachedInfo(), nil
}

// api does what asks JetStream about a stream.
func (f *Follower) api(ctx context.Context, stream string, do func(context.Context) error) error {
	return wire.API(ctx, f.cfg.Conn, stream, do)
}

// makeBucket makes the bucket unless it exists.
func (f *Follower) makeBucket(ctx context.Context) error {
	err := f.api(ctx, "KV_"+f.cfg.Bucket, func(ctx context.Context) error {
		_, err := f.js.KeyValue(ctx, f.cfg.Bucket)
		return err
	})
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return fmt.Errorf("ask for bucket %q: %w", f.cfg.Bucket, err)
	}
	info, err := f.streamInfo(ctx)
	if err != nil {
		return err
	}
	err = f.api(ctx, "KV_"+f.cfg.Bucket, func(ctx context.Context) error {
		_, err := f.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: f.cfg.Bucket, Description: "positions and leases of followers",
			History: 1, Storage: jetstream.FileStorage, Replicas: info.Config.Replicas,
		})
		return err
	})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return fmt.Errorf("make bucket %q: %w", f.cfg.Bucket, err)
	}
	return nil
}

// vanished is the error of a record that must be there and is not.
func (c *Config) vanished() error {
	return fmt.Errorf("%w: bucket %q key %q: restore it, or delete consumer %q of stream %q too and start anew",
		ErrRecordVanished, c.Bucket, c.Name, c.Name, c.Stream)
}

// hint is the core subject on which an owner says that it gave the record up.
func (c *Config) hint() string { return "_ROSSBY.hint." + c.Bucket + "." + c.Name }

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
