"""An MCP client with the Python SDK, of the server that a command is.

    python client.py MODE COMMAND [ARG...]

It lists tools, calls one, cancels one, and calls one that waits until something happens to the server. It prints what comes
of each.
"""

import asyncio
import sys

from mcp import Client, MCPError, StdioServerParameters


def show(*words):
    print(*words, flush=True)


async def read(client):
    result = await client.call_tool("read", {"name": "LICENSE"})
    show(result.content[0].text)


async def begin(client):
    """Begins a call that waits. It returns the call once the tool is at work."""
    begun = asyncio.Event()

    async def progress(*_):
        begun.set()

    call = asyncio.create_task(client.call_tool("wait", progress_callback=progress))
    working = asyncio.create_task(begun.wait())
    await asyncio.wait((call, working), return_when=asyncio.FIRST_COMPLETED)
    if call.done():
        await call
    return call


async def main(mode, command, *args):
    async with Client(StdioServerParameters(command=command, args=args), mode=mode) as client:
        tools = await client.list_tools()
        show("tools:", *sorted(tool.name for tool in tools.tools))
        await read(client)

        call = await begin(client)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            show("cancelled")
        await read(client)  # the session goes on

        call = await begin(client)
        show("waiting")
        try:
            show(await call)
        except MCPError as e:
            show("failed:", e)
    show("closed")


asyncio.run(main(*sys.argv[1:]))
