// The page: it takes snapshots from the stream of events, and shows them.

import { chart, SPAN } from "./chart.js";
import { holds, Ring } from "./ring.js";
import { age, bytes, clock, count, element, ms, rate, short, show, write } from "./text.js";

const RETRY = 3000; // ms
const MAX_EVENTS = 60;
const $ = (id) => document.getElementById(id);

let snapshot = null;
let chosen = null; // an id
let held = false; // nothing moves
let sort = { column: 0, down: false };
const past = new Map(); // id → {sent, received, rtt}: lists of [time, value]
const agents = []; // [time, number]

const ring = new Ring($("ring"), choose);
new ResizeObserver(() => snapshot && ring.draw(snapshot, chosen)).observe($("frame"));

// ---- the stream ----

connect();

function connect() {
  const source = new EventSource("events");
  source.addEventListener("history", ({ data }) => takeHistory(JSON.parse(data)));
  source.addEventListener("snapshot", ({ data }) => {
    const next = JSON.parse(data);
    remember(next);
    if (held) return;
    snapshot = next;
    if (!document.hidden) draw();
  });
  source.addEventListener("end", () => {
    source.close();
    state("bad", "this agent has left the mesh");
    setTimeout(connect, RETRY);
  });
  source.addEventListener("error", () => {
    state("bad", "no connection to the agent; trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
  });
}

document.addEventListener("visibilitychange", () => snapshot && !document.hidden && draw());

function takeHistory({ times, nodes }) {
  past.clear();
  agents.length = 0;
  for (const [id, [sent, received, rtt]] of Object.entries(nodes)) {
    const line = (values) => values.flatMap((value, i) => (value === null ? [] : [[times[i], value]]));
    past.set(id, { sent: line(sent), received: line(received), rtt: line(rtt).filter(([, value]) => value > 0) });
  }
}

function remember({ at, nodes }) {
  const now = Date.parse(at);
  const here = nodes.filter(({ gone }) => !gone);
  for (const { id, sent_per_second, received_per_second, rtt_ms } of here) {
    if (!past.has(id)) past.set(id, { sent: [], received: [], rtt: [] });
    const { sent, received, rtt } = past.get(id);
    add(sent, now, sent_per_second);
    add(received, now, received_per_second);
    if (rtt_ms > 0) add(rtt, now, rtt_ms);
  }
  add(agents, now, here.length);
  const known = new Set(nodes.map(({ id }) => id));
  for (const id of past.keys()) if (!known.has(id)) past.delete(id);
}

// add adds a value, in place of one of the same moment, and drops what is old.
function add(list, now, value) {
  if (list.length && list.at(-1)[0] >= now) list.pop();
  list.push([now, value]);
  while (list[0][0] < now - SPAN) list.shift();
}

function state(kind, text) {
  $("state").className = kind;
  write($("state"), text);
}

// ---- choosing ----

function choose(id) {
  chosen = chosen === id ? null : id;
  if (snapshot) draw();
}

$("close").addEventListener("click", () => choose(chosen));
$("hold").addEventListener("click", () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", held);
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && chosen !== null && choose(chosen));

// ---- drawing ----

function draw() {
  const { self, nodes, signaling, signaling_error } = snapshot;
  if (!nodes.some(({ id }) => id === chosen)) chosen = null;
  write($("self"), show(self) || "an agent without an id");
  document.title = `mesh: ${show(self)}`;
  if (signaling === "connected" && !signaling_error) state("good", "connected");
  else state(signaling === "connecting" ? "wait" : "bad", signaling_error ? `${signaling}: ${signaling_error}` : signaling);
  tiles();
  ring.draw(snapshot, chosen);
  side();
  events();
  table();
}

function tiles() {
  const { nodes, links, restarts, dropped = {} } = snapshot;
  const here = nodes.filter(({ gone }) => !gone);
  const traffic = here.reduce((sum, { sent_per_second }) => sum + sent_per_second, 0);
  const queued = here.reduce((sum, { queued = 0 }) => sum + queued, 0);
  const relayed = links.filter(({ path }) => path === "relayed").length;
  const held = links.filter(holds).length;
  const drops = Object.values(dropped).reduce((sum, n) => sum + n, 0);
  const list = [
    [here.length, here.length === 1 ? "agent" : "agents"], [links.length, links.length === 1 ? "link" : "links"], [relayed, "relayed"],
    [rate(traffic), "sent by all"], [ms(median(here.map(({ rtt_ms }) => rtt_ms).filter(Boolean))), "median RTT"],
    [bytes(queued), "in queues"], [held, "held back", held > 0], [drops, "dropped here", drops > 0], [restarts, "restarts here", restarts > 0],
  ];
  $("tiles").replaceChildren(...list.map(([value, name, bad]) => element("li", bad ? { class: "bad" } : {}, element("b", {}, value), name)));
}

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

// side has charts of the mesh, or of the chosen agent with its numbers.
function side() {
  const now = Date.parse(snapshot.at);
  $("close").hidden = chosen === null;
  $("details").hidden = chosen === null;
  if (chosen === null) {
    write($("side-title"), "The last minutes");
    const total = new Map();
    for (const { sent } of past.values()) for (const [t, v] of sent) total.set(t, (total.get(t) ?? 0) + v);
    const traffic = [...total].sort(([a], [b]) => a - b);
    const own = past.get(snapshot.self) ?? { sent: [], received: [] };
    $("charts").replaceChildren(
      chart("All agents", [{ name: "send", kind: "sent", points: traffic }], rate, now, 1000),
      chart("This agent", [{ name: "sends", kind: "sent", points: own.sent }, { name: "receives", kind: "received", points: own.received }], rate, now, 1000),
      chart("Agents", [{ name: "", kind: "rtt", points: agents }], (n) => String(Math.round(n)), now, 2),
    );
    return;
  }
  const node = snapshot.nodes.find(({ id }) => id === chosen);
  $("side-title").replaceChildren(element("bdi", {}, show(chosen)));
  const { sent, received, rtt } = past.get(chosen) ?? { sent: [], received: [], rtt: [] };
  const charts = [chart("Traffic", [{ name: "sends", kind: "sent", points: sent }, { name: "receives", kind: "received", points: received }], rate, now, 1000)];
  if (rtt.length) charts.push(chart("Round trip", [{ name: "", kind: "rtt", points: rtt }], ms, now, 0.1));
  $("charts").replaceChildren(...charts);
  details(node, now);
}

function details(node, now) {
  const links = snapshot.links.filter(({ a, b }) => a === chosen || b === chosen);
  const own = links.find(({ a, b }) => a === snapshot.self || b === snapshot.self);
  const rows = [];
  const row = (name, value) => value && rows.push(element("dt", {}, name), element("dd", {}, value));
  if (node.self) row("is", "this agent");
  else if (node.gone) row("gone", `for ${age(node.gone, now)}`);
  else if (!node.linked) row("link", "not to this agent: others tell of it");
  if (node.since) row("linked", `for ${age(node.since, now)}, since ${clock(node.since)}`);
  if (!node.self && node.linked) row("tells", node.answers ? "of its links" : "nothing of its links: these are the ones that others know");
  row("card", (node.name || node.version) && show([node.name, node.version].filter(Boolean).join(" ")));
  row("skills", node.skills && show(node.skills.join(", ")));
  row("key", node.key && show(node.key));
  if (own && !node.self) {
    const out = own.a === snapshot.self ? own.ab : own.ba;
    const back = own.a === snapshot.self ? own.ba : own.ab;
    row("path", `${own.path || "unknown"}${own.local ? `, ${own.local} → ${own.remote}` : ""}`);
    row("sent to it", `${count(out.messages, "message")}, ${bytes(out.bytes)}`);
    row("from it", `${count(back.messages, "message")}, ${bytes(back.bytes)}`);
    row("requests", `${out.requests ?? 0} to it, ${back.requests ?? 0} from it in work`);
    row("streams", String(own.streams ?? 0));
    row("outages", own.outages && `${own.outages} survived`);
  }
  const scroll = $("details").querySelector(".scroll")?.scrollTop ?? 0;
  const titles = ["Link to", "Path", "RTT", "To it", "From it"];
  const queued = links.some(({ ab, ba }) => ab.queued || ba.queued);
  const holding = links.some(holds);
  if (queued) titles.push("Queued");
  if (holding) titles.push("Held back");
  const list = element("table", {},
    element("thead", {}, element("tr", {}, ...titles.map((t, i) => element("th", i === 1 || titles[i] === "Held back" ? { class: "text" } : {}, t)))),
    element("tbody", {}, ...links.map((link) => {
      const [other, out, back] = link.a === chosen ? [link.b, link.ab, link.ba] : [link.a, link.ba, link.ab];
      return element("tr", {},
        element("td", { title: show(other) }, element("bdi", {}, short(other, 24))),
        element("td", { class: `text ${link.path === "relayed" ? "relayed" : ""}` }, link.path || "–"),
        ...[ms(link.rtt_ms), rate(out.per_second), rate(back.per_second)].map((t) => element("td", {}, t)),
        ...(queued ? [element("td", {}, bytes((out.queued ?? 0) + (back.queued ?? 0)))] : []),
        ...(holding ? [element("td", { class: `text ${holds(link) ? "bad" : ""}` }, heldBack(out, back))] : []));
    })));
  $("details").replaceChildren(element("dl", {}, ...rows), element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Its links" }, list));
  $("details").querySelector(".scroll").scrollTop = scroll;
}

// heldBack says what is held back in the two directions.
function heldBack(out, back) {
  const names = { ordered: "messages", new_work: "requests too", all: "everything" };
  const parts = [];
  for (const [way, { held_back, paused }] of [["to it", out], ["from it", back]]) {
    const what = held_back || paused;
    if (what) parts.push(`${names[what] ?? what} ${way}`);
  }
  return parts.join("; ") || "–";
}

function events() {
  const words = { came: "came", gone: "went", path: "goes another way", outage: "survived an outage", restart: "the sidecar was started again" };
  const list = snapshot.events.filter(({ peer }) => chosen === null || peer === chosen).slice(0, MAX_EVENTS);
  const key = JSON.stringify([list[0]?.at, list.length, chosen]);
  if ($("events").dataset.key === key) return;
  $("events").dataset.key = key;
  $("events").replaceChildren(...list.map(({ at, type, peer, path }) => element("li", { class: type in words ? type : "" },
    element("time", { datetime: at }, clock(at)), element("bdi", {}, peer ? short(peer, 48) : ""), " ", element("b", {}, words[type] ?? type), path ? `, ${path}` : "")));
  if (list.length === 0) $("events").append(element("li", {}, "nobody in the last minutes"));
}

// ---- the table ----

const holdsBack = (n) => (n.behind ? `by ${n.behind}` : "–");
const columns = [
  { title: "Agent", text: true, value: (n) => n.id },
  { title: "Path", text: true, value: (n) => n.path, shown: (n) => n.path || "–", kind: (n) => (n.path === "relayed" ? "relayed" : "") },
  { title: "RTT", value: (n) => n.rtt_ms ?? 0, shown: (n) => ms(n.rtt_ms) },
  { title: "Sends", value: (n) => n.sent_per_second, shown: (n) => rate(n.sent_per_second) },
  { title: "Receives", value: (n) => n.received_per_second, shown: (n) => rate(n.received_per_second) },
  { title: "Queued", value: (n) => n.queued ?? 0, shown: (n) => (n.queued ? bytes(n.queued) : "–") },
  { title: "Held back for it", value: (n) => n.behind ?? 0, shown: holdsBack, kind: (n) => (n.behind ? "bad" : "") },
  { title: "Links", value: (n) => n.links, shown: (n) => n.links },
  { title: "Linked for", value: (n) => -Date.parse(n.since ?? 0), shown: (n, now) => (n.gone ? `gone ${age(n.gone, now)}` : n.since ? age(n.since, now) : "–") },
];

$("agents").tHead.rows[0].append(...columns.map(({ title, text }, i) => {
  const button = element("button", { type: "button" }, title);
  button.addEventListener("click", () => {
    sort = { column: i, down: sort.column === i ? !sort.down : !text };
    if (snapshot) table();
  });
  return element("th", { scope: "col", class: text ? "text" : "" }, button);
}));

const rows = new Map(); // id → row

function table() {
  const { nodes, links, self, left_out } = snapshot;
  const now = Date.parse(snapshot.at);
  const paths = new Map();
  for (const { a, b, path } of links) {
    if (a === self) paths.set(b, path);
    if (b === self) paths.set(a, path);
  }
  const { value } = columns[sort.column];
  const list = nodes.map((n) => ({ ...n, path: n.self ? "this agent" : paths.get(n.id) ?? "" })).sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1) || (a.id < b.id ? -1 : 1);
  });
  [...$("agents").tHead.rows[0].cells].forEach((cell, i) => {
    if (i === sort.column) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
  const body = $("agents").tBodies[0];
  list.forEach((node, i) => {
    let row = rows.get(node.id);
    if (!row) {
      row = element("tr", {}, ...columns.map(({ text }) => element("td", { class: text ? "text" : "" })));
      const button = element("button", { type: "button", title: show(node.id) }, element("bdi", {}, short(node.id, 40)));
      button.addEventListener("click", () => choose(node.id));
      row.cells[0].append(button);
      rows.set(node.id, row);
    }
    row.className = [node.id === chosen && "chosen", node.gone && "gone"].filter(Boolean).join(" ");
    row.cells[0].firstChild.setAttribute("aria-pressed", node.id === chosen);
    columns.forEach(({ shown, kind, text }, j) => {
      if (j === 0) return;
      write(row.cells[j], String(shown(node, now)));
      row.cells[j].className = `${text ? "text" : ""} ${kind?.(node) ?? ""}`;
    });
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null); // moving one takes the focus from it, so only if needed
  });
  const known = new Set(nodes.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (known.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  write($("note"), left_out ? `${left_out} agents and links are left out, since there are so many.` : "");
}
