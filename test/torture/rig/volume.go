package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// volume is where a server keeps its data: a directory, or a file system of its
// own in an image, which can be full and can lose what was not synced.
type volume struct {
	dir   string
	image string // "" for a plain directory
}

const (
	volumeBytes = 192 << 20
	// Between a kill and the copy of the image, nothing may be written back: a
	// journal commits only when it is told to.
	mountOptions = "loop,commit=300,noatime"
)

// Volumes tells whether this process may make file systems; the error says why not.
func Volumes(ctx context.Context, dir string) error {
	v, err := newVolume(ctx, dir, "probe", true)
	if err != nil {
		return err
	}
	return v.remove(ctx)
}

func newVolume(ctx context.Context, home, name string, image bool) (*volume, error) {
	v := &volume{dir: filepath.Join(home, name)}
	if err := os.MkdirAll(v.dir, 0o750); err != nil || !image {
		return v, err
	}
	v.image = filepath.Join(home, name+".img")
	f, err := os.Create(v.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(volumeBytes), f.Close()); err != nil {
		return nil, err
	}
	if err := run(ctx, "mkfs.ext4", "-q", "-F", v.image); err != nil {
		return nil, err
	}
	return v, v.mount(ctx)
}

func (v *volume) mount(ctx context.Context) error {
	return run(ctx, "mount", "-o", mountOptions, v.image, v.dir)
}

// store is where the server's data go.
func (v *volume) store() string { return filepath.Join(v.dir, "store") }

// losePower leaves what was synced, as a machine finds it that lost its power. The
// server must have been killed.
func (v *volume) losePower(ctx context.Context) error {
	after := v.image + ".after"
	if err := run(ctx, "cp", "--sparse=always", v.image, after); err != nil {
		return err
	}
	if err := run(ctx, "umount", v.dir); err != nil {
		return err
	}
	if err := os.Rename(after, v.image); err != nil {
		return err
	}
	return v.mount(ctx)
}

// fill leaves no room.
func (v *volume) fill() error {
	f, err := os.Create(filepath.Join(v.dir, "filler"))
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for size := len(block); size >= 512; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(block[:size])
		}
	}
	_ = f.Sync() // nor a place that was only promised
	return f.Close()
}

// empty makes room again.
func (v *volume) empty() error {
	err := os.Remove(filepath.Join(v.dir, "filler"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (v *volume) remove(ctx context.Context) error {
	if v.image != "" {
		if err := run(ctx, "umount", v.dir); err != nil {
			return err
		}
		if err := os.Remove(v.image); err != nil {
			return err
		}
	}
	return os.RemoveAll(v.dir)
}

func run(ctx context.Context, name string, args ...string) error {
	//nolint:gosec // fixed programs
	out, err := exec.CommandContext(context.WithoutCancel(ctx), name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
