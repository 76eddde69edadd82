// Who is at the other end of a link: "Identity" of docs/protocol.md, with the browser's own cryptography.
//
// An agent may have a key. Over a link each end signs what only that link has: the certificates of both ends, which are
// known by the fingerprints in their SDP, the ids, the roles, the sessions. A policy says which keys are taken for which
// peer. The page's own key cannot be read by the page either: it stays in the browser, see keystore.js.

import { MeshError } from "./errors.js";

const ALGORITHM = "Ed25519";
const KEY_SIZE = 32; // bytes
const MAX_KNOWN = 10_000; // peers of one mesh. A full list takes no further ones: it never forgets
const POLICIES = ["off", "known", "member"];

const encoder = new TextEncoder();

// A link, as one end sees it: {offerer, own, other, ownCert, otherCert, ownSession, otherSession}: peer ids, SHA-256 of
// the certificates as bytes, session ids. linkText returns what this end signs with a key.
export function linkText(mesh, key, { offerer, own, other, ownCert, otherCert, ownSession, otherSession }) {
  const role = offerer ? "offerer" : "answerer";
  return fields("mesh link 1", mesh, role, own, other, parseKey(key), ownCert, otherCert, ownSession, otherSession);
}

// A description is an offer or answer of a link that is up, as its maker sees it:
// {type, own, other, ownSession, otherSession, number, sdp}.
export function descriptionText(mesh, key, { type, own, other, ownSession, otherSession, number, sdp }) {
  return fields("mesh description 1", mesh, type, own, other, parseKey(key), ownSession, otherSession, String(number), sdp);
}

// A statement says that the key of a peer belongs to a mesh: {mesh, peer_id, key, not_after, sig}. A root signs it.
export function statementText({ mesh, peer_id, key, not_after }) {
  return fields("mesh member 1", mesh, peer_id, key, String(not_after));
}

// far returns a link as the other end sees it.
function far({ offerer, own, other, ownCert, otherCert, ownSession, otherSession }) {
  return {
    offerer: !offerer, own: other, other: own, ownCert: otherCert, otherCert: ownCert, ownSession: otherSession, otherSession: ownSession,
  };
}

// fields returns strings and bytes, each after its length in four bytes, so that no two lists have the same bytes.
function fields(...list) {
  const parts = list.map((f) => (typeof f === "string" ? encoder.encode(f) : f));
  const text = new Uint8Array(parts.reduce((size, part) => size + 4 + part.length, 0));
  const view = new DataView(text.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length);
    text.set(part, at + 4);
    at += 4 + part.length;
  }
  return text;
}

// parseKey returns the bytes of a public key. It refuses the few keys for which anyone can make signatures.
export function parseKey(text) {
  const bytes = decode(text);
  if (bytes?.length !== KEY_SIZE) throw new Error("not the base64 of 32 bytes");
  if (weak(bytes)) throw new Error("a point of small order, for which anyone can sign");
  return bytes;
}

// The y coordinates, in hexadecimal, of the points whose order divides 8, apart from the one of P - 1.
const SMALL_ORDER = new Set([
  "00".repeat(32),
  "01".padStart(64, "0"),
  "05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
  "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
]);
const P = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed"; // the size of the field

// weak reports whether a key is a point of small order, or not written in the one way that RFC 8032 allows.
function weak(bytes) {
  const y = bytes.slice().reverse();
  y[0] &= 0x7f; // without the sign of x
  const text = hex(y);
  return SMALL_ORDER.has(text) || text >= P.slice(0, -1) + "c"; // P - 1 has order 2
}

// keyID returns the id that certifies a key: only an agent with the key can have it.
export async function keyID(key) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", parseKey(key)));
  return "k-" + base32(hash);
}

// certified reports whether an id has the form of one that certifies a key. It is generous about case, so that nothing
// that a person takes for such an id passes for an ordinary one.
export function certified(id) {
  return /^k-[a-z2-7]{52}$/.test(id.toLowerCase());
}

// An Identity is the key and the policy of this page.
export class Identity {
  key = ""; // base64; "" without one
  lacks = ""; // why there is none
  statement; // about us, once there is one
  #settings;
  #store;
  #private;
  #roots;
  #revoked;

