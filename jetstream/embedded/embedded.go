// Package embedded runs a NATS server with JetStream inside this process, for
// demos and tests. It is the only package of Rossby that links nats-server;
// a program for production connects to servers of its own.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
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

// Validate reports every field that [Start] would refuse.
func (c Config) Validate() error {
	var errs []error
	if c.Listen != "" {
		if _, _, err := splitListen(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf("embedded: Listen %q: %w", c.Listen, err))
		}
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

// Server is a running server.
type Server struct {
	srv       *server.Server
	lock      *flock.Flock
	temporary string
	secured   *secured
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
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: %w", err), s.clean())
	}
	s.srv = srv
	srv.Start()
	if !srv.ReadyForConnections(cfg.ReadyTimeout) {
		err := fmt.Errorf("embedded: not ready after %v at %q with store %q", cfg.ReadyTimeout, cfg.Listen, cfg.StoreDir)
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
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
	if s.srv.Addr() == nil {
		return ""
	}
	return s.srv.ClientURL()
}

// Option makes nats.Connect use a pipe within this process instead of TCP. Such
// a connection does not survive the server.
func (s *Server) Option() nats.Option { return nats.InProcessServer(s.srv) }

// Stop shuts the server down, waits for it, and removes a temporary store. It
// may be called again.
func (s *Server) Stop() error {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
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
