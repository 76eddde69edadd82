"""An MCP server on standard input and output, with the Python SDK. It says its process id on stderr, and what happens to a
call that waits."""

import os
import sys

import anyio
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("files")


@server.tool()
def read(name: str) -> str:
    """stands for what reads a file"""
    return f"{name} for {os.environ['MESH_PEER_ID']}"


@server.tool()
async def wait(ctx: Context) -> str:
    """reports progress once, and ends when it is cancelled"""
    await ctx.report_progress(1)
    try:
        await anyio.sleep_forever()
    finally:
        print("a call was cancelled", file=sys.stderr, flush=True)


print("server", os.getpid(), file=sys.stderr, flush=True)
server.run()
