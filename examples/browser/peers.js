// All links to other peers: who offers to whom, and when to retry.
// The rules are those of "Signaling" in docs/protocol.md.

import { MeshError } from "./link.js";
import { Session, randomHex } from "./session.js";
import { Signaling, backoff } from "./signaling.js";

const CONNECT_TIMEOUT = 30_000;
const RETRY_MIN = 1_000; // between two offers to a peer
const RETRY_MAX = 300_000;
const MAX_SILENCE = 6; // unanswered offers in a row after which the peer has to make the next one
const GLARE_HOLD = 5_000; // how long a base peer's offer waits for the answer to ours
const BASE_WAIT = 31_000; // the time that a base peer takes to forget us
const MAX_PEERS = 4096;
const MAX_EARLY = 64; // candidates held for one peer
const MAX_PARKED = 16; // superseded sessions with a base peer

// A Place holds what is known of one peer id.
class Place {
  session; // the current one, live or being made
  up = false; // the link was reported
  parked = []; // superseded sessions, kept open: a base peer forgets us when any of them ends
  wanted = false; // retry until there is a link
  failures = 0; // since the last link
  silence = 0; // offers since the peer was last heard of
  notBefore = 0; // no offer before
  retry;
  held; // an offer of a base peer that came while ours was unanswered
  holding;
  early = []; // candidates whose description has not come
  sweep;
  waiters = new Set(); // of connect()

  constructor(id) {
    this.id = id;
  }
}

// Peers calls, for each peer in this order:
//   up(peer), then message(peer, object, bytes), cancel(peer, requestID), rejected(peer, error),
//   then down(peer, error)
// and signaling(state, error).
export class Peers {
  id = ""; // our own, once known
  #signaling;
  #events;
  #servers = [];
  #instance = randomHex(8);
  #places = new Map();
  #closed = false;

