package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// Config describes the servers.
type Config struct {
	// Dir is where their data and logs are kept. It must exist.
	Dir string
	// Servers is 1 or 3.
	Servers int
	// Fsync makes every server sync every write.
	Fsync bool
	// Images gives each server a file system of its own: see [Volumes].
	Images bool
}

// Cluster is one server, or three, each in a process of its own.
type Cluster struct {
	Nodes []*Node
	// Writers are the proxies, one for each server, of clients in this process,
	// Modules those of children.
	Writers, Modules []*Proxy

	cfg    Config
	routes map[[2]int]*Proxy
	// admin is connected to any server, each to one.
	admin *nats.Conn
	each  []*nats.Conn
}

// Node is a server and where it is found.
type Node struct {
	Index int
	Name  string
	// Addr is the server's own address, without a proxy.
	Addr string

	cfg    nodeConfig
	volume *volume
	// proc is looked at while others start it anew.
	proc atomic.Pointer[Process]
}

// Up starts the servers and waits until they serve.
func Up(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	c := &Cluster{cfg: cfg, routes: map[[2]int]*Proxy{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Down(context.WithoutCancel(ctx)))
		}
	}()
	addresses, err := freeAddresses(ctx, 2*cfg.Servers)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Servers {
		n := &Node{Index: i, Name: "n" + strconv.Itoa(i), Addr: addresses[i]}
		if n.volume, err = newVolume(ctx, cfg.Dir, n.Name, cfg.Images); err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
		n.cfg = nodeConfig{
			Name: n.Name, Client: n.Addr, Dir: n.volume.store(), Fsync: cfg.Fsync,
			Log: filepath.Join(cfg.Dir, n.Name+".log"),
		}
		for _, list := range []*[]*Proxy{&c.Writers, &c.Modules} {
			p, err := NewProxy(ctx, n.Addr)
			if err != nil {
				return nil, err
			}
			*list = append(*list, p)
		}
	}
	if cfg.Servers > 1 {
		if err := c.route(ctx, addresses[cfg.Servers:]); err != nil {
			return nil, err
		}
	}
	if err := c.startAll(ctx); err != nil {
		return nil, err
	}
	if c.admin, err = admin(c.direct()); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		nc, err := admin("nats://" + n.Addr)
		if err != nil {
			return nil, err
		}
		c.each = append(c.each, nc)
	}
	return c, c.ready(ctx)
}

func admin(url string) (*nats.Conn, error) {
	return nats.Connect(url, nats.Name("torture-admin"), nats.MaxReconnects(-1),
		nats.IgnoreDiscoveredServers(), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.PingInterval(time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// route puts a proxy between each two servers, for each direction that they may
// connect in.
func (c *Cluster) route(ctx context.Context, addresses []string) error {
	for i, n := range c.Nodes {
		n.cfg.Cluster = addresses[i]
		for j := range c.Nodes {
			if i == j {
				continue
			}
			p, err := NewProxy(ctx, addresses[j])
			if err != nil {
				return err
			}
			c.routes[[2]int{i, j}] = p
			n.cfg.Routes = append(n.cfg.Routes, p.Addr())
		}
	}
	return nil
}

func (c *Cluster) startAll(ctx context.Context) error {
	var g errgroup.Group
	for _, n := range c.Nodes {
		g.Go(func() error { return n.Start(ctx) })
	}
	return g.Wait()
}

// ready waits until the servers can keep a stream.
func (c *Cluster) ready(ctx context.Context) error {
	return Until(ctx, time.Minute, "the servers are not ready", func(ctx context.Context) error {
		var created struct{}
		if err := c.API(ctx, "STREAM.CREATE.ready", map[string]any{
			"name": "ready", "subjects": []string{"ready"}, "num_replicas": c.cfg.Servers, "storage": "file",
		}, &created); err != nil {
			return err
		}
		return c.API(ctx, "STREAM.DELETE.ready", nil, &created)
	})
}

// Until repeats f until it succeeds or the time is over.
func Until(ctx context.Context, within time.Duration, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		err := f(attempt)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), err)
		}
	}
}

// APIError is JetStream's answer to a request that it refused.
type APIError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

// Error is what the server said.
func (e *APIError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.Code) }

// API asks JetStream, past the proxies.
func (c *Cluster) API(ctx context.Context, subject string, request, response any) error {
	return ask(ctx, c.admin, subject, request, response)
}

// APIAt asks JetStream through one server, as its clients do.
func (c *Cluster) APIAt(ctx context.Context, node int, subject string, request, response any) error {
	return ask(ctx, c.each[node], subject, request, response)
}

func ask(ctx context.Context, nc *nats.Conn, subject string, request, response any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	msg, err := nc.RequestWithContext(ctx, "$JS.API."+subject, body)
	if err != nil {
		return err
	}
	var failed struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &failed); err != nil {
		return err
	}
	if failed.Error != nil {
		return failed.Error
	}
	return json.Unmarshal(msg.Data, response)
}

// streamInfo is what matters of the server's.
type streamInfo struct {
	State struct {
		LastSeq uint64 `json:"last_seq"`
	} `json:"state"`
	Cluster *struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Name    string `json:"name"`
			Current bool   `json:"current"`
			Lag     uint64 `json:"lag"`
		} `json:"replicas"`
	} `json:"cluster"`
}

// Leader is the index of the server that leads a stream.
func (c *Cluster) Leader(ctx context.Context, stream string) (int, error) {
	if len(c.Nodes) == 1 {
		return 0, nil
	}
	var info streamInfo
	if err := c.API(ctx, "STREAM.INFO."+stream, nil, &info); err != nil {
		return 0, err
	}
	if info.Cluster != nil {
		for i, n := range c.Nodes {
			if n.Name == info.Cluster.Leader {
				return i, nil
			}
		}
	}
	return 0, errors.New("no leader")
}

