// The rules of identity.js and sdp.js, in Node: node --test examples/browser/testdata/identity.test.js
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Identity, descriptionText, hex, keyID, linkText, parseKey, statementText } from "../identity.js";
import { readSDP } from "../sdp.js";

globalThis.crypto ??= (await import("node:crypto")).webcrypto; // before Node 19

const fixtures = new URL("../../../docs/fixtures/identity.jsonl", import.meta.url);
const vectors = readFileSync(fixtures, "utf8").trim().split("\n").map((line) => JSON.parse(line));
const bytes = (text) => Uint8Array.from(Buffer.from(text, "hex"));

// A memory stands in for the browser's store.
class Memory {
  records = new Map();
  get = async (table, key) => this.records.get(table + key.join("\0"));
  count = async (table, mesh) => [...this.records.keys()].filter((key) => key.startsWith(`${table}${mesh}\0`)).length;
  delete = async (table, key) => void this.records.delete(table + key.join("\0"));
  async update(table, key, change) {
    const record = change(this.records.get(table + key.join("\0")));
    this.records.set(table + key.join("\0"), record);
    return record;
  }
}

const keyFromSeed = (seed) => {
  const pkcs8 = Buffer.concat([bytes("302e020100300506032b657004220420"), bytes(seed)]);
  return crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
};
const sign = async (seed, text) => Buffer.from(await crypto.subtle.sign("Ed25519", await keyFromSeed(seed), text)).toString("base64");

const cert = (b) => new Uint8Array(32).fill(b);
const link = (own, other, change) => ({
  offerer: own < other, own, other, ownCert: cert(own.charCodeAt(0)), otherCert: cert(other.charCodeAt(0)),
  ownSession: `s-${own}`, otherSession: `s-${other}`, ...change,
});
const open = (settings, store = new Memory()) => Identity.open({ name: "a key", mesh: "demo", ...settings }, async () => store);
const root = vectors.find(({ statement }) => statement);
const state = async (identity, peer_id, change) => {
  const statement = { mesh: identity.mesh, peer_id, key: identity.key, not_after: Math.floor(Date.now() / 1000) + 60, ...change };
  return { ...statement, sig: await sign(root.seed, statementText(statement)) };
};
const refused = (work, why) => assert.rejects(work, (error) => error.code === "identity" && error.final && why.test(error.message) || assert.fail(error));

for (const v of vectors) {
  test(v.name, async () => {
    let text;
    if (v.link) {
      const { role, own, other, own_cert, other_cert, own_session, other_session } = v.link;
      const l = { offerer: role === "offerer", own, other, ownCert: bytes(own_cert), otherCert: bytes(other_cert), ownSession: own_session, otherSession: other_session };
      text = linkText(v.mesh, v.key, l);
    } else if (v.description) {
      const { type, own, other, own_session, other_session, number, sdp } = v.description;
      text = descriptionText(v.mesh, v.key, { type, own, other, ownSession: own_session, otherSession: other_session, number, sdp });
      const identity = await open({ mesh: v.mesh });
      const d = { type, own, other, ownSession: own_session, otherSession: other_session, number, sdp };
      assert.equal(await identity.signed(d, v, v.sig), true);
      assert.equal(await identity.signed({ ...d, number: number + 1 }, v, v.sig), false);
    } else text = statementText(v.statement);
    assert.equal(hex(text), v.text);
    assert.equal(await sign(v.seed, text), v.sig);
    assert.equal(await keyID(v.key), v.id);
  });
}

test("each end takes the other's signature", async () => {
  const [ann, bob] = [await open(), await open()];
  const proof = await bob.verify(link("bob", "ann"), await ann.show(link("ann", "bob")));
  assert.deepEqual(proof, { key: ann.key, mesh: "demo" });
});