  // open makes or finds the page's key. Settings, all optional:
  //   name        names the key in this browser, and should be the page's peer id; without a name there is no key
  //   mesh        the mesh's name, part of everything that is signed
  //   policy      "off", "known" or "member"
  //   required    known: peers without an identity are refused
  //   roots       member: the public keys that sign members
  //   revoked     keys that are refused under every policy
  // openStore opens a store like that of keystore.js. Where the browser lacks Ed25519, or keeps nothing, the page goes on
  // without a key if the policy is off.
  static async open(settings, openStore) {
    const identity = new Identity(settings);
    try {
      await identity.#open(openStore);
    } catch (error) {
      if (identity.#settings.policy !== "off") throw refusal(`this browser cannot do it: ${error.message}`);
      identity.lacks = error.message;
    }
    return identity;
  }

  constructor({ name = "", mesh = "", policy = "off", required = false, roots = [], revoked = [] } = {}) {
    if (!POLICIES.includes(policy)) throw refusal(`the policy is ${policy}, want ${POLICIES.join(", ")}`);
    if (policy === "member" && roots.length === 0) throw refusal("policy member needs the public key of a root");
    if (policy === "off" && required) throw refusal("policy off requires nothing; use known or member");
    this.#settings = { name, mesh, policy, required };
    this.#roots = roots.map((root) => named("a root", () => (parseKey(root), root)));
    this.#revoked = new Set(revoked.map((key) => named("a revoked key", () => (parseKey(key), key))));
  }

  async #open(openStore) {
    if (!globalThis.crypto?.subtle) throw new Error("it has cryptography on https: and on this machine only");
    let fresh;
    try {
      fresh = await crypto.subtle.generateKey(ALGORITHM, false, ["sign", "verify"]);
    } catch {
      throw new Error("it has no Ed25519");
    }
    this.#store = await openStore();
    if (!this.#settings.name) {
      this.lacks = "no name was given for the key";
      return;
    }
    const own = await this.#update((old) => old ?? { pair: fresh });
    this.#private = own.pair.privateKey;
    this.key = encode(new Uint8Array(await crypto.subtle.exportKey("raw", own.pair.publicKey)));
    if (own.statement) await this.#adopt(own.statement).catch((error) => (this.lacks = `it shows no statement: ${error.message}`));
  }

  get mesh() {
    return this.#settings.mesh;
  }
  get policy() {
    return this.#settings.policy;
  }

  // claim throws unless we may be the peer of this id. The signaling server assigns ids, and must not get a signature
  // for another one: a key signs for the id of its statement, for the one that it certifies itself, or for the first one
  // that it was ever given.
  async claim(id) {
    if (certified(id)) {
      if (!this.key || id !== (await keyID(this.key))) throw refusal(`the id ${id} certifies a key, and this page has another one or none`);
    } else if (this.statement) {
      if (id !== this.statement.peer_id) throw refusal(`the id is ${id}, and the statement is about ${this.statement.peer_id}`);
    } else if (this.key) {
      const own = await this.#update((old) => (old.id ? old : { ...old, id }));
      if (own.id !== id) throw refusal(`the id is ${id}, and the key ${this.#settings.name} signs for ${own.id}`);
    }
  }

  // join keeps a statement about us, which peers are shown from now on.
  async join(statement) {
    if (!this.key) throw refusal(`this page has no key: ${this.lacks}`);
    checkForm(statement);
    await this.#adopt(statement);
    await this.#update((own) => ({ ...own, statement }));
  }

