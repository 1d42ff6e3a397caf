package acceptance_test

import (
	"bytes"
	"context"
	"fmt"
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

	mu  sync.Mutex
	out bytes.Buffer
	// read is how much of the output line has looked at, more is sent when there is more.
	read int
	more chan struct{}
}

// start starts a child that the test's end kills.
func start(t testing.TB, name string, env []string, binary string, args ...string) *process {
	t.Helper()
	p := &process{name: name, done: make(chan struct{}), more: make(chan struct{}, 1)}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = append(os.Environ(), env...)
	// Its own group, so that a Ctrl-C for the tests does not race with their end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = patience // children of its own may hold its output
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, p.output())
		}
	})
	return p
}

// Write keeps what the process prints.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.out.Write(text)
}

// next is the next whole line that line has not looked at.
func (p *process) next() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, _, whole := strings.Cut(string(p.out.Bytes()[p.read:]), "\n")
	if whole {
		p.read += len(text) + 1
	}
	return text, whole
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
	for ended := false; ; {
		for l, ok := p.next(); ok; l, ok = p.next() {
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				return strings.TrimSpace(rest)
			}
		}
		if ended {
			t.Fatalf("%s ended (%v) before it said %q:\n%s", p.name, p.err, prefix, p.output())
		}
		select {
		case <-p.more:
		case <-p.done:
			ended = true // What it said last may not have been looked at.
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