test("a signature is for one link only", async () => {
  const [ann, bob, other] = [await open(), await open(), await open({ mesh: "other" })];
  const shown = await ann.show(link("ann", "bob"));
  for (const change of [
    { ownCert: cert(1) }, { otherCert: cert(1) }, { own: "eve" }, { other: "eve" }, { offerer: true },
    { ownSession: "x" }, { otherSession: "x" }, { ownSession: "" }, { otherSession: "" },
  ]) {
    await refused(bob.verify(link("bob", "ann", change), shown), /^wrong signature/);
  }
  await refused(other.verify(link("bob", "ann"), shown), /^it is of mesh "demo", and this page is of "other"/);
  await refused(other.verify(link("bob", "ann"), { ...shown, mesh: "other" }), /^wrong signature/);
  const unnamed = await open({ mesh: "" });
  assert.deepEqual(await unnamed.verify(link("bob", "ann"), shown), { key: ann.key, mesh: "demo" });
  await refused(unnamed.verify(link("bob", "ann"), { ...shown, mesh: undefined }), /^wrong signature/); // the reader's own
  await refused(bob.verify(link("bob", "ann"), { ...shown, sig: shown.sig.replace(/=+$/, "") }), /^wrong signature/);
  await refused(bob.verify(link("bob", "ann"), { ...shown, key: bob.key }), /^wrong signature/);
  // A link without sessions cannot be told from others, even if both ends sign it.
  const bare = { ownSession: "", otherSession: "" };
  await refused(bob.verify(link("bob", "ann", bare), await ann.show(link("ann", "bob", bare))), /^wrong signature/);
});

test("weak and malformed keys", async () => {
  const base64 = (text) => Buffer.from(text, "hex").toString("base64");
  for (const y of [
    "00".repeat(32), "01" + "00".repeat(31), "ec" + "ff".repeat(30) + "7f", "ed" + "ff".repeat(30) + "7f", "ee" + "ff".repeat(30) + "7f", "ff".repeat(32),
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "00".repeat(31) + "80", "01" + "00".repeat(30) + "80", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  ]) assert.throws(() => parseKey(base64(y)), /small order/, y);
  const good = vectors[0].key;
  parseKey(good);
  parseKey(base64("eb" + "ff".repeat(30) + "7f")); // P - 2
  for (const text of ["", "AAAA", good.slice(0, -1), good + "\n", " " + good, good.replace("=", ""), good + good]) assert.throws(() => parseKey(text), /base64/, text);
  const bob = await open();
  await refused(bob.verify(link("bob", "ann"), { key: base64("00".repeat(32)), sig: vectors[0].sig }), /^its key: a point of small order/);
});

test("off", async () => {
  const bob = await open();
  assert.deepEqual(await bob.verify(link("bob", "ann"), undefined), { key: "" });
  const certified = vectors[0].id;
  await refused(bob.verify(link("bob", certified), undefined), /certifies a key/);
  await refused(bob.verify(link("bob", certified.toUpperCase()), undefined), /certifies a key/);
  const ann = await open();
  await refused(bob.verify(link("bob", certified), await ann.show(link(certified, "bob", { offerer: false, ownCert: cert(107) }))), /wrong signature|certifies/);
  const id = await keyID(ann.key);
  const l = link("bob", id);
  const far = { ...l, offerer: !l.offerer, own: id, other: "bob", ownCert: l.otherCert, otherCert: l.ownCert, ownSession: l.otherSession, otherSession: l.ownSession };
  assert.deepEqual(await bob.verify(l, await ann.show(far)), { key: ann.key, mesh: "demo" });
});

test("an id that certifies another key", async () => {
  const [ann, bob] = [await open(), await open()];
  const id = await keyID(bob.key);
  const l = link("bob", id);
  const far = { ...l, offerer: !l.offerer, own: id, other: "bob", ownCert: l.otherCert, otherCert: l.ownCert, ownSession: l.otherSession, otherSession: l.ownSession };
  await refused(bob.verify(l, await ann.show(far)), /not the one that its id certifies/);
});

