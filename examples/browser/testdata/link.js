// Tests of link.js with a data channel of our own. The value is a list of failures.
(async () => {
  const { Link, copyCard } = await import("/link.js");
  const failures = [];
  const check = (name, got, want) => {
    const [g, w] = [got, want].map((v) => JSON.stringify(v));
    if (g !== w) failures.push(`${name}: got ${g}, want ${w}`);
  };
  const encode = (text) => new TextEncoder().encode(text);
  const turn = () => new Promise((resolve) => setTimeout(resolve));

  class Channel {
    readyState = "open";
    bufferedAmount = 0;
    slices = [];
    send(data) {
      this.slices.push(typeof data === "string" ? data : data.slice());
      if (this.stuck) this.bufferedAmount = 2 << 20;
    }
    close() {
      this.readyState = "closed";
    }
    get text() {
      const decoder = new TextDecoder();
      return this.slices.splice(0).map((s) => decoder.decode(s, { stream: true })).join("");
    }
    receive(text) {
      const bytes = typeof text === "string" ? encode(text) : text;
      this.onmessage({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) });
    }
  }

  const trusting = { show: async () => undefined, verify: async () => ({ key: "" }), renew: async (proof) => proof };

  let ownCard = null;

  function pair(stream = true, open = true, trust = trusting) {
    const channel = new Channel();
    const seen = [];
    const link = new Link(channel, stream, 262144, trust, {
      up: () => seen.push("up"),
      down: (error) => seen.push(`down ${error.code}`),
      message: (message, bytes) => seen.push([message, bytes]),
      cancel: (id) => seen.push(`cancel ${id}`),
      ownCard: () => ownCard,
      card: (card) => seen.push(["card", card]),
      rejected: (error) => seen.push(`rejected ${error.code}`),
    });
    if (open) link.open();
    return { channel, link, take: () => seen.splice(0) };
  }

  async function live() {
    const p = pair();
    p.channel.receive('["hello",{"protocol":1,"max_message":16777216,"later":1}]\n');
    await turn();
    p.take();
    p.channel.slices = [];
    return p;
  }

  {
    const { channel, link, take } = pair(true, false);
    await turn();
    check("nothing before the channel takes data", channel.text, "");
    channel.readyState = "connecting"; // Chromium takes it back
    link.open();
    await turn();
    check("nothing before the channel is open again", channel.text, "");
    channel.readyState = "open";
    channel.onopen();
    check("our hello", channel.text, '["hello",{"protocol":1,"max_message":16777216}]\n');
    await turn();
    check("our hello comes once", channel.text, "");
    check("not up before the peer's", take(), []);
    channel.receive('["hel');
    channel.receive('lo",{}]\n\n{"type":"a"}\n');
    await turn();
    check("hello", take(), ["up", [{ type: "a" }, 12]]);
  }
  for (const line of [
    ...['{"type":"a"}', '["pause"]', "nonsense", "{}", "[]", "7", "null", '"hello"', '["hello"'.padEnd(2000, "[")],
    ...['["hello"]', '["hello",7]', '["hello",null]', '["hello","x"]', '["hello",[]]', '[["hello"],{}]', '["Hello",{}]'],
    ...['{"0":"hello","type":"x"}', '{"0":"hello","1":{},"type":"x"}', '["hello",{"max_message":1}'],
    ...["max_message", "protocol"].flatMap((key) =>
      ["-1", "0.5", "1e400", '"1"', '""', "true", "[]", "{}"].map((value) => `["hello",{"${key}":${value}}]`),
    ),
    ...['null', '7', '[]', '{}', '{"key":"a"}', '{"key":"a","sig":7}', '{"key":"a","sig":"b","member":null}', '{"key":"a","sig":"b","member":{}}'].map(
      (identity) => `["hello",{"identity":${identity}}]`,
    ),
    ...["7", '"x"', "[]", `{"a":"${"x".repeat(16 << 10)}"}`, '{"a":'.repeat(16) + "{}" + "}".repeat(16)].map((card) => `["hello",{"card":${card}}]`),
    `["hello",{"later":"${"x".repeat(64 << 10)}"}]`,
  ]) {
    const { channel, take } = pair();
    channel.receive(line + "\n");
    check(`first line ${line.slice(0, 40)}`, take(), ["down malformed"]);
    check("closed", channel.readyState, "closed");
  }
  for (const line of ['["hello",{"protocol":0,"max_message":0}]', '["hello",{"protocol":2,"later":{}},1]', '["hello",{"max_message":null}]']) {
    const { channel, link, take } = pair();
    channel.receive(line + "\n");
    await turn();
    check(`first line ${line}`, take(), ["up"]);
    check("no limit of the peer's", await link.send({ type: "a", payload: "x".repeat(100) }), undefined);
  }
  {
    const { channel, link, take } = pair();
    channel.receive('["hello",{"max_message":12}]\n');
    await turn();
    await link.send({ type: "a" });
    check("a limit of the peer's", await link.send({ type: "ab" }).catch((error) => error.code), "too_large");
    check("up", take(), ["up"]);
  }
  {
    const { channel, take } = await live();
    for (const [line, want] of [
      ['["later",1]', []],
      ['["cancel","a1"]', ["cancel a1"]],
      ['["later"]', []],
      ['["cancel","a1",7]', ["cancel a1"]],
      ['["hello",{}]', []],
      ...['["cancel"]', '["cancel",7]', '["cancel",""]', '["cancel",null]', '["cancel",["a1"]]'].map((l) => [l, ["rejected invalid_field"]]),
      ...["[]", "[7]", "[null]", '[["cancel"],"a1"]', '[{"type":"a"}]', '["hello"]'].map((l) => [l, ["rejected invalid_field"]]),
      ["7", ["rejected malformed"]],
      ["null", ["rejected malformed"]],
      ["{", ["rejected malformed"]],
      ["{}", ["rejected invalid_field"]],
      ['{"type":null}', ["rejected invalid_field"]],
      ['{"type":"a","request_id":1}', ["rejected invalid_field"]],
      ['{"type":"a","target_agent":null}', ["rejected invalid_field"]],
      ['{"type":"a"} {"type":"b"}', ["rejected malformed"]],
      ['\ufeff{"type":"a"}', ["rejected malformed"]],
      [`{"type":"a","payload":${"[".repeat(511)}${"]".repeat(511)}}`, undefined],
      [`{"type":"a","payload":${"[".repeat(512)}${"]".repeat(512)}}`, ["rejected too_deep"]],
      ["[".repeat(1_000_000), ["rejected too_deep"]],
      ['{"type":"a","payload":"\\"[[[[\\\\"}\r', [[{ type: "a", payload: '"[[[[\\' }, 34]]],
      ['{"type":"a","payload":"\u2028 😀"}', [[{ type: "a", payload: "\u2028 😀" }, 33]]],
    ]) {
      const bytes = encode(line + "\n");
      for (let i = 0; i < bytes.length; i += 7) channel.receive(bytes.subarray(i, i + 7)); // across characters
      const got = take();
      if (want) check(line.slice(0, 60), got, want);
      else check(line.slice(0, 60), got.length, 1);
    }
    channel.receive(new Uint8Array([...encode('{"type":"'), 0xff, ...encode('"}\n{"type":"b"}\n')]));
    check("no UTF-8", take(), ["rejected malformed", [{ type: "b" }, 12]]);
    const huge = "x".repeat(1 << 20);
    for (let i = 0; i < 17; i++) channel.receive(huge);
    channel.receive('"}\n{"type":"c"}\n');
    check("too long", take(), ["rejected too_large", [{ type: "c" }, 12]]);
  }
  {
    const { channel, link, take } = await live();
    channel.receive('{"type":"a"}\n["drain",1]\n["drain",0,7]\n');
    check("what stands before a drain", take(), [[{ type: "a" }, 12]]);
    await turn();
    check("is answered", channel.text, '["drained",1]\n["drained",0]\n');
    for (const argument of ["", ",null", ',"1"', ",-1", ",0.5", ",1e300", ",[1]", ",{}"]) channel.receive(`["drain"${argument}]\n`);
    check("without a number", take(), Array(8).fill("rejected invalid_field"));
    channel.receive('["drained",1]\n');
    check("an answer that was not asked for", take(), []);
    channel.receive('["pause"]\n["drain",2]\n');
    await turn();
    check("a pause does not hold it up", channel.text, '["drained",2]\n');
    channel.receive('["resume"]\n');

    channel.stuck = true; // a peer that asks and reads nothing
    link.send({ type: "a", payload: "x".repeat(15 << 20) }).catch(() => {});
    link.send({ type: "a", payload: "x".repeat(15 << 20) }).catch(() => {});
    const asked = '["drain",3]\n'.repeat(1000);
    for (let i = 0; i < 30 && !take().includes("rejected queue_full"); i++) channel.receive(asked);
    channel.receive('["drain",3]\n');
    check("unread responses are bounded", take().at(-1), "rejected queue_full");
    link.close(new Error("over"));
  }
  {
    // Slices are not kept, whatever their number: the same buffer for all, and few of the link's own.
    const { channel, take } = await live();
    const one = new Uint8Array(1);
    const trickle = (text) => {
      for (const byte of encode(text)) {
        one[0] = byte;
        channel.onmessage({ data: one.buffer });
      }
    };
    const whole = Uint8Array;
    const made = []; // bytes of the buffers made
    globalThis.Uint8Array = class extends whole {
      constructor(...args) {
        super(...args);
        if (typeof args[0] === "number") made.push(args[0]);
      }
    };
    const payload = "0123456789".repeat(50_000);
    trickle(`{"type":"a","payload":"${payload}"}\n`);
    trickle('{"type":"b"}\n');
    const [[a], [b]] = take();
    check("in slices of a byte", [a.payload === payload, b], [true, { type: "b" }]);
    check("the buffer grows", made, [65536, 131072, 262144, 524288]);
    channel.receive("x".repeat(15 << 20));
    channel.receive("x".repeat(1 << 20)); // the limit
    channel.receive('\n{"type":');
    channel.receive('"c"}\n');
    check("it is bounded, given back, and made anew", made.slice(4), [15 << 20, 16 << 20, 65536]);
    check("a line to the limit", take(), ["rejected malformed", [{ type: "c" }, 12]]);
    made.splice(0);
    for (let i = 0; i < 40; i++) channel.receive("x".repeat(1 << 20));
    channel.receive('\n{"type":');
    channel.receive('"d"}\n');
    check("too long", take(), ["rejected too_large", [{ type: "d" }, 12]]);
    check("no buffer for what is too long", made, [1, 2, 4, 8, 16].map((n) => n << 20).concat(65536));
    globalThis.Uint8Array = whole;
  }
  {
    const { channel, link } = await live();
    const sent = [1, 2, 3].map((n) => link.send({ type: "a", payload: n }));
    await Promise.all(sent);
    check("small ones share a slice", channel.slices.length, 1);
    check("in order", channel.text.replaceAll("\n", " "), [1, 2, 3].map((n) => `{"type":"a","payload":${n}} `).join(""));
    await link.send({ type: "a", payload: "ä".repeat(30_000) });
    check("slices of a large one", channel.slices.map((s) => s.length <= 16384), [true, true, true, true]);
    check("whole", JSON.parse(channel.text).payload.length, 30_000);
    const code = (promise) => promise.then(() => "sent", (error) => error.code);
    check("too large", await code(link.send({ type: "a", payload: "x".repeat(16 << 20) })), "too_large");
    check("no type", await code(link.send({ payload: 1 })), "invalid_field");
    let deep = [];
    for (let i = 0; i < 600; i++) deep = [deep];
    check("too deep", await code(link.send({ type: "a", payload: deep })), "too_deep");

    channel.receive('["pause"]\n');
    const order = [];
    const abort = new AbortController();
    const send = (n, options) => link.send({ type: "a", payload: n }, options).then(() => order.push(n), () => order.push(-n));
    const all = [send(1), send(2, { signal: abort.signal }), send(3, { reply: true }), send(4)];
    link.cancel("x");
    await turn();
    check("replies and controls pass a pause", channel.text, '{"type":"a","payload":3}\n["cancel","x"]\n');
    abort.abort(new Error("given up"));
    await turn();
    check("nothing else", [channel.text, order], ["", [3, -2]]);
    channel.receive('["resume"]\n');
    await Promise.all(all);
    check("after it", channel.text, '{"type":"a","payload":1}\n{"type":"a","payload":4}\n');
    channel.receive('["pause"]\n');
    const waiting = Array.from({ length: 1001 }, () => code(link.send({ type: "a" })));
    check("one too many", await waiting[1000], "queue_full");
    link.close(Object.assign(new Error("over"), { code: "peer_lost" }));
    check("what waited", await waiting[0], "peer_lost");
    check("afterwards", await code(link.send({ type: "a" })), "peer_lost");
  }
  {
    const { channel, link } = await live();
    channel.stuck = true;
    const first = link.send({ type: "a", payload: "x".repeat(40_000) });
    await turn();
    check("waits for the browser", channel.slices.length, 1);
    channel.receive('["pause"]\n'); // in the middle of a line, which has to be finished
    const reply = link.send({ type: "b" }, { reply: true });
    const second = link.send({ type: "c" });
    Object.assign(channel, { stuck: false, bufferedAmount: 0 });
    channel.onbufferedamountlow();
    await Promise.all([first, reply]);
    check("line, then reply", channel.text.replace(/x+/, "x"), '{"type":"a","payload":"x"}\n{"type":"b"}\n');
    channel.receive('["resume"]\n');
    await second;
    check("then the rest", channel.text, '{"type":"c"}\n');
  }
  {
    const { channel, link, take } = pair(false);
    await turn();
    check("base framing is up with the channel", take(), ["up"]);
    await link.send({ type: "a", payload: "ä" });
    check("text messages", channel.slices, ['{"type":"a","payload":"ä"}']);
    link.cancel("x");
    link.pause(true);
    await turn();
    check("no controls", channel.slices.length, 1);
    const error = await link.send({ type: "a", payload: "x".repeat(65535) }).catch((error) => error);
    check("over 65,535 bytes", error.code, "too_large");
    channel.onmessage({ data: '{"type":"b"}' });
    channel.receive('{"type":"c"}');
    channel.receive('["pause"]');
    await turn();
    check("received", take(), [[{ type: "b" }, 12], [{ type: "c" }, 12], "rejected malformed"]);
  }
  {
    const { channel, link, take } = pair(false, false);
    await turn();
    check("base framing is up when the channel is", take(), []);
    channel.receive('{"type":"a"}');
    await turn();
    check("what arrives shows that it is", take(), ["up", [{ type: "a" }, 12]]);
    link.open();
    check("up comes once", take(), []);
  }
  {
    // Cards: the peer's in its hello and after it, ours in our hello and when it changes.
    ownCard = { name: "first" };
    const { channel, link, take } = pair();
    await turn();
    check("our card", channel.text, '["hello",{"protocol":1,"max_message":16777216,"card":{"name":"first"}}]\n');
    ownCard = { name: "second" };
    link.tellCard();
    await turn();
    check("nothing before the peer's hello", channel.text, "");
    channel.receive('["hello",{"card":{"name":"Bob"}}]\n');
    await turn();
    check("the peer's card", [take(), link.card], [["up"], { name: "Bob" }]);
    check("ours has changed", channel.text, '["card",{"name":"second"}]\n');
    link.tellCard();
    await turn();
    check("it is told once", channel.text, "");
    channel.receive('["pause"]\n');
    ownCard = null;
    link.tellCard();
    await turn();
    check("a pause does not hold it up", channel.text, '["card",null]\n');
    const longest = { a: "x".repeat((16 << 10) - 8) };
    const deepest = JSON.parse('{"a":'.repeat(15) + "{}" + "}".repeat(15));
    for (const card of [{}, longest, deepest, null]) {
      channel.receive(`["card", ${JSON.stringify(card)} ]\n`);
      check("another card", [take(), link.card], [[["card", card]], card]);
    }
    for (const bad of ["", ",7", ",[]", ',"x"']) {
      channel.receive(`["card"${bad}]\n`);
      check(`card ${bad}`, take(), ["rejected invalid_field"]);
    }
    channel.receive(`["card",{"a":"${longest.a}x"}]\n["card",{"a":${JSON.stringify(deepest)}}]\n`);
    check("too long, too deep", [take(), link.card], [["rejected too_large", "rejected too_deep"], null]);
    for (const [said, means] of [
      [
        '{"Name":"b","version":1.1,"later":7,"skills":[{"name":"x","description":{},"type":1},{"name":7},{"Name":"y"},{"name":""},null,5],"queries":["a",7]}',
        { Name: "b", later: 7, skills: [{ name: "x" }], queries: ["a"] },
      ],
      ['{"name":null,"description":[],"skills":"x","queries":{},"data":null}', { data: null }],
    ]) {
      channel.receive(`["card",${said}]\n`);
      check("members of the wrong type", [take(), link.card], [[["card", means]], means]);
      const other = pair();
      other.channel.receive(`["hello",{"card":${said}}]\n`);
      check("members of the wrong type in hello", other.link.card, means);
    }
  }
  {
    // Our card is checked as it is in JSON.
    const cyclic = {};
    cyclic.a = [cyclic];
    let deep = {};
    for (let i = 0; i < 100_000; i++) deep = { a: deep };
    const kept = { name: "A", a: NaN, b: undefined, c: new Date(0), d: new Map() };
    for (const [name, card, want] of [
      ["nothing", undefined, null],
      ["values that are others in JSON", kept, { name: "A", a: null, c: "1970-01-01T00:00:00.000Z", d: {} }],
      ["an object by its toJSON", { toJSON: () => ({ b: 2 }) }, { b: 2 }],
      ["the longest", { a: "é".repeat(8188) }, { a: "é".repeat(8188) }],
      ["too long", { a: "é".repeat(8189) }, "too_large"],
      ["too deep", JSON.parse('{"a":'.repeat(16) + "{}" + "}".repeat(16)), "too_deep"],
      ["a date", new Date(), "invalid_field"],
      ["an array by its toJSON", { toJSON: () => [1] }, "invalid_field"],
      ["null by its toJSON", { toJSON: () => null }, "invalid_field"],
      ["nothing by its toJSON", { toJSON: () => undefined }, "invalid_field"],
      ["a string", "x", "invalid_field"],
      ["a number that is null in JSON", NaN, "invalid_field"],
      ["a function", () => 1, "invalid_field"],
      ["a BigInt", { a: 1n }, "invalid_field"],
      ["a cycle", cyclic, "invalid_field"],
      ["what throws", { get a() { throw 7; } }, "invalid_field"],
    ]) {
      let got;
      try {
        got = copyCard(card);
      } catch (error) {
        got = error.name === "MeshError" ? error.code : String(error);
      }
      check(`our card: ${name}`, got, want);
    }
    try {
      copyCard(deep);
      failures.push("our card may be as deep as it likes");
    } catch (error) {
      check("our card: far too deep", error.name, "MeshError"); // in the value or in its text
    }
  }
  {
    // Until the peer is verified nothing but our hello goes out, and nothing of the peer's is delivered.
    const member = { mesh: "m", peer_id: "ann", key: "k", not_after: 7, sig: "s" };
    let decide;
    const trust = {
      show: async () => ({ key: "ours", sig: "s" }),
      verify: (shown) => new Promise((resolve, reject) => (decide = { shown, resolve, reject })),
      renew: async (proof, statement) => {
        if (statement.not_after < 0) throw Object.assign(new Error("expired"), { code: "identity" });
        return { ...proof, until: statement.not_after };
      },
    };
    const greeted = async () => {
      const p = pair(true, true, trust);
      p.channel.receive(`["hello",{"identity":{"key":"k","sig":"s","member":${JSON.stringify(member)}}}]\n{"type":"a"}\n["drain",1]\n{"type"`);
      await turn();
      return p;
    };
    {
      const { channel, link, take } = await greeted();
      check("what is verified", decide.shown, { key: "k", sig: "s", member });
      channel.receive(':"b"}\n');
      const sent = await link.send({ type: "x" }).catch((error) => error.code);
      await turn();
      check("not verified yet", [take(), link.live, sent], [[], false, "peer_lost"]);
      check("only our hello", channel.text, '["hello",{"protocol":1,"max_message":16777216,"identity":{"key":"ours","sig":"s"}}]\n');
      decide.resolve({ key: "k" });
      await turn();
      check("verified", take(), ["up", [{ type: "a" }, 12], [{ type: "b" }, 12]]);
      check("in order", [channel.text, link.proof], ['["drained",1]\n', { key: "k" }]);

      for (const bad of ['{}', '7', 'null', '{"mesh":"m","peer_id":"ann","key":"k","not_after":1.5,"sig":"s"}']) {
        channel.receive(`["member",${bad}]\n`);
        check(`member ${bad}`, take(), ["rejected invalid_field"]);
      }
      channel.receive(`["member",${JSON.stringify({ ...member, not_after: -1 })}]\n`);
      await turn();
      check("a bad renewal", [take(), link.live], [["rejected identity"], true]);
      channel.receive(`["member",${JSON.stringify({ ...member, not_after: Date.now() + 3e10 })}]\n`);
      await turn();
      check("a renewal", [take(), link.live], [[], true]);
      link.renew(member);
      await turn();
      check("our renewal", channel.text, `["member",${JSON.stringify(member)}]\n`);
      channel.receive(`["member",${JSON.stringify({ ...member, not_after: Date.now() })}]\n`);
      await turn();
      check("its end", [take(), link.live], [["down identity"], false]);
    }
    {
      const { channel, take } = await greeted();
      decide.reject(Object.assign(new Error("no"), { code: "identity" }));
      await turn();
      check("refused", [take(), channel.readyState], [["down internal"], "closed"]);
    }
    {
      const { channel, take } = await greeted();
      for (let i = 0; i < 40 && channel.readyState === "open"; i++) channel.receive(`:"${"x".repeat(1 << 20)}"}\n{"type"`);
      check("too much before that", take(), ["down queue_full"]);
      decide.resolve({ key: "k" });
      await turn();
      check("and nothing of it", take(), []);
    }
    {
      const { channel, take } = await greeted();
      channel.receive(':"b"}\n');
      for (let i = 0; i < 400_000 && channel.readyState === "open"; i++) channel.receive("7\n");
      check("too many before that", take(), ["down queue_full"]);
    }
    {
      const { channel, take } = pair(false, true, trust);
      channel.receive('{"type":"a"}');
      await turn();
      check("base framing, not verified yet", [take(), decide.shown], [[], undefined]);
      decide.resolve({ key: "" });
      await turn();
      check("base framing, verified", take(), ["up", [{ type: "a" }, 12]]);
    }
  }
  return failures;
})();
