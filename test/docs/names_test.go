package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// name is a name of Go in the text of a document: aggregate.Type, jetstream.Store.Last.
var name = regexp.MustCompile("`[*]?([a-z]+)\\.([A-Z][A-Za-z]*)(?:\\.([A-Z][A-Za-z]*))?")

// TestNames: what the documents call by its Go name is there.
func TestNames(t *testing.T) {
	t.Parallel()
	packages := map[string]map[string]bool{}
	for dir := range mainFunctions {
		packages[path.Base(dir)] = exported(t, filepath.Join(root, dir))
	}
	found := 0
	for _, document := range documents(t) {
		lines, _ := prose(t, document)
		for _, line := range lines {
			for _, parts := range name.FindAllStringSubmatch(line, -1) {
				names, ours := packages[parts[1]]
				if !ours {
					continue
				}
				found++
				if !names[parts[2]] {
					t.Errorf("%s: %s.%s is not there", document, parts[1], parts[2])
				} else if parts[3] != "" && !names[parts[2]+"."+parts[3]] {
					t.Errorf("%s: %s.%s has no %s", document, parts[1], parts[2], parts[3])
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d names were found", found)
	}
}

// exported are the exported names of a package, and their methods and fields after a
// dot.
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, files, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			for _, name := range declared(d) {
				names[name] = true
			}
		}
	}
	return names
}

// declared are the names that a declaration declares.
func declared(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if on := receiver(d); on != "" {
			return []string{on + "." + d.Name.Name}
		}
		return []string{d.Name.Name}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, id := range spec.Names {
					names = append(names, id.Name)
				}
			case *ast.TypeSpec:
				names = append(names, spec.Name.Name)
				var members *ast.FieldList
				switch typ := spec.Type.(type) {
				case *ast.StructType:
					members = typ.Fields
				case *ast.InterfaceType:
					members = typ.Methods
				default:
					continue
				}
				for _, member := range members.List {
					for _, id := range member.Names {
						names = append(names, spec.Name.Name+"."+id.Name)
					}
				}
			}
		}
	}
	return names
}

// receiver is the name of a method's type, "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch generic := typ.(type) {
	case *ast.IndexExpr:
		typ = generic.X
	case *ast.IndexListExpr:
		typ = generic.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