  constructor(url, key, events) {
    this.#events = events;
    this.#signaling = new Signaling(url, key, {
      state: (state, error) => events.signaling(state, error),
      registered: (id, peers, servers) => this.#registered(id, peers, servers),
      receive: (message) => this.#receive(message),
    });
  }

  // live are the ids of the peers with a live link.
  get live() {
    return [...this.#places.values()].filter(({ session }) => session?.live).map(({ id }) => id).sort();
  }

  link(id) {
    const session = this.#places.get(id)?.session;
    return session?.live ? session.link : undefined;
  }

  // connect resolves once the link is up.
  connect(id) {
    if (this.#closed) throw unavailable(id, "the mesh is closed");
    if (!id) throw unavailable(id, "the peer id is empty");
    if (id === this.id) throw unavailable(id, "that is our own id");
    const place = this.#place(id);
    if (!place) throw unavailable(id, `there are ${MAX_PEERS} peers already`);
    if (place.session?.live) return Promise.resolve();
    Object.assign(place, { wanted: true, silence: 0 });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => end(`no answer within ${CONNECT_TIMEOUT / 1000} s; the attempts go on`), CONNECT_TIMEOUT);
      const end = (why) => {
        clearTimeout(timer);
        place.waiters.delete(end);
        why ? reject(unavailable(id, why)) : resolve();
      };
      place.waiters.add(end);
      this.#dial(place);
    });
  }

  close(error) {
    this.#closed = true;
    for (const place of this.#places.values()) {
      this.#giveUp(place, error.message);
      clearTimeout(place.holding);
      clearTimeout(place.sweep);
      this.#drop(place, error);
    }
    this.#signaling.close();
  }

  #place(id) {
    let place = this.#places.get(id);
    if (!place && id && id !== this.id && this.#places.size < MAX_PEERS) this.#places.set(id, (place = new Place(id)));
    return place;
  }

  // tidy forgets a place with nothing to remember, or looks again later.
  #tidy(place) {
    clearTimeout(place.sweep);
    if (place.session || place.wanted || place.held || this.#closed) return;
    if (place.early.length === 0 && place.notBefore <= Date.now()) {
      this.#places.delete(place.id);
      return;
    }
    place.sweep = setTimeout(() => {
      if (!place.session) place.early = []; // their offer never came
      this.#tidy(place);
    }, BASE_WAIT);
  }

  #giveUp(place, why) {
    place.wanted = false;
    clearTimeout(place.retry);
    for (const end of [...place.waiters]) end(why);
  }

  #registered(id, others, servers) {
    this.id = id;
    this.#servers = servers;
    for (const other of others) {
      const place = this.#place(other);
      if (place) Object.assign(place, { wanted: true, silence: 0 });
    }
    for (const place of [...this.#places.values()]) {
      if (place.session && !place.session.live) place.session.sendAgain(); // signaling may have lost it
      if (place.session) continue;
      if (others.includes(place.id) || place.waiters.size > 0) this.#dial(place);
      else {
        this.#giveUp(place, "it is not on the mesh");
        this.#tidy(place);
      }
    }
  }

  #receive({ type, peer_id, payload }) {
    if (this.#closed) return;
    if (type === "error") return this.#refused(payload);
    if (typeof peer_id !== "string" || !["offer", "answer", "ice_candidate"].includes(type)) return;
    const place = this.#place(peer_id);
    if (!place) return;
    if (type === "ice_candidate") this.#candidate(place, payload);
    else if (typeof payload.sdp === "string") {
      if (!Array.isArray(payload.caps)) payload.caps = [];
      payload.session ??= ""; // base peers have none
      place.silence = 0;
      if (type === "offer") this.#offered(place, payload);
      else this.#answered(place, payload);
    }
    this.#tidy(place);
  }

  // ---- our offers ----

  // dial makes an offer, now or as soon as that is allowed.
  #dial(place) {
    if (place.session || !place.wanted || !this.id || this.#closed) return;
    const wait = place.notBefore - Date.now();
    if (wait > 0) this.#redial(place, wait);
    else this.#newSession(place)?.offer();
  }

  #redial(place, wait) {
    clearTimeout(place.retry);
    place.retry = setTimeout(() => this.#dial(place), wait);
  }

  #answered(place, answer) {
    const { session } = place;
    if (!session?.waiting || (answer.session && answer.answers !== session.id)) return; // to an offer given up
    place.held = undefined;
    clearTimeout(place.holding);
    session.answeredBy(answer);
    this.#addEarly(place);
  }

  // refused handles an error of the signaling server.
  #refused({ code, target_id }) {
    const place = this.#places.get(target_id);
    if (!place || (place.session && !place.session.waiting)) return; // about a candidate, then
    if (code !== "peer_unavailable") return; // busy: the attempt times out and is repeated
    this.#giveUp(place, "it is not on the mesh");
    this.#drop(place, unavailable(place.id, "it is not on the mesh"));
    if (place.held) this.#accept(place, place.held);
    this.#tidy(place);
  }

  // ---- offers of others ----

  #offered(place, offer) {
    const { session } = place;
    if (session?.waiting) {
      if (!offer.session) return this.#hold(place, offer);
      if (less(this.id, place.id)) return session.sendAgain(); // the peer drops its own
    } else if (session && session.remote.session === offer.session) {
      const repeated = session.remote.sdp === offer.sdp;
      if (repeated && offer.session && !session.offerer) session.sendAgain(); // our answer was lost
      if (repeated || offer.session) return; // ICE restarts we do not list in caps
    }
    this.#accept(place, offer);
  }

  // hold delays the offer of a base peer, which knows no rule for glare and may be answering ours.
  #hold(place, offer) {
    place.held = offer;
    clearTimeout(place.holding);
    place.holding = setTimeout(() => place.held && this.#accept(place, place.held), GLARE_HOLD);
  }

  // accept answers an offer with a session that replaces the current one.
  #accept(place, offer) {
    place.held = undefined;
    clearTimeout(place.holding);
    clearTimeout(place.retry);
    this.#supersede(place, offer);
    this.#newSession(place)?.answer(offer);
    this.#addEarly(place);
  }

  #supersede(place, offer) {
    const old = place.session;
    if (!old) return;
    const why = old.remote?.instance === offer.instance ? "made a new link" : "was restarted";
    const error = new MeshError("peer_lost", `the peer ${why}`);
    if (!old.base || offer.session) return this.#drop(place, error);
    place.session = undefined;
    old.abandon(error);
    place.parked.push(old);
    if (place.parked.length > MAX_PARKED) place.parked.shift().close(error);
    this.#down(place, error);
  }

  #candidate(place, candidate) {
    const { session } = place;
    const its = candidate.session ?? "";
    if (session?.remote && session.remote.session === its) return session.addCandidate(candidate);
    place.early.push(candidate);
    if (place.early.length > MAX_EARLY) place.early.shift(); // of a session that came to nothing
  }

  #addEarly(place) {
    const { session } = place;
    if (!session) return;
    for (const candidate of place.early) {
      if ((candidate.session ?? "") === session.remote.session) session.addCandidate(candidate);
    }
    place.early = [];
  }

  // ---- the life of a session ----

  #newSession(place) {
    const current = (f) => (...args) => place.session === session && f(...args);
    let session;
    try {
      session = new Session(this.#servers, this.#instance, {
        signal: (type, payload) => this.#signaling.send(type, place.id, payload),
        up: current(() => this.#up(place)),
        message: current((message, bytes) => this.#events.message(place.id, message, bytes)),
        cancel: current((id) => this.#events.cancel(place.id, id)),
        rejected: current((error) => this.#events.rejected(place.id, error)),
        down: current((error) => this.#lost(place, error)),
      });
    } catch (error) {
      this.#giveUp(place, `the browser refuses to make a connection: ${error.message}`); // ICE servers, perhaps
      return;
    }
    place.session = session;
    return session;
  }

  #up(place) {
    Object.assign(place, { up: true, wanted: false, failures: 0 });
    this.#events.up(place.id);
    for (const end of [...place.waiters]) end();
  }

  #down(place, error) {
    if (!place.up) return;
    place.up = false;
    this.#events.down(place.id, error);
  }

  // lost handles the end of the current session.
  #lost(place, error) {
    const { session, up } = place;
    if (session.waiting) place.silence++;
    if (session.base) place.notBefore = Date.now() + BASE_WAIT;
    this.#drop(place, error);
    if (up) place.wanted = true;
    if (error.final || place.silence >= MAX_SILENCE) this.#giveUp(place, error.message);
    if (place.held) return this.#accept(place, place.held);
    if (place.wanted) this.#redial(place, backoff(place.failures++, RETRY_MIN, RETRY_MAX));
    this.#tidy(place);
  }

  // drop ends all sessions with a peer.
  #drop(place, error) {
    const sessions = [place.session, ...place.parked.splice(0)];
    place.session = undefined;
    for (const session of sessions) session?.close(error);
    this.#down(place, error);
  }
}

function unavailable(id, why) {
  return new MeshError("peer_unavailable", `no link to ${id}: ${why}`);
}

// less compares the bytes of two ids, as peers in all languages do. Strings here compare by UTF-16.
function less(a, b) {
  const [x, y] = [a, b].map((id) => new TextEncoder().encode(id));
  for (let i = 0; i < x.length && i < y.length; i++) if (x[i] !== y[i]) return x[i] < y[i];
  return x.length < y.length;
}
