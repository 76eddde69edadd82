#!/usr/bin/env node
// An agent of the mesh in JavaScript, on Node's own modules alone (18.3 or later).
//
// An agent talks to its sidecar in JSON lines over a Unix socket, and the sidecar does the rest. The section "Link" of
// docs/protocol.md describes these lines. Link, Peer and Agent are for any program, Sidecar starts one, and Console
// makes this program a toy: each line of input is a command, each line of output an event.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, realpathSync, rmSync, statSync } from 'node:fs'
import { createConnection, Socket } from 'node:net'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const MAX_MESSAGE = 16 << 20 // bytes; told to the sidecar in hello
const MAX_LINE = MAX_MESSAGE + (64 << 10) // a line holds a message and its envelope
const MAX_DEPTH = 512 // of a message, its own object being the first level
const MAX_CARD = 16 << 10 // bytes of a card's JSON
const MAX_CARD_DEPTH = 16
const MAX_WAITING = 1000 // messages queued for one peer, and pending list_peers
const MAX_WORKING = 1024 // requests of one peer that are handled at once
const MAX_CALLS = 10_000 // our pending requests
const MAX_STREAMS = 512 // of peers that are handled at once; each is a file descriptor
const MAX_UNREAD = 64 << 20 // bytes of one peer's chunks that wait for our loops; then the request fails
const UNREAD_HIGH = 1 << 20 // and at which the peer is asked to pause
const UNREAD_LOW = 256 << 10 // and to go on
const CHUNK_COST = 512 // bytes that a chunk takes besides its text
const MAX_TIMER = 2 ** 31 - 1 // milliseconds
const FEATURES = ['error', 'flow', 'cancel', 'drain', 'identity', 'streams', 'cards']
const NO_CARDS = 'no_cards: our sidecar knows no cards'
const BYTE_ORDER_MARK = Buffer.from('\ufeff')
const BLANK = new Set([0x20, 0x09, 0x0d])
const REQUEST = /_(request|query|prompt)$/
const CHUNK = '_stream_chunk'

// How far a peer is paused. A busy peer still gets replies, because its own work may wait for them; a peer for which
// our sidecar's queue is full gets nothing.
const [GO, STOP_NEW, STOP_ALL] = [0, 1, 2]

// A failure, described for people.
class MeshError extends Error {
  code = '' // one of docs/protocol.md, if it has any
}

// Thrown by a handler that chooses what the peer learns: a text, a code, and details for programs.
class HandlerError extends MeshError {
  constructor(text, code = 'app', details = undefined) {
    super(text)
    this.code = code
    this.details = details
  }
}

// The peer responded with an error. The code is '' if it told none, as base agents do.
class RemoteError extends MeshError {
  constructor(reply) {
    const { error, code, details } = reply.payload
    super(error)
    if (typeof code === 'string' && Buffer.byteLength(code) <= 64) this.code = code
    if (!this.code && error === 'busy') this.code = 'busy' // as agents say that know no codes
    this.details = details
    this.reply = reply
  }
}

// A sidecar with the same key was started later, and ours has ended. Starting ours again would replace that one.
class Replaced extends MeshError {}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decodeAny(text) {
  try {
    return JSON.parse(utf8.decode(text))
  } catch (error) {
    throw new MeshError(`not JSON in UTF-8: ${error.message}`)
  }
}

function decode(line) {
  const value = decodeAny(line)
  if (!isObject(value)) throw new MeshError('not a JSON object')
  return value
}

// What the protocol says of an object in a line: the keys that it knows, how many levels and bytes the object may have,
// and the same for objects in it, by their keys. inspect refuses what breaks that, of which JSON.parse tells nothing.
function shape(names, inside = {}, depth = Infinity, bytes = Infinity) {
  const alike = new RegExp(`^(?:${names.join('|') || '(?!)'})$`, 'iu') // Unicode's simple case folding
  return { names, inside: new Map(Object.entries(inside)), depth, bytes, alike }
}

// inspect goes through text, which must be JSON, and throws for keys of the protocol that come twice or in another
// case, since two readers could see two different values, and for values that are too deep or too long.
function inspect(text, outermost) {
  const open = [] // the objects and arrays that the cursor is in
  let next = outermost // the shape of the value at the cursor, undefined if the protocol says nothing of it
  let key = false // at the cursor is a key, if it is in an object
  for (let i = 0; i < text.length; i++) {
    const top = open.at(-1)
    switch (text[i]) {
      case '"': {
        const end = endOfString(text, i)
        if (key && top.shape) next = top.shape.inside.get(known(JSON.parse(text.slice(i, end + 1)), top))
        key = false
        i = end
        break
      }
      case '{':
      case '[': {
        key = text[i] === '{'
        const limit = Math.min(top?.limit ?? Infinity, open.length + (key && next ? next.depth : Infinity)) // only objects have one
        if (open.length >= limit) throw new MeshError(`too_deep: nested more than ${limit} levels`)
        open.push({ shape: key ? (next ?? top?.each) : undefined, each: key ? undefined : next?.each, seen: new Set(), limit, object: key, start: i })
        next = undefined
        break
      }
      case '}':
      case ']':
        checkSize(open.pop(), text, i + 1)
        key = false
        break
      case ',':
        key = top.object
        next = undefined
    }
  }
}

function checkSize({ shape, start }, text, end) {
  const limit = shape?.bytes ?? Infinity
  if (limit === Infinity || Buffer.byteLength(text.slice(start, end)) <= limit) return
  throw new MeshError(`too_large: an object of over ${limit} bytes`)
}

// endOfString returns where the string that begins at i ends.
function endOfString(text, i) {
  for (let at = i; ;) {
    at = text.indexOf('"', at + 1)
    let backslashes = 0
    while (text[at - 1 - backslashes] === '\\') backslashes++
    if (backslashes % 2 === 0) return at
  }
}

// known returns a key of an object once it is clear that it is not ambiguous.
function known(name, { shape, seen }) {
  if (shape.names.includes(name) ? seen.has(name) : shape.alike.test(name)) {
    throw new MeshError(`invalid_field: ${name} comes twice, or in another case`)
  }
  if (shape.names.includes(name)) seen.add(name)
  return name
}

const CARD = shape([], {}, MAX_CARD_DEPTH, MAX_CARD)
const MESSAGE = shape(['type', 'request_id', 'source_agent', 'target_agent', 'payload'], {}, MAX_DEPTH)

function check(message) {
  const fields = MESSAGE.names.slice(0, 4)
  if (!('type' in message) || fields.some((f) => f in message && typeof message[f] !== 'string')) {
    throw new MeshError(`invalid_field: a message needs a type, and ${fields.join(', ')} are strings`)
  }
}

