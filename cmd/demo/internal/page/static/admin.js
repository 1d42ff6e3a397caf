// What people may ask of a follower: pause, resume, and what to do with what waits.

import { $, el, put, api, say, count, short } from "./dom.js";

const path = (name, what = "") => `/api/followers/${encodeURIComponent(name)}${what ? `/${what}` : ""}`;

async function ask(name, what, body = {}) {
  try {
    const { body: answer } = await api("POST", path(name, what), body);
    say(what === "retry" ? `${name}: ${count(answer.lanes ?? 0)} tried again` : `${name}: ${what} done`);
  } catch (e) {
    say(`${name}: ${e.message}`);
  }
}

// controls are a follower's buttons. Views are not administered this way.
export function controls() {
  const p = {
    pause: el("button", { type: "button", class: "small" }, "Pause"),
    waiting: el("button", { type: "button", class: "small" }, "What waits"),
  };
  p.node = el("span", { class: "controls" }, p.pause, p.waiting);
  p.pause.addEventListener("click", () => ask(p.name, p.paused ? "resume" : "pause", p.paused ? {} : { reason: "asked on the page" }));
  p.waiting.addEventListener("click", () => show(p.name));
  return p;
}

export function setControls(p, f) {
  p.name = f.name;
  p.paused = f.state === "paused";
  p.node.hidden = f.kind === "view" || !f.owner;
  p.waiting.hidden = !f.blocked;
  put(p.pause, p.paused ? "Resume" : "Pause");
  p.pause.setAttribute("aria-label", `${p.paused ? "Resume" : "Pause"} ${f.name}`);
}

// show lists what waits, by failure.
async function show(name) {
  const dialog = $("waiting");
  put($("waiting-title"), `What waits in ${name}`);
  await fill(name);
  if (!dialog.open) dialog.showModal();
}

async function fill(name) {
  let groups = [];
  try {
    groups = (await api("GET", path(name))).body.groups ?? [];
  } catch (e) {
    say(`${name}: ${e.message}`);
  }
  const again = (what, body) => async () => {
    await ask(name, what, body);
    await fill(name);
  };
  const button = (text, act) => {
    const b = el("button", { type: "button", class: "small" }, text);
    b.addEventListener("click", act);
    return b;
  };
  $("waiting-groups").replaceChildren(
    ...(groups.length ? [] : [el("li", { class: "note" }, "Nothing waits.")]),
    ...groups.slice(0, 20).map((g) =>
      el(
        "li",
        {},
        el("p", { class: "error" }, g.pattern),
        el("p", { class: "note" }, `${count(g.count)} aggregate${g.count === 1 ? "" : "s"}${g.oldest ? ` · since ${new Date(g.oldest).toLocaleTimeString()}` : ""}`),
        button("Retry all of these", again("retry", { group: g.id })),
        el(
          "ul",
          {},
          ...(g.lanes ?? []).slice(0, 10).map((l) =>
            el(
              "li",
              { title: l.error },
              `${short(l.lane.split(".").pop())} · ${count(l.attempts)} attempts · ${l.parked ? "parked" : "waits"} `,
              button("Retry", again("retry", { lane: l.lane })),
              button("Discard", again("discard", { lane: l.lane, sequence: l.sequence, reason: "discarded on the page" })),
            ),
          ),
        ),
      ),
    ),
  );
}

$("waiting-close").addEventListener("click", () => $("waiting").close());