test("known", async () => {
  const store = new Memory();
  const bob = await open({ policy: "known" }, store);
  const [ann, eve] = [await open(), await open()];
  assert.deepEqual(await bob.verify(link("bob", "ann"), undefined), { key: "" });
  assert.deepEqual(await bob.verify(link("bob", "ann"), await ann.show(link("ann", "bob"))), { key: ann.key, mesh: "demo" });
  await refused(bob.verify(link("bob", "ann"), await eve.show(link("ann", "bob"))), { test: (text) => text.startsWith(`its key has changed: this browser knows ${ann.key}, and it has shown ${eve.key}`) });
  await refused(bob.verify(link("bob", "ann"), undefined), /^it has shown no identity, and this browser knows/);
  const again = await open({ policy: "known", name: "another" }, store); // another tab
  await refused(again.verify(link("bob", "ann"), await eve.show(link("ann", "bob"))), /^its key has changed/);
  const elsewhere = await open({ policy: "known", mesh: "elsewhere" }, store);
  assert.deepEqual(await elsewhere.verify(link("bob", "ann"), undefined), { key: "" });
  await bob.forget("ann");
  assert.deepEqual(await bob.verify(link("bob", "ann"), await eve.show(link("ann", "bob"))), { key: eve.key, mesh: "demo" });
  const strict = await open({ policy: "known", required: true });
  await refused(strict.verify(link("bob", "ann"), undefined), /requires one/);
});

