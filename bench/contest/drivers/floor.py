"""No harness at all: bytes that grow, posted through the provider's SDK, and a stream that is parsed. What nobody can be faster
than without leaving the SDK. It marks the last two tails, retries nothing and shortens nothing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import common
import httpx2
import openai

order = common.order
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
MARK = b',"cache_control":{"type":"ephemeral"}'


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


async def events(response: httpx2.Response) -> list[dict[str, Any]]:
    body = await response.aread()
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]


async def claude() -> None:
    client = anthropic.AsyncAnthropic(api_key=order["key"], base_url=order["url"], max_retries=0)
    tools = [{"name": "bash", "description": common.DESCRIPTION, "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}]
    head = {"model": order["model"], "max_tokens": 4096, "stream": True, "tools": tools, "system": common.SYSTEM}
    wire = dumps(head)[:-1] + b',"messages":[' + dumps({"role": "user", "content": [{"type": "text", "text": common.TASK}]})
    tails = [len(wire) - 3]
    while True:
        last = tails[-2:]
        pieces = [wire[: last[0]], *(MARK + wire[a:b] for a, b in zip(last, [*last[1:], len(wire)], strict=True)), b"]}"]
        response: Any = await client.post(
            "/v1/messages", content=b"".join(pieces), cast_to=httpx2.Response, stream=True, stream_cls=anthropic.AsyncStream[Any]
        )
        blocks: dict[int, dict[str, Any]] = {}
        for event in await events(response):
            if event["type"] == "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "raw": ""}
            elif event["type"] == "content_block_delta":
                delta = event["delta"]
                pieces = (delta.get(name, "") for name in ("text", "partial_json", "thinking"))
                blocks[event["index"]]["raw"] += "".join(pieces)
                blocks[event["index"]].update({"signature": delta["signature"]} if "signature" in delta else {})
        said, results = [], []
        for block in blocks.values():
            raw = block.pop("raw")
            if block["type"] in ("text", "thinking"):
                said.append({**block, block["type"]: raw})
            else:
                said.append({**block, "input": json.loads(raw)})
                content = common.bash(said[-1]["input"]["command"])
                results.append({"type": "tool_result", "tool_use_id": block["id"], "content": content})
        if not results:
            return
        wire += b"," + dumps({"role": "assistant", "content": said}) + b"," + dumps({"role": "user", "content": results})
        tails.append(len(wire) - 3)


async def gpt() -> None:
    client = openai.AsyncOpenAI(api_key=order["key"], base_url=f"{order['url']}/v1", max_retries=0)
    tools = [{"type": "function", "name": "bash", "description": common.DESCRIPTION, "parameters": SCHEMA, "strict": False}]
    head = {"model": order["model"], "stream": True, "store": False, "tools": tools, "instructions": common.SYSTEM}
    wire = dumps(head)[:-1] + b',"input":[' + dumps({"role": "user", "content": common.TASK})
    while True:
        response: Any = await client.post(
            "/responses", content=wire + b"]}", cast_to=httpx2.Response, stream=True, stream_cls=openai.AsyncStream[Any]
        )
        done = [event["item"] for event in await events(response) if event["type"] == "response.output_item.done"]
        calls = [item for item in done if item["type"] == "function_call"]
        if not calls:
            return
        outputs = [
            {
                "type": "function_call_output",
                "call_id": call["call_id"],
                "output": common.bash(json.loads(call["arguments"])["command"]),
            }
            for call in calls
        ]
        wire += b"".join(b"," + dumps(item) for item in (*done, *outputs))


common.drive(lambda: asyncio.run(claude() if order["api"] == "anthropic" else gpt()))
