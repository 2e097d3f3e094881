"""A tool server made with the official `mcp` package: `server.py stdio`, or `server.py http PORT [json]`."""

import asyncio
import sys

from mcp.server.mcpserver import Context, Image, MCPServer

server = MCPServer("holt-tests")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(structured_output=False)
def greet(name: str) -> str:
    """Says hello."""
    return f"Hello, {name}!"


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("nothing works")


@server.tool(structured_output=False)
def picture() -> Image:
    """A picture."""
    return Image(data=b"\x89PNG" + b"\0" * 3000, format="png")


@server.tool(structured_output=False)
async def steps(context: Context) -> str:
    """Takes longer than one time-out, with progress."""
    for step in range(15):
        await context.report_progress(step, 15)
        await asyncio.sleep(0.1)
    return "all steps done"


@server.tool(structured_output=False)
async def sleep() -> str:
    """Takes very long."""
    await asyncio.sleep(3600)
    return "awake"


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    server.run("streamable-http", port=int(sys.argv[2]), json_response="json" in sys.argv)
