// How the bank is: its books, its followers, its notifications, its servers.

import { $, el, put, money, count, short, say } from "./dom.js";
import { controls, setControls } from "./admin.js";

let holds; // what the books said last

// natsAddress is where NATS clients join, once it is known.
export let natsAddress = "";

export function setStatus(s) {
  natsAddress = s.nats || natsAddress;
  if (s.invariant) books(s.invariant);
  followers(s.followers ?? []);
  durability(s.durability);
  notifications(s.notifications);
  put($("head"), s.position ? `head ${short(s.position)}` : "");
}

function books(b) {
  put($("deposited"), money(b.depositedCents));
  put($("balances"), money(b.balancesCents));
  put($("underway"), money(b.underWayCents));
  put($("books-sign"), b.holds ? "=" : "≠");
  $("books").className = `books ${b.holds ? "good" : "bad"}`;
  put($("books-verdict"), b.holds ? "✓ The books balance" : "✗ The books do not balance");
  const open = b.underWay ? `${count(b.underWay)} transfer${b.underWay === 1 ? " is" : "s are"} under way.` : "the views are catching up.";
  const also =
    Number.isFinite(b.accountsCents) && b.accountsCents !== b.balancesCents
      ? ` The accounts' view, at its own position, adds up to ${money(b.accountsCents)}.`
      : "";
  put($("books-settled"), (b.settled ? "Settled: nothing is under way." : `Not settled: ${open}`) + also);
  if (holds !== undefined && holds !== b.holds) say(b.holds ? "The books balance again." : "The books do not balance.");
  holds = b.holds;
}

// bar is how wide a lag is drawn: each factor of ten is a step.
const bar = (lag) => Math.min(100, Math.round(Math.log10(lag + 1) * 22));

const busy = ["live", "running", "active", "following", "ready", "leading", "caught-up", "ok"];
function stateClass(f) {
  if (f.blocked > 0 || /fail|error|stop|gone|dead|orphan|stale|block|lost|down/i.test(f.state)) return "bad";
  return busy.includes(f.state.toLowerCase()) ? "good" : "wait";
}

const lines = new Map();

function line(f) {
  const p = {
    name: el("span", { class: "name" }),
    kind: el("span", { class: "kind" }),
    state: el("span", { class: "badge" }),
    lag: el("span", { class: "lag" }),
    fill: el("span", { class: "fill" }),
    sub: el("span", { class: "sub" }),
    error: el("span", { class: "error" }),
    controls: controls(),
  };
  p.li = el("li", {}, p.name, p.kind, p.state, p.lag, el("span", { class: "bar", "aria-hidden": "true" }, p.fill), p.sub, p.error, p.controls.node);
  return p;
}

function followers(list) {
  const names = new Set(list.map((f) => `${f.kind} ${f.name}`));
  for (const [name, p] of lines) {
    if (!names.has(name)) {
      p.li.remove();
      lines.delete(name);
    }
  }
  list.slice(0, 50).forEach((f, i) => {
    const key = `${f.kind} ${f.name}`;
    let p = lines.get(key);
    if (!p) {
      p = line(f);
      lines.set(key, p);
    }
    put(p.name, f.name);
    put(p.kind, f.kind);
    put(p.state, f.state || "unknown");
    p.state.className = `badge ${stateClass({ ...f, state: f.state || "" })}`;
    put(p.lag, f.lag === 0 ? "up to date" : `${count(f.lag)} behind`);
    p.fill.style.width = `${bar(f.lag)}%`;
    p.fill.className = `fill ${f.lag > 1000 ? "bad" : f.lag > 50 ? "wait" : "good"}`;
    const late = f.lagSeconds >= 1 ? `${count(Math.round(f.lagSeconds))} s` : "";
    put(p.sub, [late, f.blocked ? `${count(f.blocked)} blocked` : "", f.owner ? `owner ${short(f.owner)}` : "no owner"].filter(Boolean).join(" · "));
    p.sub.title = f.owner ?? "";
    setControls(p.controls, f);
    put(p.error, f.lastError ?? "");
    p.error.hidden = !f.lastError;
    const ul = $("followers");
    if (ul.children[i] !== p.li) ul.insertBefore(p.li, ul.children[i] ?? null);
  });
}

const levels = {
  fsynced: ["good", "durable"],
  "quorum-lazy": ["wait", "most machines may not lose power at once"],
  "single-lazy": ["bad", "may lose writes when its machine loses power"],
  memory: ["bad", "loses writes with the server"],
  unknown: ["wait", "durability unknown"],
};

function durability(d) {
  const badge = $("durability");
  if (!d) return;
  const [look, text] = levels[d.level] ?? levels.unknown;
  badge.className = `badge ${look}`;
  put(badge, `${text}: fsync ${d.fsync || "unknown"} · ${d.inSync} of ${d.replicas} in sync · ${d.storage}`);
  const server = (s) =>
    `${s.name || "?"} ${s.version || "?"}: fsync ${s.fsync}${s.leader ? ", leader" : ""}` +
    (s.offline ? ", offline" : s.current ? "" : `, ${s.lag} behind`);
  badge.title = [...(d.servers ?? []).map(server), ...(d.problems ?? [])].join("\n");
}

const shown = { received: -1, duplicates: -1 };

function notifications(n) {
  $("notifications-card").hidden = !n;
  if (!n || (n.received === shown.received && n.duplicates === shown.duplicates)) return;
  shown.received = n.received;
  shown.duplicates = n.duplicates;
  put($("notifications-count"), `${count(n.received)} received · ${count(n.duplicates)} repeated`);
  const last = (n.last ?? []).slice(-6).reverse();
  $("notifications").replaceChildren(
    ...last.map((x) =>
      el(
        "li",
        {},
        el("span", { class: "amount" }, money(x.cents)),
        el("span", { class: "id", title: x.transferId }, short(x.transferId)),
        el("span", { class: `badge ${x.state === "COMPLETED" ? "good" : "bad"}` }, x.state === "COMPLETED" ? "completed" : "failed"),
      ),
    ),
  );
}
