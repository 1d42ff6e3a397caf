package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// main are the functions that programs begin with, by their package, beside those that
// are named New….
var mainFunctions = map[string][]string{
	"jetstream":                 {"Any", "AtVersion", "Attach", "Connect", "Exists", "NoStream", "Open", "PlanMigration"},
	"jetstream/archive":         {"Compare", "CompareArchive", "Copy", "Export", "ExportFile", "Import"},
	"jetstream/embedded":        {"Start"},
	"jetstream/followers":       nil,
	"jetstream/roles":           {"ServerConfig", "NSC"},
	"jetstream/schematest":      {"Golden"},
	"aggregate":                 {"ExpectVersion", "Intercept", "Metadata", "ReadStatus", "Reserve", "UpdateFunc"},
	"aggregate/saga":            {"Events", "ReportOn", "Send", "StartOn"},
	"aggregate/commandhttp":     nil,
	"aggregate/aggregatetest":   {"Await", "Check", "Given", "Golden"},
	"projection":                {"IntValue", "OnRow", "ReadStatus"},
	"projection/projectiontest": {"Rebuild"},
	"projection/queryhttp":      nil,
	"projection/sinktest":       {"Run"},
	"gateway":                   {"Permanent", "ReadStatus", "Report", "RetryAfter"},
	"gateway/mail":              nil,
	"gateway/publish":           nil,
	"gateway/webhook":           nil,
	"gateway/cloudevent":        {"Read"},
	"jetstream/console":         nil,
	"jetstream/monitor":         nil,
}

// unshown are the main functions that no Example shows, each with the reason.
var unshown = map[string]string{
	"jetstream.NewID":             "a function without arguments that returns a text",
	"jetstream/archive.NewReader": "for programs that look into archives themselves",
	"aggregate.NewRehearsal":      "what aggregatetest is built on",
	"projection.NewRehearsal":     "what projectiontest is built on",
	"projection/sinktest.Run":     "a sink's tests are those of examples/sqlview",
}

// TestExamples: each main function is called in an Example of its package, which runs.
// A public package without one is not overlooked.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, dir := range publicPackages(t) {
		if _, known := mainFunctions[dir]; !known {
			t.Errorf("package %s has no Examples", dir)
		}
	}
	for dir, others := range mainFunctions {
		names := exported(t, filepath.Join(root, dir))
		calls := shown(t, dir)
		wanted := slices.Clone(others)
		for name := range names {
			if strings.HasPrefix(name, "New") && !strings.Contains(name, ".") {
				wanted = append(wanted, name)
			}
		}
		slices.Sort(wanted)
		for _, name := range wanted {
			_, excused := unshown[dir+"."+name]
			switch {
			case !names[name]:
				t.Errorf("%s.%s is not there", dir, name)
			case !calls[name] && !excused:
				t.Errorf("no Example shows %s.%s", dir, name)
			case calls[name] && excused:
				t.Errorf("an Example shows %s.%s: it needs no excuse", dir, name)
			}
		}
	}
}

// TestExamplesAreSmall: the two applications to begin with have fewer than 400 lines each,
// comments and all, tests aside.
func TestExamplesAreSmall(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"examples/todo", "examples/shop"} {
		lines := 0
		err := fs.WalkDir(os.DirFS(root), dir, func(name string, _ fs.DirEntry, err error) error {
			if err != nil || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				return err
			}
			text, err := os.ReadFile(filepath.Join(root, name))
			lines += strings.Count(string(text), "\n")
			return err
		})
		if err != nil || lines == 0 || lines >= 400 {
			t.Errorf("%s has %d lines, %v", dir, lines, err)
		}
	}
}

// publicPackages are the directories of the packages that programs import.
func publicPackages(t *testing.T) (dirs []string) {
	t.Helper()
	for _, top := range []string{"jetstream", "aggregate", "projection", "gateway"} {
		err := fs.WalkDir(os.DirFS(root), top, func(name string, _ fs.DirEntry, err error) error {
			if err == nil && path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") &&
				!strings.Contains(name, "internal/") && !slices.Contains(dirs, path.Dir(name)) {
				dirs = append(dirs, path.Dir(name))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}

// shown are the functions of a package that its Examples call, and what stands beside
// them in a file of examples.
func shown(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := fs.Glob(os.DirFS(filepath.Join(root, dir)), "*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]bool{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if fun, ok := n.(*ast.FuncDecl); ok && !strings.HasPrefix(file, "example") {
				return strings.HasPrefix(fun.Name.Name, "Example")
			}
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun := call.Fun
			switch generic := fun.(type) {
			case *ast.IndexExpr:
				fun = generic.X
			case *ast.IndexListExpr:
				fun = generic.X
			}
			if s, ok := fun.(*ast.SelectorExpr); ok {
				if id, ok := s.X.(*ast.Ident); ok && id.Name == path.Base(dir) {
					calls[s.Sel.Name] = true
				}
			}
			return true
		})
	}
	return calls
}
