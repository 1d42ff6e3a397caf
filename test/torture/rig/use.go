package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Use is what a process uses.
type Use struct {
	// RSS is the memory that it has from the system, Heap what of Go's heap was alive
	// after the last collection, in KiB.
	RSS, Heap int
	// Files are the open files and connections.
	Files      int
	Goroutines int
}

const (
	useSuffix = ".use"
	useEvery  = 2 * time.Second
)

// own is what only the process itself knows.
type own struct {
	Pid        int `json:"pid"`
	Heap       int `json:"heap"`
	Goroutines int `json:"goroutines"`
}

func ownUse() own {
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	kib := heap[0].Value.Uint64() / 1024
	return own{Pid: os.Getpid(), Heap: int(kib), Goroutines: runtime.NumGoroutine()} //nolint:gosec // fits
}

// ReportUse writes what only this process knows of its use into a file, now and then,
// until the returned function is called.
func ReportUse(path string) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(useEvery)
		defer tick.Stop()
		for {
			// Whole or not at all: it may be read, or this process killed, meanwhile.
			if data, err := json.Marshal(ownUse()); err == nil && os.WriteFile(path+"~", data, 0o600) == nil {
				_ = os.Rename(path+"~", path)
			}
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

// Use is what the process uses. It fails when the process has ended.
func (p *Process) Use() (Use, error) { return useOf(p.cmd.Process.Pid, p.use) }

// OwnUse is what this process uses.
func OwnUse() (Use, error) {
	u, err := system(os.Getpid())
	o := ownUse()
	u.Heap, u.Goroutines = o.Heap, o.Goroutines
	return u, err
}

func useOf(pid int, path string) (Use, error) {
	u, err := system(pid)
	if err != nil {
		return u, err
	}
	var o own
	if data, err := os.ReadFile(path); err != nil {
		return u, err
	} else if err := json.Unmarshal(data, &o); err != nil {
		return u, err
	}
	if o.Pid != pid {
		return u, fmt.Errorf("process %d has not told its use yet", pid)
	}
	u.Heap, u.Goroutines = o.Heap, o.Goroutines
	return u, nil
}

// system is what Linux says of a process.
func system(pid int) (u Use, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if u.RSS, err = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB")); err != nil {
				return u, err
			}
		}
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	u.Files = len(open)
	if u.RSS == 0 {
		err = errors.Join(err, fmt.Errorf("process %d has ended", pid))
	}
	return u, err
}
