"""A base peer of docs/protocol.md on aiortc: base.mjs in Python, with the same console.

    python base.py ID

The environment has SIGNALING_URL, TOKEN_URL and API_KEY.
"""

import asyncio
import json
import os
import sys
import urllib.request

import websockets
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

peers = {}  # what is known of a peer, by its id
asked = {}  # the peer that was asked, by the request's id


def show(line):
    print(line, flush=True)


class Peer:
    def __init__(self, name, send):
        self.name, self.send, self.channel, self.early = name, send, None, []
        self.pc = RTCPeerConnection()
        self.pc.on("datachannel", self.use)
        self.pc.on("connectionstatechange", self.changed)
        peers[name] = self

    def changed(self):
        if self.pc.connectionState in ("disconnected", "failed", "closed"):
            self.gone()

    async def offer(self):
        self.use(self.pc.createDataChannel("mesh"))
        await self.pc.setLocalDescription(await self.pc.createOffer())
        await self.send("offer", self.name, {"sdp": self.pc.localDescription.sdp})

    async def answer(self, sdp):
        await self.describe("offer", sdp)
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        await self.send("answer", self.name, {"sdp": self.pc.localDescription.sdp})

    async def describe(self, kind, sdp):
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, kind))
        early, self.early = self.early, None
        for c in early:
            await self.candidate(c)

    async def candidate(self, c):
        if self.early is not None:
            self.early.append(c)
        elif c["candidate"]:
            made = candidate_from_sdp(c["candidate"].removeprefix("candidate:"))
            made.sdpMid, made.sdpMLineIndex = c.get("sdpMid"), c.get("sdpMLineIndex")
            await self.pc.addIceCandidate(made)

    def use(self, channel):
        def opened():
            if self.channel is None:
                self.channel = channel
                show(f"+ {self.name}")

        channel.on("open", opened)
        channel.on("close", self.gone)
        channel.on("message", self.receive)
        if channel.readyState == "open":
            opened()

    def receive(self, text):
        if isinstance(text, bytes):
            text = text.decode()
        m = json.loads(text)
        request_id, kind = m.get("request_id"), m["type"]
        if request_id is not None and asked.get(request_id) == self.name:
            del asked[request_id]
            show(f"{self.name} answers: {text}")
            return
        show(f"{self.name}: {text}")
        if kind == "ping":
            self.say({"type": "pong", "request_id": request_id})
        if not request_id or not kind.endswith("_request"):
            return
        payload = m.get("payload") if kind == "echo_request" else {"error": f"no handler for {kind}"}
        self.say({"type": kind.removesuffix("_request") + "_response", "request_id": request_id, "payload": payload})

    def say(self, message):
        self.channel.send(json.dumps(message))

    def gone(self):
        if peers.get(self.name) is self:
            del peers[self.name]
        if self.channel is not None:
            show(f"- {self.name}")
        self.channel = None


def command(line):
    verb, _, rest = line.partition(" ")
    if verb == "peers":
        show(" ".join(["peers:", *sorted(p.name for p in peers.values() if p.channel)]))
    elif verb == "broadcast":
        for p in list(peers.values()):
            if p.channel:
                p.channel.send(rest)
    elif verb in ("send", "request"):
        name, _, message = rest.partition(" ")
        if verb == "request":
            asked[json.loads(message)["request_id"]] = name
        peers[name].channel.send(message)


async def signal(send, message):
    kind, name, payload = message["type"], message["peer_id"], message["payload"]
    if kind == "peer_list":
        for other in payload["peers"]:
            await Peer(other, send).offer()
    elif kind == "offer":
        await Peer(name, send).answer(payload["sdp"])
    elif kind == "answer":
        await peers[name].describe("answer", payload["sdp"])
    elif kind == "ice_candidate" and name in peers:
        await peers[name].candidate(payload)


async def main():
    ask = urllib.request.Request(os.environ["TOKEN_URL"], method="POST", headers={"X-API-Key": os.environ["API_KEY"]})
    with urllib.request.urlopen(ask) as response:
        token = json.load(response)
    me = token["peer_id"]
    lines = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with websockets.connect(os.environ["SIGNALING_URL"] + "?token=" + token["token"]) as socket:

        async def send(kind, target, payload):
            await socket.send(json.dumps({"type": kind, "peer_id": me, "target_id": target, "payload": payload}))

        async def listen():
            async for text in socket:
                await signal(send, json.loads(text))

        await socket.send(json.dumps({"type": "register", "peer_id": me, "payload": {}}))
        listening = asyncio.create_task(listen())
        while line := await lines.readline():
            if line == b"quit\n":
                break
            command(line.decode().rstrip("\n"))
        listening.cancel()
        await asyncio.gather(*(p.pc.close() for p in list(peers.values())))


asyncio.run(main())
