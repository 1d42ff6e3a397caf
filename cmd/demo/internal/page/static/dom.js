// What the other scripts share: elements, texts, and numbers as people read them.

export const $ = (id) => document.getElementById(id);

// el makes an element. Texts become text nodes: data is never markup.
export function el(tag, attrs = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((c) => c !== undefined && c !== null));
  return node;
}

// put changes a text only when it differs: less work, and no lost selection.
export function put(node, text) {
  const s = String(text ?? "");
  if (node.textContent !== s) node.textContent = s;
}

const euro = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" });
export const money = (cents) => (Number.isFinite(cents) ? euro.format(cents / 100) : "–");

const whole = new Intl.NumberFormat("en-IE");
export const count = (n) => (Number.isFinite(n) ? whole.format(n) : "–");

// cents reads an amount exactly; it is undefined when it is none.
export function cents(text) {
  const m = /^\s*(-?)(\d{1,13})(?:[.,](\d{1,2}))?\s*$/.exec(text);
  if (!m) return undefined;
  const n = Number(m[2]) * 100 + Number((m[3] ?? "").padEnd(2, "0") || 0);
  return m[1] ? -n : n;
}

export function clock(time) {
  const d = new Date(time);
  if (Number.isNaN(d.getTime())) return "";
  const two = (n) => String(n).padStart(2, "0");
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

// short keeps the ends of a long id; the whole stands in its title.
export const short = (id) => (id && id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-8)}` : (id ?? ""));

export const idSpan = (id) => el("span", { class: "id", title: id }, short(id));

let clear;
export function say(text) {
  put($("message"), text);
  clearTimeout(clear);
  clear = setTimeout(() => put($("message"), ""), 8000);
}

// Changes are drawn together, a few times per second at most.
const wanted = new Set();
let scheduled = false;
export function draw(fn) {
  wanted.add(fn);
  if (scheduled) return;
  scheduled = true;
  setTimeout(() => requestAnimationFrame(() => {
    scheduled = false;
    const now = [...wanted];
    wanted.clear();
    for (const f of now) f();
  }), 120);
}

// Problem is what the API answers when something is wrong.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `status ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.title = body.title ?? "";
  }
}

export async function api(method, path, body, headers = {}) {
  const options = { method, headers: { ...headers }, cache: "no-store" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const resp = await fetch(path, options);
  let answer = {};
  try {
    answer = await resp.json();
  } catch {
    // Not JSON: the status says enough.
  }
  if (!resp.ok) throw new Problem(resp.status, answer ?? {});
  return { body: answer, headers: resp.headers };
}
