package browser_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

func emulate(width, height int64, scale float64, colours string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, enable := range []func() error{
			func() error { _, err := cdp.Call(ctx, t, log.Enable, cdp.Empty{}); return err },
			func() error { _, err := cdp.Call(ctx, t, network.Enable, network.EnableParams{}); return err },
			func() error {
				_, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
					Width: width, Height: height, DeviceScaleFactor: scale, Mobile: width < 600,
				})
				return err
			},
			func() error {
				_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{
						{Name: "prefers-color-scheme", Value: colours}, {Name: "prefers-reduced-motion", Value: "reduce"},
					},
				})
				return err
			},
		} {
			if err := enable(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Every panel is clicked through at both widths, in the dark and in the light, with one
// server and with three, and the browser has nothing to complain about.
func TestConsole(t *testing.T) {
	t.Parallel()
	if !hasBrowser(t) {
		return
	}
	for _, w := range []struct {
		width, height int64
		dark          bool
		servers       string
	}{{1600, 1000, false, "3"}, {360, 740, true, "1"}} {
		t.Run(strconv.FormatInt(w.width, 10), func(t *testing.T) {
			t.Parallel()
			var tools func() (dir string)
			if w.servers == "3" {
				tools = installTools(t)
			}
			bank := startDemo(t, "--servers", w.servers, "--deadline", "1h") // nothing is closed meanwhile
			p := open(startBrowser(t), t, w.width, w.height, w.dark)
			p.servers = w.servers
			p.do(chromedp.Navigate(bank.url + "/"))
			p.text("#chips", "Money: holds")
			for _, panel := range []struct {
				name string
				run  func(*page)
			}{
				{"commands", commandsPanel},
				{"events", eventsPanel},
				{"aggregates", aggregatesPanel},
				{"followers", followersPanel},
				{"views", viewsPanel},
				{"gateways", gatewaysPanel},
				{"deadlines", deadlinesPanel},
				{"durability", durabilityPanel},
				{"chaos", chaosPanel},
			} {
				p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/%s'", panel.name)))
				p.until(panel.name+" is shown", fmt.Sprintf("document.querySelector('[data-panel=%s]')", panel.name))
				began := time.Now()
				panel.run(p)
				t.Logf("%s took %v", panel.name, time.Since(began).Round(time.Millisecond))
				p.fits(panel.name)
				p.named(panel.name)
				p.readable(panel.name)
				p.shot(panel.name)
				p.clean()
			}
			if tools != nil {
				p.snippets(bank, tools)
			}
			p.colours()
			p.keyboard()
			p.text("#chips", "Money: holds")
			p.clean()
			p.traces(bank.url)
			p.clean()
		})
	}
}

// commandsPanel opens an account, repeats the command, and lets a hundred compete.
func commandsPanel(p *page) {
	id := "shown-" + p.name
	p.click("[data-command=open]")
	p.until("the form of open", `document.querySelector("#command-form [name=title]")`)
	p.fill("#command-form [name=id]", id)
	p.fill("#command-form [name=title]", "Shown")
	p.fill("#command-form [name=initialCents]", "1000")
	p.fill("#command-form [name=key]", "key-of-"+id)
	p.click("#send")
	p.text("[data-answer] .badge", "ok")
	p.click("#send-twice")
	p.text("[data-answer] .badge", "duplicate")
	p.click("#send-100")
	p.text("[data-answer] .badge", "100 duplicate")

	// Of a hundred that expect version 1, one is the first.
	movement := func(command, version string) {
		p.click("[data-command=" + command + "]")
		p.until("the form of "+command, fmt.Sprintf(
			`document.querySelector("[data-command=%s][aria-pressed=true]") && `+
				`document.querySelector("#command-form [name=transferId]")`, command))
		p.fill("#command-form [name=id]", id)
		p.fill("#command-form [name=transferId]", "there-and-back")
		p.fill("#command-form [name=cents]", "5")
		p.fill("#command-form [name=expect]", version)
	}
	movement("debit", "1")
	p.click("#send-100")
	p.text("[data-answer] .badge", "99 conflict: version")
	p.text("[data-answer] .badge", "1 ok")
	movement("credit", "2")
	p.click("#send-twice")
	p.text("[data-answer] h2", "credit, twice")
	p.text("[data-answer] .badge", "duplicate")
	p.do(chromedp.Evaluate[chromedp.Void](`document.querySelector(".snippets summary").click()`))
	p.text(".snippet pre", "nats --server")
	p.text(".snippet pre", id)
}

// eventsPanel narrows the stream down, and follows what caused an event.
func eventsPanel(p *page) {
	p.until("events", `document.querySelectorAll("#event-list > li").length > 5`)
	p.fill("[data-panel=events] [name=name]", "credit-recorded\n")
	p.until("only those", `[...document.querySelectorAll("#event-list .what")].length > 0 &&
		[...document.querySelectorAll("#event-list .what")].every((e) => e.textContent === "credit-recorded")`)
	p.click("#event-list .event")
	p.text(".tree .node", "created")
	p.text(".tree .node", "debited")
	p.text(".tree .node.here", "credit-recorded")
}

// aggregatesPanel goes through an account's versions.
func aggregatesPanel(p *page) {
	id := "shown-" + p.name
	p.fill("[data-panel=aggregates] [name=type]", "account")
	p.fill("[data-panel=aggregates] [name=id]", id+"\n")
	p.text("#where", "version 3 of 3")
	p.text("#state", `"cents": 1000`)
	p.text("#change .was", "995")
	p.click("#older")
	p.text("#where", "version 2 of 3")
	p.text("#state", `"cents": 995`)
	p.do(chromedp.Focus(chromedp.CSS("#slider")), chromedp.KeyEvent(kb.ArrowLeft)) // arrow left
	p.text("#where", "version 1 of 3")
	p.text("#change .is", "1000")
	p.click("#newer")
	p.text("#where", "version 2 of 3")
}

// followersPanel pauses a view and lets it go on, and rebuilds it beside the live one,
// compares the two, switches and rolls back.
func followersPanel(p *page) {
	card := "[data-follower=customers] "
	p.text(card+".badge", "running")
	p.click(card + "[data-do=pause]")
	p.text("#ask[open] h2", "Pause customers?")
	p.shot("ask")
	p.fill("#ask[open] input", "to look at it\n")
	p.text(card+".note", "to look at it")
	p.click(card + "[data-do=resume]")
	p.text(card+".badge", "running")

	p.click(card + "[data-do=rebuild]")
	p.until("two bars", `document.querySelectorAll("[data-follower=customers] [role=progressbar]").length === 2`)
	p.shot("rebuild")
	p.click(card + "[data-do=compare]")
	p.text(card+".note.good", "no difference")
	p.click(card + "[data-do=switch]")
	p.text(card+"[data-generation='1'] .badge", "old")
	p.text(card+"[data-generation='1'] [data-do=switch]", "Roll back to it")
	p.click(card + "[data-generation='1'] [data-do=switch]")
	p.text(card+"[data-generation='1'] .badge", "live")
	p.click(card + "[data-do=remove]")
	p.click("#ask[open] button[type=submit]")
	p.until("one generation", `document.querySelectorAll("[data-follower=customers] [role=progressbar]").length === 0`)
	p.text(card+".badge", "running")
}

// viewsPanel looks at an account beside its events, while it changes.
func viewsPanel(p *page) {
	p.until("views", `document.querySelectorAll("#view option").length === 4`)
	p.do(chromedp.Evaluate[chromedp.Void](`location.hash = "#/views/accounts"`))
	p.fill("[name=prefix]", "shown-"+p.name+"\n")
	p.click("#entries [data-entry=shown-" + p.name + "]")
	p.text("#document", `"balanceCents": 1000`)
	p.text("#entry .what", "credited")
	p.send("account", "debit", "shown-"+p.name, `{transferId: "later", cents: 7}`)
	p.text("#document", `"balanceCents": 993`)
	p.text("#entry .what", "debited")
}

// gatewaysPanel breaks the service behind the gateway, retries and discards what is
// parked, and mends it.
func gatewaysPanel(p *page) {
	p.text("[data-gateway=notifications] .badge", "breaker closed")
	p.click("[data-switch=service] [data-option=refuse]")
	p.until("two are parked", `document.querySelector("[data-waiting=notifications] [data-do=discard]") &&
		document.querySelectorAll("[data-waiting=notifications] [data-lane]").length > 1`)
	p.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("[data-waiting] details.more").open = true`))
	p.shot("parked")
	p.click("[data-switch=service] [data-option=works]")
	p.until("it works again", `document.querySelector("[data-switch=service] [data-option=works][aria-pressed=true]")`)
	p.do(chromedp.Evaluate[chromedp.Void](`window.lane = document.querySelector("[data-waiting] [data-lane]").dataset.lane`))
	p.click("[data-waiting] [data-do=discard]")
	p.text("#ask[open] h2", "Discard")
	p.fill("#ask[open] input", "shown to people\n")
	p.until("it waits no more", `![...document.querySelectorAll("[data-waiting] [data-lane]")].some((e) => e.dataset.lane === window.lane)`)
	p.click("[data-waiting] [data-do=retry-all]")
	p.until("nothing waits", `!document.querySelector("#nothing-waits").hidden`)
	p.apply("opened-" + p.name) // for the next panel
}

// apply applies for a new account, and for one that is somebody's already.
func (p *page) apply(id string) {
	p.t.Helper()
	for _, id := range []string{id, "ada-giro"} {
		p.send("account-opening", "start", id, `{data: {title: "new", payer: "house", bonusCents: 500}}`)
	}
}

// send sends a command from the page, again where nobody answered in time.
func (p *page) send(typ, command, id, body string) {
	p.t.Helper()
	what := typ + " " + command + " " + id
	p.try(what, func() error {
		answer, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](fmt.Sprintf(`fetch("api/commands", {method: "POST",
			headers: {"Content-Type": "application/json"}, body: JSON.stringify(
				{type: %q, command: %q, id: %q, key: %q, body: %s})}).then((answer) => answer.text())`, typ, command, id, what, body),
			chromedp.EvalAwaitPromise))
		if err == nil && !strings.Contains(answer, `"outcome":"ok"`) && !strings.Contains(answer, `"outcome":"duplicate"`) {
			err = errors.New(answer)
		}
		return err
	})
}

// deadlinesPanel shows a saga that waits for its time, until what it waits for comes,
// and what became of one whose second step was refused.
func deadlinesPanel(p *page) {
	opened := "[data-instance=opened-" + p.name + "] "
	p.text("#deadlines", "account-opening opened-"+p.name)
	p.text(opened+"[data-step=reserve-bonus]", "done")
	p.text(opened+"[data-step=open].now", "under way")
	p.until("its deadline", fmt.Sprintf(`/^in \d+ min/.test(document.querySelector(%q)?.textContent)`, opened+"[data-step=open] .due"))
	p.text(opened+"[data-step=pay-bonus]", "to come")
	p.until("those of the bank itself", `document.querySelectorAll("#sagas .saga").length > 1`)
	p.shot("saga")
	p.send("account", "credit", "opened-"+p.name, `{transferId: "later", cents: 7}`) // which has left in another panel
	at := func(hash, what string) {
		p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/%s'", hash)))
		p.text("[data-panel]", what)
	}
	at("aggregates/account-opening/opened-"+p.name, `"phase": "completed"`)
	at("aggregates/account-opening/ada-giro", `"phase": "compensated"`)
	p.text("#state", `"code": "exists"`)
	p.text("[data-panel]", "compensated")
	p.click("#older")
	p.text("[data-panel]", "undone")
	at("deadlines", "Sagas in flight")
	p.until("it is in flight no more", fmt.Sprintf(`document.querySelector("#sagas .saga") && !document.querySelector(%q)`, opened))
}

// durabilityPanel says what a commit survives.
func durabilityPanel(p *page) {
	if p.servers == "3" {
		p.text("#durability", "quorum-lazy")
		p.until("three servers", `document.querySelectorAll("#durability tbody tr").length === 3`)
		return
	}
	p.text("#durability .note", "fsync 2m0s")
	p.text("#durability", "single-lazy")
}

// chaosPanel stops a part and starts it again; the invariant holds.
func chaosPanel(p *page) {
	p.text("[data-invariant=money] .badge", "holds")
	p.click("[data-switch=transfer-process] [data-option=stopped]")
	// A view that dies leaves its lease behind; whoever comes next goes on where it was.
	p.click("[data-switch=account-view] [data-option=killed]")
	p.text("[data-switch=transfer-process] p", "waits in the store")
	p.text("[data-switch=account-view] p", "its connection was cut")
	p.shot("chaos-stopped")
	for _, name := range []string{"transfer-process", "account-view"} {
		p.click("[data-switch=" + name + "] [data-option=runs]")
	}
	for _, name := range []string{"transfer-process", "account-view"} {
		p.until("it runs", fmt.Sprintf(`document.querySelector("[data-switch=%s] [data-option=runs][aria-pressed=true]")`, name))
	}
	// A line that loses answers.
	p.click("[data-switch=line] [data-option='loses answers']")
	p.until("it was cut", `/cut [1-9]/.test(document.querySelector("[data-switch=line] > p:last-child").textContent)`)
	p.shot("chaos-line")
	p.click("[data-switch=line] [data-option=works]")
	p.until("it works", `document.querySelector("[data-switch=line] [data-option=works][aria-pressed=true]")`)
	// A server dies and comes back: one of three without anybody being kept from work,
	// the only one with everybody waiting.
	name, how := "server-n1", "killed"
	if p.servers == "1" {
		name, how = "server", "stopped"
	}
	p.click("[data-switch=" + name + "] [data-option=" + how + "]")
	p.until("it is away", fmt.Sprintf(`document.querySelector("[data-switch=%s] [data-option=%s][aria-pressed=true]")`, name, how))
	if p.servers == "1" {
		p.text("#chips", "NATS is away")
	} else {
		p.text("#chips", "Money: holds")
	}
	p.shot("chaos-server")
	p.click("[data-switch=" + name + "] [data-option=runs]")
	p.until("it runs", fmt.Sprintf(`document.querySelector("[data-switch=%s] [data-option=runs][aria-pressed=true]")`, name))
	p.text("#chips", "live")
	p.text("#chips", "Money: holds")
	p.text("[data-invariant=money]", "broken 0 times")
}

// traces makes a transfer and follows it through the bank.
func (p *page) traces(base string) {
	p.do(chromedp.Navigate(base + "/traces/"))
	p.click("#go")
	// A transfer that could not be made in time is made once more.
	p.until("a waterfall", `(() => {
		const go = document.querySelector("#go"), shown = document.querySelectorAll("#rows details").length > 5;
		if (!shown && !go.disabled) go.click();
		return shown && /spans/.test(document.querySelector("#sum").textContent);
	})()`)
	p.click("#rows details summary")
	p.until("what the span says", `document.querySelector("#rows details[open] dl dd")`)
	p.until("it is done", `!document.querySelector("#go").disabled`)
	p.click("#list button")
	p.fits("traces")
	p.named("traces")
	p.readable("traces")
	p.shot("traces")
}

// keyboard goes through the page without a mouse.
func (p *page) keyboard() {
	p.do(chromedp.Evaluate[chromedp.Void](`location.hash = "#/commands"; document.activeElement.blur()`),
		chromedp.KeyEvent(kb.Tab))
	p.until("the skip link is first", `document.activeElement.id === "skip"`)
	p.do(chromedp.KeyEvent(kb.Enter))
	p.until("the panel has the focus", `document.activeElement.id === "main"`)
	p.do(chromedp.KeyEvent(kb.Tab))
	p.until("the first field has the focus", `document.activeElement.id === "type"`)
}

// named checks that everything that people work with has a name that a screen reader
// reads, and that no id stands twice.
func (p *page) named(panel string) {
	p.t.Helper()
	nameless, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`[...document.querySelectorAll("a, button, input, select, textarea, img, svg[role=img]")]
		.filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.closest("label") || e.labels?.length || e.hasAttribute("alt")))
		.map((e) => e.outerHTML.slice(0, 120))
		.concat([...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i).map((id) => "twice: " + id))
		.join("\n")`))
	if err != nil || nameless != "" {
		p.t.Errorf("%s px, %s: without a name: %s (%v)", p.name, panel, nameless, err)
	}
}

// readable checks that text stands out from what is behind it, 4.5 to 1 at least.
func (p *page) readable(panel string) {
	p.t.Helper()
	pale, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(() => {
		const rgb = (text) => text.match(/[\d.]+/g).map(Number);
		const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
			.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
		const behind = (e) => {
			for (; e; e = e.parentElement) {
				const c = rgb(getComputedStyle(e).backgroundColor);
				if (c.length === 3 || c[3] === 1) return c;
			}
			return [255, 255, 255];
		};
		const out = new Set();
		for (const e of document.querySelectorAll("body *")) {
			if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility() || e.closest(":disabled, svg, .toast")) continue;
			const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
			const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
			if (ratio < 4.5) out.add(e.tagName + "." + e.className + " " + ratio.toFixed(2));
		}
		return [...out].join(", ");
	})()`))
	if err != nil || pale != "" {
		p.t.Errorf("%s px, %s: hard to read: %s (%v)", p.name, panel, pale, err)
	}
}

