package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestQuickStart does what the quick start says, word for word, in an empty directory,
// and then what the page about operations says, but for three things: the rossby command and the library are those of this
// repository instead of a release, and the server listens where nobody else does.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	bin, address := t.TempDir(), natstest.Addr(t)
	instead := map[string]string{
		"go install github.com/rossby-go/rossby/cmd/rossby@latest": fmt.Sprintf(
			"go build -C %q -o %q/rossby ./cmd/rossby", repository, bin),
		"rossby new shop": fmt.Sprintf("rossby new shop --replace %q", repository),
		"go run .":        "go run . --listen " + address,
	}
	sh := &shell{dir: t.TempDir(), env: append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"NATS_URL=nats://"+address, "XDG_CONFIG_HOME="+t.TempDir(), "GOFLAGS=-mod=mod", "GOWORK=off",
	)}
	replaced := map[string]bool{}
	for _, page := range quickStart {
		sh.do(t, shellText(t, page), func(text string) string {
			var b strings.Builder
			for line := range strings.Lines(text) {
				if other, is := instead[strings.TrimSuffix(line, "\n")]; is {
					replaced[other] = true
					line = other + "\n"
				}
				b.WriteString(strings.ReplaceAll(line, "127.0.0.1:4222", address))
			}
			return b.String()
		})
	}
	for _, words := range commands(t) {
		usage, err := sh.run(t, words+" --help")
		if err != nil || !strings.Contains(usage, "\n  "+words) {
			t.Errorf("the guide tells of %q, which prints\n%s", words, usage)
		}
	}
	if len(replaced) != len(instead) {
		t.Errorf("%d commands were replaced; want %d", len(replaced), len(instead))
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
