// Commands: forms that send them, and what they look like elsewhere.

import { $, put, cents, say, api, Problem, short } from "./dom.js";
import { natsAddress } from "./status.js";
import { account, onDelete, whenFinal, isFinal, describeState } from "./lists.js";

// --- The last command, elsewhere -------------------------------------------

const quote = (s) => `'${s.replaceAll("'", `'\\''`)}'`;

function remember({ method, path, body, key, subject, command }) {
  const curl = [`curl -sS -X ${method} ${quote(location.origin + path)}`, `-H ${quote(`Idempotency-Key: ${key}`)}`];
  if (body !== undefined) curl.push(`-H 'Content-Type: application/json'`, `-d ${quote(JSON.stringify(body))}`);
  put($("curl"), curl.join(" \\\n  "));
  put($("nats"), [`nats ${natsAddress ? `--server ${quote(natsAddress)} ` : ""}req ${quote(subject)}`, `-H ${quote(`Rossby-Command-Id:${key}`)}`, quote(JSON.stringify(command))].join(" \\\n  "));
  $("last").hidden = false;
  $("last-none").hidden = true;
}

async function copy(id) {
  try {
    await navigator.clipboard.writeText($(id).textContent);
    say("Copied.");
  } catch {
    // No clipboard without a secure page: select, so that Ctrl-C does it.
    getSelection().selectAllChildren($(id));
    say("Selected: copy it with the keyboard.");
  }
}
$("copy-curl").addEventListener("click", () => copy("curl"));
$("copy-nats").addEventListener("click", () => copy("nats"));

// --- Forms ------------------------------------------------------------------

class Invalid extends Error {
  constructor(field, text) {
    super(text);
    this.field = field;
  }
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `page-${[...bytes].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

// id checks what becomes part of a path.
const segment = (s) => encodeURIComponent(s);

function show(node, text) {
  put(node, text);
  node.hidden = !text;
}

function explain(error) {
  if (error instanceof Problem) return `${error.status} ${error.code || error.title}: ${error.message}`;
  if (error instanceof Invalid) return error.message;
  return "The bank does not answer. Nothing is known of the command: send it again.";
}

// form calls send with the fields, shows what it returns, or why not.
function form(id, send) {
  const f = $(id);
  const [answer, error] = [f.querySelector(".answer"), f.querySelector(".error")];
  error.id = `${id}-error`;
  const button = f.querySelector("button[type=submit]");
  f.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    for (const input of f.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
    show(error, "");
    show(answer, "");
    button.disabled = true;
    try {
      const values = Object.fromEntries([...new FormData(f)].map(([k, v]) => [k, String(v).trim()]));
      await send(values, (text) => {
        show(answer, text);
        say(text);
      });
    } catch (e) {
      show(error, explain(e));
      say(`Refused. ${explain(e)}`);
      if (e instanceof Invalid) {
        const input = f.elements[e.field];
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", error.id);
        input.focus();
      }
    } finally {
      button.disabled = false;
    }
  });
}

function need(values, field, label) {
  if (!values[field]) throw new Invalid(field, `${label} is missing.`);
  return values[field];
}

function amount(values) {
  const n = cents(values.amount ?? "");
  if (n === undefined) throw new Invalid("amount", "The amount is not a number with at most two decimals.");
  return n;
}

const given = (object) => Object.fromEntries(Object.entries(object).filter(([, v]) => v !== "" && v !== undefined));

form("form-transfer", async (v, done) => {
  const body = given({
    fromAccountId: need(v, "fromAccountId", "The account it comes from"),
    toAccountId: need(v, "toAccountId", "The account it goes to"),
    cents: amount(v),
    description: v.description,
  });
  const key = newKey();
  const post = () => api("POST", "/api/transfers", body, { "Idempotency-Key": key });
  const first = await post();
  const id = first.body.transferId;
  remember({ method: "POST", path: "/api/transfers", body, key, subject: `bank.command.transfer.create.${id}`, command: body });
  let text = `Transfer ${short(id)}`;
  if (v.twice) {
    const second = await post();
    const same = second.body.transferId === id;
    const replayed = second.headers.get("Idempotent-Replayed") === "true" ? ", the second as a replay" : "";
    text = same
      ? `Sent twice, one transfer: both answers name ${short(id)}${replayed}. It`
      : `Sent twice, and two transfers came of it: ${short(id)} and ${short(second.body.transferId)}. The first`;
  }
  done(`${text} is accepted.`);
  const answer = $("form-transfer").querySelector(".answer");
  whenFinal(id, (t) => {
    if (!answer.textContent.startsWith(text)) return; // another command has come since
    put(answer, `${text} is ${describeState(t.state)}.`);
    if (isFinal(t.state)) say(answer.textContent);
  });
});

form("form-account", async (v, done) => {
  const body = given({
    accountId: v.accountId,
    customerId: v.customerId,
    title: need(v, "title", "The title"),
    initialCents: amount(v),
  });
  const key = newKey();
  const { body: res } = await api("POST", "/api/accounts", body, { "Idempotency-Key": key });
  const { accountId: _, ...command } = body;
  remember({ method: "POST", path: "/api/accounts", body, key, subject: `bank.command.account.open.${res.accountId}`, command });
  done(`Account ${res.accountId} is open.`);
});

async function remove(id) {
  const key = newKey();
  const path = `/api/accounts/${segment(id)}`;
  await api("DELETE", path, undefined, { "Idempotency-Key": key });
  remember({ method: "DELETE", path, key, subject: `bank.command.account.delete.${id}`, command: {} });
}

form("form-delete", async (v, done) => {
  const id = need(v, "accountId", "The account");
  await remove(id);
  done(`Account ${id} is deleted.`);
});

onDelete(async (id) => {
  const name = account(id)?.title || id;
  if (!confirm(`Delete the account ${name}? What it holds stays in the books.`)) return;
  show($("accounts-error"), "");
  try {
    await remove(id);
    say(`Account ${name} is deleted.`);
  } catch (e) {
    show($("accounts-error"), explain(e));
    say(`Refused. ${explain(e)}`);
  }
});

form("form-customer", async (v, done) => {
  const body = given({ name: need(v, "name", "The name"), email: need(v, "email", "The e-mail"), phone: v.phone, address: v.address });
  const key = newKey();
  const { body: res } = await api("POST", "/api/customers", body, { "Idempotency-Key": key });
  remember({ method: "POST", path: "/api/customers", body, key, subject: `bank.command.customer.create.${res.customerId}`, command: body });
  done(`Customer ${res.customerId} is created.`);
});