// colours switches between them, which is kept.
func (p *page) colours() {
	p.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("theme").click()`))
	p.until("light", `document.documentElement.dataset.theme === "light" && getComputedStyle(document.body).colorScheme === "light"`)
	p.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("theme").click()`))
	p.until("dark", `document.documentElement.dataset.theme === "dark"`)
	p.do(chromedp.Reload())
	p.until("still dark", `document.documentElement.dataset.theme === "dark" && document.querySelector("[data-panel]")`)
	p.shot("dark")
	if w := os.Getenv(shotsEnv); w != "" && p.name == "1600" { // small ones, for people who read about it
		p.do(chromedp.Evaluate[chromedp.Void](`location.hash = "#/followers"`), emulate(1280, 800, .6, "light"))
		p.until("a minute's line", `[...document.querySelectorAll(".spark polyline")].some((e) => e.getAttribute("points").split(" ").length > 12)`)
		p.do(chromedp.Evaluate[chromedp.Void](`document.documentElement.dataset.theme = "light"`))
		p.shot("small")
		p.do(chromedp.Evaluate[chromedp.Void](`location.hash = "#/deadlines"`), emulate(1280, 560, .6, "light"))
		p.until("a saga", `document.querySelector("#sagas .saga .due")?.textContent.startsWith("in")`)
		p.shot("small-sagas")
		p.do(emulate(1600, 1000, 1, "light"))
	}
	p.do(chromedp.Evaluate[chromedp.Void](`localStorage.removeItem("rossby-theme")`))
}
