// Connects the page to the bank: lists once, then everything as it happens.

import { $, put, say, api } from "./dom.js";
import { addEvent, skipEvents, setAccount, setAccounts, setCustomers, setTransfer } from "./lists.js";
import { setStatus } from "./status.js";
import "./forms.js";

const silence = 6000; // without a status for so long, the bank counts as away
const again = 2000;

let source;
let heard = 0;
let retry;
let loading;

function connected(yes, text) {
  const badge = $("connection");
  badge.className = `badge ${yes ? "good" : "bad"}`;
  put(badge, text);
}

// load reads the lists. What the stream says meanwhile is newer than they are.
async function load() {
  loading = new Set();
  const newer = loading;
  const parts = [
    api("GET", "/api/accounts").then(({ body }) => setAccounts(body.accounts ?? [], newer)),
    api("GET", "/api/transfers?limit=50").then(({ body }) => (body.transfers ?? []).forEach(setTransfer)),
    api("GET", "/api/status").then(({ body }) => setStatus(body)),
    customers(),
  ];
  const failed = (await Promise.allSettled(parts)).filter((r) => r.status === "rejected");
  if (loading === newer) loading = undefined;
  if (failed.length > 0) {
    say(`Not everything could be read: ${failed[0].reason.message}`);
    clearTimeout(retry);
    retry = setTimeout(load, again);
  }
}

const customers = () => api("GET", "/api/customers").then(({ body }) => setCustomers(body.customers ?? []));

let soon;
function customersSoon() {
  clearTimeout(soon);
  soon = setTimeout(() => customers().catch(() => {}), 1000);
}

function on(name, take) {
  source.addEventListener(name, (message) => {
    heard = Date.now();
    let value;
    try {
      value = JSON.parse(message.data);
    } catch {
      return;
    }
    take(value);
  });
}

function connect() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("open", () => {
    heard = Date.now();
    connected(true, "live");
    load();
  });
  source.addEventListener("error", () => {
    connected(false, "reconnecting");
    // The browser reconnects by itself, unless it was answered with an error.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, again);
  });
  on("event", (e) => {
    addEvent(e);
    if (e.type === "customer") customersSoon();
  });
  on("account", (a) => {
    loading?.add(a.accountId);
    setAccount(a);
  });
  on("transfer", setTransfer);
  on("gap", (g) => skipEvents(g.skipped));
  on("status", (s) => {
    connected(true, "live");
    setStatus(s);
  });
}

setInterval(() => {
  if (source.readyState === EventSource.OPEN && Date.now() - heard > silence) connected(false, "no news");
}, 1000);

connect();
load();
