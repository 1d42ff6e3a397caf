// Package embedded runs a NATS server with JetStream inside this process, for
// demos and tests. It is the only package of Rossby that links nats-server;
// a program for production connects to servers of its own.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream/roles"
)

// ReadyTimeoutDefault is how long [Start] waits for the server.
const ReadyTimeoutDefault = 10 * time.Second

// LazySyncInterval is how often a server with LazySync syncs its disk.
const LazySyncInterval = 2 * time.Minute

// Config describes a server. The zero value is a server reachable only from
// this process, with a temporary store that is fsynced on every write.
type Config struct {
	// Listen is the TCP address for clients, such as "127.0.0.1:4222"; port 0
	// takes a free one. Defaults to "", no TCP at all: only [Server.Option].
	Listen string
	// StoreDir keeps the data. Defaults to "", a temporary directory that
	// [Server.Stop] removes.
	StoreDir string
	// LazySync lets the server fsync every two minutes, as a plain nats-server
	// does, instead of after every write. A killed process loses nothing either
	// way; a power failure may lose acknowledged commits. Defaults to false.
	LazySync bool
	// Cluster joins the server to others, so that streams can have replicas. It needs
	// Listen and Name. Defaults to none.
	Cluster Cluster
	// Name is the server's name. Defaults to "rossby-embedded".
	Name string
	// ReadyTimeout bounds the start. Defaults to [ReadyTimeoutDefault].
	ReadyTimeout time.Duration
	// Users are the only ones who may connect, over TLS, each with a certificate that
	// is made at the start: see [Server.ConnectConfig]. They need Listen. Defaults to
	// none, and then everybody may do everything.
	Users []roles.User
	// Credentials lets the users log in with JWTs instead of certificates. They have
	// an account of their own: what was stored without is not theirs.
	Credentials bool
}

// Cluster says where a server meets the others of its cluster. They trust each other
// and whoever else reaches the address: keep it on the loopback.
type Cluster struct {
	// Name is the cluster's, the same for all.
	Name string
	// Listen is the TCP address for the others. It must not change while the data is
	// kept.
	Listen string
	// Routes are the Listen of all servers, this one's too.
	Routes []string
}

func (c Cluster) given() bool { return c.Name != "" || c.Listen != "" || len(c.Routes) > 0 }

func (c Cluster) validate(of Config) []error {
	var errs []error
	if c.Name == "" || of.Listen == "" || of.Name == "" {
		errs = append(errs, errors.New("embedded: Cluster needs Cluster.Name, Listen and Name"))
	}
	if len(of.Users) > 0 {
		errs = append(errs, errors.New("embedded: Cluster with Users: servers with users are alone"))
	}
	if _, _, err := splitListen(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("embedded: Cluster.Listen %q: %w", c.Listen, err))
	}
	if len(c.Routes) == 0 {
		errs = append(errs, errors.New("embedded: Cluster.Routes is empty"))
	}
	for _, r := range c.Routes {
		if _, _, err := splitListen(r); err != nil {
			errs = append(errs, fmt.Errorf("embedded: Cluster.Routes %q: %w", r, err))
		}
	}
	return errs
}

// apply sets the options of a server of the cluster. What Validate has seen parses.
func (c Cluster) apply(opts *server.Options) {
	opts.Cluster.Name = c.Name
	opts.Cluster.Host, opts.Cluster.Port, _ = splitListen(c.Listen)
	for _, r := range c.Routes {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: r})
	}
}

// Validate reports every field that [Start] would refuse.
func (c Config) Validate() error {
	var errs []error
	if c.Listen != "" {
		if _, _, err := splitListen(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf("embedded: Listen %q: %w", c.Listen, err))
		}
	}
	if c.Cluster.given() {
		errs = append(errs, c.Cluster.validate(c)...)
	}
	for _, u := range c.Users {
		if err := u.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("embedded: Users: %w", err))
		}
	}
	if len(c.Users) > 0 && c.Listen == "" {
		errs = append(errs, errors.New("embedded: Users need Listen: they connect over TLS"))
	}
	if c.ReadyTimeout < 0 {
		errs = append(errs, fmt.Errorf("embedded: ReadyTimeout %v: is negative", c.ReadyTimeout))
	}
	return errors.Join(errs...)
}

// Server is a running server. It is safe for concurrent use.
type Server struct {
	lock      *flock.Flock
	temporary string
	secured   *secured
	cfg       Config

	mu      sync.Mutex
	opts    *server.Options
	srv     *server.Server // nil while it is down
	url     string
	stopped bool
}

