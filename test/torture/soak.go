package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	soakEvery = 10 * time.Second
	soakFile  = "soak.csv"
)

// soak runs the load at its steady rate for so long, with rolling restarts all the
// while, and samples what must not grow: memory, open files and goroutines of every
// process, and the store's consumers.
func (e *env) soak(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := os.Create(filepath.Join(e.dir, soakFile))
	if err != nil {
		return err
	}
	w := csv.NewWriter(out)
	defer func() { _ = out.Close() }()
	if err := w.Write([]string{"seconds", "process", "rss_kb", "open_files", "goroutines", "consumers"}); err != nil {
		return err
	}
	tick := time.NewTicker(soakEvery)
	defer tick.Stop()
	for {
		e.sample(ctx, w)
		if w.Flush(); w.Error() != nil {
			return w.Error()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sample writes a line for each process. One that is being restarted has none.
func (e *env) sample(ctx context.Context, w *csv.Writer) {
	seconds := strconv.Itoa(int(time.Since(e.began).Seconds()))
	var info struct {
		State struct {
			Consumers int `json:"consumer_count"`
		} `json:"state"`
	}
	once, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	consumers := ""
	if e.cluster.API(once, "STREAM.INFO."+storeName, nil, &info) == nil {
		consumers = strconv.Itoa(info.State.Consumers)
	}
	write := func(name string, pid int, goroutines string) {
		rss, files, err := usage(pid)
		if err == nil {
			_ = w.Write([]string{seconds, name, strconv.Itoa(rss), strconv.Itoa(files), goroutines, consumers})
		}
	}
	write("rig", os.Getpid(), strconv.Itoa(runtime.NumGoroutine()))
	for i, m := range e.modules {
		write(moduleNames[i], m.Pid(), strconv.Itoa(e.receiver.goroutines(moduleNames[i])))
	}
	for _, n := range e.cluster.Nodes {
		write(n.Name, n.Pid(), "")
	}
}

// usage is what Linux says of a process: its memory in KiB, and its open files.
func usage(pid int) (rss, files int, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if rss, err = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB")); err != nil {
				return 0, 0, err
			}
		}
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	if rss == 0 {
		err = errors.Join(err, fmt.Errorf("process %d has ended", pid))
	}
	return rss, len(open), err
}