// checkCard refuses what cannot be our card, and returns a copy of it: what it is in JSON, which is not always what it looks like.
function checkCard(card) {
  if (card == null) return null
  let text
  try {
    text = JSON.stringify(card)
  } catch (error) {
    throw new MeshError(`invalid_field: the card cannot be said in JSON: ${String(error).split('\n', 1)[0]}`)
  }
  if (!text?.startsWith('{')) throw new MeshError('invalid_field: a card is an object, or null')
  inspect(text, CARD)
  return JSON.parse(text)
}

// readCard returns what a peer's card means: in it, members of the wrong type are ignored one by one. It changes the card.
function readCard(card) {
  if (card == null) return null
  keep(card, { name: isString, version: isString, description: isString, skills: Array.isArray, queries: Array.isArray })
  if (card.skills) card.skills = card.skills.filter((s) => isObject(s) && isName(s.name))
  card.skills?.forEach((skill) => keep(skill, { description: isString, type: isString }))
  if (card.queries) card.queries = card.queries.filter(isString)
  return card
}

function keep(object, fields) {
  for (const [field, holds] of Object.entries(fields)) if (!holds(object[field])) delete object[field]
}

// What the fields of a line from the sidecar have to be. One that is null or absent is no mistake unless its line makes
// no sense without it.
const isString = (value) => typeof value === 'string'
const isText = (value) => value == null || isString(value)
const isTexts = (value) => value == null || (Array.isArray(value) && value.every((v) => typeof v === 'string'))
const isNumber = (value) => value == null || (Number.isInteger(value) && value >= 0)
const isNumbers = (value) => value == null || (Array.isArray(value) && value.every((v) => v !== null && isNumber(v)))
const isFlag = (value) => value == null || typeof value === 'boolean'
const isStats = (value) => value == null || (Array.isArray(value) && value.every((v) => isObject(v) && holdAll(STATS, v)))
const holdAll = (fields, value) => Object.entries(fields).every(([field, holds]) => holds(value[field]))
const isName = (value) => typeof value === 'string' && value !== ''
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
const isCard = (value) => value == null || isObject(value)

const STATS = Object.fromEntries([...['peer_id', 'path', 'local', 'remote', 'held_back', 'paused'].map((f) => [f, isText]),
  ...['rtt_us', 'messages_sent', 'messages_received', 'bytes_sent', 'bytes_received', 'bytes_queued', 'streams', 'outages'].map((f) => [f, isNumber])])
const STREAM = { stream: isText, peer_id: isText, service: isText, secret: isText, code: isText, message: isText }
const EVENTS = new Map(Object.entries({
  ready: { protocol: isNumber, features: isTexts, max_message: isNumber, token: isText, policy: isText, secret: isText, card: isCard },
  signaling: { state: isText, peer_id: isText, error: isText, code: isText },
  peer_list: { peers: isTexts, keys: isTexts },
  peer_connected: { peer_id: isName, key: isText, card: isCard },
  card: { peer_id: isName, card: isCard },
  peer_disconnected: { peer_id: isName },
  message: { from_peer: isName, message: isObject },
  pause: { peer_id: isName, all: isFlag, ordered: isFlag },
  resume: { peer_id: isName },
  cancel: { from_peer: isName, request_id: isName },
  drained: { peers: isTexts, unsent: isNumbers },
  stats: { peers: isStats, dropped: isNumber },
  path: { peer_id: isName, path: isText, local: isText, remote: isText },
  listening: STREAM,
  stream: STREAM,
  stream_end: STREAM,
  stream_stop: STREAM,
  pong: {},
  error: { code: isText, message: isText, command: isText, target_peer: isText, request_id: isText },
}))
// Those that have a meaning in some line, and so must not be ambiguous in any.
const COMMON = ['target_peer', 'target_peer_id', 'from_peer', 'peer_id', 'message', 'request_id', 'all', 'ordered', 'except']

// parse returns type and payload of a line from the sidecar. The type may be one of a later version.
function parse(line) {
  const { type, payload } = decode(line)
  const fields = EVENTS.get(type)
  const message = type === 'message' ? MESSAGE : shape([], {}, MAX_DEPTH)
  const peers = type === 'stats' ? { ...shape([]), each: shape(Object.keys(STATS)) } : undefined
  const card = fields?.card && CARD
  const inner = shape([...COMMON, ...Object.keys(fields ?? {})], { message, peers, card })
  inspect(utf8.decode(line), shape(['type', 'payload'], { payload: inner }, MAX_DEPTH + 4))
  if (typeof type !== 'string') throw new MeshError('invalid_field: the type is no string')
  if (!fields) return { type, payload: {} }
  if (payload != null && !isObject(payload)) throw new MeshError('invalid_field: the payload is no object')
  for (const [field, holds] of Object.entries(fields)) {
    if (!holds(payload?.[field])) throw new MeshError(`invalid_field: ${field} in ${type}`)
  }
  if (type === 'message') check(payload.message)
  return { type, payload: payload ?? {} }
}

// Cuts bytes into lines at 0x0A alone. node:readline also cuts at a CR and at U+2028, which may be inside of JSON
// strings. Skips a byte order mark at the beginning.
class Lines {
  partial = []
  size = 0 // of partial
  began = false

  constructor(limit = MAX_LINE) {
    this.limit = limit
  }

  // feed returns the lines that end in chunk and are not blank. null stands for a line that was too long.
  feed(chunk) {
    const lines = []
    for (let end; (end = chunk.indexOf(0x0a)) >= 0; chunk = chunk.subarray(end + 1)) {
      this.keep(chunk.subarray(0, end))
      lines.push(this.take())
    }
    this.keep(chunk)
    return lines.filter((line) => line === null || line.some((byte) => !BLANK.has(byte)))
  }

  // keep keeps of a line that is too long as much as shows that it is: besides the limit a mark, a CR, and one byte.
  keep(part) {
    const kept = part.subarray(0, this.limit + 5 - this.size)
    if (kept.length === 0) return
    this.partial.push(kept)
    this.size += kept.length
  }

  take() {
    let line = Buffer.concat(this.partial)
    this.partial = []
    this.size = 0
    if (!this.began && line.subarray(0, 3).equals(BYTE_ORDER_MARK)) line = line.subarray(3)
    this.began = true
    if (line.at(-1) === 0x0d) line = line.subarray(0, -1)
    return line.length > this.limit ? null : line
  }
}

// The connection to the sidecar.
class Link {
  stuck = false // the sidecar did not close its end in time

  constructor(agent, path) {
    this.agent = agent
    this.lines = new Lines()
    this.socket = createConnection(path)
    this.socket.on('data', (chunk) => this.lines.feed(chunk).forEach((line) => agent.receive(line)))
    this.socket.on('drain', () => agent.pump())
    this.socket.on('error', () => {}) // 'close' follows
    this.closed = new Promise((resolve) => this.socket.on('close', resolve)).then(() => {
      agent.end(agent.lost)
    })
  }

  // room reports whether the sidecar keeps up with our writes.
  get room() {
    return !this.socket.writableNeedDrain
  }

