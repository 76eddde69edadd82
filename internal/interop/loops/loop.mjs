#!/usr/bin/env node
// Follows a streamed reply of bob as slowly as the input says: `take N` takes N chunks more, `leave` leaves the loop.

import { createInterface } from 'node:readline'
import { Agent } from '../../../examples/node/agent.mjs'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const command = async () => ((await lines.next()).value ?? 'leave').split(' ')

const agent = new Agent(() => {})
await agent.open(process.argv[process.argv.indexOf('--socket') + 1])
let wanted = 0
let taken = 0
try {
  for await (const _ of agent.requestStream('bob', { type: 'a_request', request_id: 'r1' })) {
    taken++
    if (taken > wanted) {
      console.log(`took ${taken}`)
      const [verb, n] = await command()
      if (verb === 'leave') break
      wanted = taken + Number(n) - 1
    }
  }
  console.log('left')
} catch (error) {
  console.log(`failed: ${error.message}`)
}
await command()
process.exit()
