package docs_test

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

var update = flag.Bool("update", false, "write the snippets into the documents")

// fence is a block of Go, with the comment before it that says where it is from:
//
//	<!-- snippet: examples/todo/todo/todo.go Type rename -->
//	<!-- snippet: docs/guide/example_test.go :inspect -->
//
// Names are those of declarations, a method's with its type; a name that begins with
// a colon is what stands between "// snippet:name" and "// end:name".
var fence = regexp.MustCompile("(?ms)^(?:<!-- snippet: ([^\\n]*?) -->\\n)?```go\\n(.*?)^```$")

// TestSnippets: the Go in the documents is the Go in files that are compiled, and run
// by their own tests. "go test ./test/docs -update" brings the documents up to date.
func TestSnippets(t *testing.T) {
	t.Parallel()
	for _, name := range documents(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		updated := fence.ReplaceAllStringFunc(string(text), func(block string) string {
			parts := fence.FindStringSubmatch(block)
			if parts[1] == "" {
				t.Errorf("%s: this Go comes from no file that is compiled:\n%s", name, parts[2])
				return block
			}
			code, err := snippet(parts[1])
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return block
			}
			if code != parts[2] && !*update {
				t.Errorf("%s: %s has changed, run go test ./test/docs -update\n%s", name, parts[1], code)
			}
			return "<!-- snippet: " + parts[1] + " -->\n```go\n" + code + "```"
		})
		if *update && updated != string(text) {
			if err := os.WriteFile(filepath.Join(root, name), []byte(updated), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
}

// documents are the files for people, by their paths from the root.
func documents(t *testing.T) []string {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md"}
	for _, dir := range []string{"docs", "examples"} {
		err := fs.WalkDir(os.DirFS(root), dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && path.Ext(name) == ".md" {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// snippet is the code that a comment names: a file, and names in it.
func snippet(from string) (string, error) {
	fields := strings.Fields(from)
	if len(fields) < 2 {
		return "", fmt.Errorf("snippet %q: wants a file and names", from)
	}
	text, err := os.ReadFile(filepath.Join(root, fields[0]))
	if err != nil {
		return "", err
	}
	var parts []string
	for _, name := range fields[1:] {
		var part string
		if region, found := strings.CutPrefix(name, ":"); found {
			part, err = between(string(text), region)
		} else {
			part, err = declaration(fields[0], text, name)
		}
		if err != nil {
			return "", fmt.Errorf("snippet %q: %w", from, err)
		}
		if !slices.Contains(parts, part) { // two names of one group are one declaration
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "\n"), nil
}

// between is the region of a name, without the indent of its first line.
func between(text, name string) (string, error) {
	_, after, found := strings.Cut(text, "// snippet:"+name+"\n")
	region, _, closed := strings.Cut(after, "// end:"+name+"\n")
	if !found || !closed {
		return "", fmt.Errorf("there is no region %q", name)
	}
	region = strings.TrimLeft(region, "\n")
	indent := region[:len(region)-len(strings.TrimLeft(region, "\t"))]
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(region, "\t\n") + "\n") {
		b.WriteString(strings.TrimPrefix(line, indent))
	}
	return b.String(), nil
}

// declaration is a declaration with its comment.
func declaration(file string, text []byte, name string) (string, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, file, text, parser.ParseComments)
	if err != nil {
		return "", err
	}
	for _, d := range f.Decls {
		if !slices.Contains(declared(d), name) {
			continue
		}
		from := d.Pos()
		if doc := comment(d); doc != nil {
			from = doc.Pos()
		}
		return string(text[files.Position(from).Offset:files.Position(d.End()).Offset]) + "\n", nil
	}
	return "", errors.New("there is no declaration of " + name)
}

func comment(d ast.Decl) *ast.CommentGroup {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return d.Doc
	case *ast.GenDecl:
		return d.Doc
	}
	return nil
}