  write(line) {
    if (this.socket.writable) this.socket.write(line + '\n')
  }

  // close closes our end, waits for the sidecar to close its own, and disconnects.
  async close(patience) {
    if (this.socket.closed) return
    this.socket.end()
    this.stuck = !await within(patience, this.closed.then(() => true))
    this.socket.destroy()
    await this.closed
  }
}

// A live peer.
class Peer {
  constructor(name, key) {
    this.name = name
    this.key = key // that it has proven, '' without one
    this.card = null // what it says about itself, whatever that is worth; null if nothing
    this.stop = GO
    this.fresh = [] // sends and requests, as {line, sent}
    this.replies = []
    this.chunks = [] // of responses; each has somebody who waits for it
    this.working = new Map() // its requests: AbortControllers by request_id
    this.unread = 0 // bytes of its chunks that none of our loops has taken
  }
}

// The chunks of a response that no loop has taken.
class Chunks {
  waiting = [] // as {payload, size}
  wake = () => {} // there is a chunk, or the end

  constructor(agent, peer) {
    this.agent = agent
    this.peer = peer
  }

  add(payload, size) {
    this.waiting.push({ payload, size })
    this.agent.count(this.peer, size)
    this.wake()
  }

  take() {
    const { payload, size } = this.waiting.shift()
    this.agent.count(this.peer, -size)
    return payload
  }

  end(response, error) {
    Object.assign(this, { ended: true, response, error })
    this.wake()
  }
}

// The chunks of a response, for `for await`, and then the response, which comes last.
class Replies {
  response

  constructor(agent, peer, message, timeout) {
    Object.assign(this, { agent, peer, message, timeout })
  }

  async* [Symbol.asyncIterator]() {
    const { agent, timeout } = this
    const { id, chunks } = agent.ask(this.peer, this.message)
    try {
      for (;;) {
        while (chunks.waiting.length > 0) yield chunks.take()
        if (chunks.ended) break
        const more = new Promise((resolve) => { chunks.wake = () => resolve(true) })
        if (!await within(timeout, more)) agent.giveUp(id, `no answer within ${timeout} s`)
      }
      if (chunks.error) throw chunks.error
      this.response = chunks.response
    } finally {
      if (!chunks.ended) agent.giveUp(id, 'cancelled')
      while (chunks.waiting.length > 0) chunks.take()
    }
  }
}

// A stream to or from a peer: a socket like any other, and what a socket cannot tell. destroy without an error closes it,
// and what was written still arrives; with an error it is given up.
class Stream extends Socket {
  stopped = null // a MeshError that says why writes fail

  constructor(agent, name) {
    super({ allowHalfOpen: true })
    this.agent = agent
    this.name = name // on the link
    // What arrives has ended: null if the peer is done, a MeshError if it is gone.
    this.ended = new Promise((resolve) => { this.onEnded = resolve })
    this.on('error', () => {}) // 'close' follows
    agent.streams.set(name, this)
  }

  _destroy(error, done) {
    const code = error ? { code: 'stream_reset' } : {}
    this.agent.tell('stream_end', { stream: this.name, ...code })
    // If the sidecar has ended it, the reason may be on its way.
    if (!this.readableEnded && (this.stopped || !error?.syscall)) this.finish(this.stopped ?? new MeshError('closed'))
    super._destroy(error, done)
  }

  stop(why) {
    this.stopped = why
    if (this.destroyed) this.finish(why)
  }

  finish(why) {
    this.onEnded(why)
    this.agent.streams.delete(this.name)
  }
}

// Peers, messages, requests, responses and streams. onEvent is called for each event: see FORMATS.
class Agent {
  // By the type of the request: async (peer, message, signal) => payload of the response. An async generator yields chunks
  // before that.
  handlers = new Map()
  peers = new Map()
  calls = new Map() // our pending requests, by request_id
  lists = [] // pending list_peers, in the order sent
  services = new Map() // handlers of peers' streams
  streams = new Map() // by their names
  serving = new Set() // names of peers' streams that are handled
  pausing = new Set() // peers that are to wait for our loops
  size = 0 // bytes of the line that is handled
  path = '' // where streams are to be had
  secret = ''
  lost = new MeshError('the sidecar is gone') // what the end of the link means; may become Replaced
  link = null

  // card is what peers are told of us: an object, null for nothing.
  constructor(onEvent, base = false, card = null) {
    this.event = onEvent
    this.card = checkCard(card)
    this.features = base ? [] : null // null: not known yet
    this.drained = new Promise((resolve) => { this.onDrained = resolve })
  }

  async open(path) {
    this.path = path
    const uid = statSync(path, { throwIfNoEntry: false })?.uid
    if (uid !== undefined && uid !== process.geteuid()) {
      throw new MeshError(`${path} belongs to uid ${uid}, who would read and forge everything; ` +
        'let agent and sidecar use a path in $XDG_RUNTIME_DIR')
    }
    this.link = new Link(this, path)
    try {
      await once(this.link.socket, 'connect')
    } catch (error) {
      throw new MeshError(`cannot connect to ${path}: ${error.code}; does a sidecar run there?`)
    }
    const told = this.card
    if (!this.features) this.tell('hello', { protocol: 1, features: FEATURES, max_message: MAX_MESSAGE, card: told ?? undefined })
    // A sidecar that answers this without a ready knows the base protocol only, so no timeout is needed to find
    // that out. The one here is for a sidecar that does not answer at all.
    if (!await within(10, this.listPeers())) throw new MeshError(`the sidecar at ${path} does not answer`)
    if (this.card && !this.knows('cards')) this.event('error', NO_CARDS)
    else if (this.card !== told) this.tell('card', { card: this.card }) // it has changed since the hello
  }

  // close sends what is queued, for at most 5 s, and ends the link.
  async close() {
    const deadline = Date.now() + 5000
    const waiting = () => [...this.peers.values()].some((peer) => peer.fresh.length + peer.replies.length > 0)
    while (waiting() && Date.now() < deadline) await within(0.05, this.link.closed)
    let patience = 5
    for (const name of this.serving) this.streams.get(name)?.destroy(new MeshError('the agent quits')) // the peers are told
    if (this.knows('drain')) {
      // A peer may keep the sidecar from draining. A sidecar that does not even answer this is stuck.
      if (this.lists.length === 0) this.listPeers().catch(() => {})
      const time = Math.max(deadline - Date.now(), 1000)
      this.tell('drain', { timeout_ms: time })
      await within(time / 1000 + 1, Promise.race([this.drained, this.link.closed]))
      if (this.lists.length > 0) patience = 0
    }
    this.end(new MeshError('the agent quits'))
    await this.link.close(patience)
  }

  // For the application. Nothing here blocks: messages go out in the order of the calls, and to a busy peer later. What
  // is wrong at once is thrown as a MeshError; later failures are events of kind `error`.

