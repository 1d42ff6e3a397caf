package natstest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	nodes = 3
	// account is where connections without a user end up.
	account = "$G"
	// routes are what joins two servers: a pool, of which each account has one, and
	// one for the system's account.
	routes = server.DEFAULT_ROUTE_POOL_SIZE + 1
)

var errNoLeader = errors.New("has no leader")

// Cluster is three servers in this process, joined by TCP.
type Cluster struct {
	// Servers are the running servers, nil where one is stopped. Read them only
	// while nobody calls Stop or Restart.
	Servers []*server.Server

	mu   sync.Mutex
	opts []*server.Options
}

// RunCluster starts three servers, which sync lazily and keep their data in
// temporary directories, and waits until they have a leader for JetStream. They
// end with the test. The functions may change the options of each, by its index.
func RunCluster(t testing.TB, change ...func(i int, o *server.Options)) *Cluster {
	t.Helper()
	return runCluster(t, false, change...)
}

// RunFsyncCluster is [RunCluster] with servers that sync every write.
func RunFsyncCluster(t testing.TB) *Cluster {
	t.Helper()
	return runCluster(t, true)
}

func runCluster(t testing.TB, fsync bool, change ...func(i int, o *server.Options)) *Cluster {
	t.Helper()
	c := &Cluster{Servers: make([]*server.Server, nodes)}
	addrs := make([]*url.URL, nodes)
	for i := range addrs {
		addrs[i] = &url.URL{Scheme: "nats", Host: Addr(t)}
	}
	name := Name(t)
	for i, route := range addrs {
		routePort, err := strconv.Atoi(route.Port())
		if err != nil {
			t.Fatalf("natstest: port of %v: %v", route, err)
		}
		c.opts = append(c.opts, &server.Options{
			ServerName: fmt.Sprintf("%s-%d", name, i),
			Host:       "127.0.0.1", Port: port(t),
			Cluster:   server.ClusterOpts{Name: name, Host: "127.0.0.1", Port: routePort},
			Routes:    addrs,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: fsync,
			NoSigs: true, NoLog: true,
		})
		for _, f := range change {
			f(i, c.opts[i])
		}
	}
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.Servers {
			if s != nil {
				s.Shutdown()
			}
		}
		for _, s := range c.Servers {
			if s != nil {
				s.WaitForShutdown()
			}
		}
	})
	for i := range nodes {
		c.start(t, i)
	}
	if !c.WaitReady(t) {
		t.FailNow()
	}
	return c
}

// URLs are the addresses of all three servers, running or not.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.opts))
	for i, o := range c.opts {
		urls[i] = "nats://" + net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	}
	return urls
}

// Conn connects to any of the servers, as [Conn] does.
func (c *Cluster) Conn(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return Conn(t, strings.Join(c.URLs(), ","), opts...)
}

// WaitReady waits until the cluster has a leader for JetStream that knows every
// server, every running server takes part, and all their routes are there: without
// its account's route a request finds nobody, and an answer is lost. Then it waits
// until each server's clients get an answer from that leader: a route is there before
// the two have told each other who listens. The result tells whether all that is so.
func (c *Cluster) WaitReady(t testing.TB) bool {
	t.Helper()
	return Eventually(t, "cluster ready", func() error {
		leader := false
		running := c.running()
		others := -1
		for _, s := range running {
			if s != nil {
				others++
			}
		}
		for i, s := range running {
			if s == nil {
				continue
			}
			if n := s.NumRoutes(); n < others*routes {
				return fmt.Errorf("server %d has %d of %d routes", i, n, others*routes)
			}
			if !s.JetStreamIsCurrent() {
				return fmt.Errorf("server %d is not current", i)
			}
			leader = leader || s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == nodes
		}
		if !leader {
			return errors.New("no leader knows every server")
		}
		for i, s := range running {
			if s == nil {
				continue
			}
			if err := answered(s); err != nil {
				return fmt.Errorf("server %d: %w", i, err)
			}
		}
		return nil
	})
}

// answered asks JetStream's leader something as a client of the server.
func answered(s *server.Server) error {
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.Timeout(Patience), nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if errors.Is(err, nats.ErrAuthorization) {
		return nil // It is the test that has a user.
	}
	if err != nil {
		return err
	}
	defer nc.Close()
	_, err = nc.Request("$JS.API.INFO", nil, firstAttempt)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil // The account has no JetStream.
	}
	return err
}

