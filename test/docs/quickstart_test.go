package docs_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// step is a block of shell commands, and what they print.
var step = regexp.MustCompile("(?ms)^(?:<!-- run: ([a-z ]+) -->\\n)?```sh\\n(.*?)^```\\n(?:```text\\n(.*?)^```$)?")

// TestQuickStart does what the quick start says, word for word, in an empty directory,
// and then what the page about operations says, but for three things: the rossby command and the library are those of this
// repository instead of a release, and the server listens where nobody else does.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, page := range []string{"01-quick-start.md", "10-operations.md"} {
		data, err := os.ReadFile(filepath.Join(root, "docs/guide", page))
		if err != nil {
			t.Fatal(err)
		}
		text.Write(data)
	}
	bin, address := t.TempDir(), freeAddress(t)
	instead := map[string]string{
		"go install github.com/rossby-go/rossby/cmd/rossby@latest": fmt.Sprintf(
			"go build -C %q -o %q/rossby ./cmd/rossby", repository, bin),
		"rossby new shop": fmt.Sprintf("rossby new shop --replace %q", repository),
		"go run .":        "go run . --listen " + address,
	}
	shell := &shell{dir: t.TempDir(), env: append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"NATS_URL=nats://"+address, "XDG_CONFIG_HOME="+t.TempDir(), "GOFLAGS=-mod=mod", "GOWORK=off",
	)}
	replaced := 0
	for _, found := range step.FindAllStringSubmatch(text.String(), -1) {
		var script strings.Builder
		for line := range strings.Lines(found[2]) {
			other, is := instead[strings.TrimSuffix(line, "\n")]
			if is {
				replaced++
				line = other + "\n"
			}
			script.WriteString(line)
		}
		want := strings.ReplaceAll(found[3], "127.0.0.1:4222", address)
		switch found[1] {
		case "":
			if err := matches(want, shell.run(t, script.String())); err != nil {
				t.Fatalf("%s\nprints:\n%v\nwant:\n%s", found[2], err, want)
			}
			continue
		case "until it is so": // the view follows in its own time
			natstest.Eventually(t, found[2], func() error { return matches(want, shell.run(t, script.String())) })
			continue
		}
		out, stop := shell.start(t, script.String())
		defer stop()
		natstest.Eventually(t, found[2], func() error { return matches(want, out.String()) })
	}
	for _, words := range commands(t) {
		usage := shell.run(t, words+" --help\n")
		if !strings.Contains(usage, "\n  "+words) {
			t.Errorf("the guide tells of %q, which prints\n%s", words, usage)
		}
	}
	if replaced != len(instead) {
		t.Errorf("%d commands were replaced; want %d", replaced, len(instead))
	}
}

// command is a command in the text of a document, without its arguments.
var command = regexp.MustCompile("`(rossby(?: [a-z]+)*)")

// commands are the commands that the guide tells of.
func commands(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, document := range documents(t) {
		if !strings.HasPrefix(document, "docs/guide/") {
			continue
		}
		lines, _ := prose(t, document)
		for _, line := range lines {
			for _, parts := range command.FindAllStringSubmatch(line, -1) {
				if words := strings.Join(strings.Fields(parts[1])[:min(3, len(strings.Fields(parts[1])))], " "); !slices.Contains(found, words) {
					found = append(found, words)
				}
			}
		}
	}
	return found
}

// shell runs one script after the other, each where the one before has ended.
type shell struct {
	dir string
	env []string
}

func (s *shell) command(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	return cmd
}

func (s *shell) run(t *testing.T, script string) string {
	t.Helper()
	last := filepath.Join(t.TempDir(), "dir")
	out, err := s.command(t, script+"pwd >"+last).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v", out, err)
	}
	dir, err := os.ReadFile(last)
	if err != nil {
		t.Error(err)
	}
	s.dir = strings.TrimSpace(string(dir))
	return string(out)
}

// start runs a script beside the others, until stop is called.
func (s *shell) start(t *testing.T, script string) (out *output, stop func()) {
	t.Helper()
	out = &output{}
	cmd := s.command(t, script)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return out, func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		_ = cmd.Wait()
	}
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// matches compares an output with the one in a document, where "…" is any text, and a
// line of it any lines.
func matches(want, got string) error {
	expr := regexp.QuoteMeta(want)
	expr = regexp.MustCompile(`(?m)^…\n`).ReplaceAllString(expr, `(?:.*\n)*?`)
	expr = strings.ReplaceAll(expr, "…", ".*")
	if !regexp.MustCompile(`^` + expr + `$`).MatchString(got) {
		return errors.New(got)
	}
	return nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
