package cli_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/cmd/rossby/internal/cli"
	"github.com/rossby-go/rossby/internal/golden"
)

// env is a world with nobody in it.
func env(out, errOut io.Writer) cli.Env {
	return cli.Env{In: strings.NewReader(""), Out: out, Err: errOut}
}

// walk visits every command that a person sees, but those of the library.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		if sub.Name() != "completion" && sub.Name() != "help" {
			walk(sub, visit)
		}
	}
}

func leaf(c *cobra.Command) bool { return !c.HasSubCommands() }

// words splits a command line as a shell does, as far as examples need it.
func words(line string) []string {
	var all []string
	var word strings.Builder
	quoted, some := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, some = !quoted, true
		case r == ' ' && !quoted:
			if some {
				all = append(all, word.String())
			}
			word.Reset()
			some = false
		default:
			word.WriteRune(r)
			some = true
		}
	}
	if some {
		all = append(all, word.String())
	}
	return all
}

// ours is the part of a pipe that is a rossby command.
func ours(line string) []string {
	for part := range strings.SplitSeq(line, " | ") {
		if w := words(strings.TrimSpace(part)); len(w) > 0 && w[0] == "rossby" {
			return w[1:]
		}
	}
	return nil
}

// TestHelp: every command has help with an example, and every example is a command
// line that the program takes.
func TestHelp(t *testing.T) {
	t.Parallel()
	n := 0
	walk(cli.Root(env(io.Discard, io.Discard)), func(c *cobra.Command) {
		n++
		path := strings.Fields(c.CommandPath())[1:]
		var out, errOut bytes.Buffer
		if code := cli.Run(t.Context(), append(path, "--help"), env(&out, &errOut)); code != 0 || errOut.Len() > 0 {
			t.Errorf("%v --help: exit code %d, %s", path, code, errOut.String())
		}
		if c.Short == "" || !strings.Contains(out.String(), "Examples:\n  rossby ") {
			t.Errorf("%v --help has no text or no example:\n%s", path, out.String())
		}
		own := 0
		for line := range strings.SplitSeq(c.Example, "\n") {
			args := ours(line)
			if args == nil {
				t.Errorf("%v: the example %q is no rossby command", path, line)
				continue
			}
			root := cli.Root(env(io.Discard, io.Discard))
			found, rest, err := root.Find(args)
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.Args(found, found.Flags().Args())
			}
			if err != nil || !leaf(found) {
				t.Errorf("%v: the example %q is refused: %v", path, line, err)
				continue
			}
			if found.CommandPath() == c.CommandPath() {
				own++
			}
		}
		if leaf(c) && own == 0 {
			t.Errorf("%v: no example shows it", path)
		}
	})
	if n < 40 {
		t.Errorf("met %d commands", n)
	}
}

// The marks around the generated part of docs/cli.md.
const (
	docBegin = "<!-- commands: ROSSBY_UPDATE=1 go test ./cmd/rossby/internal/cli -run TestDocs writes them -->\n"
	docEnd   = "<!-- end of commands -->\n"
)

