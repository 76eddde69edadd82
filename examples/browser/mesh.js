// A peer of the mesh in a browser: docs/protocol.md with the browser's own WebRTC.
//
//   const mesh = new Mesh({ key: "carol" });
//   mesh.handle("task_request", async (message, { peer, signal }) => ({ result: 42 }));
//   mesh.addEventListener("message", ({ detail }) => console.log(detail.peer, detail.message));
//   const response = await mesh.request("alice", { type: "task_request", payload: { text: "a b" } });
//
// Events and their details:
//   signaling         {state, id, error}         state: connecting, connected, refused, replaced, closed
//   peerconnected     {peer, key}                key: what the peer has proven, "" without one
//   peerdisconnected  {peer, error}
//   message           {peer, message}            every message but the responses to our requests
//   cancel            {peer, requestID}          the peer gave up a request
//   traffic           {peer, message, incoming}  every message that comes or goes
//   error             {peer, error}              a failure that no promise reports
//
// Every failure is a MeshError. Its code is one of docs/protocol.md, or timeout, cancelled, remote (see request),
// closed, or replaced. A peer that is not who it should be is an error with the code identity.
//
// A mesh is replaced, which ends it for good, when another one with the same key is made later, as in another window.

import { MeshError } from "./errors.js";
import { Identity } from "./identity.js";
import { KeyStore } from "./keystore.js";
import { Peers } from "./peers.js";
import { randomHex } from "./session.js";

export { MeshError };

const REQUEST_TIMEOUT = 30_000;
const CLOSE_TIMEOUT = 5_000;
const MAX_REQUESTS = 1024; // of one peer, handled at a time
const WORK_HIGH = 8 << 20; // bytes of requests being handled at which their peer is asked to pause
const WORK_LOW = 2 << 20;
const ABOUT_LINK = new Set(["too_large", "too_deep", "queue_full", "peer_lost"]); // errors of a Link, which knows no name
const WORK_HARD = 64 << 20; // and at which further requests fail as busy, for peers that know no pause

export class Mesh extends EventTarget {
  #peers;
  #identity; // a promise
  #work = new Map(); // peer → Work, while there is a link
  #pending = new Map(); // our requests: id → {peer, resolve, reject}
  #handlers = new Map([["ping", () => ({})]]);
  #closed = false;

  // url is the address of the signaling server; in its development mode the key is the peer id. identity says who this
  // page is, and who its peers have to be: see Identity.open.
  constructor({ key, url = location.href, identity = {} }) {
    super();
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
      rejected: (peer, error) => this.#emit("error", { peer, error }),
    });
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
  // response, or a promise of it. The signal aborts when the peer gives up the request or goes.
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

  // request resolves with the response. A response that reports a failure becomes an error with the code "remote" and
  // the response as error.reply.
  async request(peer, message, { timeout = REQUEST_TIMEOUT, signal } = {}) {
    const id = message.request_id ?? randomHex(6);
    if (this.#pending.has(id)) throw new MeshError("invalid_field", `request ${id} is pending already`);
    const end = new AbortController(); // by timeout, by the caller, or because the peer has gone
    const cancel = () => end.abort(new MeshError("cancelled", "cancelled"));
    const late = () => end.abort(new MeshError("timeout", `no response within ${timeout / 1000} s`));
    const response = new Promise((resolve, reject) => {
      end.signal.addEventListener("abort", () => reject(end.signal.reason));
      this.#pending.set(id, { peer, resolve, fail: (error) => end.abort(error) });
    });
    response.catch(() => {}); // awaited below, but perhaps not yet
    const timer = setTimeout(late, timeout);
    signal?.addEventListener("abort", cancel);
    if (signal?.aborted) cancel();
    let sent = false;
    try {
      await this.send(peer, { ...message, request_id: id }, { signal: end.signal });
      sent = true;
      return checkReply(await response);
    } catch (error) {
      if (sent && end.signal.aborted) this.#peers.link(peer)?.cancel(id);
      throw error;
    } finally {
      this.#pending.delete(id);
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
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
    this.#emit("peerconnected", { peer, key });
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
    this.#emit("message", { peer, message });
    if (message.request_id && responseType(message.type)) this.#answer(peer, message, bytes);
  }

  #cancelled(peer, id) {
    this.#work.get(peer)?.cancel(id);
    this.#emit("cancel", { peer, requestID: id });
  }

  // answer runs the handler of a request and sends the response.
  async #answer(peer, message, bytes) {
    const work = this.#work.get(peer);
    if (work.has(message.request_id)) return this.#emit("error", { peer, error: new MeshError("invalid_field", "request id used twice") });
    if (work.full) return this.#reply(peer, message, { error: "busy" });
    const signal = work.begin(message.request_id, bytes);
    let payload;
    try {
      const handler = this.#handlers.get(message.type);
      if (!handler) throw new Error(`no handler for ${message.type}`);
      payload = (await handler(message, { peer, signal })) ?? {};
    } catch (error) {
      payload = { error: String(error?.message || error) };
    }
    // The request counts as being handled until its response has been sent, which bounds both.
    if (!signal.aborted) await this.#reply(peer, message, payload, signal);
    work.finish(message.request_id);
  }

  async #reply(peer, message, payload, signal) {
    const { type, request_id, source_agent, target_agent } = message;
    const reply = { type: responseType(type), request_id, source_agent: target_agent, target_agent: source_agent, payload };
    try {
      await this.#send(peer, reply, { reply: true, signal });
    } catch (error) {
      if (!signal?.aborted) this.#emit("error", { peer, error });
    }
  }
}

// Work holds the requests of one peer that are being handled.
class Work {
  #link;
  #requests = new Map(); // id → {controller, bytes}
  #bytes = 0;

  constructor(link) {
    this.#link = link;
  }

  get full() {
    return this.#requests.size >= MAX_REQUESTS || this.#bytes > WORK_HARD;
  }
  has(id) {
    return this.#requests.has(id);
  }
  begin(id, bytes) {
    const controller = new AbortController();
    this.#requests.set(id, { controller, bytes });
    this.#bytes += bytes;
    if (this.#bytes > WORK_HIGH) this.#link.pause(true);
    return controller.signal;
  }
  finish(id) {
    this.#bytes -= this.#requests.get(id).bytes;
    this.#requests.delete(id);
    if (this.#bytes <= WORK_LOW) this.#link.pause(false);
  }
  cancel(id) {
    this.#requests.get(id)?.controller.abort(new MeshError("cancelled", "the peer gave up"));
  }
  end(error) {
    for (const { controller } of this.#requests.values()) controller.abort(error);
  }
}

// responseType returns the type of the response to a request, or undefined for a type that is no request.
function responseType(type) {
  if (type === "ping") return "pong";
  return /_(request|query|prompt)$/.test(type) ? type.replace(/_[a-z]+$/, "_response") : undefined;
}

function isResponse(type) {
  return !responseType(type) && !type.endsWith("_stream_chunk");
}

function checkReply(reply) {
  const text = reply.payload?.error;
  if (typeof text !== "string" || text === "") return reply;
  const error = new MeshError("remote", text);
  error.reply = reply;
  throw error;
}
