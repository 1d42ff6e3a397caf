package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// process starts a process that keeps the view, with these variables besides its own.
func (f *fixture) process(env ...string) *exec.Cmd {
	f.t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(f.t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), "SQLVIEW_TEST_UPDATER="+strings.Join([]string{f.url, f.store.Name(), f.db.address()}, " "))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	signal(t, cmd, syscall.SIGKILL)
	_ = cmd.Wait()
}

func signal(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// stopped waits until every thread of a process has stopped: the signal only asks for it.
func stopped(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	natstest.Eventually(t, "the process has stopped", func() error {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		if err == nil && (pid == 0 || !status.Stopped()) {
			err = fmt.Errorf("it goes on (%d, %#x)", pid, status)
		}
		return err
	})
}