  send(peer, message) {
    this.post(peer, message)
  }

  broadcast(message) {
    check(message)
    let late = [...this.peers.values()].filter((peer) => peer.stop !== GO || peer.fresh.length > 0)
      .map((peer) => peer.name)
    if (late.length === 0) this.tell('broadcast', { message })
    else if (this.knows('flow')) this.tell('broadcast', { message, except: late })
    else late = [...this.peers.keys()] // the base protocol has no `except`
    for (const name of late) {
      try {
        this.send(name, message)
      } catch (error) {
        this.event('error', error.message)
      }
    }
  }

  // request returns a promise of the response, which is rejected with a MeshError: a RemoteError if the response reports
  // a failure. The peer is told the timeout, in seconds, and ends its work then.
  request(peer, message, timeout = 30) {
    const told = { timeout_ms: message.timeout_ms ?? Math.max(Math.round(timeout * 1000), 1) }
    const { id, call } = this.ask(peer, { ...message, ...told })
    call.timer = setTimeout(() => this.giveUp(id, `no answer within ${timeout} s`), timeout * 1000)
    return new Promise((resolve, reject) => Object.assign(call, { resolve, reject, chunks: undefined }))
  }

  // requestStream makes a request when a `for await` begins, which gets the payloads of its chunks as they come. It ends
  // with a MeshError if the request fails; to leave it gives the request up. The timeout is for each chunk and the response.
  requestStream(peer, message, timeout = 30) {
    return new Replies(this, peer, message, timeout)
  }

  // requestSkill makes a request of a live peer whose card offers a skill, and returns a promise of the response, as request
  // does. Who has the fewest requests of ours is asked first, and another one if it is busy. The timeout is for each of them.
  async requestSkill(skill, payload, timeout = 30) {
    const tried = new Set()
    let error = new MeshError(`no_skill: no live peer offers ${skill}`)
    for (let peer; (peer = this.leastBusy(skill, tried)); tried.add(peer)) {
      try {
        return await this.request(peer.name, { type: skillType(peer.card, skill), payload }, timeout)
      } catch (refusal) {
        if (!(refusal instanceof RemoteError && refusal.code === 'busy')) throw refusal
        error = refusal
      }
    }
    throw error
  }

  // leastBusy returns a peer that offers a skill and was not tried, undefined if there is none.
  leastBusy(skill, tried) {
    const pending = new Map()
    for (const { peer } of this.calls.values()) pending.set(peer, (pending.get(peer) ?? 0) + 1)
    return [...this.peers.values()].filter((peer) => !tried.has(peer) && skillType(peer.card, skill))
      .map((peer) => ({ peer, load: pending.get(peer.name) ?? 0, chance: Math.random() }))
      // One that has us paused is the last choice, and of equals each is as likely.
      .sort((a, b) => a.peer.stop - b.peer.stop || a.load - b.load || a.chance - b.chance)[0]?.peer
  }

  // setCard replaces what peers are told of us: null takes it back.
  setCard(card) {
    const own = checkCard(card)
    if (this.features && !this.knows('cards')) throw new MeshError(NO_CARDS)
    this.card = own
    if (this.features) this.tell('card', { card: own }) // else the hello says it, or open
  }

  cancel(id) {
    if (!this.calls.has(id)) throw new MeshError(`no request ${id} waits for a response`)
    this.giveUp(id, 'cancelled')
  }

  // connect asks for a link to a peer now. The event `connected` or `error` follows.
  connect(peer) {
    this.tell('connect', { target_peer_id: peer })
  }

  listPeers() {
    if (this.lists.length >= MAX_WAITING) throw new MeshError('too many lists of peers are waited for')
    this.tell('list_peers', {})
    return new Promise((resolve, reject) => this.lists.push({ resolve, reject }))
  }

  // Streams of bytes. They have flow control of their own, and what was sent before them may come behind them.

  // openStream returns a promise of a stream to a service of a peer: a net.Socket that stays open until both ends have
  // called end, or one destroy.
  openStream(peer, service) {
    return this.stream(`a${newId()}`, { peer_id: peer, service })
  }

  // onStream has the handler called, async (peer, stream), for each stream that a peer opens to a service. The stream is
  // closed when the handler returns, and given up when it fails.
  onStream(service, handler) {
    this.needStreams()
    this.services.set(service, handler)
    this.tell('listen', { service })
  }

  needStreams() {
    if (!this.knows('streams')) throw new MeshError('no_streams: our sidecar knows no streams')
  }

  // stream returns a connection for a stream, behind the first line each way.
  async stream(name, what) {
    this.needStreams()
    const stream = new Stream(this, name)
    const over = new Promise((_, reject) => ['error', 'end', 'close'].forEach((event) => stream.once(event, reject)))
    over.catch(() => {})
    try {
      stream.connect(this.path)
      stream.write(line('stream', { stream: name, ...what, secret: this.secret }) + '\n')
      let answer = ''
      while (!answer.endsWith('\n')) {
        const byte = stream.read(1) // and not one more: what is behind the line is the peer's
        if (byte) answer += byte.toString('latin1')
        else await Promise.race([once(stream, 'readable'), over])
        if (answer.length > 65536) throw this.lost
      }
      const { type, payload } = parse(Buffer.from(answer, 'latin1'))
      if (type !== 'stream') throw failure(payload) ?? this.lost
      return stream
    } catch (error) {
      stream.destroy()
      stream.finish(error)
      throw error instanceof MeshError ? error : new MeshError(`no connection for a stream: ${error?.code ?? this.lost.message}`)
    }
  }

  // serve has a stream of a peer handled.
  async serve(handler, peer, name) {
    this.serving.add(name)
    let stream
    try {
      stream = await this.stream(name, {})
      await handler(peer, stream)
      await new Promise((resolve) => stream.end(resolve)) // what the handler has written
      stream.destroy()
    } catch (error) { // only this stream fails
      stream?.destroy(error)
      this.event('error', `stream of ${peer}: ${describe(error)}`)
    } finally {
      this.serving.delete(name)
    }
  }

  // To the sidecar.

  knows(feature) {
    return this.features?.includes(feature) ?? false
  }

  tell(type, payload) {
    this.link.write(line(type, payload))
  }

  // ask makes a request whose chunks are wanted.
  ask(peer, message) {
    const id = message.request_id || newId()
    if (this.calls.has(id)) throw new MeshError('its request_id is in use')
    if (this.calls.size >= MAX_CALLS) throw new MeshError('too many requests wait')
    const out = this.post(peer, { ...message, request_id: id })
    const chunks = new Chunks(this, this.peers.get(peer))
    const [resolve, reject] = [(response) => chunks.end(response), (error) => chunks.end(undefined, error)]
    const call = { peer, out, chunks, resolve, reject }
    this.calls.set(id, call)
    return { id, call, chunks }
  }

