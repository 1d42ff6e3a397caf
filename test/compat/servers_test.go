package compat_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// The versions, and the directories of the modules that have them.
var versions = map[string]*version{
	"Oldest": {module: "../oldest"},
	"Newest": {module: "."},
}

// version is a nats-server that is built once.
type version struct {
	module string

	once sync.Once
	path string
	err  error
}

var builds string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rossby-compat-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func (v *version) binary(t testing.TB) string {
	t.Helper()
	v.once.Do(func() {
		v.path = filepath.Join(builds, strings.ReplaceAll(t.Name(), "/", "-"))
		cmd := exec.Command("go", "build", "-o", v.path, "github.com/nats-io/nats-server/v2")
		cmd.Dir = v.module
		if out, err := cmd.CombinedOutput(); err != nil {
			v.err = fmt.Errorf("build nats-server of %s: %w\n%s", v.module, err, out)
		}
	})
	if v.err != nil {
		t.Fatal(v.err)
	}
	return v.path
}

// servers are processes of one version.
type servers struct {
	urls []string
	stop func()
}

// start starts n servers, each with its data below dir.
func (v *version) start(t testing.TB, dir string, n int) *servers {
	t.Helper()
	addr := func() (host, port string) {
		host, port, err := net.SplitHostPort(natstest.Addr(t))
		if err != nil {
			t.Fatal(err)
		}
		return host, port
	}
	s := new(servers)
	routes := make([]string, 0, n)
	ports := make([][2]string, n)
	for i := range n {
		_, client := addr()
		_, route := addr()
		ports[i] = [2]string{client, route}
		routes = append(routes, "nats://127.0.0.1:"+route)
		s.urls = append(s.urls, "nats://127.0.0.1:"+client)
	}
	running := make([]*exec.Cmd, 0, n)
	for i := range n {
		args := []string{
			"-a", "127.0.0.1", "-p", ports[i][0], "-js", "-sd", filepath.Join(dir, strconv.Itoa(i)), "-n", fmt.Sprint("s", i),
		}
		if n > 1 {
			args = append(args, "--cluster_name", "compat", "--cluster", routes[i], "--routes", strings.Join(routes, ","))
		}
		cmd := exec.Command(v.binary(t), args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	s.stop = sync.OnceFunc(func() {
		for _, cmd := range running {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait() // the server ends with a status of its own
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *servers) connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
		URL: strings.Join(s.urls, ","), Wait: natstest.Patience, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
