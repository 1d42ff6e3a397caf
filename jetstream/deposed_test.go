package jetstream_test

import (
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/test/torture/rig"
)

// divisible is a cluster of three with a proxy between each two, for each direction
// that they may connect in.
type divisible struct {
	*natstest.Cluster

	between map[[2]int]*rig.Proxy
}

func newDivisible(t *testing.T) *divisible {
	t.Helper()
	d := &divisible{between: map[[2]int]*rig.Proxy{}}
	d.Cluster = natstest.RunCluster(t, func(i int, o *server.Options) {
		// They must not learn of ways around the proxies.
		o.Cluster.NoAdvertise, o.Cluster.Advertise = true, "127.0.0.1:1"
		var routes []*url.URL
		for j, r := range o.Routes {
			if i == j {
				continue
			}
			p, err := rig.NewProxy(t.Context(), r.Host)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			d.between[[2]int{i, j}] = p
			routes = append(routes, &url.URL{Scheme: "nats", Host: p.Addr()})
		}
		o.Routes = routes
	})
	return d
}

// isolate cuts a server off from its peers, but not from its clients.
func (d *divisible) isolate(alone int) {
	for ends, p := range d.between {
		if ends[0] == alone || ends[1] == alone {
			p.Cut()
		}
	}
}

func (d *divisible) heal() {
	for _, p := range d.between {
		p.Heal()
	}
}

// TestADeposedLeaderIsNoRestoredStore: a leader that was cut off answers for many
// seconds what it knew then, while the others have elected one and gone on. Who knows
// more than it does is not told that the store has lost something: that leader has
// heard nothing of its peers, and may have been replaced.
func TestADeposedLeaderIsNoRestoredStore(t *testing.T) {
	t.Parallel()
	d := newDivisible(t)
	cfg := jetstream.Config{Name: natstest.Name(t), Replicas: 3}
	leader := d.Leader(t, open(t, d.Conn(t), cfg).Name())
	at := func(i int) *jetstream.Store {
		return open(t, natstest.Conn(t, d.URLs()[i%3], nats.IgnoreDiscoveredServers()), cfg)
	}
	cutOff, other := at(leader), at(leader+1)
	head := appendN(t, cutOff, "a", 1)[0]
	d.isolate(leader)
	newer, err := other.Append(t.Context(), write("a", "", head))
	if err != nil {
		t.Fatal(err)
	}
	const enough = 100 // of two who ask: more than it takes to believe a loss
	answers := cutOff.Conn().Stats().InMsgs
	results := make(chan error, 2)
	go func() {
		results <- cutOff.CheckPosition(t.Context(), cutOff.Position(newer.Sequence))
	}()
	go func() {
		_, err := cutOff.Append(t.Context(), write("a", "", newer))
		results <- err
	}()
	natstest.Eventually(t, "answers of the old leader", func() error {
		got := cutOff.Conn().Stats().InMsgs - answers
		if got < enough && d.Servers[leader].JetStreamIsStreamLeader("$G", cfg.Name) && len(results) == 0 {
			return fmt.Errorf("%d, and it takes itself for the leader", got)
		}
		return nil
	})
	d.heal()
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestALossIsOnlyBelievedOfALeaderThatIsFollowed: what the answers of a leader that
// does not have something prove, by how long ago it has heard of the other replicas.
func TestALossIsOnlyBelievedOfALeaderThatIsFollowed(t *testing.T) {
	t.Parallel()
	const stale = 16 // answers of a leader that was replaced, more than make a loss
	after := jetstream.Head{Sequence: 20, CommitID: "c2", Ordinal: 2, Version: 2}
	for name, c := range map[string]struct {
		replicas string
		lost     bool
	}{
		"nobody was heard lately":   {replicas: `[{"active":7000000000},{"active":6000000000}]`},
		"nobody was ever heard":     {replicas: `[{"active":0},{"active":0}]`},
		"two of five others follow": {replicas: `[{"active":1},{"active":1},{"active":0},{"active":0},{"active":0}]`},
		"one of two others follows": {replicas: `[{"active":7000000000},{"active":900000000}]`, lost: true},
		"there are no others":       {replicas: `[]`, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, f := range map[string]func(s *jetstream.Store) error{
				"append":   func(s *jetstream.Store) error { return second(s.Append(t.Context(), write("a1", "", after))) },
				"position": func(s *jetstream.Store) error { return s.CheckPosition(t.Context(), s.Position(20)) },
			} {
				t.Run(what, func(t *testing.T) {
					t.Parallel()
					l, s := newLagging(t, 2)
					// Only the replaced leader is there, which has the first one.
					var infos atomic.Int64
					replaced := func() bool { return infos.Load() < stale }
					l.leader = func() int {
						if replaced() {
							return 1
						}
						return 2
					}
					l.replica = func(int) int { return 1 }
					for subject, answer := range map[string]func() string{
						"$JS.API.STREAM.INFO.bank": func() string {
							infos.Add(1)
							return `{"state":{"last_seq":10},"cluster":{"leader":"n1","replicas":` + c.replicas + `}}`
						},
						goldenSubject: func() string {
							if replaced() {
								return `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 10"}}`
							}
							return `{"stream":"bank","seq":30}`
						},
					} {
						if _, err := l.nc.Subscribe(subject, func(m *nats.Msg) { l.send(m, nil, []byte(answer())) }); err != nil {
							t.Fatal(err)
						}
					}
					if err := l.nc.Flush(); err != nil {
						t.Fatal(err)
					}
					if err := f(s.Replicated()); errors.Is(err, jetstream.ErrStoreWentBack) != c.lost || !c.lost && err != nil {
						t.Errorf("after %d answers: %v", infos.Load(), err)
					}
				})
			}
		})
	}
}
