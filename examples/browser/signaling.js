// The connection to the signaling server: "Signaling" of docs/protocol.md.

import { MeshError } from "./errors.js";

const REQUEST_TIMEOUT = 10_000;
const HEARTBEAT = 30_000;
const BACKOFF_MIN = 1_000;
const BACKOFF_MAX = 30_000;
const REPLACED = 4001; // close code: a later instance with our key has registered

// backoff returns a wait that doubles with each failure, with jitter so that clients do not reconnect all at once.
export function backoff(failures, min = BACKOFF_MIN, max = BACKOFF_MAX) {
  const top = Math.min(max, min * 2 ** (failures + 1));
  return min + Math.random() * (top - min);
}

// Signaling connects and reconnects, until close() or until it is replaced. It calls:
//   claim(id)                              before anything else; a rejection keeps us from registering
//   state(name, error)                     connecting, connected, refused; replaced or closed is the last one
//   joining(id, iceServers)                before every connect
//   registered(others)                     on every connect
//   receive(message)                       an offer, answer, candidate or error; also before registered
export class Signaling {
  #started = Date.now(); // of two instances with one key the server keeps the one that was started last
  #url;
  #key;
  #events;
  #socket;
  #id = "";
  #failures = 0;
  #retry;
  #heartbeat;
  #closed = false;

  constructor(url, key, events) {
    this.#url = url;
    this.#key = key;
    this.#events = events;
    queueMicrotask(() => this.#connect());
  }

  // send drops the message if there is no connection: the caller repeats it on the next one.
  send(type, target, payload) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const message = { type, peer_id: this.#id, payload };
    if (target !== undefined) message.target_id = target;
    this.#socket.send(JSON.stringify(message));
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    clearInterval(this.#heartbeat);
    this.#socket?.close(1000);
    this.#events.state("closed");
  }

  async #connect() {
    if (this.#closed) return;
    this.#events.state("connecting");
    try {
      const { token, id } = await this.#token();
      await this.#events.claim(id);
      const servers = await this.#iceServers(token);
      if (this.#closed) return;
      this.#events.joining(id, servers);
      this.#open(token, id);
    } catch (error) {
      this.#again(error);
    }
  }

  async #token() {
    // fetch takes each character of a header as one byte; these are the bytes of the key in UTF-8.
    const key = String.fromCharCode(...new TextEncoder().encode(this.#key));
    const response = await this.#fetch("api/token", { method: "POST", headers: { "X-API-Key": key } });
    const body = await response.json().catch(() => ({}));
    if (!response.ok) {
      const error = new Error(`${response.status} from ${response.url}: ${body.error ?? response.statusText}`);
      error.refused = response.status === 401 || response.status === 403;
      throw error;
    }
    if (typeof body.token !== "string" || typeof body.peer_id !== "string") {
      throw new Error(`no token and peer_id from ${response.url}`);
    }
    return { token: body.token, id: body.peer_id };
  }

  async #iceServers(token) {
    try {
      const response = await this.#fetch("api/config", { headers: { Authorization: `Bearer ${token}` } });
      const body = await response.json();
      return Array.isArray(body.iceServers) ? body.iceServers : [];
    } catch {
      return []; // peers on the same network need none
    }
  }

  #fetch(path, options) {
    return fetch(new URL(path, this.#url), { ...options, signal: AbortSignal.timeout(REQUEST_TIMEOUT) });
  }

  #open(token, id) {
    const url = new URL("ws", this.#url);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("token", token); // a page cannot set headers of a WebSocket
    const socket = new WebSocket(url);
    const timeout = setTimeout(() => socket.close(), REQUEST_TIMEOUT);
    this.#socket = socket;
    this.#id = id;
    // left: the others are told when this page is gone without a word. What is said of them is not used.
    socket.onopen = () => this.send("register", undefined, { started: this.#started, left: true });
    socket.onmessage = ({ data }) => {
      const message = parse(data);
      if (message?.type === "peer_list") {
        clearTimeout(timeout);
        this.#registered(id, message.payload.peers);
      } else if (message) this.#events.receive(message);
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(timeout);
      clearInterval(this.#heartbeat);
      if (code === REPLACED) this.#replaced();
      else this.#again(new Error(`the signaling server closed the connection (${code} ${reason})`));
    };
  }

  #registered(id, peers) {
    this.#failures = 0;
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => this.send("heartbeat", undefined, {}), HEARTBEAT);
    const others = Array.isArray(peers) ? peers.filter((peer) => typeof peer === "string" && peer !== id) : [];
    this.#events.registered(others);
    this.#events.state("connected");
  }

  // replaced ends the client for good. If it reconnected, the two instances would replace each other for ever.
  #replaced() {
    if (this.#closed) return;
    this.#closed = true;
    const what = "replaced by another window or process with this key; reload to take over";
    this.#events.state("replaced", new MeshError("replaced", what));
  }

  #again(error) {
    if (this.#closed) return;
    const refused = error.refused || error.code === "identity";
    const wait = refused ? BACKOFF_MAX : backoff(this.#failures++);
    this.#events.state(refused ? "refused" : "connecting", error);
    this.#retry = setTimeout(() => this.#connect(), wait);
  }
}

function parse(data) {
  try {
    const message = JSON.parse(data);
    return typeof message?.type === "string" && typeof message.payload === "object" && message.payload ? message : undefined;
  } catch {
    return undefined;
  }
}
