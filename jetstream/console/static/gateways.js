// Gateways and what waits: breakers, the switch that breaks a destination, failures
// in groups.
import { act, api, ask, badge, clock, curl, duration, empty, failed, fill, h, json, number, part, quote, rate, route, set, snippets } from "./ui.js";
import { facts, stateBadge } from "./followers.js";
import { live, rates, readOnly } from "./live.js";

let el, cards = new Map(), waiting = new Map(), timer = 0;

// switchControl is a switch with its positions as buttons.
export function switchControl(first) {
  const note = h("p", { class: "dim small" });
  const buttons = first.options.map((option, i) => h("button", {
    type: "button", dataset: { option }, disabled: readOnly(), class: i === 0 ? "" : "break",
    onclick: async (e) => { await act(e.currentTarget, `${first.title}: ${option}`, () => api(`switches/${first.name}`, { option })); },
  }, option));
  const el = h("div", { class: "stack switch", dataset: { switch: first.name } },
    h("div", { class: "row" }, h("b", {}, first.title), h("div", { class: "choice", role: "group", "aria-label": first.title }, buttons)),
    first.help ? h("p", { class: "dim small" }, first.help) : null, note);
  return {
    el,
    update(s) {
      for (const b of buttons) b.setAttribute("aria-pressed", String(b.dataset.option === s.state));
      set(note, s.note ?? "");
      note.hidden = !s.note;
      el.classList.toggle("off", s.state !== s.options[0]);
    },
  };
}

function makeGateway(first) {
  const state = h("span", {}), list = h("div", { class: "stack" });
  const breakers = new Map(), switches = new Map();
  const box = h("div", { class: "stack" });
  const el = h("section", { class: "card", dataset: { gateway: first.name } },
    h("header", {}, h("h2", {}, first.name), badge("gateway", "info"), state), box, list,
    snippets(() => ({
      nats: `nats --server ${live.info.nats} req ${live.info.store}.follower.${first.name}.status '{}'`,
      curl: curl(`followers/${first.name}`),
      Go: `status, err := followers.New(store).Status(ctx, ${JSON.stringify(first.name)})\nfmt.Println(status.State, string(status.Details)) // the gateway's destinations`,
    })));
  const destination = (d) => {
    const breaker = h("span", {}), note = h("p", { class: "small dim" });
    const numbers = facts(["in flight", "attempts/s", "delivered", "failed"]);
    return {
      el: h("div", { class: "stack", dataset: { destination: d.name } }, h("div", { class: "row" }, h("b", {}, `to ${d.name}`), breaker), numbers.el, note),
      update(d) {
        fill(breaker, badge(d.breaker === "none" ? "no breaker" : `breaker ${d.breaker}`, d.breaker === "open" ? "bad" : d.breaker === "half-open" ? "warn" : "good"));
        numbers.set("in flight", number(d.inFlight));
        numbers.set("attempts/s", rate(rates(`destination/${first.name}/${d.name}`).at(-1) ?? 0));
        numbers.set("delivered", number(d.delivered));
        numbers.set("failed", number(d.failed));
        const until = d.openUntil ?? d.pausedUntil;
        const left = until ? (Date.parse(until) - Date.now()) / 1000 : 0;
        set(note, [left > 0 ? `${d.openUntil ? "tries again" : "the destination asked to wait, goes on"} in ${duration(left)}` : "", d.lastError ? `last failure: ${d.lastError}` : ""].filter(Boolean).join(" · "));
      },
    };
  };
  return {
    el,
    update(f, s) {
      fill(state, stateBadge(f));
      for (const d of f.details?.destinations ?? []) {
        if (!breakers.has(d.name)) {
          breakers.set(d.name, destination(d));
          list.append(breakers.get(d.name).el);
        }
        breakers.get(d.name).update(d);
      }
      if (!breakers.size && !list.children.length) list.append(h("p", { class: "dim small" }, "It has delivered nothing since it began."));
      else if (breakers.size) list.querySelector(":scope > p")?.remove();
      for (const w of s.switches.filter((x) => x.gateway === f.name)) {
        if (!switches.has(w.name)) {
          switches.set(w.name, switchControl(w));
          box.append(switches.get(w.name).el);
        }
        switches.get(w.name).update(w);
      }
    },
  };
}

function lane(name, l, again) {
  const id = l.lane.split(".").slice(-1)[0], type = l.lane.split(".")[2] ?? "";
  const more = h("div", {});
  return h("li", { class: "stack", dataset: { lane: l.lane } },
    h("div", { class: "row" },
      h("a", { href: route("aggregates", type, id) }, `${type} ${id}`), badge(l.parked ? "parked" : "waits", l.parked ? "bad" : "warn"),
      h("span", { class: "dim small" }, `${number(l.attempts)} attempt${l.attempts === 1 ? "" : "s"}`, l.next && !l.parked ? ` · again at ${clock(l.next).slice(0, 8)}` : "", l.last > l.sequence ? " · more wait behind it" : "")),
    h("div", { class: "row" },
      h("button", {
        type: "button", class: "small", onclick: async () => {
          const c = await api(`events/${l.sequence}`).catch((err) => fill(more, failed(err)));
          if (c?.events) fill(more, c.events.map((e) => [h("b", {}, e.name), json(e.data)]), h("a", { href: route("events", l.sequence) }, "what caused it"));
        },
      }, "Look at it"),
      h("button", { type: "button", class: "small", disabled: readOnly(), dataset: { do: "retry" }, onclick: async (e) => { await act(e.currentTarget, "tried again", () => api(`followers/${part(name)}/retry`, { lane: l.lane })); again(); } }, "Retry"),
      h("button", {
        type: "button", class: "small danger", disabled: readOnly(), dataset: { do: "discard" }, onclick: async (e) => {
          const button = e.currentTarget;
          const reason = await ask({ title: `Discard #${l.sequence}?`, text: `${name} gives this event of ${type} ${id} up, for good, and goes on with the next.`, action: "Discard", reason: "required", danger: true });
          if (reason) await act(button, "discarded", () => api(`followers/${part(name)}/discard`, { lane: l.lane, sequence: l.sequence, ...reason }));
          again();
        },
      }, "Discard")), more);
}

