// Small helpers: elements, formats, dialogs. Data becomes text, never markup.

export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") el.className = value;
    else if (name === "dataset") Object.assign(el.dataset, value);
    else if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "indeterminate") el[name] = value;
    else el.setAttribute(name, value === true ? "" : String(value));
  }
  add(el, children);
  return el;
}

export function add(el, children) {
  for (const child of [children].flat(9)) {
    if (child === undefined || child === null || child === false) continue;
    el.append(child instanceof Node ? child : String(child));
  }
  return el;
}

export function fill(el, ...children) {
  el.replaceChildren();
  return add(el, children);
}

export function svg(tag, props, ...children) {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props ?? {})) el.setAttribute(name, String(value));
  el.append(...children);
  return el;
}

// set changes a text only when it differs, so that selections and screen readers
// are left alone.
export function set(el, text) {
  text = String(text);
  if (el.textContent !== text) el.textContent = text;
}

export const number = (n) => Number(n ?? 0).toLocaleString("en");

export function rate(n) {
  if (!Number.isFinite(n)) return "–";
  return n >= 100 ? number(Math.round(n)) : n >= 10 ? n.toFixed(0) : n.toFixed(1);
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.abs(seconds);
  if (s < 0.95) return `${Math.round(s * 1000)} ms`;
  if (s < 59.5) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  const whole = Math.round(s), minutes = Math.round(s / 60), days = Math.round(s / 86400); // no 60 s, no 60 min
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${days} day${days === 1 ? "" : "s"}`;
}

export function clock(text) {
  const t = new Date(text);
  const pad = (n, w = 2) => String(n).padStart(w, "0");
  return `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}.${pad(t.getMilliseconds(), 3)}`;
}

export const when = (text) => new Date(text).toLocaleString("en-GB");

export function bytes(n) {
  return n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`;
}

export const badge = (text, kind = "", title) => h("span", { class: `badge ${kind}`, title }, text);

// summary is data in a line.
export function summary(data, most = 120) {
  if (data === undefined || data === null) return "";
  let text = typeof data === "object" && !Array.isArray(data)
    ? Object.entries(data).map(([k, v]) => `${k}: ${typeof v === "object" ? JSON.stringify(v) : v}`).join("  ")
    : JSON.stringify(data);
  if (text.length > most) text = text.slice(0, most) + "…";
  return text;
}

// json shows a value, coloured; long texts and lists stay within bounds.
export function json(value, most = 20000) {
  const pre = h("pre", { class: "json", tabindex: 0 });
  const text = JSON.stringify(value, null, 2) ?? "–";
  const cut = text.length > most ? text.slice(0, most) : text;
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;
  let at = 0;
  for (const m of cut.matchAll(token)) {
    if (m.index > at) pre.append(cut.slice(at, m.index));
    const kind = m[2] !== undefined ? "k" : m[1] ? "s" : m[3] ? "b" : "n";
    pre.append(h("span", { class: kind }, m[1] ?? m[0]));
    if (m[2]) pre.append(m[2]);
    at = m.index + m[0].length;
  }
  pre.append(cut.slice(at));
  if (cut !== text) pre.append(`\n… ${bytes(text.length - cut.length)} more`);
  return pre;
}

// difference lists the leaves that differ between two values.
export function difference(a, b, path = "", out = []) {
  if (out.length >= 200 || JSON.stringify(a) === JSON.stringify(b)) return out;
  const isObject = (v) => v !== null && typeof v === "object";
  if (isObject(a) && isObject(b) && Array.isArray(a) === Array.isArray(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      difference(a[key], b[key], path ? `${path}.${key}` : key, out);
    }
    return out;
  }
  if (isObject(b) && (a === undefined || a === null) && Object.keys(b).length > 0) {
    for (const key of Object.keys(b)) difference(undefined, b[key], path ? `${path}.${key}` : key, out);
    return out;
  }
  out.push({ path: path || "(all)", before: a, after: b });
  return out;
}

