// Text for people. What a peer says gets into the page by textContent and setAttribute alone.

// show returns an id without what could disguise it: control characters, marks of direction and such are written out.
export function show(id) {
  return id.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// short keeps both ends: many ids differ only at the last characters.
export function short(id, most) {
  const characters = [...show(id)];
  if (characters.length <= most) return characters.join("");
  const end = Math.max(2, Math.floor(most / 2) - 1);
  return `${characters.slice(0, Math.max(1, most - end - 1)).join("")}…${characters.slice(-end).join("")}`;
}

export function bytes(n) {
  if (!(n >= 0.5)) return "0 B";
  const unit = Math.min(4, Math.floor(Math.log10(Math.max(1, n)) / 3 + 1e-9));
  const value = n / 1000 ** unit;
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

export const rate = (n) => (n >= 0.5 ? `${bytes(n)}/s` : "–");

export function ms(n) {
  if (!(n > 0)) return "–";
  return `${n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : Math.round(n)} ms`;
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// age returns how long ago a time is.
export function age(time, now) {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const clock = (time) => new Date(time).toTimeString().slice(0, 8);

// element makes an HTML element with text or elements in it.
export function element(tag, attributes = {}, ...content) {
  return fill(document.createElement(tag), attributes, content);
}

export function svg(tag, attributes = {}, ...content) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, content);
}

function fill(e, attributes, content) {
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...content.map((c) => (c instanceof Node ? c : String(c))));
  return e;
}

// set changes an attribute or a text only if it is another one, since most are the same from one second to the next.
export function set(e, key, value) {
  if (e.getAttribute(key) !== String(value)) e.setAttribute(key, value);
}

export function write(e, text) {
  if (e.textContent !== text) e.textContent = text;
}