  post(name, message, which = 'fresh') {
    check(message)
    const peer = this.peers.get(name)
    if (!peer) throw new MeshError(`peer_not_connected: no link to ${name}`)
    const queue = peer[which]
    if (queue.length >= MAX_WAITING && which !== 'chunks') { // of which there is one for each request
      throw new MeshError(`queue_full: ${MAX_WAITING} messages wait for ${name} already`)
    }
    const out = { line: line('send', { target_peer: name, message }), sent: false }
    queue.push(out)
    this.pump()
    return out
  }

  // pump writes all that may go out.
  pump() {
    for (const peer of this.peers.values()) {
      for (const [queue, stop] of [[peer.replies, STOP_ALL], [peer.fresh, STOP_NEW], [peer.chunks, STOP_NEW]]) {
        while (queue.length > 0 && peer.stop < stop && this.link.room) {
          const out = queue.shift()
          out.sent = true
          this.link.write(out.line)
          out.written?.()
        }
      }
    }
  }

  giveUp(id, why) {
    const { peer, out } = this.calls.get(id)
    if (out.sent && this.knows('cancel')) this.tell('cancel', { target_peer: peer, request_id: id })
    this.settle(id, new MeshError(why))
  }

  settle(id, result) {
    const { peer, out, timer, resolve, reject } = this.calls.get(id)
    this.calls.delete(id)
    clearTimeout(timer)
    if (!out.sent) this.peers.get(peer).fresh = this.peers.get(peer).fresh.filter((other) => other !== out)
    if (result instanceof MeshError) reject(result)
    else resolve(result)
  }

  // From the sidecar.

  receive(text) {
    try {
      if (text === null) throw new MeshError(`it has over ${MAX_LINE} bytes`)
      this.size = text.length
      const { type, payload } = parse(text)
      // An unknown type belongs to an extension that we do not use.
      this.on[type]?.(payload)
    } catch (error) { // one bad line does not spoil the next
      this.event('error', `a line from the sidecar was skipped: ${describe(error)}`)
    }
  }

  on = {
    __proto__: null,

    ready: ({ features, secret }) => {
      this.features ??= features ?? []
      this.secret = secret ?? ''
    },

    peer_list: ({ peers: names, keys }) => {
      const peers = names ?? []
      if (keys && keys.length !== peers.length) throw new MeshError('invalid_field: keys in peer_list, not one for each')
      this.features ??= [] // no ready came before this
      peers.forEach((name, i) => this.meet(name, keys?.[i])) // peers that were here before us are not announced
      this.lists.shift()?.resolve(peers)
    },

    signaling: ({ state, peer_id: name, error, code }) => {
      if (state === 'connected') this.event('joined', name ?? '')
      else if (state === 'replaced') { // the end of the link follows
        this.lost = new Replaced(`replaced: ${error || 'a sidecar with the same key was started later'}`)
      } else if (error) this.event('error', `signaling ${state}: ${code ? `${code}: ` : ''}${error}`)
    },

    peer_connected: ({ peer_id: name, key, card }) => {
      this.meet(name, key)
      this.on.card({ peer_id: name, card })
      this.on.resume({ peer_id: name })
      // Our pause was for the link before, and may have crossed its end.
      if (this.pausing.delete(name)) this.tell('resume', { peer_id: name })
    },

    card: ({ peer_id: name, card }) => {
      const peer = this.peers.get(name)
      if (!peer) return
      const before = JSON.stringify(peer.card)
      peer.card = readCard(card)
      if (JSON.stringify(peer.card) !== before) this.tellCard(peer) // else this follows a list of peers
    },

    peer_disconnected: ({ peer_id: name }) => {
      if (!this.peers.has(name)) return
      this.event('disconnected', name)
      this.part(this.peers.get(name), new MeshError(`peer_lost: ${name} is gone`))
    },

    pause: ({ peer_id: name, all }) => {
      if (this.peers.has(name)) this.peers.get(name).stop = all ? STOP_ALL : STOP_NEW
      this.pump() // if the pause is less than before, replies go again
    },

    resume: ({ peer_id: name }) => {
      if (this.peers.has(name)) this.peers.get(name).stop = GO
      this.pump()
    },

    error: ({ code, message, target_peer: peer, request_id: id }) => {
      const text = `${code}: ${message}`
      if (this.calls.has(id) && this.calls.get(id).peer === peer) this.settle(id, new MeshError(text))
      else this.event('error', !peer || text.includes(peer) ? text : `${text} (${peer})`)
    },

    drained: ({ peers, unsent }) => {
      if ((peers?.length ?? 0) !== (unsent?.length ?? 0)) {
        throw new MeshError('invalid_field: unsent in drained is not one for each peer')
      }
      peers?.forEach((name, i) => this.event('error', `up to ${unsent[i]} messages to ${name} may not have arrived`))
      this.onDrained()
    },

    pong: () => {}, // we do not ping

    listening: ({ service }) => this.event('listening', service ?? ''),

    stream: ({ stream: name, peer_id: peer, service }) => {
      const handler = this.services.get(service)
      const full = this.serving.size >= MAX_STREAMS
      if (handler && !full) this.serve(handler, peer ?? '', name ?? '')
      else this.tell('refuse', { stream: name, code: full ? 'too_many_streams' : 'refused' })
    },

    stream_end: (payload) => this.streams.get(payload.stream)?.finish(failure(payload)),

    stream_stop: (payload) => this.streams.get(payload.stream)?.stop(failure(payload)),

    cancel: ({ from_peer: name, request_id: id }) => {
      this.giveWay(this.meet(name), id)
    },

    message: ({ from_peer: name, message }) => {
      const peer = this.meet(name)
      const { type, request_id: id } = message
      const asks = type === 'ping' || REQUEST.test(type)
      // A response counts only from the peer that was asked, because others could guess the request_id.
      const call = this.calls.get(id)?.peer === name && !asks ? this.calls.get(id) : undefined
      if (id && type.endsWith(CHUNK)) {
        if (call?.chunks) this.hearChunk(peer, id, call.chunks, message) // else nobody wants it, or not any more
        return
      }
      if (call) {
        this.settle(id, refusal(message) ?? message)
        return
      }
      this.event('message', name, message)
      if (id && asks && !peer.working.has(id)) this.answer(peer, message)
    },
  }

  meet(name, key = '') {
    if (!this.peers.has(name)) {
      this.peers.set(name, new Peer(name, key))
      this.event('connected', name)
      if (key) this.event('key', name, key)
    }
    return this.peers.get(name)
  }

  tellCard({ name, card }) {
    if (card) this.event('card', name, card)
    else this.event('no_card', name)
  }

  hearChunk(peer, id, chunks, message) {
    if (peer.unread <= MAX_UNREAD) chunks.add(message.payload, this.size + CHUNK_COST)
    else this.giveUp(id, `queue_full: over ${MAX_UNREAD} bytes of chunks of ${peer.name} wait`) // in spite of our pause
  }