test("two tabs meet one peer at once", async () => {
  const store = new Memory();
  const tabs = [await open({ policy: "known" }, store), await open({ policy: "known" }, store)];
  const [ann, eve] = [await open(), await open()];
  const results = await Promise.allSettled([
    tabs[0].verify(link("bob", "ann"), await ann.show(link("ann", "bob"))),
    tabs[1].verify(link("bob", "ann"), await eve.show(link("ann", "bob"))),
  ]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
});

test("a full list forgets nobody", async () => {
  const store = new Memory();
  const bob = await open({ policy: "known" }, store);
  for (let i = 0; i < 10_000; i++) await store.update("known", ["demo", `p${i}`], () => vectors[0].key);
  const ann = await open();
  await refused(bob.verify(link("bob", "ann"), await ann.show(link("ann", "bob"))), /knows 10000 peers already/);
  assert.equal(await store.get("known", ["demo", "p0"]), vectors[0].key);
});

test("member", async () => {
  const bob = await open({ policy: "member", roots: [root.key] });
  const ann = await open();
  const show = async (statement) => ({ ...(await ann.show(link("ann", "bob"))), member: statement });
  await refused(bob.verify(link("bob", "ann"), undefined), /requires one/);
  await refused(bob.verify(link("bob", "ann"), await show(undefined)), /no statement/);
  const good = await state(ann, "ann");
  assert.deepEqual(await bob.verify(link("bob", "ann"), await show(good)), { key: ann.key, mesh: "demo", until: good.not_after * 1000 });
  for (const [change, why] of [
    [{ mesh: "other" }, /is about mesh "other"/], [{ peer_id: "eve" }, /is about eve/], [{ key: bob.key }, /about another key/],
    [{ not_after: Math.floor(Date.now() / 1000) - 1 }, /expired at/],
  ]) {
    await refused(bob.verify(link("bob", "ann"), await show(await state(ann, "ann", change))), why);
    await refused(bob.verify(link("bob", "ann"), await show({ ...good, ...change })), why);
  }
  await refused(bob.verify(link("bob", "ann"), await show({ ...good, not_after: good.not_after + 1 })), /not signed by a root/);
  const newer = await state(ann, "ann", { not_after: good.not_after + 60 });
  assert.deepEqual(await bob.renew({ key: ann.key }, "ann", newer), { key: ann.key, until: newer.not_after * 1000 });
  await refused(bob.renew({ key: bob.key }, "ann", newer), /another key/);
});

test("our own statement", async () => {
  const store = new Memory();
  const ann = await open({ roots: [root.key] }, store);
  await refused(ann.join(await state(ann, "ann", { key: root.key })), /another key/);
  await refused(ann.join({ ...(await state(ann, "ann")), sig: root.sig }), /not signed by a root/);
  await assert.rejects(ann.join({}), { code: "invalid_field" });
  const statement = await state(ann, "ann");
  await ann.join(statement);
  assert.deepEqual((await ann.show(link("ann", "bob"))).member, statement);
  const reloaded = await open({ roots: [root.key] }, store);
  assert.deepEqual([reloaded.key, reloaded.statement], [ann.key, statement]);
  await reloaded.claim("ann");
  await refused(reloaded.claim("bob"), /the statement is about ann/);
});

test("a key signs for one id", async () => {
  const store = new Memory();
  const ann = await open({}, store);
  await ann.claim("ann");
  await ann.claim("ann");
  await refused((await open({}, store)).claim("bob"), /signs for ann/);
  await (await open({ mesh: "other" }, store)).claim("bob");
  const id = await keyID(ann.key);
  await ann.claim(id);
  await refused(ann.claim(vectors[0].id), /certifies a key/);
  await (await open({ name: "" })).claim("anyone");
});

test("revoked", async () => {
  const ann = await open();
  const bob = await open({ revoked: [ann.key] });
  await refused(bob.verify(link("bob", "ann"), await ann.show(link("ann", "bob"))), /revoked/);
});

test("who ends a proven link", async () => {
  const off = await open();
  const known = await open({ policy: "known" });
  const member = await open({ policy: "member", roots: [root.key] });
  for (const [identity, next, present, want] of [
    [off, "a", "", true], [off, "", "", true], [off, "a", "a", true], [off, "b", "a", false], [off, "", "a", false],
    [known, "b", "a", true], [known, "", "a", false], // b was verified: a was forgotten
    [member, "b", "a", true], [member, "", "a", false],
  ]) assert.equal(identity.displaces({ key: next }, { key: present }), want, `${identity.policy}: ${next} for ${present}`);
});

test("settings", async () => {
  await refused(open({ policy: "maybe" }), /want off, known, member/);
  await refused(open({ policy: "member" }), /a root/);
  await refused(open({ policy: "member", roots: ["AAAA"] }), /a root: not the base64/);
  await refused(open({ required: true }), /requires nothing/);
});

test("a browser that keeps nothing", async () => {
  const fails = async () => {
    throw new Error("it is full");
  };
  await refused(Identity.open({ name: "ann", policy: "known" }, fails), /it is full/);
  const ann = await Identity.open({ name: "ann" }, fails);
  assert.deepEqual([ann.key, ann.lacks, await ann.show(link("ann", "bob"))], ["", "it is full", undefined]);
  await ann.claim("ann");
  const bob = await open();
  assert.deepEqual(await ann.verify(link("ann", "bob"), await bob.show(link("bob", "ann"))), { key: "" });
  await refused(ann.verify(link("ann", vectors[0].id), { key: vectors[0].key, sig: vectors[0].sig }), /certifies a key/);
});

test("what an SDP may say", () => {
  const print = (b) => `a=fingerprint:sha-256 ${Array(32).fill(b).join(":")}`;
  const sdp = (...lines) => ["v=0", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", ...lines, ""].join("\r\n");
  const candidates = (n) => Array.from({ length: n }, (_, i) => `a=candidate:1 1 udp 1 127.0.0.1 ${i} typ host`);
  const read = readSDP(sdp(print("AB")));
  assert.deepEqual(read, { sdp: sdp(print("AB")), fingerprint: cert(0xab), candidates: 0 });
  assert.equal(readSDP(sdp(print("ab"), "a=fingerprint:sha-1 AB:CD", print("AB"))).sdp, sdp(print("ab"), print("AB")));
  assert.equal(readSDP(sdp(print("AB"), ...candidates(128))).candidates, 128);
  assert.equal(readSDP(sdp(print("AB"), ...candidates(1000))).sdp, sdp(print("AB"), ...candidates(128)));
  for (const [text, why] of [
    [sdp(), /0 fingerprints/], [sdp("a=fingerprint:sha-512 AB"), /0 fingerprints/], [sdp(print("AB"), print("AC")), /2 fingerprints/],
    [sdp(print("AB"), "a=fingerprint sha-256 AB"), /another form/], [sdp(print("AB"), " " + print("AC")), /another form/],
    [sdp(print("AB"), "a=x\r" + print("AC")), /line end/], [sdp(print("AB") + "\0"), /line end/], [sdp("a=fingerprint:sha-256 AB"), /not one of SHA-256/],
    [sdp(print("AB"), "m=audio 9 x 0"), /2 media sections/], [sdp(print("AB"), "a=x:" + "y".repeat(70_000)), /limit/],
  ]) assert.throws(() => readSDP(text), why, text.slice(0, 200));
});
