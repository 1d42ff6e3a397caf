package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/jetstream/roles"
)

func TestInProcessOnly(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	if got := srv.URL(); got != "" {
		t.Errorf("URL %q without a listener", got)
	}
	nc := natstest.Conn(t, "", srv.Option())
	publish(t, nc, "over a pipe")
	if got := nc.ConnectedServerName(); got != "rossby-embedded" {
		t.Errorf("server name %q", got)
	}
}

func TestTCPAndInProcess(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{Listen: "127.0.0.1:0", LazySync: true, Name: "mine"})
	if got := srv.URL(); !strings.HasPrefix(got, "nats://127.0.0.1:") || strings.HasSuffix(got, ":0") ||
		strings.HasSuffix(got, ":4222") {
		t.Errorf("URL %q for port 0", got)
	}
	tcp, pipe := natstest.Conn(t, srv.URL()), natstest.Conn(t, "", srv.Option())
	for _, nc := range []*nats.Conn{tcp, pipe} {
		if got := nc.ConnectedServerName(); got != "mine" {
			t.Errorf("server name %q", got)
		}
	}
	publish(t, tcp, "over TCP")
	if got := messages(t, pipe); got != 1 {
		t.Errorf("%d messages seen over the pipe", got)
	}
}

func TestTwoServersOnPort0(t *testing.T) {
	t.Parallel()
	cfg := embedded.Config{Listen: "127.0.0.1:0", LazySync: true}
	a, b := start(t, cfg), start(t, cfg)
	if a.URL() == b.URL() {
		t.Errorf("both at %q", a.URL())
	}
	publish(t, natstest.Conn(t, a.URL()), "into a")
	if got := messages(t, natstest.Conn(t, b.URL())); got != 0 {
		t.Errorf("%d messages in b", got)
	}
}

// Not parallel: the temporary store's place comes from the environment.
func TestTemporaryStoreIsRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	srv := start(t, embedded.Config{})
	publish(t, natstest.Conn(t, "", srv.Option()), "soon gone")
	if got := entries(t, dir); len(got) != 1 {
		t.Fatalf("the store is not in the temporary directory: %q", got)
	}
	for range 2 { // It may be stopped again.
		if err := srv.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

// Not parallel: see above.
func TestTemporaryStoreIsRemovedAfterAFailedStart(t *testing.T) {
	addr := natstest.Addr(t)
	start(t, embedded.Config{Listen: addr, StoreDir: t.TempDir(), LazySync: true})
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	srv, err := embedded.Start(embedded.Config{Listen: addr})
	if err == nil {
		_ = srv.Stop()
		t.Fatal("two servers on one port")
	}
	if !strings.Contains(err.Error(), addr) {
		t.Errorf("%q does not name the address %s", err, addr)
	}
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestStoreDirIsKept(t *testing.T) {
	t.Parallel()
	for name, lazy := range map[string]bool{"SyncAlways": false, "LazySync": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := embedded.Config{
				Listen: natstest.Addr(t), StoreDir: filepath.Join(t.TempDir(), "made", "by", "start"), LazySync: lazy,
			}
			srv := start(t, cfg)
			nc := natstest.Conn(t, srv.URL())
			publish(t, nc, "first")
			url, back := srv.URL(), nc.StatusChanged(nats.CONNECTED)
			if err := srv.Stop(); err != nil {
				t.Fatal(err)
			}
			if got := entries(t, cfg.StoreDir); len(got) == 0 {
				t.Fatal("the store is gone")
			}
			srv = start(t, cfg)
			if srv.URL() != url {
				t.Errorf("came back at %q, not %q", srv.URL(), url)
			}
			<-back
			if got := messages(t, nc); got != 1 {
				t.Errorf("%d messages after the restart", got)
			}
		})
	}
}

func TestStoreDirThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := embedded.Start(embedded.Config{StoreDir: filepath.Join(file, "below")})
	if err == nil {
		_ = srv.Stop()
		t.Fatal("started")
	}
}

// A server that was down comes back with its data, at its address; clients over TCP
// and over the pipe find it again.
func TestDownAndUp(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{Listen: "127.0.0.1:0", LazySync: true})
	url := srv.URL()
	tcp, pipe := natstest.Conn(t, url), natstest.Conn(t, "", srv.Option())
	publish(t, tcp, "first")
	for round := range uint64(2) {
		back := []chan nats.Status{tcp.StatusChanged(nats.CONNECTED), pipe.StatusChanged(nats.CONNECTED)}
		srv.Down()
		srv.Down() // which it is already
		if srv.IsUp() || srv.URL() != url {
			t.Errorf("up: %v, at %q", srv.IsUp(), srv.URL())
		}
		if nc, err := nats.Connect("", srv.Option()); err == nil {
			nc.Close()
			t.Error("connected to a server that is down")
		}
		// A connection that somebody made may have the port, for as long as it takes.
		natstest.Eventually(t, "the port is free", srv.Up)
		if err := srv.Up(); err != nil {
			t.Fatal(err)
		}
		if !srv.IsUp() || srv.URL() != url {
			t.Errorf("up: %v, at %q, not %q", srv.IsUp(), srv.URL(), url)
		}
		for _, c := range back {
			<-c
		}
		for _, nc := range []*nats.Conn{tcp, pipe} {
			if got := messages(t, nc); got != round+1 {
				t.Errorf("%d messages after restart %d", got, round)
			}
		}
		publish(t, pipe, "another")
	}
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := srv.Up(); err == nil {
		t.Error("a server that was stopped for good came up")
	}
}