export function differences(a, b) {
  const list = difference(a, b);
  if (list.length === 0) return h("p", { class: "dim" }, "Nothing differs.");
  const show = (v) => v === undefined ? "–" : JSON.stringify(v);
  return h("table", { class: "diff" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Field"), h("th", { scope: "col" }, "Before"), h("th", { scope: "col" }, "After"))),
    h("tbody", {}, list.map((d) => h("tr", {},
      h("th", { scope: "row" }, d.path),
      h("td", { class: d.before === undefined ? "dim" : "was" }, show(d.before)),
      h("td", { class: d.after === undefined ? "dim" : "is" }, show(d.after))))));
}

// spark is a line of the last values.
export function spark(values, label) {
  const width = 120, height = 28, most = Math.max(...values, 1e-9);
  const step = width / Math.max(values.length - 1, 1);
  const points = values.map((v, i) => `${(i * step).toFixed(1)},${(height - 2 - (v / most) * (height - 5)).toFixed(1)}`);
  const el = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", preserveAspectRatio: "none" });
  el.append(svg("title", {}, label));
  if (points.length > 1) {
    el.append(svg("polygon", { points: `0,${height} ${points.join(" ")} ${width},${height}` }),
      svg("polyline", { points: points.join(" ") }));
  }
  return el;
}

export function bar(share, label, kind = "") {
  const el = h("div", { class: "bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
    h("span", { class: `fill ${kind}` }));
  progress(el, share);
  return el;
}

export function progress(bar, share) {
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  bar.setAttribute("aria-valuenow", Math.round(share * 100));
}

// toast tells what came of something.
export function toast(text, kind = "") {
  const el = h("div", { class: `toast ${kind}` }, text);
  const box = document.getElementById("toasts");
  box.append(el);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => el.remove(), kind === "bad" ? 9000 : 3000);
}

// Problem is an answer that something is wrong.
export class Problem extends Error {
  constructor(p) {
    super(p.detail || p.title || "the console does not answer");
    this.problem = p;
  }
}

// api asks the console. A body makes it a POST.
export async function api(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let resp;
  try {
    resp = await fetch(`api/${path}`, options);
  } catch {
    throw new Problem({ status: 0, code: "offline", detail: "the console does not answer" });
  }
  const value = await resp.json().catch(() => ({}));
  if (!resp.ok) throw new Problem({ status: resp.status, ...value });
  return value;
}

export const part = encodeURIComponent;

// route is a link within the page.
export const route = (...parts) => `#/${parts.map((p) => part(p)).join("/")}`;

// ask lets people confirm what is not undone, with a reason where one is needed.
export function ask({ title, text, action, reason, danger }) {
  const dialog = document.getElementById("ask");
  return new Promise((resolve) => {
    const input = reason ? h("input", { type: "text", required: reason === "required", maxlength: 200, autocomplete: "off" }) : null;
    const done = (value) => {
      dialog.close();
      resolve(value);
    };
    fill(dialog, h("form", {
      onsubmit: (e) => {
        e.preventDefault();
        done({ reason: input?.value ?? "" });
      },
    },
    h("h2", { id: "ask-title" }, title),
    text && h("p", {}, text),
    input && h("label", { class: "field" }, h("span", {}, reason === "required" ? "Reason" : "Reason (optional)"), input),
    h("div", { class: "row end" },
      h("button", { type: "button", onclick: () => done(null) }, "Cancel"),
      h("button", { type: "submit", class: danger ? "danger" : "primary" }, action))));
    dialog.oncancel = () => resolve(null);
    dialog.showModal();
    (input ?? dialog.querySelector("button[type=submit]")).focus();
  });
}

// quote makes a text one word of a shell.
export const quote = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

// here is the console's address, for curl.
export const here = () => new URL(".", location.href.split("#")[0]).href;

export function curl(path, body) {
  if (body === undefined) return `curl -s ${quote(here() + "api/" + path)}`;
  return `curl -s ${quote(here() + "api/" + path)} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quote(JSON.stringify(body))}`;
}

let chosen = "nats";

// snippets shows the same thing for a terminal and for a program. make is called when
// somebody looks.
export function snippets(make, label = "The same with nats, curl and Go") {
  const body = h("div", { class: "snippet" });
  const show = () => {
    const texts = make();
    const pre = h("pre", { tabindex: 0 }, texts[chosen]);
    fill(body,
      h("div", { class: "row" },
        h("div", { class: "choice", role: "group", "aria-label": "Language" }, Object.keys(texts).map((name) => h("button", {
          type: "button", "aria-pressed": String(name === chosen),
          onclick: () => {
            chosen = name;
            show();
            body.querySelector("[aria-pressed=true]").focus();
          },
        }, name))),
        h("button", {
          type: "button", class: "ghost",
          onclick: async () => {
            try {
              await navigator.clipboard.writeText(texts[chosen]);
              toast("Copied");
            } catch {
              getSelection().selectAllChildren(pre);
              toast("Press Ctrl-C to copy");
            }
          },
        }, "Copy")),
      pre);
  };
  const details = h("details", { class: "snippets" }, h("summary", {}, label), body);
  details.addEventListener("toggle", () => { if (details.open) show(); });
  details.refresh = () => { if (details.open) show(); };
  return details;
}

// act runs something that changes something, and tells what came of it.
export async function act(button, what, run) {
  if (button) button.disabled = true;
  try {
    const value = await run();
    if (what) toast(what, "good");
    return value;
  } catch (err) {
    toast(err.message, "bad");
    return undefined;
  } finally {
    if (button) button.disabled = false;
  }
}

export function failed(err) {
  return h("p", { class: "note bad", role: "alert" }, err.message);
}

export const empty = (text) => h("p", { class: "empty" }, text);
