package natstest_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestRunAndConn(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	if _, err := natstest.JetStream(t, nc).AccountInfo(t.Context()); err != nil {
		t.Fatalf("no JetStream: %v", err)
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	t.Run("With_Odd CHARACTERS/and a name so long that it would not fit anywhere", func(t *testing.T) {
		t.Parallel()
		a, b := natstest.Name(t), natstest.Name(t)
		if a == b {
			t.Errorf("twice %q", a)
		}
		if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,59}$`).MatchString(a) {
			t.Errorf("not a name: %q", a)
		}
	})
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	nc := c.Conn(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	name := natstest.Name(t)
	natstest.CreateStream(t, nc, jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}, Replicas: 3})
	natstest.Retry(t, "create a consumer", func(ctx context.Context) error {
		_, err := js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: "c", Replicas: 3})
		return err
	})
	c.StepDown(t, name)
	c.StepDownConsumer(t, name, "c")

	leader := c.Leader(t, name)
	c.Stop(leader)
	publish := func(ctx context.Context) error {
		_, err := js.Publish(ctx, name+".a", nil)
		return err
	}
	natstest.Retry(t, "a publish without the old leader", publish)
	c.Restart(t, leader)
	c.WaitReady(t)
	if got := len(c.Servers); got != 3 || c.Servers[leader] == nil {
		t.Errorf("servers after the restart: %v", c.Servers)
	}
	natstest.Retry(t, "a publish after the restart", publish)
}

// TestOnlyTestsLinkNATSServer: a program that imports a package of Rossby must
// not carry a server.
func TestOnlyTestsLinkNATSServer(t *testing.T) {
	t.Parallel()
	const module = "github.com/rossby-go/rossby/"
	allowed := []string{"internal/natstest", "jetstream/embedded", "cmd/demo", "examples", "test"}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-f", `{{.ImportPath}} {{join .Deps " "}}`, "./...")
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		for _, dep := range fields[1:] {
			if dep == module+"internal/natstest" && !strings.HasPrefix(pkg+"/", "test/") {
				t.Errorf("%s imports internal/natstest outside its tests", pkg)
			}
			if !strings.HasPrefix(dep, "github.com/nats-io/nats-server/") {
				continue
			}
			ok := false
			for _, a := range allowed {
				ok = ok || strings.HasPrefix(pkg+"/", a+"/")
			}
			if !ok {
				t.Errorf("%s links %s", pkg, dep)
				break
			}
		}
	}
}

// TestFailure: what a test complains about is told, and fails nothing.
func TestFailure(t *testing.T) {
	t.Parallel()
	got := natstest.Failure(t, func(t testing.TB) {
		t.Error("a", 1)
		t.Errorf("b%d", 2)
		end := t.Fatal
		end("c")
		t.Error("never")
	})
	if got != "a 1\nb2\nc" {
		t.Errorf("%q", got)
	}
	if got := natstest.Failure(t, func(testing.TB) {}); got != "" {
		t.Errorf("%q", got)
	}
	natstest.Fails(t, func(t testing.TB) { natstest.Fails(t, func(testing.TB) {}) }, "it did not fail")
	natstest.Fails(t, func(t testing.TB) {
		natstest.Fails(t, func(t testing.TB) { t.Fatalf("for a reason") }, "reason", "another")
	}, `it does not say "another"`)
}
