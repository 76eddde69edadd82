// A peer of the mesh in a browser: docs/protocol.md with the browser's own WebRTC.
//
//   const mesh = new Mesh({ key: "carol" });
//   mesh.handle("task_request", async (message, { peer, signal }) => ({ result: 42 }));
//   mesh.addEventListener("message", ({ detail }) => console.log(detail.peer, detail.message));
//   const response = await mesh.request("alice", { type: "task_request", payload: { text: "a b" } });
//
// Events and their details:
//   signaling         {state, id, error}         state: connecting, connected, refused, replaced, closed
//   peerconnected     {peer, key, card}          key: what the peer has proven, "" without one; card: see below
//   peerdisconnected  {peer, error}
//   message           {peer, message}            every message but the responses to our requests, and their chunks
//   cancel            {peer, requestID}          the peer gave up a request, or has waited as long as it said
//   card              {peer, card}               the peer has another card, or none any more
//   owncard           {card}                     we have
//   traffic           {peer, message, incoming}  every message that comes or goes
//   error             {peer, error}              a failure that no promise reports
//
// Every failure is a MeshError. Its code is one of docs/protocol.md, or timeout, cancelled, remote (see request),
// closed, or replaced. A peer that is not who it should be is an error with the code identity. A handler throws a
// HandlerError to choose the code that its peer gets.
//
// A card is what a peer says about itself, an object or null. Nobody vouches for it. Its name, version, description, skills
// and queries have the types of docs/protocol.md or are absent; anything else may be in it.
//
// A mesh is replaced, which ends it for good, when another one with the same key is made later, as in another window.

import { HandlerError, MeshError } from "./errors.js";
import { Identity } from "./identity.js";
import { KeyStore } from "./keystore.js";
import { copyCard } from "./link.js";
import { Peers } from "./peers.js";
import { randomHex } from "./session.js";

export { HandlerError, MeshError };

const REQUEST_TIMEOUT = 30_000;
const CLOSE_TIMEOUT = 5_000;
const MAX_REQUESTS = 1024; // of one peer, handled at a time
const REQUEST = /_(request|query|prompt)$/;
const CHUNK = "_stream_chunk";
const CHUNK_COST = 512; // bytes that a chunk takes besides its text
const MAX_TIMER = 2 ** 31 - 1; // ms
const WORK_HIGH = 8 << 20; // bytes of requests being handled, and of chunks not taken, at which their peer is asked to pause
const WORK_LOW = 2 << 20;
const ABOUT_LINK = new Set(["too_large", "too_deep", "queue_full", "peer_lost"]); // errors of a Link, which knows no name
const WORK_HARD = 64 << 20; // and at which further requests fail as busy, and our own, for peers that know no pause

export class Mesh extends EventTarget {
  #peers;
  #identity; // a promise
  #work = new Map(); // peer → Work, while there is a link
  #pending = new Map(); // our requests: id → {peer, resolve, fail, chunks}
  #handlers = new Map([["ping", () => ({})]]);
  #closed = false;
  #card;

