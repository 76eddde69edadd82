// A drawing of a peer's links: the peer itself in the middle, the others on a ring around it.

const WIDTH = 420; // of the viewBox, in its units, as are all lengths here
const CENTRE = WIDTH / 2;
const RING_X = 72; // half the width of the ring
const RING_Y = 100; // half its height, at least
const MARGIN = 18; // above and below the ring
const STEP = 18; // between two labels, one above the other, at least: more than a line is high
const RADIUS = 12; // of a peer, at most
const OWN_RADIUS = 16;
const GAP = 6; // between a circle and its label
const FONT_SIZE = 14;
const MAX_DRAWN = 200; // peers
const MAX_DOTS = 40; // moving at a time

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Picture {
  #root;
  #places = new Map(); // peer → {x, y}
  #centre = { x: CENTRE, y: 0 };
  #dots = 0;

  constructor(root) {
    this.#root = root;
    root.style.fontSize = `${FONT_SIZE}px`;
  }

  // draw draws a link to each peer, at most to the first 200, and returns their number.
  draw(name, peers) {
    const drawn = peers.slice(0, MAX_DRAWN);
    const { height, step, places } = layOut(drawn.length);
    this.#root.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
    this.#centre.y = height / 2;
    this.#places = new Map(drawn.map((peer, i) => [peer, places[i]]));
    const radius = Math.min(RADIUS, step / 2 - 2);
    const links = drawn.map((peer, i) => line(this.#centre, places[i]));
    const circles = drawn.map((peer, i) => circle(places[i], radius, "peer", peer));
    const labels = drawn.map((peer, i) => this.#label(peer, places[i], radius));
    // Links are behind everything. Text has to be in the document to be measured.
    this.#root.replaceChildren(...links, ...circles, circle(this.#centre, OWN_RADIUS, "self", name));
    const own = text(name, CENTRE, this.#centre.y + OWN_RADIUS + GAP + FONT_SIZE, "middle");
    for (const { element, room } of [...labels, { element: own, room: 2 * (RING_X - RADIUS - 2 * GAP) }]) {
      this.#root.append(element);
      fit(element, room);
    }
    return drawn.length;
  }

  // move animates a message to or from a peer.
  move(peer, incoming) {
    const place = this.#places.get(peer);
    if (!place || still.matches || this.#dots >= MAX_DOTS || document.hidden) return;
    this.#dots++;
    const dot = svg("circle", { r: 5, class: incoming ? "in" : "out" });
    this.#root.append(dot);
    const at = ({ x, y }) => ({ transform: `translate(${x}px, ${y}px)` });
    const way = [at(this.#centre), at(place)];
    dot.animate(incoming ? way.reverse() : way, { duration: 700, easing: "ease-in-out" }).finished.finally(() => {
      dot.remove();
      this.#dots--;
    });
  }

  // label is outside of the ring, level with its circle, where no other label and no link is.
  #label(peer, { x, y }, radius) {
    const right = x > CENTRE;
    const edge = x + (right ? 1 : -1) * (radius + GAP);
    const element = text(peer, edge, y + FONT_SIZE / 3, right ? "start" : "end");
    return { element, room: right ? WIDTH - edge : edge };
  }
}

// layOut places peers on the ring, clockwise. Those of each half are spaced evenly from top to bottom, which keeps
// their labels apart, and the ring is as high as that requires.
function layOut(count) {
  const right = Math.ceil(count / 2);
  const left = count - right;
  const half = Math.max(RING_Y, (right * STEP) / 2);
  const at = (i, rows, side) => {
    const rise = ((i + 0.5) / rows) * 2 - 1; // from -1, the top, to 1
    return { x: CENTRE + side * RING_X * Math.sqrt(1 - rise ** 2), y: MARGIN + half * (1 + rise) };
  };
  const places = Array.from({ length: count }, (_, i) => (i < right ? at(i, right, 1) : at(count - 1 - i, left, -1)));
  return { height: 2 * (MARGIN + half), step: (2 * half) / Math.max(1, right), places };
}

// fit shortens a label to the given width. It omits the middle, because many names differ only at their ends.
function fit(element, room) {
  if (element.getComputedTextLength() <= room) return;
  const characters = [...element.textContent];
  const label = element.firstChild; // the second child is the title
  const show = (kept) => {
    const head = Math.ceil(kept / 2);
    label.data = characters.slice(0, head).join("") + "…" + characters.slice(characters.length - (kept - head)).join("");
  };
  let [fits, wide] = [0, characters.length];
  while (wide - fits > 1) {
    const kept = (fits + wide) >> 1;
    show(kept);
    if (element.getComputedTextLength() <= room) fits = kept;
    else wide = kept;
  }
  show(fits);
}

function svg(tag, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
}

function line(from, to) {
  return svg("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
}

function circle({ x, y }, r, kind, name) {
  return titled(svg("circle", { cx: x, cy: y, r, class: kind }), name);
}

function text(name, x, y, anchor) {
  const e = svg("text", { x, y, "text-anchor": anchor });
  e.append(name);
  return titled(e, name);
}

// titled adds the full name as a tooltip.
function titled(e, name) {
  const title = svg("title", {});
  title.textContent = name;
  e.append(title);
  return e;
}
