// One PeerConnection to one peer: offer, answer and candidates, until its data channel becomes a Link.

import { Link, MeshError } from "./link.js";

const LABEL = "mesh";
const CAPS = ["jsonl", "drain"]; // the extensions of the peer link that we know
const CONNECT_TIMEOUT = 30_000;
const READY_POLL = 20; // ms between two looks at a channel's true state
const MAX_CANDIDATES = 128; // kept of our own, and taken of the peer's

export function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// A Session calls:
//   signal(type, payload)       to send something to the peer through signaling
//   up(), message(object, bytes), cancel(requestID), rejected(error)    as its Link does
//   down(error)                 once, unless close or abandon came first
export class Session {
  id = randomHex(8);
  offerer = false;
  answered = false; // offerer: the answer has come
  remote; // the peer's description: {sdp, caps, session, instance}
  link;

  #pc;
  #channel;
  #instance;
  #events;
  #ended = false;
  #deadline;
  #description; // ours, as [type, payload]
  #candidates = []; // ours
  #taken = 0; // of the peer's

  constructor(iceServers, instance, events) {
    this.#instance = instance;
    this.#events = events;
    this.#pc = new RTCPeerConnection({ iceServers });
    this.#pc.onicecandidate = ({ candidate }) => candidate?.candidate && this.#candidate(candidate);
    this.#pc.ondatachannel = ({ channel }) => this.#use(channel);
    this.#pc.onconnectionstatechange = () => this.#stateChanged(this.#pc.connectionState);
    this.#deadline = setTimeout(() => this.#fail(`no link within ${CONNECT_TIMEOUT / 1000} s`), CONNECT_TIMEOUT);
  }

  // base reports whether the peer is known to be a base peer, whose descriptions name no session.
  get base() {
    return this.remote !== undefined && !this.remote.session;
  }
  get live() {
    return this.link?.live ?? false;
  }
  // waiting reports whether our offer is still unanswered.
  get waiting() {
    return this.offerer && !this.answered;
  }

  offer() {
    this.offerer = true;
    this.#use(this.#pc.createDataChannel(LABEL));
    this.#try(async () => {
      await this.#pc.setLocalDescription();
      this.#describe("offer", { caps: CAPS });
    });
  }

  answer(offer) {
    this.remote = offer;
    this.#try(async () => {
      await this.#pc.setRemoteDescription({ type: "offer", sdp: offer.sdp });
      await this.#pc.setLocalDescription();
      const caps = CAPS.filter((cap) => offer.caps.includes(cap));
      this.#describe("answer", offer.session ? { answers: offer.session, caps } : {});
    });
  }

  answeredBy(answer) {
    this.answered = true;
    this.remote = answer;
    this.#try(() => this.#pc.setRemoteDescription({ type: "answer", sdp: answer.sdp }));
  }

  // addCandidate may be called as soon as remote is set: the browser executes these calls in order.
  addCandidate({ candidate, sdpMid, sdpMLineIndex }) {
    if (this.#ended || ++this.#taken > MAX_CANDIDATES) return;
    this.#pc.addIceCandidate({ candidate, sdpMid, sdpMLineIndex }).catch(() => {}); // the others may do
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
    this.link?.abandon(error);
  }

  get #stream() {
    return this.remote?.caps.includes("jsonl") ?? false;
  }

  async #try(step) {
    try {
      await step();
    } catch (error) {
      this.#fail(`the browser refuses a step of the connection: ${error.message}`);
    }
  }

  #describe(type, extensions) {
    if (this.#ended) return;
    const { sdp } = this.#pc.localDescription;
    this.#description = [type, { sdp, ...extensions, session: this.id, instance: this.#instance }];
    this.sendAgain();
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
    this.link = new Link(channel, this.#stream, this.#pc.sctp.maxMessageSize, {
      ...this.#events,
      up: () => {
        clearTimeout(this.#deadline);
        this.#events.up();
      },
      down: (error) => this.#down(error),
    });
    this.#try(async () => {
      await this.#ready(channel);
      this.link.open();
    });
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
    // "disconnected" may pass. A base peer, however, ends the link then, and forgets us if we do not.
    if (state === "failed" || (state === "disconnected" && this.base)) this.#fail("the peer cannot be reached");
  }

  #fail(reason) {
    const error = new MeshError("peer_lost", reason);
    if (this.link) this.link.close(error);
    else this.#down(error);
  }

  #down(error) {
    if (this.#ended) return;
    this.close(error);
    this.#events.down(error);
  }
}
