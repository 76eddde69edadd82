// A base peer, which knows no extension, next to the mesh of the page. The value is a list of failures.
(async () => {
  const failures = [];
  const within = (promise, what) =>
    Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`not within 60 s: ${what}`)), 60_000))]);

  class BasePeer {
    pcs = [];
    received = [];
    constructor(id, answers = true) {
      this.id = id;
      this.answers = answers;
    }
    async join() {
      const response = await fetch("/api/token", { method: "POST", headers: { "X-API-Key": this.id } });
      const { token } = await response.json();
      this.ws = new WebSocket(`ws://${location.host}/ws?token=${token}`);
      this.ws.onmessage = ({ data }) => this.signaled(JSON.parse(data)).catch((error) => failures.push(String(error)));
      await new Promise((resolve) => (this.ws.onopen = resolve));
      this.say("register", undefined, {});
    }
    say(type, target_id, payload) {
      this.ws.send(JSON.stringify({ type, peer_id: this.id, target_id, payload }));
    }
    connection(to) {
      const pc = new RTCPeerConnection();
      this.pcs.push((this.pc = pc));
      pc.onicecandidate = ({ candidate: c }) =>
        c?.candidate && this.say("ice_candidate", to, { candidate: c.candidate, sdpMid: c.sdpMid, sdpMLineIndex: c.sdpMLineIndex });
      pc.ondatachannel = ({ channel }) => this.use(channel);
      return pc;
    }
    use(channel) {
      this.channel = channel;
      channel.onmessage = ({ data }) => {
        if (typeof data !== "string" || !data.startsWith("{")) failures.push(`extended data reached a base peer: ${data}`);
        this.received.push(data);
      };
    }
    async offer(to) {
      const pc = this.connection(to);
      this.use(pc.createDataChannel("mesh"));
      await pc.setLocalDescription();
      this.say("offer", to, { sdp: pc.localDescription.sdp });
    }
    async signaled({ type, peer_id, payload }) {
      if (type === "offer") {
        this.offered = true;
        if (!this.answers) return;
        const pc = this.connection(peer_id);
        await pc.setRemoteDescription({ type: "offer", sdp: payload.sdp });
        await pc.setLocalDescription();
        this.say("answer", peer_id, { sdp: pc.localDescription.sdp });
      } else if (type === "answer") await this.pc.setRemoteDescription({ type: "answer", sdp: payload.sdp });
      else if (type === "ice_candidate") await this.pc?.addIceCandidate(payload).catch(() => {});
    }
    leave() {
      this.ws.close();
      for (const pc of this.pcs) pc.close();
    }
  }

  const lines = [];
  const line = async (pattern) => {
    for (;;) {
      lines.push(...takeLines());
      const i = lines.findIndex((l) => pattern.test(l));
      if (i >= 0) return lines.splice(0, i + 1)[i];
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const talk = async (peer) => {
    await within(line(new RegExp(`^\\+ ${peer.id}$`)), `+ ${peer.id}`);
    command(`send ${peer.id} {"type":"chat","payload":"${"x".repeat(60_000)}"}`);
    command(`request ${peer.id} {"type":"x_request","request_id":"r"}`);
    command(`cancel r`);
    command(`send ${peer.id} {"type":"chat","payload":"${"x".repeat(65_536)}"}`);
    await within(line(new RegExp(`^error: too_large: not sent to ${peer.id}: `)), "too_large");
    peer.channel.send('{"type":"ping","request_id":"p"}');
    while (!peer.received.some((data) => data.includes('"pong"'))) await new Promise((resolve) => setTimeout(resolve, 10));
    if (peer.received[0].length < 60_000) failures.push(`${peer.id} received ${peer.received[0]}`);
  };

  try {
    await within(line(/^joined/), "joined");
    const offering = new BasePeer("base-offers");
    await offering.join();
    await offering.offer("page");
    await talk(offering);
    // It loses its signaling, say, and comes again: the old connection must not end before the new one is there.
    offering.received = [];
    const old = offering.pc;
    await offering.offer("page");
    await within(line(/^- base-offers$/), "- base-offers");
    await talk(offering);
    if (old.connectionState !== "connected") failures.push(`the superseded connection is ${old.connectionState}`);
    offering.leave();
    await within(line(/^- base-offers$/), "- base-offers");

    const answering = new BasePeer("base-answers");
    await answering.join();
    command("connect base-answers");
    await talk(answering);
    answering.leave();

    // Both offer, and it does not answer ours: after a while its own is answered.
    const stubborn = new BasePeer("base-stubborn", false);
    await stubborn.join();
    command("connect base-stubborn");
    while (!stubborn.offered) await new Promise((resolve) => setTimeout(resolve, 10));
    await stubborn.offer("page");
    await talk(stubborn);
    stubborn.leave();
  } catch (error) {
    failures.push(`${error.message}; lines: ${lines.join(" | ").slice(0, 500)}`);
  }
  return failures;
})();
