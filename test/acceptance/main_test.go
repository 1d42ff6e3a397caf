package acceptance_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/rossby-go/rossby/jetstream/embedded"
)

// serverEnv makes the test binary a NATS server with the store in that directory,
// so that the server is a process of its own that can be killed.
const (
	serverEnv = "ROSSBY_TEST_SERVER_STORE"
	listenEnv = "ROSSBY_TEST_SERVER_LISTEN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverEnv); dir != "" {
		if err := serve(dir, os.Getenv(listenEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	_ = os.RemoveAll(binaries.dir)
	os.Exit(code)
}

func serve(dir, listen string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	srv, err := embedded.Start(embedded.Config{Listen: listen, StoreDir: dir, LazySync: true, ReadyTimeout: patience})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, "serving", srv.URL()); err != nil {
		return err
	}
	<-ctx.Done()
	return srv.Stop()
}

// binaries are built once for all tests.
var binaries struct {
	once sync.Once
	dir  string
	demo string
	err  error
}

// demoBinary builds cmd/demo.
func demoBinary(t testing.TB) string {
	t.Helper()
	binaries.once.Do(func() {
		//nolint:usetesting // it outlives the test that builds it first
		if binaries.dir, binaries.err = os.MkdirTemp("", "rossby-acceptance-"); binaries.err != nil {
			return
		}
		binaries.demo = filepath.Join(binaries.dir, "demo")
		out, err := exec.Command("go", "build", "-o", binaries.demo, "github.com/rossby-go/rossby/cmd/demo").
			CombinedOutput()
		if err != nil {
			binaries.err = fmt.Errorf("build the demo: %w\n%s", err, out)
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return binaries.demo
}