  // giveWay ends the work on a request whose response the peer does not wait for any more.
  giveWay(peer, id) {
    const work = peer.working.get(id)
    if (!work || work.signal.aborted) return
    work.abort()
    this.event('gave_up', peer.name, id)
  }

  // count counts the bytes of chunks that no loop has taken. The peer waits while they are many.
  count(peer, size) {
    peer.unread += size
    const pausing = this.pausing.has(peer.name)
    const pause = peer.unread > (pausing ? UNREAD_LOW : UNREAD_HIGH)
    if (pause === pausing || this.peers.get(peer.name) !== peer || !this.knows('flow')) return
    if (pause) this.pausing.add(peer.name)
    else this.pausing.delete(peer.name)
    this.tell(pause ? 'pause' : 'resume', { peer_id: peer.name, ...(pause ? { ordered: true } : {}) })
  }

  // part ends all work with a peer.
  part(peer, why) {
    for (const [id, call] of this.calls) {
      if (call.peer === peer.name) this.settle(id, why)
    }
    for (const work of peer.working.values()) work.abort()
    for (const _ of peer.fresh) this.event('error', `${why.message}; a message to ${peer.name} was not sent`)
    this.peers.delete(peer.name)
  }

  end(why) {
    for (const peer of this.peers.values()) this.part(peer, why)
    for (const { reject } of this.lists.splice(0)) reject(why)
    for (const name of this.serving) this.streams.get(name)?.destroy(why)
    for (const stream of this.streams.values()) stream.finish(why)
  }

  async answer(peer, message) {
    const { type, request_id: id } = message
    const busy = peer.working.size >= MAX_WORKING
    const work = new AbortController()
    peer.working.set(id, work)
    const limit = patience(message)
    const timer = limit && setTimeout(() => this.giveWay(peer, id), limit)
    let payload
    try {
      const handler = this.handlers.get(type)
      if (busy) throw new HandlerError('busy', 'busy')
      if (!handler) throw new HandlerError(`no handler for ${type}`, 'no_handler')
      const result = handler(peer.name, message, work.signal)
      payload = await (result?.[Symbol.asyncIterator] ? this.emit(peer, message, result, work.signal) : result)
    } catch (error) { // only this request fails
      payload = failed(error)
    }
    clearTimeout(timer)
    const response = { type: type === 'ping' ? 'pong' : type.replace(REQUEST, '_response'), request_id: id }
    try {
      if (work.signal.aborted) return // the peer gave up or is gone
      try {
        this.post(peer.name, { ...response, payload }, 'replies')
      } catch (error) {
        if (!(error instanceof HandlerError)) throw error
        this.post(peer.name, { ...response, payload: failed(error) }, 'replies') // it cannot be sent to anyone
      }
    } catch (error) {
      this.event('error', `no answer to ${peer.name}: ${describe(error)}`)
    } finally {
      peer.working.delete(id)
    }
  }

  // emit sends what a handler yields, each when the one before is on its way, and returns the payload of the response.
  async emit(peer, { type, request_id: id }, generator, signal) {
    const chunk = { type: type.replace(REQUEST, '') + CHUNK, request_id: id }
    try {
      while (!signal.aborted) {
        const { done, value } = await generator.next()
        if (done) return value ?? {}
        const out = this.post(peer.name, { ...chunk, payload: value }, 'chunks')
        if (!out.sent) await writing(out, signal)
        if (!out.sent) peer.chunks = peer.chunks.filter((other) => other !== out)
        await turn() // others have a turn even if the handler never waits
      }
      return undefined // which nobody gets
    } finally {
      await generator.return?.()
    }
  }
}

// writing waits until a message is sent, or nobody wants it any more.
function writing(out, signal) {
  return new Promise((resolve) => {
    out.written = resolve
    signal.addEventListener('abort', resolve)
  }).finally(() => signal.removeEventListener('abort', out.written))
}

function line(type, payload) {
  let text
  try {
    text = JSON.stringify({ type, payload })
  } catch (error) {
    throw new HandlerError(`cannot be said in JSON: ${error.message}`, 'internal')
  }
  if (Buffer.byteLength(text) > MAX_LINE) {
    throw new HandlerError(`too_large: a message has at most ${MAX_MESSAGE} bytes`, 'too_large')
  }
  return text
}

// failure returns what a line from the sidecar says went wrong, null if it has no code.
const failure = ({ code, message }) => code ? new MeshError(`${code}: ${message}`) : null

// failed returns the payload of the response to a request that has failed. What code the error of another peer had, whom
// the handler has asked, is none of the asker's business.
function failed(error) {
  const own = error instanceof HandlerError
  const code = own ? error.code : error?.name === 'TimeoutError' ? 'deadline_exceeded' : 'app'
  return { error: describe(error) || code, code, details: own ? error.details : undefined }
}

// refusal returns the failure that a response reports, null if it reports none.
function refusal(reply) {
  const text = isObject(reply.payload) ? reply.payload.error : undefined
  return typeof text === 'string' && text !== '' ? new RemoteError(reply) : null
}

// skillType returns the type of the requests that ask for a skill, undefined if a peer's card does not offer it.
function skillType(card, name) {
  const skill = card?.skills?.find((s) => s.name === name)
  return skill && (skill.type || `${name}_request`)
}

// patience returns for how many milliseconds the sender of a request waits, undefined if it has not said.
function patience({ timeout_ms: limit }) {
  return Number.isInteger(limit) && limit > 0 ? Math.min(limit, MAX_TIMER) : undefined
}

const describe = (error) => error instanceof MeshError ? error.message : String(error)

const newId = () => randomBytes(6).toString('hex')

// within returns the value of the promise, or undefined if that takes longer.
async function within(seconds, promise) {
  const timer = new AbortController()
  try {
    return await Promise.race([promise, delay(Math.max(seconds, 0) * 1000, undefined, timer).catch(() => {})])
  } finally {
    timer.abort()
  }
}

// A sidecar that is started for this agent and ends with it.
class Sidecar {
  process = null
  log = '' // its last 8,192 characters
  directory = ''

  // start returns the path of its socket, once that is there.
  async start(binary, name, verbose) {
    this.directory = mkdtempSync(join(tmpdir(), 'mesh-')) // private: whatever connects to the socket is the agent
    const path = join(this.directory, 'socket')
    const env = { ...process.env, IPC_SOCKET: path, ...(name ? { API_KEY: name } : {}) }
    // In a session of its own, because Ctrl-C would end it before it is drained.
    const child = spawn(binary, [], { env, stdio: ['ignore', 'ignore', verbose ? 'inherit' : 'pipe'], detached: true })
    try {
      await once(child, 'spawn')
    } catch (error) {
      throw new MeshError(`cannot start ${binary}: ${error.code}; build a sidecar with ` +
        '`go build ./cmd/chatixia-sidecar`, name it with --sidecar or SIDECAR_BINARY')
    }
    this.process = child
    this.ended = once(child, 'close').then(() => true)
    child.stderr?.setEncoding('utf8').on('data', (text) => { this.log = (this.log + text).slice(-8192) })
    for (let i = 0; i < 300; i++) {
      if (existsSync(path)) return path
      if (await within(0.1, this.ended)) throw new MeshError(`the sidecar ${this.status()}`)
    }
    throw new MeshError('the sidecar made no socket within 30 s')
  }

