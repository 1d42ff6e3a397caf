// Deadlines and sagas: what waits for its time, what is in flight.
import { act, api, ask, badge, curl, duration, empty, failed, fill, h, number, part, route, set, snippets, summary, when } from "./ui.js";
import { live, readOnly } from "./live.js";

let el, ticking = 0, pages = { deadlines: [], sagas: [] };

async function load(what, more) {
  const box = el.querySelector(`#${what}`);
  const last = pages[what].at(-1);
  try {
    const page = await api(`${what}?limit=50${more && last?.after ? `&after=${last.after}` : ""}`);
    pages[what] = more ? [...pages[what], page].slice(-6) : [page];
  } catch (err) {
    delete box.dataset.print;
    fill(box, failed(err));
    return;
  }
  draw(what);
}

const phases = { running: "info", failing: "warn", compensating: "warn", stuck: "bad", completed: "good", compensated: "" };

// timeline is a saga's steps: done, under way, to come, undone.
function timeline(i) {
  const names = (i.steps ?? []).map((s) => s.name);
  for (const name of [...(i.done ?? []), i.step]) if (name && !names.includes(name)) names.push(name);
  const about = new Map((i.steps ?? []).map((s) => [s.name, s]));
  const forward = i.phase === "running", at = names.indexOf(i.step);
  const state = (name, n) => {
    if (name === i.step) return i.phase === "stuck" ? "stuck" : forward ? "now" : i.phase === "failing" ? "late" : "undoing";
    if ((i.done ?? []).includes(name)) return "done";
    if (i.failure?.step === name) return "failed";
    return forward || at < 0 || n > names.indexOf(i.failure?.step ?? i.step) ? "next" : "undone";
  };
  const words = { done: "done", now: "under way", late: "too late", next: "to come", undone: "undone", undoing: "being undone", stuck: "stuck", failed: "refused" };
  return h("ol", { class: "timeline", "aria-label": "Steps" }, names.map((name, n) => {
    const s = state(name, n), limit = about.get(name)?.timeout;
    return h("li", { class: s, dataset: { step: name }, "aria-current": name === i.step ? "step" : null },
      h("b", {}, name), h("span", { class: "small" }, words[s]),
      name === i.step && i.deadline ? h("span", { class: "small mono due", dataset: { due: i.deadline }, title: when(i.deadline) }, "–") :
        name === i.step && i.stepSince ? h("span", { class: "small mono due", dataset: { due: i.stepSince }, title: when(i.stepSince) }, "–") :
          limit && s === "next" ? h("span", { class: "small dim" }, `has ${duration(limit)}`) : null);
  }));
}

function sagaCard(i) {
  const order = (what, text, question) => h("button", {
    type: "button", class: "small", disabled: readOnly(), dataset: { do: what }, onclick: async (e) => {
      const button = e.currentTarget;
      if (question && !await ask(question)) return;
      await act(button, `${text}: told to`, () => api(`sagas/${part(i.saga)}/${what}`, { id: i.id }));
      load("sagas");
    },
  }, text);
  const why = (f, text) => f ? h("p", { class: "note bad" }, `${f.step ? `${f.step} ` : ""}${text}: ${[f.code, f.reason].filter(Boolean).join(", ")}`) : null;
  return h("section", { class: "stack saga", dataset: { instance: i.id } },
    h("div", { class: "row" }, badge(i.saga, "info"), h("a", { href: route("aggregates", i.saga, i.id) }, h("b", {}, i.id)),
      i.phase ? badge(i.phase, phases[i.phase]) : null, i.parked ? badge("parked", "bad") : null,
      h("span", { class: "dim small" }, `since ${when(i.since)}`)),
    i.phase ? timeline(i) : h("p", { class: "dim small" }, "Its state does not travel in its commits, and the application gave the console no saga of this name."),
    why(i.failure, i.failure?.code === "timed-out" ? "took too long" : "was refused"), why(i.stuckOn, "cannot be undone"),
    i.error ? h("p", { class: "note warn" }, `${number(i.attempts)} attempt${i.attempts === 1 ? "" : "s"}: ${i.error}`) : null,
    i.orders && (i.phase === "stuck" || i.parked) ? h("div", { class: "row" },
      i.phase === "stuck" ? [order("retry", "Retry"), order("resolve", "Resolve", {
        title: `Resolve ${i.id}?`, text: `Say so when ${i.step} has been undone by hand: the saga goes on with the step before, and never tries it again.`, action: "It has been undone", danger: true,
      })] : null,
      i.parked ? order("resume", "Try again") : null) : null);
}

