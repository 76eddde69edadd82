// Small charts of the last minutes.

import { element, svg } from "./text.js";

export const SPAN = 300_000; // ms

// chart returns a figure. A series has a name, a class and points [time, value]; format makes a value text.
export function chart(title, series, format, now, least = 0) {
  const values = series.flatMap(({ points }) => points.map(([, value]) => value));
  const top = Math.max(least, ...values);
  const lines = series.flatMap(({ kind, points }) =>
    pieces(points).map((piece) => svg("polyline", { class: kind, points: piece.map(([t, v]) => `${(300 - (now - t) / 1000).toFixed(1)},${(58 - (top ? v / top : 0) * 54).toFixed(1)}`).join(" ") })));
  const last = series.map(({ name, kind, points }) => {
    const value = points.at(-1)?.[1];
    return element("span", { class: kind }, `${name} ${value === undefined ? "–" : format(value)}`);
  });
  const most = `most ${top ? format(top) : "–"}`;
  const picture = svg("svg", { viewBox: "0 0 300 60", preserveAspectRatio: "none", role: "img" }, ...lines);
  picture.setAttribute("aria-label", `${title}, the last 5 minutes: ${last.map((e) => e.textContent).join(", ")}, ${most}`);
  return element("figure", {}, element("figcaption", {}, element("span", {}, title), ...last, element("span", {}, most)), picture);
}

// pieces cuts points where some are missing.
function pieces(points) {
  const all = [];
  let before = -Infinity;
  for (const p of points) {
    if (p[0] - before > 10_000) all.push([]);
    all.at(-1).push(p);
    before = p[0];
  }
  return all.map((piece) => (piece.length === 1 ? [piece[0], [piece[0][0] + 500, piece[0][1]]] : piece));
}
