package cli_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/cmd/rossby/internal/cli"
	"github.com/rossby-go/rossby/internal/natstest"
)

// run runs a command line with nothing added to it.
func run(t testing.TB, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := cli.Run(t.Context(), args, env(&out, &errOut))
	return result{t: t, args: args, out: out.String(), err: errOut.String(), code: code}
}

// watcher hands on what a command prints, line by line.
type watcher struct {
	seen chan string
	rest string
}

func (w *watcher) Write(p []byte) (int, error) {
	w.rest += string(p)
	for {
		line, rest, ok := strings.Cut(w.rest, "\n")
		if !ok {
			return len(p), nil
		}
		w.rest = rest
		w.seen <- line
	}
}

func (w *watcher) run(ctx context.Context, b *bank, args ...string) int {
	all := append([]string{"--server", b.url, "--no-context", "--timeout", natstest.Patience.String()}, args...)
	return cli.Run(ctx, all, env(w, io.Discard))
}

// await takes the next line, which must hold a text.
func (w *watcher) await(t testing.TB, text string) {
	t.Helper()
	select {
	case line := <-w.seen:
		if !strings.Contains(line, text) {
			t.Errorf("%q is not in %q", text, line)
		}
	case <-time.After(natstest.Patience):
		t.Fatalf("no line with %q", text)
	}
}
