package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestOpenMakesAndReopens(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	s := open(t, nc, jetstream.Config{Name: name})
	if s.Name() != name || s.Partitions() != 64 || s.Codec() != jetstream.Msgpack || s.Replicas() != 1 || s.Conn() != nc || len(s.ID()) != 13 {
		t.Errorf("%+v", s)
	}
	again := open(t, nc, jetstream.Config{Name: name, Partitions: 64, Replicas: 1})
	attached, err := jetstream.Attach(t.Context(), nc, name)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID() != s.ID() || attached.ID() != s.ID() || attached.Partitions() != 64 {
		t.Errorf("ids %q, %q, %q", s.ID(), again.ID(), attached.ID())
	}
	live := stream(t, nc, name).CachedInfo()
	if got, want := live.Config, jetstream.StreamConfigForTest(jetstream.Config{Name: name}); got.Compression != natsjs.NoCompression ||
		got.MaxConsumers != jetstream.MaxConsumersDefault || !slices.Equal(got.Subjects, want.Subjects) || live.State.Msgs != 1 {
		t.Errorf("stream %+v", live)
	}
	if live.Config.Metadata["rossby.store"] != s.ID() {
		t.Errorf("metadata %v", live.Config.Metadata)
	}
	d, err := s.Durability(t.Context(), jetstream.DurabilitySources{})
	if err != nil || d.Replicas != 1 || d.Storage != "file" || d.ServerVersion == "" || d.Fsync != "unknown" {
		t.Errorf("%+v, %v", d, err)
	}
	other := open(t, nc, jetstream.Config{Name: name + "-json", Codec: jetstream.JSON, Partitions: 3})
	if other.ID() == s.ID() || other.Codec() != jetstream.JSON || other.Partitions() != 3 {
		t.Errorf("%+v", other)
	}
	if attached, err := jetstream.Attach(t.Context(), nc, name+"-json"); err != nil || attached.Codec() != jetstream.JSON || attached.Partitions() != 3 {
		t.Errorf("%+v, %v", attached, err)
	}
}

func TestConcurrentOpensGiveOneStore(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, replicas int, connect func() *nats.Conn) {
		t.Helper()
		for range 5 {
			name := natstest.Name(t)
			ids := make([]string, 8)
			var wg sync.WaitGroup
			for i := range ids {
				nc := connect()
				wg.Go(func() {
					s, err := jetstream.Open(t.Context(), nc, jetstream.Config{
						Name: name, Replicas: replicas, AppendTimeout: natstest.Patience,
					})
					if err != nil {
						t.Error(err)
						return
					}
					ids[i] = s.ID()
				})
			}
			wg.Wait()
			if slices.Sort(ids); ids[0] != ids[7] {
				t.Errorf("ids %q", ids)
			}
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		url := natstest.Run(t).URL()
		check(t, 1, func() *nats.Conn { return natstest.Conn(t, url) })
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		check(t, 3, func() *nats.Conn { return c.Conn(t) })
	})
}

// TestOpenAfterACrash: the stream was made, the genesis was not written.
func TestOpenAfterACrash(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	cfg := jetstream.StreamConfigForTest(jetstream.Config{Name: name})
	makeStream(t, nc, cfg)
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if s, err := jetstream.Attach(short, nc, name); !errors.Is(err, jetstream.ErrUnavailable) {
		t.Errorf("attached: %v, %v", s, err)
	}
	if n := stream(t, nc, name).CachedInfo().State.Msgs; n != 0 {
		t.Errorf("attaching has written %d messages", n)
	}
	if s := open(t, nc, jetstream.Config{Name: name}); s.ID() != cfg.Metadata["rossby.store"] {
		t.Errorf("id %q, metadata %v", s.ID(), cfg.Metadata)
	}
}

func makeStream(t *testing.T, nc *nats.Conn, cfg natsjs.StreamConfig) {
	t.Helper()
	if _, err := natstest.JetStream(t, nc).CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func settings(err error) []string {
	var fields []string
	var visit func(error)
	visit = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				visit(e)
			}
			return
		}
		if s, ok := err.(*jetstream.SettingsError); ok { //nolint:errorlint // each of the joined errors is looked at
			if s.Advice != "" && s.Store != "" {
				fields = append(fields, s.Field)
			}
			return
		}
		if inner := errors.Unwrap(err); inner != nil {
			visit(inner)
		}
	}
	if err != nil {
		visit(err)
	}
	slices.Sort(fields)
	return fields
}

