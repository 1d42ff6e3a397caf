// The frame: panels, the head with what always shows, colours.
import { add, api, badge, fill, h, number, set, toast } from "./ui.js";
import { connect, live, on } from "./live.js";
import { feed } from "./events.js";
import { aggregates } from "./aggregates.js";
import { commands } from "./commands.js";
import { chaos, durability } from "./chaos.js";
import { deadlines } from "./deadlines.js";
import { events } from "./events.js";
import { followers } from "./followers.js";
import { gateways } from "./gateways.js";
import { views } from "./views.js";

const panels = [commands, events, aggregates, followers, views, gateways, deadlines, durability, chaos];
const $ = (id) => document.getElementById(id);
const tabs = new Map();
let current = null, parts = [];

function show() {
  const hash = location.hash.replace(/^#\/?/, "");
  parts = hash.split("/").map((p) => {
    try {
      return decodeURIComponent(p);
    } catch {
      return p;
    }
  });
  const panel = panels.find((p) => p.id === parts[0]) ?? panels[0];
  for (const [id, tab] of tabs) {
    if (id === panel.id) {
      tab.setAttribute("aria-current", "page");
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else {
      tab.removeAttribute("aria-current");
    }
  }
  document.title = `${panel.title} – ${live.info?.title ?? "Rossby"}`;
  document.querySelector(".layout").classList.toggle("railed", panel.id !== "events");
  if (current !== panel) {
    current?.leave?.();
    current = panel;
    const el = h("div", { class: "stack panel", dataset: { panel: panel.id } });
    fill($("main"), el);
    panel.enter(el);
  }
  panel.route?.(parts.slice(1));
}

function chips() {
  const s = live.status, out = [];
  if (!live.connected) out.push(h("span", { class: "chip bad" }, "no connection"));
  else if (!s) out.push(h("span", { class: "chip warn" }, "connecting"));
  else if (!s.connected) out.push(h("span", { class: "chip bad" }, "NATS is away"));
  else out.push(h("span", { class: "chip good", title: "commits in the store" }, `live · ${number(s.head)} commits`));
  if (s?.durability) {
    const d = s.durability;
    const kind = { fsynced: "good", "single-lazy": "bad", memory: "bad" }[d.level] ?? "warn";
    out.push(h("a", { class: `chip ${kind}`, href: "#/durability", title: "What a commit survives" },
      d.level === "unknown" ? `durability: at least ${d.atLeast}` : `durability: ${d.level}`, ` · R${d.replicas}`));
  }
  for (const c of s?.checks ?? []) {
    out.push(h("a", { class: `chip ${c.error ? "warn" : c.holds ? "good" : "bad"}`, href: "#/chaos", title: c.error || c.text, dataset: { check: c.name } },
      `${c.title}: ${c.error ? "unknown" : c.holds ? "holds" : "BROKEN"}`));
  }
  const behind = [...(s?.views ?? []), ...(s?.followers ?? [])].filter((f) => f.error || f.state === "stopped" || f.parked > 0);
  if (behind.length) out.push(h("a", { class: "chip bad", href: "#/followers" }, `${behind.length} in trouble`));
  if (live.info && !live.info.actions) out.push(h("span", { class: "chip" }, "read only"));
  const text = out.map((c) => c.className + c.textContent + c.title).join();
  if ($("chips").dataset.text !== text) {
    $("chips").dataset.text = text;
    fill($("chips"), out);
  }
}

function count() {
  for (const p of panels) {
    const n = p.count?.(live.status) ?? 0;
    const tab = tabs.get(p.id);
    let el = tab.querySelector(".badge");
    if (!n) el?.remove();
    else {
      if (!el) tab.append(el = badge("", "warn"));
      set(el, number(n));
    }
  }
}

// Colours: what the system says, or what was chosen.
const themes = ["auto", "light", "dark"];
function theme(name) {
  const button = $("theme");
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  button.textContent = { auto: "◐", light: "☀", dark: "☾" }[name];
  button.setAttribute("aria-label", `Colours: ${name === "auto" ? "automatic" : name}`);
  button.title = button.getAttribute("aria-label");
  button.dataset.theme = name;
  try {
    localStorage.setItem("rossby-theme", name);
  } catch { /* not kept, then */ }
}

async function begin() {
  let kept = "auto";
  try {
    kept = localStorage.getItem("rossby-theme") ?? "auto";
  } catch { /* nothing is kept */ }
  theme(themes.includes(kept) ? kept : "auto");
  $("theme").onclick = () => theme(themes[(themes.indexOf($("theme").dataset.theme) + 1) % themes.length]);
  $("skip").onclick = (e) => {
    e.preventDefault();
    $("main").focus();
  };
  for (const p of panels) {
    const tab = h("a", { href: `#/${p.id}` }, p.title);
    tabs.set(p.id, tab);
    $("tabs").append(tab);
  }
  on("connected", chips);
  on("status", (s) => {
    chips();
    count();
    current?.status?.(s);
  });
  on("event", (e) => current?.event?.(e));
  try {
    live.info = await api("info");
  } catch (err) {
    toast(err.message, "bad");
    live.info = { title: "Rossby", store: "store", actions: false, states: [], links: [] };
  }
  $("title").textContent = live.info.title;
  $("subtitle").textContent = `Rossby console · store ${live.info.store}`;
  add($("links"), live.info.links.map((l) => h("a", { href: l.url }, l.title)));
  chips();
  feed($("rail"));
  addEventListener("hashchange", show);
  show();
  connect();
}

begin();
