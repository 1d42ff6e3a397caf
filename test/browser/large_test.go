package browser_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// What a page may cost, however large the store is.
const (
	answerMost = 512 << 10 // bytes of an answer
	rowsMost   = 500       // in any list
)

// Of a store of 100,000 events of 10,000 aggregates every panel stays quick to look
// at: no answer and no list grows with the store. One console acts and tells stuck
// sagas what to do, the other reads and offers nothing else.
func TestLargeStore(t *testing.T) {
	t.Parallel()
	if !hasBrowser(t) {
		return
	}
	l := newLarge(t)
	p := open(startBrowser(t), t, 1600, 1000, true)
	p.name = "large"
	p.do(chromedp.Navigate(l.acts))
	p.text("#chips", "live")
	for _, at := range []struct{ hash, ready string }{
		{"commands/account/credit", `document.querySelectorAll("#ids option").length > 20`},
		{"events", `document.querySelectorAll("#event-list > li").length >= 50`},
		{"events/15000/2", `document.querySelectorAll("#chosen .tree .node").length === 5`},
		{"aggregates", `document.querySelectorAll("#recent li").length === 30`},
		{"aggregates/account/n77/10", `/"cents": 90/.test(document.querySelector("#state").textContent)`},
		{"followers", `document.querySelectorAll("[data-follower]").length >= 3`},
		{"views/balances/n77", `/"cents": 90/.test(document.querySelector("#entry").textContent) &&
			document.querySelectorAll("#entries li").length === 50`},
		{"gateways", `!document.querySelector("#no-gateways").hidden`},
		{"deadlines", `document.querySelectorAll("#sagas .saga").length === 50`},
		{"durability", `document.querySelector("#durability .note")`},
		{"chaos", `document.querySelector("[data-switch=lamp]")`},
	} {
		p.panel(at.hash, at.ready)
	}
	// Older events, many times: the list stays as long as it may be.
	p.panel("events", `document.querySelectorAll("#event-list > li").length >= 50`)
	for range 6 {
		before := p.number(`Number(document.querySelector("#event-list > li:last-child").dataset.key.split(".")[0])`)
		p.do(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("[data-panel=events] button")].find((b) => b.textContent === "Older events").click()`))
		p.until("older ones", fmt.Sprintf(
			`Number(document.querySelector("#event-list > li:last-child").dataset.key.split(".")[0]) < %d`, before))
	}
	p.bounded("older events")
	p.durations()
	p.sagas()
	p.clean()

	p.do(chromedp.Navigate(l.reads))
	p.text("#chips", "read only")
	p.readOnly()
	p.clean()
	p.do(emulate(360, 740, 1, "light"))
	p.panel("deadlines", `document.querySelectorAll("#sagas .saga").length === 50`)
	p.fits("deadlines")
	p.readable("deadlines")
	p.shot("sagas-360")
	p.clean()
}

// panel goes to a panel and waits until it shows what it must. How long that takes is
// told; how much was sent and drawn for it is checked.
func (p *page) panel(hash, ready string) {
	p.t.Helper()
	began := time.Now()
	p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`performance.clearResourceTimings(); location.hash = "#/%s"`, hash)))
	p.until(hash+" is shown", ready)
	took := time.Since(began)
	p.t.Logf("%-28s %6d ms, %s", hash, took.Milliseconds(), p.bounded(hash))
	p.fits(hash)
	p.named(hash)
	p.readable(hash)
}

// bounded checks how long answers and lists are.
func (p *page) bounded(what string) string {
	p.t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`JSON.stringify({
		answers: performance.getEntriesByType("resource").filter((r) => r.name.includes("/api/")).map((r) => [r.name, r.decodedBodySize]),
		rows: [...document.querySelectorAll("ul, ol, tbody, select, datalist, .cards, .stack")].map((l) => [l.id || l.className, l.children.length]),
		elements: document.querySelectorAll("*").length,
	})`))
	var got struct {
		Answers  [][2]any `json:"answers"`
		Rows     [][2]any `json:"rows"`
		Elements int      `json:"elements"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &got)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	bytes, rows := 0.0, 0.0
	for _, a := range got.Answers {
		size, _ := a[1].(float64)
		if bytes = max(bytes, size); size > answerMost {
			p.t.Errorf("%s: %v has %.0f bytes", what, a[0], size)
		}
	}
	for _, r := range got.Rows {
		n, _ := r[1].(float64)
		if rows = max(rows, n); n > rowsMost {
			p.t.Errorf("%s: %v has %.0f rows", what, r[0], n)
		}
	}
	return fmt.Sprintf("%.0f bytes and %.0f rows at most, %d elements", bytes, rows, got.Elements)
}

