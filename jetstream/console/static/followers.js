// Followers: how far everything is that follows the events, and what people can tell
// it. Views are rebuilt beside the one that is read.
import { act, api, ask, badge, bar, clock, curl, duration, empty, fill, h, json, number, part, progress, quote, rate, route, set, snippets, spark } from "./ui.js";
import { live, rates, readOnly } from "./live.js";

let el, cards = new Map();

export const healthy = new Set(["running", "active", "replaying"]);

export function stateBadge(f) {
  const bad = f.state === "stopped" || f.state === "unknown" || f.error;
  const text = f.paused ? "paused" : f.state;
  return badge(text || "?", bad ? "bad" : f.paused || !healthy.has(f.state) ? "warn" : "good");
}

// facts are numbers that are updated in place.
export function facts(names) {
  const values = new Map();
  const el = h("dl", { class: "facts" }, names.map((name) => {
    const dd = h("dd", {}, "–");
    values.set(name, dd);
    return h("div", {}, h("dt", {}, name), dd);
  }));
  return { el, set: (name, text) => set(values.get(name), text) };
}

const fullName = (f) => f.name.startsWith("_timers-") ? `timers of ${f.name.slice(8)}` : f.name;

// orders are what a follower is told, as nats, curl and Go.
function orderTexts(f, isView) {
  const store = live.info.store;
  return isView ? {
    nats: `# rossby registered as a plugin; nats alone has no command for a view's orders\nnats --server ${live.info.nats} rossby view status ${f.name} --store ${store}\nnats --server ${live.info.nats} rossby view rebuild ${f.name} --store ${store}\nnats --server ${live.info.nats} rossby view switch ${f.name} 2 --store ${store}`,
    curl: `${curl(`views/${f.name}/pause`, { reason: "maintenance" })}\n\n${curl(`views/${f.name}/resume`, {})}\n\n${curl(`views/${f.name}/rebuild`, { switch: false })}\n\n${curl(`views/${f.name}/switch`, { generation: 2 })}`,
    Go: `admin, err := projection.NewAdmin(nc, ${JSON.stringify(store)}, ${JSON.stringify(f.name)})\n\nerr = admin.Pause(ctx, "maintenance")\nerr = admin.Resume(ctx)\nnumber, err := admin.Rebuild(ctx, projection.RebuildOptions{})\nerr = admin.Switch(ctx, number)`,
  } : {
    nats: `nats --server ${live.info.nats} req ${store}.follower.${f.name}.pause ${quote(JSON.stringify({ by: "me", reason: "maintenance" }))}\nnats --server ${live.info.nats} req ${store}.follower.${f.name}.resume ${quote(JSON.stringify({ by: "me" }))}`,
    curl: `${curl(`followers/${f.name}/pause`, { reason: "maintenance" })}\n\n${curl(`followers/${f.name}/resume`, {})}`,
    Go: `admin := followers.New(store)\n\nerr := admin.Pause(ctx, ${JSON.stringify(f.name)}, "me", "maintenance")\nerr = admin.Resume(ctx, ${JSON.stringify(f.name)}, "me")`,
  };
}

