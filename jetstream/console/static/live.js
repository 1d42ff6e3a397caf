// What the page knows: one stream of server-sent events for all panels.

export const live = {
  info: null,
  status: null,
  connected: false,
  /** events are the newest, the newest first. */
  events: [],
  /** types are the command types, as the services tell them. */
  types: [],
};

const most = 300, samplesMost = 60;
const listeners = new Map();
const samples = new Map();

// on calls f for "event", "status", "gap" and "connected".
export function on(name, f) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(f);
  return () => listeners.get(name).delete(f);
}

function tell(name, value) {
  for (const f of listeners.get(name) ?? []) f(value);
}

export function readOnly() { return !live.info?.actions; }

// rates are the events a second that something went over, sample by sample.
export function rates(key) {
  const list = samples.get(key) ?? [];
  const out = [];
  for (let i = 1; i < list.length; i++) {
    const seconds = (list[i].at - list[i - 1].at) / 1000;
    out.push(seconds > 0 ? Math.max(0, list[i].value - list[i - 1].value) / seconds : 0);
  }
  return out;
}

export function sample(key, at, value) {
  const list = samples.get(key) ?? [];
  if (list.length && list[list.length - 1].at >= at) return;
  list.push({ at, value });
  if (list.length > samplesMost) list.shift();
  samples.set(key, list);
}

export const key = (e) => `${e.sequence}.${e.index}`;

function took(e) {
  const k = key(e);
  if (live.events.some((o) => key(o) === k)) return;
  live.events.unshift(e);
  if (live.events.length > 1 && (live.events[1].sequence > e.sequence)) {
    live.events.sort((a, b) => b.sequence - a.sequence || b.index - a.index);
  }
  if (live.events.length > most) live.events.length = most;
  tell("event", e);
}

function noted(s) {
  // While NATS is away, what was known last stays on the page.
  if (!s.connected && live.status) s = { ...live.status, ...s, head: live.status.head, views: live.status.views, followers: live.status.followers, durability: live.status.durability };
  live.status = s;
  const at = Date.parse(s.time);
  sample("store", at, s.head);
  for (const v of s.views) sample(`view/${v.name}`, at, v.position);
  for (const f of s.followers) {
    sample(`follower/${f.name}`, at, f.position);
    for (const d of f.details?.destinations ?? []) sample(`destination/${f.name}/${d.name}`, at, d.delivered + d.failed);
  }
  tell("status", s);
}

let source, again = 1000;

export function connect() {
  const last = live.events[0]?.sequence ?? 0;
  source = new EventSource(`api/stream${last ? `?after=${last}` : ""}`);
  const connected = (yes) => {
    if (live.connected === yes) return;
    live.connected = yes;
    tell("connected", yes);
  };
  source.onopen = () => {
    again = 1000;
    connected(true);
  };
  source.onerror = () => {
    connected(false);
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(connect, again);
      again = Math.min(again * 2, 15000);
    }
  };
  source.addEventListener("event", (m) => took(JSON.parse(m.data)));
  source.addEventListener("status", (m) => noted(JSON.parse(m.data)));
  source.addEventListener("gap", (m) => tell("gap", JSON.parse(m.data).skipped));
}