// durations checks how the page writes them: no 60 s, no 60 min.
func (p *page) durations() {
	p.t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(async () => {
		const { duration } = await import("./ui.js");
		return [.2, 9.94, 59.4, 59.6, 119.4, 119.7, 3569, 3590, 3599.6, 7169, 7195, 86380, 86400, 200000].map(duration).join(", ");
	})()`, chromedp.EvalAwaitPromise))
	want := "200 ms, 9.9 s, 59 s, 1 min 0 s, 1 min 59 s, 2 min 0 s, 59 min 29 s, 59 min 50 s, 1 h 0 min, " +
		"1 h 59 min, 2 h 0 min, 1 day, 1 day, 2 days"
	if err != nil || text != want {
		p.t.Errorf("durations: %s, %v; want %s", text, err, want)
	}
}

// sagas looks at the steps of sagas in flight, and at the next page; the one that is
// stuck is told to try again, in vain, and that somebody has helped.
func (p *page) sagas() {
	p.t.Helper()
	p.panel("deadlines", `document.querySelectorAll("#sagas .saga").length === 50`)
	stuck := "[data-instance=s00] "
	p.text(stuck+".badge", "stuck")
	p.text(stuck+"[data-step=open]", "stuck")
	p.text(stuck+".note.bad", "too-little")
	p.text("[data-instance=s01] [data-step=open]", "done")
	p.until("its time is due in an hour", `/in (1 h 0|[45]\d) min/.test(document.querySelector("[data-instance=s01] [data-step=pay].now .due")?.textContent)`)
	p.text("[data-instance=s01] [data-step=thank]", "to come")
	p.shot("sagas")
	p.click(stuck + "[data-do=retry]")
	p.text("#toasts", "Retry: told to")
	p.text(stuck+".badge", "stuck")
	p.click(stuck + "[data-do=resolve]")
	p.text("#ask[open] h2", "Resolve s00?")
	p.click("#ask[open] button[type=submit]")
	p.until("it is in flight no more", `!document.querySelector("[data-instance=s00]") && document.querySelector("[data-instance=s50]")`)
	p.do(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("#sagas button")].find((b) => b.textContent.startsWith("More")).click()`))
	p.until("the next page", `document.querySelectorAll("#sagas .saga").length === 59`)
}

// readOnly checks that nothing on the page acts, and that nothing would be allowed.
func (p *page) readOnly() {
	p.t.Helper()
	for hash, ready := range map[string]string{
		"commands/account/credit": `document.querySelector("#send")`,
		"events":                  `document.querySelectorAll("#event-list > li").length >= 50`,
		"followers":               `document.querySelectorAll("[data-follower] [data-do]").length >= 4`,
		"deadlines":               `document.querySelectorAll("#sagas .saga").length >= 50`,
		"chaos":                   `document.querySelector("[data-switch=lamp]")`,
	} {
		p.panel(hash, ready)
		if n := p.number(`[...document.querySelectorAll("[data-do], [data-switch] button, #send, #send-twice, #send-100")].filter((b) => !b.disabled).length`); n > 0 {
			p.t.Errorf("%s: %d buttons act", hash, n)
		}
	}
	// What a page would ask for, asked all the same.
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(async () => {
		const out = [];
		for (const path of ["commands", "followers/saving/pause", "views/balances/rebuild", "sagas/saving/retry", "switches/lamp"]) {
			const r = await fetch("api/" + path, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
			out.push(r.status + " " + (await r.json()).code);
		}
		return [...new Set(out)].join(", ");
	})()`, chromedp.EvalAwaitPromise))
	if err != nil || text != "403 read-only" {
		p.t.Errorf("%s, %v", text, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = nil // the browser tells of each refusal
}
