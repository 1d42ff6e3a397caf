package servers_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/cmd/demo/internal/servers"
	"github.com/rossby-go/rossby/internal/natstest"
)

// asServer makes this program one of the servers that its tests start.
const asServer = "a-server-of-the-demo"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asServer {
		if len(os.Args) != 3 { // never the tests: they would start themselves again and again
			os.Exit(2)
		}
		if err := servers.Main(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	natstest.VerifyTestMain(m)
}

// Servers that are processes are killed and told to end, and come back at their
// addresses.
func TestCluster(t *testing.T) {
	t.Parallel()
	cfg := servers.Config{
		Executable: os.Args[0], Args: []string{asServer}, Count: 3, Listen: "127.0.0.1:0", StoreDir: t.TempDir(),
		LazySync: true, Errors: os.Stderr,
	}
	// A connection that somebody makes may get a port before its server has it.
	var c *servers.Cluster
	started := natstest.Eventually(t, "the ports are free", func() (err error) {
		c, err = servers.Start(t.Context(), cfg)
		return err
	})
	if !started {
		t.FailNow()
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		for _, s := range c.Servers {
			if running, _, _ := s.State(); running {
				t.Errorf("%s still runs", s.Name)
			}
		}
	})
	if got := strings.Count(c.URL(), ","); got != 2 {
		t.Errorf("URL %s", c.URL())
	}
	s := c.Servers[1]
	_, _, first := s.State()
	for _, atOnce := range []bool{true, false} {
		nc := natstest.Conn(t, s.URL, nats.NoReconnect())
		closed := nc.StatusChanged(nats.CLOSED)
		s.Kill(atOnce)
		s.Kill(!atOnce) // which it is already
		<-closed
		if running, killed, pid := s.State(); running || killed != atOnce || pid != 0 {
			t.Errorf("running %v, killed %v, process %d", running, killed, pid)
		}
		natstest.Eventually(t, "the port is free", func() error { return s.Start(t.Context()) })
		_, _, pid := s.State()
		if err := s.Start(t.Context()); err != nil { // which it is already
			t.Fatal(err)
		}
		if running, killed, again := s.State(); !running || killed || again != pid || pid == first {
			t.Errorf("running %v, killed %v, process %d, was %d and %d", running, killed, again, pid, first)
		}
	}
	// One that somebody else kills is seen to be dead.
	_, _, pid := s.State()
	if out, err := exec.CommandContext(t.Context(), "kill", "-9", strconv.Itoa(pid)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	natstest.Eventually(t, "it is dead", func() error {
		if running, killed, _ := s.State(); running || !killed {
			return fmt.Errorf("running %v, killed %v", running, killed)
		}
		return nil
	})
}

func TestClusterThatCannotStart(t *testing.T) {
	t.Parallel()
	cfg := servers.Config{Executable: os.Args[0], Args: []string{asServer}, Count: 2, Listen: "127.0.0.1:0"}
	if _, err := servers.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--servers 2") {
		t.Errorf("two servers: %v", err)
	}
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cfg.Count, cfg.Listen = 3, taken.Addr().String()
	if _, err := servers.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), cfg.Listen) {
		t.Errorf("a taken address: %v", err)
	}
	cfg.Listen, cfg.Args = "127.0.0.1:0", []string{asServer, "too", "many"}
	if _, err := servers.Start(t.Context(), cfg); err == nil {
		t.Error("started what is no server")
	}
	if err := servers.Main(t.Context(), "{", strings.NewReader(""), os.Stdout); err == nil {
		t.Error("started without a configuration")
	}
}
