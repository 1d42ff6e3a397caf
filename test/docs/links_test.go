package docs_test

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	inline = regexp.MustCompile("`[^`]*`")
	other  = regexp.MustCompile(`[^\p{L}\p{N}\s_-]`)
)

// TestLinks: what the documents point to within the repository is there, headings too.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, name := range documents(t) {
		lines, _ := prose(t, name)
		for _, line := range lines {
			for _, found := range link.FindAllStringSubmatch(inline.ReplaceAllString(line, ""), -1) {
				target, heading, _ := strings.Cut(found[1], "#")
				if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				to := name
				if target != "" {
					to = filepath.Join(filepath.Dir(name), target)
				}
				if _, err := os.Stat(filepath.Join(root, to)); err != nil {
					t.Errorf("%s: %s: %v", name, found[1], err)
					continue
				}
				if heading == "" {
					continue
				}
				if _, anchors := prose(t, to); !anchors[heading] {
					t.Errorf("%s: %s: there is no such heading", name, found[1])
				}
			}
		}
	}
}

// prose are the lines of a document outside of code, and the anchors of its headings.
func prose(t *testing.T, name string) (lines []string, anchors map[string]bool) {
	t.Helper()
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	anchors = map[string]bool{}
	code := false
	for scan := bufio.NewScanner(f); scan.Scan(); {
		line := scan.Text()
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if code {
			continue
		}
		lines = append(lines, line)
		if text, found := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); found && strings.HasPrefix(line, "#") {
			text = other.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
			anchors[strings.ReplaceAll(text, " ", "-")] = true
		}
	}
	return lines, anchors
}
