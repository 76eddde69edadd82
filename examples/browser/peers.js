// All links to other peers: who offers to whom, and when to retry.
// The rules are those of "Signaling" in docs/protocol.md.

import { MeshError } from "./errors.js";
import { refusal } from "./identity.js";
import { Session, randomHex } from "./session.js";
import { Signaling, backoff } from "./signaling.js";

const CONNECT_TIMEOUT = 30_000;
const RETRY_MIN = 1_000; // between two offers to a peer
const RETRY_MAX = 300_000;
const STEADY = 30_000; // after which a link counts as a success: a peer that refuses us ends it at once
const MAX_SILENCE = 6; // unanswered offers in a row after which the peer has to make the next one
const GLARE_HOLD = 5_000; // how long a base peer's offer waits for the answer to ours
const BASE_WAIT = 31_000; // the time that a base peer takes to forget us
const OFFER_BURST = 4; // offers of a peer that are taken up at once,
const OFFER_PACE = 5_000; // and the time between two further ones: each costs a connection
const MAX_PEERS = 4096;
const MAX_EARLY = 64; // candidates held for one peer
const MAX_TEXT = 256; // characters of an id, a session and the like
const MAX_CANDIDATE = 512; // characters
const MAX_PARKED = 16; // superseded sessions with a base peer

// A Place holds what is known of one peer id.
class Place {
  session; // the current one, live or being made
  next; // an attempt that may replace it, a link to a proven peer, once its peer is proven as well
  up = false; // the link was reported
  parked = []; // superseded sessions, kept open: a base peer forgets us when any of them ends
  wanted = false; // retry until there is a link
  failures = 0; // since the last link that was steady
  since = 0; // when the link came up
  silence = 0; // offers since the peer was last heard of
  notBefore = 0; // no offer before
  retry;
  held; // an offer of a base peer that came while ours was unanswered
  holding;
  pace = 0; // offers are taken up from then on, less OFFER_BURST times OFFER_PACE
  delayed; // the last offer that came too soon after others
  delay;
  early = []; // candidates whose description has not come
  sweep;
  waiters = new Set(); // of connect()

  constructor(id) {
    this.id = id;
  }

  // has reports whether what happens to a session counts.
  has(session) {
    return session !== undefined && (this.session === session || this.next === session);
  }
  // about returns the session that an offer or a candidate of the peer's session is about.
  about(its) {
    return this.next?.remote.session === its ? this.next : this.session;
  }
}

// Peers calls, for each peer in this order:
//   up(peer, key), then message(peer, object, bytes), cancel(peer, requestID), card(peer, card), rejected(peer, error),
//   then down(peer, error)
// and signaling(state, error).
export class Peers {
  id = ""; // our own, once known
  #signaling;
  #identity; // once it is open
  #events;
  #servers = [];
  #card = null; // ours
  #instance = randomHex(8);
  #places = new Map();
  #closed = false;

