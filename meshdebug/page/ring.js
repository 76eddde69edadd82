// The drawing: the agents in a ring, this one at the top, and a line for each link.

import { age, ms, rate, set, short, show, svg, write } from "./text.js";

const FRESH = 15_000; // ms for which an agent has just come
const MANY = 14; // agents, from which on the labels stand on the ring
const NARROW = 560; // pixels, below which they do so with fewer agents
const FEW = 5; // agents, up to which every link has its round trip time
const MAX_TIMES = 16; // of them at a time
const SMALL = 120; // pixels: the radius of a ring that has no room for them
const BUSY = 3000; // bytes per second, from which on a link is not idle: questions for numbers, and answers, are fewer
const MAX_WIDTH = 7; // of a line
const LETTER = 0.56; // of the font size is about the width of a letter

export class Ring {
  #root;
  #layers; // of lines: the idle ones below, those that hold something back above
  #times;
  #nodes;
  #lines = new Map(); // a, b → path
  #dots = new Map(); // id → group
  #places = new Map();
  #choose;
  #active = null; // the id that Tab leads to

  constructor(root, choose) {
    this.#root = root;
    this.#choose = choose;
    this.#layers = [0, 1, 2].map(() => root.appendChild(svg("g", { "aria-hidden": "true" })));
    this.#nodes = root.appendChild(svg("g"));
    this.#times = root.appendChild(svg("g", { "aria-hidden": "true" }));
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  // draw draws a snapshot.
  draw(snapshot, chosen) {
    const { nodes, links } = snapshot;
    const box = this.#root.getBoundingClientRect();
    const width = Math.max(200, box.width);
    const height = Math.max(200, box.height);
    set(this.#root, "viewBox", `${-width / 2} ${-height / 2} ${width} ${height}`);
    const many = nodes.length > (width < NARROW ? FEW : MANY);
    this.#root.classList.toggle("many", many);
    this.#layOut(nodes, width, height, many);
    if (!this.#places.has(this.#active)) this.#active = snapshot.self;

    const near = new Set([chosen]);
    const seen = new Set();
    for (const link of links) {
      const key = JSON.stringify([link.a, link.b]);
      seen.add(key);
      if (link.a === chosen) near.add(link.b);
      if (link.b === chosen) near.add(link.a);
      this.#line(key, link, nodes.length, chosen);
    }
    prune(this.#lines, seen);
    this.#root.classList.toggle("chosen", near.size > 1);
    const radius = many ? Math.max(3.5, Math.min(7, 200 / nodes.length)) : 10;
    for (const node of nodes) this.#dot(node, snapshot, radius, chosen, near);
    prune(this.#dots, new Set(nodes.map(({ id }) => id)));
    this.#roundTrips(links, nodes.length, chosen);
  }

  #layOut(nodes, width, height, many) {
    const letter = (many ? this.#fontSize(nodes.length, width) : 12) * LETTER;
    const longest = Math.max(...nodes.map(({ id }) => [...show(id)].length)) * letter + 20;
    let rx, ry, room;
    if (many) {
      room = Math.min(longest, Math.min(width, height) * (nodes.length > 20 ? 0.21 : 0.28));
      rx = ry = Math.min(width, height) / 2 - room - 6;
    } else {
      room = Math.min(longest, width * 0.27);
      rx = Math.min(width / 2 - room - 12, height * 0.62);
      ry = Math.min(height / 2 - 34, rx * 1.15);
    }
    this.#places.clear();
    nodes.forEach(({ id }, i) => {
      const angle = (2 * Math.PI * i) / nodes.length - Math.PI / 2;
      this.#places.set(id, { x: rx * Math.cos(angle), y: ry * Math.sin(angle), angle, letters: Math.max(3, Math.floor((room - 16) / letter)) });
    });
    const ys = [...this.#places.values()].map(({ y }) => y);
    const shift = (Math.max(...ys) + Math.min(...ys)) / 2; // a triangle is not in the middle of its circle
    for (const place of this.#places.values()) place.y -= shift;
  }

  #fontSize(count, width) {
    return Math.max(8, Math.min(12, (width * 1.25) / count));
  }

  #line(key, link, count, chosen) {
    let path = this.#lines.get(key);
    if (!path) {
      path = svg("path");
      this.#lines.set(key, path);
    }
    const a = this.#places.get(link.a);
    const b = this.#places.get(link.b);
    const bend = bent(count);
    const x = ((a.x + b.x) / 2) * bend;
    const y = ((a.y + b.y) / 2) * bend;
    set(path, "d", `M${a.x.toFixed(1)} ${a.y.toFixed(1)}Q${x.toFixed(1)} ${y.toFixed(1)} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`);
    const flow = link.ab.per_second + link.ba.per_second;
    const busy = flow >= BUSY;
    const most = count > MANY ? MAX_WIDTH / 2 : MAX_WIDTH;
    const strength = Math.min(1, Math.log10(Math.max(1, flow / BUSY)) / 4); // 10 MB/s is the most
    const layer = this.#layers[holds(link) ? 2 : busy ? 1 : 0];
    if (path.parentNode !== layer) layer.append(path);
    path.style.strokeWidth = busy ? (1.2 + strength * most).toFixed(1) : "";
    set(path, "class", [
      busy && "busy", link.path === "relayed" && "relayed", link.path === "local" && "local", holds(link) && "held", (link.a === chosen || link.b === chosen) && "of",
    ].filter(Boolean).join(" "));
  }

  #dot(node, snapshot, radius, chosen, near) {
    let dot = this.#dots.get(node.id);
    if (!dot) {
      dot = svg("g", { role: "button" }, svg("circle", { class: "halo" }), svg("circle", { class: "body" }), svg("text"), svg("title"));
      dot.dataset.id = node.id;
      dot.addEventListener("click", () => this.#choose(node.id));
      dot.addEventListener("focus", () => this.#activate(node.id));
      this.#dots.set(node.id, dot);
    }
    if (this.#nodes.children[[...this.#places.keys()].indexOf(node.id)] !== dot && document.activeElement !== dot) this.#nodes.append(dot);
    const [halo, body, label, title] = dot.children;
    const { x, y, angle, letters } = this.#places.get(node.id);
    set(dot, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    set(body, "r", radius);
    set(halo, "r", radius + 4);
    const now = Date.parse(snapshot.at);
    set(dot, "class", [
      "node", node.self && "self", node.answers && "tells", node.gone && "gone", !node.self && !node.linked && !node.gone && "hearsay",
      node.since && now - Date.parse(node.since) < FRESH && "fresh", node.behind && "behind", chosen && !near.has(node.id) && "far",
    ].filter(Boolean).join(" "));
    set(dot, "tabindex", node.id === this.#active ? 0 : -1);
    set(dot, "aria-pressed", node.id === chosen);
    const about = describe(node, now);
    set(dot, "aria-label", about);
    write(title, about);
    write(label, short(node.id, letters));
    this.#place(label, angle, radius + 8);
  }

  // place puts a label outside of the ring.
  #place(label, angle, gap) {
    const right = Math.cos(angle) > 0.05;
    const left = Math.cos(angle) < -0.05;
    if (this.#root.classList.contains("many")) {
      const turn = (angle * 180) / Math.PI + (left ? 180 : 0);
      label.style.fontSize = `${this.#fontSize(this.#places.size, this.#root.getBoundingClientRect().width)}px`;
      set(label, "transform", `rotate(${turn.toFixed(1)})`);
      set(label, "x", left ? -gap : gap);
      set(label, "y", 0);
      set(label, "dominant-baseline", "central");
      set(label, "text-anchor", left ? "end" : "start");
      return;
    }
    label.style.fontSize = "";
    label.removeAttribute("transform");
    const middle = !right && !left;
    set(label, "x", middle ? 0 : right ? gap : -gap);
    set(label, "y", middle ? (Math.sin(angle) < 0 ? -gap - 4 : gap + 12) : 0);
    set(label, "dominant-baseline", middle ? "auto" : "central");
    set(label, "text-anchor", middle ? "middle" : right ? "start" : "end");
  }

  // roundTrips writes them on the links: on all of them if there are few, else on those of the chosen agent.
  #roundTrips(links, count, chosen) {
    const most = Math.abs(this.#places.values().next().value.y) < SMALL ? 0 : MAX_TIMES;
    const shown = links.filter(({ a, b, rtt_ms }) => rtt_ms > 0 && (chosen ? a === chosen || b === chosen : count <= FEW));
    const bend = bent(count);
    const texts = shown.length > most ? [] : shown.map((link) => {
      const [from, to] = link.b === chosen ? [link.b, link.a] : [link.a, link.b];
      const a = this.#places.get(from);
      const b = this.#places.get(to);
      const t = chosen ? 0.72 : 0.5; // near the other end, where the lines are apart
      const at = (k) => (1 - t) ** 2 * a[k] + 2 * t * (1 - t) * ((a[k] + b[k]) / 2) * bend + t ** 2 * b[k];
      return svg("text", { class: "rtt", x: at("x").toFixed(1), y: (at("y") + 4).toFixed(1) }, ms(link.rtt_ms));
    });
    this.#times.replaceChildren(...texts);
  }

  #activate(id) {
    this.#dots.get(this.#active)?.setAttribute("tabindex", -1);
    this.#active = id;
    this.#dots.get(id)?.setAttribute("tabindex", 0);
  }

  #key(event) {
    const id = event.target.dataset?.id;
    if (id === undefined) return;
    const ids = [...this.#places.keys()];
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    let to;
    if (step) to = ids[(ids.indexOf(id) + step + ids.length) % ids.length];
    else if (event.key === "Home") to = ids[0];
    else if (event.key === "End") to = ids.at(-1);
    else if (event.key === "Enter" || event.key === " ") this.#choose(id);
    else return;
    event.preventDefault();
    if (to !== undefined) this.#dots.get(to)?.focus();
  }
}

// bent is how far lines bend towards the middle, so that those along the ring do not hide each other; 1 is not at all.
const bent = (count) => (count > MANY ? 0.45 : count > 6 ? 0.7 : 1);

export const holds = ({ ab, ba }) => Boolean(ab.held_back || ab.paused || ba.held_back || ba.paused);

// describe says what the drawing says of an agent.
function describe(node, now) {
  const parts = [show(node.id)];
  if (node.self) parts.push("this agent");
  else if (node.gone) parts.push(`gone ${age(node.gone, now)} ago`);
  else if (!node.linked) parts.push("not linked to this agent");
  else parts.push(`linked for ${age(node.since, now)}`, node.answers ? "tells of its links" : "does not tell of its links");
  if (node.rtt_ms) parts.push(`round trip ${ms(node.rtt_ms)}`);
  if (!node.gone) parts.push(`sends ${rate(node.sent_per_second)}`, `receives ${rate(node.received_per_second)}`);
  if (node.behind) parts.push(`behind, so that ${node.behind} hold something back for it`);
  return parts.join(", ");
}

function prune(elements, keep) {
  for (const [key, e] of elements) {
    if (keep.has(key)) continue;
    e.remove();
    elements.delete(key);
  }
}
