package browser_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

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
	done chan struct{}
}

// startDemo builds and starts the demo, and ends it with the test.
func startDemo(t *testing.T) *demo {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "demo")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/demo")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the demo: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--lazy-sync")
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
	urls := make(chan string, 1)
	go func() {
		defer close(d.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			if _, url, found := strings.Cut(s.Text(), "The bank is open: "); found {
				urls <- url
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
	case d.url = <-urls:
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
	ctx, cancelTime := context.WithTimeout(ctx, 3*natstest.Patience)
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

// clean fails the test with what went wrong in the page since it was asked last.
func (p *page) clean() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.wrong {
		p.t.Errorf("%s px: %s", p.name, text)
	}
	p.wrong = nil
}

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
	var last any
	natstest.Eventually(p.t, what, func() error {
		ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err != nil {
			last = err
			return err
		}
		if !ok {
			return fmt.Errorf("%s is not true (last error %v)", expression, last)
		}
		return nil
	})
	if p.t.Failed() {
		p.shot("failed")
		p.t.FailNow()
	}
}

// text waits until something on the page has the text.
func (p *page) text(selector, text string) {
	p.t.Helper()
	p.until(selector+" says "+text, fmt.Sprintf(
		"[...document.querySelectorAll(%q)].some((e) => e.textContent.includes(%q))", selector, text))
}

// click clicks the first element that matches.
func (p *page) click(selector string) {
	p.t.Helper()
	p.until("there is "+selector, fmt.Sprintf("document.querySelector(%q) && !document.querySelector(%q).disabled", selector, selector))
	// What is drawn anew in this moment is looked for once more, as people do.
	natstest.Eventually(p.t, "click "+selector, func() error {
		ctx, cancel := context.WithTimeout(p.ctx, natstest.Patience/10)
		defer cancel()
		return chromedp.Do(ctx, chromedp.ScrollIntoView(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
	})
	if p.t.Failed() {
		p.shot("failed")
		p.t.FailNow()
	}
}

// fill writes into a field as people do.
func (p *page) fill(selector, text string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS(selector)),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).value = ''", selector)),
		chromedp.SendKeys(chromedp.CSS(selector), text))
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
