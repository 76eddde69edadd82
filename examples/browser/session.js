// One PeerConnection to one peer: offer, answer and candidates, until its data channel becomes a Link, and then what
// repairs that.

import { MeshError } from "./errors.js";
import { Link } from "./link.js";
import { MAX_CANDIDATES, readSDP } from "./sdp.js";

const LABEL = "mesh";
const CAPS = ["jsonl", "drain", "restart"]; // the extensions of the peer link that we know
const CONNECT_TIMEOUT = 30_000;
const RECOVERY_TIMEOUT = 60_000; // of a link that is interrupted
const RESTART_MIN = 1_000; // between two attempts to repair it
const RESTART_MAX = 10_000;
const READY_POLL = 20; // ms between two looks at a channel's true state
const MAX_STEPS = 256; // of the negotiation that wait for their turn

export function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// A Session calls:
//   signal(type, payload)       to send something to the peer through signaling
//   ownCard(), up(), message(object, bytes), cancel(requestID), card(card), rejected(error)    as its Link does
//   down(error)                 once, unless close or abandon came first
export class Session {
  id = randomHex(8);
  offerer = false;
  answered = false; // offerer: the first answer has come
  remote; // the peer's last description: {sdp, caps, session, instance, number, sig}
  link;

  #ends; // {self, peer}: the ids of both ends
  #identity;
  #pc;
  #channel;
  #instance;
  #events;
  #ended = false;
  #deadline;
  #steps = Promise.resolve(); // of the negotiation, one after the other
  #waitingSteps = 0;
  #fingerprint; // of the peer's certificate, as its first description says
  #number = 0; // of our last restart offer, or of the peer's
  #description; // ours, as [type, payload]
  #candidates = []; // ours, since then
  #taken = 0; // of the peer's, in and since its last description
  #interrupted = false;
  #restart;
  #restarts = 0;

  // ends are the ids {self, peer}; the identity is that of identity.js.
  constructor(ends, identity, iceServers, instance, events) {
    this.#ends = ends;
    this.#identity = identity;
    this.#instance = instance;
    this.#events = events;
    this.#pc = new RTCPeerConnection({ iceServers });
    this.#pc.onicecandidate = ({ candidate }) => candidate?.candidate && this.#candidate(candidate);
    this.#pc.ondatachannel = ({ channel }) => this.#use(channel);
    this.#pc.onconnectionstatechange = () => this.#stateChanged(this.#pc.connectionState);
    this.#setDeadline(CONNECT_TIMEOUT, `no link within ${CONNECT_TIMEOUT / 1000} s`);
  }

  // base reports whether the peer is known to be a base peer, whose descriptions name no session.
  get base() {
    return this.remote !== undefined && !this.remote.session;
  }
  get live() {
    return this.link?.live ?? false;
  }
  // proven reports whether this is a link to a peer that has proven its key. It does not end because signaling says so.
  get proven() {
    return this.live && this.link.proof.key !== "";
  }
  // waiting reports whether our first offer is still unanswered.
  get waiting() {
    return this.offerer && !this.answered;
  }
  // asks reports whether any offer of ours is unanswered.
  get asks() {
    return this.waiting || (this.offerer && this.#pc.signalingState === "have-local-offer");
  }
  // restarts reports whether the peer may offer to restart ICE.
  get restarts() {
    return !this.offerer && this.#can("restart");
  }

  offer() {
    this.offerer = true;
    this.#use(this.#pc.createDataChannel(LABEL));
    this.#step(() => this.#describe("offer", { caps: CAPS }));
  }

  answer(offer) {
    this.remote = offer;
    this.#step(() => this.#answer(offer));
  }

  async #answer(offer) {
    await this.#apply("offer", offer);
    const caps = CAPS.filter((cap) => offer.caps.includes(cap));
    await this.#describe("answer", offer.session ? { answers: offer.session, caps } : {});
  }

