// A base peer of docs/protocol.md on another WebRTC stack: it joins by the signaling server, offers to every peer on the
// list, answers each offer, and has one data channel, "mesh", to each. Its console is that of the example agents.
//
//     node base.mjs STACK ID
//
// STACK is the npm package. The environment has SIGNALING_URL, TOKEN_URL, API_KEY, and in MESH_STACKS the directory in
// which ci/stacks.sh has installed the packages.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const require = createRequire(process.env.MESH_STACKS + '/')
const [stack] = process.argv.slice(2)
const { RTCPeerConnection } = require(stack === 'node-datachannel' ? 'node-datachannel/polyfill' : stack)
const WebSocket = require('ws')

const peers = new Map() // what is known of a peer, by its id
const asked = new Map() // the peer that was asked, by the request's id
const print = line => process.stdout.write(line + '\n')

async function main() {
  const response = await fetch(process.env.TOKEN_URL, { method: 'POST', headers: { 'X-API-Key': process.env.API_KEY } })
  const { token, peer_id: self } = await response.json()
  const socket = new WebSocket(`${process.env.SIGNALING_URL}?token=${token}`)
  const send = (type, target_id, payload) => socket.send(JSON.stringify({ type, peer_id: self, target_id, payload }))
  socket.on('open', () => socket.send(JSON.stringify({ type: 'register', peer_id: self, payload: {} })))
  socket.on('message', text => {
    const message = JSON.parse(text)
    if (message.type === 'peer_list') {
      for (const id of message.payload.peers) enter(id, send).offer()
    } else if (message.type === 'offer') {
      enter(message.peer_id, send).answer(message.payload)
    } else {
      peers.get(message.peer_id)?.signal(message)
    }
  })
}

function enter(id, send) {
  const peer = new Peer(id, send)
  peers.set(id, peer)
  return peer
}

class Peer {
  constructor(id, send) {
    Object.assign(this, { id, send, channel: null, described: false, early: [] })
    this.pc = new RTCPeerConnection({ iceServers: [] })
    this.pc.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return
      const { sdpMid, sdpMLineIndex } = candidate
      send('ice_candidate', id, { candidate: candidate.candidate, sdpMid: sdpMid ?? '0', sdpMLineIndex: sdpMLineIndex ?? 0 })
    }
    this.pc.ondatachannel = ({ channel }) => this.use(channel)
    this.pc.onconnectionstatechange = () => {
      if (['disconnected', 'failed', 'closed'].includes(this.pc.connectionState)) this.gone()
    }
  }

  async offer() {
    this.use(this.pc.createDataChannel('mesh'))
    await this.pc.setLocalDescription(await this.pc.createOffer())
    this.send('offer', this.id, { sdp: this.pc.localDescription.sdp })
  }

  async answer({ sdp }) {
    await this.describe('offer', sdp)
    await this.pc.setLocalDescription(await this.pc.createAnswer())
    this.send('answer', this.id, { sdp: this.pc.localDescription.sdp })
  }

  async signal({ type, payload }) {
    if (type === 'answer') await this.describe('answer', payload.sdp)
    else if (type === 'ice_candidate') await this.candidate(payload)
  }

  async describe(type, sdp) {
    await this.pc.setRemoteDescription({ type, sdp })
    this.described = true
    for (const candidate of this.early.splice(0)) await this.candidate(candidate)
  }

  async candidate({ candidate, sdpMid, sdpMLineIndex }) {
    if (!this.described) this.early.push({ candidate, sdpMid, sdpMLineIndex })
    else if (candidate) await this.pc.addIceCandidate({ candidate, sdpMid, sdpMLineIndex })
  }

  use(channel) {
    channel.binaryType = 'arraybuffer'
    const open = () => {
      if (this.channel) return
      this.channel = channel
      print(`+ ${this.id}`)
    }
    channel.onopen = open
    channel.onclose = () => this.gone()
    channel.onmessage = ({ data }) => {
      open() // some stacks have a channel of the other end open before anybody can listen
      this.receive(typeof data === 'string' ? data : new TextDecoder().decode(data))
    }
    if (channel.readyState === 'open') open()
  }

  receive(text) {
    const m = JSON.parse(text)
    if (asked.get(m.request_id) === this.id) {
      asked.delete(m.request_id)
      print(`${this.id} answers: ${text}`)
      return
    }
    print(`${this.id}: ${text}`)
    const { type, request_id } = m
    if (type === 'ping') this.say({ type: 'pong', request_id })
    if (!request_id || !type.endsWith('_request')) return
    const payload = type === 'echo_request' ? m.payload : { error: `no handler for ${type}` }
    this.say({ type: type.replace(/_request$/, '_response'), request_id, payload })
  }

  say(message) {
    this.channel.send(JSON.stringify(message))
  }

  gone() {
    if (peers.get(this.id) === this) peers.delete(this.id)
    if (this.channel) print(`- ${this.id}`)
    this.channel = null
  }
}

const commands = {
  quit: () => input.close(),
  peers: () => print(['peers:', ...[...peers.values()].filter(p => p.channel).map(p => p.id).sort()].join(' ')),
  broadcast: text => peers.forEach(p => p.channel?.send(text)),
  send: text => {
    const [, id, message] = /^(\S+) (.*)$/s.exec(text)
    peers.get(id).channel.send(message)
  },
  request: text => {
    const [, id, message] = /^(\S+) (.*)$/s.exec(text)
    asked.set(JSON.parse(message).request_id, id)
    peers.get(id).channel.send(message)
  }
}

const input = createInterface({ input: process.stdin })
input.on('line', line => {
  const [, verb, rest] = /^(\S+) ?(.*)$/s.exec(line)
  commands[verb](rest)
})
input.on('close', async () => {
  for (const { pc } of peers.values()) await pc.close()
  setTimeout(() => process.exit(0), 200) // what closing sends
})
await main()