// StepDown makes a stream's leader resign.
func (c *Cluster) StepDown(ctx context.Context, stream string) error {
	var done struct{}
	return c.API(ctx, "STREAM.LEADER.STEPDOWN."+stream, nil, &done)
}

// Settled waits until every replica has all of a stream.
func (c *Cluster) Settled(ctx context.Context, within time.Duration, stream string) error {
	return Until(ctx, within, "the replicas do not agree", func(ctx context.Context) error {
		var info streamInfo
		if err := c.API(ctx, "STREAM.INFO."+stream, nil, &info); err != nil || info.Cluster == nil {
			return err
		}
		if info.Cluster.Leader == "" || len(info.Cluster.Replicas) != len(c.Nodes)-1 {
			return errors.New("no leader, or a replica is missing")
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Lag > 0 {
				return fmt.Errorf("replica %s is behind by %d", r.Name, r.Lag)
			}
		}
		return nil
	})
}

// URL is that of proxies, beginning with one of them.
func URL(proxies []*Proxy, first int) string {
	urls := make([]string, len(proxies))
	for i := range proxies {
		urls[i] = "nats://" + proxies[(first+i)%len(proxies)].Addr()
	}
	return strings.Join(urls, ",")
}

func (c *Cluster) direct() string {
	urls := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		urls[i] = "nats://" + n.Addr
	}
	return strings.Join(urls, ",")
}

// Split cuts the given server off from its peers, holding back what they say to
// each other, or closing the connections.
func (c *Cluster) Split(alone int, hold bool) {
	for ends, p := range c.routes {
		if ends[0] != alone && ends[1] != alone {
			continue
		}
		if hold {
			p.Hold()
		} else {
			p.Cut()
		}
	}
}

// Slow delays what one server and its peers say to each other.
func (c *Cluster) Slow(server int, d time.Duration) {
	for ends, p := range c.routes {
		if ends[0] == server || ends[1] == server {
			p.Delay(d)
		}
	}
}

// Heal ends what proxies do.
func (c *Cluster) Heal() {
	for _, p := range c.routes {
		p.Heal()
	}
	for i := range c.Nodes {
		c.Writers[i].Heal()
		c.Modules[i].Heal()
	}
}

// Mend brings every server back.
func (c *Cluster) Mend(ctx context.Context) error {
	c.Heal()
	var g errgroup.Group
	for _, n := range c.Nodes {
		g.Go(func() error {
			n.Thaw()
			return n.Start(ctx)
		})
	}
	return g.Wait()
}

// Down ends everything and removes the data, but not the logs.
func (c *Cluster) Down(ctx context.Context) error {
	if c.admin != nil {
		c.admin.Close()
	}
	for _, nc := range c.each {
		nc.Close()
	}
	var errs []error
	for _, n := range c.Nodes {
		n.Kill()
		if n.volume != nil {
			errs = append(errs, n.volume.remove(ctx))
		}
	}
	for _, p := range c.routes {
		p.Close()
	}
	for _, p := range append(c.Writers, c.Modules...) {
		p.Close()
	}
	return errors.Join(errs...)
}

// Start starts the server unless it runs.
func (n *Node) Start(ctx context.Context) error {
	if p := n.proc.Load(); p != nil {
		select {
		case <-p.Done():
		default:
			return nil
		}
	}
	if err := os.MkdirAll(n.volume.store(), 0o750); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	p, err := Start(ctx, NodeKind, n.cfg, "ready", n.cfg.Log+".out")
	if err == nil {
		n.proc.Store(p)
	}
	return err
}

// Kill ends the server at once.
func (n *Node) Kill() {
	if p := n.proc.Load(); p != nil {
		p.Thaw()
		p.Kill()
	}
}

// Stop ends the server in order.
func (n *Node) Stop(ctx context.Context) error { return n.proc.Load().Stop(ctx) }

// Freeze stops the server's process where it is.
func (n *Node) Freeze() { n.proc.Load().Freeze() }

// Thaw lets it go on.
func (n *Node) Thaw() {
	if p := n.proc.Load(); p != nil {
		p.Thaw()
	}
}

// Log is the file of the server's log.
func (n *Node) Log() string { return n.cfg.Log }

// Use is what the server's process uses.
func (n *Node) Use() (Use, error) { return n.proc.Load().Use() }

// LosePower kills the server and what was not synced. It needs [Config.Images].
func (n *Node) LosePower(ctx context.Context) error {
	n.Kill()
	return n.volume.losePower(ctx)
}

// SyncDisks writes everything to the servers' file systems.
func (c *Cluster) SyncDisks(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := run(ctx, "sync", "-f", n.volume.dir); err != nil {
			return err
		}
	}
	return nil
}

// FillDisk takes all room of the server's file system, EmptyDisk gives it back. They
// need [Config.Images].
func (n *Node) FillDisk() error { return n.volume.fill() }

// Damage flips a bit in the middle of the newest block of each stream's messages, of
// the account that has them all; it returns how many. The server must be down.
func (n *Node) Damage() (int, error) {
	streams, err := filepath.Glob(filepath.Join(n.volume.store(), "jetstream", "$G", "streams", "*", "msgs"))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, dir := range streams {
		blocks, err := filepath.Glob(filepath.Join(dir, "*.blk"))
		if err != nil {
			return count, err
		}
		for _, path := range blocks {
			data, err := os.ReadFile(path)
			if err != nil {
				return count, err
			}
			if len(data) == 0 {
				continue
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return count, err
			}
			count++
		}
	}
	return count, nil
}

// EmptyDisk is described at FillDisk.
func (n *Node) EmptyDisk() error { return n.volume.empty() }