  // answeredBy takes the answer to our last offer.
  answeredBy(answer) {
    if (this.waiting) {
      this.answered = true;
      this.remote = answer;
      this.#step(() => this.#apply("answer", answer));
      return;
    }
    this.#step(async () => {
      if (this.#pc.signalingState === "have-local-offer" && (await this.#signed("answer", answer))) await this.#apply("answer", answer);
    });
  }

  // restartedBy takes an offer to restart ICE.
  restartedBy(offer) {
    this.#step(async () => {
      if (offer.sdp === this.remote.sdp) return this.sendAgain(); // our answer was lost
      if (!(await this.#signed("offer", offer))) return;
      this.#number = offer.number ?? 0;
      await this.#answer(offer);
      if (this.live) this.#repair();
    });
  }

  // addCandidate may be called as soon as remote is set.
  addCandidate({ candidate, sdpMid, sdpMLineIndex }) {
    this.#step(async () => {
      if (++this.#taken > MAX_CANDIDATES) return;
      await this.#pc.addIceCandidate({ candidate, sdpMid, sdpMLineIndex }).catch(() => {}); // the others may do
    });
  }

  // sendAgain repeats description and candidates, in case they were lost or dropped.
  sendAgain() {
    if (!this.#description) return; // not made yet
    this.#events.signal(...this.#description);
    for (const payload of this.#candidates) this.#events.signal("ice_candidate", payload);
  }

  close(error) {
    this.abandon(error);
    this.#pc.close();
  }

  // abandon ends the link but not the connection.
  abandon(error) {
    this.#ended = true;
    clearTimeout(this.#deadline);
    clearTimeout(this.#restart);
    this.link?.abandon(error);
  }

  // can reports whether the peer knows an extension.
  #can(cap) {
    return this.remote?.caps.includes(cap) ?? false;
  }

  #setDeadline(ms, reason) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#fail(reason), ms);
  }

  // step does something after all that was begun before it.
  #step(work) {
    if (this.#ended || this.#waitingSteps >= MAX_STEPS) return;
    this.#waitingSteps++;
    this.#steps = this.#steps.then(async () => {
      try {
        if (!this.#ended) await work();
      } catch (error) {
        if (error instanceof MeshError) this.#failWith(error);
        else this.#fail(`the browser refuses a step of the connection: ${error.message}`);
      } finally {
        this.#waitingSteps--;
      }
    });
  }

  // apply applies a description of the peer's. Its certificate is the same in all of them, and what it knows stands in
  // the first one, since caps are not signed.
  async #apply(type, description) {
    let read;
    try {
      read = readSDP(description.sdp);
      const same = !this.#fingerprint || this.#fingerprint.join() === read.fingerprint.join();
      if (!same) throw new Error("it has the fingerprint of another certificate");
    } catch (error) {
      throw Object.assign(new MeshError("malformed", `its ${type} cannot be applied: ${error.message}`), { final: true });
    }
    this.remote = { ...description, caps: this.remote.caps };
    this.#fingerprint = read.fingerprint;
    this.#taken = read.candidates;
    await this.#pc.setRemoteDescription({ type, sdp: read.sdp });
  }

  // describe makes a description of ours and sends it.
  async #describe(type, extensions) {
    this.#candidates = [];
    this.#description = undefined;
    await this.#pc.setLocalDescription();
    if (this.#ended) return;
    const { sdp } = this.#pc.localDescription;
    const payload = { sdp, ...extensions, session: this.id, instance: this.#instance };
    if (this.live) {
      const sig = await this.#identity.sign({ type, ...this.#way(true), number: this.#number, sdp });
      Object.assign(payload, { number: this.#number, sig });
    }
    this.#description = [type, payload];
    this.sendAgain();
  }

  // way returns from where to where a description goes that is ours, or theirs.
  #way(ours) {
    const { self, peer } = this.#ends;
    const [near, far] = [{ id: self, session: this.id }, { id: peer, session: this.remote.session }];
    const [from, to] = ours ? [near, far] : [far, near];
    return { own: from.id, other: to.id, ownSession: from.session, otherSession: to.session };
  }

  // signed reports whether a restart's description may be applied. If the peer has proven its key, it has signed the
  // description, and no earlier one can be shown again: signaling must not be able to end the link.
  async #signed(type, { sdp, number, sig }) {
    if (!this.proven) return true;
    const fresh = type === "offer" ? number > this.#number : number === this.#number;
    if (fresh && (await this.#identity.signed({ type, ...this.#way(false), number, sdp }, this.link.proof, sig))) return true;
    this.#events.rejected(new MeshError("identity", `a restart without the peer's signature was dropped`));
    return false;
  }

  // binding returns what both ends sign. Its certificates are known by the fingerprints of the two SDPs, which the
  // browser has enforced by now.
  #binding() {
    const { self, peer } = this.#ends;
    return {
      offerer: this.offerer, own: self, other: peer, ownSession: this.id, otherSession: this.remote.session,
      ownCert: readSDP(this.#pc.localDescription.sdp).fingerprint, otherCert: this.#fingerprint,
    };
  }

  #candidate({ candidate, sdpMid, sdpMLineIndex }) {
    if (this.#candidates.length >= MAX_CANDIDATES) return;
    const payload = { candidate, sdpMid, sdpMLineIndex, session: this.id, instance: this.#instance };
    this.#candidates.push(payload);
    if (this.#description) this.#events.signal("ice_candidate", payload);
  }

  #use(channel) {
    const reliable = channel.ordered && channel.maxRetransmits === null && channel.maxPacketLifeTime === null;
    if (channel.label !== LABEL || !reliable || this.#channel) return channel.close();
    this.#channel = channel;
    // The answer, which comes before the channel opens, says which framing is used.
    channel.onopen = () => this.#opened(channel);
    channel.onclose = () => this.#fail("the data channel was closed");
    if (channel.readyState === "open") this.#opened(channel);
  }

  #opened(channel) {
    if (this.#ended || this.link) return;
    const binding = this.#binding();
    const trust = {
      show: () => this.#identity.show(binding),
      verify: (shown) => this.#identity.verify(binding, shown),
      renew: (proof, statement) => this.#identity.renew(proof, binding.other, statement),
    };
    this.link = new Link(channel, this.#can("jsonl"), this.#pc.sctp.maxMessageSize, trust, {
      ...this.#events,
      up: () => {
        clearTimeout(this.#deadline);
        this.#events.up();
      },
      down: (error) => this.#down(error),
    });
    this.#ready(channel).then(
      () => this.link.open(),
      (error) => this.#fail(`the browser refuses to tell of the channel: ${error.message}`),
    );
  }

  // ready resolves once the channel takes data. Chromium announces a channel of the peer as open a moment before it
  // is, and silently drops what a page sends in that moment, which lasts as long as the thread that announces the
  // channel is held up. The statistics have the channel's true state, possibly before the channel itself, which is
  // "connecting" again by then; Link goes on at its next "open" event. The peer's first line would prove the same,
  // but a base peer may have nothing to send.
  async #ready(channel) {
    while (!this.#ended) {
      const reports = [...(await this.#pc.getStats()).values()];
      const ours = reports.find((r) => r.type === "data-channel" && r.dataChannelIdentifier === channel.id);
      if (ours?.state !== "connecting") return; // a browser without this report is believed
      await new Promise((resolve) => setTimeout(resolve, READY_POLL));
    }
  }

  #stateChanged(state) {
    if (state === "connected") this.#repaired();
    // "disconnected" may pass. A base peer, however, ends the link then, and forgets us if we do not.
    const cut = state === "failed" || state === "disconnected";
    if (cut && this.live && this.#can("restart")) this.#repair();
    else if (state === "failed" || (cut && this.base)) this.#fail("the peer cannot be reached");
  }

  // repair begins to repair the link, or leaves that to the other end, within a deadline.
  #repair() {
    if (this.#interrupted || this.#pc.connectionState === "connected") return;
    this.#interrupted = true;
    this.#setDeadline(RECOVERY_TIMEOUT, `the peer cannot be reached for ${RECOVERY_TIMEOUT / 1000} s`);
    this.#restarts = 0;
    if (this.offerer) this.#planRestart(); // only the first offerer restarts, so that restarts never cross
  }

  #repaired() {
    if (!this.#interrupted) return;
    this.#interrupted = false;
    clearTimeout(this.#deadline);
    clearTimeout(this.#restart);
  }

  #planRestart() {
    const wait = Math.min(RESTART_MAX, RESTART_MIN * 2 ** this.#restarts++) * (1 + Math.random()) / 2;
    this.#restart = setTimeout(() => {
      this.#step(() => this.#restartICE());
      this.#planRestart();
    }, wait);
  }

  async #restartICE() {
    if (!this.#interrupted) return;
    if (this.asks) return this.sendAgain(); // there is one offer at a time
    this.#number++;
    this.#pc.restartIce();
    await this.#describe("offer", { caps: CAPS });
  }

  #fail(reason) {
    this.#failWith(new MeshError("peer_lost", reason));
  }

  #failWith(error) {
    if (this.link) this.link.close(error);
    else this.#down(error);
  }

  #down(error) {
    if (this.#ended) return;
    this.close(error);
    this.#events.down(error);
  }
}