  async #adopt(statement) {
    await this.#checkStatement(statement, statement.peer_id, this.key);
    this.statement = statement;
  }

  // show returns our identity for a link, undefined without a key.
  async show(link) {
    if (!this.key) return undefined;
    return { mesh: this.mesh, key: this.key, sig: await this.#sign(linkText(this.mesh, this.key, link)), member: this.statement };
  }

  // verify decides about the peer at the other end of a link, by the identity in its hello, undefined if it has shown
  // none. It returns a proof: {key, mesh, until}, "" without a key, the name of the mesh with which it signs, and when it
  // ends, in ms, if it does. It throws a MeshError that says what is wrong with the peer.
  async verify(link, shown) {
    if (!shown) return this.#without(link.other);
    const key = named("its key", () => (parseKey(shown.key), shown.key));
    if (!this.#store) return this.#without(link.other); // nothing here can tell whether it is right
    const mesh = shown.mesh ?? this.mesh;
    const signed = link.ownSession && link.otherSession && (await verify(key, linkText(mesh, key, far(link)), shown.sig));
    if (!signed) throw refusal("wrong signature: the link does not end at the agent with that key");
    if (mesh !== this.mesh && (this.mesh !== "" || this.policy !== "off")) {
      throw refusal(`it is of mesh "${mesh}", and this page is of "${this.mesh}"`);
    }
    if (certified(link.other) && link.other !== (await keyID(key))) throw refusal("its key is not the one that its id certifies");
    if (this.#revoked.has(key)) throw refusal("its key is revoked");
    if (this.policy === "known") await this.#pin(link.other, key);
    return this.renew({ key, mesh }, link.other, shown.member);
  }

  // without returns the proof of a peer that has shown no identity.
  async #without(peer) {
    const none = "it has shown no identity";
    if (certified(peer)) throw refusal(`${none}, and its id certifies a key`);
    if (this.#settings.required || this.policy === "member") throw refusal(`${none}, and this page requires one`);
    if (this.policy === "known" && (await this.#store.get("known", [this.mesh, peer]))) {
      throw refusal(`${none}, and this browser knows a key of it`);
    }
    return { key: "" };
  }

  // pin throws unless a peer has this key, or had none until now.
  async #pin(peer, key) {
    const known = [this.mesh, peer];
    let has = await this.#store.get("known", known);
    if (!has) {
      if ((await this.#store.count("known", this.mesh)) >= MAX_KNOWN) throw refusal(`this browser knows ${MAX_KNOWN} peers already`);
      has = await this.#store.update("known", known, (old) => old ?? key);
    }
    if (has === key) return;
    throw refusal(`its key has changed: this browser knows ${has}, and it has shown ${key}; if that is right: forget ${peer}`);
  }

  // forget has the next key that a peer shows pinned.
  async forget(peer) {
    await this.#store?.delete("known", [this.mesh, peer]);
  }

  // renew returns the proof that a statement gives a peer with a proven key.
  async renew(proof, peer, statement) {
    if (this.policy !== "member") return proof;
    if (!statement) throw refusal("not a member: it has shown no statement of a root");
    await this.#checkStatement(statement, peer, proof.key);
    return { ...proof, until: statement.not_after * 1000 };
  }

  // checkStatement throws what is wrong with a statement about a peer with this key. Without roots nobody can tell
  // whether its signature is right.
  async #checkStatement(statement, peer, key) {
    const fail = (why) => {
      throw refusal(`not a member: the statement ${why}`);
    };
    if (statement.mesh !== this.mesh) fail(`is about mesh "${statement.mesh}", and this mesh is "${this.mesh}"`);
    if (statement.peer_id !== peer) fail(`is about ${statement.peer_id}`);
    if (statement.key !== key) fail("is about another key");
    if (Date.now() >= statement.not_after * 1000) fail(`expired at ${new Date(statement.not_after * 1000).toISOString()}`);
    if (this.#roots.length === 0) return;
    const text = statementText(statement);
    for (const root of this.#roots) if (await verify(root, text, statement.sig)) return;
    fail("is not signed by a root of this mesh");
  }

  // displaces reports whether a peer with one proof may end the link to the same peer with another proof: with the same
  // key, or, where roots or the known peers vouch for keys, with any that they vouch for. So the first key after the old
  // one was forgotten takes over at once.
  displaces(next, present) {
    return !present.key || next.key === present.key || (this.policy !== "off" && next.key !== "");
  }

  // sign returns our signature of a description of ours, undefined without a key.
  async sign(description) {
    return this.key ? this.#sign(descriptionText(this.mesh, this.key, description)) : undefined;
  }

  // signed reports whether a peer that has given this proof has signed a description.
  async signed(description, { key, mesh }, sig) {
    return verify(key, descriptionText(mesh, key, description), sig);
  }

  async #sign(text) {
    return encode(new Uint8Array(await crypto.subtle.sign(ALGORITHM, this.#private, text)));
  }

  async #update(change) {
    return this.#store.update("own", [this.mesh, this.#settings.name], change);
  }
}

// checkIdentity checks the form of the identity in a hello.
export function checkIdentity(identity) {
  checkObject("identity", identity, { key: "string", sig: "string", mesh: "string?" });
  if (identity.member !== undefined) checkForm(identity.member);
}

// checkForm checks the form of a statement.
export function checkForm(statement) {
  checkObject("member", statement, { mesh: "string", peer_id: "string", key: "string", not_after: "number", sig: "string" });
  if (!Number.isSafeInteger(statement.not_after)) throw new MeshError("invalid_field", "not_after of member is not an integer");
}

function checkObject(name, value, types) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new MeshError("invalid_field", `${name} is not an object`);
  for (const [key, type] of Object.entries(types)) {
    if (type.endsWith("?") && (value[key] === undefined || value[key] === null)) continue;
    if (typeof value[key] !== type.replace("?", "")) throw new MeshError("invalid_field", `${key} of ${name} is not a ${type}`);
  }
}

// refusal is final: trying again would not help.
export function refusal(why) {
  return Object.assign(new MeshError("identity", why), { final: true });
}

// named returns the value of f, or throws what it is about.
function named(what, f) {
  try {
    return f();
  } catch (error) {
    throw refusal(`${what}: ${error.message}`);
  }
}

async function verify(key, text, sig) {
  const bytes = decode(sig);
  if (!bytes) return false;
  const imported = await crypto.subtle.importKey("raw", parseKey(key), ALGORITHM, false, ["verify"]);
  return crypto.subtle.verify(ALGORITHM, imported, bytes, text);
}

function encode(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

// decode returns the bytes of standard base64 with padding, undefined for any other text.
function decode(text) {
  try {
    const raw = atob(text);
    return btoa(raw) === text ? Uint8Array.from(raw, (c) => c.charCodeAt(0)) : undefined;
  } catch {
    return undefined;
  }
}

export function hex(bytes) {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

// base32 is that of RFC 4648, in lower case and without padding.
function base32(bytes) {
  const bits = Array.from(bytes, (b) => b.toString(2).padStart(8, "0")).join("");
  return bits.match(/.{1,5}/g).map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five.padEnd(5, "0"), 2)]).join("");
}
