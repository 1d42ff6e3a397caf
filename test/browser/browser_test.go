package browser_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/rossby-go/rossby/internal/natstest"
)

// browserEnv names the browser. .ci/run sets it, and installs Chromium where it is
// missing. Where it is not set nothing is tested here, so that go test ./... needs
// nothing but Go:
//
//	ROSSBY_BROWSER=/usr/bin/chromium go test ./test/browser
//
// With ROSSBY_SHOTS=directory the tests leave pictures of every panel there.
const (
	browserEnv = "ROSSBY_BROWSER"
	shotsEnv   = "ROSSBY_SHOTS"
)

// demo is the demo in a process of its own.
type demo struct {
	url  string
	nats string
	done chan struct{}
}

// binaries is where commands are built, until all tests have ended.
var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "browser-")
	if err != nil {
		panic(err)
	}
	binaries = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// hasBrowser tells whether there is one to test with.
func hasBrowser(t *testing.T) bool {
	t.Helper()
	if os.Getenv(browserEnv) != "" {
		return true
	}
	t.Logf("%s is not set: without a browser there is nothing to see; .ci/run browser sets it", browserEnv)
	return false
}

// Commands of the module are built once for all tests.
var (
	buildMu   sync.Mutex
	buildDirs = map[string]string{}
)

// build is the path of a command of the module.
func build(t *testing.T, command string) string {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if path := buildDirs[command]; path != "" {
		return path
	}
	path := filepath.Join(binaries, command)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/"+command)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", command, err, out)
	}
	buildDirs[command] = path
	return path
}

// startDemo starts the demo with flags, and ends it with the test.
func startDemo(t *testing.T, flags ...string) *demo {
	t.Helper()
	cmd := exec.Command(build(t, "demo"), append([]string{
		"--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--lazy-sync",
	}, flags...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &demo{done: make(chan struct{})}
	urls := make(chan [2]string, 1)
	go func() {
		defer close(d.done)
		base := ""
		for s := bufio.NewScanner(out); s.Scan(); {
			if _, url, found := strings.Cut(s.Text(), "The bank is open: "); found {
				base = url
			}
			if _, url, found := strings.Cut(s.Text(), "NATS clients join at "); found {
				urls <- [2]string{base, url}
			}
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-d.done:
		case <-time.After(natstest.Patience):
			_ = cmd.Process.Kill()
			t.Error("the demo did not end")
		}
		if t.Failed() {
			t.Logf("the demo said:\n%s", errs.String())
		}
	})
	select {
	case found := <-urls:
		d.url, d.nats = found[0], found[1]
	case <-d.done:
		t.Fatalf("the demo ended: %s", errs.String())
	case <-time.After(natstest.Patience):
		t.Fatal("the demo did not start")
	}
	return d
}

// page is a tab of the browser.
type page struct {
	t    *testing.T
	ctx  context.Context
	name string
	// servers is how many the bank has.
	servers string

	mu    sync.Mutex
	wrong []string
}

// startBrowser starts a browser with a profile of its own.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv(browserEnv)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s=%s: %v", browserEnv, path, err)
	}
	options := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(natstest.Patience),
		chromedp.CombinedOutput(io.Discard),
	}, flags()...)
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	browser, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return browser
}

func flags() []chromedp.ExecAllocatorOption {
	names := []string{
		"headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update",
		"disable-sync", "no-first-run", "no-default-browser-check", "disable-dev-shm-usage", "hide-scrollbars",
	}
	options := make([]chromedp.ExecAllocatorOption, 0, len(names))
	for _, name := range names {
		options = append(options, chromedp.Flag(name, true))
	}
	return options
}

// open opens a tab of a width and listens for what goes wrong in it.
func open(browser context.Context, t *testing.T, width, height int64, dark bool) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	ctx, cancelTime := context.WithTimeout(ctx, 6*natstest.Patience)
	t.Cleanup(cancelTime)
	p := &page{t: t, ctx: ctx, name: strconv.FormatInt(width, 10)}
	err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning {
				p.notef("console: %s", arguments(ev.Args))
			}
		case *runtime.EventExceptionThrown:
			p.notef("exception: %v", ev.ExceptionDetails)
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
				p.notef("log: %s %s", ev.Entry.Text, ev.Entry.URL)
			}
		case *network.EventResponseReceived:
			if ev.Response.Status >= 400 {
				p.notef("answer: %d %s", ev.Response.Status, ev.Response.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	colours := "light"
	if dark {
		colours = "dark"
	}
	p.do(emulate(width, height, 1, colours))
	return p
}

func arguments(args []*runtime.RemoteObject) string {
	parts := make([]string, 0, len(args))
	for _, a := range args {
		parts = append(parts, string(a.Value)+a.Description)
	}
	return strings.Join(parts, " ")
}

func (p *page) notef(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

// clean fails the test with what went wrong in the page since it was asked last. An
// answer that something is not to be had in time is the machine's affair.
func (p *page) clean() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.wrong {
		if late.MatchString(text) {
			p.t.Logf("%s px: %s", p.name, text)
			continue
		}
		p.t.Errorf("%s px: %s", p.name, text)
	}
	p.wrong = nil
}

var late = regexp.MustCompile(`^(answer: |log: .* status of )50[34] `)

func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		if len(actions) > 0 {
			p.shot("failed")
		}
		p.t.Fatalf("%s px: %v", p.name, err)
	}
}

