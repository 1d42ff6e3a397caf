// The bank's accounts, transfers and events, as lists of bounded length.

import { $, el, put, money, count, clock, short, idSpan, draw } from "./dom.js";

const rowsMax = 60; // accounts shown at once
const accountsMax = 5000; // accounts remembered
const optionsMax = 200; // accounts proposed in forms
const transfersMax = 50;
const eventsMax = 100;

// --- Accounts -------------------------------------------------------------

const accounts = new Map(); // by id
const rows = new Map(); // table rows by id
let actions = { remove() {} };

export const account = (id) => accounts.get(id);

export function onDelete(remove) {
  actions = { remove };
}

export function setAccount(a) {
  accounts.set(a.accountId, a);
  if (accounts.size > accountsMax) accounts.delete(accounts.keys().next().value);
  draw(drawAccounts);
}

// setAccounts takes a whole list; what is newer than the list stays.
export function setAccounts(list, newer) {
  const keep = new Map([...accounts].filter(([id]) => newer.has(id)));
  accounts.clear();
  for (const a of list.slice(0, accountsMax)) accounts.set(a.accountId, a);
  for (const [id, a] of keep) accounts.set(id, a);
  draw(drawAccounts);
}

function row(a) {
  const title = el("span", { class: "title" });
  const sub = el("span", { class: "sub" });
  const balance = el("td", { class: "number balance" });
  const button = el("button", { type: "button", class: "icon", title: "Delete this account" }, "×");
  button.addEventListener("click", () => actions.remove(a.accountId));
  const tr = el("tr", {}, el("th", { scope: "row" }, title, sub), balance, el("td", { class: "action" }, button));
  return { tr, title, sub, balance, button, cents: undefined };
}

function drawAccounts() {
  const wanted = $("accounts-filter").value.trim().toLowerCase();
  const all = [...accounts.values()].sort(
    (a, b) => Number(b.active) - Number(a.active) || a.openedAt.localeCompare(b.openedAt) || a.accountId.localeCompare(b.accountId),
  );
  const fits = wanted
    ? all.filter((a) => [a.accountId, a.title, a.customerId].some((s) => (s ?? "").toLowerCase().includes(wanted)))
    : all;
  const shown = fits.slice(0, rowsMax);
  const body = $("accounts");
  const ids = new Set(shown.map((a) => a.accountId));
  for (const [id, r] of rows) {
    if (!ids.has(id)) {
      r.tr.remove();
      rows.delete(id);
    }
  }
  shown.forEach((a, i) => {
    let r = rows.get(a.accountId);
    if (!r) {
      r = row(a);
      rows.set(a.accountId, r);
    }
    fill(r, a);
    if (body.children[i] !== r.tr) body.insertBefore(r.tr, body.children[i] ?? null);
  });
  const active = all.filter((a) => a.active);
  put($("accounts-count"), count(active.length));
  const more = fits.length - shown.length;
  put($("accounts-more"), more > 0 ? `${count(more)} more: filter to see them.` : all.length ? "" : "No account yet: open one.");
  options($("account-ids"), active.slice(0, optionsMax).map((a) => [a.accountId, a.title]));
  suggest(active);
}

function fill(r, a) {
  put(r.title, a.title || short(a.accountId));
  put(r.sub, [a.title === a.accountId ? "" : short(a.accountId), a.customerId, a.active ? "" : "deleted"].filter(Boolean).join(" · "));
  r.sub.title = a.accountId;
  r.tr.classList.toggle("gone", !a.active);
  r.button.hidden = !a.active;
  r.button.setAttribute("aria-label", `Delete account ${a.title || a.accountId}`);
  put(r.balance, money(a.balanceCents));
  if (r.cents !== undefined && r.cents !== a.balanceCents) {
    r.balance.classList.remove("up", "down");
    void r.balance.offsetWidth; // begins the animation anew
    r.balance.classList.add(a.balanceCents > r.cents ? "up" : "down");
  }
  r.cents = a.balanceCents;
}

// options fills a datalist, when it changes.
function options(list, pairs) {
  const key = pairs.map((p) => p.join("\u0000")).join("\u0001");
  if (list.key === key) return;
  list.key = key;
  list.replaceChildren(...pairs.map(([value, label]) => el("option", { value }, label && label !== value ? label : "")));
}

export function setCustomers(list) {
  options($("customer-ids"), list.slice(0, optionsMax).map((c) => [c.customerId, c.name]));
}

// suggest fills the transfer form once, so that one click does something.
let suggested = false;
function suggest(active) {
  const form = $("form-transfer");
  if (suggested || active.length < 2) return;
  suggested = true;
  if (!form.fromAccountId.value && !form.toAccountId.value) {
    form.fromAccountId.value = active[0].accountId;
    form.toAccountId.value = active[1].accountId;
  }
}

