package acceptance_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// rossbyBinary builds cmd/rossby into a directory.
func rossbyBinary(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "rossby")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, module+"/cmd/rossby").CombinedOutput(); err != nil {
		t.Fatalf("build rossby: %v\n%s", err, out)
	}
	return path
}

// plugin: the nats command takes rossby as one of its own, with its flags and contexts,
// and with arguments in their order, which it mixes up when a command declares several.
func plugin(t *testing.T, home, url string, nats func(...string) string) {
	t.Helper()
	rossby := rossbyBinary(t, t.TempDir())
	nats("plugins", "register", "rossby", rossby)
	contains := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%q is not in\n%s", text, out)
			}
		}
	}
	contains(nats("rossby", "store", "ls"), "NAME", "bank")
	contains(nats("rossby", "store", "ls", "--json"), `"name": "bank"`)
	for range 8 {
		contains(nats("rossby", "view", "get", "accounts", "a1", "--store", "bank"), `"balanceCents":700`)
	}
	contains(nats("rossby", "command", "send", "account", "debit", "a1", `{"transferId":"t1","cents":7}`, "--meta", "by=ada"),
		"account/a1 is at version 2")
	contains(nats("rossby", "events", "tail", "--no-follow", "--event", "debited", "--json"), `"metadata":{"by":"ada"}`)
	contains(nats("rossby", "view", "rebuild", "--help"), "rossby view rebuild VIEW", "--switch")

	// A context of the nats command, saved and selected, is what both use.
	nats("context", "save", "here", "--select")
	for _, args := range [][]string{{"store", "ls"}, {"store", "ls", "--context", "here"}} {
		cmd := exec.CommandContext(t.Context(), rossby, args...)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home, "HOME="+home, "NATS_TIMEOUT="+natstest.Patience.String())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("rossby %v: %v\n%s", args, err, out)
		}
		contains(string(out), "bank")
	}

	// A person's Ctrl-C ends what follows, in order; a question is not put to nobody.
	tail := start(t, "tail", []string{"NATS_TIMEOUT=" + natstest.Patience.String()}, rossby, "events", "tail", "--server", url, "--no-context", "-n", "1")
	tail.line(t, "20")
	if err := tail.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if <-tail.done; tail.err != nil {
		t.Errorf("events tail after an interrupt: %v\n%s", tail.err, tail.output())
	}
	cmd := exec.CommandContext(t.Context(), rossby, "view", "rollback", "accounts", "--server", url, "--no-context",
		"--timeout", natstest.Patience.String())
	out, err := cmd.CombinedOutput() // its input is /dev/null
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 2 {
		t.Errorf("view rollback without a terminal: %v\n%s", err, out)
	}
	contains(string(out), "--yes")
}