function draw(what) {
  const items = pages[what].flatMap((p) => p.items), left = pages[what].at(-1)?.left ?? 0;
  const box = el.querySelector(`#${what}`), print = JSON.stringify([items, left]);
  if (box.dataset.print === print) return; // so that buttons stay where they are
  box.dataset.print = print;
  const head = (...names) => h("thead", {}, h("tr", {}, names.map((n) => h("th", { scope: "col" }, n))));
  const table = () => h("div", { class: "scroll" }, h("table", {}, head("Due", "Command", "For", "Set by"), h("tbody", {}, items.map((d) => h("tr", {},
    h("td", {}, h("span", { class: "mono due", dataset: { due: d.due ?? "" }, title: d.due ? when(d.due) : "" }, "–")),
    h("td", {}, h("b", {}, d.command), " ", h("span", { class: "dim small" }, summary(d.body, 40))),
    h("td", {}, h("a", { href: route("aggregates", d.type, d.id) }, `${d.type} ${d.id}`)),
    h("td", { class: "small" }, `${d.subscriber}, ${d.step}`))))));
  fill(box,
    !items.length ? empty(what === "deadlines" ? "Nothing waits for its time." : "No saga is in flight.") :
      what === "deadlines" ? table() : h("div", { class: "stack" }, items.map(sagaCard)),
    left ? h("div", { class: "row" }, h("button", { type: "button", onclick: () => load(what, true) }, `More (${number(left)})`)) : null);
  tick();
}

function tick() {
  for (const d of el.querySelectorAll(".due")) {
    const left = (Date.parse(d.dataset.due) - Date.now()) / 1000;
    set(d, Number.isNaN(left) ? "–" : left > 0 ? `in ${duration(left)}` : `${duration(-left)} ago`);
  }
}

export const deadlines = {
  id: "deadlines",
  title: "Deadlines & sagas",
  enter(root) {
    el = root;
    pages = { deadlines: [], sagas: [] };
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Deadlines and sagas"), h("p", {}, "Commands that reactors have set for later, and process instances that have not ended.")),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Sagas in flight"), h("span", { class: "dim small" }, "oldest first")), h("div", { class: "stack", id: "sagas" })),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Deadlines"), h("span", { class: "dim small" }, "oldest first")), h("div", { class: "stack", id: "deadlines" })),
      snippets(() => ({
        nats: [`nats --server ${live.info.nats} stream subjects ${live.info.store}__timers`, pages.sagas[0]?.items.length ? `nats --server ${live.info.nats} kv ls ${live.info.store}__sagas` : ""].filter(Boolean).join("\n"),
        curl: `${curl("deadlines")}\n\n${curl("sagas")}`,
        Go: `for instance, err := range process.InFlight(ctx, saga.Filter{Stuck: true}) {\n\tif err != nil {\n\t\treturn err\n\t}\n\tif err := process.Retry(ctx, instance.ID); err != nil { // or Resolve, once it is undone by hand\n\t\treturn err\n\t}\n}`,
      })));
    load("deadlines");
    load("sagas");
    ticking = setInterval(tick, 1000);
    this.round = 0;
  },
  leave() { clearInterval(ticking); },
  status() {
    // Once in a while, and only where nobody has gone on to later pages.
    if (++this.round % 3) return;
    for (const what of ["deadlines", "sagas"]) if (pages[what].length === 1) load(what);
  },
};
