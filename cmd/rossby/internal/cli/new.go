package cli

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream"
)

// Templates end in .tmpl, so that neither Go nor its tools take them for packages.
//
//go:embed all:templates
var templates embed.FS

const (
	thisModule   = "github.com/rossby-go/rossby"
	templateRoot = "templates/service"
	templateEnd  = ".tmpl"
)

// service is what templates know.
type service struct {
	Name, Module string
	// Go is the version for go.mod, Version Rossby's, "" for none; Replace is a
	// directory that has it.
	Go, Version, Replace string
}

func (a *app) newCommand() *cobra.Command {
	var s service
	dir := ""
	c := a.command("new NAME", "Begins a new service: an aggregate, a view, a test, a main",
		"  rossby new shop\n  rossby new shop --module example.com/acme/shop --dir services/shop", cobra.ExactArgs(1),
		func(_ context.Context, args []string) error {
			s.Name = args[0]
			if err := jetstream.ValidateName("name", s.Name); err != nil {
				return err
			}
			if dir == "" {
				dir = s.Name
			}
			if s.Module == "" {
				s.Module = s.Name
			}
			if err := s.complete(); err != nil {
				return err
			}
			files, err := s.write(dir)
			if err != nil {
				return err
			}
			out := struct {
				Dir   string   `json:"dir"`
				Files []string `json:"files"`
			}{dir, files}
			return a.show(out, func(w io.Writer) {
				for _, f := range files {
					_, _ = fmt.Fprintln(w, filepath.Join(dir, f))
				}
				_, _ = fmt.Fprintf(w, "\nNext:\n  cd %s\n", dir)
				if s.Version == "" && s.Replace == "" {
					_, _ = fmt.Fprintf(w, "  go get %s@latest\n", thisModule)
				}
				_, _ = fmt.Fprintln(w, "  go mod tidy\n  go test ./...\n  go run .")
			})
		})
	c.Long = "Begins a new service: an aggregate with its events and commands, a view, a test of both, and a main that\n" +
		"brings its own NATS server or uses yours. Nothing is written over."
	f := c.Flags()
	f.StringVar(&s.Module, "module", "", "the Go module's `path`; the name by default")
	f.StringVar(&dir, "dir", "", "the `directory` to make; the name by default")
	f.StringVar(&s.Replace, "replace", "", "use the Rossby in this `directory` instead of a release")
	return c
}

// reserved are the module paths that Go refuses or takes for its own: the packages of
// its standard library with a path of one word, and the words of its tools.
var reserved = strings.Fields(`all cmd go std vendor
	bufio bytes cmp context crypto embed encoding errors expvar flag fmt hash html image io iter log maps math mime
	net os path plugin reflect regexp runtime slices sort strconv strings structs sync syscall testing time unicode
	unique unsafe weak`)

var modulePath = regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9._~/-]*$`)

// complete fills in what the flags leave open.
func (s *service) complete() error {
	if !modulePath.MatchString(s.Module) || strings.Contains(s.Module, "//") || strings.HasSuffix(s.Module, "/") {
		return &usageError{fmt.Sprintf("--module %q: is not a module's path, such as example.com/shop", s.Module), nil}
	}
	if slices.Contains(reserved, s.Module) {
		return &usageError{fmt.Sprintf("--module %q: is a package or a word of Go's own: pass a path of yours, such as "+
			"--module example.com/%s", s.Module, s.Module), nil}
	}
	if s.Module == thisModule {
		return &usageError{fmt.Sprintf("--module %q: is Rossby's own", s.Module), nil}
	}
	info, ok := debug.ReadBuildInfo()
	s.Go = goVersion
	if ok && strings.HasPrefix(info.Main.Version, "v") && info.Main.Path == thisModule {
		s.Version = info.Main.Version
	}
	if s.Replace == "" {
		return nil
	}
	abs, err := filepath.Abs(s.Replace)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(abs, "go.mod")); err != nil {
		return fmt.Errorf("--replace: %w", err)
	}
	s.Replace, s.Version = abs, "v0.0.0"
	return nil
}

// goVersion is that of Rossby's go.mod: a service needs no less.
const goVersion = "1.26.0"

// write writes the files below dir, and none when one of them is there.
func (s *service) write(dir string) ([]string, error) {
	var files []string
	texts := map[string]string{}
	err := fs.WalkDir(templates, templateRoot, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := templates.ReadFile(name)
		if err != nil {
			return err
		}
		t, err := template.New(path.Base(name)).Delims("<<", ">>").Option("missingkey=error").Parse(string(data))
		if err != nil {
			return err
		}
		var text strings.Builder
		if err := t.Execute(&text, s); err != nil {
			return err
		}
		file := strings.TrimSuffix(strings.TrimPrefix(name, templateRoot+"/"), templateEnd)
		files = append(files, file)
		texts[file] = text.String()
		_, err = os.Lstat(filepath.Join(dir, filepath.FromSlash(file)))
		switch {
		case err == nil:
			return &usageError{filepath.Join(dir, file) + " is there already: nothing was written", nil}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		to := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, []byte(texts[file]), 0o600); err != nil {
			return nil, err
		}
	}
	return files, nil
}
