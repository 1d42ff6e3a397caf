// The waterfall of one trace, and the traces lately.
const $ = (id) => document.getElementById(id);

function make(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  Object.assign(e, props);
  e.append(...children);
  return e;
}

const ns = "http://www.w3.org/2000/svg";
const millis = (s) => Date.parse(s) + Number((/\.(\d+)/.exec(s)?.[1] ?? "0").padEnd(9, "0").slice(3)) / 1e6;
const shown = (ms) => (ms < 1 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : Math.round(ms)) + " ms";

let current = "";

// tree puts each span below what it belongs to. A span whose parent is not here
// stands at the top: the parent is the caller's.
function tree(spans) {
  const ids = new Set(spans.map((s) => s.spanId));
  const below = new Map();
  for (const s of spans) {
    const key = ids.has(s.parentId) ? s.parentId : "";
    below.set(key, [...(below.get(key) ?? []), s]);
  }
  const out = [];
  const walk = (key, depth) => {
    for (const s of below.get(key) ?? []) {
      out.push([s, depth]);
      walk(s.spanId, depth + 1);
    }
  };
  walk("", 0);
  return out;
}

function bar(s, from, span) {
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 1000 10");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const r = document.createElementNS(ns, "rect");
  r.setAttribute("x", ((millis(s.start) - from) / span) * 1000);
  r.setAttribute("width", Math.max(((millis(s.end) - millis(s.start)) / span) * 1000, 3));
  r.setAttribute("height", 10);
  r.setAttribute("rx", 1);
  r.setAttribute("class", s.error ? "bad" : s.kind);
  svg.append(r);
  return svg;
}

function row([s, depth], from, span) {
  const name = make("span", { className: "name", title: s.name }, "\u00a0\u00a0".repeat(depth) + s.name + " ",
    make("small", {}, s.process));
  const took = make("span", { className: "took" }, shown(millis(s.end) - millis(s.start)));
  const list = make("dl");
  const fact = (k, v) => list.append(make("dt", {}, k), make("dd", {}, v));
  fact("kind", s.kind);
  fact("begins after", shown(millis(s.start) - from));
  if (s.error) fact("error", s.error);
  for (const [k, v] of Object.entries(s.attributes ?? {}).sort()) fact(k, v);
  const d = make("details", {}, make("summary", {}, name, bar(s, from, span), took), list);
  d.setAttribute("role", "listitem");
  return d;
}

// show draws a trace, and returns how many spans it has.
async function show(id) {
  current = id;
  const answer = await fetch("/api/traces/" + encodeURIComponent(id));
  const spans = answer.ok ? await answer.json() : [];
  if (id !== current) return spans.length;
  if (!spans.length) {
    $("sum").textContent = "Nothing of this trace has come yet.";
    $("rows").replaceChildren();
    return 0;
  }
  const from = Math.min(...spans.map((s) => millis(s.start)));
  const span = Math.max(...spans.map((s) => millis(s.end))) - from || 1;
  const processes = new Set(spans.map((s) => s.process));
  $("sum").textContent = `${spans.length} spans in ${shown(span)}, ${processes.size} process${processes.size > 1 ? "es" : ""}, trace ${id}`;
  $("rows").replaceChildren(...tree(spans).map((r) => row(r, from, span)));
  return spans.length;
}

async function list() {
  const answer = await fetch("/api/traces");
  const traces = answer.ok ? await answer.json() : [];
  $("list").replaceChildren(...traces.slice(0, 20).map((t) => {
    const button = make("button", { type: "button", onclick: () => show(t.traceId) }, t.name);
    return make("li", {}, button, ` ${t.spans} spans, ${shown(t.millis)}, ${new Date(t.start).toLocaleTimeString()}`);
  }));
  if (!current && traces.length) await show(traces[0].traceId);
}

const hex = (bytes) => [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function post(path, body, trace) {
  const headers = { "Content-Type": "application/json" };
  if (trace) headers.traceparent = `00-${trace}-${hex(8)}-01`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await answer.json();
  if (!answer.ok) throw new Error(text.detail ?? answer.statusText);
  return text;
}

async function go() {
  $("go").disabled = true;
  try {
    $("said").textContent = "two accounts…";
    const from = await post("/api/accounts", { title: "traced", initialCents: 10000 });
    const to = await post("/api/accounts", { title: "traced", initialCents: 0 });
    const trace = hex(16);
    $("said").textContent = "a transfer…";
    await post("/api/transfers", { fromAccountId: from.accountId, toAccountId: to.accountId, cents: 500 }, trace);
    $("said").textContent = "";
    // Until nothing new has come for a second: the processes send their spans one by one.
    for (let i = 0, same = 0, before = 0; i < 12 && same < 3; i++) {
      await pause(400);
      const now = await show(trace);
      same = now && now === before ? same + 1 : 0;
      before = now;
    }
    await list();
  } catch (err) {
    $("said").textContent = String(err.message ?? err);
  } finally {
    $("go").disabled = false;
  }
}

$("go").addEventListener("click", go);
await list();
