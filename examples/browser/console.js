// A mesh driven by lines of text, for scripts, with the commands and lines of the agents in other languages, and three
// of its own: identity prints our key, join takes a statement about us, forget has the next key of a peer taken.

import { HandlerError, MeshError } from "./mesh.js";

const MAX_COUNT = 1_000_000; // of a count_request
const MAX_LINES = 10_000; // kept until takeLines
const MAX_CHARACTERS = 32 << 20; // in these lines; the newest one is kept however long it is

const commands = {
  peers: ({ mesh, print }) => print(["peers:", ...mesh.peers].join(" ")),
  send: ({ mesh }, rest) => mesh.send(...peerAndMessage(rest)),
  broadcast: ({ mesh }, rest) => mesh.broadcast(parse(rest)),
  request: (agent, rest) => request(agent, ask, ...peerAndMessage(rest)),
  stream: (agent, rest) => request(agent, follow, ...peerAndMessage(rest)),
  cancel: ({ requests }, id) => {
    if (!requests.has(id)) throw new MeshError("invalid_field", `no request ${id} of ours is pending`);
    requests.get(id).abort();
  },
  connect: ({ mesh }, peer) => mesh.connect(peer),
  keys: ({ mesh, print }) => mesh.peers.forEach((peer) => print(hasKey(peer, mesh.key(peer)))),
  cards: ({ mesh, print }) => mesh.peers.forEach((peer) => print(hasCard(peer, mesh.card(peer)))),
  card: ({ mesh }, card) => mesh.setCard(parse(card)),
  identity: async ({ mesh, print }) => {
    const { key, lacks } = await mesh.identity();
    print(key ? `identity: ${key}` : `no identity: ${lacks}`);
  },
  join: ({ mesh }, statement) => mesh.join(parse(statement)),
  forget: ({ mesh }, peer) => mesh.forget(peer),
  quit: ({ mesh }) => mesh.close(),
};

// attach answers requests as all example agents do, and returns what scripts use:
//   command(line)   executes the line
//   takeLines()     returns the lines printed since the last call, at most the last 10,000 or 32 Mi characters
export function attach(mesh) {
  let lines = [];
  let characters = 0;
  const print = (line) => {
    characters += lines[lines.push(ascii(line)) - 1].length;
    while (lines.length > MAX_LINES || (characters > MAX_CHARACTERS && lines.length > 1)) characters -= lines.shift().length;
  };
  const takeLines = () => {
    characters = 0;
    return lines.splice(0);
  };
  const agent = { mesh, print, requests: new Map() }; // requests: id → AbortController
  const listen = (type, f) => mesh.addEventListener(type, ({ detail }) => f(detail));
  listen("signaling", ({ state, id, error }) => {
    if (state === "connected") print(`joined as ${id}`);
    if (state === "replaced") print(`error: signaling replaced: ${error.message}`);
    if (error?.code === "identity") print(`error: signaling ${state}: identity: ${error.message}`);
  });
  listen("peerconnected", ({ peer, key, card }) => {
    print(`+ ${peer}`);
    if (key) print(hasKey(peer, key));
    if (card) print(hasCard(peer, card));
  });
  listen("peerdisconnected", ({ peer }) => print(`- ${peer}`));
  listen("message", ({ peer, message }) => print(`${peer}: ${JSON.stringify(message)}`));
  listen("card", ({ peer, card }) => print(hasCard(peer, card)));
  listen("cancel", ({ peer, requestID }) => print(`${peer} gave up on ${requestID}`));
  listen("error", ({ peer, error }) => print(`error: ${error.code}: ${peer}: ${error.message}`));
  mesh.handle("echo_request", ({ payload }) => payload);
  mesh.handle("sleep_request", sleep);
  mesh.handle("count_request", count);
  return { command: (line) => run(agent, line), takeLines };
}

async function run(agent, line) {
  const [, name, rest] = /^\s*(\S*)\s*(.*?)\s*$/s.exec(line);
  if (!name) return;
  try {
    if (!Object.hasOwn(commands, name)) {
      throw new MeshError("unknown_type", `no command ${name}; there are: ${Object.keys(commands).join(", ")}`);
    }
    await commands[name](agent, rest);
  } catch (error) {
    agent.print(`error: ${error.code ?? "internal"}: ${error.message}`);
  }
}

async function request(agent, how, peer, message) {
  const { print, requests } = agent;
  const id = (message.request_id ??= randomID());
  const controller = new AbortController();
  requests.set(id, controller);
  try {
    const reply = await how(agent, peer, message, { signal: controller.signal });
    print(`${peer} answers: ${JSON.stringify(reply)}`);
  } catch (error) {
    // A response that reports a failure is a response all the same.
    if (error.reply) print(`${peer} answers: ${JSON.stringify(error.reply)}`);
    else print(`error: request ${id} to ${peer}: ${error.message}`);
  } finally {
    if (requests.get(id) === controller) requests.delete(id);
  }
}

function ask({ mesh }, ...request) {
  return mesh.request(...request);
}

// follow makes a request and prints the chunks of its response as they come.
async function follow({ mesh, print }, peer, ...request) {
  const replies = mesh.requestStream(peer, ...request);
  for await (const chunk of replies) print(`${peer} streams: ${JSON.stringify(chunk)}`);
  return replies.response;
}

async function* count({ payload }) {
  const to = payload?.to;
  if (!Number.isInteger(to) || to < 0 || to > MAX_COUNT) {
    throw new HandlerError(`payload.to is not an integer from 0 to ${MAX_COUNT}`, "out_of_range", { max: MAX_COUNT });
  }
  for (let i = 1; i <= to; i++) yield { i };
  return { counted: to };
}

function sleep({ payload }, { signal }) {
  const seconds = Number(payload?.seconds);
  if (!(seconds >= 0 && seconds <= 3600)) throw new Error("payload.seconds is not a number from 0 to 3600");
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve({ result: `slept ${seconds} s` }), seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

function hasKey(peer, key) {
  return `${peer} has ${key ? `key ${key}` : "no key"}`;
}

function hasCard(peer, card) {
  return `${peer} has ${card ? `card ${JSON.stringify(card)}` : "no card"}`;
}

function peerAndMessage(rest) {
  const [, peer, message] = /^(\S+)\s*(.*)$/s.exec(rest) ?? [];
  if (!peer) throw new MeshError("invalid_field", "no peer is named");
  return [peer, parse(message)];
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new MeshError("malformed", `what is given is not JSON: ${error.message}`);
  }
}

function randomID() {
  return crypto.randomUUID().replaceAll("-", "").slice(-12);
}

// ascii escapes characters that could forge a line or control a terminal.
function ascii(text) {
  return text.replace(/[^\x20-\x7e]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}
