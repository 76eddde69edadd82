// Small charts of the last minutes.

import { element, svg } from "./text.js";

export const SPAN = 300_000; // ms

// span is the time that a chart shows: all that there is, within bounds.
const span = (series, now) => Math.min(SPAN, Math.max(60_000, now - Math.min(now, ...series.flatMap(({ points }) => (points.length ? [points[0][0]] : [])))));

// chart returns a figure. A series has a name, a class and points [time, value]; format makes a value text.
export function chart(title, series, format, now, least = 0) {
  const values = series.flatMap(({ points }) => points.map(([, value]) => value));
  const scale = 300 / span(series, now);
  const top = Math.max(least, ...values);
  const lines = series.flatMap(({ kind, points }) =>
    pieces(points).map((piece) => svg("polyline", { class: kind, points: piece.map(([t, v]) => `${(300 - (now - t) * scale).toFixed(1)},${(58 - (top ? v / top : 0) * 54).toFixed(1)}`).join(" ") })));
  const last = series.map(({ name, kind, points }) => {
    const value = points.at(-1)?.[1];
    return element("span", { class: kind }, `${name} ${value === undefined ? "–" : format(value)}`);
  });
  const length = 300 / scale / 1000;
  const most = `${length > 100 ? `${Math.round(length / 60)} min` : `${Math.round(length)} s`}, ${format(top)} at the top`;
  const picture = svg("svg", { viewBox: "0 0 300 60", preserveAspectRatio: "none", role: "img" }, ...lines);
  picture.setAttribute("aria-label", `${title}: ${last.map((e) => e.textContent).join(", ")}, ${most}`);
  return element("figure", {}, element("figcaption", {}, element("span", {}, title), ...last), picture, element("span", { class: "most", "aria-hidden": "true" }, most));
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