// A server whose address somebody else has taken while it was down says so at once,
// and comes up when it is free again.
func TestUpWhereTheAddressIsTaken(t *testing.T) {
	t.Parallel()
	addr := natstest.Addr(t)
	srv := start(t, embedded.Config{Listen: addr, LazySync: true})
	publish(t, natstest.Conn(t, "", srv.Option()), "first")
	srv.Down()
	other, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Up(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), addr) {
		t.Errorf("up where %s is taken: %v", addr, err)
	}
	if srv.IsUp() {
		t.Error("it is up")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := srv.Up(); err != nil {
		t.Fatal(err)
	}
	if got := messages(t, natstest.Conn(t, srv.URL())); got != 1 {
		t.Errorf("%d messages", got)
	}
}

// Three servers take what is to be stored while one of them is away, which has it when
// it is back.
func TestCluster(t *testing.T) {
	t.Parallel()
	addrs := []string{natstest.Addr(t), natstest.Addr(t), natstest.Addr(t)}
	servers, name := make([]*embedded.Server, len(addrs)), natstest.Name(t)
	urls := make([]string, len(addrs))
	for i := range servers {
		servers[i] = start(t, embedded.Config{
			Listen: natstest.Addr(t), Name: "n" + strconv.Itoa(i), StoreDir: t.TempDir(), LazySync: true,
			Cluster: embedded.Cluster{Name: name, Listen: addrs[i], Routes: addrs},
		})
		urls[i] = servers[i].URL()
	}
	nc := natstest.Conn(t, strings.Join(urls, ","))
	js := natstest.JetStream(t, nc)
	natstest.Retry(t, "a stream on three servers", func(ctx context.Context) error {
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: stream, Subjects: []string{stream}, Replicas: 3,
		})
		return err
	})
	servers[0].Down()
	natstest.Retry(t, "stored on two of three", func(ctx context.Context) error {
		_, err := js.Publish(ctx, stream, nil, jetstream.WithMsgID("one"))
		return err
	})
	if err := servers[0].Up(); err != nil {
		t.Fatal(err)
	}
	natstest.Retry(t, "all in sync", func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		info := s.CachedInfo()
		if info.State.Msgs != 1 || info.Cluster.Leader == "" {
			return fmt.Errorf("%d messages, leader %q", info.State.Msgs, info.Cluster.Leader)
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current {
				err = errors.Join(err, fmt.Errorf("%s is %d behind", r.Name, r.Lag))
			}
		}
		return err
	})
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cfg  embedded.Config
		want []string
	}{
		"Zero":         {},
		"Port0":        {cfg: embedded.Config{Listen: "127.0.0.1:0"}},
		"AnyHost":      {cfg: embedded.Config{Listen: ":4222"}},
		"IPv6":         {cfg: embedded.Config{Listen: "[::1]:4222"}},
		"NoPort":       {embedded.Config{Listen: "127.0.0.1"}, []string{`Listen "127.0.0.1"`}},
		"PortName":     {embedded.Config{Listen: "127.0.0.1:nats"}, []string{`port "nats"`}},
		"PortNegative": {embedded.Config{Listen: "127.0.0.1:-1"}, []string{`port "-1"`}},
		"PortTooHigh":  {embedded.Config{Listen: "127.0.0.1:65536"}, []string{`port "65536"`}},
		"Cluster": {
			embedded.Config{Cluster: embedded.Cluster{Listen: "x", Routes: []string{"127.0.0.1:y"}}},
			[]string{"Cluster needs Cluster.Name, Listen and Name", `Cluster.Listen "x"`, `Cluster.Routes "127.0.0.1:y"`},
		},
		"ClusterAlone": {
			embedded.Config{
				Listen: "127.0.0.1:0", Name: "n", Users: []roles.User{{Name: "u"}},
				Cluster: embedded.Cluster{Name: "c", Listen: "127.0.0.1:0"},
			},
			[]string{"Cluster.Routes is empty", "Cluster with Users"},
		},
		"Both": {
			embedded.Config{Listen: "x", ReadyTimeout: -time.Second},
			[]string{`Listen "x"`, "ReadyTimeout -1s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.cfg.Validate()
			if len(tc.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("valid")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
			if srv, err := embedded.Start(tc.cfg); err == nil {
				_ = srv.Stop()
				t.Error("started")
			}
		})
	}
}

const stream = "kept"

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if cfg.ReadyTimeout == 0 {
		cfg.ReadyTimeout = natstest.Patience
	}
	srv, err := embedded.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

// publish stores a message in a file stream.
func publish(t *testing.T, nc *nats.Conn, text string) {
	t.Helper()
	js := natstest.JetStream(t, nc)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), stream, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// messages counts those of the stream, 0 when there is none.
func messages(t *testing.T, nc *nats.Conn) uint64 {
	t.Helper()
	s, err := natstest.JetStream(t, nc).Stream(t.Context(), stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names
}
