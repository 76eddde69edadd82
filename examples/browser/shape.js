// What JSON.parse does not tell about an object: keys that come twice, of which it keeps the last, and keys that differ
// from a known one only in case, which other readers take for it. Two readers would see two different values.

// shape says which keys an object of the protocol has, and the shapes of what is in it, by key (in an array: by index).
// check, if given, gets the object's text, and throws if it is not as it should be.
export function shape(names, inside = {}, check = undefined) {
  const alike = new RegExp(`^(?:${names.join("|") || "(?!)"})$`, "iu"); // Unicode's simple case folding
  return { names, inside: new Map(Object.entries(inside)), alike, check };
}

// ambiguous returns the first key in text, which must be JSON, that a reader could take for another one. Objects
// without a shape are the application's own.
export function ambiguous(text, outermost) {
  const open = []; // the objects and arrays that the cursor is in
  let next = outermost; // the shape of the value at the cursor
  let key = false; // at the cursor is a key
  for (let i = 0; i < text.length; i++) {
    const top = open.at(-1);
    switch (text[i]) {
      case '"': {
        const end = endOfString(text, i);
        if (key && top.shape) {
          const name = JSON.parse(text.slice(i, end + 1));
          if (!top.takes(name)) return name;
          next = top.shape.inside.get(name);
        }
        key = false;
        i = end;
        break;
      }
      case "{":
      case "[":
        key = text[i] === "{";
        open.push(new Cursor(key, next, i));
        next = open.at(-1).element;
        break;
      case "}":
      case "]":
        open.pop();
        top.shape?.check?.(text.slice(top.start, i + 1));
        key = false;
        break;
      case ",":
        key = top.object;
        top.index++;
        next = top.element;
    }
  }
  return undefined;
}

// A Cursor is in an object or an array.
class Cursor {
  index = 0;
  #seen = new Set();

  constructor(object, shape, start) {
    this.object = object;
    this.shape = shape;
    this.start = start; // in the text
  }

  // element is the shape of the present element of an array.
  get element() {
    return this.object ? undefined : this.shape?.inside.get(String(this.index));
  }

  // takes reports whether a key of the object is not ambiguous.
  takes(name) {
    const { names, alike } = this.shape;
    if (!names.includes(name)) return !alike.test(name);
    if (this.#seen.has(name)) return false;
    this.#seen.add(name);
    return true;
  }
}

function endOfString(text, i) {
  for (let at = i; ; ) {
    at = text.indexOf('"', at + 1);
    let backslashes = 0;
    while (text[at - 1 - backslashes] === "\\") backslashes++;
    if (backslashes % 2 === 0) return at;
  }
}