// TestDocs: docs/cli.md lists the commands there are, with their examples, and the
// exit codes.
func TestDocs(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	walk(cli.Root(env(io.Discard, io.Discard)), func(c *cobra.Command) {
		switch {
		case !c.HasParent():
		case leaf(c) && c.Parent().HasParent():
			want.WriteString("\n**`" + c.Parent().CommandPath() + " " + c.Use + "`**")
		case leaf(c):
			want.WriteString("\n### rossby " + c.Name() + "\n\n**`rossby " + c.Use + "`**")
		default:
			want.WriteString("\n### " + c.CommandPath() + "\n\n" + c.Short + ".\n")
		}
		if leaf(c) {
			text := c.Long
			if text == "" {
				text = c.Short + "."
			}
			want.WriteString(" – " + strings.ReplaceAll(text, "\n", " ") + "\n\n```sh\n")
			for line := range strings.SplitSeq(c.Example, "\n") {
				want.WriteString(strings.TrimSpace(line) + "\n")
			}
			want.WriteString("```\n")
		}
	})
	want.WriteString("\n")
	const path = "../../../../docs/cli.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), docBegin)
	got, after, ok2 := strings.Cut(rest, docEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has not both %q and %q", path, docBegin, docEnd)
	}
	if golden.Update() {
		if err := os.WriteFile(path, []byte(before+docBegin+want.String()+docEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want.String() {
		t.Errorf("%s does not list the commands as they are; ROSSBY_UPDATE=1 writes them. Want\n%s", path, want.String())
	}
	text := cli.Root(env(io.Discard, io.Discard)).Long
	for _, code := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "130"} {
		if !strings.Contains(before, "\n| "+code+" |") {
			t.Errorf("%s has no exit code %s", path, code)
		}
		if !strings.Contains(text, code+" ") {
			t.Errorf("--help has no exit code %s", code)
		}
	}
}

// TestUsage: what cannot be meant ends with 2, and says what may have been meant.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		line, says string
	}{
		{"stor", `there is no command "stor"; did you mean store?`},
		{"store lss", `store: there is no command "lss"; did you mean ls?`},
		{"view zzzzzz", `there are compare, get, keys`},
		{"store ls --jsn", "did you mean --json?"},
		{"store ls x", `"x" is one argument too many; usage: rossby store ls`},
		{"view get accounts", "accepts 2 arg(s), received 1; usage: rossby view get VIEW KEY"},
		{"store verify --id a1", "--id needs --type"},
		{"events tail --id a1", "--id needs --type"},
		{"events tail -n -1", "must not be negative"},
		{"aggregate show a1", "write it as TYPE/ID"},
		{"aggregate show Account/a1", "aggregate type"},
		{"aggregate at account/a1", "either --version or --time"},
		{"aggregate at account/a1 --time yesterday", `--time "yesterday"`},
		{"command send account debit", "name the aggregate, or pass --new"},
		{"command send account debit a1 {", `"{" is not JSON`},
		{"command send account debit a.1", "id"},
		{"store import nowhere", "--store"},
		{"store durability --require best", "best"},
		{"store ls --timeout 0s", "--timeout"},
		{"bench -n 0", "from 1 to"},
		{"new Shop", "Shop"},
		{"new shop --module a//b", "--module"},
		{"new log", `--module "log": is a package or a word of Go's own: pass a path of yours, such as --module example.com/log`},
		{"new shop --module vendor", "Go's own"},
		{"command send account debit a1 --wait -1s", "--wait must not be negative"},
	} {
		t.Run(test.line, func(t *testing.T) {
			t.Parallel()
			var out, errOut bytes.Buffer
			code := cli.Run(t.Context(), append(words(test.line), "--no-context"), env(&out, &errOut))
			if code != 2 || !strings.Contains(errOut.String(), test.says) || out.Len() > 0 {
				t.Errorf("exit code %d, %q, %q; want 2, %q", code, errOut.String(), out.String(), test.says)
			}
		})
	}
}

// TestUnavailable: nobody listens at the address.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	var out, errOut bytes.Buffer
	args := []string{"store", "ls", "--no-context", "--server", "nats://127.0.0.1:1", "--timeout", "100ms"}
	if code := cli.Run(t.Context(), args, env(&out, &errOut)); code != 5 || !strings.Contains(errOut.String(), "127.0.0.1:1") {
		t.Errorf("exit code %d, %q", code, errOut.String())
	}
}

// TestIntrospect: the nats command is told every command, each with one argument that
// holds all, and with the program's own flags.
func TestIntrospect(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if code := cli.Run(t.Context(), []string{"--fisk-introspect"}, env(&out, io.Discard)); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	type command struct {
		Name string `json:"name"`
		Help string `json:"help"`
		Args []struct {
			Cumulative bool `json:"cumulative"`
		} `json:"args"`
		Flags []struct {
			Name string `json:"name"`
		} `json:"flags"`
		Commands []command `json:"commands"`
	}
	var model command
	if err := json.Unmarshal(out.Bytes(), &model); err != nil {
		t.Fatal(err)
	}
	var got []string
	var visit func(c *command, path string)
	visit = func(c *command, path string) {
		if c.Name == "" || c.Help == "" {
			t.Errorf("%q has no name or help", path)
		}
		if len(c.Commands) > 0 {
			for i := range c.Commands {
				visit(&c.Commands[i], path+" "+c.Commands[i].Name)
			}
			return
		}
		got = append(got, path)
		flags := map[string]bool{}
		for _, f := range c.Flags {
			flags[f.Name] = true
		}
		if len(c.Args) != 1 || !c.Args[0].Cumulative || !flags["store"] || !flags["json"] || !flags["server"] || flags["help"] {
			t.Errorf("%q: %+v", path, c)
		}
	}
	visit(&model, "rossby")
	var want []string
	walk(cli.Root(env(io.Discard, io.Discard)), func(c *cobra.Command) {
		if leaf(c) {
			want = append(want, c.CommandPath())
		}
	})
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%v\nwant %v", got, want)
	}
}
