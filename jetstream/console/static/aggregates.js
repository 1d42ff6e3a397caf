// Time travel: an aggregate's versions, what each event did to its state.
import { api, clock, curl, differences, empty, failed, fill, h, json, number, part, route, snippets, when } from "./ui.js";
import { eventRow } from "./events.js";
import { live } from "./live.js";

let el, at = null, version = 0, head = null, events = new Map(), before = 0, states = new Map(), ticket = 0, timer = 0, playing = 0;

const remember = 400;

const base = () => `aggregates/${part(at.type)}/${part(at.id)}`;

async function recent() {
  const list = el.querySelector("#recent");
  const type = el.querySelector("[name=type]").value.trim();
  try {
    const page = await api(`aggregates?limit=30${type ? `&type=${part(type)}` : ""}`);
    fill(list, page.aggregates.length ? page.aggregates.map((a) => h("li", {}, h("a", {
      href: route("aggregates", a.type, a.id), "aria-current": at && at.type === a.type && at.id === a.id ? "true" : null,
    }, h("span", {}, `${a.type} `, h("b", {}, a.id)), h("small", {}, `v${number(a.version)}`)))) : h("li", { class: "empty" }, "None."));
  } catch (err) {
    fill(list, h("li", {}, failed(err)));
  }
}

async function open(type, id, wanted) {
  const mine = ++ticket;
  stop();
  if (!at || at.type !== type || at.id !== id) {
    at = { type, id };
    events = new Map();
    states = new Map();
    head = null;
    before = 0;
  }
  el.querySelector("[name=type]").value = type;
  el.querySelector("[name=id]").value = id;
  const box = el.querySelector("#aggregate");
  if (!head) {
    fill(box, h("p", { class: "dim" }, "Reading …"));
    try {
      await page(0);
    } catch (err) {
      if (mine === ticket) {
        head = null;
        fill(box, failed(err));
      }
      return;
    }
    if (mine !== ticket) return;
    frame();
  }
  go(Math.min(Math.max(Number(wanted) || head.version, 1), head.version));
}

// page reads events before a version, the newest for 0.
async function page(from) {
  const mine = at;
  const p = await api(`${base()}?limit=50${from ? `&before=${from}` : ""}`);
  if (mine !== at) return;
  if (!from) {
    head = p;
    if (!before) before = p.before ?? 0;
  } else {
    before = p.before ?? 0;
  }
  for (const e of p.events) events.set(e.version, e);
}

function frame() {
  const box = el.querySelector("#aggregate");
  fill(box,
    h("section", { class: "card" },
      h("header", {}, h("h2", { id: "who" }, `${at.type} ${at.id}`), h("span", { class: "dim small", id: "subject" }, head.subject)),
      h("div", { class: "travel" },
        h("button", { type: "button", id: "older", "aria-label": "One version back", onclick: () => move(-1) }, "◀"),
        h("input", { type: "range", id: "slider", min: 1, max: head.version, value: version, "aria-label": "Version", oninput: (e) => go(Number(e.target.value)) }),
        h("button", { type: "button", id: "newer", "aria-label": "One version on", onclick: () => move(1) }, "▶"),
        h("output", { id: "where", for: "slider" })),
      h("div", { class: "row" },
        h("button", { type: "button", class: "small", id: "play", onclick: play }, "Play"),
        h("button", { type: "button", class: "small", onclick: () => move(1 - version) }, "First"),
        h("button", { type: "button", class: "small", onclick: () => move(head.version - version) }, "Latest"),
        h("span", { class: "dim small", id: "fresher" }))),
    h("div", { class: "cols" },
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "What the event changed")), h("div", { class: "stack", id: "change" })),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "State after it")), h("div", { id: "state" }))),
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "Its events")),
      h("ul", { class: "events tall", id: "history" }),
      h("div", { class: "row" }, h("button", {
        type: "button", id: "more-history", onclick: async () => {
          await page(before).catch((err) => fill(el.querySelector("#change"), failed(err)));
          history();
        },
      }, "Older events"))),
    snippets(() => ({
      nats: `nats --server ${live.info.nats} stream get ${live.info.store} --last-for ${head.subject}`,
      curl: `${curl(`${base()}/versions/${version}`)}\n\n# its events, the newest first\n${curl(base())}`,
      Go: `snapshot, err := repo.LoadAt(ctx, ${JSON.stringify(at.id)}, ${version})\n\nfor event, err := range repo.History(ctx, ${JSON.stringify(at.id)}, aggregate.UpToVersion(${version})) {\n\tif err != nil {\n\t\treturn err\n\t}\n\tfmt.Println(event.Meta.Version, event.Meta.Name)\n}`,
    })));
}

