package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/jetstream/embedded"
)

// childPrefix begins the first argument of a process that this program starts
// from its own executable.
const childPrefix = "-child="

// runChild is such a process.
func runChild(args []string) error {
	switch strings.TrimPrefix(args[0], childPrefix) {
	case "server":
		return serve(args[1], args[2])
	case "node":
		return serveNode(args[1], args[2], args[3], args[4], args[5], args[6])
	case "updater":
		return update(args[1], args[2], args[3])
	case "rebuilder":
		return rebuildOnce(args[1], args[2], args[3])
	case "puller":
		return pull(args[1], args[2], args[3])
	}
	return fmt.Errorf("no child %q", args[0])
}

// start starts a child. It ends when its standard input does, so that none
// outlives this process.
func start(ctx context.Context, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args[0] = childPrefix + args[0]
	// An interrupt ends the row, and then the child in order.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), exe, args...) //nolint:gosec // this program itself
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// line is the next line that the child prints.
func (p *process) line() (string, error) {
	text, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s ended early: %w", p.cmd.Args[1], err)
	}
	return strings.TrimSpace(text), nil
}

// stop ends the child and waits for it.
func (p *process) stop() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// orphaned is closed when the parent wants the child to end, or is gone.
func orphaned() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return done
}

// heapAsked is what a parent writes to be told the heap of a server.
const heapAsked = "heap\n"

// asked is [orphaned] for a server, which tells its heap when it is asked.
func asked() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for in := bufio.NewReader(os.Stdin); ; {
			text, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if text == heapAsked {
				var mem runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&mem)
				fmt.Println(mem.HeapAlloc)
			}
		}
	}()
	return done
}

// heap is what a server's process holds after a garbage collection, in bytes.
func (p *process) heap() (int64, error) {
	if _, err := io.WriteString(p.in, heapAsked); err != nil {
		return 0, err
	}
	text, err := p.line()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// serve runs a server until the parent is done with it.
func serve(dir, fsync string) error {
	done := asked()
	stopProfile, err := childProfile("server")
	if err != nil {
		return err
	}
	srv, err := embedded.Start(embedded.Config{
		Listen: "127.0.0.1:0", StoreDir: dir, LazySync: fsync != fsyncAlways, ReadyTimeout: time.Minute,
	})
	if err != nil {
		return err
	}
	fmt.Println(srv.URL())
	<-done
	return errors.Join(srv.Stop(), stopProfile())
}

// profileVariable names a directory for CPU profiles of the servers' and the
// updaters' processes. Each process overwrites the one before.
const profileVariable = "ROSSBY_BENCH_PROFILES"

func childProfile(kind string) (stop func() error, err error) {
	if dir := os.Getenv(profileVariable); dir != "" {
		return profileTo(filepath.Join(dir, kind+".prof"))
	}
	return func() error { return nil }, nil
}

// report is what a child has measured.
type report struct {
	Elapsed time.Duration `json:"elapsed"`
	// Peak is the most memory that the process ever had, in bytes; 0 where that
	// cannot be told.
	Peak int64 `json:"peak"`
}

func (r report) print() error {
	r.Peak = peakMemory()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// measured runs a child that prints a report.
func measured(ctx context.Context, args ...string) (r report, err error) {
	p, err := start(ctx, args...)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	defer context.AfterFunc(ctx, func() { _ = p.in.Close() })()
	text, err := p.line()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(text), &r)
}

// peakMemory reads what Linux keeps of this process.
func peakMemory() int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
