#!/usr/bin/env python3
"""An agent of the mesh in Python, on the standard library alone (3.9 or later).

An agent talks to its sidecar in JSON lines over a Unix socket, and the sidecar does the rest. The section "Link" of
docs/protocol.md describes these lines. Link, Peer and Agent are for any program, Sidecar starts one, and Console
makes this program a toy: each line of input is a command, each line of output an event.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import re
import secrets
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import weakref
from typing import Any, AsyncIterator, Awaitable, Callable, Iterable, NamedTuple, Optional, Union

MAX_MESSAGE = 16 << 20  # bytes; told to the sidecar in hello
MAX_LINE = MAX_MESSAGE + (64 << 10)  # a line holds a message and its envelope
MAX_DEPTH = 512  # of a message, its own object being the first level
MAX_CARD, MAX_CARD_DEPTH = 16 << 10, 16  # bytes of a card's JSON, and its levels
MAX_DIGITS = 4300  # of an integer that is taken as one; Python takes quadratic time for them
MAX_WAITING = 1000  # messages queued for one peer, and pending list_peers
MAX_WORKING = 1024  # requests of one peer that are handled at once
MAX_CALLS = 10_000  # our pending requests
MAX_STREAMS = 512  # of peers that are handled at once; each is a file descriptor
MAX_UNREAD = 64 << 20  # bytes of one peer's chunks that wait for our loops; then the request fails
UNREAD_HIGH = 1 << 20  # and at which the peer is asked to pause
UNREAD_LOW = 256 << 10  # and to go on
MAX_TIMEOUT = 365 * 24 * 3600 * 1000  # milliseconds that a peer can say it waits
CHUNK_COST = 512  # bytes that a chunk takes besides its text
FEATURES = ["error", "flow", "cancel", "drain", "identity", "streams", "cards"]
NO_CARDS = "no_cards: our sidecar knows no cards"
REQUESTS = ("_request", "_query", "_prompt")
CHUNK = "_stream_chunk"

# How far a peer is paused. A busy peer still gets replies, because its own work may wait for them; a peer for which
# our sidecar's queue is full gets nothing.
GO, STOP_NEW, STOP_ALL = range(3)

# Takes a peer's name and its message, and returns the payload of the response. An async generator yields chunks before
# that, and at last perhaps Final(payload).
Handler = Callable[[str, dict], Union[Awaitable[Any], AsyncIterator[Any]]]
# Takes a peer's name and a stream that it has opened, which is closed when the handler returns, and given up when it
# fails.
StreamHandler = Callable[[str, socket.socket], Awaitable[None]]


class MeshError(Exception):
    """A failure, described for people."""

    code = ""  # one of docs/protocol.md, if it has any


class HandlerError(MeshError):
    """Raised by a handler that chooses what the peer learns: a text, a code, and details for programs."""

    def __init__(self, text: str, code: str = "app", details: Any = None) -> None:
        super().__init__(text)
        self.code, self.details = code, details


class RemoteError(MeshError):
    """The peer responded with an error. The code is "" if it told none, as base agents do."""

    def __init__(self, reply: dict) -> None:
        payload = reply["payload"]
        super().__init__(payload["error"])
        code = payload.get("code")
        self.code = code if isinstance(code, str) and len(code.encode("utf-8", "replace")) <= 64 else ""
        if not self.code and payload["error"] == "busy":  # as agents say that know no codes
            self.code = "busy"
        self.details, self.reply = payload.get("details"), reply


class Replaced(MeshError):
    """A sidecar with the same key was started later, and ours has ended. Starting ours again would replace that one."""


def encode(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise HandlerError(f"cannot be said in JSON: {error}", "internal") from None
    # Half a surrogate pair has no encoding in UTF-8. backslashreplace turns it into its JSON escape.
    return text.encode("utf-8", "backslashreplace")


class Object(dict):
    """A JSON object that knows which of its keys came more than once."""

    __slots__ = ("twice",)

    def __init__(self, pairs: list) -> None:
        super().__init__(pairs)
        self.twice: set[str] = set()
        if len(self) < len(pairs):
            self.twice = {key for key, n in collections.Counter(key for key, _ in pairs).items() if n > 1}


def integer(digits: str) -> Any:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def decode_any(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=Object, parse_int=integer, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise MeshError(f"not JSON in UTF-8: {error}") from None


def decode(line: bytes) -> dict:
    value = decode_any(line)
    if not isinstance(value, dict):
        raise MeshError("not a JSON object")
    return value


def check_depth(value: Any, limit: int) -> None:
    layer = [value]
    for _ in range(limit):
        layer = [v for c in layer for v in (c.values() if isinstance(c, dict) else c) if isinstance(v, (dict, list))]
        if not layer:
            return
    raise MeshError(f"too_deep: nested more than {limit} levels")


def check_keys(value: dict, known: Iterable[str]) -> None:
    """Refuse known keys that come twice or in another case: two readers could see two different values."""
    for key in value:
        # The long s and the Kelvin sign are the only letters beyond ASCII that are a case of one in it.
        same = key if key in known else key.replace("\u017f", "s").replace("\u212a", "k").lower()
        if same in known and (same != key or key in getattr(value, "twice", ())):
            raise MeshError(f"invalid_field: {same} comes twice, or in another case")


MESSAGE = ("type", "request_id", "source_agent", "target_agent", "payload")


def check(message: dict) -> None:
    check_keys(message, MESSAGE)
    if "type" not in message or not all(isinstance(message.get(f, ""), str) for f in MESSAGE[:4]):
        raise MeshError(f"invalid_field: a message needs a type, and {', '.join(MESSAGE[:4])} are strings")


# What the fields of a line from the sidecar have to be. One that is null or absent, which is None here, is no mistake
# unless its line makes no sense without it.

def is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def is_texts(value: Any) -> bool:
    return value is None or isinstance(value, list) and all(isinstance(v, str) for v in value)


def is_number(value: Any) -> bool:
    return value is None or type(value) is int and 0 <= value < 1 << 63


def is_numbers(value: Any) -> bool:
    return value is None or isinstance(value, list) and all(v is not None and is_number(v) for v in value)


def is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_card(value: Any) -> bool:
    if is_object(value):
        check_depth(value, MAX_CARD_DEPTH)
    return value is None or is_object(value)


STATS = {**dict.fromkeys(("peer_id", "path", "local", "remote", "held_back", "paused"), is_text),
         **dict.fromkeys(("rtt_us", "messages_sent", "messages_received", "bytes_sent", "bytes_received", "bytes_queued", "streams",
                          "outages"), is_number)}


def is_stats(value: Any) -> bool:
    if not isinstance(value, list):
        return value is None
    for stats in value:
        if is_object(stats):
            check_keys(stats, STATS)
    return all(is_object(v) and all(holds(v.get(field)) for field, holds in STATS.items()) for v in value)


STREAM = dict.fromkeys(("stream", "peer_id", "service", "secret", "code", "message"), is_text)
EVENTS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "ready": {"protocol": is_number, "features": is_texts, "max_message": is_number, "token": is_text, "policy": is_text,
              "secret": is_text, "card": is_card},
    "signaling": {"state": is_text, "peer_id": is_text, "error": is_text, "code": is_text},
    "peer_list": {"peers": is_texts, "keys": is_texts}, "drained": {"peers": is_texts, "unsent": is_numbers}, "pong": {},
    "stats": {"peers": is_stats, "dropped": is_number},
    "path": {"peer_id": is_name, "path": is_text, "local": is_text, "remote": is_text},
    "peer_connected": {"peer_id": is_name, "key": is_text, "card": is_card}, "peer_disconnected": {"peer_id": is_name},
    "card": {"peer_id": is_name, "card": is_card},
    "message": {"from_peer": is_name, "message": is_object}, "cancel": {"from_peer": is_name, "request_id": is_name},
    "pause": {"peer_id": is_name, "all": is_flag, "ordered": is_flag}, "resume": {"peer_id": is_name},
    "listening": STREAM, "stream": STREAM, "stream_end": STREAM, "stream_stop": STREAM,
    "error": {"code": is_text, "message": is_text, "command": is_text, "target_peer": is_text, "request_id": is_text}}
# Those that have a meaning in some line, and so must not be ambiguous in any.
COMMON = ("target_peer", "target_peer_id", "from_peer", "peer_id", "message", "request_id", "all", "ordered", "except")


def parse(line: bytes) -> tuple[str, dict]:
    """Return type and payload of a line from the sidecar. The type may be one of a later version."""
    event = decode(line)
    kind, payload = event.get("type"), event.get("payload")
    message = payload.get("message") if isinstance(payload, dict) else None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH:  # or it cannot be too deep
        check_depth(event, MAX_DEPTH + 4)
        if isinstance(message, dict):
            check_depth(message, MAX_DEPTH)
    check_keys(event, ("type", "payload"))
    if not isinstance(kind, str):
        raise MeshError("invalid_field: the type is no string")
    if isinstance(payload, dict):
        check_keys(payload, (*COMMON, *EVENTS.get(kind, ())))
    if kind not in EVENTS:
        return kind, {}
    if payload is not None and not isinstance(payload, dict):
        raise MeshError("invalid_field: the payload is no object")
    payload = payload or {}
    for field, holds in EVENTS[kind].items():
        if not holds(payload.get(field)):
            raise MeshError(f"invalid_field: {field} in {kind}")
    if len(line) > MAX_CARD and "card" in EVENTS[kind] and payload.get("card"):
        check_size(inner_text(line.decode(), "payload", "card"))
    if kind == "message":
        check(message)
    return kind, payload


def inner_text(text: str, *path: str) -> str:
    """Return the text of a value in JSON that is known to be there: in an object, under each of these keys in turn."""
    scan, space, at = json.JSONDecoder(parse_int=float).raw_decode, re.compile(r"[ \t\n\r]*[{:,]?[ \t\n\r]*"), 0
    for name in path:
        key = None
        while key != name:
            key, at = scan(text, space.match(text, at).end())  # type: ignore[union-attr]
            at = space.match(text, at).end()  # type: ignore[union-attr]
            if key != name:
                _, at = scan(text, at)
    return text[at:scan(text, at)[1]]


def check_size(card: Union[str, bytes]) -> None:
    size = len(card.encode() if isinstance(card, str) else card)
    if size > MAX_CARD:
        raise MeshError(f"too_large: a card of {size} bytes, the limit is {MAX_CARD}")


def check_card(card: Optional[dict]) -> Optional[dict]:
    """Refuse what cannot be our card, and return a copy of it: what it is in JSON, which is not always what it looks like."""
    try:
        text = encode(card)
    except HandlerError as error:
        raise MeshError(f"invalid_field: the card {error}") from None
    check_size(text)
    own = json.loads(text)  # in which tuples are lists
    if not is_card(own):
        raise MeshError("invalid_field: a card is an object, or None")
    return own


def read_card(card: Optional[dict]) -> Optional[dict]:
    """Return what a peer's card means: in it, members of the wrong type are ignored one by one. It changes the card."""
    if card is None:
        return None
    keep(card, {"name": str, "version": str, "description": str, "skills": list, "queries": list})
    if "skills" in card:
        card["skills"] = [skill for skill in card["skills"] if is_object(skill) and is_name(skill.get("name"))]
        for skill in card["skills"]:
            keep(skill, {"description": str, "type": str})
    if "queries" in card:
        card["queries"] = [query for query in card["queries"] if isinstance(query, str)]
    return card


