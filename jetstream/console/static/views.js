// The view explorer: a view's entries, each beside the events that made it.
import { api, bytes, clock, curl, empty, failed, fill, h, json, number, part, route, snippets, summary, when } from "./ui.js";
import { eventRow } from "./events.js";
import { live } from "./live.js";

let el, view = "", key = "", entries = [], after = "", ticket = 0, shown = "", timer = 0, position = 0;

async function list(more) {
  if (!view) return;
  const mine = ++ticket;
  const prefix = el.querySelector("[name=prefix]").value;
  const box = el.querySelector("#entries");
  try {
    const page = await api(`views/${part(view)}/entries?limit=50${prefix ? `&prefix=${part(prefix)}` : ""}${more && after ? `&after=${part(after)}` : ""}`);
    if (mine !== ticket) return;
    entries = more ? [...entries, ...page.entries] : page.entries;
    if (entries.length > 500) entries = entries.slice(-500);
    after = page.after ?? "";
    fill(box, entries.length ? entries.map((e) => h("li", {}, h("a", { href: route("views", view, e.key), "aria-current": e.key === key ? "true" : null, dataset: { entry: e.key } },
      h("span", {}, h("b", {}, e.key), " ", h("span", { class: "dim small" }, e.value === undefined ? bytes(e.bytes) : summary(e.value, 48))), h("small", {}, `#${e.sequence}`)))) : h("li", { class: "empty" }, "No entries."));
    el.querySelector("#more-entries").hidden = !after;
  } catch (err) {
    if (mine !== ticket) return;
    fill(box, h("li", {}, failed(err)));
    el.querySelector("#more-entries").hidden = true;
  }
}

async function show() {
  const box = el.querySelector("#entry");
  if (!key) {
    fill(box, empty("Choose an entry."));
    return;
  }
  const of = view, what = key;
  try {
    const e = await api(`views/${part(of)}/entry?key=${part(what)}`);
    if (of !== view || what !== key) return;
    const print = `${of}/${what}/${e.generation}/${e.revision}/${e.events[0]?.sequence}`;
    if (print === shown) return;
    shown = print;
    fill(box,
      h("section", { class: "card", id: "document" },
        h("header", {}, h("h2", {}, what), h("span", { class: "dim small" }, `changed by #${number(e.sequence)}, ${clock(e.time)} · generation ${e.generation} · ${bytes(e.bytes)}`)),
        json(e.value, 60000)),
      h("section", { class: "card" },
        h("header", {}, h("h2", {}, "The events that made it"), h("span", { class: "dim small" }, "those of the aggregate with this id, and the one that changed it last")),
        e.events.length ? h("ul", { class: "events" }, e.events.map((ev) => eventRow(ev, () => { location.hash = route("events", ev.sequence, ev.index); }))) : empty("None are known by this key.")),
      snippets(() => ({
        nats: `nats --server ${live.info.nats} kv get ${live.info.store}_${of} ${e.generation}.${what}\n\n# live\nnats --server ${live.info.nats} kv watch ${live.info.store}_${of} ${e.generation}.${what}`,
        curl: curl(`views/${part(of)}/entry?key=${part(what)}`),
        Go: `// V is what the view holds\nreader, err := projection.NewReader[V](ctx, nc, ${JSON.stringify(live.info.store)}, ${JSON.stringify(of)}, projection.ReaderConfig{})\nentry, err := reader.Get(ctx, ${JSON.stringify(what)})\n\nfor change, err := range reader.Watch(ctx, projection.WatchOptions{Key: ${JSON.stringify(what)}}) {\n\tif err != nil {\n\t\treturn err\n\t}\n\tfmt.Println(change.Entry.Key, change.Entry.Value)\n}`,
      })));
  } catch (err) {
    if (of !== view || what !== key) return;
    shown = "";
    fill(box, failed(err));
  }
}

function names() {
  const select = el.querySelector("#view");
  const all = (live.status?.views ?? []).map((v) => v.name);
  if (view && !all.includes(view)) all.push(view);
  if (select.dataset.names !== all.join()) {
    select.dataset.names = all.join();
    fill(select, all.map((n) => h("option", { value: n }, n)));
  }
  if (!view && all.length) {
    view = all[0];
    list(false);
  }
  select.value = view;
}

export const views = {
  id: "views",
  title: "Views",
  enter(root) {
    el = root;
    view = "";
    key = "";
    shown = "";
    position = 0;
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Views"), h("p", {}, "What the views hold, live, beside the events that made it.")),
      h("div", { class: "cols narrow" },
        h("section", { class: "card" },
          h("label", { class: "field" }, h("span", {}, "View"), h("select", { id: "view", onchange: (e) => { location.hash = route("views", e.target.value); } })),
          h("form", {
            onsubmit: (e) => {
              e.preventDefault();
              list(false);
            },
          }, h("label", { class: "field" }, h("span", {}, "Keys that begin with"), h("input", { type: "search", name: "prefix", autocomplete: "off", spellcheck: "false", onchange: () => list(false) }))),
          h("p", { class: "dim small", id: "view-state" }),
          h("ul", { class: "list tall", id: "entries" }),
          h("div", { class: "row" }, h("button", { type: "button", class: "small", id: "more-entries", hidden: true, onclick: () => list(true) }, "More"),
            h("button", { type: "button", class: "ghost small", onclick: () => list(false) }, "Read anew"))),
        h("div", { class: "stack", id: "entry" }, empty("Choose an entry."))));
    names();
  },
  leave() { clearTimeout(timer); },
  route([name, k]) {
    const other = name && name !== view;
    if (name) view = name;
    key = k ?? "";
    names();
    if (other) {
      shown = "";
      list(false);
    } else {
      for (const a of el.querySelectorAll("#entries a")) {
        if (a.dataset.entry === key) a.setAttribute("aria-current", "true");
        else a.removeAttribute("aria-current");
      }
    }
    show();
  },
  status(s) {
    names();
    const v = s.views.find((x) => x.name === view);
    if (!v) return;
    el.querySelector("#view-state").textContent = `${v.paused ? "paused" : v.state} at #${number(v.position)}${v.lag ? `, ${number(v.lag)} behind` : ", up to date"} · ${when(s.time)}`;
    // The document follows the view.
    if (v.position !== position || v.generation !== this.generation) {
      position = v.position;
      this.generation = v.generation;
      clearTimeout(timer);
      timer = setTimeout(show, 50);
    }
  },
};