  // identity is a promise of one of identity.js.
  constructor(url, key, identity, events) {
    this.#events = events;
    this.#signaling = new Signaling(url, key, {
      claim: async (id) => {
        this.#identity = await identity;
        await this.#identity.claim(id);
      },
      state: (state, error) => events.signaling(state, error),
      joining: (id, servers) => {
        this.id = id;
        this.#servers = servers;
      },
      registered: (peers) => this.#registered(peers),
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
      const end = (why, code) => {
        clearTimeout(timer);
        place.waiters.delete(end);
        why ? reject(unavailable(id, why, code)) : resolve();
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
      clearTimeout(place.delay);
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
    if (place.session || place.wanted || place.held || place.delayed || this.#closed) return;
    if (place.early.length === 0 && Math.max(place.notBefore, place.pace) <= Date.now()) {
      this.#places.delete(place.id);
      return;
    }
    place.sweep = setTimeout(() => {
      if (!place.session) place.early = []; // their offer never came
      this.#tidy(place);
    }, BASE_WAIT);
  }

  #giveUp(place, why, code) {
    place.wanted = false;
    clearTimeout(place.retry);
    for (const end of [...place.waiters]) end(why, code);
  }

  #registered(others) {
    for (const other of others) {
      const place = this.#place(other);
      if (place) Object.assign(place, { wanted: true, silence: 0 });
    }
    for (const place of [...this.#places.values()]) {
      if (place.session && !place.session.live) place.session.sendAgain(); // signaling may have lost it
      place.next?.sendAgain();
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
    if (typeof peer_id !== "string" || peer_id.length > MAX_TEXT || !["offer", "answer", "ice_candidate"].includes(type)) return;
    const place = this.#place(peer_id);
    if (!place) return;
    if (type === "ice_candidate") this.#candidate(place, payload);
    else if (wellFormed(payload)) {
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
    if (!session?.asks || (answer.session && answer.answers !== session.id)) return; // to an offer given up
    if (!session.waiting) return this.#restartAnswered(place, answer);
    place.held = undefined;
    clearTimeout(place.holding);
    session.answeredBy(answer);
    this.#addEarly(place);
  }

  #restartAnswered(place, answer) {
    const { session } = place;
    if (answer.session === session.remote.session) {
      if (answer.sdp !== session.remote.sdp) session.answeredBy(answer);
    } else if (!session.proven) {
      this.#lost(place, session, new MeshError("peer_lost", "the peer was restarted"));
    } // else the peer's own offer will come, and prove who it is
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
    const session = place.about(offer.session);
    if (session?.waiting) {
      if (!offer.session) return this.#hold(place, offer);
      if (less(this.id, place.id)) return session.sendAgain(); // the peer drops its own
    } else if (session && session.remote.session === offer.session) {
      const repeated = session.remote.sdp === offer.sdp;
      if (repeated && offer.session && !session.offerer) session.sendAgain(); // our answer was lost
      if (!repeated && session.live && session.restarts && this.#inPace(place, offer)) session.restartedBy(offer);
      if (repeated || offer.session) return;
    }
    if (this.#inPace(place, offer)) this.#accept(place, offer);
  }

  // inPace reports whether an offer may be taken up now. Of those that have to wait the last one counts.
  #inPace(place, offer) {
    const now = Date.now();
    place.pace = Math.max(place.pace, now);
    const wait = place.pace - now - (OFFER_BURST - 1) * OFFER_PACE;
    if (wait <= 0) {
      place.pace += OFFER_PACE;
      return true;
    }
    place.delayed = offer;
    place.delay ??= setTimeout(() => {
      const { delayed } = place;
      place.delay = place.delayed = undefined;
      this.#offered(place, delayed);
    }, wait);
    return false;
  }

  // hold delays the offer of a base peer, which knows no rule for glare and may be answering ours.
  #hold(place, offer) {
    place.held = offer;
    clearTimeout(place.holding);
    place.holding = setTimeout(() => place.held && this.#accept(place, place.held), GLARE_HOLD);
  }

  // accept answers an offer with a session that replaces the current one. A link to a proven peer stays until the new
  // session's peer is proven as well.
  #accept(place, offer) {
    const challenge = place.session?.proven;
    if (challenge && !(offer.session && offer.caps.includes("jsonl"))) {
      return this.#events.rejected(place.id, refusal("it had an identity, and this offer has no room for one"));
    }
    place.held = undefined;
    clearTimeout(place.holding);
    if (challenge) place.next?.close(new MeshError("peer_lost", "the peer made another offer"));
    else {
      clearTimeout(place.retry);
      this.#supersede(place, offer);
    }
    this.#newSession(place, challenge)?.answer(offer);
    this.#addEarly(place, challenge ? place.next : place.session);
  }

  #supersede(place, offer) {
    const old = place.session;
    if (!old) return;
    const error = replaced(old.remote, offer);
    if (!old.base || offer.session) return this.#drop(place, error);
    place.session = undefined;
    old.abandon(error);
    place.parked.push(old);
    if (place.parked.length > MAX_PARKED) place.parked.shift().close(error);
    this.#down(place, error);
  }

  #candidate(place, candidate) {
    if (typeof candidate.candidate !== "string" || candidate.candidate.length > MAX_CANDIDATE) return;
    const its = candidate.session ?? "";
    const session = place.about(its);
    if (session?.remote && session.remote.session === its) return session.addCandidate(candidate);
    place.early.push(candidate);
    if (place.early.length > MAX_EARLY) place.early.shift(); // of a session that came to nothing
  }

