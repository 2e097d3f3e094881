"""The official client against a hub: `client.py URL KEY`."""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, key: str) -> None:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60)
    async with Client(streamable_http_client(url, http_client=http)) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "chat" in names and "kv_set" in names and "machines_list" not in names, names

        async def call(tool: str, **arguments: object):
            result = await client.call_tool(tool, arguments)
            return result.is_error, result.content[0].text

        failed, text = await call("kv_set", agent="default", key="from", value="python")
        assert not failed, text
        failed, text = await call("kv_get", agent="default", key="from")
        assert not failed and json.loads(text)["value"] == "python", text
        failed, text = await call("kv_get", agent="default", key="nothing")
        assert failed and "not found" in text, text
        failed, text = await call("chat", message="say hello")
        assert not failed and json.loads(text)["response"] == "hello", text
    print("all is well")


asyncio.run(main(*sys.argv[1:]))
