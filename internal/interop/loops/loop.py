#!/usr/bin/env python3
"""Follows a streamed reply of bob as slowly as the input says: `take N` takes N chunks more, `leave` leaves the loop."""

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "examples/python"))
import agent  # noqa: E402


async def command() -> list:
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).split() or ["leave"]


async def main() -> None:
    mesh = agent.Agent(lambda *event: None)
    await mesh.open(sys.argv[sys.argv.index("--socket") + 1])
    wanted = taken = 0
    try:
        async for _ in mesh.request_stream("bob", {"type": "a_request", "request_id": "r1"}):
            taken += 1
            if taken > wanted:
                print(f"took {taken}", flush=True)
                verb, *rest = await command()
                if verb == "leave":
                    break
                wanted = taken + int(rest[0]) - 1
        print("left", flush=True)
    except agent.MeshError as error:
        print(f"failed: {error}", flush=True)
    await command()


asyncio.run(main())
