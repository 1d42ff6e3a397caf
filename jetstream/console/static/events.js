// Events: the live stream with filters, an event's details, and what caused what.
import { api, badge, bytes, clock, curl, empty, failed, fill, h, json, number, part, quote, route, snippets, summary, when } from "./ui.js";
import { key, live, on } from "./live.js";

const most = 200;

// eventRow is an event in a line; choose is told when it is chosen.
export function eventRow(e, choose, extra) {
  return h("li", { dataset: { key: key(e) } },
    h("button", { type: "button", class: "event", onclick: (c) => choose(e, c.currentTarget), ...extra },
      h("time", { datetime: e.storedAt, title: when(e.storedAt) }, clock(e.storedAt)),
      h("span", { class: "seq" }, `#${e.sequence}`),
      h("span", { class: "who", title: `${e.type} ${e.id}` }, `${e.type} `, h("b", {}, e.id), ` v${e.version}`),
      h("span", { class: "what" }, e.name || `refused: ${e.rejected}`),
      h("span", { class: "data" }, e.encrypted ? "encrypted" : e.data === undefined && e.bytes ? bytes(e.bytes) : summary(e.data))));
}

// details is everything about an event.
export function details(e) {
  const rows = [
    ["event id", e.eventId], ["aggregate", h("a", { href: route("aggregates", e.type, e.id, e.version) }, `${e.type} ${e.id} at version ${e.version}`)],
    ["sequence", `${e.sequence}, event ${e.index}`], ["stored", when(e.storedAt)], ["decided", e.time.startsWith("0001") ? null : when(e.time)],
    ["command id", e.commandId], ["caused by", e.causation], ["conversation", e.correlation],
    ["effect of", e.subscriber && `${e.subscriber}, step ${e.step}`], ["trace", e.traceParent],
    ["metadata", e.metadata && JSON.stringify(e.metadata)], ["data version", e.schemaVersion], ["encrypted under", e.encrypted],
  ];
  const tree = h("div", {});
  const body = h("div", {}, e.data === undefined && e.bytes && !e.encrypted ? null : json(e.data));
  if (e.data === undefined && e.bytes && !e.encrypted) {
    body.append(h("button", {
      type: "button", onclick: async () => {
        const full = await api(`events/${e.sequence}`).catch((err) => fill(body, failed(err)));
        if (full?.events) fill(body, json(full.events[e.index].data, 200000));
      },
    }, `Show ${bytes(e.bytes)}`));
  }
  const el = h("div", { class: "detail" },
    h("div", { class: "cols" },
      h("div", { class: "stack" }, h("h3", {}, "Data"), body),
      h("div", { class: "stack" }, h("h3", {}, "About it"), h("dl", { class: "meta" },
        rows.filter(([, v]) => v).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])))),
    h("div", { class: "stack" },
      h("div", { class: "row spread" }, h("h3", {}, "What caused what"),
        h("a", { class: "button", href: route("aggregates", e.type, e.id, e.version) }, "Travel to this version")),
      tree),
    snippets(() => ({
      nats: `nats --server ${live.info.nats} stream get ${live.info.store} ${e.sequence}`,
      curl: curl(`events/${e.sequence}`),
      Go: `for commit, err := range store.Scan(ctx, "", jetstream.Range{After: ${e.sequence - 1}, To: ${e.sequence}}) {\n\tif err != nil {\n\t\treturn err\n\t}\n\tfmt.Println(commit.Type, commit.ID, commit.EventNames)\n}`,
    })));
  causes(tree, e);
  return el;
}

