// Fuzzes the line reader of examples/node: whatever the bytes, it survives, keeps its bounds, and takes exactly the
// lines that the Go parser takes. See generator.mjs for FUZZTIME and FUZZSEED.

import assert from 'node:assert/strict'
import { Agent, COMMON, EVENTS, Lines, MESSAGE, MeshError } from '../../../examples/node/agent.mjs'
import { fuzz, oddNumber } from './generator.mjs'

const SKIPPED = 'a line from the sidecar was skipped: '

async function read(generator, { stream, limit }) {
  let errors = []
  const agent = new Agent((kind, ...details) => kind === 'error' && errors.push(details[0]))
  agent.link = { room: true, write: (line) => assert(!line.includes('\n'), `writes ${line}`) }
  const lines = new Lines(limit)
  const verdicts = []
  for (const piece of generator.pieces(stream)) {
    for (const line of lines.feed(piece)) {
      assert(line === null || line.length <= limit, `a line of ${line?.length} bytes, the limit is ${limit}`)
      errors = []
      agent.receive(line)
      const skipped = errors.find((error) => error.startsWith(SKIPPED))
      verdicts.push(skipped ? 'error' : 'ok')
      assert(!/: [A-Z]\w*Error: /.test(skipped), `${line}: ${skipped}`)
    }
    assert(lines.size <= limit + 5, `${lines.size} bytes kept, the limit is ${limit}`)
  }
  agent.end(new MeshError('over'))
  return verdicts
}

const fields = [...COMMON, ...MESSAGE.names, ...[...EVENTS.values()].flatMap(Object.keys)]
const types = [...EVENTS.keys(), 'later', '', 'ping', 'x_request', 'x_response', 'x_stream_chunk', '__proto__', 'constructor']
process.exitCode = await fuzz({ protocol: 'link', file: 'link.jsonl', fields, types, read, tolerable: oddNumber })