def keep(value: dict, types: dict[str, type]) -> None:
    for name in [name for name in types if name in value and not isinstance(value[name], types[name])]:
        del value[name]


class Lines:
    """Cuts bytes into lines at 0x0A alone, unlike str.splitlines. Skips a byte order mark at the beginning."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self.limit, self.partial, self.began = limit, bytearray(), False

    def feed(self, chunk: bytes) -> list[Optional[bytes]]:
        """Return the lines that end in chunk and are not blank. None stands for a line that was too long."""
        lines: list[Optional[bytes]] = []
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self.keep(part)
            lines.append(self.take())
        self.keep(rest)
        return [line for line in lines if line is None or line.strip(b" \t\r")]

    def keep(self, part: bytes) -> None:
        # Of a line that is too long as much as shows that it is: besides the limit a mark, a CR, and one byte.
        self.partial += part[:self.limit + 5 - len(self.partial)]

    def take(self) -> Optional[bytes]:
        line, self.partial = bytes(self.partial), bytearray()
        if not self.began:
            line, self.began = line.removeprefix(b"\xef\xbb\xbf"), True
        line = line.removesuffix(b"\r")
        return line if len(line) <= self.limit else None


class Link(asyncio.Protocol):
    """The connection to the sidecar."""

    all: weakref.WeakSet[Link] = weakref.WeakSet()

    def __init__(self, agent: Agent) -> None:
        self.agent, self.lines = agent, Lines()
        self.room, self.closed = asyncio.Event(), asyncio.Event()
        self.room.set()  # while the sidecar keeps up with our writes
        self.ended = False  # our end
        self.stuck = False  # the sidecar did not close its end in time

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        Link.all.add(self)

    @staticmethod
    def forked() -> None:
        """Give up the connections, in a child that was forked, as by multiprocessing: only we are the agent, and the end
        of file, which tells our sidecar that we are gone, must not wait for the child."""
        for link in Link.all:
            descriptor = link.transport.get_extra_info("socket").fileno()
            if descriptor >= 0:  # it stays open, since its owner in this copy of us closes it some day
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor, inheritable=False)

    def data_received(self, data: bytes) -> None:
        for line in self.lines.feed(data):
            self.agent.receive(line)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()
        self.agent.pump()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.closed.set()
        self.room.set()  # wakes who waits for it
        self.agent.end(self.agent.lost)

    def write(self, line: bytes) -> None:
        if not self.ended and not self.transport.is_closing():
            self.transport.write(line + b"\n")

    async def close(self, patience: float) -> None:
        """Close our end, wait for the sidecar to close its own, and disconnect."""
        if not self.closed.is_set():
            self.ended = True
            self.transport.write_eof()
            self.stuck = not await wait(self.closed, patience)
            self.transport.abort()


os.register_at_fork(after_in_child=Link.forked)


class Outgoing:
    """A message queued for the link."""

    def __init__(self, line: bytes) -> None:
        self.line, self.sent = line, False
        self.written: Optional[asyncio.Event] = None  # for who waits until it is sent


class Peer:
    """A live peer."""

    def __init__(self, name: str, key: str) -> None:
        self.name, self.stop = name, GO
        self.key = key  # that it has proven, "" without one
        self.card: Optional[dict] = None  # what it says about itself, whatever that is worth; None if nothing
        self.new: collections.deque[Outgoing] = collections.deque()  # sends and requests
        self.replies: collections.deque[Outgoing] = collections.deque()
        self.chunks: collections.deque[Outgoing] = collections.deque()  # of responses; each has somebody who waits for it
        self.working: dict[str, asyncio.Task] = {}  # its requests, by request_id
        self.unread = 0  # bytes of its chunks that none of our loops has taken


class Call(NamedTuple):
    """A pending request of ours."""

    peer: str
    out: Outgoing
    answer: asyncio.Future
    timer: Optional[asyncio.TimerHandle]
    chunks: Optional[Chunks]  # None if they are not wanted


class Final(NamedTuple):
    """What a handler that is an async generator yields last: the payload of the response, which else is {}."""

    payload: Any


class Chunks:
    """The chunks of a response that no loop has taken."""

    def __init__(self, agent: Agent, peer: Peer) -> None:
        self.agent, self.peer = agent, peer
        self.waiting: collections.deque[tuple[Any, int]] = collections.deque()
        self.wake = asyncio.Event()  # there is a chunk, or the end

    def add(self, payload: Any, size: int) -> None:
        self.waiting.append((payload, size))
        self.agent.count(self.peer, size)
        self.wake.set()

    def take(self) -> Any:
        payload, size = self.waiting.popleft()
        self.agent.count(self.peer, -size)
        return payload

    def ended(self, answer: asyncio.Future) -> None:
        if not answer.cancelled():
            answer.exception()  # it counts as seen: the loop may have been left
        self.wake.set()


class Replies:
    """The chunks of a response, for `async for`, and then the response, which comes last."""

    response: Optional[dict] = None

    def __init__(self, agent: Agent, peer: str, message: dict, timeout: float) -> None:
        self.agent, self.peer, self.message, self.timeout = agent, peer, message, timeout

    async def __aiter__(self) -> AsyncIterator[Any]:
        request_id, call = self.agent.ask(self.peer, self.message, None, stream=True)
        chunks: Any = call.chunks
        try:
            while True:
                while chunks.waiting:
                    yield chunks.take()
                if call.answer.done():
                    self.response = call.answer.result()
                    return
                chunks.wake.clear()
                if not await wait(chunks.wake, self.timeout):
                    self.agent.give_up(request_id, f"no answer within {self.timeout:g} s")
        finally:
            if not call.answer.done():
                self.agent.give_up(request_id, "cancelled")
            while chunks.waiting:
                chunks.take()


class Stream(socket.socket):
    """A stream to or from a peer: a socket like any other, and what a socket cannot tell."""

    agent: Any = None  # None in a copy, and once it is closed
    name = ""  # on the link
    ended: asyncio.Future  # for who has read to the end: None if the peer was done, a MeshError if it is gone
    stopped: Optional[MeshError] = None  # why writes fail

    def close(self, code: str = "") -> None:
        """Close it: what was written still arrives. With a code it is given up."""
        if self.agent:
            self.agent.tell("stream_end", {"stream": self.name, **({"code": code} if code else {})})
            self.agent = None
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_RDWR)  # it ends even if a process that was forked has a copy
        super().close()


class Agent:
    """Peers, messages, requests, responses and streams. `on_event` is called for each event: see FORMATS."""

    def __init__(self, on_event: Callable[..., None], base: bool = False, card: Optional[dict] = None) -> None:
        self.event, self.card = on_event, check_card(card)
        self.handlers: dict[str, Handler] = {}  # by the type of the request
        self.peers: dict[str, Peer] = {}
        self.calls: dict[str, Call] = {}  # by request_id
        self.lists: collections.deque[asyncio.Future] = collections.deque()  # pending list_peers, in the order sent
        self.services: dict[str, StreamHandler] = {}
        self.streams: weakref.WeakValueDictionary[str, Stream] = weakref.WeakValueDictionary()  # by their names
        self.serving: set[asyncio.Task] = set()  # handlers of peers' streams
        self.pausing: set[str] = set()  # peers that are to wait for our loops
        self.size = 0  # bytes of the line that is handled
        self.features: Optional[list[str]] = [] if base else None  # None: not known yet
        self.path = self.secret = ""  # where streams are to be had, and for whom
        self.drained = asyncio.Event()
        self.lost = MeshError("the sidecar is gone")  # what the end of the link means; may become Replaced
        self.link: Any = None

    async def open(self, path: str) -> None:
        self.path = path
        try:
            if (uid := os.stat(path).st_uid) != os.geteuid():
                raise MeshError(f"{path} belongs to uid {uid}, who would read and forge everything; "
                                "let agent and sidecar use a path in $XDG_RUNTIME_DIR")
            _, self.link = await asyncio.get_running_loop().create_unix_connection(lambda: Link(self), path)
        except OSError as error:
            raise MeshError(f"cannot connect to {path}: {error.strerror}; does a sidecar run there?") from None
        told = self.card
        if self.features is None:
            hello = {"protocol": 1, "features": FEATURES, "max_message": MAX_MESSAGE}
            self.tell("hello", hello if told is None else {**hello, "card": told})
        # A sidecar that answers this without a ready knows the base protocol only, so no timeout is needed to find
        # that out. The one here is for a sidecar that does not answer at all.
        try:
            await asyncio.wait_for(self.list_peers(), 10)
        except asyncio.TimeoutError:
            raise MeshError(f"the sidecar at {path} does not answer") from None
        if self.card is not None and not self.knows("cards"):
            self.event("error", NO_CARDS)
        elif self.card is not told:  # it has changed since the hello
            self.tell("card", {"card": self.card})

    async def close(self) -> None:
        """Send what is queued, for at most 5 s, and end the link."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 5
        while any(peer.new or peer.replies for peer in self.peers.values()) and loop.time() < deadline:
            await wait(self.link.closed, 0.05)
        closing = 5
        for task in self.serving:
            task.cancel()
        await asyncio.sleep(0)  # the peers are told before the link ends
        if self.knows("drain"):
            # A peer may keep the sidecar from draining. A sidecar that does not even answer this is stuck.
            if not self.lists:
                self.list_peers().add_done_callback(lambda answer: answer.exception())
            patience = max(deadline - loop.time(), 1)
            self.tell("drain", {"timeout_ms": int(patience * 1000)})
            await wait(self.drained, patience + 1)
            closing = 0 if self.lists else closing
        self.end(MeshError("the agent quits"))
        await self.link.close(closing)

    # For the application. Nothing here blocks: messages go out in the order of the calls, and to a busy peer later. What
    # is wrong at once is raised as a MeshError; later failures are events of kind `error`.

    def send(self, peer: str, message: dict) -> None:
        self.post(peer, message)

    def broadcast(self, message: dict) -> None:
        check(message)
        late = [peer.name for peer in self.peers.values() if peer.stop != GO or peer.new]
        if not late or self.knows("flow"):
            self.tell("broadcast", {"message": message, **({"except": late} if late else {})})
        else:
            late = list(self.peers)  # the base protocol has no `except`
        for name in late:
            try:
                self.send(name, message)
            except MeshError as error:
                self.event("error", str(error))

    def request(self, peer: str, message: dict, timeout: float = 30) -> asyncio.Future:
        """Return a future that ends with the response, or a MeshError: a RemoteError if the response reports a failure.
        The peer is told the timeout, in seconds, and ends its work then."""
        return self.ask(peer, message, timeout)[1].answer

    def request_stream(self, peer: str, message: dict, timeout: float = 30) -> Replies:
        """Make a request when an `async for` begins, which gets the payloads of its chunks as they come. It ends with a
        MeshError if the request fails; to leave it gives the request up. The timeout is for each chunk and the
        response."""
        return Replies(self, peer, message, timeout)

    async def request_skill(self, skill: str, payload: Any = None, timeout: float = 30) -> dict:
        """Make a request of a live peer whose card offers a skill, and return the response or raise as `request` does. Who
        has the fewest requests of ours is asked first, and another one if it is busy. The timeout is for each of them."""
        tried: set[str] = set()
        error = MeshError(f"no_skill: no live peer offers {skill}")
        while name := self.least_busy(skill, tried):
            tried.add(name)
            try:
                return await self.request(name, {"type": skill_type(self.peers[name].card, skill), "payload": payload}, timeout)
            except RemoteError as refusal:
                if refusal.code != "busy":
                    raise
                error = refusal
        raise error

    def least_busy(self, skill: str, tried: set[str]) -> str:
        """Return a peer that offers a skill and was not tried, "" if there is none."""
        pending = collections.Counter(call.peer for call in self.calls.values())
        offers = [peer for peer in self.peers.values() if peer.name not in tried and skill_type(peer.card, skill)]
        # One that has us paused is the last choice, and of equals each is as likely.
        return min(offers, key=lambda peer: (peer.stop, pending[peer.name], random.random())).name if offers else ""

    def set_card(self, card: Optional[dict]) -> None:
        """Replace what peers are told of us: None takes it back."""
        own = check_card(card)
        if self.features is not None and not self.knows("cards"):
            raise MeshError(NO_CARDS)
        self.card = own
        if self.features is not None:  # else the hello says it, or open
            self.tell("card", {"card": own})

    def cancel(self, request_id: str) -> None:
        if request_id not in self.calls:
            raise MeshError(f"no request {request_id} waits for a response")
        self.give_up(request_id, "cancelled")

    def connect(self, peer: str) -> None:
        """Ask for a link to a peer now. The event `connected` or `error` follows."""
        self.tell("connect", {"target_peer_id": peer})

    def list_peers(self) -> asyncio.Future:
        if len(self.lists) >= MAX_WAITING:
            raise MeshError("too many lists of peers are waited for")
        self.tell("list_peers", {})
        self.lists.append(asyncio.get_running_loop().create_future())
        return self.lists[-1]

    # Streams of bytes. They have flow control of their own, and what was sent before them may come behind them.

    async def open_stream(self, peer: str, service: str) -> Stream:
        """Open a stream to a service of a peer. The result is a socket that does not block, for loop.sock_recv and
        sock_sendall, or asyncio.open_connection(sock=...). Close it."""
        return await self.stream(f"a{secrets.token_hex(6)}", peer_id=peer, service=service)

    def on_stream(self, service: str, handler: StreamHandler) -> None:
        """Have the handler called for each stream that a peer opens to a service."""
        self.need_streams()
        self.services[service] = handler
        self.tell("listen", {"service": service})

    def need_streams(self) -> None:
        if not self.knows("streams"):
            raise MeshError("no_streams: our sidecar knows no streams")

    async def stream(self, name: str, **what: str) -> Stream:
        """Return a connection for a stream, behind the first line each way."""
        self.need_streams()
        loop, stream, answer = asyncio.get_running_loop(), Stream(socket.AF_UNIX), bytearray()
        stream.agent, stream.name, stream.ended = self, name, loop.create_future()
        self.streams[name] = stream
        try:
            stream.setblocking(False)
            await loop.sock_connect(stream, self.path)
            await loop.sock_sendall(stream, line("stream", {"stream": name, **what, "secret": self.secret}) + b"\n")
            while not answer.endswith(b"\n"):
                byte = await loop.sock_recv(stream, 1)  # and not one more: what is behind the line is the peer's
                if not byte or len(answer) > 65536:
                    raise self.lost
                answer += byte
            kind, payload = parse(bytes(answer))
            if kind != "stream":
                raise failure(payload) or self.lost
            return stream
        except OSError as error:
            stream.close()
            raise MeshError(f"no connection for a stream: {error.strerror}") from None
        except BaseException:
            stream.close()
            raise

    async def serve(self, handler: StreamHandler, peer: str, name: str) -> None:
        """Have a stream of a peer handled."""
        stream = None
        try:
            stream = await self.stream(name)
            await handler(peer, stream)
            stream.close()
        except Exception as error:  # only this stream fails
            self.event("error", f"stream of {peer}: {describe(error)}")
        finally:
            if stream:
                stream.close("stream_reset")  # unless it is closed

    # To the sidecar.

    def knows(self, feature: str) -> bool:
        return feature in (self.features or [])

    def tell(self, kind: str, payload: dict) -> None:
        self.link.write(line(kind, payload))

    def ask(self, peer: str, message: dict, timeout: Optional[float], stream: bool = False) -> tuple[str, Call]:
        loop = asyncio.get_running_loop()
        request_id = message.get("request_id") or secrets.token_hex(6)
        if request_id in self.calls or len(self.calls) >= MAX_CALLS:
            raise MeshError("its request_id is in use" if request_id in self.calls else "too many requests wait")
        message, timer = {**message, "request_id": request_id}, None
        if timeout is not None:
            message.setdefault("timeout_ms", max(round(timeout * 1000), 1))
        out = self.post(peer, message)
        if timeout is not None:
            timer = loop.call_later(timeout, self.give_up, request_id, f"no answer within {timeout:g} s")
        chunks = Chunks(self, self.peers[peer]) if stream else None
        self.calls[request_id] = call = Call(peer, out, loop.create_future(), timer, chunks)
        if chunks:
            call.answer.add_done_callback(chunks.ended)
        return request_id, call

    def post(self, name: str, message: dict, queue: str = "new") -> Outgoing:
        check(message)
        peer = self.peers.get(name)
        if peer is None:
            raise MeshError(f"peer_not_connected: no link to {name}")
        waiting = getattr(peer, queue)
        if len(waiting) >= MAX_WAITING and queue != "chunks":  # of which there is one for each request
            raise MeshError(f"queue_full: {MAX_WAITING} messages wait for {name} already")
        out = Outgoing(line("send", {"target_peer": name, "message": message}))
        waiting.append(out)
        self.pump()
        return out

    def pump(self) -> None:
        """Write all that may go out."""
        for peer in self.peers.values():
            for queue, stop in ((peer.replies, STOP_ALL), (peer.new, STOP_NEW), (peer.chunks, STOP_NEW)):
                while queue and peer.stop < stop and self.link.room.is_set():
                    out = queue.popleft()
                    out.sent = True
                    self.link.write(out.line)
                    if out.written:
                        out.written.set()

    def give_up(self, request_id: str, why: str) -> None:
        call = self.calls[request_id]
        if call.out.sent and self.knows("cancel"):
            self.tell("cancel", {"target_peer": call.peer, "request_id": request_id})
        self.settle(request_id, MeshError(why))

    def settle(self, request_id: str, result: Any) -> None:
        call = self.calls.pop(request_id)
        if call.timer:
            call.timer.cancel()
        if not call.out.sent:
            self.peers[call.peer].new.remove(call.out)
        if call.answer.done():
            return  # the application has cancelled it
        if isinstance(result, MeshError):
            call.answer.set_exception(result)
        else:
            call.answer.set_result(result)

    # From the sidecar.

    def receive(self, text: Optional[bytes]) -> None:
        try:
            if text is None:
                raise MeshError(f"it has over {MAX_LINE} bytes")
            self.size = len(text)
            kind, payload = parse(text)
            # An unknown type belongs to an extension that we do not use.
            if kind in EVENTS:
                getattr(self, f"hear_{kind}")(payload)
        except Exception as error:  # one bad line does not spoil the next
            self.event("error", f"a line from the sidecar was skipped: {describe(error)}")

    def hear_ready(self, payload: dict) -> None:
        if self.features is None:
            self.features, self.secret = payload.get("features") or [], payload.get("secret") or ""

    def hear_peer_list(self, payload: dict) -> None:
        if self.features is None:
            self.features = []  # no ready came before this
        peers, keys = payload.get("peers") or [], payload.get("keys")
        if keys is not None and len(keys) != len(peers):
            raise MeshError("invalid_field: keys in peer_list are not one for each peer")
        for name, key in zip(peers, keys or [""] * len(peers)):
            self.meet(name, key)  # peers that were here before us are not announced
        if self.lists:
            answer = self.lists.popleft()
            if not answer.done():
                answer.set_result(peers)

    def hear_signaling(self, payload: dict) -> None:
        state = payload.get("state")
        if state == "connected":
            self.event("joined", payload.get("peer_id") or "")
        elif state == "replaced":  # the end of the link follows
            self.lost = Replaced(f"replaced: {payload.get('error') or 'a sidecar with the same key was started later'}")
        elif payload.get("error"):
            why = f"{payload['code']}: " if payload.get("code") else ""
            self.event("error", f"signaling {state}: {why}{payload['error']}")

    def meet(self, name: str, key: str = "") -> Peer:
        if name not in self.peers:
            self.peers[name] = Peer(name, key)
            self.event("connected", name)
            if key:
                self.event("key", name, key)
        return self.peers[name]

    def hear_pong(self, payload: dict) -> None:
        pass  # we do not ping

    def hear_stats(self, payload: dict) -> None:
        pass  # nor ask for numbers

    def hear_path(self, payload: dict) -> None:
        pass  # nor for addresses

    def hear_peer_connected(self, payload: dict) -> None:
        peer = self.meet(payload["peer_id"], payload.get("key", ""))
        self.hear_card(payload)
        self.hear_resume(payload)
        if peer.name in self.pausing:  # our pause was for the link before, and may have crossed its end
            self.pausing.discard(peer.name)
            self.tell("resume", {"peer_id": peer.name})

    def hear_card(self, payload: dict) -> None:
        if peer := self.peers.get(payload["peer_id"]):
            before, peer.card = peer.card, read_card(payload.get("card"))
            if peer.card != before:  # else this follows a list of peers
                self.tell_card(peer)

    def tell_card(self, peer: Peer) -> None:
        if peer.card is None:
            self.event("no_card", peer.name)
        else:
            self.event("card", peer.name, peer.card)

    def hear_peer_disconnected(self, payload: dict) -> None:
        peer = self.peers.get(payload["peer_id"])
        if peer:
            self.event("disconnected", peer.name)
            self.part(peer, MeshError(f"peer_lost: {peer.name} is gone"))

    def part(self, peer: Peer, why: MeshError) -> None:
        """End all work with a peer."""
        for request_id in [i for i, call in self.calls.items() if call.peer == peer.name]:
            self.settle(request_id, why)
        for task in peer.working.values():
            task.cancel()
        for _ in peer.new:
            self.event("error", f"{why}; a message to {peer.name} was not sent")
        del self.peers[peer.name]

    def end(self, why: MeshError) -> None:
        """End all work."""
        for task in self.serving:
            task.cancel()
        for stream in list(self.streams.values()):
            self.finish(stream, why)
        self.streams.clear()
        for peer in list(self.peers.values()):
            self.part(peer, why)
        while self.lists:
            answer = self.lists.popleft()
            if not answer.done():
                answer.set_exception(why)

    def hear_pause(self, payload: dict) -> None:
        if payload["peer_id"] in self.peers:
            self.peers[payload["peer_id"]].stop = STOP_ALL if payload.get("all") else STOP_NEW
            self.pump()  # if the pause is less than before, replies go again

    def hear_resume(self, payload: dict) -> None:
        if payload["peer_id"] in self.peers:
            self.peers[payload["peer_id"]].stop = GO
            self.pump()

    def hear_error(self, payload: dict) -> None:
        text, peer = f"{payload.get('code')}: {payload.get('message')}", payload.get("target_peer")
        request_id = payload.get("request_id")
        if request_id in self.calls and self.calls[request_id].peer == peer:
            self.settle(request_id, MeshError(text))
        else:
            self.event("error", text if not peer or peer in text else f"{text} ({peer})")

    def hear_drained(self, payload: dict) -> None:
        peers, unsent = payload.get("peers") or [], payload.get("unsent") or []
        if len(peers) != len(unsent):
            raise MeshError("invalid_field: unsent in drained is not one for each peer")
        for name, count in zip(peers, unsent):
            self.event("error", f"up to {count} messages to {name} may not have arrived")
        self.drained.set()

    def hear_cancel(self, payload: dict) -> None:
        self.give_way(self.meet(payload["from_peer"]), payload["request_id"])

    def give_way(self, peer: Peer, request_id: str) -> None:
        """End the work on a request whose response the peer does not wait for any more."""
        if request_id in peer.working:
            peer.working[request_id].cancel()
            self.event("gave_up", peer.name, request_id)

    def hear_message(self, payload: dict) -> None:
        peer, message = self.meet(payload["from_peer"]), payload["message"]
        kind, request_id = message["type"], message.get("request_id")
        call, asks = self.calls.get(request_id), kind == "ping" or kind.endswith(REQUESTS)
        # A response counts only from the peer that was asked, because others could guess the request_id.
        ours = call if call and call.peer == peer.name and not asks else None
        if request_id and kind.endswith(CHUNK):
            if ours and ours.chunks:  # else nobody wants it, or not any more
                self.hear_chunk(peer, request_id, ours.chunks, message)
            return
        if ours:
            self.settle(request_id, refusal(message) or message)
            return
        self.event("message", peer.name, message)
        if request_id and asks and request_id not in peer.working:
            busy, timer = len(peer.working) >= MAX_WORKING, None
            peer.working[request_id] = task = asyncio.create_task(self.answer(peer, message, busy))
            if limit := patience(message):
                timer = asyncio.get_running_loop().call_later(limit, self.give_way, peer, request_id)

            def done(_: asyncio.Task) -> None:
                del peer.working[request_id]
                if timer:
                    timer.cancel()
            task.add_done_callback(done)

    def hear_chunk(self, peer: Peer, request_id: str, chunks: Chunks, message: dict) -> None:
        if peer.unread > MAX_UNREAD:  # in spite of our pause
            self.give_up(request_id, f"queue_full: over {MAX_UNREAD} bytes of chunks of {peer.name} wait")
        else:
            chunks.add(message.get("payload"), self.size + CHUNK_COST)

    def count(self, peer: Peer, size: int) -> None:
        """Count the bytes of chunks that no loop has taken. The peer waits while they are many."""
        peer.unread += size
        pausing = peer.name in self.pausing
        pause = peer.unread > (UNREAD_LOW if pausing else UNREAD_HIGH)
        if pause != pausing and self.peers.get(peer.name) is peer and self.knows("flow"):
            if pause:
                self.pausing.add(peer.name)
                self.tell("pause", {"peer_id": peer.name, "ordered": True})
            else:
                self.pausing.discard(peer.name)
                self.tell("resume", {"peer_id": peer.name})

    def hear_listening(self, payload: dict) -> None:
        self.event("listening", payload.get("service") or "")

    def hear_stream(self, payload: dict) -> None:
        handler, name = self.services.get(payload.get("service")), payload.get("stream") or ""
        full = len(self.serving) >= MAX_STREAMS
        if full or not handler:
            self.tell("refuse", {"stream": name, "code": "too_many_streams" if full else "refused"})
            return
        task = asyncio.create_task(self.serve(handler, payload.get("peer_id") or "", name))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    def hear_stream_end(self, payload: dict) -> None:
        self.finish(self.streams.get(payload.get("stream")), failure(payload))

    def finish(self, stream: Optional[Stream], why: Optional[MeshError]) -> None:
        if stream is not None and not stream.ended.done():
            stream.ended.set_result(why)

    def hear_stream_stop(self, payload: dict) -> None:
        stream = self.streams.get(payload.get("stream"))
        if stream is not None:
            stream.stopped = failure(payload)

    async def answer(self, peer: Peer, message: dict, busy: bool) -> None:
        kind, request_id = message["type"], message["request_id"]
        base = kind.rpartition("_")[0]
        response = {"type": "pong" if kind == "ping" else base + "_response", "request_id": request_id}
        try:
            handler = self.handlers.get(kind)
            if busy or not handler:
                raise HandlerError("busy", "busy") if busy else HandlerError(f"no handler for {kind}", "no_handler")
            work = handler(peer.name, message)
            if hasattr(work, "__aiter__"):
                payload = await self.emit(peer, {"type": base + CHUNK, "request_id": request_id}, work)
            else:
                payload = await work
        except Exception as error:  # only this request fails
            payload = failed(error)
        try:
            try:
                self.post(peer.name, {**response, "payload": payload}, "replies")
            except HandlerError as error:  # it cannot be sent to anyone
                self.post(peer.name, {**response, "payload": failed(error)}, "replies")
        except MeshError as error:
            self.event("error", f"no answer to {peer.name}: {error}")

    async def emit(self, peer: Peer, chunk: dict, work: Any) -> Any:
        """Send what a handler yields, each when the one before is on its way, and return the payload of the response."""
        try:
            async for payload in work:
                if isinstance(payload, Final):
                    return payload.payload
                out = self.post(peer.name, {**chunk, "payload": payload}, "chunks")
                try:
                    if not out.sent:
                        out.written = asyncio.Event()
                        await out.written.wait()
                finally:
                    if not out.sent:
                        peer.chunks.remove(out)
                await asyncio.sleep(0)  # others have a turn even if the handler never waits
        finally:
            await work.aclose()
        return {}


