// One link to one peer: lines over a data channel, with flow control.
// The format is "Peer link" of docs/protocol.md.

import { MeshError } from "./errors.js";
import { checkForm, checkIdentity, refusal } from "./identity.js";
import { ambiguous, shape } from "./shape.js";

export const MAX_MESSAGE = 16 << 20; // bytes of one message
const MAX_DEPTH = 512; // nesting of one message, its own object being the first level
const MAX_CARD = 16 << 10; // bytes of a card
const MAX_CARD_DEPTH = 16;
const BASE_MAX_MESSAGE = 65535; // bytes of one message of base framing
const BASE_MAX_DEPTH = 127; // what a base peer's parser reads
const MAX_HELLO = 64 << 10; // bytes of the first line, since nothing is known of the peer before it
const SLICE_SIZE = 16 << 10; // bytes of one data channel message of stream framing
const BUFFERED_HIGH = 1 << 20; // bytes the browser may have waiting before we wait
const BUFFERED_LOW = 256 << 10;
const MAX_QUEUE = 32 << 20; // bytes waiting for the browser before send() fails
const MAX_PAUSED = 1000; // messages waiting for the end of a pause
const ENTRY_COST = 100; // bytes that a queued line costs besides its own
const BUFFER_MIN = 64 << 10; // bytes for the beginning of a line whose end has not come
const BUFFER_KEPT = 1 << 20; // bytes kept of it for the next line
const MAX_TIMER = 2 ** 31 - 1; // ms
const NEWLINE = 10;
const NOTHING = new Uint8Array(0);
const MARK = [0xef, 0xbb, 0xbf]; // a byte order mark, which may begin a stream
const BLANK = [0x20, 0x09, 0x0d]; // of which a line is blank

const MESSAGE = shape(["type", "request_id", "source_agent", "target_agent", "payload"]);
const MEMBER = shape(["mesh", "peer_id", "key", "not_after", "sig"]);
const IDENTITY = shape(["mesh", "key", "sig", "member"], { member: MEMBER });
const CARD = shape([], {}, checkCardText);
const HELLO = shape(["protocol", "max_message", "max_streams", "lanes", "identity", "card", "local"], { identity: IDENTITY, card: CARD });
const PAUSE = shape(["ordered"]);
const CONTROLS = new Map([
  ["hello", shape([], { 1: HELLO })],
  ["member", shape([], { 1: MEMBER })],
  ["pause", shape([], { 1: PAUSE })],
  ["card", shape([], { 1: CARD })],
  ["local", shape([], { 1: shape(["socket", "ticket", "secret", "streams"]) })], // between processes of one host, which a page has no part in
]);

const encoder = new TextEncoder();
// fatal: invalid UTF-8 is an error instead of being replaced. ignoreBOM: a byte order mark stays, and is no JSON.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// A Link is made as soon as its data channel may deliver something, and sends nothing before open(). It is usable
// from the call of "up" to that of "down". Until the peer is verified nothing but our hello is sent, and nothing of the
// peer's is delivered. trust does what identity.js says, for this very link:
//   show()                      our identity, or undefined
//   verify(identity)            a proof of the peer's, or undefined; throws a MeshError
//   renew(proof, statement)     a newer proof
// It calls:
//   ownCard()                   for what the peer is to be told of us: an object, or null
//   up(), down(error)           at most once each; down also without up
//   message(object, bytes)      a message came
//   cancel(requestID)           the peer gave up one of its requests
//   card(card)                  the peer says something else about itself now, or nothing: null
//   rejected(error)             a line was dropped
export class Link {
  #channel;
  #stream; // stream framing, otherwise base framing
  #trust;
  #events;
  #maxSend;
  #open = false; // the channel takes data
  #greeted = false; // up was called
  #closed = false;
  #hello; // settled once our hello is queued
  #told = null; // our card, as the peer knows it
  #held; // while the peer is verified: lines that came, as [bytes, error]
  #heldBytes = 0;
  #renewing = false;
  #expiry;
  #paused = false; // by the peer
  #pausing = false; // by us
  #queue = new Queue();
  #passing = new Queue(); // what a pause does not hold up, while there is one
  #pumping = false;
  #slice = new Uint8Array(SLICE_SIZE);
  #lines = new LineSplitter((line, error) => this.#receive(line, error));

  proof = { key: "" }; // what the peer has shown of itself: {key, mesh, until}, see identity.js
  card = null; // what the peer says about itself, an object, whatever that is worth: see readCard