// causes draws the conversation that an event belongs to.
async function causes(el, e, span = 0) {
  fill(el, h("p", { class: "dim small" }, "Looking …"));
  let t;
  try {
    t = await api(`events/${e.sequence}/tree?index=${e.index}${span ? `&span=${span}` : ""}`);
  } catch (err) {
    fill(el, failed(err));
    return;
  }
  // An event that several were made with stands under what caused the first.
  const ids = new Map(t.nodes.filter((n) => !n.rejected).map((n) => [n.eventId, n]));
  const children = new Map(), roots = [];
  for (const n of t.nodes) {
    const parent = ids.get(n.causation);
    if (!parent || parent === n || parent.sequence > n.sequence) roots.push(n);
    else children.set(parent, [...(children.get(parent) ?? []), n]);
  }
  const node = (n, depth) => h("li", {},
    h("div", { class: `node${n.eventId === e.eventId ? " here" : ""}` },
      n.rejected ? badge(`refused: ${n.rejected}`, "bad", n.reason) : h("b", {}, n.name),
      h("a", { href: route("aggregates", n.type, n.id, n.version) }, `${n.type} ${n.id}`),
      h("span", { class: "by" }, n.subscriber ? `by ${n.subscriber}, ${n.step}` : n.metadata?.by ? `by ${n.metadata.by}` : "",
        ` #${n.sequence} · ${clock(n.storedAt)}`)),
    children.has(n) && depth < 40 ? h("ul", {}, children.get(n).map((c) => node(c, depth + 1))) : null);
  fill(el,
    h("ul", { class: "tree" }, roots.map((n) => node(n, 0))),
    t.cut ? h("p", { class: "note" }, "The conversation is longer: these are its first 300 events.") : null,
    t.complete ? null : h("div", { class: "row" },
      h("span", { class: "dim small" }, `Looked ${number(span || 1000)} commits back and on, from #${number(t.from)} to #${number(t.to)}: what lies beyond is not shown.`,
        (span || 1000) < 20000 ? "" : " That is as far as the console looks."),
      (span || 1000) < 20000 ? h("button", { type: "button", class: "small", onclick: () => causes(el, e, Math.min((span || 1000) * 5, 20000)) }, "Look further") : null));
}

// feed is the live stream beside the other panels.
export function feed(el) {
  const list = h("ul", { class: "events compact" });
  fill(el, h("section", { class: "card" },
    h("header", {}, h("h2", {}, "Live events"), h("a", { href: "#/events", class: "small" }, "All events")), list, empty("Nothing yet.")));
  const choose = (e) => { location.hash = route("events", e.sequence, e.index); };
  let planned = false;
  const draw = () => {
    planned = false;
    el.querySelector(".empty")?.toggleAttribute("hidden", live.events.length > 0);
    const known = new Map([...list.children].map((c) => [c.dataset.key, c]));
    const rows = live.events.slice(0, 40).map((e) => {
      const old = known.get(key(e));
      if (old) return old;
      const row = eventRow(e, choose);
      row.classList.add("fresh");
      return row;
    });
    list.replaceChildren(...rows);
  };
  on("event", () => {
    if (planned) return;
    planned = true;
    setTimeout(draw, 120);
  });
}

let el, list, more, filters, rows = [], before = 0, searched = 0, open = null, paused = false, missed = 0, planned = false, wanted = 0;

const matches = (e) => (!filters.type || e.type === filters.type) && (!filters.id || e.id === filters.id) && (!filters.name || e.name === filters.name);

function query(extra) {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries({ ...filters, ...extra })) if (v) q.set(k, v);
  return `events?${q}`;
}

async function load(older) {
  const ticket = ++wanted;
  more.disabled = true;
  try {
    const page = await api(query({ before: older ? before : 0 }));
    if (ticket !== wanted) return;
    if (!older) {
      rows = [];
      searched = 0;
    }
    const known = new Set(rows.map(key));
    rows.push(...page.events.filter((e) => !known.has(key(e))));
    before = page.before ?? 0;
    searched += page.searched;
    draw();
  } catch (err) {
    fill(list, failed(err));
  } finally {
    more.disabled = false;
  }
}

function toggle(e, button) {
  const row = button.closest("li");
  const was = row.querySelector(".detail");
  for (const d of list.querySelectorAll(".detail")) d.remove();
  for (const b of list.querySelectorAll("[aria-expanded=true]")) b.setAttribute("aria-expanded", "false");
  open = null;
  if (was) return;
  open = key(e);
  button.setAttribute("aria-expanded", "true");
  row.append(details(e));
}

