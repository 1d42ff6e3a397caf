// The command sender: a form from each command's JSON Schema.
import { act, api, badge, curl, empty, failed, fill, h, json, number, quote, route, snippets } from "./ui.js";
import { live, readOnly } from "./live.js";

let el, at = { type: "", command: "" }, form, answers, snippet, recent = [], kept = new Map(), again = 0;

const find = () => {
  const type = live.types.find((t) => t.type === at.type);
  return { type, command: type?.commands.find((c) => c.name === at.command) };
};

// resolve follows references within the schema.
function resolve(schema, root) {
  for (let i = 0; i < 10 && schema?.$ref; i++) schema = root.$defs?.[schema.$ref.replace("#/$defs/", "")];
  return schema ?? {};
}

const types = (s) => [s.type ?? []].flat();

// input is the field for a schema; read gives what was entered, undefined for
// nothing.
function input(name, schema, root, depth) {
  const s = resolve(schema, root), kinds = types(s);
  const label = (el, hint) => h("label", { class: "field" }, h("span", {}, name, h("small", {}, hint)), el);
  if (kinds.includes("object") && s.properties && depth < 4) {
    const inner = inputs(s, root, depth + 1);
    return { el: h("fieldset", {}, h("legend", {}, name), h("div", { class: "fields" }, inner.map((i) => i.el))), name, read: () => gather(inner) };
  }
  if (kinds.includes("boolean")) {
    const box = h("input", { type: "checkbox", name });
    return { el: h("label", { class: "field check" }, box, h("span", {}, name)), name, read: () => box.checked || undefined };
  }
  if (kinds.includes("integer") || kinds.includes("number")) {
    const whole = kinds.includes("integer");
    const box = h("input", {
      type: "number", name, step: whole ? 1 : "any", min: s.minimum, max: s.maximum, inputmode: whole ? "numeric" : "decimal", autocomplete: "off",
    });
    return { el: label(box, whole ? "whole number" : "number"), name, read: () => box.value === "" ? undefined : Number(box.value) };
  }
  if (kinds.includes("string")) {
    const box = h("input", { type: "text", name, autocomplete: "off", spellcheck: "false", placeholder: s.format === "date-time" ? "2026-01-31T12:00:00Z" : null });
    return { el: label(box, s.format === "date-time" ? "time" : "text"), name, read: () => box.value === "" ? undefined : box.value };
  }
  const box = h("textarea", { name, rows: 3, spellcheck: "false", placeholder: kinds.includes("array") ? "[]" : "JSON" });
  const wrap = label(box, "JSON");
  return { el: wrap, name, read: () => box.value.trim() === "" ? undefined : JSON.parse(box.value) };
}

const inputs = (s, root, depth) => Object.entries(s.properties ?? {}).map(([name, p]) => input(name, p, root, depth));

function gather(list) {
  const out = {};
  for (const i of list) {
    const v = i.read();
    if (v !== undefined) out[i.name] = v;
  }
  return out;
}

function draft(times = 1, together = false) {
  const version = form.version.value;
  return {
    type: at.type, command: at.command, id: form.id.value.trim(), body: form.body(),
    ...(version === "" ? {} : { expectVersion: Number(version) }),
    ...(form.key.value.trim() ? { key: form.key.value.trim() } : {}),
    ...(times === 1 ? {} : { times, together }),
  };
}

function kindOf(outcome) {
  if (outcome === "ok") return "good";
  if (outcome === "duplicate") return "info";
  return outcome.startsWith("rejected") || outcome.startsWith("conflict") || outcome.startsWith("exists") ? "warn" : "bad";
}

function answerCard(q, r) {
  const single = (a) => h("div", { class: "stack answer" },
    h("div", { class: "row" },
      badge(a.outcome, kindOf(a.outcome)), h("b", {}, `${a.ms.toFixed(1)} ms`),
      a.ok ? h("a", { href: route("aggregates", q.type, a.id, a.reply?.version ?? 1) }, `${q.type} ${a.id}, version ${a.reply?.version}`) : null,
      a.ok && a.sequence ? h("a", { href: route("events", a.sequence), class: "small" }, `#${number(a.sequence)}`) : null),
    a.reason ? h("p", {}, a.reason) : null,
    (a.reply?.events ?? []).length ? h("p", { class: "small dim" }, `led to ${a.reply.events.map((e) => e.name).join(", ")}`) :
      a.ok && !a.reply?.duplicate ? h("p", { class: "small dim" }, "changed nothing") : null,
    h("details", { class: "more" }, h("summary", {}, "The answer"), json(a.reply ?? {}), h("p", { class: "small dim mono" }, `key ${a.key}`)));
  const many = r.times > 2 || q.together;
  const outcomes = Object.entries(r.outcomes).sort((a, b) => b[1] - a[1]);
  return h("section", { class: "card", dataset: { answer: "" } },
    h("header", {}, h("h2", {}, many ? `${r.times} × ${q.command} at once` : r.times === 2 ? `${q.command}, twice with one key` : q.command),
      h("span", { class: "dim small" }, new Date().toLocaleTimeString("en-GB"))),
    many ? [
      h("div", { class: "stackbar", role: "img", "aria-label": outcomes.map(([o, n]) => `${n} ${o}`).join(", ") },
        outcomes.map(([o, n]) => {
          const s = h("span", { class: kindOf(o) });
          s.style.flex = `${n} 1 0`;
          return s;
        })),
      h("div", { class: "row" }, outcomes.map(([o, n]) => badge(`${n} ${o}`, kindOf(o)))),
      h("dl", { class: "facts" }, [["all", r.ms], ["median", r.medianMs], ["slowest", r.slowestMs]].map(([k, v]) =>
        h("div", {}, h("dt", {}, k), h("dd", {}, `${v.toFixed(1)} ms`)))),
      r.answers.filter((a) => a.reason).map((a) => h("p", { class: "small dim" }, `${a.outcome}: ${a.reason}`)),
    ] : r.answers.map(single));
}