$("accounts-filter").addEventListener("input", () => draw(drawAccounts));

// --- Transfers ------------------------------------------------------------

const transfers = new Map();
const items = new Map();
const newestFirst = (a, b) => b.createdAt.localeCompare(a.createdAt) || b.transferId.localeCompare(a.transferId);

export const transfer = (id) => transfers.get(id);
const watchers = new Map(); // by transfer id: who waits for its end

// whenFinal calls back with each state of a transfer until its last.
export function whenFinal(id, fn) {
  if (watchers.size > 100) watchers.delete(watchers.keys().next().value);
  watchers.set(id, fn);
  const t = transfers.get(id);
  if (t) tell(t);
}

export const isFinal = (state) => state === "COMPLETED" || state.startsWith("FAILED");

function tell(t) {
  const fn = watchers.get(t.transferId);
  if (!fn) return;
  if (isFinal(t.state)) watchers.delete(t.transferId);
  fn(t);
}

export function setTransfer(t) {
  const had = transfers.get(t.transferId);
  if (had && had.updatedAt > t.updatedAt) return;
  transfers.set(t.transferId, t);
  tell(t);
  if (transfers.size > 4 * transfersMax) trim();
  draw(drawTransfers);
}

function trim() {
  for (const t of [...transfers.values()].sort(newestFirst).slice(transfersMax)) transfers.delete(t.transferId);
}

const stateClass = (s) => (s === "COMPLETED" ? "good" : s.startsWith("FAILED") ? "bad" : "wait");
const stateText = (s) => s.replace(/^FAILED_DUE_TO_/, "failed: ").replaceAll("_", " ").toLowerCase();
export const describeState = stateText;

function accountName(id) {
  return accounts.get(id)?.title || short(id);
}

function item() {
  const parts = {
    amount: el("span", { class: "amount" }),
    route: el("span", { class: "route" }),
    state: el("span", { class: "badge" }),
    sub: el("span", { class: "sub" }),
  };
  parts.li = el("li", {}, parts.amount, parts.route, parts.state, parts.sub);
  return parts;
}

function drawTransfers() {
  trim();
  const shown = [...transfers.values()].sort(newestFirst).slice(0, transfersMax);
  const list = $("transfers");
  for (const [id, p] of items) {
    if (!transfers.has(id)) {
      p.li.remove();
      items.delete(id);
    }
  }
  shown.forEach((t, i) => {
    let p = items.get(t.transferId);
    if (!p) {
      p = item();
      items.set(t.transferId, p);
    }
    put(p.amount, money(t.cents));
    put(p.route, `${accountName(t.fromAccountId)} → ${accountName(t.toAccountId)}`);
    p.route.title = `${t.fromAccountId} → ${t.toAccountId}`;
    put(p.state, stateText(t.state));
    p.state.className = `badge ${stateClass(t.state)}`;
    put(p.sub, [clock(t.createdAt), short(t.transferId), t.description, t.notified ? "notified" : ""].filter(Boolean).join(" · "));
    p.sub.title = t.transferId;
    if (list.children[i] !== p.li) list.insertBefore(p.li, list.children[i] ?? null);
  });
  put($("transfers-count"), shown.length ? `newest ${shown.length}` : "none yet");
}

// --- Events ---------------------------------------------------------------

let paused = false;
let seen = 0;
let fresh = []; // not drawn yet, oldest first

export function addEvent(e) {
  seen++;
  fresh.push(e);
  if (fresh.length > eventsMax) fresh.shift();
  draw(drawEvents);
}

// skipEvents counts events that came too fast to be shown.
export function skipEvents(n) {
  if (Number.isFinite(n)) seen += n;
  draw(drawEvents);
}

function eventItem(e) {
  const pre = el("pre");
  const details = el(
    "details",
    {},
    el(
      "summary",
      {},
      el("time", { datetime: e.time }, clock(e.time)),
      el("span", { class: `kind ${["account", "transfer", "customer"].includes(e.type) ? e.type : ""}` }, e.type),
      el("span", { class: "name" }, e.name),
      idSpan(e.id),
      el("span", { class: "version" }, `v${e.version}`),
    ),
    pre,
  );
  // The JSON is made when somebody looks.
  details.addEventListener("toggle", () => {
    if (details.open) put(pre, JSON.stringify(e, null, 2));
  });
  return el("li", {}, details);
}

function drawEvents() {
  put($("events-count"), paused ? `${count(seen)} since here, paused` : `${count(seen)} since here`);
  if (paused || fresh.length === 0) return;
  const list = $("events");
  list.prepend(...fresh.reverse().map(eventItem));
  fresh = [];
  while (list.children.length > eventsMax) list.lastChild.remove();
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  put($("pause"), paused ? "Go on" : "Pause");
  drawEvents();
});