// until waits until the expression is true.
func (p *page) until(what, expression string) {
	p.t.Helper()
	p.try(what, func() error {
		ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && !ok {
			err = fmt.Errorf("%s is not true", expression)
		}
		return err
	})
}

// text waits until something on the page has the text.
func (p *page) text(selector, text string) {
	p.t.Helper()
	p.until(selector+" says "+text, fmt.Sprintf(
		"[...document.querySelectorAll(%q)].some((e) => e.textContent.includes(%q))", selector, text))
}

// click clicks with the mouse on the first element that matches, where people see it.
func (p *page) click(selector string) {
	p.t.Helper()
	p.try("click "+selector, func() error {
		at, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]float64](fmt.Sprintf(`(() => {
			const selector = %q, e = document.querySelector(selector);
			if (!e || e.disabled || !e.checkVisibility()) return [];
			e.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
			const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;
			window.clicked = false;
			// Of the page and not of the element, which may be drawn anew before it is hit.
			if (window.noticed) document.removeEventListener("click", window.noticed, true);
			window.noticed = (event) => { if (event.target.closest(selector)) window.clicked = true; };
			document.addEventListener("click", window.noticed, true);
			return e.contains(document.elementFromPoint(x, y)) ? [x, y] : [];
		})()`, selector)))
		if err == nil && len(at) != 2 {
			err = errors.New("it is not there, or something is before it")
		}
		if err != nil {
			return err
		}
		if err := chromedp.Do(p.ctx, chromedp.MouseClickXY(at[0], at[1])); err != nil {
			return err
		}
		// What is drawn anew in this moment is clicked once more, as people do.
		hit, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("window.clicked"))
		if err == nil && !hit {
			err = errors.New("it was missed")
		}
		return err
	})
}

// fill writes into a field as people do; a line's end is the key for it.
func (p *page) fill(selector, text string) {
	p.t.Helper()
	text, enter := strings.CutSuffix(text, "\n")
	p.try("fill "+selector, func() error {
		ready, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](fmt.Sprintf(`(() => {
			const selector = %q, e = document.querySelector(selector);
			if (!e || e.disabled || !e.checkVisibility()) return false;
			e.focus();
			e.select();
			return document.activeElement === e;
		})()`, selector)))
		if err == nil && !ready {
			err = errors.New("it takes nothing")
		}
		if err != nil {
			return err
		}
		if err := chromedp.Do(p.ctx, insert(text)); err != nil {
			return err
		}
		ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](fmt.Sprintf(
			"document.querySelector(%q)?.value === %q", selector, text)))
		if err == nil && !ok {
			err = fmt.Errorf("it does not hold %q", text)
		}
		if err != nil {
			return err
		}
		if enter {
			return chromedp.Do(p.ctx, chromedp.KeyEvent(kb.Enter))
		}
		return nil
	})
}

func insert(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
}

// try does something until it works.
func (p *page) try(what string, do func() error) {
	p.t.Helper()
	if !natstest.Eventually(p.t, what, do) {
		p.shot("failed")
		p.t.FailNow()
	}
}

// number is what the expression gives.
func (p *page) number(expression string) int {
	p.t.Helper()
	n, err := chromedp.Run(p.ctx, chromedp.Evaluate[int](expression))
	if err != nil {
		p.t.Fatalf("%s px: %s: %v", p.name, expression, err)
	}
	return n
}

// fits checks that nothing is wider than the window.
func (p *page) fits(panel string) {
	p.t.Helper()
	if over := p.number("document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
		p.shot("too-wide-" + panel)
		p.t.Errorf("%s px: %s is %d px too wide", p.name, panel, over)
	}
}

// shot leaves a picture where one is wanted.
func (p *page) shot(name string) {
	dir := os.Getenv(shotsEnv)
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Logf("picture %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+"-"+p.name+".png"), png, 0o600); err != nil {
		p.t.Logf("picture %s: %v", name, err)
	}
}
