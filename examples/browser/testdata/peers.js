// Who may end a link to a peer that has proven its key: not signaling, by whatever it sends. Two meshes in one page, and
// a signaling server of our own between them. The value is a list of failures.
(async () => {
  await command("quit"); // the page's own mesh would use the fakes, too
  const { Peers } = await import("/peers.js");
  const { Identity } = await import("/identity.js");
  const { KeyStore } = await import("/keystore.js");
  const failures = [];
  const check = (name, got, want) => {
    const [g, w] = [got, want].map((v) => JSON.stringify(v));
    if (g !== w) failures.push(`${name}: got ${g}, want ${w}`);
  };
  const settled = async (done, what) => {
    for (const end = Date.now() + 60_000; !done(); ) {
      if (Date.now() > end) throw new Error(`not within 60 s: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };

  // A session's browser can be made to report a state, as if the path were gone.
  const made = [];
  class FakeConnection extends RTCPeerConnection {
    constructor(...args) {
      super(...args);
      made.push(this);
    }
    get connectionState() {
      return this.says ?? super.connectionState;
    }
  }

  const real = { fetch, WebSocket, RTCPeerConnection };
  const held = []; // answers that the server keeps back, if holding
  let holding = false;
  const late = new Set(); // ids that do not get their list before they have got an offer
  const offers = []; // that it has relayed
  const sockets = new Map(); // by peer id
  let connecting;
  class Server {
    static OPEN = 1;
    readyState = 1;
    constructor() {
      this.id = connecting;
      queueMicrotask(() => this.onopen());
    }
    send(text) {
      const message = JSON.parse(text);
      if (message.type === "register") {
        const peers = [...sockets.keys()].filter((id) => id !== this.id);
        sockets.set(this.id, this);
        const list = { type: "peer_list", peer_id: "registry", payload: { peers } };
        if (late.has(this.id)) this.list = list;
        else this.say(list);
        return;
      }
      if (message.type === "offer") offers.push(message);
      const to = sockets.get(message.target_id);
      if (message.type === "answer" && holding) held.push(message);
      else to?.say({ ...message });
      if (message.type === "offer" && to?.list) to.say(to.list);
    }
    say(message) {
      setTimeout(() => this.onmessage({ data: JSON.stringify(message) }));
    }
    close() {
      if (sockets.get(this.id) === this) sockets.delete(this.id);
    }
  }
  Object.assign(window, {
    fetch: async (url, { headers = {} }) => {
      connecting = headers["X-API-Key"] ?? connecting;
      return new Response(JSON.stringify({ token: "t", peer_id: connecting, iceServers: [] }));
    },
    WebSocket: Server,
    RTCPeerConnection: FakeConnection,
  });

  async function join(id, key, settings) {
    const seen = [];
    const identity = Identity.open({ name: key, mesh: "peers", ...settings }, KeyStore.open);
    const peers = new Peers("http://localhost/", id, identity, {
      signaling: (state, error) => error && seen.push(`${state} ${error.message}`),
      up: (peer) => seen.push(`+ ${peer}`),
      down: (peer) => seen.push(`- ${peer}`),
      rejected: (peer, error) => seen.push(`${error.code} ${error.message}`),
      message() {},
      cancel() {},
      card() {},
    });
    return { peers, seen, identity, close: () => peers.close(new Error("done")) };
  }
  const forged = (to, type, payload) => sockets.get(to).say({ type, peer_id: "ann", payload });
  const fresh = async () => {
    const pc = new RTCPeerConnection();
    pc.createDataChannel("mesh");
    await pc.setLocalDescription();
    return pc;
  };

  // play is the same under each policy; reasons are why a peer without a key and one with another key are refused.
  // replaceKey plays what comes last under some.
  async function play(policy, reasons, replaceKey) {
    const bob = await join("bob", "b", { policy });
    await (await bob.identity).forget("ann");
    await settled(() => sockets.has("bob"), "bob");
    const ann = await join("ann", "a");
    await settled(() => bob.seen.includes("+ ann") && ann.seen.includes("+ bob"), "a link");
    const link = bob.peers.link("ann");
    check("proven", link.proof.key, (await ann.identity).key);

    // Offers that the signaling server makes up, in both framings, and all else that it may say.
    const pcs = [];
    for (const extras of [{}, { session: "x" }, { session: "x1", caps: [] }, { session: "x2", caps: ["jsonl"] }, { session: "x3", caps: ["jsonl"], instance: "i" }]) {
      const pc = await fresh();
      pcs.push(pc);
      forged("bob", "offer", { sdp: pc.localDescription.sdp, ...extras });
    }
    forged("bob", "offer", { sdp: "v=0\r\n", session: "x4", caps: ["jsonl"] });
    for (const answers of ["x", undefined]) forged("bob", "answer", { sdp: pcs[0].localDescription.sdp, session: "y", answers });
    for (const session of [undefined, "x3", "y"]) forged("bob", "ice_candidate", { candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host", sdpMid: "0", sdpMLineIndex: 0, session });
    forged("bob", "error", { code: "peer_unavailable", target_id: "ann" });
    await settled(() => bob.seen.filter((line) => line.includes("no room")).length === 3, "the refusals");
    await link.send({ type: "still here" });

    // A repair in which signaling answers in the peer's place, as a peer does that was restarted.
    holding = true;
    offers.splice(0);
    const mine = made.find((pc) => pc.localDescription?.type === "offer" && pc.onconnectionstatechange && pc.signalingState === "stable");
    mine.says = "disconnected";
    mine.onconnectionstatechange();
    await settled(() => offers.length > 0 && held.length > 0, "a restart");
    for (const session of ["y", undefined]) {
      sockets.get("ann").say({ type: "answer", peer_id: "bob", payload: { sdp: pcs[0].localDescription.sdp, caps: ["jsonl"], session, answers: offers[0].payload.session } });
    }
    holding = false;
    held.splice(0).forEach((message) => sockets.get("ann").say(message));
    await settled(() => mine.signalingState === "stable", "its answer");
    mine.says = undefined;
    mine.onconnectionstatechange();
    check("nobody else ends it", ann.seen.filter((line) => line.startsWith("-")), []);

    // Offers without end, of a peer that is not known.
    made.splice(0, made.length, mine);
    for (let i = 0; i < 20; i++) sockets.get("bob").say({ type: "offer", peer_id: "dan", payload: { sdp: pcs[0].localDescription.sdp, caps: ["jsonl"], session: `d${i}` } });
    await new Promise((resolve) => setTimeout(resolve)); // behind them
    check("connections that offers cost", made.length - 1, 4);

    // A peer that links all the way, without a key and with another one.
    for (const [key, why] of Object.entries(reasons)) {
      const eve = await join("ann", key);
      await settled(() => bob.seen.at(-1)?.startsWith(why), why);
      eve.close();
    }
    check("the link stays", [bob.peers.link("ann") === link, bob.seen.filter((line) => line.startsWith("-"))], [true, []]);
    await link.send({ type: "still here" });

    // The peer itself, restarted.
    const again = await join("ann", "a");
    await settled(() => bob.seen.filter((line) => line === "+ ann").length === 2, "the restarted peer");
    check("its end and its return", bob.seen.filter((line) => /^[+-]/.test(line)), ["+ ann", "- ann", "+ ann"]);
    check("another link", bob.peers.link("ann") === link, false);
    await replaceKey?.(bob);
    pcs.forEach((pc) => pc.close());
    for (const { close } of [ann, again, bob]) close();
  }

  // The first key after the old one was forgotten takes over, while the old link is up.
  async function afterForgetting(bob) {
    await (await bob.identity).forget("ann");
    const eve = await join("ann", "e");
    await settled(() => bob.seen.filter((line) => line === "+ ann").length === 3, "another key after the old one was forgotten");
    check("its key", bob.peers.link("ann").proof.key, (await eve.identity).key);
    eve.close();
  }

  // An offer that comes before the list.
  async function beforeTheList() {
    const bob = await join("bob", "b");
    await settled(() => sockets.has("bob"), "bob");
    late.add("ann");
    const ann = await join("ann", "a");
    await settled(() => sockets.get("ann")?.list, "ann");
    bob.peers.connect("ann").catch(() => {});
    await settled(() => [ann, bob].every(({ seen }) => seen.length > 0), "a link");
    check("what both see", [ann.seen, bob.seen], [["+ bob"], ["+ ann"]]);
    for (const { close } of [ann, bob]) close();
    late.clear();
  }

  const another = "identity it has shown another key than the one of the present link";
  try {
    const none = "identity it has shown no identity, and this browser knows a key of it";
    await play("known", { "": none, e: "identity its key has changed: " }, afterForgetting);
    await play("off", { "": another, e: another });
    await beforeTheList();
  } catch (error) {
    failures.push(String(error.stack));
  } finally {
    Object.assign(window, real);
  }
  return failures;
})();
