// The chaos strip: things to break, and the invariants that must hold meanwhile. And
// durability: what a commit survives.
import { badge, curl, empty, fill, h, number, set, snippets } from "./ui.js";
import { switchControl } from "./gateways.js";
import { live } from "./live.js";

let el, controls = new Map(), checks = new Map(), groups = new Map();

// groupOf is the section of a group of switches.
function groupOf(name) {
  if (!groups.has(name)) {
    const box = h("div", { class: "cards" });
    groups.set(name, box);
    el.querySelector("#groups").append(h("section", { class: "card", dataset: { group: name } }, h("header", {}, h("h2", {}, name)), box));
  }
  return groups.get(name);
}

export const chaos = {
  id: "chaos",
  title: "Chaos",
  count: (s) => (s?.switches ?? []).filter((w) => w.state !== w.options[0]).length,
  enter(root) {
    el = root;
    controls = new Map();
    checks = new Map();
    groups = new Map();
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Break something"), h("p", {}, "Stop parts, break what they call, start them again. The invariants are looked at all the while.")),
      h("div", { class: "cards", id: "checks" }),
      h("div", { class: "stack", id: "groups" }),
      h("p", { class: "empty", id: "no-switches", hidden: true }, "The application has given the console nothing to break."),
      snippets(() => ({
        nats: "# a part is stopped by whoever runs it; with modules as processes of their own:\nkill -9 PID",
        curl: (live.status?.switches ?? []).filter((w) => !w.gateway).slice(0, 1).map((w) => `# break it, and mend it\n${curl(`switches/${w.name}`, { option: w.options[1] })}\n\n${curl(`switches/${w.name}`, { option: w.options[0] })}`).join(""),
        Go: "con, err := console.New(console.Config{\n\tStore: store,\n\tSwitches: []console.Switch{{\n\t\tName: \"worker\", Title: \"Worker\", Options: []string{\"runs\", \"stopped\"},\n\t\tState: worker.State, Set: worker.Set,\n\t}},\n\tChecks: []console.Check{{Name: \"money\", Title: \"Money\", Run: books}},\n})",
      })));
    if (live.status) this.status(live.status);
  },
  status(s) {
    const box = el.querySelector("#checks");
    for (const c of s.checks) {
      if (!checks.has(c.name)) {
        const state = h("span", {}), text = h("p", {}), since = h("p", { class: "dim small" });
        const card = h("section", { class: "card", dataset: { invariant: c.name } }, h("header", {}, h("h2", {}, c.title), state), text, since);
        checks.set(c.name, { state, text, since, broken: 0, looked: 0 });
        box.append(card);
      }
      const k = checks.get(c.name);
      k.looked++;
      if (!c.error && !c.holds) k.broken++;
      fill(k.state, badge(c.error ? "unknown" : c.holds ? "holds" : "BROKEN", c.error ? "warn" : c.holds ? "good" : "bad"));
      set(k.text, c.error || c.text);
      set(k.since, `looked at ${number(k.looked)} times while you watch, broken ${number(k.broken)} times`);
    }
    el.querySelector("#no-switches").hidden = s.switches.length > 0;
    for (const w of s.switches) {
      if (!controls.has(w.name)) {
        controls.set(w.name, switchControl(w));
        groupOf(w.gateway ? "What is called from here" : w.group).append(controls.get(w.name).el);
      }
      controls.get(w.name).update(w);
    }
  },
};

const means = {
  unknown: ["warn", "It is not known how the servers sync their disks: the application gave the console no source for it."],
};

function meaning(d) {
  if (means[d.level]) return means[d.level];
  if (d.storage === "memory") return ["bad", "The stream is in memory: it is gone when its servers are."];
  if (d.level.includes("lazy")) {
    return d.replicas > 1 ?
      ["warn", "A commit is on a majority of servers when it is acknowledged, but not on their disks: a failure of several machines at once can lose the last moments."] :
      ["bad", `A commit is not on disk when it is acknowledged (fsync ${d.fsync}): when the machine fails, the last moments are lost. A crash of the server's process loses nothing.`];
  }
  return ["good", "A commit is on disk before it is acknowledged."];
}

export const durability = {
  id: "durability",
  title: "Durability",
  enter(root) {
    el = root;
    fill(el, h("div", { class: "head" }, h("h1", {}, "Durability"), h("p", {}, "What a commit survives once it is acknowledged, as the servers report it.")),
      h("div", { class: "stack", id: "durability" }, empty("Asking …")),
      snippets(() => ({
        nats: `nats --server ${live.info.nats} stream info ${live.info.store}`,
        curl: curl("status"),
        Go: "report, err := store.Durability(ctx, jetstream.DurabilitySources{Known: map[string]jetstream.Fsync{\"n1\": jetstream.FsyncAlways}})\n\n// or refuse to start with less\nstore, err = jetstream.Open(ctx, nc, jetstream.Config{Name: \"bank\", RequireDurability: jetstream.DurabilityFsynced})",
      })));
    if (live.status) this.status(live.status);
  },
  status(s) {
    const d = s.durability, box = el.querySelector("#durability");
    const print = JSON.stringify(d);
    if (box.dataset.print === print) return;
    box.dataset.print = print;
    if (!d) {
      fill(box, empty("The servers do not say."));
      return;
    }
    const [kind, text] = meaning(d);
    fill(box,
      h("p", { class: `note ${kind}` }, text),
      h("section", { class: "card" },
        h("dl", { class: "facts" }, [["level", d.level], ["at least", d.atLeast], ["replicas", `${d.inSync} of ${d.replicas} in sync`], ["storage", d.storage], ["fsync", d.fsync], ["server", d.serverVersion]].map(([k, v]) =>
          h("div", {}, h("dt", {}, k), h("dd", { class: "text" }, v)))),
        h("div", { class: "scroll" }, h("table", {},
          h("thead", {}, h("tr", {}, ["Server", "Role", "State", "Behind", "fsync", "Version"].map((n) => h("th", { scope: "col" }, n)))),
          h("tbody", {}, d.servers.map((v) => h("tr", {}, h("td", {}, v.name || "?"), h("td", {}, v.leader ? badge("leader", "info") : "follower"),
            h("td", {}, v.offline ? badge("away", "bad") : v.current ? badge("in sync", "good") : badge("catching up", "warn")),
            h("td", {}, number(v.lag)), h("td", {}, v.fsync), h("td", {}, v.version || "?")))))),
        (d.problems ?? []).map((p) => h("p", { class: "note warn" }, p))));
  },
};