  status() {
    const { exitCode, signalCode } = this.process
    return signalCode ? `was ended by signal ${constants.signals[signalCode]}` : `ended with status ${exitCode}`
  }

  removeSocket() {
    if (this.directory) rmSync(this.directory, { recursive: true, force: true })
  }

  // stop waits for its end, which the end of the link brings about. It returns whether it had to be killed.
  async stop(patience) {
    this.removeSocket()
    if (!this.process || await within(patience, this.ended)) return false
    this.signal('SIGTERM')
    if (await within(1, this.ended)) return false
    this.signal('SIGKILL')
    await this.ended
    return true
  }

  signal(name) {
    if (!this.process) return
    try {
      process.kill(-this.process.pid, name) // the whole group: a wrapper may have started the sidecar
    } catch {} // it has ended
  }
}

// The rest is only a toy.

const MAX_COUNT = 1_000_000 // of a count_request

// printable escapes all but ASCII: nothing that a peer sends may forge a line or control the terminal.
function printable(text) {
  return text.replace(/[^\x20-\x7e]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'))
}

const named = (peer) => printable(peer).replaceAll(' ', '\\u0020') // or "bob: x" could pass for bob

const show = (message) => printable(JSON.stringify(message))

async function echo(_peer, { payload = {} }) {
  return payload
}

async function sleep(_peer, { payload }, signal) {
  const seconds = payload?.seconds
  if (typeof seconds !== 'number' || seconds < 0 || seconds > 3600) {
    throw new MeshError('the payload must be {"seconds": n}, n from 0 to 3600')
  }
  await delay(seconds * 1000, undefined, { signal })
  return { result: `slept ${seconds} s` }
}

async function* count(_peer, { payload }) {
  const to = payload?.to
  if (!Number.isInteger(to) || to < 0 || to > MAX_COUNT) {
    throw new HandlerError(`the payload must be {"to": n}, n from 0 to ${MAX_COUNT}`, 'out_of_range', { max: MAX_COUNT })
  }
  for (let i = 1; i <= to; i++) yield { i }
  return { counted: to }
}

async function echoStream(_peer, stream) {
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    if (!stream.write(chunk)) await once(stream, 'drain')
  }
}

// Text of a peer, in which spaces are spaces.
class Text extends String {}

const FORMATS = {
  joined: 'joined as {}', connected: '+ {}', key: '{} has key {}', no_key: '{} has no key',
  card: '{} has card {}', no_card: '{} has no card',
  disconnected: '- {}', message: '{}: {}', listening: 'listens for {}',
  chunk: '{} streams: {}', answer: '{} answers: {}', gave_up: '{} gave up on {}', error: 'error: {}',
}

// Events as lines on stdout, lines on stdin as commands.
class Console {
  constructor(base, card) {
    this.quitting = new Promise((resolve) => {
      this.quit = () => {
        this.ended = true
        resolve()
      }
    })
    this.agent = new Agent((kind, ...details) => this.event(kind, ...details), base, card)
    this.agent.handlers = new Map([['ping', echo], ['echo_request', echo], ['sleep_request', sleep], ['count_request', count]])
    const { agent } = this
    this.commands = new Map([
      ['peers', [[], () => this.peers()]],
      ['send', [['PEER', 'MESSAGE'], (peer, message) => agent.send(peer, message)]],
      ['broadcast', [['MESSAGE'], (message) => agent.broadcast(message)]],
      ['request', [['PEER', 'MESSAGE'], (peer, message) => this.request(peer, message)]],
      ['stream', [['PEER', 'MESSAGE'], (peer, message) => this.stream(peer, message)]],
      ['cancel', [['REQUEST_ID'], (id) => agent.cancel(id)]],
      ['connect', [['PEER'], (peer) => agent.connect(peer)]],
      ['offer', [['SERVICE'], (service) => agent.onStream(service, echoStream)]],
      ['open', [['PEER', 'SERVICE', 'TEXT'], (peer, service, text) => this.open(peer, service, text)]],
      ['keys', [[], () => this.keys()]],
      ['cards', [[], () => agent.peers.forEach((peer) => agent.tellCard(peer))]],
      ['card', [['JSON'], (card) => agent.setCard(card)]],
      ['skill', [['SKILL', 'JSON'], (skill, payload) => this.skill(skill, payload)]],
      ['quit', [[], () => this.quit()]],
    ])
    this.hurried = new Promise((resolve) => {
      // hurry quits, and no longer waits for the reader of our output.
      this.hurry = () => {
        this.hasty = true
        agent.link?.socket.resume()
        this.quit()
        resolve()
      }
    })
    process.stdout.on('error', this.hurry) // its reader is gone
    process.stdout.on('drain', () => agent.link?.socket.resume())
  }

  say(text) {
    // While our output is not read, the link is not read, so our peers wait.
    if (this.hasty && process.stdout.writableNeedDrain) return
    if (!process.stdout.write(text + '\n') && !this.hasty) this.agent.link?.socket.pause()
  }

  // flush waits for the reader of our output, for at most 5 s.
  async flush() {
    await within(5, Promise.race([new Promise((resolve) => process.stdout.write('', resolve)), this.hurried]))
  }

  event(kind, ...details) {
    const write = (d) => {
      if (typeof d === 'object' && !(d instanceof Text)) return show(d)
      return kind === 'error' || d instanceof Text ? printable(d) : named(d)
    }
    this.say(FORMATS[kind].replace(/{}/g, () => write(details.shift())))
  }

  command(text) {
    try {
      if (text === null) throw new MeshError(`a command has at most ${MAX_LINE} bytes`)
      const [verb, rest = ''] = split(utf8.decode(text), 1)
      if (!this.commands.has(verb)) {
        const known = [...this.commands].map(([v, [usage]]) => [v, ...usage].join(' '))
        throw new MeshError(`no command ${verb}; there are: ${known.join(', ')}`)
      }
      const [usage, run] = this.commands.get(verb)
      const words = split(rest, Math.max(usage.length - 1, 0))
      if (words.length !== usage.length) throw new MeshError(`usage: ${[verb, ...usage].join(' ')}`)
      if (usage.includes('MESSAGE')) words.push(decode(Buffer.from(words.pop())))
      if (usage.includes('JSON')) words.push(decodeAny(Buffer.from(words.pop())))
      run(...words)
    } catch (error) {
      this.event('error', describe(error))
    }
  }