def line(kind: str, payload: dict) -> bytes:
    text = encode({"type": kind, "payload": payload})
    if len(text) > MAX_LINE:
        raise HandlerError(f"too_large: a message has at most {MAX_MESSAGE} bytes", "too_large")
    return text


def failure(payload: dict) -> Optional[MeshError]:
    """Return what a line from the sidecar says went wrong, None if it has no code."""
    return MeshError(f"{payload['code']}: {payload.get('message')}") if payload.get("code") else None


def failed(error: Exception) -> dict:
    """Return the payload of the response to a request that has failed. What code the error of another peer had, whom
    the handler has asked, is none of the asker's business."""
    late = isinstance(error, asyncio.TimeoutError)
    code = error.code if isinstance(error, HandlerError) else "deadline_exceeded" if late else "app"
    details = getattr(error, "details", None) if isinstance(error, HandlerError) else None
    return {"error": describe(error) or code, "code": code, **({} if details is None else {"details": details})}


def refusal(reply: dict) -> Optional[RemoteError]:
    """Return the failure that a response reports, None if it reports none."""
    payload = reply.get("payload")
    text = payload.get("error") if isinstance(payload, dict) else None
    return RemoteError(reply) if isinstance(text, str) and text else None


def patience(message: dict) -> Optional[float]:
    """Return for how many seconds the sender of a request waits, None if it has not said."""
    limit = message.get("timeout_ms")
    told = type(limit) is int and limit > 0 and "timeout_ms" not in getattr(message, "twice", ())
    return min(limit, MAX_TIMEOUT) / 1000 if told else None


