// Deadlines and sagas: what waits for its time, what is in flight.
import { api, badge, curl, duration, empty, failed, fill, h, number, route, set, snippets, summary, when } from "./ui.js";
import { live } from "./live.js";

let el, ticking = 0, pages = { deadlines: [], sagas: [] };

async function load(what, more) {
  const box = el.querySelector(`#${what}`);
  const last = pages[what].at(-1);
  try {
    const page = await api(`${what}?limit=50${more && last?.after ? `&after=${last.after}` : ""}`);
    pages[what] = more ? [...pages[what], page].slice(-6) : [page];
  } catch (err) {
    fill(box, failed(err));
    return;
  }
  draw(what);
}

function draw(what) {
  const items = pages[what].flatMap((p) => p.items), left = pages[what].at(-1)?.left ?? 0;
  const head = (...names) => h("thead", {}, h("tr", {}, names.map((n) => h("th", { scope: "col" }, n))));
  const table = what === "deadlines" ?
    h("table", {}, head("Due", "Command", "For", "Set by"), h("tbody", {}, items.map((d) => h("tr", {},
      h("td", {}, h("span", { class: "mono due", dataset: { due: d.due ?? "" }, title: d.due ? when(d.due) : "" }, "–")),
      h("td", {}, h("b", {}, d.command), " ", h("span", { class: "dim small" }, summary(d.body, 40))),
      h("td", {}, h("a", { href: route("aggregates", d.type, d.id) }, `${d.type} ${d.id}`)),
      h("td", { class: "small" }, `${d.subscriber}, ${d.step}`))))) :
    h("table", {}, head("Since", "Saga", "Instance"), h("tbody", {}, items.map((i) => h("tr", {},
      h("td", {}, when(i.since)), h("td", {}, badge(i.saga, "info")), h("td", {}, h("a", { href: route("aggregates", i.saga, i.id) }, i.id))))));
  fill(el.querySelector(`#${what}`),
    items.length ? h("div", { class: "scroll" }, table) : empty(what === "deadlines" ? "Nothing waits for its time." : "No saga is in flight."),
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
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Deadlines")), h("div", { class: "stack", id: "deadlines" })),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Sagas in flight")), h("div", { class: "stack", id: "sagas" })),
      snippets(() => ({
        nats: `nats --server ${live.info.nats} stream view ${live.info.store}__timers  # in a terminal\nnats --server ${live.info.nats} kv ls ${live.info.store}__sagas`,
        curl: `${curl("deadlines")}\n\n${curl("sagas")}`,
        Go: `// in a reactor's handler\nerr := do.After(ctx, time.Hour, orders, id, Expire{})\nerr = do.Cancel(ctx, orders, id, "expire")`,
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
