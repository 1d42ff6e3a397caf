package browser_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rossby-go/rossby/internal/natstest"
)

// natsCLI is the version of the standard command line that runs what the page says.
const natsCLI = "github.com/nats-io/natscli/nats@v0.5.1"

// snippet is what a panel shows beside an action.
type snippet struct {
	Panel    string `json:"panel"`
	Language string `json:"language"`
	Text     string `json:"text"`
}

// snippets opens what every panel shows beside its actions, runs what it shows for a
// terminal, and compiles the Go.
func (p *page) snippets(bank *demo, tools func() (dir string)) {
	p.t.Helper()
	settled(p.t, bank)
	all := make([]snippet, 0, 64)
	for _, at := range []string{
		"commands/account/open", "events", "aggregates/account/ada-giro", "followers", "views/accounts/ada-giro", "gateways",
		"deadlines", "durability", "chaos",
	} {
		panel, _, _ := strings.Cut(at, "/")
		p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/%s'", at)))
		p.until("snippets of "+at, fmt.Sprintf("document.querySelectorAll('[data-panel=%s] details.snippets').length >= %d",
			panel, max(map[string]int{"followers": 7}[panel], 1)))
		switch panel {
		case "events":
			p.click("#event-list .event")
			p.until("those of an event", `document.querySelector("#event-list .detail details.snippets")`)
		case "commands":
			p.fill("#command-form [name=id]", "by-the-snippet")
			p.fill("#command-form [name=title]", "it's theirs")
			p.fill("#command-form [name=initialCents]", "5")
			p.fill("#command-form [name=key]", "once")
		}
		text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(async () => {
			const out = [], turn = () => new Promise((done) => setTimeout(done, 0));
			for (const d of document.querySelectorAll("[data-panel] details.snippets")) {
				d.open = true;
				while (!d.querySelector(".choice button")) await turn();
				for (const language of ["nats", "curl", "Go"]) {
					[...d.querySelectorAll(".choice button")].find((b) => b.textContent === language).click();
					out.push({ panel: d.closest("[data-panel]").dataset.panel, language, text: d.querySelector("pre").textContent });
				}
				d.open = false;
			}
			return JSON.stringify(out);
		})()`, chromedp.EvalAwaitPromise))
		var list []snippet
		if err == nil {
			err = json.Unmarshal([]byte(text), &list)
		}
		if err != nil || len(list) == 0 {
			p.t.Fatalf("snippets of %s: %v", at, err)
		}
		all = append(all, list...)
	}
	var goes, shell []snippet
	for _, s := range all {
		switch {
		case strings.Contains(s.Text, "undefined") || s.Text == "":
			p.t.Errorf("%s, %s: %q", s.Panel, s.Language, s.Text)
		case s.Language == "Go":
			goes = append(goes, s)
		case s.Panel != "chaos" || s.Language == "curl": // kill -9 PID is for people
			shell = append(shell, s)
		}
	}
	source := asSource(p.t, goes)
	var wg sync.WaitGroup
	wg.Go(func() { compile(p.t, source) })
	runShell(p.t, tools(), shell)
	wg.Wait()
	p.t.Logf("%d snippets of Go compile, %d for terminals run", len(goes), len(shell))
}

// settled waits until everything answers again after what was broken.
func settled(t *testing.T, bank *demo) {
	t.Helper()
	for _, path := range []string{"views/accounts", "views/customers", "views/ledger", "views/transfers", "deadlines", "sagas"} {
		natstest.Eventually(t, path, func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, bank.url+"/console/api/"+path, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s", resp.Status)
			}
			if resp != nil {
				_ = resp.Body.Close()
			}
			return err
		})
	}
}

// surroundings is what the Go snippets may take for granted.
const surroundings = `package snippets

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

type (
	V    struct{}
	part struct{}
)

func (part) State() (option, note string)              { return "", "" }
func (part) Set(context.Context, string) error         { return nil }
func books(context.Context) (r console.Result, _ error) { return r, nil }

var (
	_ = fmt.Println
	_ followers.Reply
	_ projection.WatchOptions
	_ saga.Filter
)
`

// asSource makes each snippet the body of a function.
func asSource(t *testing.T, list []snippet) string {
	t.Helper()
	var file strings.Builder
	file.WriteString(surroundings)
	for _, s := range list {
		fmt.Fprintf(&file, "\n// %s\nfunc _(ctx context.Context, nc *nats.Conn, store *jetstream.Store, client *aggregate.Client,\n"+
			"\trepo *aggregate.Repository[V], process *saga.Process[V], worker part) error {\n%s\n", s.Panel, s.Text)
		for _, name := range declared(t, s) { // which people go on with
			fmt.Fprintf(&file, "\t_ = %s\n", name)
		}
		file.WriteString("\treturn nil\n}\n")
	}
	return file.String()
}

func compile(t *testing.T, file string) {
	t.Helper()
	dir := t.TempDir()
	source, overlay := filepath.Join(dir, "snippets.go"), filepath.Join(dir, "overlay.json")
	module, err := filepath.Abs("../..")
	// The file is a package of the module without lying in it.
	mapping, err2 := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(module, "test", "browser", "snippets", "snippets.go"): source},
	})
	err = errors.Join(err, err2, os.WriteFile(source, []byte(file), 0o600), os.WriteFile(overlay, mapping, 0o600))
	if err != nil {
		t.Error(err)
		return
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "./test/browser/snippets")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s\n%s", err, out, file)
	}
}

// declared are the names that a snippet declares at its top.
func declared(t *testing.T, s snippet) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _() {\n"+s.Text+"\n}", 0)
	if err != nil {
		t.Fatalf("%s: %v in\n%s", s.Panel, err, s.Text)
	}
	seen := map[string]bool{}
	var names []string
	body, ok := f.Decls[0].(*ast.FuncDecl)
	if !ok {
		t.Fatalf("%s: is no body of a function:\n%s", s.Panel, s.Text)
	}
	for _, statement := range body.Body.List {
		assign, ok := statement.(*ast.AssignStmt)
		if !ok || assign.Tok != token.DEFINE {
			continue
		}
		for _, left := range assign.Lhs {
			if name, ok := left.(*ast.Ident); ok && name.Name != "_" && !seen[name.Name] {
				seen[name.Name] = true
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// ended is the exit code of the timeout command that has ended another one.
const ended = 124

// endless are commands that people end.
func endless(command string) bool {
	return strings.Contains(command, "sub --stream") || strings.Contains(command, "kv watch") || strings.Contains(command, "curl -sN")
}

// installTools begins to install nats and rossby, and returns who waits for the
// directory with them.
func installTools(t *testing.T) func() (dir string) {
	t.Helper()
	bin, done := t.TempDir(), make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		nats := exec.CommandContext(t.Context(), "go", "install", natsCLI)
		nats.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
		nats.Dir = bin // outside the module
		rossby := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/rossby")
		for _, cmd := range []*exec.Cmd{nats, rossby} {
			if out, err := cmd.CombinedOutput(); err != nil {
				failed = errors.Join(failed, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out))
			}
		}
	}()
	t.Cleanup(func() { <-done }) // before its directory is removed
	return func() string {
		t.Helper()
		if <-done; failed != nil {
			t.Fatal(failed)
		}
		return bin
	}
}

// runShell runs what the page shows for a terminal, as it stands there.
func runShell(t *testing.T, bin string, list []snippet) {
	t.Helper()
	home := t.TempDir()
	// Its answers may take longer than a person would wait.
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "NATS_TIMEOUT="+natstest.Patience.String(),
		"XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home, "HOME="+home)
	run := func(command string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
		defer cancel()
		if endless(command) {
			command = "timeout 2 " + command
		}
		if strings.Contains(command, " rossby view switch") {
			command += " --yes"
		}
		cmd := exec.CommandContext(ctx, "bash", "-c", command)
		cmd.Env, cmd.WaitDelay = env, time.Second
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("nats plugins register rossby " + filepath.Join(bin, "rossby")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var sides sync.WaitGroup // of what would go on for ever
	defer sides.Wait()
	for _, s := range list {
		rebuilds := strings.Contains(s.Text, " rossby view ")
		if rebuilds && !strings.Contains(s.Text, " ledger ") || s.Language == "curl" && strings.Contains(s.Text, "/rebuild") {
			continue // the same for each view; and a rebuild at a time
		}
		for _, command := range commandsIn(s.Text) {
			check := func() { // again where something was not to be had in time
				natstest.Eventually(t, fmt.Sprintf("%s, %s: %s", s.Panel, s.Language, command), func() error { return works(run(command)) })
			}
			if endless(command) {
				sides.Go(check)
			} else if check(); t.Failed() {
				return
			}
		}
	}
}

// works tells whether a command of a terminal did what it was to do.
func works(out string, err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == ended {
		err = nil
	}
	if err == nil && (strings.Contains(out, `"status":4`) || strings.Contains(out, `"status":5`) ||
		strings.Contains(out, "Nats-Service-Error")) {
		err = errors.New("an error is answered")
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return err
}

// commandsIn are the commands of a snippet, each with its continued lines.
func commandsIn(text string) []string {
	var out []string
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}