function draw() {
  planned = false;
  if (rows.length > most && !before) before = rows[most - 1].sequence + 1;
  const known = new Map([...list.children].map((c) => [c.dataset.key, c]));
  const shown = rows.map((e) => known.get(key(e)) ?? eventRow(e, toggle, { "aria-expanded": "false" }));
  list.replaceChildren(...shown);
  el.querySelector("#no-events").hidden = rows.length > 0;
  more.hidden = before === 0;
  el.querySelector("#searched").textContent = before === 0 ? "That is all." :
    rows.length ? "" : `Nothing among the last ${number(searched)} commits.`;
  el.querySelector("#missed").textContent = missed ? `${number(missed)} events went by too fast to be shown.` : "";
}

export const events = {
  id: "events",
  title: "Events",
  enter(root) {
    el = root;
    filters = { type: "", id: "", name: "" };
    rows = [];
    open = null;
    paused = false;
    missed = 0;
    list = h("ul", { class: "events", id: "event-list" });
    more = h("button", { type: "button", onclick: () => load(true) }, "Older events");
    const field = (name, label, hint) => h("label", { class: "field" }, h("span", {}, label),
      h("input", { type: "search", name, placeholder: hint, autocomplete: "off", spellcheck: "false" }));
    const form = h("form", {
      class: "fields", onsubmit: (e) => e.preventDefault(),
      onchange: () => {
        for (const input of form.elements) if (input.name) filters[input.name] = input.value.trim();
        load(false);
      },
    }, field("type", "Aggregate type", "any"), field("id", "Aggregate", "any id"), field("name", "Event", "any"));
    const pause = h("button", {
      type: "button", "aria-pressed": "false", id: "pause", onclick: () => {
        paused = !paused;
        pause.setAttribute("aria-pressed", String(paused));
        pause.textContent = paused ? "Go on" : "Hold still";
        if (!paused) load(false);
      },
    }, "Hold still");
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Events"), h("p", {}, "What happened, as it happens. Choose one to see what caused it and what it caused.")),
      h("section", { class: "card" },
        form,
        h("div", { class: "row" }, pause, h("span", { class: "dim small", id: "missed" })),
        list,
        h("p", { class: "empty", id: "no-events", hidden: true }, "No such events."),
        h("div", { class: "row" }, more, h("span", { class: "dim small", id: "searched" })),
        snippets(() => {
          const subject = `${live.info.store}.event.${filters.type || "*"}.*.${filters.id || "*"}`;
          return {
            nats: `nats --server ${live.info.nats} sub --stream ${live.info.store} --new ${quote(subject)}`,
            curl: `${curl(query({}))}\n\n# as they happen\ncurl -sN ${quote(new URL("api/stream", location.href.split("#")[0]).href)}`,
            Go: `for commit, err := range store.Scan(ctx, ${JSON.stringify(filters.type)}, jetstream.Range{Backwards: true}) {\n\tif err != nil {\n\t\treturn err\n\t}\n\tfmt.Println(commit.Type, commit.ID, commit.EventNames)\n}`,
          };
        }, "Read them with nats, curl and Go")));
    this.off = on("gap", (n) => {
      missed += n;
      draw();
    });
    load(false);
  },
  leave() { this.off?.(); },
  async route([sequence, index]) {
    if (!sequence) return;
    el.querySelector("#chosen")?.remove();
    const card = h("section", { class: "card", id: "chosen" }, h("p", { class: "dim" }, "Looking …"));
    el.querySelector(".head").after(card);
    try {
      const commit = await api(`events/${part(sequence)}`);
      const e = commit.events[Number(index) || 0];
      if (!e) throw new Error("the commit has no such event");
      fill(card, h("header", {}, h("h2", {}, `${e.name} of ${e.type} ${e.id}`), h("a", { href: "#/events", onclick: () => card.remove() }, "Close")), details(e));
    } catch (err) {
      fill(card, failed(err));
    }
  },
  event(e) {
    if (paused || !matches(e) || rows.some((r) => key(r) === key(e))) return;
    rows.unshift(e);
    if (rows.length > 1 && rows[1].sequence > e.sequence) rows.sort((a, b) => b.sequence - a.sequence || b.index - a.index);
    if (rows.length > most) {
      rows.length = most;
      before = rows[most - 1].sequence;
    }
    if (!planned) {
      planned = true;
      setTimeout(draw, 120);
    }
  },
};
