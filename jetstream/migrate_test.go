package jetstream_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func plan(t *testing.T, nc *nats.Conn, cfg jetstream.Config) *jetstream.Migration {
	t.Helper()
	cfg.AppendTimeout = natstest.Patience
	m, err := jetstream.PlanMigration(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func planned(m *jetstream.Migration) []string {
	fields := make([]string, 0, len(m.Changes))
	for _, c := range m.Changes {
		fields = append(fields, c.Field)
	}
	slices.Sort(fields)
	return fields
}

// TestMigrateRepairs: everything that can be set back is, on request and never by
// opening, and no commit is touched.
func TestMigrateRepairs(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	s := open(t, nc, jetstream.Config{Name: name})
	before := stream(t, nc, name).CachedInfo().Config
	if before.Compression != natsjs.NoCompression {
		t.Errorf("a new store: %s", before.Compression)
	}
	if m := plan(t, nc, jetstream.Config{Name: name}); len(m.Changes) != 0 || !strings.Contains(m.String(), "as it should be") {
		t.Errorf("a new store: %s", m)
	}
	appendN(t, s, "a", 5)
	edit(t, nc, name, func(c *natsjs.StreamConfig) {
		c.Description, c.Compression, c.MaxMsgSize, c.Discard = "mine", natsjs.S2Compression, 1000, natsjs.DiscardOld
		c.MaxMsgs, c.MaxBytes, c.MaxAge, c.MaxMsgsPerSubject = 100, 1<<20, time.Hour, 50
		c.AllowDirect, c.AllowAtomicPublish, c.NoAck, c.MaxConsumers = false, false, true, 7
		c.Metadata = map[string]string{"team": "blue", "rossby.store": "other", "rossby.partitions": "1"}
	})
	edited := stream(t, nc, name).CachedInfo().Config
	cfg := jetstream.Config{Name: name, MaxConsumers: 500}
	if _, err := jetstream.Open(t.Context(), nc, cfg); !slices.Equal(settings(err), []string{
		"allow_atomic", "allow_direct", "discard", "max_age", "max_bytes", "max_consumers", "max_msgs", "max_msgs_per_subject",
		"metadata rossby.codec", "metadata rossby.format", "metadata rossby.partitions", "metadata rossby.store", "no_ack",
	}) {
		t.Errorf("open: %q, %v", settings(err), err)
	}
	m := plan(t, nc, cfg)
	if got := planned(m); !slices.Equal(got, []string{
		"allow_atomic", "allow_direct", "compression", "description", "discard", "max_age", "max_bytes", "max_consumers",
		"max_msg_size", "max_msgs", "max_msgs_per_subject",
		"metadata rossby.codec", "metadata rossby.format", "metadata rossby.partitions", "metadata rossby.store", "no_ack",
	}) {
		t.Errorf("planned %q", got)
	}
	for _, c := range m.Changes {
		if c.From == c.To || c.Why == "" || !strings.Contains(m.String(), fmt.Sprintf("%s: %s -> %s (", c.Field, c.From, c.To)) {
			t.Errorf("%+v in %s", c, m)
		}
	}
	if now := stream(t, nc, name).CachedInfo().Config; !reflect.DeepEqual(now, edited) {
		t.Errorf("opening or planning has changed the stream: %+v", now)
	}
	for range 2 { // the second time there is nothing left to do
		if err := m.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	after := stream(t, nc, name).CachedInfo().Config
	if after.Metadata["team"] != "blue" {
		t.Errorf("metadata of others is gone: %v", after.Metadata)
	}
	delete(after.Metadata, "team")
	before.MaxConsumers = 500
	if !reflect.DeepEqual(after, before) {
		t.Errorf("got %+v, want %+v", after, before)
	}
	if m := plan(t, nc, cfg); len(m.Changes) != 0 {
		t.Errorf("left: %s", m)
	}
	again := open(t, nc, cfg)
	if commits, err := history(t.Context(), again, "a", jetstream.Range{}); err != nil || len(commits) != 5 || again.ID() != s.ID() {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

// TestMigrateRepairsPermissions: a stream that lets messages be deleted is made to
// refuse it.
func TestMigrateRepairsPermissions(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	cfg := jetstream.StreamConfigForTest(jetstream.Config{Name: name})
	cfg.DenyDelete, cfg.DenyPurge, cfg.AllowRollup = false, false, true
	makeStream(t, nc, cfg)
	if _, err := jetstream.PlanMigration(t.Context(), nc, jetstream.Config{Name: name}); !errors.Is(err, jetstream.ErrStoreNotFound) {
		t.Errorf("a stream without a genesis: %v", err)
	}
	body := fmt.Sprintf(`{"store":%q,"format":1,"partitions":64,"codec":"msgpack"}`, cfg.Metadata["rossby.store"])
	if _, err := nc.Request(name+".event._store.0.genesis", []byte(body), natstest.Patience); err != nil {
		t.Fatal(err)
	}
	m := plan(t, nc, jetstream.Config{Name: name})
	if got := planned(m); !slices.Equal(got, []string{"allow_rollup", "deny_delete", "deny_purge"}) {
		t.Errorf("planned %q", got)
	}
	if err := m.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	open(t, nc, jetstream.Config{Name: name})
	if err := stream(t, nc, name).DeleteMsg(t.Context(), 1); err == nil {
		t.Error("a message can still be deleted")
	}
}

// TestMigrateRefuses: what would lose commits, or is fixed for ever, is named,
// every one of it, and nothing is planned.
func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	open(t, nc, jetstream.Config{Name: name})
	if _, err := stream(t, nc, name).CreateConsumer(t.Context(), natsjs.ConsumerConfig{Durable: "one"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream(t, nc, name).CreateConsumer(t.Context(), natsjs.ConsumerConfig{Durable: "two"}); err != nil {
		t.Fatal(err)
	}
	edit(t, nc, name, func(c *natsjs.StreamConfig) { c.Description, c.AllowMsgTTL = "mine", true })
	m, err := jetstream.PlanMigration(t.Context(), nc,
		jetstream.Config{Name: name, Partitions: 8, Codec: jetstream.JSON, MaxConsumers: 1})
	if got := settings(err); m != nil || !slices.Equal(got, []string{"Codec", "Partitions", "allow_msg_ttl", "max_consumers"}) {
		t.Errorf("%q: %v", got, err)
	}
	if _, err := jetstream.PlanMigration(t.Context(), nc, jetstream.Config{Name: name + "-none"}); !errors.Is(err, jetstream.ErrStoreNotFound) {
		t.Errorf("no store: %v", err)
	}
	if _, err := jetstream.PlanMigration(t.Context(), nc, jetstream.Config{Name: "A"}); !is[*jetstream.InvalidError](err) {
		t.Errorf("no name: %v", err)
	}
	// One server cannot keep three copies: the server refuses, at once.
	other := natstest.Name(t)
	open(t, nc, jetstream.Config{Name: other})
	if err := plan(t, nc, jetstream.Config{Name: other, Replicas: 3}).Apply(t.Context()); err == nil || errors.Is(err, jetstream.ErrUnavailable) {
		t.Errorf("three replicas on one server: %v", err)
	}
}

// TestMigrateOutdated: a plan is not applied to a stream that changed since.
func TestMigrateOutdated(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	name := natstest.Name(t)
	open(t, nc, jetstream.Config{Name: name})
	edit(t, nc, name, func(c *natsjs.StreamConfig) { c.Description = "mine" })
	m := plan(t, nc, jetstream.Config{Name: name})
	edit(t, nc, name, func(c *natsjs.StreamConfig) { c.Compression = natsjs.S2Compression })
	if err := m.Apply(t.Context()); !errors.Is(err, jetstream.ErrMigrationOutdated) {
		t.Error(err)
	}
	if now := stream(t, nc, name).CachedInfo().Config; now.Description != "mine" {
		t.Error("it was applied all the same")
	}
}

// TestMigrateReplicas: R1 to R3 and back, with writers at work; whatever was
// acknowledged is there, on every server that is said to keep it.
func TestMigrateReplicas(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	nc := c.Conn(t)
	name := natstest.Name(t)
	s := open(t, nc, jetstream.Config{Name: name, Replicas: 1})
	appendN(t, s, "a", 50)

	var head jetstream.Head
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { stopped <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			next, err := s.Append(t.Context(), write("busy", "", head))
			if err != nil {
				t.Errorf("append %d: %v", n, err)
				return
			}
			head = next
			n++
		}
	}()
	for _, replicas := range []int{3, 1, 3} {
		m := plan(t, nc, jetstream.Config{Name: name, Replicas: replicas})
		if got := planned(m); !slices.Equal(got, []string{"num_replicas"}) {
			t.Errorf("planned %q", got)
		}
		if err := m.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if opened := open(t, nc, jetstream.Config{Name: name, Replicas: replicas}); opened.Replicas() != replicas || opened.ID() != s.ID() {
			t.Errorf("%d replicas, want %d", opened.Replicas(), replicas)
		}
	}
	close(stop)
	n := <-stopped

	// Any one server of three may go.
	c.Stop(c.Leader(t, name))
	c.Leader(t, name)
	for id, want := range map[string]int{"a": 50, "busy": n} {
		if commits, err := history(t.Context(), s, id, jetstream.Range{}); err != nil || len(commits) != want {
			t.Errorf("%s: %d commits, %v, want %d", id, len(commits), err, want)
		}
	}
}
