// Two sessions whose browser announces a channel as open some time before it is, as Chromium does when one of its
// threads is held up: until then it drops what is sent and holds what arrives. The value is a list of failures.
(async () => {
  const { Session } = await import("/session.js");
  const { Identity } = await import("/identity.js");
  const identity = new Identity();
  const Real = RTCPeerConnection;
  let early; // statistics to come that tell of a channel that is not open yet
  let dropped; // messages sent to it
  window.RTCPeerConnection = class extends Real {
    #arrived = [];
    #answers = false;
    constructor(...args) {
      super(...args);
      this.addEventListener("datachannel", ({ channel }) => {
        this.#answers = true;
        const send = channel.send.bind(channel);
        channel.send = (data) => (early > 0 ? dropped++ : send(data));
        let handle;
        Object.defineProperty(channel, "onmessage", { set: (f) => (handle = f) });
        channel.addEventListener("message", (event) => (early > 0 ? this.#arrived.push(() => handle(event)) : handle(event)));
      });
    }
    async getStats() {
      const reports = await super.getStats();
      if (!this.#answers) return reports;
      if (--early <= 0) for (const handle of this.#arrived.splice(0)) handle();
      return new Map([...reports].map(([id, r]) => [id, early > 0 && r.type === "data-channel" ? { ...r, state: "connecting" } : r]));
    }
  };

  // link makes two sessions and resolves once there is a link and each has what the other sent.
  const link = (base) =>
    new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error("no link within 60 s")), 60_000);
      const sessions = [];
      let open = 2;
      const make = (self, other) => {
        let ups = 0;
        const events = {
          signal: (type, payload) => {
            if (base) for (const name of ["session", "instance", "caps", "answers"]) delete payload[name];
            payload.caps ??= []; // as Peers does
            if (type === "offer") sessions[other].answer(payload);
            else if (type === "answer") sessions[other].answeredBy(payload);
            else sessions[other].addCandidate(payload);
          },
          up: () => {
            if (++ups > 1) reject(new Error("up twice"));
            sessions[self].link.send({ type: `from ${self}` }).catch(reject);
          },
          message: ({ type }) => {
            if (ups === 0) reject(new Error("a message before up"));
            if (type === `from ${other}` && --open === 0) resolve(sessions);
          },
          ownCard: () => null,
          down: reject,
        };
        return new Session({ self: `${self}`, peer: `${other}` }, identity, [], "i", events);
      };
      sessions.push(make(0, 1), make(1, 0));
      sessions[0].offer();
    });

  const failures = [];
  for (const [name, base] of [["extended", false], ["base", true]]) {
    early = 3;
    dropped = 0;
    try {
      for (const session of await link(base)) session.close(new Error("done"));
    } catch (error) {
      failures.push(`${name}: ${error.message}`);
    }
    if (dropped > 0) failures.push(`${name}: ${dropped} messages were sent too early`);
    if (early > 0) failures.push(`${name}: statistics were not asked for`);
  }
  window.RTCPeerConnection = Real;
  return failures;
})();