  #addEarly(place, session = place.session) {
    if (!session) return;
    for (const candidate of place.early) {
      if ((candidate.session ?? "") === session.remote.session) session.addCandidate(candidate);
    }
    place.early = [];
  }

  // ---- the life of a session ----

  #newSession(place, challenge = false) {
    const current = (f) => (...args) => place.has(session) && f(...args);
    const ends = { self: this.id, peer: place.id };
    let session;
    try {
      session = new Session(ends, this.#identity, this.#servers, this.#instance, {
        signal: (type, payload) => this.#signaling.send(type, place.id, payload),
        up: current(() => this.#up(place, session)),
        message: current((message, bytes) => this.#events.message(place.id, message, bytes)),
        cancel: current((id) => this.#events.cancel(place.id, id)),
        ownCard: () => this.#card,
        card: current((card) => this.#events.card(place.id, card)),
        rejected: current((error) => this.#events.rejected(place.id, error)),
        down: current((error) => this.#lost(place, session, error)),
      });
    } catch (error) {
      this.#giveUp(place, `the browser refuses to make a connection: ${error.message}`); // ICE servers, perhaps
    }
    place[challenge ? "next" : "session"] = session;
    return session;
  }

  #up(place, session) {
    if (session === place.next) {
      const old = place.session;
      if (!this.#identity.displaces(session.link.proof, old.link.proof)) {
        return this.#lost(place, session, refusal("it has shown another key than the one of the present link"));
      }
      place.next = undefined;
      this.#drop(place, replaced(old.remote, session.remote));
      place.session = session;
    }
    Object.assign(place, { up: true, wanted: false, since: Date.now() });
    this.#events.up(place.id, session.link.proof.key);
    for (const end of [...place.waiters]) end();
  }

  #down(place, error) {
    if (!place.up) return;
    place.up = false;
    this.#events.down(place.id, error);
  }

  // lost handles the end of a session.
  #lost(place, session, error) {
    if (error.code === "identity") this.#events.rejected(place.id, error);
    const { next, up } = place;
    place.next = undefined;
    if (session === next) return session.close(error); // the present link stays
    if (session.waiting) place.silence++;
    if (session.base) place.notBefore = Date.now() + BASE_WAIT;
    this.#drop(place, error);
    if (up) place.wanted = true;
    if (up && Date.now() - place.since > STEADY) place.failures = 0;
    if (error.final || place.silence >= MAX_SILENCE) this.#giveUp(place, error.message, error.code === "identity" ? "identity" : undefined);
    place.session = next; // an attempt like any other now
    if (next) return;
    if (place.held) return this.#accept(place, place.held);
    if (place.wanted) this.#redial(place, backoff(place.failures++, RETRY_MIN, RETRY_MAX));
    this.#tidy(place);
  }

  // drop ends all sessions with a peer.
  #drop(place, error) {
    const sessions = [place.session, place.next, ...place.parked.splice(0)];
    place.session = place.next = undefined;
    for (const session of sessions) session?.close(error);
    this.#down(place, error);
  }

  // setCard tells the peers, and those to come, what we say about ourselves: an object that does not change, or null.
  setCard(card) {
    this.#card = card;
    for (const { session } of this.#places.values()) session?.link?.tellCard();
  }

  // show shows the live peers a newer statement about us.
  show(statement) {
    for (const { session } of this.#places.values()) if (session?.live) session.link.renew(statement);
  }
}

function replaced(old, by) {
  return new MeshError("peer_lost", `the peer ${old?.instance === by.instance ? "made a new link" : "was restarted"}`);
}

// wellFormed reports whether an offer or answer has the types of docs/protocol.md.
function wellFormed({ sdp, session, instance, answers, sig, number }) {
  const text = (s) => s == null || (typeof s === "string" && s.length <= MAX_TEXT);
  return typeof sdp === "string" && [session, instance, answers, sig].every(text) && (number == null || Number.isSafeInteger(number));
}

function unavailable(id, why, code = "peer_unavailable") {
  return new MeshError(code, `no link to ${id}: ${why}`);
}

// less compares the bytes of two ids, as peers in all languages do. Strings here compare by UTF-16.
function less(a, b) {
  const [x, y] = [a, b].map((id) => new TextEncoder().encode(id));
  for (let i = 0; i < x.length && i < y.length; i++) if (x[i] !== y[i]) return x[i] < y[i];
  return x.length < y.length;
}