  constructor(channel, stream, maxSend, trust, events) {
    this.#channel = channel;
    this.#stream = stream;
    this.#trust = trust;
    this.#events = events;
    this.#maxSend = stream ? MAX_MESSAGE : Math.min(BASE_MAX_MESSAGE, maxSend);
    channel.binaryType = "arraybuffer";
    channel.bufferedAmountLowThreshold = BUFFERED_LOW;
    channel.onbufferedamountlow = () => this.#pump();
    channel.onmessage = (event) => this.#data(event.data);
    channel.onopen = () => this.#pump(); // again, in Chromium: see Session
    channel.onclose = () => this.close(new MeshError("peer_lost", "the peer closed the link"));
    if (!stream) return;
    this.#lines.max = MAX_HELLO;
    this.#hello = this.#greet();
    this.#hello.catch(() => {}); // awaited by #admit, but perhaps not yet
  }

  // open says that the channel takes data from now on. Data that arrives says so, too.
  open() {
    if (this.#open) return;
    this.#open = true;
    if (!this.#stream) this.#admit(); // base framing has no hello
    this.#pump();
  }

  get live() {
    return this.#greeted && !this.#closed;
  }

  // send resolves once the browser has taken the message. While the peer has paused us, only replies go out. The
  // signal takes back a message that was not begun yet.
  async send(message, { reply = false, signal } = {}) {
    const line = encode(message, this.#maxSend, this.#stream ? MAX_DEPTH : BASE_MAX_DEPTH);
    if (!this.live) throw new MeshError("peer_lost", "the link has ended");
    signal?.throwIfAborted();
    const waiting = this.#waiting;
    if ((waiting > 0 && waiting + line.length > MAX_QUEUE) || (this.#paused && !reply && this.#queue.length >= MAX_PAUSED)) {
      throw new MeshError("queue_full", `${this.#queue.length} messages, ${waiting} bytes, are waiting to be sent already`);
    }
    const entry = { line, sent: 0, passes: reply };
    const written = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    const abort = () => this.#takeBack(entry, signal.reason);
    signal?.addEventListener("abort", abort);
    this.#enqueue(entry);
    try {
      await written;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  cancel(requestID) {
    this.#control("cancel", requestID);
  }

  // pause asks the peer to hold its messages, except for replies, or to resume.
  pause(on) {
    if (on === this.#pausing) return;
    this.#pausing = on;
    this.#control(on ? "pause" : "resume");
  }

  // drained resolves once everything has been sent, or the link has ended.
  async drained() {
    while (this.live && (this.#next() || this.#queue.length > 0 || this.#channel.bufferedAmount > 0)) {
      await new Promise((resolve) => setTimeout(resolve, 10)); // no event announces that the buffer is empty
    }
  }

  close(error) {
    if (this.#closed) return;
    this.abandon(error);
    this.#channel.close();
    this.#events.down(error);
  }

  // abandon ends the link but not the data channel.
  abandon(error) {
    this.#closed = true;
    this.#held = undefined;
    clearTimeout(this.#expiry);
    for (const entry of [...this.#passing.clear(), ...this.#queue.clear()]) entry.reject(error);
  }

  // renew shows the peer a newer statement about us.
  renew(statement) {
    this.#control("member", statement);
  }

  // tellCard tells the peer of our card, if it knows another one.
  tellCard() {
    const card = this.#events.ownCard();
    if (!this.live || card === this.#told) return;
    this.#told = card;
    this.#control("card", card);
  }

  async #greet() {
    const identity = await this.#trust.show();
    this.#told = this.#events.ownCard();
    this.#control("hello", { protocol: 1, max_message: MAX_MESSAGE, identity, card: this.#told ?? undefined });
  }

  // admit announces the link once the peer is verified by what it has shown. What else comes meanwhile waits.
  async #admit(identity) {
    this.#held = [];
    try {
      await this.#hello;
      this.proof = await this.#trust.verify(identity);
    } catch (error) {
      return this.close(error instanceof MeshError ? error : new MeshError("internal", `cannot check who the peer is: ${error.message}`));
    }
    if (this.#closed) return;
    const held = this.#held;
    this.#held = undefined;
    this.#greeted = true;
    this.#watch();
    this.tellCard(); // it may have changed since our hello, behind which nothing else was sent
    this.#events.up();
    for (const line of held) this.#receive(...line);
  }

  #hold(bytes, error) {
    this.#heldBytes += (bytes?.length ?? 0) + ENTRY_COST;
    if (this.#heldBytes > MAX_QUEUE) return this.close(new MeshError("queue_full", "the peer sends too much before it is verified"));
    this.#held.push([bytes?.slice(), error]);
  }

  // watch ends the link when the proof ends.
  #watch() {
    clearTimeout(this.#expiry);
    if (this.proof.until === undefined || this.#closed) return;
    const left = this.proof.until - Date.now();
    if (left <= 0) return this.close(refusal("its membership has expired"));
    this.#expiry = setTimeout(() => this.#watch(), Math.min(left, MAX_TIMER));
  }

  // renewed handles a newer statement of the peer's, one at a time.
  async #renewed(statement) {
    if (this.#renewing) return;
    this.#renewing = true;
    try {
      this.proof = await this.#trust.renew(this.proof, statement);
      this.#watch();
    } catch (error) {
      this.#events.rejected(error);
    } finally {
      this.#renewing = false;
    }
  }

  #control(...line) {
    if (!this.#stream || this.#closed) return;
    this.#enqueue({ line: encoder.encode(JSON.stringify(line) + "\n"), sent: 0, passes: true, resolve() {}, reject() {} });
  }

  #enqueue(entry) {
    (entry.passes && this.#paused ? this.#passing : this.#queue).push(entry);
    if (this.#pumping) return;
    this.#pumping = true; // messages sent in one turn share slices
    queueMicrotask(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  #takeBack(entry, reason) {
    if (entry.sent > 0 || entry.taken) return;
    entry.taken = true; // it stays in the queue, and is skipped
    entry.reject(reason);
  }

  #pump() {
    if (!this.#open) return;
    const dc = this.#channel;
    try {
      while (dc.readyState === "open" && dc.bufferedAmount < BUFFERED_HIGH) {
        if (!(this.#stream ? this.#sendSlice() : this.#sendText())) return;
      }
    } catch (error) {
      this.close(new MeshError("peer_lost", `the data channel failed: ${error.message}`));
    }
  }

  get #waiting() {
    return this.#queue.bytes + this.#passing.bytes;
  }

  // next is the queue whose first entry goes out next, if any. A line that was begun comes first.
  #next() {
    for (const queue of [this.#queue, this.#passing]) queue.skipTaken();
    const begun = this.#queue.first?.sent > 0;
    if (this.#passing.length > 0 && !begun) return this.#passing;
    return this.#queue.length > 0 && (begun || !this.#paused) ? this.#queue : undefined;
  }

  #sendSlice() {
    let size = 0;
    const done = [];
    for (let queue; size < SLICE_SIZE && (queue = this.#next()); ) {
      const entry = queue.first;
      const part = entry.line.subarray(entry.sent, entry.sent + SLICE_SIZE - size);
      this.#slice.set(part, size);
      size += part.length;
      entry.sent += part.length;
      if (entry.sent === entry.line.length) done.push(queue.shift());
    }
    if (size > 0) this.#channel.send(this.#slice.subarray(0, size));
    for (const entry of done) entry.resolve();
    return size > 0;
  }

  #sendText() {
    const queue = this.#next();
    if (!queue) return false;
    const entry = queue.shift();
    this.#channel.send(decoder.decode(entry.line.subarray(0, -1))); // without the newline
    entry.resolve();
    return true;
  }

  #setPaused(on) {
    if (on === this.#paused) return;
    this.#paused = on;
    if (on) this.#queue.movePassing(this.#passing);
    else this.#pump(); // #passing goes first, as always
  }

  #data(data) {
    if (this.#closed) return;
    this.open();
    const bytes = typeof data === "string" ? encoder.encode(data) : new Uint8Array(data);
    if (this.#stream) return this.#lines.add(bytes);
    this.#receive(bytes);
  }

  #receive(bytes, error) {
    if (this.#closed) return;
    if (this.#held) return this.#hold(bytes, error);
    let value;
    try {
      if (error) throw error;
      value = parse(bytes);
    } catch (error) {
      if (this.#stream && !this.#greeted) this.#violation(error.message);
      else this.#events.rejected(error);
      return;
    }
    if (this.#stream && !this.#greeted) this.#greeting(value);
    else if (Array.isArray(value)) this.#controlled(value);
    else this.#events.message(value, bytes.length);
  }

  #greeting(value) {
    if (!Array.isArray(value) || value[0] !== "hello") return this.#violation("another line");
    const { max_message: max, identity, card } = value[1];
    if (max > 0) this.#maxSend = Math.min(this.#maxSend, max);
    this.#lines.max = MAX_MESSAGE;
    this.card = readCard(card);
    this.#admit(identity);
  }

  #violation(what) {
    const error = new MeshError("malformed", `the first line is no valid hello: ${what}`);
    error.final = true; // trying again would not help
    this.close(error);
  }

  #controlled([kind, argument]) {
    if (!this.#stream) return this.#events.rejected(new MeshError("malformed", "not an object"));
    if (kind === "pause" || kind === "resume") this.#setPaused(kind === "pause");
    if (kind === "cancel") this.#events.cancel(argument);
    if (kind === "drain") this.#drain(argument);
    if (kind === "member") this.#renewed(argument);
    if (kind === "card") this.#events.card((this.card = readCard(argument)));
  }

  // drain responds at once, because lines are handled one by one. A peer that goes on asking without reading the
  // responses gets no more of them.
  #drain(n) {
    if (this.#waiting < MAX_QUEUE) return this.#control("drained", n);
    const error = new MeshError("queue_full", `no response to drain ${n}: ${this.#waiting} bytes are waiting to be sent`);
    this.#events.rejected(error);
  }
}

// Queue is a first-in, first-out queue that counts bytes. An array's own shift would move all elements.
class Queue {
  #entries = [];
  #head = 0;
  bytes = 0;

  get length() {
    return this.#entries.length - this.#head;
  }
  get first() {
    return this.#entries[this.#head];
  }
  push(entry) {
    this.bytes += entry.line.length + ENTRY_COST;
    this.#entries.push(entry);
  }
  shift() {
    const entry = this.#entries[this.#head];
    this.#entries[this.#head++] = undefined;
    this.bytes -= entry.line.length + ENTRY_COST;
    if (this.#head > 1000 && this.#head > this.#entries.length / 2) {
      this.#entries.splice(0, this.#head);
      this.#head = 0;
    }
    return entry;
  }
  skipTaken() {
    while (this.first?.taken) this.shift();
  }
  clear() {
    const entries = this.#entries.slice(this.#head);
    this.#entries = [];
    this.#head = this.bytes = 0;
    return entries;
  }
  // movePassing moves the entries that a pause does not hold up, except for a line that was begun.
  movePassing(to) {
    for (const entry of this.clear()) (entry.passes && entry.sent === 0 ? to : this).push(entry);
  }
}

// LineSplitter cuts a stream of bytes into lines, and reports a line that is too long without keeping it.
// A line is valid only until the callback returns. Blank lines are skipped, and a byte order mark at the beginning.
export class LineSplitter {
  max = MAX_MESSAGE; // bytes of a line
  #begun = false;
  #buffer = NOTHING;
  #length = 0; // of the line so far, which #buffer holds unless it is too long
  #line;

  constructor(line) {
    this.#line = line;
  }

  add(bytes) {
    for (let end; (end = bytes.indexOf(NEWLINE)) >= 0; bytes = bytes.subarray(end + 1)) {
      this.#end(bytes.subarray(0, end));
    }
    this.#keep(bytes);
  }

  #end(rest) {
    if (this.#length > 0) this.#keep(rest);
    const length = this.#length || rest.length;
    let line = this.#length > 0 ? this.#buffer.subarray(0, length) : rest;
    if (!this.#begun && MARK.every((byte, i) => line[i] === byte)) line = line.subarray(MARK.length);
    this.#begun = true;
    this.#length = 0;
    if (this.#buffer.length > BUFFER_KEPT) this.#buffer = NOTHING;
    if (length > this.max) this.#line(undefined, new MeshError("too_large", `a line of ${length} bytes`));
    else if (!line.every((byte) => BLANK.includes(byte))) this.#line(line);
  }

  #keep(bytes) {
    const at = this.#length;
    this.#length += bytes.length;
    if (this.#length > this.max) this.#buffer = NOTHING;
    else if (bytes.length > 0) {
      if (this.#length > this.#buffer.length) this.#grow();
      this.#buffer.set(bytes, at);
    }
  }

  #grow() {
    const larger = new Uint8Array(Math.min(this.max, Math.max(BUFFER_MIN, 2 * this.#buffer.length, this.#length)));
    larger.set(this.#buffer);
    this.#buffer = larger;
  }
}

// encode turns a message of ours into a line. A mistake in it fails here instead of at the peer.
function encode(message, limit, depth) {
  checkMessage(message);
  const bytes = encoder.encode(JSON.stringify(message) + "\n");
  if (bytes.length - 1 > limit) {
    throw new MeshError("too_large", `a message of ${bytes.length - 1} bytes; the peer takes ${limit}`);
  }
  checkDepth(bytes, depth);
  return bytes;
}

// parse returns the message or control line that a line is. It throws a MeshError if it is neither.
export function parse(bytes) {
  const control = bytes[bytes.findIndex((byte) => !BLANK.includes(byte))] === 0x5b; // [
  checkDepth(bytes, control ? MAX_DEPTH + 4 : MAX_DEPTH);
  let text, value;
  try {
    text = decoder.decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    throw new MeshError("malformed", `not JSON in UTF-8: ${error.message}`);
  }
  const key = ambiguous(text, control ? CONTROLS.get(value[0]) : MESSAGE);
  if (key !== undefined) throw new MeshError("invalid_field", `the key ${key} comes twice, or in another case`);
  if (Array.isArray(value)) checkControl(value);
  else checkMessage(value);
  return value;
}

// checkControl checks what it knows. Unknown control lines and additional elements belong to later versions.
function checkControl([kind, argument]) {
  const check = (holds, what) => {
    if (!holds) throw new MeshError("invalid_field", what);
  };
  check(typeof kind === "string", "a control line does not begin with a string");
  if (kind === "cancel") check(typeof argument === "string" && argument !== "", "cancel has no request id");
  if (kind === "drain" || kind === "drained") {
    check(Number.isSafeInteger(argument) && argument >= 0, `${kind} has no number`);
  }
  const flag = (key) => check(typeof (argument?.[key] ?? false) === "boolean", `${key} of ${kind} is not true or false`);
  if (kind === "pause") flag("ordered");
  if (kind === "member") checkForm(argument);
  if (kind === "card") check(argument === null || isObject(argument), "card has neither an object nor null");
  const text = (key) => check(typeof (argument?.[key] ?? "") === "string", `${key} of ${kind} is not a string`);
  if (kind === "local") {
    check(argument === null || isObject(argument), "local has neither an object nor null");
    for (const key of ["socket", "ticket", "secret"]) text(key);
    flag("streams");
  }
  if (kind !== "hello") return;
  check(isObject(argument), "hello has no object");
  for (const key of ["protocol", "max_message", "max_streams"]) {
    const n = argument[key] ?? 0;
    check(Number.isInteger(n) && n >= 0, `${key} of hello is not an integer of 0 or more`);
  }
  flag("lanes");
  text("local");
  if (argument.identity !== undefined) checkIdentity(argument.identity);
  check(isCard(argument.card), "card of hello is not an object");
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCard(value) {
  return value == null || isObject(value);
}

function checkCardText(text) {
  const bytes = encoder.encode(text);
  if (bytes.length > MAX_CARD) throw new MeshError("too_large", `a card of ${bytes.length} bytes, the limit is ${MAX_CARD}`);
  checkDepth(bytes, MAX_CARD_DEPTH);
}

// copyCard returns a copy of what is to be our card: what it is in JSON, which is not always what it looks like. It throws
// a MeshError for what cannot be one.
export function copyCard(card) {
  if (card == null) return null;
  let text;
  try {
    text = JSON.stringify(card);
  } catch (error) {
    throw new MeshError("invalid_field", `the card cannot be said in JSON: ${String(error).split("\n", 1)[0]}`);
  }
  if (!text?.startsWith("{")) throw new MeshError("invalid_field", "a card is an object, or null");
  checkCardText(text);
  return JSON.parse(text);
}

// readCard returns what a peer's card means: in it, members of the wrong type are ignored one by one. It changes the card.
function readCard(card) {
  if (card == null) return null;
  const isString = (value) => typeof value === "string";
  const keep = (object, fields) => {
    for (const [field, holds] of Object.entries(fields)) if (!holds(object[field])) delete object[field];
  };
  keep(card, { name: isString, version: isString, description: isString, skills: Array.isArray, queries: Array.isArray });
  if (card.skills) card.skills = card.skills.filter((skill) => isObject(skill) && isString(skill.name) && skill.name !== "");
  card.skills?.forEach((skill) => keep(skill, { description: isString, type: isString }));
  if (card.queries) card.queries = card.queries.filter(isString);
  return card;
}

function checkMessage(value) {
  if (!isObject(value)) throw new MeshError("malformed", "a message is a JSON object");
  if (typeof value.type !== "string") throw new MeshError("invalid_field", "type is not a string");
  for (const key of ["request_id", "source_agent", "target_agent"]) {
    if (Object.hasOwn(value, key) && value[key] !== undefined && typeof value[key] !== "string") {
      throw new MeshError("invalid_field", `${key} is not a string`);
    }
  }
}

// checkDepth looks at the bytes, because functions that recurse into a deep value fail on it.
function checkDepth(bytes, limit = MAX_DEPTH) {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const c = bytes[i];
    if (inString) {
      if (c === 0x5c) i++; // \
      else if (c === 0x22) inString = false; // "
    } else if (c === 0x22) inString = true;
    else if (c === 0x7b || c === 0x5b) {
      if (++depth > limit) throw new MeshError("too_deep", `nested more than ${limit} levels`);
    } else if (c === 0x7d || c === 0x5d) depth--;
  }
}
