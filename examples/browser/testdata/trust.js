// Links between two sessions with identities, and attacks on them by the signaling server. The value is a list of
// failures.
(async () => {
  const { Session } = await import("/session.js");
  const { Identity } = await import("/identity.js");
  const { KeyStore } = await import("/keystore.js");
  const failures = [];
  const check = (name, got, want) => {
    const [g, w] = [got, want].map((v) => JSON.stringify(v));
    if (g !== w) failures.push(`${name}: got ${g}, want ${w}`);
  };
  const within = (promise, what) =>
    Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`not within 60 s: ${what}`)), 60_000))]);
  const open = (name, settings) => Identity.open({ name, mesh: "trust", ...settings }, KeyStore.open);

  // ---- the key ----

  const [ann, bob] = [await open("ann"), await open("bob")];
  {
    const [one, two] = await Promise.all([open("both"), open("both")]); // two tabs
    check("two tabs have one key", one.key, two.key);
    check("and each name its own", ann.key === one.key, false);
    const { pair } = await (await KeyStore.open()).get("own", ["trust", "ann"]);
    check("the key stays in the browser", [pair.privateKey.extractable, await crypto.subtle.exportKey("pkcs8", pair.privateKey).catch((e) => e.name)], [false, "InvalidAccessError"]);
    const real = indexedDB.open;
    IDBFactory.prototype.open = () => {
      throw new Error("denied");
    };
    check("without a store", (await open("ann")).lacks, "denied");
    check("where identities are needed", await open("ann", { policy: "known" }).catch((e) => [e.code, e.message]), ["identity", "this browser cannot do it: denied"]);
    IDBFactory.prototype.open = real;
    const known = await open("ann", { policy: "known" });
    await known.forget("eve");
    const link = (own, other) => ({ offerer: own < other, own, other, ownCert: new Uint8Array(32), otherCert: new Uint8Array(32), ownSession: own, otherSession: other });
    const show = (identity) => identity.show(link("eve", "ann"));
    check("pinned", (await known.verify(link("ann", "eve"), await show(bob))).key, bob.key);
    const again = await open("another", { policy: "known" });
    check("for all tabs", await again.verify(link("ann", "eve"), await show(ann)).catch((e) => e.message.slice(0, 19)), "its key has changed");
    check("counted", await (await KeyStore.open()).count("known", "trust"), 1);
    await known.forget("eve");
    check("forgotten", await (await KeyStore.open()).count("known", "trust"), 0);
  }

  // ---- links ----

  // ends makes a session for each end; relay carries what one signals to the other.
  function ends(identities, relay = (_, type, payload, deliver) => deliver(type, payload)) {
    const pair = ["ann", "bob"].map((self, i) => {
      const end = { self, seen: [], waiters: [], signaled: [] };
      const note = (...what) => {
        end.seen.push(what);
        end.waiters.splice(0).forEach((wake) => wake());
      };
      end.until = (kind) => within((async () => {
        while (!end.seen.some(([k]) => k === kind)) await new Promise((wake) => end.waiters.push(wake));
        return end.seen.find(([k]) => k === kind)[1];
      })(), `${self}: ${kind}, after ${JSON.stringify(end.seen)}`);
      end.session = new Session({ self, peer: ["bob", "ann"][i] }, identities[i], [], "i", {
        signal: (type, payload) => {
          end.signaled.push([type, payload]);
          relay(i, type, { caps: [], ...payload }, (t, p) => pair[1 - i].take(t, p));
        },
        up: () => note("up", end.session.link.proof.key),
        message: ({ type }) => note("message", type),
        cancel() {},
        ownCard: () => null,
        card() {},
        rejected: (error) => note("rejected", error.code),
        down: (error) => note("down", error.code),
      });
      end.take = (type, payload) => {
        const { session } = end;
        if (type === "ice_candidate") session.addCandidate(payload);
        else if (type === "answer") session.answeredBy(payload);
        else if (session.live) session.restartedBy(payload);
        else session.answer(payload);
      };
      return end;
    });
    pair[0].session.offer();
    return pair;
  }
  const linked = async (...args) => {
    const [a, b] = ends(...args);
    await Promise.all([a.until("up"), b.until("up")]);
    return [a, b];
  };
  const close = (...sides) => sides.forEach(({ session }) => session.close(new Error("done")));

  {
    const [a, b] = await linked([ann, bob]);
    check("each has proven its key", [a.session.link.proof.key, b.session.link.proof.key], [bob.key, ann.key]);
    close(a, b);
    const [c, d] = await linked([ann, new Identity()]);
    check("one has none", [c.session.link.proof, d.session.proven, d.session.link.proof], [{ key: "" }, false, { key: "" }]);
    close(c, d);
  }

  // ---- a man in the middle ----

  // middle ends both connections itself, and passes on all that comes over them.
  async function middle(identities) {
    const [pcs, read, channels] = [[new RTCPeerConnection(), new RTCPeerConnection()], [], []];
    const early = [[], []]; // candidates
    const use = (channel, i) => {
      channels[i] = channel;
      channel.binaryType = "arraybuffer";
      channel.onmessage = async ({ data }) => {
        read.push(new TextDecoder().decode(data));
        while (channels[1 - i]?.readyState !== "open") await new Promise((resolve) => setTimeout(resolve, 5));
        channels[1 - i].send(data);
      };
    };
    const sessions = [];
    const relay = async (i, type, payload, deliver) => {
      sessions[i] = payload.session;
      if (type === "ice_candidate") {
        if (pcs[i].remoteDescription) pcs[i].addIceCandidate(payload).catch(() => {});
        else early[i].push(payload);
        return;
      }
      await pcs[i].setRemoteDescription({ type, sdp: payload.sdp });
      for (const candidate of early[i].splice(0)) pcs[i].addIceCandidate(candidate).catch(() => {});
      const other = pcs[1 - i];
      if (type === "offer") use(other.createDataChannel("mesh"), 1 - i);
      else other.setLocalDescription();
      if (type === "offer") await other.setLocalDescription();
      while (other.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 5));
      deliver(type, { ...payload, sdp: other.localDescription.sdp });
    };
    pcs[0].ondatachannel = ({ channel }) => use(channel, 0);
    const sides = ends(identities, (...args) => relay(...args).catch((error) => failures.push(`middle: ${error.message}`)));
    return { sides, read, end: () => (close(...sides), pcs.forEach((pc) => pc.close())) };
  }
  {
    const { sides: [a, b], read, end } = await middle([new Identity(), new Identity()]);
    await Promise.all([a.until("up"), b.until("up")]);
    await a.session.link.send({ type: "secret" });
    check("without identities", await b.until("message"), "secret");
    check("it reads everything", read.some((text) => text.includes("secret")), true);
    end();
  }
  {
    const { sides: [a, b], read, end } = await middle([ann, bob]);
    check("with them", await Promise.all([a.until("down"), b.until("down")]).then((codes) => codes.includes("identity")), true);
    check("nobody is linked", [...a.seen, ...b.seen].filter(([kind]) => kind === "up"), []);
    check("it reads hellos", read.map((text) => text.slice(0, 8)).every((text) => text === '["hello"'), true);
    end();
  }

  // ---- restarts ----

  // cut has a session's browser report a state, as if the path were gone or back.
  const Real = RTCPeerConnection;
  const made = [];
  window.RTCPeerConnection = class extends Real {
    constructor(...args) {
      super(...args);
      made.push(this);
    }
    get connectionState() {
      return this.says ?? super.connectionState;
    }
  };
  const cut = (pc, state) => {
    pc.says = state;
    pc.onconnectionstatechange();
  };
  const ufrag = (pc) => /a=ice-ufrag:(\S+)/.exec(pc.remoteDescription.sdp)[1];
  const answers = (end) => end.signaled.filter(([type]) => type === "answer").length;
  const settled = async (check, what) => within((async () => {
    while (!check()) await new Promise((resolve) => setTimeout(resolve, 5));
  })(), what);
  for (const [name, identities, signed] of [["with identities", [ann, bob], true], ["without", [new Identity(), new Identity()], false]]) {
    made.splice(0);
    let stale; // an answer that signaling shows again, before the next one
    const [a, b] = await linked(identities, (_, type, payload, deliver) => {
      if (type === "answer" && stale) deliver(type, stale);
      deliver(type, payload.number ? { ...payload, caps: [] } : payload); // caps are not signed
    });
    const [pa, pb] = made;
    const before = ufrag(pb);
    cut(pa, "disconnected");
    await settled(() => answers(b) === 2 && pa.signalingState === "stable", `${name}: a restart`);
    const offers = a.signaled.filter(([type]) => type === "offer").map(([, payload]) => payload);
    check(`${name}: a restart is numbered and signed`, offers.map(({ number, sig }) => [number, sig !== undefined]), [[undefined, false], [1, signed]]);
    check(`${name}: what the peer knows is known from its first description`, b.session.restarts, true);
    check(`${name}: ICE is new`, ufrag(pb) === before, false);
    cut(pa, undefined);
    await a.session.link.send({ type: "after" });
    check(`${name}: the link goes on`, await b.until("message"), "after");

    // What signaling may try: a description that is not signed, changed, of another number, or shown again.
    const offer = { caps: [], ...offers[1] };
    const answer = { caps: [], ...b.signaled.filter(([type]) => type === "answer")[1][1] };
    const other = offer.sdp.replace(/sha-256 ../, (text) => text.slice(0, -2) + (text.endsWith("00") ? "01" : "00"));
    const forged = [{ sig: undefined }, { number: 2 }, { number: 1 }, { number: undefined }, { number: "2" }].map((change) => ({ ...offer, sdp: offer.sdp + "a=x:1\r\n", ...change }));
    forged.push({ ...offer, sdp: other, number: 2 });
    if (signed) {
      for (const f of forged) b.session.restartedBy(f);
      stale = answer;
      cut(pa, "disconnected");
      await settled(() => answers(b) === 3 && pa.signalingState === "stable", "a second restart");
      cut(pa, undefined);
      check("an answer that is shown again does not count", ufrag(pa), /a=ice-ufrag:(\S+)/.exec(pb.localDescription.sdp)[1]);
      b.session.restartedBy({ ...offer }); // shown again
      a.session.answeredBy({ ...answer }); // not asked for
      const rejected = () => b.seen.filter(([kind]) => kind === "rejected");
      await settled(() => rejected().length > forged.length, "the last refusal");
      check("forged offers are dropped", [rejected(), answers(b)], [[...forged, offer].map(() => ["rejected", "identity"]), 3]);
      await a.session.link.send({ type: "later" });
      await settled(() => b.seen.some(([, type]) => type === "later"), "a message after the attacks");
      check("nobody lost the link", [...a.seen, ...b.seen].filter(([kind]) => kind === "down"), []);
    } else {
      b.session.restartedBy({ ...offer, sdp: other });
      check("another certificate ends a link without identity", await b.until("down"), "malformed");
    }
    close(a, b);
  }
  window.RTCPeerConnection = Real;
  return failures;
})().catch((error) => [String(error.stack)]);
