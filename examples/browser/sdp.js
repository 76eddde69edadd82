// What a description may say: the bounds of "SDP" and "ICE" in docs/protocol.md.

const MAX_SDP = 64 << 10; // bytes
export const MAX_CANDIDATES = 128; // of a description, those that follow it included

// readSDP checks a description and returns it as {sdp, fingerprint, candidates}: without what may not count, which are
// candidates over the limit and fingerprints by any other hash than SHA-256; that fingerprint, as bytes; and how many
// candidates it has.
export function readSDP(text) {
  if (text.length > MAX_SDP) throw new Error(`SDP of ${text.length} characters, the limit is ${MAX_SDP} bytes`);
  if (/\r(?!\n)|\0/.test(text)) throw new Error("SDP with a line end that not everyone reads as one");
  const fingerprints = new Set();
  let candidates = 0;
  let sections = 0;
  const lines = text.split("\n").filter((line) => {
    if (/^m=/i.test(line)) sections++;
    if (/^a=candidate\b/i.test(line)) return ++candidates <= MAX_CANDIDATES;
    if (!/fingerprint/i.test(line)) return true;
    const [, hash, value] = /^a=fingerprint:([\w-]+) ([\dA-F:]+)\s*$/i.exec(line) ?? [];
    if (!hash) throw new Error("SDP with a fingerprint of another form");
    const counts = hash.toLowerCase() === "sha-256";
    if (counts) fingerprints.add(value.toUpperCase());
    return counts;
  });
  if (sections !== 1) throw new Error(`SDP with ${sections} media sections, want one, for data channels`);
  if (fingerprints.size !== 1) throw new Error(`SDP with ${fingerprints.size} fingerprints by SHA-256, want one`);
  return { sdp: lines.join("\n"), fingerprint: parseFingerprint([...fingerprints][0]), candidates };
}

function parseFingerprint(text) {
  const bytes = text.split(":").map((byte) => (/^[\dA-F]{2}$/.test(byte) ? parseInt(byte, 16) : NaN));
  if (bytes.length !== 32 || bytes.includes(NaN)) throw new Error("SDP with a fingerprint that is not one of SHA-256");
  return Uint8Array.from(bytes);
}
