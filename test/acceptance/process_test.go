package acceptance_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
)

// process is a child process whose output is read line by line.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu    sync.Mutex
	out   bytes.Buffer
	lines chan string
}

// start starts a child that the test's end kills.
func start(t testing.TB, name string, env []string, binary string, args ...string) *process {
	t.Helper()
	p := &process{name: name, done: make(chan struct{}), lines: make(chan string, 100)}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = append(os.Environ(), env...)
	// Its own group, so that a Ctrl-C for the tests does not race with their end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.mu.Lock()
			p.out.WriteString(s.Text() + "\n")
			p.mu.Unlock()
			select {
			case p.lines <- s.Text():
			default:
			}
		}
	}()
	go func() {
		p.err = p.cmd.Wait()
		_ = w.Close()
		<-read
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, p.output())
		}
	})
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.out.String()
	if len(text) > 8000 {
		text = "…" + text[len(text)-8000:]
	}
	return text
}

// kill ends the process without a chance to clean up.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end and returns how it did.
func (p *process) stop(t testing.TB) error {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.name, patience)
	}
}

// line waits for a line that begins with the prefix and returns the rest.
func (p *process) line(t testing.TB, prefix string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case l := <-p.lines:
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				return strings.TrimSpace(rest)
			}
		case <-p.done:
			t.Fatalf("%s ended (%v) before it said %q:\n%s", p.name, p.err, prefix, p.output())
		case <-timeout:
			t.Fatalf("%s did not say %q within %v:\n%s", p.name, prefix, patience, p.output())
		}
	}
}

// server starts a NATS server in a process of its own.
func server(t testing.TB) (url string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "nats-server", []string{serverEnv + "=" + t.TempDir(), listenEnv + "=127.0.0.1:0"}, self)
	return p.line(t, "serving ")
}

// patience bounds what would hang; what is slow takes its time.
const patience = 2 * natstest.Patience

// eventually repeats the check until it passes.
func eventually(ctx context.Context, t testing.TB, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}
