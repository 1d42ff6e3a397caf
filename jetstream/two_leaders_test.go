package jetstream_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// TestTwoLeaders: after a partition, a publish reaches the new leader and the old one,
// which does not know yet that it is none. The one stores it, the other answers first,
// with an error that proves nothing: the commit that it tells of may be this one. Found
// by the torture rig: split-leader.
func TestTwoLeaders(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	name := natstest.Name(t)
	open(t, c.Conn(t), jetstream.Config{Name: name, Replicas: 3})
	// A server beside the leader's, so that the old leader is surely faster.
	url := c.URLs()[(c.StreamLeader(name)+1)%3]
	s, err := jetstream.Attach(t.Context(), natstest.Conn(t, url, nats.IgnoreDiscoveredServers()), name)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := s.Subject("account", "a")
	if err != nil {
		t.Fatal(err)
	}
	head, err := s.Append(t.Context(), write("a", "first", jetstream.Head{}))
	if err != nil {
		t.Fatal(err)
	}
	old := natstest.Conn(t, url, nats.IgnoreDiscoveredServers())
	var asked atomic.Int64
	if _, err := old.Subscribe(subject, func(m *nats.Msg) {
		// It has got the commit from the new leader already.
		text := fmt.Sprintf("wrong last sequence: %d", head.Sequence+1)
		if asked.Add(1) == 1 {
			_ = m.Respond([]byte(`{"error":{"code":400,"err_code":10071,"description":"` + text + `"}}`))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := old.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), write("a", "second", head)); err != nil {
		t.Errorf("the own commit is taken for another writer's: %v", err)
	}
	commits, err := history(t.Context(), s, "a", jetstream.Range{})
	if err != nil || len(commits) != 2 {
		t.Errorf("%d commits, %v, want 2", len(commits), err)
	}
}