  peers() {
    this.agent.listPeers().then(
      (peers) => this.say(['peers:', ...peers.map(named)].join(' ')),
      () => {}) // run reports that the sidecar is gone
  }

  keys() {
    for (const { name, key } of this.agent.peers.values()) {
      if (key) this.event('key', name, key)
      else this.event('no_key', name)
    }
  }

  // skill makes a request of any peer with a skill.
  async skill(skill, payload) {
    try {
      this.event('answer', skill, await this.agent.requestSkill(skill, payload))
    } catch (error) {
      if (error instanceof RemoteError) this.event('answer', skill, error.reply)
      else this.event('error', `skill ${skill}: ${describe(error)}`)
    }
  }

  request(peer, message) {
    check(message)
    const id = message.request_id || newId()
    const failed = (error) => this.failed(peer, id, error)
    try {
      this.agent.request(peer, { ...message, request_id: id })
        .then((response) => this.event('answer', peer, response), failed)
    } catch (error) {
      failed(error)
    }
  }

  failed(peer, id, error) {
    if (error instanceof RemoteError) this.event('answer', peer, error.reply) // which is a response all the same
    else this.event('error', `request ${id} to ${peer}: ${describe(error)}`)
  }

  stream(peer, message) {
    check(message)
    this.follow(peer, { ...message, request_id: message.request_id || newId() })
  }

  // follow makes a request and prints the chunks of its response as they come.
  async follow(peer, message) {
    const replies = this.agent.requestStream(peer, message)
    try {
      for await (const chunk of replies) {
        this.event('chunk', peer, new Text(show(chunk ?? null)))
        if (process.stdout.writableNeedDrain) await Promise.race([once(process.stdout, 'drain'), this.hurried])
      }
      this.event('answer', peer, replies.response)
    } catch (error) {
      this.failed(peer, message.request_id, error)
    }
  }

  // open writes a line to a stream, and prints what comes back until its end.
  async open(peer, service, text) {
    try {
      const stream = await this.agent.openStream(peer, service)
      const chunks = []
      let size = 0
      stream.end(text + '\n') // meanwhile, as the peer writes while it reads
      try {
        for await (const chunk of stream) {
          size += chunk.length
          if (size > MAX_MESSAGE) throw new MeshError(`too_large: over ${MAX_MESSAGE} bytes`)
          chunks.push(chunk)
        }
      } catch (error) {
        if (error instanceof MeshError) throw error // else the stream's end says why
      }
      const why = await stream.ended
      if (why) throw why
      this.event('answer', `${peer}/${service}`, new Text(Buffer.concat(chunks).toString().replace(/\n$/, '')))
    } catch (error) {
      this.event('error', `stream to ${peer}/${service}: ${describe(error)}`)
    }
  }

  // run takes commands until the link or the input ends, or a command or signal ends us.
  async run() {
    const { link } = this.agent
    this.read().catch(() => {}).then(() => this.quit())
    await Promise.race([this.quitting, link.closed])
    if (link.socket.destroyed) throw this.agent.lost
    await this.agent.close()
  }

  async read() {
    const { socket } = this.agent.link
    const lines = new Lines()
    for await (const chunk of withLast(process.stdin, Buffer.from('\n'))) {
      for (const text of lines.feed(chunk)) {
        for (const stream of [socket, process.stdout]) {
          if (stream.writableNeedDrain) await once(stream, 'drain')
        }
        if (this.ended) return
        this.command(text)
      }
    }
  }
}

async function* withLast(stream, last) {
  yield* stream
  yield last
}

// split cuts text at white space, at most that many times.
function split(text, times) {
  const words = []
  let rest = text.trim()
  while (rest && words.length < times) {
    const [, word, more] = /^(\S+)\s*([^]*)$/.exec(rest)
    words.push(word)
    rest = more
  }
  return rest ? [...words, rest] : words
}

async function run(options, name) {
  const toy = new Console(options.base, options.card)
  const sidecar = new Sidecar()
  let failed = false
  let signalled = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (signalled) {
        sidecar.signal('SIGKILL')
        sidecar.removeSocket()
        process.exit(1)
      }
      signalled = true
      toy.hurry()
    })
  }
  try {
    const binary = options.sidecar || process.env.SIDECAR_BINARY || 'chatixia-sidecar'
    await toy.agent.open(options.socket ?? await sidecar.start(binary, name, options.verbose))
    // Without streams it is no longer needed, and now nothing is left even if we are killed; else an empty directory is.
    if (!toy.agent.knows('streams')) sidecar.removeSocket()
    await toy.run()
  } catch (error) {
    failed = true
    toy.event('error', describe(error))
  } finally {
    const { link } = toy.agent
    await link?.close(0)
    if (await sidecar.stop(link && !link.stuck ? 15 : 0)) {
      failed = true
      toy.event('error', 'the sidecar did not end and was killed')
    }
    await toy.flush()
  }
  if (failed && sidecar.process) {
    process.stderr.write(`the sidecar ${sidecar.status()}; its log:\n${sidecar.log}`)
  }
  return failed ? 1 : 0
}

const USAGE = `usage: agent.mjs [-h] [--sidecar PATH | --socket PATH] [--base | --card JSON] [--verbose] [NAME]

An agent of the mesh, to play with.

  NAME            API key for the sidecar that is started; in a development setup that is
                  our name (default: $API_KEY)
  --sidecar PATH  start this sidecar (default: $SIDECAR_BINARY, or chatixia-sidecar on the PATH)
  --socket PATH   use the sidecar that listens here, such as $XDG_RUNTIME_DIR/sidecar.sock
  --base          use nothing but the base protocol
  --card JSON     what peers are told of us, an object
  --verbose       show the log of the sidecar that is started
`

async function main() {
  let options, names
  try {
    ({ values: options, positionals: names } = parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' }, sidecar: { type: 'string' }, socket: { type: 'string' },
        base: { type: 'boolean' }, card: { type: 'string' }, verbose: { type: 'boolean' },
      },
    }))
    if (names.length > 1) throw new Error('there can be one NAME only')
    if (options.socket && options.sidecar) throw new Error('--sidecar and --socket exclude each other')
    if (options.socket && names.length > 0) throw new Error('a sidecar that runs has its name already: --socket takes no NAME')
    if (options.base && options.card) throw new Error('the base protocol knows no cards: --base takes no --card')
    if (options.card !== undefined) options.card = checkCard(decode(Buffer.from(options.card)))
  } catch (error) {
    process.stderr.write(`${USAGE.split('\n')[0]}\nagent.mjs: error: ${error.message}\n`)
    return 2
  }
  if (options.help) {
    process.stdout.write(USAGE)
    return 0
  }
  return run(options, names[0])
}

export { Agent, COMMON, EVENTS, HandlerError, Lines, MESSAGE, MeshError, RemoteError }

// Unread output, or a terminal, would keep the process alive.
if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) process.exit(await main())