  // url is the address of the signaling server; in its development mode the key is the peer id. identity says who this
  // page is, and who its peers have to be: see Identity.open. card is what peers are told of us.
  constructor({ key, url = location.href, identity = {}, card = null }) {
    super();
    this.#card = copyCard(card);
    this.#identity = Identity.open(identity, KeyStore.open);
    this.#identity.catch(() => {}); // signaling reports it
    this.#peers = new Peers(url, key, this.#identity, {
      signaling: (state, error) => {
        this.#emit("signaling", { state, id: this.id, error });
        if (state === "replaced") this.#end(error);
      },
      up: (peer, key) => this.#up(peer, key),
      down: (peer, error) => this.#down(peer, error),
      message: (peer, message, bytes) => this.#received(peer, message, bytes),
      cancel: (peer, id) => this.#cancelled(peer, id),
      card: (peer, card) => this.#emit("card", { peer, card }),
      rejected: (peer, error) => this.#emit("error", { peer, error }),
    });
    this.#peers.setCard(this.#card);
  }

  // id is our own peer id, once signaling is connected.
  get id() {
    return this.#peers.id;
  }

  // peers are the ids of the peers with a live link.
  get peers() {
    return this.#peers.live;
  }

  // key returns the key that a peer with a live link has proven, "" without one.
  key(peer) {
    return this.#peers.link(peer)?.proof.key ?? "";
  }

  // card returns that of a peer with a live link.
  card(peer) {
    return this.#peers.link(peer)?.card ?? null;
  }

  // ownCard is what peers are told of us.
  get ownCard() {
    return this.#card;
  }

  // setCard replaces it: null takes it back.
  setCard(card) {
    this.#card = copyCard(card);
    this.#peers.setCard(this.#card);
    this.#emit("owncard", { card: this.#card });
  }

  // identity resolves with {key, lacks, statement}: our own key, or why there is none, and the statement about us.
  async identity() {
    const { key, lacks, statement } = await this.#identity;
    return { key, lacks, statement };
  }

  // join keeps a statement about us, signed by a root, and shows it to the peers.
  async join(statement) {
    await (await this.#identity).join(statement);
    this.#peers.show(statement);
  }

  // forget has the next key that a peer shows taken for its own, under the policy known.
  async forget(peer) {
    await (await this.#identity).forget(peer);
  }

  // handle sets the handler for a type of request: handler(message, {peer, signal}) returns the payload of the
  // response, or a promise of it. An async generator yields chunks before that. The signal aborts when the peer gives up
  // the request, has waited as long as it said that it would, or goes.
  handle(type, handler) {
    this.#handlers.set(type, handler);
  }

  // send resolves once the message has been sent, which a pause of the peer delays.
  async send(peer, message, options) {
    try {
      await this.#send(peer, message, options);
    } catch (error) {
      if (!ABOUT_LINK.has(error?.code)) throw error;
      throw new MeshError(error.code, `not sent to ${peer}: ${error.message}`);
    }
  }

  async #send(peer, message, options) {
    const link = this.#peers.link(peer);
    if (!link) throw new MeshError("peer_not_connected", `no link to ${peer}`);
    await link.send(message, options);
    this.#emit("traffic", { peer, message, incoming: false });
  }

  // broadcast sends to all live peers. Its error names the peers that were not reached.
  async broadcast(message) {
    const peers = this.peers;
    const results = await Promise.allSettled(peers.map((peer) => this.#send(peer, message)));
    const failed = results.flatMap(({ reason }, i) => (reason ? [{ peer: peers[i], reason }] : []));
    if (failed.length === 0) return;
    const text = failed.map(({ peer, reason }) => `${peer} (${reason.message})`).join(", ");
    throw new MeshError(failed[0].reason.code, `not sent to ${text}`);
  }

  // request resolves with the response. A response that reports a failure becomes an error with the code "remote", the
  // peer's code, if it has told one, as error.remoteCode, error.details, and the response as error.reply. The peer is told
  // the timeout, and ends its work then.
  async request(peer, message, { timeout = REQUEST_TIMEOUT, signal } = {}) {
    const request = this.#begin(peer, message, signal);
    const timer = setTimeout(() => request.fail(late(timeout)), timeout);
    try {
      await this.#ask(request, { ...message, timeout_ms: message.timeout_ms ?? Math.max(Math.round(timeout), 1) });
      return await request.response;
    } finally {
      clearTimeout(timer);
      this.#finish(request);
    }
  }

  // requestStream makes a request when a `for await` begins, which gets the payloads of its chunks as they come. Its errors
  // are those of request. To leave the loop gives the request up. The timeout is for each chunk and the response, which
  // is the property response of the result after the loop.
  requestStream(peer, message, { timeout = REQUEST_TIMEOUT, signal } = {}) {
    const follow = (replies) => this.#follow(replies, peer, message, timeout, signal);
    return {
      response: undefined,
      [Symbol.asyncIterator]() {
        return follow(this);
      },
    };
  }

  async *#follow(replies, peer, message, timeout, signal) {
    const request = this.#begin(peer, message, signal);
    const chunks = (request.chunks = new Chunks(this.#work.get(peer)));
    let timer;
    const wait = () => {
      timer = setTimeout(() => request.fail(late(timeout)), timeout);
    };
    request.response.catch(() => {}).then(() => chunks.end());
    try {
      wait();
      await this.#ask(request, message);
      for (;;) {
        await chunks.more();
        clearTimeout(timer); // our own slowness does not count
        if (chunks.length === 0) break;
        while (chunks.length > 0) yield chunks.take();
        wait();
      }
      replies.response = await request.response;
    } finally {
      clearTimeout(timer);
      this.#finish(request);
      while (chunks.length > 0) chunks.take();
    }
  }

  // begin registers a request of ours: response is a promise, and fail ends it.
  #begin(peer, message, signal) {
    const id = message.request_id ?? randomHex(6);
    if (this.#pending.has(id)) throw new MeshError("invalid_field", `request ${id} is pending already`);
    const end = new AbortController(); // by timeout, by the caller, or because the peer has gone
    const request = { id, peer, signal: end.signal, by: signal, sent: false, done: false, fail: (error) => end.abort(error) };
    request.cancel = () => end.abort(new MeshError("cancelled", "cancelled"));
    request.response = new Promise((resolve, reject) => {
      end.signal.addEventListener("abort", () => reject(end.signal.reason));
      request.resolve = (reply) => {
        request.done = true;
        const error = refusal(reply);
        if (error) reject(error);
        else resolve(reply);
      };
    });
    request.response.catch(() => {}); // awaited later
    this.#pending.set(id, request);
    signal?.addEventListener("abort", request.cancel);
    if (signal?.aborted) request.cancel();
    return request;
  }

  async #ask(request, message) {
    await this.send(request.peer, { ...message, request_id: request.id }, { signal: request.signal });
    request.sent = true;
  }

  #finish({ id, peer, sent, done, by, cancel }) {
    if (sent && !done) this.#peers.link(peer)?.cancel(id);
    this.#pending.delete(id);
    by?.removeEventListener("abort", cancel);
  }

  // connect resolves once the link to the peer is up.
  async connect(peer) {
    await this.#peers.connect(peer);
  }

  // close sends what is queued, for at most 5 s, and ends all links.
  async close() {
    const timeout = new Promise((resolve) => setTimeout(resolve, CLOSE_TIMEOUT));
    const drained = this.peers.map((peer) => this.#peers.link(peer).drained());
    await Promise.race([timeout, Promise.all(drained)]);
    this.stop();
  }

  // stop ends all links at once. A page that is left calls it, so that its peers know at once.
  stop() {
    this.#end(new MeshError("closed", "the mesh is closed"));
  }

  #end(error) {
    if (this.#closed) return;
    this.#closed = true;
    this.#peers.close(error);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #up(peer, key) {
    this.#work.set(peer, new Work(this.#peers.link(peer)));
    this.#emit("peerconnected", { peer, key, card: this.card(peer) });
  }

  #down(peer, error) {
    this.#work.get(peer)?.end(error);
    this.#work.delete(peer);
    for (const request of [...this.#pending.values()]) if (request.peer === peer) request.fail(error);
    this.#emit("peerdisconnected", { peer, error });
  }

  #received(peer, message, bytes) {
    this.#emit("traffic", { peer, message, incoming: true });
    const request = this.#pending.get(message.request_id);
    if (request?.peer === peer && isResponse(message.type)) return request.resolve(message);
    if (message.request_id && message.type.endsWith(CHUNK)) {
      // Else nobody wants it, or not any more.
      if (request?.peer === peer && request.chunks) this.#chunk(peer, request, message, bytes);
      return;
    }
    this.#emit("message", { peer, message });
    if (message.request_id && responseType(message.type)) this.#answer(peer, message, bytes);
  }

  // chunk keeps a chunk for the loop that waits for it.
  #chunk(peer, { chunks, fail }, message, bytes) {
    if (!this.#work.get(peer).flooded) return chunks.add(message.payload, bytes + CHUNK_COST);
    fail(new MeshError("queue_full", `over ${WORK_HARD} bytes of ${peer} wait`));
  }

  // cancelled ends the work on a request whose response the peer does not wait for any more.
  #cancelled(peer, id) {
    if (this.#work.get(peer)?.cancel(id)) this.#emit("cancel", { peer, requestID: id });
  }

  // answer runs the handler of a request and sends the response.
  async #answer(peer, message, bytes) {
    const id = message.request_id;
    const work = this.#work.get(peer);
    if (work.has(id)) return this.#emit("error", { peer, error: new MeshError("invalid_field", "request id used twice") });
    if (work.full) return this.#reply(peer, message, failed(new HandlerError("busy", "busy")));
    const signal = work.begin(id, bytes);
    const limit = patience(message);
    const timer = limit && setTimeout(() => this.#cancelled(peer, id), limit);
    let payload;
    try {
      const handler = this.#handlers.get(message.type);
      if (!handler) throw new HandlerError(`no handler for ${message.type}`, "no_handler");
      const result = handler(message, { peer, signal });
      payload = (await (result?.[Symbol.asyncIterator] ? this.#stream(peer, message, result, signal) : result)) ?? {};
    } catch (error) {
      payload = failed(error);
    }
    clearTimeout(timer);
    // The request counts as being handled until its response has been sent, which bounds both.
    if (!signal.aborted) await this.#reply(peer, message, payload, signal);
    work.finish(id);
  }

  // stream sends what a handler yields, each when the one before is on its way, and returns the payload of the response.
  async #stream(peer, message, generator, signal) {
    const chunk = { ...replyTo(message), type: message.type.replace(REQUEST, "") + CHUNK };
    try {
      for (;;) {
        const { done, value } = await generator.next();
        if (done || signal.aborted) return value;
        await this.send(peer, { ...chunk, payload: value }, { signal });
      }
    } finally {
      await generator.return?.();
    }
  }

  async #reply(peer, message, payload, signal) {
    const reply = { ...replyTo(message), payload };
    try {
      await this.#send(peer, reply, { reply: true, signal });
    } catch (error) {
      if (signal?.aborted) return;
      this.#emit("error", { peer, error });
      // What cannot be sent to this peer, or to anyone, is a failure that the peer should learn of.
      const code = error.code === "too_large" ? "too_large" : error instanceof MeshError ? undefined : "internal";
      if (code && payload.code !== code) await this.#reply(peer, message, failed(new HandlerError(error.message, code)), signal);
    }
  }
}

// Chunks are those of a response that no loop has taken.
class Chunks {
  #work;
  #waiting = []; // as {payload, bytes}
  #head = 0;
  #ended = false;
  #wake = () => {};

  constructor(work) {
    this.#work = work;
  }

  get length() {
    return this.#waiting.length - this.#head;
  }
  add(payload, bytes) {
    this.#waiting.push({ payload, bytes });
    this.#work.take(bytes);
    this.#wake();
  }
  take() {
    const { payload, bytes } = this.#waiting[this.#head];
    this.#waiting[this.#head++] = undefined;
    if (this.length === 0) this.#waiting.length = this.#head = 0;
    this.#work.take(-bytes);
    return payload;
  }
  end() {
    this.#ended = true;
    this.#wake();
  }
  // more resolves once there is a chunk, or the end.
  more() {
    if (this.length > 0 || this.#ended) return;
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

// Work holds the requests of one peer that are being handled, and counts the chunks of it that no loop has taken.
class Work {
  #link;
  #requests = new Map(); // id → {controller, bytes}
  #bytes = 0;

  constructor(link) {
    this.#link = link;
  }

  get full() {
    return this.#requests.size >= MAX_REQUESTS || this.flooded;
  }
  get flooded() {
    return this.#bytes > WORK_HARD;
  }
  take(bytes) {
    this.#bytes += bytes;
    if (this.#bytes > WORK_HIGH) this.#link.pause(true);
    if (this.#bytes <= WORK_LOW) this.#link.pause(false);
  }
  has(id) {
    return this.#requests.has(id);
  }
  begin(id, bytes) {
    const controller = new AbortController();
    this.#requests.set(id, { controller, bytes });
    this.take(bytes);
    return controller.signal;
  }
  finish(id) {
    this.take(-this.#requests.get(id).bytes);
    this.#requests.delete(id);
  }
  // cancel reports whether the request was being handled.
  cancel(id) {
    const controller = this.#requests.get(id)?.controller;
    if (!controller || controller.signal.aborted) return false;
    controller.abort(new MeshError("cancelled", "the peer gave up"));
    return true;
  }
  end(error) {
    for (const { controller } of this.#requests.values()) controller.abort(error);
  }
}

// responseType returns the type of the response to a request, or undefined for a type that is no request.
function responseType(type) {
  if (type === "ping") return "pong";
  return REQUEST.test(type) ? type.replace(REQUEST, "_response") : undefined;
}

function isResponse(type) {
  return !responseType(type) && !type.endsWith(CHUNK);
}

// replyTo returns the response to a request, but for its payload.
function replyTo({ type, request_id, source_agent, target_agent }) {
  return { type: responseType(type), request_id, source_agent: target_agent, target_agent: source_agent };
}

// failed returns the payload of the response to a request that has failed. What code the error of another peer had, whom
// the handler has asked, is none of the asker's business.
function failed(error) {
  const own = error instanceof HandlerError;
  const code = own ? error.code : error?.name === "TimeoutError" ? "deadline_exceeded" : "app";
  return { error: String(error?.message || error) || code, code, details: own ? error.details : undefined };
}

// patience returns for how many milliseconds the sender of a request waits, undefined if it has not said.
function patience({ timeout_ms: limit }) {
  return Number.isInteger(limit) && limit > 0 ? Math.min(limit, MAX_TIMER) : undefined;
}

function late(timeout) {
  return new MeshError("timeout", `no response within ${timeout / 1000} s`);
}

// refusal returns the failure that a response reports, undefined if it reports none.
function refusal(reply) {
  const { error: text, code, details } = Object(reply.payload);
  if (typeof text !== "string" || text === "") return undefined;
  const error = new MeshError("remote", text);
  error.remoteCode = typeof code === "string" && code.length <= 64 ? code : "";
  if (!error.remoteCode && text === "busy") error.remoteCode = "busy"; // as agents say that know no codes
  return Object.assign(error, { details, reply });
}