// Start starts a server and waits until clients can connect. The caller stops
// it.
func Start(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = "rossby-embedded"
	}
	if cfg.ReadyTimeout == 0 {
		cfg.ReadyTimeout = ReadyTimeoutDefault
	}
	s := new(Server)
	if cfg.StoreDir == "" {
		dir, err := os.MkdirTemp("", "rossby-")
		if err != nil {
			return nil, fmt.Errorf("embedded: temporary store: %w", err)
		}
		cfg.StoreDir, s.temporary = dir, dir
	}
	if err := s.takeStore(cfg.StoreDir); err != nil {
		return nil, errors.Join(err, s.clean())
	}
	if err := probe(cfg.Listen); err != nil {
		return nil, errors.Join(err, s.clean())
	}
	opts := &server.Options{
		ServerName: cfg.Name, DontListen: cfg.Listen == "",
		JetStream: true, StoreDir: cfg.StoreDir, SyncAlways: !cfg.LazySync,
		SyncInterval: LazySyncInterval,
		NoSigs:       true, NoLog: true,
	}
	if cfg.Listen != "" {
		// Validate has parsed it already.
		opts.Host, opts.Port, _ = splitListen(cfg.Listen)
	}
	if len(cfg.Users) > 0 {
		var err error
		if s.secured, err = secure(cfg, opts); err != nil {
			return nil, errors.Join(fmt.Errorf("embedded: %w", err), s.clean())
		}
	}
	if cfg.Cluster.given() {
		cfg.Cluster.apply(opts)
	}
	s.cfg, s.opts = cfg, opts
	if err := s.Up(); err != nil {
		return nil, errors.Join(err, s.clean())
	}
	return s, nil
}

// Up starts the server again after [Server.Down], with its data and at its address,
// and waits until clients can connect. A server that is up stays so. It is an error
// when somebody else has the address by now.
func (s *Server) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		return nil
	}
	if s.stopped {
		return errors.New("embedded: the server was stopped for good")
	}
	if s.url != "" {
		// Its address may have been taken meanwhile.
		if err := probe(net.JoinHostPort(s.opts.Host, strconv.Itoa(s.opts.Port))); err != nil {
			return err
		}
	}
	srv, err := server.NewServer(s.opts.Clone())
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(s.cfg.ReadyTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("embedded: not ready after %v at %q with store %q",
			s.cfg.ReadyTimeout, s.cfg.Listen, s.cfg.StoreDir)
	}
	s.srv = srv
	if at, ok := srv.Addr().(*net.TCPAddr); ok {
		s.url, s.opts.Port = srv.ClientURL(), at.Port // where it comes back, too
	}
	return nil
}

// Down shuts the server down and keeps its data and its address, as if its machine
// were away: clients try to reconnect until it is up again.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
		s.srv = nil
	}
}

// IsUp tells whether the server is up.
func (s *Server) IsUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv != nil
}

// takeStore keeps other processes out of the store: two servers in one directory
// overwrite each other's commits without a word. The lock ends with the process.
func (s *Server) takeStore(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("embedded: store: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "rossby.lock"))
	taken, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("embedded: store %q: %w", dir, err)
	}
	if !taken {
		return fmt.Errorf("embedded: store %q is in use by another process", dir)
	}
	s.lock = lock
	return nil
}

// probe finds out at once, and with the reason, whether the address can be had:
// the server itself would try for as long as it may.
func probe(addr string) error {
	if addr == "" {
		return nil
	}
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	l, err := net.ListenTCP("tcp", at)
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return l.Close()
}

// URL is the address for clients, or "" when the server has no TCP listener.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Option makes nats.Connect use a pipe within this process instead of TCP.
func (s *Server) Option() nats.Option { return nats.InProcessServer(s) }

// InProcessConn is what [Server.Option] connects with. Returns
// [nats.ErrNoServers] while the server is down.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	srv := s.srv
	s.mu.Unlock()
	if srv == nil {
		return nil, nats.ErrNoServers
	}
	return srv.InProcessConn()
}

// Stop shuts the server down for good, waits for it, and removes a temporary store.
// It may be called again.
func (s *Server) Stop() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.Down()
	return s.clean()
}

func (s *Server) clean() error {
	if s.lock != nil {
		if err := s.lock.Unlock(); err != nil {
			return fmt.Errorf("embedded: unlock store: %w", err)
		}
	}
	if s.temporary == "" {
		return nil
	}
	if err := os.RemoveAll(s.temporary); err != nil {
		return fmt.Errorf("embedded: remove temporary store: %w", err)
	}
	return nil
}

// splitListen keeps "port 0" apart from nats-server's own reading of 0, which is
// its default port.
func splitListen(addr string) (string, int, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}
