// How signaling.js registers and what it does when the connection ends. Server and clock are fakes. The value is a
// list of failures.
(async () => {
  await command("quit"); // the page's own mesh would use the fakes, too
  const { Signaling } = await import("/signaling.js");
  const failures = [];
  const check = (name, got, want) => {
    const [g, w] = [got, want].map((v) => JSON.stringify(v));
    if (g !== w) failures.push(`${name}: got ${g}, want ${w}`);
  };
  const real = { fetch, setTimeout, WebSocket };
  const turn = () => new Promise((resolve) => real.setTimeout.call(window, resolve));

  let sockets = [];
  class FakeSocket {
    static OPEN = 1;
    readyState = 1;
    said = [];
    constructor() {
      sockets.push(this);
    }
    send(text) {
      this.said.push(JSON.parse(text));
    }
    close() {}
  }
  let timers = []; // functions to be called later
  Object.assign(window, {
    fetch: async () => new Response(JSON.stringify({ token: "t", peer_id: "ann", iceServers: [] })),
    setTimeout: (f) => timers.push(f),
    WebSocket: FakeSocket,
  });

  // join makes a client that registers and whose connection then ends with a close code.
  async function join(code) {
    const claimed = [];
    [sockets, timers] = [[], []];
    const states = [];
    const before = Date.now();
    const signaling = new Signaling("http://localhost/", "k", {
      claim: async (id) => claimed.push(id),
      state: (name, error) => states.push([name, error?.code, error?.message]),
      joining() {},
      registered() {},
      receive() {},
    });
    while (sockets.length === 0) await turn();
    const [socket] = sockets;
    check("claimed", claimed, ["ann"]);
    socket.onopen();
    const [{ type, payload }] = socket.said;
    check("the first message", type, "register");
    const { started, left } = payload;
    check("asks that others are told of its end", left, true);
    if (!(Number.isInteger(started) && before <= started && started <= Date.now())) failures.push(`started is ${started}`);
    socket.onmessage({ data: '{"type":"peer_list","payload":{"peers":[]}}' });
    timers = [];
    states.splice(0);
    socket.onclose({ code, reason: "because" });
    return { signaling, started, states };
  }

  try {
    {
      const { signaling, started, states } = await join(1006);
      check("a connection that broke", states.map(([name]) => name), ["connecting"]);
      check("is made again", timers.length, 1);
      timers.pop()();
      while (sockets.length < 2) await turn();
      sockets[1].onopen();
      check("by the same instance", sockets[1].said[0].payload.started, started);
      signaling.close();
    }
    {
      const { signaling, states } = await join(4001);
      const text = "replaced by another window or process with this key; reload to take over";
      check("a connection that was replaced", states, [["replaced", "replaced", text]]);
      check("is not made again", timers.length, 0);
      signaling.close();
      check("and that was the last state", states.length, 1);
    }
    {
      [sockets, timers] = [[], []];
      const states = [];
      const signaling = new Signaling("http://localhost/", "k", {
        claim: async () => {
          throw Object.assign(new Error("not ours"), { code: "identity" });
        },
        state: (name, error) => states.push([name, error?.code, error?.message]),
      });
      while (states.length < 2) await turn();
      check("an id that is not ours", states, [["connecting", null, null], ["refused", "identity", "not ours"]]);
      check("is not taken", sockets.length, 0);
      signaling.close();
    }
  } finally {
    Object.assign(window, real);
  }
  return failures;
})();