async function send(button, times, together) {
  let q;
  try {
    q = draft(times, together);
  } catch (err) {
    fill(answers.querySelector("#send-error"), failed(new Error(`this is not JSON: ${err.message}`)));
    return;
  }
  fill(answers.querySelector("#send-error"));
  const r = await act(button, "", () => api("commands", q));
  if (!r) return;
  answers.querySelector(".empty")?.remove();
  const list = answers.querySelector("#answers");
  list.prepend(answerCard(q, r));
  while (list.children.length > 8) list.lastChild.remove();
  // On a narrow page the answer stands below the form.
  if (list.getBoundingClientRect().top > innerHeight - 120) list.scrollIntoView({ block: "center" });
}

function build() {
  const { type, command } = find();
  const target = el.querySelector("#form");
  if (!command) {
    fill(target, empty("Choose a command."));
    return;
  }
  const root = command.schema ?? {};
  const list = inputs(resolve(root, root), root, 0);
  const raw = h("textarea", { name: "body", rows: 6, spellcheck: "false", "aria-label": "Body as JSON" });
  let byHand = !command.schema;
  const area = h("div", {});
  const drawBody = () => fill(area, byHand ? raw : list.length ? h("div", { class: "fields" }, list.map((i) => i.el)) : h("p", { class: "dim" }, "This command has no fields."));
  const id = h("input", { type: "text", name: "id", list: "ids", autocomplete: "off", spellcheck: "false", value: kept.get(at.type) ?? "", placeholder: command.creates ? "a new one" : "required", required: !command.creates });
  const version = h("input", { type: "number", name: "expect", min: 0, step: 1, autocomplete: "off", placeholder: "any" });
  const keyInput = h("input", { type: "text", name: "key", maxlength: 128, autocomplete: "off", spellcheck: "false", placeholder: "a new one each time" });
  form = { id, version, key: keyInput, body: () => byHand ? JSON.parse(raw.value || "{}") : gather(list) };
  drawBody();
  const disabled = readOnly();
  const ready = (times, together) => (e) => {
    if (!id.reportValidity()) return;
    kept.set(at.type, id.value.trim());
    send(e.currentTarget ?? e.submitter, times, together);
  };
  fill(target, h("form", {
    class: "stack", id: "command-form", oninput: () => snippet.refresh(),
    onsubmit: (e) => {
      e.preventDefault();
      kept.set(at.type, id.value.trim());
      send(e.submitter, 1, false);
    },
  },
  h("label", { class: "field" }, h("span", {}, at.type, h("small", {}, command.creates ? "id of the one to be made" : "id")), id),
  area,
  h("div", { class: "row" }, command.schema ? h("button", {
    type: "button", class: "ghost small", onclick: (e) => {
      try {
        if (!byHand) raw.value = JSON.stringify(gather(list), null, 2);
      } catch { /* what is no JSON stays behind */ }
      byHand = !byHand;
      e.currentTarget.textContent = byHand ? "Back to the form" : "Write it as JSON";
      drawBody();
    },
  }, "Write it as JSON") : h("span", { class: "dim small" }, "The service does not tell this command's schema.")),
  h("div", { class: "fields" },
    h("label", { class: "field" }, h("span", {}, "Expected version", h("small", {}, "optional")), version),
    h("label", { class: "field" }, h("span", {}, "Idempotency key", h("small", {}, "optional")), keyInput)),
  h("div", { class: "row" },
    h("button", { type: "submit", class: "primary", disabled, id: "send" }, "Send"),
    h("button", { type: "button", disabled, id: "send-twice", onclick: ready(2, false), title: "The same command with the same key, twice: the second does nothing" }, "Send twice"),
    h("button", { type: "button", disabled, id: "send-100", onclick: ready(100, true), title: "A hundred at once: each with a key of its own, or all with the key above" }, "Send 100 at once")),
  disabled ? h("p", { class: "note" }, "This console only reads.") : null));
  snippet.refresh();
}

