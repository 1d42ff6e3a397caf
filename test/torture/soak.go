package main

import (
	"context"
	"encoding/csv"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/test/torture/rig"
)

const (
	soakEvery = 10 * time.Second
	soakFile  = "soak.csv"
)

// soakColumns are those of soak.csv. Consumers are those of all streams; messages and
// operations, of the store and of its clients so far, show that the load goes on, and
// faults are the disturbances that are over.
func soakColumns() []string {
	return []string{
		"seconds", "process", "rss_kb", "heap_kb", "open_files", "goroutines", "consumers", "messages",
		"operations", "faults",
	}
}

// soak runs the load at its steady rate for so long, with disturbances all the while,
// and samples what must not grow: memory, open files and goroutines of every process,
// and JetStream's consumers.
func (e *env) soak(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := os.Create(filepath.Join(e.dir, soakFile))
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	w := csv.NewWriter(out)
	if err := w.Write(soakColumns()); err != nil {
		return err
	}
	tick := time.NewTicker(soakEvery)
	defer tick.Stop()
	for {
		err := e.sample(ctx, w)
		if w.Flush(); err != nil || w.Error() != nil {
			return errors.Join(err, w.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sample writes a line for each process. One that is being restarted has none.
func (e *env) sample(ctx context.Context, w *csv.Writer) error {
	seconds := strconv.Itoa(int(time.Since(e.began).Seconds()))
	once, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// What no server answers stays empty.
	consumers, messages := "", ""
	var all struct {
		Consumers int `json:"consumers"`
	}
	if e.cluster.API(once, "INFO", nil, &all) == nil {
		consumers = strconv.Itoa(all.Consumers)
	}
	var info struct {
		State struct {
			Messages uint64 `json:"messages"`
		} `json:"state"`
	}
	if e.cluster.API(once, "STREAM.INFO."+storeName, nil, &info) == nil {
		messages = strconv.FormatUint(info.State.Messages, 10)
	}
	e.history.mu.Lock()
	operations, faults := len(e.ops)+len(e.elements), len(e.faults)
	e.history.mu.Unlock()
	write := func(name string, u rig.Use, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is down
		}
		return w.Write([]string{
			seconds, name, strconv.Itoa(u.RSS), strconv.Itoa(u.Heap), strconv.Itoa(u.Files), strconv.Itoa(u.Goroutines),
			consumers, messages, strconv.Itoa(operations), strconv.Itoa(faults),
		})
	}
	u, err := rig.OwnUse()
	errs := make([]error, 0, 1+len(e.modules)+len(e.cluster.Nodes))
	errs = append(errs, write(rigProcess, u, err))
	e.starting.Lock()
	modules := e.modules
	e.starting.Unlock()
	for i, m := range modules {
		u, err := m.Use()
		errs = append(errs, write(moduleNames[i], u, err))
	}
	for _, n := range e.cluster.Nodes {
		u, err := n.Use()
		errs = append(errs, write(n.Name, u, err))
	}
	return errors.Join(errs...)
}