function history() {
  const list = el.querySelector("#history");
  const shown = [...events.values()].sort((a, b) => b.version - a.version).slice(0, remember);
  fill(list, shown.map((e) => eventRow(e, () => go(e.version), { "aria-pressed": String(e.version === version) })));
  el.querySelector("#more-history").hidden = before === 0 || events.size >= remember;
}

function move(by) {
  stop();
  go(Math.min(Math.max(version + by, 1), head.version));
}

function stop() {
  clearInterval(playing);
  playing = 0;
  const button = el?.querySelector("#play");
  if (button) button.textContent = "Play";
}

function play() {
  if (playing) {
    stop();
    return;
  }
  if (version >= head.version) go(1);
  el.querySelector("#play").textContent = "Stop";
  playing = setInterval(() => {
    if (version >= head.version) stop();
    else go(version + 1);
  }, 700);
}

function go(n) {
  version = n;
  const slider = el.querySelector("#slider");
  slider.max = head.version;
  slider.value = n;
  const e = events.get(n);
  el.querySelector("#where").textContent = `version ${number(n)} of ${number(head.version)}${e ? ` · ${e.name} · ${when(e.storedAt)}` : ""}`;
  el.querySelector("#older").disabled = n <= 1;
  el.querySelector("#newer").disabled = n >= head.version;
  window.history.replaceState(null, "", route("aggregates", at.type, at.id, n));
  history();
  clearTimeout(timer);
  // Who drags the slider asks for where it stops.
  timer = setTimeout(() => show(n), states.has(n) ? 0 : 90);
}

async function show(n) {
  const mine = at;
  let v = states.get(n);
  if (!v) {
    try {
      v = await api(`${base()}/versions/${n}`);
    } catch (err) {
      if (mine === at && n === version) fill(el.querySelector("#change"), failed(err));
      return;
    }
    if (states.size > remember) states.clear();
    states.set(n, v);
  }
  if (mine !== at || n !== version || !el.querySelector("#change")) return;
  const e = v.event;
  fill(el.querySelector("#change"),
    e ? [h("p", {}, h("b", {}, e.name), ` at ${clock(e.storedAt)}, `, h("a", { href: route("events", e.sequence, e.index) }, "what caused it")), json(e.data)] : null,
    v.state === null && v.before === null ? null : v.before === null && n > 1 && v.source !== "replayed" ?
      h("p", { class: "dim small" }, "The state before does not travel in the commits, so there is nothing to compare.") : differences(v.before ?? undefined, v.state ?? undefined));
  fill(el.querySelector("#state"), v.state === null ?
    empty("This state is not stored in the commit, and the application gave the console no repository of this type.") :
    [json(v.state), h("p", { class: "dim small" }, v.source === "replayed" ? "By the application's own code." : "As it stands in the commit.")]);
}

export const aggregates = {
  id: "aggregates",
  title: "Time travel",
  enter(root) {
    el = root;
    at = null;
    head = null;
    const form = h("form", {
      class: "stack", onsubmit: (e) => {
        e.preventDefault();
        const f = e.target.elements;
        if (f.type.value.trim() && f.id.value.trim()) location.hash = route("aggregates", f.type.value.trim(), f.id.value.trim());
      },
    },
    h("label", { class: "field" }, h("span", {}, "Aggregate type"), h("input", { name: "type", autocomplete: "off", spellcheck: "false", onchange: recent })),
    h("label", { class: "field" }, h("span", {}, "Id"), h("input", { name: "id", autocomplete: "off", spellcheck: "false" })),
    h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Show")));
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Time travel"), h("p", {}, "An aggregate as it was after any of its events, and what each event changed.")),
      h("div", { class: "cols narrow" },
        h("section", { class: "card" }, form, h("h3", {}, "Lately changed"), h("ul", { class: "list tall", id: "recent" })),
        h("div", { class: "stack", id: "aggregate" }, empty("Choose an aggregate."))));
    recent();
  },
  leave() { stop(); },
  route([type, id, n]) {
    if (type && id) open(type, id, n);
  },
  event(e) {
    if (!at || !head || e.type !== at.type || e.id !== at.id || e.version <= head.version) return;
    const latest = version === head.version && !playing;
    head.version = e.version;
    events.set(e.version, e);
    el.querySelector("#fresher").textContent = latest ? "" : `now at version ${number(e.version)}`;
    if (latest) go(e.version);
    else go(version);
  },
};