// StreamLeader returns the index of the server that leads a stream, or -1.
func (c *Cluster) StreamLeader(stream string) int {
	return slices.IndexFunc(c.running(), func(s *server.Server) bool {
		return s != nil && s.JetStreamIsStreamLeader(account, stream)
	})
}

// Leader waits until a stream has a leader, and returns its server's index.
func (c *Cluster) Leader(t testing.TB, stream string) int {
	t.Helper()
	leader := -1
	elected := Eventually(t, "stream "+stream, func() error {
		if leader = c.StreamLeader(stream); leader < 0 {
			return errNoLeader
		}
		return nil
	})
	if !elected {
		t.FailNow()
	}
	return leader
}

// ConsumerLeader returns the index of the server that leads a consumer, or -1.
func (c *Cluster) ConsumerLeader(stream, consumer string) int {
	return slices.IndexFunc(c.running(), func(s *server.Server) bool {
		return s != nil && s.JetStreamIsConsumerLeader(account, stream, consumer)
	})
}

// Stored waits until every server has the stream's messages up to a sequence, so
// that whichever answers a read knows them.
func (c *Cluster) Stored(t testing.TB, stream string, sequence uint64) bool {
	t.Helper()
	return Eventually(t, "every replica of "+stream, func() error {
		for i, s := range c.running() {
			if s == nil {
				continue
			}
			info, err := s.JszAccount(&server.JSzOptions{Account: account, Streams: true})
			if err != nil {
				return fmt.Errorf("server %d: %w", i, err)
			}
			at := slices.IndexFunc(info.Streams, func(d server.StreamDetail) bool { return d.Name == stream })
			if at < 0 || info.Streams[at].State.LastSeq < sequence {
				return fmt.Errorf("server %d does not have message %d of %q", i, sequence, stream)
			}
		}
		return nil
	})
}

// StepDown makes the stream's leader resign and waits until the stream has a
// leader again, which may be the same server. It may be called from any
// goroutine.
func (c *Cluster) StepDown(t testing.TB, stream string) {
	t.Helper()
	c.stepDown(t, "stream "+stream,
		func() int { return c.StreamLeader(stream) },
		func(s *server.Server) error { return s.JetStreamStepdownStream(account, stream) })
}

// StepDownConsumer does to a consumer what [Cluster.StepDown] does to a stream.
func (c *Cluster) StepDownConsumer(t testing.TB, stream, consumer string) {
	t.Helper()
	c.stepDown(t, "consumer "+consumer+" of "+stream,
		func() int { return c.ConsumerLeader(stream, consumer) },
		func(s *server.Server) error { return s.JetStreamStepdownConsumer(account, stream, consumer) })
}

func (c *Cluster) stepDown(t testing.TB, what string, leader func() int, resign func(*server.Server) error) {
	t.Helper()
	elected := func() error {
		if leader() < 0 {
			return errNoLeader
		}
		return nil
	}
	if !Eventually(t, what, elected) {
		return
	}
	i := leader()
	if i < 0 {
		return // It has just resigned by itself.
	}
	s := c.running()[i]
	if s == nil {
		return
	}
	if err := resign(s); err != nil {
		t.Errorf("natstest: step down, %s: %v", what, err)
		return
	}
	Eventually(t, what, elected)
}

// Stop shuts one server down gracefully.
func (c *Cluster) Stop(i int) {
	c.mu.Lock()
	s := c.Servers[i]
	c.Servers[i] = nil
	c.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Restart stops one server unless it is stopped already, and starts it again
// with its data and addresses. It waits for clients to be served, not for the
// server to catch up: see [Cluster.WaitReady].
func (c *Cluster) Restart(t testing.TB, i int) {
	t.Helper()
	c.Stop(i)
	if s := c.start(t, i); s != nil && !s.ReadyForConnections(Patience) {
		t.Errorf("natstest: server %d did not come back", i)
	}
}

func (c *Cluster) start(t testing.TB, i int) *server.Server {
	t.Helper()
	s, err := server.NewServer(c.opts[i].Clone())
	if err != nil {
		t.Errorf("natstest: server %d: %v", i, err)
		return nil
	}
	c.mu.Lock()
	c.Servers[i] = s
	c.mu.Unlock()
	s.Start()
	return s
}

// running is a copy of the servers.
func (c *Cluster) running() []*server.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.Servers)
}