function choose() {
  const { type } = find();
  const commandsOf = el.querySelector("#commands");
  fill(commandsOf, (type?.commands ?? []).map((c) => h("button", {
    type: "button", "aria-pressed": String(c.name === at.command), dataset: { command: c.name },
    onclick: () => { location.hash = route("commands", at.type, c.name); },
  }, c.name)));
}

async function load(all) {
  try {
    live.types = (await api(all ? "commands?all" : "commands")).types;
  } catch (err) {
    fill(el.querySelector("#form"), failed(err));
    return;
  }
  const select = el.querySelector("#type");
  fill(select, live.types.map((t) => h("option", { value: t.type }, t.type)));
  if (!live.types.length) {
    fill(el.querySelector("#form"), empty("No command service answers. They are asked again every few seconds."),
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => load(true) }, "Ask all services now")));
    clearTimeout(again);
    again = setTimeout(() => load(false), 2500);
    return;
  }
  pick(at.type, at.command, true);
  return true;
}

function pick(type, command, anew) {
  if (!live.types.length) {
    at = { type: type ?? "", command: command ?? "" };
    return;
  }
  const t = live.types.find((x) => x.type === type) ?? live.types[0];
  const c = t.commands.find((x) => x.name === command) ?? t.commands.find((x) => x.creates) ?? t.commands[0];
  const same = form && !anew && at.type === t.type && at.command === c?.name;
  at = { type: t.type, command: c?.name ?? "" };
  el.querySelector("#type").value = at.type;
  if (same) return; // what was typed stays
  choose();
  build();
  suggest();
}

async function suggest() {
  const type = at.type;
  recent = (await api(`aggregates?type=${encodeURIComponent(type)}&limit=50`).catch(() => ({ aggregates: [] }))).aggregates;
  if (type === at.type) fill(el.querySelector("#ids"), recent.map((a) => h("option", { value: a.id }, `version ${a.version}`)));
}

function snippetTexts() {
  if (!form) return { nats: "", curl: "", Go: "" };
  let q;
  try {
    q = draft();
  } catch {
    q = { type: at.type, command: at.command, id: form.id.value.trim(), body: {} };
  }
  const id = q.id || "ID";
  const headers = [q.key && `-H ${quote("Rossby-Command-Id:" + q.key)}`, q.expectVersion !== undefined && `-H Rossby-Expect-Version:${q.expectVersion}`].filter(Boolean);
  const options = [q.key && `aggregate.CommandID(${JSON.stringify(q.key)})`, q.expectVersion !== undefined && `aggregate.ExpectVersion(${q.expectVersion})`].filter(Boolean);
  const creates = find().command?.creates;
  return {
    nats: [`nats --server ${live.info.nats} req`, ...headers, quote(`${live.info.store}.command.${q.type}.${q.command}.${id}`), quote(JSON.stringify(q.body))].join(" "),
    curl: curl("commands", { ...q, id: q.id }),
    Go: `res, err := client.${creates ? "Create" : "Execute"}(ctx, ${JSON.stringify(q.id)}, aggregate.Encoded{\n\tName: ${JSON.stringify(q.command)}, ContentType: "application/json",\n\tBody: []byte(\`${JSON.stringify(q.body)}\`),\n}${options.map((o) => ", " + o).join("")})`,
  };
}

export const commands = {
  id: "commands",
  title: "Commands",
  enter(root) {
    el = root;
    form = null;
    snippet = snippets(snippetTexts);
    answers = h("div", { class: "stack", "aria-live": "polite" }, h("div", { id: "send-error" }), h("div", { class: "stack", id: "answers" }), empty("Answers appear here, with how long they took."));
    fill(el,
      h("div", { class: "head" }, h("h1", {}, "Send a command"), h("p", {}, "To any command service of the store. The forms come from what the services tell of themselves.")),
      h("div", { class: "cols" },
        h("section", { class: "card" },
          h("label", { class: "field" }, h("span", {}, "Aggregate type"), h("select", { id: "type", onchange: (e) => { location.hash = route("commands", e.target.value); } })),
          h("div", { class: "row" }, h("button", { type: "button", class: "ghost small", id: "look", onclick: (e) => act(e.currentTarget, "All services were asked", () => load(true)) }, "Look for other services")),
          h("div", { class: "field" }, h("span", {}, "Command"), h("div", { class: "choice", id: "commands", role: "group", "aria-label": "Command" })),
          h("div", { id: "form" }, empty("Looking for command services …")),
          h("datalist", { id: "ids" }),
          snippet),
        answers));
    load(false);
  },
  leave() { clearTimeout(again); },
  route([type, command]) {
    if (type || !at.type) pick(type, command);
  },
};
