#!/usr/bin/env python3
"""Fuzzes the line reader of examples/python: whatever the bytes, it survives, keeps its bounds, and takes exactly the
lines that the Go parser takes. Prints the seed of each run; the environment variable FUZZSEED repeats one, FUZZTIME
(3s, 10m) says how long."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from typing import Any, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "examples/python"))
import agent  # noqa: E402

BATCH = 500  # streams for one run of the Go parser
FIELDS = sorted({*agent.COMMON, *agent.MESSAGE, *(field for fields in agent.EVENTS.values() for field in fields)})
TYPES = [*agent.EVENTS, "later", "", "ping", "x_request", "x_response", "x_stream_chunk"]
ODD = ["null", "true", "false", "0", "-0", "-1", "1.5", "1e3", "1e400", "9223372036854775807", "9223372036854775808",
       "9" * 5000, "01", "+1", ".5", "NaN", "Infinity", "-Infinity", '""', '"x"', '"\\ud800"', '"\\ud83d\\ude00"',
       '"\\u0000"', '"\\x"', '"\t"', '"\u2028"', "[]", "{}", '["a"]', "[1]", "[null]", '{"type":"x"}', "'x'", "x", ""]
ENDS = [b"\n"] * 6 + [b"\r\n", b"\r\r\n", b"\n\n", b" \n", b"\n\r\n", b"\n \t\n", b"\n\x0b\n", b"\n\xef\xbb\xbf\n"]
BYTES = [b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8",
         b"\xef\xbb\xbf", b"\xc2\x85", b"\r", b"\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" "]


class Pairs(list):
    """An object as its keys and values, so that it can have a key twice."""


class Raw(str):
    """JSON, or what looks like it."""


def fixtures() -> list[Any]:
    cases = [json.loads(line) for line in (ROOT / "docs/fixtures/link.jsonl").read_text("utf-8").split("\n") if line]
    found = []
    for case in cases:
        if len(case["line"]) < 2000:
            try:
                found.append(json.loads(case["line"], object_pairs_hook=Pairs))
            except ValueError:
                found.append(Raw(case["line"]))
    return found


def keys(value: Any) -> Iterator[str]:
    """Yield the keys of a value and of what is in it: names that the reader should know."""
    if isinstance(value, list):
        for item in value:
            key, inner = item if isinstance(value, Pairs) else (None, item)
            if key is not None:
                yield key
            yield from keys(inner)


class Generator:
    def __init__(self, seed: int) -> None:
        self.r, self.fixtures = random.Random(seed), fixtures()
        self.fields = sorted({*FIELDS, *(key for value in self.fixtures for key in keys(value))})

    def stream(self) -> tuple[bytes, int]:
        """Return some lines, and a limit that they are near to, or not."""
        lines = [self.line() for _ in range(self.r.randint(1, 5))]
        stream = b"\xef\xbb\xbf" * self.r.choice([0, 0, 0, 1, 1, 2])
        stream += b"".join(line + self.r.choice(ENDS) for line in lines) + b"\n"
        near = len(self.r.choice(lines)) + self.r.randint(-2, 2)
        return stream, self.r.choice([100_000, max(near, 1)])

    def line(self) -> bytes:
        value = self.mutated(self.r.choice(self.fixtures))
        text = self.text(value).encode("utf-8", "surrogatepass")
        for _ in range(self.r.choice([0, 0, 0, 1, 2])):
            at = self.r.randint(0, len(text))
            text = text[:at] + self.r.choice([*BYTES, b""]) + text[at + self.r.choice([0, 1, 1, 5]):]
        return text

    def mutated(self, value: Any) -> Any:
        value = self.copy(value)
        changes = self.r.choice([0, 1, 1, 2, 3])
        # Alone, and where no key comes twice: the reader does not see what is behind such a key.
        deep = self.r.random() < 0.03 and not self.doubled(value)
        for _ in range(1 if deep else changes):
            places = list(self.places(value))
            if places:
                owner, at = self.r.choice(places)
                if deep:
                    self.put(owner, at, Raw(self.nested(self.r.randint(500, 520))))
                else:
                    self.change(owner, at)
        return value

    def change(self, owner: list, at: int) -> None:
        if not isinstance(owner, Pairs):
            owner[at] = Raw(self.r.choice(ODD))
            return
        key, value = owner[at]
        what = self.r.randrange(6)
        if what == 0:
            owner.insert(self.r.randint(0, len(owner)), (key, Raw(self.r.choice(ODD))))
        elif what == 1:
            owner[at] = (self.cased(key), value)
        elif what == 2:
            owner.insert(self.r.randint(0, len(owner)), (self.cased(key), value))
        elif what == 3:
            owner[at] = (self.r.choice(self.fields), value)
        elif what == 4:
            del owner[at]
        elif key == "type":
            owner[at] = (key, self.r.choice(TYPES))
        else:
            owner[at] = (key, Raw(self.r.choice(ODD)))

    def cased(self, key: str) -> str:
        at = self.r.randrange(len(key) + 1)
        letter = {"s": "\u017f", "k": "\u212a", "i": "\u0130"}.get(key[at:at + 1], key[at:at + 1].upper())
        return key[:at] + self.r.choice([letter, key[at:at + 1].upper()]) + key[at + 1:]

    def nested(self, depth: int) -> str:
        return "[" * depth + "]" * depth if self.r.random() < 0.5 else '{"a":' * depth + "0" + "}" * depth

    def put(self, owner: list, at: int, value: Any) -> None:
        owner[at] = (owner[at][0], value) if isinstance(owner, Pairs) else value

    def places(self, value: Any) -> Iterator[tuple[list, int]]:
        if isinstance(value, list):
            for at, inner in enumerate(value):
                yield value, at
                yield from self.places(inner[1] if isinstance(value, Pairs) else inner)

    def doubled(self, value: Any) -> bool:
        if isinstance(value, Pairs) and len({key for key, _ in value}) < len(value):
            return True
        return any(self.doubled(owner[at][1] if isinstance(owner, Pairs) else owner[at]) for owner, at in self.places(value))

    def copy(self, value: Any) -> Any:
        if isinstance(value, Pairs):
            return Pairs((key, self.copy(inner)) for key, inner in value)
        return [self.copy(inner) for inner in value] if isinstance(value, list) else value

    def text(self, value: Any) -> str:
        space = self.r.choice(["", "", "", " ", "\t", "\r"])
        if isinstance(value, Raw):
            return value
        if isinstance(value, Pairs):
            return "{" + ",".join(space + self.key(k) + ":" + space + self.text(v) for k, v in value) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self.text(v) for v in value) + "]"
        return json.dumps(value, ensure_ascii=self.r.random() < 0.5)

    def key(self, key: str) -> str:
        if self.r.random() < 0.05 and key:
            at = self.r.randrange(len(key))
            return json.dumps(key[:at])[:-1] + f"\\u{ord(key[at]):04x}" + json.dumps(key[at + 1:])[1:]
        return json.dumps(key, ensure_ascii=self.r.random() < 0.5)

    def pieces(self, stream: bytes) -> Iterator[bytes]:
        size = self.r.choice([1, 7, 100, 1 << 20])
        while stream:
            n = self.r.randint(1, size)
            yield stream[:n]
            stream = stream[n:]


class FakeLink:
    def __init__(self) -> None:
        self.room, self.written = asyncio.Event(), 0
        self.room.set()

    def write(self, line: bytes) -> None:
        assert b"\n" not in line, f"writes {line!r}"
        self.written += 1


async def read(generator: Generator, stream: bytes, limit: int) -> list[str]:
    """Return the verdicts of the reader in Python."""
    errors: list[str] = []
    reader = agent.Agent(lambda kind, *details: kind == "error" and errors.append(details[0]))
    reader.link = FakeLink()
    lines, verdicts = agent.Lines(limit), []
    for piece in generator.pieces(stream):
        for line in lines.feed(piece):
            assert line is None or len(line) <= limit, f"a line of {len(line)} bytes, the limit is {limit}"
            errors.clear()
            reader.receive(line)
            skipped = any(e.startswith("a line from the sidecar was skipped: ") for e in errors)
            verdicts.append("error" if skipped else "ok")
            assert not skipped or not re.search(r": [A-Z]\w*(Error|Exception): ", errors[-1]), f"{line!r}: {errors[-1]}"
        assert len(lines.partial) <= limit + 5, f"{len(lines.partial)} bytes kept, the limit is {limit}"
    await asyncio.sleep(0)
    reader.end(agent.MeshError("over"))
    await asyncio.sleep(0)
    return verdicts


async def read_all(generator: Generator, streams: list[tuple[bytes, int]]) -> list[list[str]]:
    return [await read(generator, stream, limit) for stream, limit in streams]


def judge(binary: str, streams: list[tuple[bytes, int]]) -> list[list[str]]:
    """Return the verdicts of the parser in Go."""
    cases = "".join(json.dumps({"stream": base64.b64encode(s).decode(), "limit": n}) + "\n" for s, n in streams)
    done = subprocess.run([binary, "link"], input=cases.encode(), stdout=subprocess.PIPE, check=True)
    return [["ok" if v == "ignore" else v for v in json.loads(line)] for line in done.stdout.splitlines()]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(s|m|h)", text).groups()
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def main() -> int:
    seed = int(os.environ.get("FUZZSEED") or random.SystemRandom().randrange(1 << 32))
    generator = Generator(seed)
    print(f"seed {seed}", flush=True)
    count = 0
    with tempfile.TemporaryDirectory() as directory:
        binary = os.path.join(directory, "readers")
        subprocess.run(["go", "build", "-o", binary, "./internal/interop/readers"], cwd=ROOT, check=True)
        end = time.monotonic() + seconds(os.environ.get("FUZZTIME") or "3s")
        while count == 0 or time.monotonic() < end:
            streams = [generator.stream() for _ in range(BATCH)]
            for (stream, limit), want, got in zip(streams, judge(binary, streams), asyncio.run(read_all(generator, streams))):
                if got != want:
                    print(f"seed {seed}, limit {limit}\n{stream!r}\nPython {got}\nGo     {want}")
                    return 1
                count += 1
    print(f"fuzz: execs: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
