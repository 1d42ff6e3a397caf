package cli_test

import (
	"bufio"
	"errors"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestNew: what is generated passes vet and its own tests, with nothing that Rossby
// itself does not need.
func TestNew(t *testing.T) {
	t.Parallel()
	const root = "../../../.."
	dir := filepath.Join(t.TempDir(), "shop")
	r := run(t, "new", "shop", "--dir", dir, "--module", "example.com/acme/shop", "--replace", root).ends(0).
		says("main.go", "go test ./...")
	if strings.Contains(r.out, "go get") {
		t.Error("a service with a Rossby of its own fetches another one")
	}
	run(t, "new", "shop", "--dir", dir).ends(2).fails("is there already: nothing was written")
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		formatted, err := format.Source(data)
		if err == nil && string(formatted) != string(data) {
			t.Errorf("%s is not formatted", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"vet", "./..."}, {"test", "./..."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		// Nothing beyond the sums of Rossby: GONOSUMDB would let it in.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GONOSUMDB=", "GOTOOLCHAIN=local")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	runsAsItsReadmeSays(t, dir)
	after, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(after)) {
		if !strings.Contains(string(sums), line) {
			t.Errorf("the service needs more than Rossby: %s", line)
		}
	}
}

// runsAsItsReadmeSays starts the service and gives the commands of its README, word for
// word.
func runsAsItsReadmeSays(t *testing.T, dir string) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "service", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	service := exec.CommandContext(t.Context(), filepath.Join(dir, "service"), "--listen", "127.0.0.1:0")
	service.Dir = dir
	out, err := service.StdoutPipe()
	if err == nil {
		err = service.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "NATS at ")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bank{t: t, url: url}
	natstest.Eventually(t, "the service takes commands", func() error {
		if r := b.rossby("command", "ls", "item"); r.code != 0 {
			return errors.New(r.err)
		}
		return nil
	})
	n := 0
	for line := range strings.Lines(string(readme)) {
		args, ok := strings.CutPrefix(strings.TrimSpace(line), "rossby ")
		if !ok {
			continue
		}
		n++
		given := words(args)
		switch {
		case given[0] == "events":
			given = append(given, "--no-follow")
		case given[1] == "get": // the view follows soon
			natstest.Eventually(t, "the view has it", func() error {
				if r := b.rossby(given...); r.code != 0 || !strings.Contains(r.out, `"cents":350`) {
					return errors.New(r.out + r.err)
				}
				return nil
			})
		}
		b.rossby(given...).ends(0)
	}
	if n != 4 {
		t.Errorf("%d commands in the README", n)
	}
	if err := service.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := service.Wait(); err != nil {
		t.Errorf("the service, interrupted: %v", err)
	}
}

// TestNewRelease: without --replace the release is asked for, and the version of Go is
// that of Rossby.
func TestNewRelease(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "shop")
	run(t, "new", "shop", "--dir", dir).ends(0).says("go get github.com/rossby-go/rossby@latest")
	own, err := os.ReadFile("../../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for line := range strings.Lines(string(own)) {
		if strings.HasPrefix(line, "go ") {
			want = line
		}
	}
	if got := string(made); got != "module shop\n\n"+want {
		t.Errorf("%q", got)
	}
	run(t, "new", "shop", "--dir", filepath.Join(dir, "x"), "--replace", dir+"-none").ends(3)
}

// TestNewOfReservedNames: no package of Go's library becomes a module's path unseen.
func TestNewOfReservedNames(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "std").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		if strings.Contains(name, "/") {
			continue
		}
		n++
		dir := filepath.Join(t.TempDir(), name)
		run(t, "new", name, "--dir", dir).ends(2).fails("--module example.com/" + name)
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if n < 30 {
		t.Errorf("%d packages", n)
	}
	run(t, "new", "log", "--dir", filepath.Join(t.TempDir(), "log"), "--module", "example.com/log").ends(0)
}
