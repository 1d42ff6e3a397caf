package docs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
)

// step is a block of shell commands, and what they print. The comment before it says
// how it is run, or why it is not:
//
//	<!-- run: until the end -->    runs beside those after it
//	<!-- run: until it is so -->   again and again, until it prints what it should
//	<!-- not run: WHY -->
var step = regexp.MustCompile("(?ms)^(?:<!-- (run|not run): ([^\\n]+) -->\\n)?```sh\\n(.*?)^```(?:\\n```text\\n(.*?)^```)?$")

// run are the documents whose shell blocks a test runs: TestQuickStart and TestDemo.
var (
	quickStart = []string{"docs/guide/01-quick-start.md", "docs/guide/10-operations.md"}
	withDemo   = []string{"README.md", "docs/cli.md", "docs/followers.md", "docs/queries.md", "docs/wire.md"}
)

// shellText is what is in a document but for what is generated: TestHelp of
// cmd/rossby sees to the examples of the commands.
func shellText(t *testing.T, document string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	before, generated, _ := strings.Cut(string(text), "<!-- commands: ")
	_, after, _ := strings.Cut(generated, "<!-- end of commands -->")
	return before + after
}

// commandLine is how a line begins that somebody might type.
var commandLine = regexp.MustCompile(`^(?:\$ |(?:cd|curl|git|go|make|nats|rossby) )`)

// TestShellBlocks: every shell block of a document is run by a test, or says why not;
// and what is typed into a shell stands in a shell block.
func TestShellBlocks(t *testing.T) {
	t.Parallel()
	for _, document := range documents(t) {
		text := shellText(t, document)
		for _, found := range step.FindAllStringSubmatch(text, -1) {
			if found[1] != "not run" && !slices.Contains(slices.Concat(quickStart, withDemo), document) {
				t.Errorf("%s: no test runs\n%s", document, found[3])
			}
		}
		language, code := "", false
		for line := range strings.Lines(text) {
			if rest, is := strings.CutPrefix(line, "```"); is {
				language, code = strings.TrimSpace(rest), !code
			} else if code && (language == "" || language == "text") && commandLine.MatchString(line) {
				t.Errorf("%s: in a block that is no shell block: %s", document, line)
			}
		}
	}
}

// shell runs one script after the other, each where the one before has ended.
type shell struct {
	dir string
	env []string
}

// do runs the blocks of a text. Here makes of a script, and of what it should print,
// what it is on this machine.
func (s *shell) do(t *testing.T, text string, here func(string) string) {
	t.Helper()
	for _, found := range step.FindAllStringSubmatch(text, -1) {
		if found[1] == "not run" {
			continue
		}
		script, want := here(found[3]), here(found[4])
		try := func() error { return s.prints(t, script, want) }
		switch found[2] {
		case "":
			if err := try(); err != nil {
				t.Fatal(err)
			}
		case "until it is so": // the view follows in its own time
			natstest.Eventually(t, found[3], try)
		case "until the end":
			s.start(t, script, want)
		default:
			t.Errorf("how to run %q?\n%s", found[2], found[3])
		}
	}
}

// prints runs a script, which must succeed and print what is wanted, if anything.
func (s *shell) prints(t *testing.T, script, want string) error {
	t.Helper()
	out, err := s.run(t, script)
	if err == nil && want != "" {
		err = matches(want, out)
	}
	if err == nil && strings.Contains(out, "Nats-Service-Error") { // the nats command takes it for an answer
		err = errors.New("a service refuses")
	}
	if err != nil {
		return fmt.Errorf("%s\n%w, prints:\n%s\nwant:\n%s", script, err, out, want)
	}
	return nil
}

func (s *shell) command(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", script)
	// Nobody gives up because the machine is slow.
	cmd.WaitDelay = natstest.Patience // what it leaves running may hold its output
	cmd.Dir, cmd.Env = s.dir, append(slices.Clip(s.env), "NATS_TIMEOUT="+natstest.Patience.String())
	return cmd
}

func (s *shell) run(t *testing.T, script string) (string, error) {
	t.Helper()
	last := filepath.Join(t.TempDir(), "dir")
	out, err := s.command(t, script+"\npwd >"+last).CombinedOutput()
	if err != nil {
		return string(out), err
	}
	dir, err := os.ReadFile(last)
	s.dir = strings.TrimSpace(string(dir))
	return string(out), err
}

// start runs a script beside the others, until the test ends, and waits until it has
// printed what is wanted. It may have to be compiled first, which takes its time.
func (s *shell) start(t *testing.T, script, want string) {
	t.Helper()
	out := &output{}
	cmd := s.command(t, script)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		<-ended
	})
	for {
		err := matches(want, out.String())
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s\nended: %v", script, err)
		case <-time.After(50 * time.Millisecond):
		}
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
		return fmt.Errorf("this is not what it should be: %q", got)
	}
	return nil
}