func TestOpenRefusesOtherSettings(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	open(t, nc, jetstream.Config{Name: name})
	for want, cfg := range map[string]jetstream.Config{
		"Partitions":    {Name: name, Partitions: 32},
		"Codec":         {Name: name, Codec: jetstream.JSON},
		"num_replicas":  {Name: name, Replicas: 3},
		"max_consumers": {Name: name, MaxConsumers: 7},
		// What differs of the stream and what of its first message are told together.
		"Codec Partitions max_consumers num_replicas": {
			Name: name, Replicas: 3, MaxConsumers: 7, Partitions: 32, Codec: jetstream.JSON,
		},
		"Codec Partitions": {Name: name, Partitions: 32, Codec: jetstream.JSON},
	} {
		if s, err := jetstream.Open(t.Context(), nc, cfg); strings.Join(settings(err), " ") != want {
			t.Errorf("%s: %v, %v", want, s, err)
		}
	}
	for want, cfg := range map[string]jetstream.Config{
		"store name": {Name: "A"}, "Replicas": {Name: name, Replicas: 2}, "Partitions": {Name: name, Partitions: -1},
		"Codec": {Name: name, Codec: 9}, "MaxConsumers": {Name: name, MaxConsumers: -1},
		"AttemptTimeout": {Name: name, AttemptTimeout: -1}, "AppendTimeout": {Name: name, AppendTimeout: -1},
	} {
		var invalid *jetstream.InvalidError
		if _, err := jetstream.Open(t.Context(), nc, cfg); !errors.As(err, &invalid) || invalid.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := jetstream.Attach(t.Context(), nc, "A"); !is[*jetstream.InvalidError](err) {
		t.Error(err)
	}
}

// TestDangerousStreamsAreRefused: each differs from a good one in one setting,
// made that way or, where the server lets it, edited live.
func TestDangerousStreamsAreRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	js := natstest.JetStream(t, nc)
	for i, c := range []struct {
		field string
		live  bool
		edit  func(*natsjs.StreamConfig)
	}{
		{"discard", true, func(c *natsjs.StreamConfig) { c.Discard = natsjs.DiscardOld }},
		{"max_msgs", true, func(c *natsjs.StreamConfig) { c.MaxMsgs = 10 }},
		{"max_bytes", true, func(c *natsjs.StreamConfig) { c.MaxBytes = 10_000 }},
		{"max_msgs_per_subject", true, func(c *natsjs.StreamConfig) { c.MaxMsgsPerSubject = 1 }},
		{"max_age", true, func(c *natsjs.StreamConfig) { c.MaxAge = time.Hour }},
		{"allow_direct", true, func(c *natsjs.StreamConfig) { c.AllowDirect = false }},
		{"allow_atomic", true, func(c *natsjs.StreamConfig) { c.AllowAtomicPublish = false }},
		{"no_ack", true, func(c *natsjs.StreamConfig) { c.NoAck = true }},
		{"allow_msg_ttl", true, func(c *natsjs.StreamConfig) { c.AllowMsgTTL = true }},
		{"sealed", true, func(c *natsjs.StreamConfig) { c.Sealed = true }},
		{"subjects", true, func(c *natsjs.StreamConfig) { c.Subjects = append(c.Subjects, c.Name+".more") }},
		{"subject_transform", true, func(c *natsjs.StreamConfig) {
			c.SubjectTransform = &natsjs.SubjectTransformConfig{Source: c.Subjects[0], Destination: c.Name + ".event.x.>"}
		}},
		{"metadata rossby.partitions", true, func(c *natsjs.StreamConfig) { c.Metadata["rossby.partitions"] = "32" }},
		{"metadata rossby.store", true, func(c *natsjs.StreamConfig) { delete(c.Metadata, "rossby.store") }},
		{"metadata rossby.codec", true, func(c *natsjs.StreamConfig) { c.Metadata["rossby.codec"] = "json" }},
		{"deny_delete", false, func(c *natsjs.StreamConfig) { c.DenyDelete = false }},
		{"deny_purge", false, func(c *natsjs.StreamConfig) { c.DenyPurge = false }},
		{"allow_rollup", false, func(c *natsjs.StreamConfig) { c.DenyPurge, c.AllowRollup = false, true }},
		{"retention", false, func(c *natsjs.StreamConfig) { c.Retention = natsjs.WorkQueuePolicy }},
		{"retention", false, func(c *natsjs.StreamConfig) { c.Retention = natsjs.InterestPolicy }},
		{"storage", false, func(c *natsjs.StreamConfig) { c.Storage = natsjs.MemoryStorage }},
		{"mirror/sources", false, func(c *natsjs.StreamConfig) { c.Sources = []*natsjs.StreamSource{{Name: "elsewhere"}} }},
		{"persist_mode", false, func(c *natsjs.StreamConfig) {
			c.PersistMode, c.AllowAtomicPublish = natsjs.AsyncPersistMode, false
		}},
		{"allow_msg_schedules", false, func(c *natsjs.StreamConfig) {
			c.AllowMsgSchedules, c.Discard, c.DenyPurge = true, natsjs.DiscardOld, false
		}},
		{"subject_delete_marker_ttl", false, func(c *natsjs.StreamConfig) {
			c.AllowMsgTTL, c.SubjectDeleteMarkerTTL, c.DenyPurge, c.AllowRollup = true, time.Hour, false, true
		}},
		{"allow_msg_counter", false, func(c *natsjs.StreamConfig) {
			c.AllowMsgCounter, c.Discard = true, natsjs.DiscardOld
		}},
	} {
		t.Run(fmt.Sprintf("%d %s", i, c.field), func(t *testing.T) {
			t.Parallel()
			name := natstest.Name(t)
			cfg := jetstream.StreamConfigForTest(jetstream.Config{Name: name})
			if c.live {
				open(t, nc, jetstream.Config{Name: name})
				cfg = stream(t, nc, name).CachedInfo().Config
			}
			c.edit(&cfg)
			var err error
			if c.live {
				_, err = js.UpdateStream(t.Context(), cfg)
			} else {
				_, err = js.CreateStream(t.Context(), cfg)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err1 := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name})
			_, err2 := jetstream.Attach(t.Context(), nc, name)
			for _, err := range []error{err1, err2} {
				if !slices.Contains(settings(err), c.field) || !strings.Contains(err.Error(), name) {
					t.Errorf("fields %q: %v", settings(err), err)
				}
			}
		})
	}
}

func TestForeignStreamsAreRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	for want, c := range map[string]struct {
		edit    func(*natsjs.StreamConfig)
		publish string
	}{
		"metadata":      {edit: func(c *natsjs.StreamConfig) { c.Metadata = nil }},
		"first message": {edit: func(*natsjs.StreamConfig) {}, publish: ".event.account.1.a"},
		"subjects":      {edit: func(c *natsjs.StreamConfig) { c.Subjects = []string{c.Name + ".>"} }},
	} {
		name := natstest.Name(t)
		cfg := jetstream.StreamConfigForTest(jetstream.Config{Name: name})
		c.edit(&cfg)
		makeStream(t, nc, cfg)
		if c.publish != "" {
			if _, err := nc.Request(name+c.publish, nil, natstest.Patience); err != nil {
				t.Fatal(err)
			}
		}
		before := stream(t, nc, name).CachedInfo().State.Msgs
		if s, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name}); !slices.Contains(settings(err), want) {
			t.Errorf("%s: %v, %v", want, s, err)
		}
		if after := stream(t, nc, name).CachedInfo().State.Msgs; after != before {
			t.Errorf("%s: opening has written", want)
		}
	}
	name := natstest.Name(t)
	makeStream(t, nc, jetstream.StreamConfigForTest(jetstream.Config{Name: name}))
	if _, err := nc.Request(name+".event._store.0.genesis", []byte("{}"), natstest.Patience); err != nil {
		t.Fatal(err)
	}
	if s, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name}); !errors.Is(err, jetstream.ErrFormat) {
		t.Errorf("no genesis: %v, %v", s, err)
	}
}

// TestNewerFormatIsRefused: a program of today stops at a store of tomorrow.
func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	cfg := jetstream.StreamConfigForTest(jetstream.Config{Name: name})
	cfg.Metadata["rossby.format"] = "2"
	makeStream(t, nc, cfg)
	if s, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name}); !slices.Contains(settings(err), "format version") {
		t.Errorf("%v, %v", s, err)
	}
	if n := stream(t, nc, name).CachedInfo().State.Msgs; n != 0 {
		t.Errorf("it has written %d messages", n)
	}
}

func TestAttachToNothing(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	if s, err := jetstream.Attach(t.Context(), nc, natstest.Name(t)); !errors.Is(err, jetstream.ErrStoreNotFound) {
		t.Errorf("%v, %v", s, err)
	}
	nc.Close()
	if s, err := jetstream.Attach(t.Context(), nc, natstest.Name(t)); !errors.Is(err, jetstream.ErrUnavailable) {
		t.Errorf("closed connection: %v, %v", s, err)
	}
}

func TestServerWithoutJetStream(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.RunBare(t))
	_, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
	if !errors.Is(err, jetstream.ErrNoJetStream) || !strings.Contains(err.Error(), "-js") {
		t.Error(err)
	}
}

// TestOpenWaitsForALeader: a cluster that has been without a leader for a while says so.
// It is asked again, as long as there is time.
func TestOpenWaitsForALeader(t *testing.T) {
	t.Parallel()
	url := connectServer(t, &server.Options{}).ClientURL()
	leaderless := natstest.Conn(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked atomic.Int64
	if _, err := leaderless.Subscribe("$JS.API.INFO", func(m *nats.Msg) {
		if asked.Add(1) == 3 {
			cancel()
		}
		_ = m.Respond([]byte(`{"type":"io.nats.jetstream.api.v1.account_info_response",
			"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`))
	}); err != nil {
		t.Fatal(err)
	}
	if err := leaderless.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err := jetstream.Attach(ctx, natstest.Conn(t, url), "bank")
	if !errors.Is(err, jetstream.ErrUnavailable) || asked.Load() < 3 {
		t.Errorf("asked %d times: %T %v", asked.Load(), err, err)
	}
}

func TestOlder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version string
		want    bool
	}{
		{"2.13.9", true},
		{"2.9.20", true},
		{"1.99.99", true},
		{"", true},
		{"garbage", true},
		{"2.14.0", false},
		{"v2.14.0", false},
		{"2.14.0-RC.1", false},
		{"2.14.1", false},
		{"2.15.2", false},
		{"2.100.0", false},
		{"3.0", false},
	} {
		if got := jetstream.Older(c.version, jetstream.OldestServer); got != c.want {
			t.Errorf("%q: %v", c.version, got)
		}
	}
}
