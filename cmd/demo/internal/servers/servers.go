// Package servers runs the demo's own NATS servers: one in this process, or a cluster
// of processes that can be killed.
package servers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rossby-go/rossby/jetstream/embedded"
)

// startTimeout is how long a server may take until clients can connect.
const startTimeout = 30 * time.Second

// ready is what a server's process says when clients can connect.
const ready = "ready"

// Config describes servers that are processes.
type Config struct {
	// Executable and Args begin the command that runs [Main] with its last argument.
	Executable string
	Args       []string
	// Count is how many there are: 3 or 5.
	Count int
	// Listen is the first one's address for clients; the others take the ports after
	// it, or free ones for port 0.
	Listen string
	// StoreDir keeps their data. Defaults to a temporary one.
	StoreDir string
	// LazySync is as in [embedded.Config].
	LazySync bool
	// Errors gets what they complain about.
	Errors io.Writer
}

// Validate reports what [Start] would refuse.
func (c Config) Validate() error {
	if c.Count != 3 && c.Count != 5 {
		return fmt.Errorf("--servers %d: a cluster has 3 or 5", c.Count)
	}
	return nil
}

// Cluster is servers that are processes.
type Cluster struct {
	// Servers are all of them.
	Servers   []*Server
	temporary string
}

// Start starts servers and waits until clients can connect to each.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{}
	if cfg.StoreDir == "" {
		dir, err := os.MkdirTemp("", "rossby-demo-")
		if err != nil {
			return nil, err
		}
		cfg.StoreDir, c.temporary = dir, dir
	}
	clients, err := addresses(ctx, cfg.Listen, cfg.Count)
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	routes, err := addresses(ctx, "127.0.0.1:0", cfg.Count)
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	for i := range cfg.Count {
		name := "n" + strconv.Itoa(i+1)
		told, err := json.Marshal(embedded.Config{ //nolint:musttag // read by the same program
			Name: name, Listen: clients[i], StoreDir: filepath.Join(cfg.StoreDir, name), LazySync: cfg.LazySync,
			ReadyTimeout: startTimeout,
			Cluster:      embedded.Cluster{Name: "rossby-demo", Listen: routes[i], Routes: routes},
		})
		if err != nil {
			return nil, errors.Join(err, c.Stop())
		}
		c.Servers = append(c.Servers, &Server{
			Name: name, URL: "nats://" + clients[i], executable: cfg.Executable,
			args: append(slices.Clone(cfg.Args), string(told)), errors: cfg.Errors,
		})
	}
	errs := make([]error, len(c.Servers))
	var wg sync.WaitGroup
	for i, s := range c.Servers {
		wg.Go(func() { errs[i] = s.Start(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// URL is the addresses of all servers.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.URL
	}
	return strings.Join(urls, ",")
}

// Stop ends all servers, and removes a temporary store.
func (c *Cluster) Stop() error {
	var wg sync.WaitGroup
	for _, s := range c.Servers {
		wg.Go(func() { s.Kill(false) })
	}
	wg.Wait()
	if c.temporary == "" {
		return nil
	}
	return os.RemoveAll(c.temporary)
}

// addresses are as many free addresses, from the first one on.
func addresses(ctx context.Context, first string, count int) ([]string, error) {
	host, port, err := net.SplitHostPort(first)
	if err != nil {
		return nil, err
	}
	base, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	out := make([]string, count)
	for i := range out {
		at := 0
		if base != 0 {
			at = base + i
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(at)))
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // all are taken until all are known
		out[i] = l.Addr().String()
	}
	return out, nil
}

// Server is a server that is a process. It is safe for concurrent use.
type Server struct {
	Name, URL string

	executable string
	args       []string
	errors     io.Writer

	mu      sync.Mutex
	process *os.Process
	alive   io.Closer // its input: it ends in order when that is closed
	// ended is closed when the process has.
	ended  chan struct{}
	killed bool
}

// State tells whether it runs, as which process, and whether it was killed.
func (s *Server) State() (running, killed bool, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs() {
		return true, false, s.process.Pid
	}
	return false, s.killed, 0
}

func (s *Server) runs() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Start starts it and waits until clients can connect. One that runs is left alone.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs() {
		return nil
	}
	// It ends with this process, however that ends: its input is closed then.
	cmd := exec.Command(s.executable, s.args...) //nolint:gosec,noctx // this program; its end is not the request's
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = s.errors
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("server %s: %w", s.Name, err)
	}
	s.process, s.alive, s.ended = cmd.Process, alive, make(chan struct{})
	s.killed = true // if it ends without having been told to
	ended, started := s.ended, make(chan bool, 1)
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		started <- lines.Scan() && lines.Text() == ready
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		_ = alive.Close()
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case ok := <-started:
		if ok {
			return nil
		}
		err = errors.New("it ended at once")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = cmd.Process.Kill()
	<-ended
	return fmt.Errorf("server %s: %w", s.Name, err)
}

// Kill ends the process and waits for it: at once, as a failure does, or in order.
func (s *Server) Kill(atOnce bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runs() {
		return
	}
	s.killed = atOnce
	if !atOnce && s.alive.Close() == nil {
		select {
		case <-s.ended:
			return
		case <-time.After(startTimeout):
		}
	}
	_ = s.process.Kill()
	<-s.ended
}

// Main is one server, as told by [Start], until ctx or its input ends.
func Main(ctx context.Context, told string, in io.Reader, out io.Writer) error {
	var cfg embedded.Config
	if err := json.Unmarshal([]byte(told), &cfg); err != nil { //nolint:musttag // as above
		return fmt.Errorf("a server's configuration %q: %w", told, err)
	}
	srv, err := embedded.Start(cfg)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	_, err = fmt.Fprintln(out, ready)
	if err == nil {
		select {
		case <-ctx.Done():
		case <-ended:
		}
	}
	return errors.Join(err, srv.Stop())
}