// look reads what waits, where something does.
async function look() {
  const list = el.querySelector("#waiting");
  const names = (live.status?.followers ?? []).filter((f) => f.waiting || f.parked).map((f) => f.name);
  for (const name of [...waiting.keys()]) {
    if (names.includes(name)) continue;
    waiting.get(name).el.remove();
    waiting.delete(name);
  }
  el.querySelector("#nothing-waits").hidden = names.length > 0;
  for (const name of names) {
    let f;
    try {
      f = await api(`followers/${part(name)}`);
    } catch {
      continue;
    }
    // What is looked at stays, until something else is there.
    const print = JSON.stringify(f.groups.map((g) => [g.id, g.count, g.parked, g.lanes.map((l) => [l.lane, l.sequence, l.parked])]));
    const old = waiting.get(name);
    if (old?.print === print) continue;
    const wasOpen = new Set([...(old?.el.querySelectorAll("details[open]") ?? [])].map((d) => d.dataset.group));
    const box = h("section", { class: "card", dataset: { waiting: name } },
      h("header", {}, h("h2", {}, `Waiting in ${name}`), h("button", {
        type: "button", class: "small", disabled: readOnly(), dataset: { do: "retry-all" },
        onclick: async (e) => { await act(e.currentTarget, "all are tried again", () => api(`followers/${part(name)}/retry`, { all: true })); look(); },
      }, "Retry all")),
      f.groups.map((g) => h("div", { class: "stack" },
        h("div", { class: "row" }, badge(`${number(g.count)}`, g.parked ? "bad" : "warn"), h("code", { class: "grow" }, g.pattern),
          h("button", { type: "button", class: "small", disabled: readOnly(), dataset: { do: "retry-group" }, onclick: async (e) => { await act(e.currentTarget, "the group is tried again", () => api(`followers/${part(name)}/retry`, { group: g.id })); look(); } }, "Retry group")),
        h("details", { class: "more", open: wasOpen.has(g.id) ? true : null, dataset: { group: g.id } }, h("summary", {}, g.lanes.length < g.count ? `The first ${g.lanes.length} of ${number(g.count)} aggregates` : `${g.lanes.length} aggregate${g.lanes.length === 1 ? "" : "s"}`),
          h("p", { class: "small dim" }, g.lanes[0]?.error ?? ""),
          h("ul", { class: "stack" }, g.lanes.map((l) => lane(name, l, look)))))),
      snippets(() => ({
        nats: `nats --server ${live.info.nats} req ${live.info.store}.follower.${name}.retry ${quote(JSON.stringify({ all: true, by: "me" }))}`,
        curl: `${curl(`followers/${name}/retry`, { group: f.groups[0]?.id })}\n\n${curl(`followers/${name}/discard`, { lane: f.groups[0]?.lanes[0]?.lane, sequence: f.groups[0]?.lanes[0]?.sequence, reason: "why" })}`,
        Go: `admin := followers.New(store)\ngroups, err := admin.Parked(ctx, ${JSON.stringify(name)})\nn, err := admin.Retry(ctx, ${JSON.stringify(name)}, followers.Selection{Group: groups[0].ID}, "me")\nerr = admin.Discard(ctx, ${JSON.stringify(name)}, groups[0].Lanes[0], false, "me", "why")`,
      })));
    if (old) old.el.replaceWith(box);
    else list.append(box);
    waiting.set(name, { el: box, print });
  }
}

export const gateways = {
  id: "gateways",
  title: "Gateways & parked",
  count: (s) => (s?.followers ?? []).reduce((n, f) => n + (f.parked ?? 0), 0),
  enter(root) {
    el = root;
    cards = new Map();
    waiting = new Map();
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Gateways and parked events"), h("p", {}, "Calls to the outside world: what each destination is spared, and what waits for another try or for you.")),
      h("div", { class: "cols" },
        h("div", { class: "stack" }, h("div", { class: "stack", id: "gateways" }), h("p", { class: "empty", id: "no-gateways", hidden: true }, "This store has no gateways.")),
        h("div", { class: "stack" }, h("p", { class: "empty", id: "nothing-waits", hidden: true }, "Nothing waits: every event was handled."), h("div", { class: "stack", id: "waiting" }))));
    if (live.status) this.status(live.status);
  },
  leave() { clearTimeout(timer); },
  status(s) {
    const box = el.querySelector("#gateways");
    const all = s.followers.filter((f) => f.kind === "gateway" || cards.has(f.name));
    el.querySelector("#no-gateways").hidden = all.length > 0;
    for (const f of all) {
      if (!cards.has(f.name)) {
        cards.set(f.name, makeGateway(f));
        box.append(cards.get(f.name).el);
      }
      cards.get(f.name).update(f, s);
    }
    clearTimeout(timer);
    timer = setTimeout(look, 0);
  },
};