def skill_type(card: Optional[dict], name: str) -> Optional[str]:
    """Return the type of the requests that ask for a skill, None if a peer's card does not offer it."""
    for skill in card.get("skills", []) if card else []:
        if skill["name"] == name:
            return skill.get("type") or f"{name}_request"
    return None


def describe(error: BaseException) -> str:
    return str(error) if isinstance(error, MeshError) else f"{type(error).__name__}: {error}"


async def wait(event: asyncio.Event, timeout: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except asyncio.TimeoutError:
        pass
    return event.is_set()


class Sidecar:
    """A sidecar that is started for this agent and ends with it."""

    def __init__(self) -> None:
        self.process: Any = None
        self.log, self.directory = b"", ""  # the end of its log, and the directory of its socket

    async def start(self, binary: str, name: Optional[str], verbose: bool) -> str:
        """Return the path of its socket, once that is there."""
        self.directory = tempfile.mkdtemp(prefix="mesh-")  # private: whatever connects to the socket is the agent
        path = os.path.join(self.directory, "socket")
        environment = {**os.environ, "IPC_SOCKET": path, **({"API_KEY": name} if name else {})}
        try:
            # In a session of its own, because Ctrl-C would end it before it is drained.
            self.process = await asyncio.create_subprocess_exec(
                binary, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=None if verbose else asyncio.subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise MeshError(f"cannot start {binary}: {error.strerror}; build a sidecar with "
                            "`go build ./cmd/chatixia-sidecar`, name it with --sidecar or SIDECAR_BINARY") from None
        self.ended, self.logged = asyncio.Event(), asyncio.create_task(self.watch())
        for _ in range(300):
            if os.path.exists(path):
                return path
            if await wait(self.ended, 0.1):
                raise MeshError(f"the sidecar {self.status()}")
        raise MeshError("the sidecar made no socket within 30 s")

    async def watch(self) -> None:
        while self.process.stderr and (chunk := await self.process.stderr.read(4096)):
            self.log = (self.log + chunk)[-8192:]
        await self.process.wait()
        self.ended.set()

    def status(self) -> str:
        code = self.process.returncode
        return f"ended with status {code}" if code >= 0 else f"was ended by signal {-code}"

    def remove_socket(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    async def stop(self, patience: float) -> bool:
        """Wait for its end, which the end of the link brings about. Return whether it had to be killed."""
        self.remove_socket()
        if not self.process or await wait(self.ended, patience):
            return False
        self.signal(signal.SIGTERM)
        if await wait(self.ended, 1):
            return False
        self.signal(signal.SIGKILL)
        await self.ended.wait()
        return True

    def signal(self, number: int) -> None:
        if self.process:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, number)  # the whole group: a wrapper may have started the sidecar


# The rest is only a toy.

MAX_COUNT = 1_000_000  # of a count_request


def printable(text: str) -> str:
    """Escape all but ASCII: nothing that a peer sends may forge a line or control the terminal."""
    def escape(match: re.Match) -> str:
        return re.sub("....", r"\\u\g<0>", match[0].encode("utf-16-be", "surrogatepass").hex())
    return re.sub(r"[^\x20-\x7e]+", escape, text)


def named(peer: str) -> str:
    return printable(peer).replace(" ", "\\u0020")  # or "bob: x" could pass for bob


def show(message: Any) -> str:
    return printable(json.dumps(message, ensure_ascii=False, separators=(",", ":")))


async def echo(peer: str, message: dict) -> Any:
    return message.get("payload", {})


async def sleep(peer: str, message: dict) -> Any:
    payload = message.get("payload")
    seconds = payload.get("seconds") if isinstance(payload, dict) else None
    if type(seconds) not in (int, float) or not 0 <= seconds <= 3600:
        raise MeshError('the payload must be {"seconds": n}, n from 0 to 3600')
    await asyncio.sleep(seconds)
    return {"result": f"slept {seconds:g} s"}


async def count(peer: str, message: dict) -> AsyncIterator[Any]:
    payload = message.get("payload")
    to = payload.get("to") if isinstance(payload, dict) else None
    if type(to) is not int or not 0 <= to <= MAX_COUNT:
        raise HandlerError(f'the payload must be {{"to": n}}, n from 0 to {MAX_COUNT}', "out_of_range", {"max": MAX_COUNT})
    for i in range(to):
        yield {"i": i + 1}
    yield Final({"counted": to})


async def echo_stream(peer: str, stream: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(stream, 65536):
        await loop.sock_sendall(stream, data)


class Text(str):
    """Text of a peer, in which spaces are spaces."""


FORMATS = {"joined": "joined as {}", "connected": "+ {}", "key": "{} has key {}", "no_key": "{} has no key",
           "card": "{} has card {}", "no_card": "{} has no card",
           "disconnected": "- {}", "message": "{}: {}", "listening": "listens for {}",
           "chunk": "{} streams: {}", "answer": "{} answers: {}", "gave_up": "{} gave up on {}", "error": "error: {}"}


class Console:
    """Events as lines on stdout, lines on stdin as commands."""

    def __init__(self, base: bool, card: Optional[dict] = None) -> None:
        self.quit, self.hasty, self.printing = asyncio.Event(), False, False
        self.opening: set[asyncio.Task] = set()
        self.agent = Agent(self.event, base, card)
        self.agent.handlers = {"ping": echo, "echo_request": echo, "sleep_request": sleep, "count_request": count}
        self.commands: dict[str, tuple[list[str], Callable[..., None]]] = {
            "peers": ([], self.peers), "send": (["PEER", "MESSAGE"], self.agent.send),
            "broadcast": (["MESSAGE"], self.agent.broadcast), "request": (["PEER", "MESSAGE"], self.request),
            "stream": (["PEER", "MESSAGE"], self.stream), "cancel": (["REQUEST_ID"], self.agent.cancel),
            "connect": (["PEER"], self.agent.connect),
            "offer": (["SERVICE"], lambda service: self.agent.on_stream(service, echo_stream)),
            "open": (["PEER", "SERVICE", "TEXT"], self.open), "keys": ([], self.keys), "cards": ([], self.cards),
            "card": (["JSON"], self.agent.set_card), "skill": (["SKILL", "JSON"], lambda *what: self.start(self.ask(*what))),
            "quit": ([], self.quit.set)}

    def say(self, text: str) -> None:
        try:
            # While our output is not read, this blocks and the link is not read, so our peers wait.
            self.printing = True
            print(text, flush=True)
            self.printing = False
        except OSError:  # our output is closed, or we wait for its reader no longer
            self.printing = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self.quit.set()

    def hurry(self, loop: asyncio.AbstractEventLoop) -> None:
        """Quit, and no longer wait for the reader of our output. This is for a signal handler."""
        self.hasty = True
        loop.call_soon_threadsafe(self.quit.set)
        signal.signal(signal.SIGALRM, self.unblock)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.1)  # repeatedly, because print may block later

    def unblock(self, *_: Any) -> None:
        if self.printing and not select.select([], [1], [], 0)[1]:
            raise BrokenPipeError  # out of print

    def event(self, kind: str, *details: Any) -> None:
        def write(detail: Any) -> str:
            if isinstance(detail, dict):
                return show(detail)
            return printable(detail) if kind == "error" or isinstance(detail, Text) else named(detail)
        self.say(FORMATS[kind].format(*map(write, details)))

    def command(self, text: Optional[bytes]) -> None:
        try:
            if text is None:
                raise MeshError(f"a command has at most {MAX_LINE} bytes")
            verb, *rest = text.decode("utf-8").split(None, 1)
            if verb not in self.commands:
                known = ", ".join(" ".join([v, *usage]) for v, (usage, _) in self.commands.items())
                raise MeshError(f"no command {verb}; there are: {known}")
            usage, do = self.commands[verb]
            words: list[Any] = rest[0].split(None, max(len(usage) - 1, 0)) if rest else []
            if len(words) != len(usage):
                raise MeshError(f"usage: {' '.join([verb, *usage])}")
            if "MESSAGE" in usage:
                words[-1] = decode(words[-1].encode())
            if "JSON" in usage:
                words[-1] = decode_any(words[-1].encode())
            do(*words)
        except (MeshError, UnicodeDecodeError) as error:
            self.event("error", describe(error))

    def peers(self) -> None:
        def done(answer: asyncio.Future) -> None:
            if not answer.exception():  # run reports that the sidecar is gone
                self.say(" ".join(["peers:", *map(named, answer.result())]))
        self.agent.list_peers().add_done_callback(done)

    def keys(self) -> None:
        for peer in self.agent.peers.values():
            self.event("key" if peer.key else "no_key", peer.name, *filter(None, [peer.key]))

    def cards(self) -> None:
        for peer in self.agent.peers.values():
            self.agent.tell_card(peer)

    async def ask(self, skill: str, payload: Any) -> None:
        """Make a request of any peer with a skill."""
        try:
            self.event("answer", skill, await self.agent.request_skill(skill, payload))
        except RemoteError as error:
            self.event("answer", skill, error.reply)
        except MeshError as error:
            self.event("error", f"skill {skill}: {error}")

    def request(self, peer: str, message: dict) -> None:
        check(message)
        request_id = message.get("request_id") or secrets.token_hex(6)

        def failed(error: Any) -> None:
            self.event("error", f"request {request_id} to {peer}: {error}")

        def done(answer: asyncio.Future) -> None:
            error = answer.exception()
            if error and not isinstance(error, RemoteError):
                failed(error)
            else:  # a response that reports a failure is a response all the same
                self.event("answer", peer, error.reply if isinstance(error, RemoteError) else answer.result())
        try:
            self.agent.request(peer, {**message, "request_id": request_id}).add_done_callback(done)
        except MeshError as error:
            failed(error)

    def stream(self, peer: str, message: dict) -> None:
        check(message)
        self.start(self.follow(peer, {**message, "request_id": message.get("request_id") or secrets.token_hex(6)}))

    async def follow(self, peer: str, message: dict) -> None:
        """Make a request and print the chunks of its response as they come."""
        replies = self.agent.request_stream(peer, message)
        try:
            async for chunk in replies:
                self.event("chunk", peer, Text(show(chunk)))
            self.event("answer", peer, replies.response)
        except RemoteError as error:
            self.event("answer", peer, error.reply)
        except MeshError as error:
            self.event("error", f"request {message['request_id']} to {peer}: {error}")

    def open(self, *words: str) -> None:
        self.start(self.converse(*words))

    def start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def converse(self, peer: str, service: str, text: str) -> None:
        """Write a line to a stream, and print what comes back until its end."""
        loop, answer, sending = asyncio.get_running_loop(), bytearray(), None

        async def send(stream: socket.socket) -> None:
            with contextlib.suppress(OSError):  # the peer need not read it all
                await loop.sock_sendall(stream, text.encode("utf-8", "replace") + b"\n")
                stream.shutdown(socket.SHUT_WR)
        try:
            with await self.agent.open_stream(peer, service) as stream:
                sending = asyncio.create_task(send(stream))  # meanwhile, as the peer writes while it reads
                with contextlib.suppress(OSError):  # the stream's end says why
                    while len(answer) <= MAX_MESSAGE and (data := await loop.sock_recv(stream, 65536)):
                        answer += data
                if len(answer) > MAX_MESSAGE:
                    raise MeshError(f"too_large: over {MAX_MESSAGE} bytes")
                if why := await stream.ended:
                    raise why
            self.event("answer", f"{peer}/{service}", Text(answer.removesuffix(b"\n").decode("utf-8", "replace")))
        except MeshError as error:
            self.event("error", f"stream to {peer}/{service}: {error}")
        finally:
            if sending:
                sending.cancel()

    async def run(self) -> None:
        """Take commands until the link or the input ends, or a command or signal ends us."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self.quit, self.agent.link.closed)]
        reading = asyncio.ensure_future(self.read())
        await asyncio.wait([reading, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in [reading, *ends]:
            task.cancel()
        if self.agent.link.closed.is_set():
            raise self.agent.lost
        await self.agent.close()
        await asyncio.sleep(0)  # requests that fail now are printed first

    async def read(self) -> None:
        loop, chunks, taken, lines = asyncio.get_running_loop(), asyncio.Queue(), threading.Semaphore(), Lines()

        def read_stdin() -> None:
            chunk = b"?"
            while chunk:
                taken.acquire()  # one at a time: a pipe may deliver more than our memory holds
                try:
                    chunk = os.read(0, 65536) if sys.stdin else b""
                    loop.call_soon_threadsafe(chunks.put_nowait, chunk)
                except (OSError, RuntimeError):  # no stdin, or the loop has ended before us
                    chunk = b""
        # asyncio can wait for a terminal or a pipe, but not for a file; sys.stdin would be locked at exit.
        threading.Thread(target=read_stdin, daemon=True).start()
        chunk = b"?"
        while chunk:
            chunk = await chunks.get()
            for text in lines.feed(chunk or b"\n"):
                await self.agent.link.room.wait()
                if self.quit.is_set():
                    return
                self.command(text)
            taken.release()


async def run(options: argparse.Namespace) -> int:
    console, sidecar, failed = Console(options.base, options.card), Sidecar(), False
    loop = asyncio.get_running_loop()

    def on_signal(*_: Any) -> None:
        if console.hasty:
            sidecar.signal(signal.SIGKILL)
            sidecar.remove_socket()
            os._exit(1)
        console.hurry(loop)
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, on_signal)  # the loop's own handlers do not run while print blocks
    try:
        path = options.socket or await sidecar.start(options.sidecar, options.name, options.verbose)
        await console.agent.open(path)
        # Without streams it is no longer needed, and now nothing is left even if we are killed; else an empty directory is.
        if not console.agent.knows("streams"):
            sidecar.remove_socket()
        await console.run()
    except MeshError as error:
        failed = True
        console.event("error", str(error))
    finally:
        link = console.agent.link
        if link:
            await link.close(0)
        if await sidecar.stop(15 if link and not link.stuck else 0):
            failed = True
            console.event("error", "the sidecar did not end and was killed")
        signal.setitimer(signal.ITIMER_REAL, 0)
    if failed and sidecar.process:
        sys.stderr.write(f"the sidecar {sidecar.status()}; its log:\n{sidecar.log.decode('utf-8', 'replace')}")
    return 1 if failed else 0


def card_argument(text: str) -> dict:
    try:
        check_card(card := decode(text.encode("utf-8", "surrogateescape")))
    except MeshError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return card


def main() -> int:
    parser = argparse.ArgumentParser(description="An agent of the mesh, to play with.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sidecar", metavar="PATH", default=os.environ.get("SIDECAR_BINARY") or "chatixia-sidecar",
                       help="start this sidecar (default: $SIDECAR_BINARY, or chatixia-sidecar on the PATH)")
    where.add_argument("--socket", metavar="PATH", help="use the sidecar that listens here, such as $XDG_RUNTIME_DIR/sidecar.sock")
    parser.add_argument("--base", action="store_true", help="use nothing but the base protocol")
    parser.add_argument("--card", metavar="JSON", type=card_argument, help="what peers are told of us, an object")
    parser.add_argument("--verbose", action="store_true", help="show the log of the sidecar that is started")
    parser.add_argument("name", metavar="NAME", nargs="?", help="API key for the sidecar that is started; in a "
                        "development setup that is our name (default: $API_KEY)")
    options = parser.parse_args()
    if options.socket and options.name:
        parser.error("a sidecar that runs has its name already: --socket takes no NAME")
    if options.base and options.card is not None:
        parser.error("the base protocol knows no cards: --base takes no --card")
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