function makeCard(first, isView) {
  const name = first.name, path = `${isView ? "views" : "followers"}/${part(name)}`;
  const state = h("span", {}), sparkBox = h("div", {}), note = h("div", {}), generations = h("div", { class: "stack" });
  const numbers = facts(isView ? ["behind, commits", "behind, time", "commits/s"] : ["behind, events", "behind, time", "commits/s", "waiting", "parked"]);
  const owner = h("p", { class: "dim small" });
  const pause = h("button", {
    type: "button", class: "small", dataset: { do: "pause" }, disabled: readOnly(), onclick: async () => {
      if (pause.dataset.do === "resume") {
        await act(pause, `${name} goes on`, () => api(`${path}/resume`, {}));
        return;
      }
      const reason = await ask({ title: `Pause ${fullName(first)}?`, text: "It begins nothing more until somebody resumes it, over restarts too. Nothing is lost: what it would do waits in the store.", action: "Pause", reason: "optional" });
      if (reason) await act(pause, `${name} is paused`, () => api(`${path}/pause`, reason));
    },
  }, "Pause");
  const buttons = [pause];
  let shown = false;
  const look = async () => {
    const v = await api(path).catch(() => null);
    if (!v) return;
    shown = true;
    drawGenerations(generations, name, path, v, look);
  };
  if (isView) {
    buttons.push(h("button", {
      type: "button", class: "small", dataset: { do: "rebuild" }, disabled: readOnly(), onclick: async (e) => {
        if (await act(e.currentTarget, `${name} is being rebuilt beside the live one`, () => api(`${path}/rebuild`, { switch: false }))) look();
      },
    }, "Rebuild beside"),
    h("a", { class: "small", href: route("views", name) }, "Look inside"));
  }
  const el = h("section", { class: "card", dataset: { follower: name } },
    h("header", {}, h("h2", {}, fullName(first)), badge(isView ? "view" : first.kind || "follower", "info"), state),
    numbers.el, sparkBox, note, generations, h("div", { class: "row" }, buttons), owner,
    snippets(() => orderTexts(first, isView)));
  return {
    el,
    update(f) {
      fill(state, stateBadge(f));
      const r = rates(`${isView ? "view" : "follower"}/${name}`);
      numbers.set(isView ? "behind, commits" : "behind, events", number(f.lag));
      numbers.set("behind, time", f.lag ? duration(f.lagSeconds) : "0 s");
      numbers.set("commits/s", rate(r.slice(-3).reduce((a, b) => a + b, 0) / Math.max(Math.min(r.length, 3), 1)));
      if (!isView) {
        numbers.set("waiting", number(f.waiting));
        numbers.set("parked", number(f.parked));
      }
      fill(sparkBox, spark(r, `Throughput of ${name} in the last minute`));
      const paused = Boolean(f.paused);
      pause.dataset.do = paused || f.state === "stopped" ? "resume" : "pause";
      set(pause, paused ? "Resume" : f.state === "stopped" && isView ? "Try again" : "Pause");
      const reason = f.pauseReason ?? f.paused?.reason;
      const error = f.error || f.lastError;
      const text = `${paused} ${reason} ${error} ${f.parked}`;
      if (note.dataset.text !== text) {
        note.dataset.text = text;
        fill(note,
          paused ? h("p", { class: "note warn" }, `Paused${f.paused.by ? ` by ${f.paused.by}` : ""}${reason ? `: ${reason}` : ""}`) : null,
          error && !healthy.has(f.state) ? h("p", { class: "note bad" }, error) : null,
          f.parked || f.waiting ? h("p", { class: "note warn" }, h("a", { href: route("gateways") }, `${number(f.waiting + f.parked)} aggregates wait here`)) : null);
      }
      set(owner, f.owner ? `owner ${f.owner}${f.epoch ? `, epoch ${number(f.epoch)}` : ""}` : "nobody runs it");
      if (isView && (f.building || generations.childElementCount || !shown)) look();
    },
  };
}

// drawGenerations shows each generation with its bar. What is there is changed in
// place, so that buttons stay where they are.
function drawGenerations(box, name, path, v, again) {
  const shape = v.generations.length < 2 ? "" : v.generations.map((g) => `${g.number}${g.live ? "live" : g.building ? "building" : "old"}`).join();
  if (box.dataset.shape !== shape) {
    box.dataset.shape = shape;
    fill(box, shape ? layOut(name, path, v, again) : null);
  }
  for (const g of shape ? v.generations : []) {
    const el = box.querySelector(`[data-generation="${g.number}"]`);
    set(el.querySelector(".about"), [
      `definition ${g.version}`, `${(g.done * 100).toFixed(g.done < 1 ? 1 : 0)} %`, g.building && g.rate ? `${rate(g.rate)}/s` : "",
      g.leftSeconds ? `${duration(g.leftSeconds)} left` : "", g.auto ? "goes live by itself" : "", g.error ?? "",
    ].filter(Boolean).join(" · "));
    progress(el.querySelector(".bar"), g.done);
  }
}

