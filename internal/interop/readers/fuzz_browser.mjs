// Fuzzes the line reader of examples/browser, in Node: whatever the bytes, it survives and takes exactly the lines that
// the Go parser takes. A peer is whoever connects, so this is the reader that hostile bytes reach first. See
// generator.mjs for FUZZTIME and FUZZSEED.

import assert from 'node:assert/strict'
import { LineSplitter, parse } from '../../../examples/browser/link.js'
import { fuzz, oddNumber } from './generator.mjs'

async function read(generator, { stream }) {
  const verdicts = []
  const lines = new LineSplitter((line, error) => {
    try {
      if (error) throw error
      parse(line)
      verdicts.push('ok')
    } catch (error) {
      assert.equal(error.name, 'MeshError', `${line}: ${error}`)
      verdicts.push('error')
    }
  })
  for (const piece of generator.pieces(stream)) lines.add(new Uint8Array(piece))
  return verdicts
}

process.exitCode = await fuzz({
  protocol: 'peerlink', file: 'peerlink.jsonl', read, limit: 16 << 20, // the page's own tests reach it
  fields: [],
  types: ['hello', 'cancel', 'pause', 'resume', 'drain', 'drained', 'card', 'later', ''],
  // The page has rules of its own for identities.
  tolerable: (stream) => oddNumber(stream) || /identity|member/i.test(unescaped(stream)),
})

function unescaped(stream) {
  return stream.toString('latin1').replace(/\\u([0-9a-f]{4})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)))
}
