package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// childArg begins the first argument of a child of this program.
const childArg = "-child="

// Child is what this process is a child for, its configuration as JSON, and the file
// for [ReportUse]; "" when it is none.
func Child(args []string) (kind, config, use string) {
	if len(args) < 3 || !strings.HasPrefix(args[0], childArg) {
		return "", "", ""
	}
	return strings.TrimPrefix(args[0], childArg), args[1], args[2]
}

// Orphaned ends when the parent wants the child to end in order, or is gone.
func Orphaned() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return ctx, cancel
}

// Process is a child.
type Process struct {
	cmd  *exec.Cmd
	use  string
	in   io.WriteCloser
	done chan struct{}
	err  error

	mu     sync.Mutex
	frozen bool
}

// Start starts this executable as a child of a kind, and waits until it prints a
// line that begins with ready; its other output is appended to the log.
func Start(ctx context.Context, kind string, config any, ready, log string, env ...string) (*Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	use := log + useSuffix
	//nolint:gosec // ourselves
	cmd := exec.CommandContext(context.WithoutCancel(ctx), exe, childArg+kind, string(data), use)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = out
	// Of a group of its own, so that an interrupt is its parent's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{cmd: cmd, use: use, done: make(chan struct{})}
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	said := make(chan struct{})
	go func() {
		defer close(p.done)
		defer func() { _ = out.Close() }()
		found := false
		for s := bufio.NewScanner(stdout); s.Scan(); {
			if !found && strings.HasPrefix(s.Text(), ready) {
				found = true
				close(said)
			}
			_, _ = fmt.Fprintln(out, s.Text())
		}
		p.err = cmd.Wait()
	}()
	select {
	case <-said:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w (see %s)", kind, p.err, log)
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("%s: %w", kind, ctx.Err())
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the process without a chance to clean up, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the process to end in order and waits for it; ctx bounds that.
func (p *Process) Stop(ctx context.Context) error {
	p.Thaw()
	_ = p.in.Close()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("did not end in order: %w", ctx.Err())
	}
}

// Freeze stops the process where it is, until Thaw.
func (p *Process) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.Process.Signal(syscall.SIGSTOP) == nil {
		p.frozen = true
	}
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		p.frozen = false
	}
}