function layOut(name, path, v, again) {
  const order = (what, body, text, danger) => h("button", {
    type: "button", class: danger ? "small danger" : "small", disabled: readOnly(), dataset: { do: what }, onclick: async (e) => {
      const button = e.currentTarget;
      if (danger && !await ask({ title: `Remove generation ${body.generation}?`, text: "Its keys go out of the bucket.", action: "Remove", danger: true })) return;
      await act(button, `${text}: done`, () => api(`${path}/${what}`, body));
      again();
    },
  }, text);
  const current = v.generations.find((g) => g.live), result = h("div", {});
  const compare = (g) => h("button", {
    type: "button", class: "small", disabled: readOnly(), dataset: { do: "compare" }, onclick: async (e) => {
      const c = await act(e.currentTarget, "", () => api(`${path}/compare`, { generation: current.number, other: g.number }));
      if (!c) return;
      fill(result, h("p", { class: `note ${c.differences.length ? "warn" : "good"}` },
        c.differences.length ? `${c.differences.length}${c.cut ? " or more" : ""} of ${number(c.keys)} keys differ.` : `${number(c.keys)} keys compared${c.cut ? " in the time there was" : ""}: no difference.`),
      c.differences.slice(0, 5).map((d) => h("details", { class: "more" }, h("summary", {}, d.key), json({ [current.number]: d.a, [g.number]: d.b }))));
    },
  }, "Compare");
  return [h("h3", {}, "Generations"), v.generations.map((g) => h("div", { class: "stack tight", dataset: { generation: g.number } },
    h("div", { class: "row" }, h("b", {}, `Nr. ${g.number}`), badge(g.live ? "live" : g.building ? "building" : "old", g.live ? "good" : g.building ? "info" : ""), h("span", { class: "dim small about" })),
    bar(g.done, `Generation ${g.number} of ${name}`, g.live ? "live" : ""),
    g.live ? null : h("div", { class: "row" },
      order("switch", { generation: g.number }, g.building ? "Switch to it" : "Roll back to it"), current ? compare(g) : null,
      order("remove", { generation: g.number }, "Remove", true)))), result];
}

export const followers = {
  id: "followers",
  title: "Followers",
  count: (s) => [...(s?.views ?? []), ...(s?.followers ?? [])].filter((f) => f.paused || !healthy.has(f.state)).length,
  enter(root) {
    el = root;
    cards = new Map();
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Followers"), h("p", {}, "Views, reactors, gateways and timers: how far each is behind the store, and how fast it goes.")),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "The store"), h("span", { class: "dim small", id: "head" })), h("div", { id: "store-spark" })),
      h("div", { class: "cards", id: "followers" }, empty("Looking …")));
    if (live.status) this.status(live.status);
  },
  status(s) {
    const box = el.querySelector("#followers");
    const r = rates("store");
    fill(el.querySelector("#store-spark"), spark(r, "Commits a second in the last minute"));
    set(el.querySelector("#head"), `${number(s.head)} commits · ${rate(r.slice(-3).reduce((a, b) => a + b, 0) / Math.max(Math.min(r.length, 3), 1))} a second · ${clock(s.time).slice(0, 8)}`);
    const wanted = [...s.views.map((f) => [`view/${f.name}`, f, true]), ...s.followers.map((f) => [`follower/${f.name}`, f, false])];
    for (const [key, f, isView] of wanted) {
      if (!cards.has(key)) cards.set(key, makeCard(f, isView));
      cards.get(key).update(f);
    }
    for (const key of [...cards.keys()]) if (!wanted.some(([k]) => k === key)) cards.delete(key);
    const els = wanted.map(([key]) => cards.get(key).el);
    if (els.length !== box.children.length || els.some((e, i) => box.children[i] !== e)) {
      if (els.length) box.replaceChildren(...els);
      else fill(box, empty("Nothing follows this store yet."));
    }
  },
};
