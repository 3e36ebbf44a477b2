"""What reaches a model's provider when tools print secrets, and what comes back into the sandbox."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agent.core.context import Context
from agent.core.finish import Finish
from agent.core.journal import MemoryJournal
from agent.core.loop import run
from agent.core.message import Message, Reply, ToolCall, ToolResult, Usage
from agent.core.model import Head, Listener, ignore
from agent.core.tool import Tool, tool
from agent.hooks.redact import Redact
from agent.redaction import Redaction

KEY = "AKIA" + "Q7ZX5N2M4P6R8T3V"
PASSWORD = "k7!vR2-pQ9x+Zt/4w"
ADDRESS = "carol.jones@corp.example.org"
BLOCK = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join("MIIEpAIBAAKCAQEA7bq98XwTz0" + c * 38 for c in "abcd")
    + "\n-----END RSA PRIVATE KEY-----"
)
TOKEN = "sk-ant-api03-" + "Ab3_x9Zq" * 9

FORMS = {
    "plain": f"using key {KEY} for s3",
    "in JSON": json.dumps({"aws": {"accessKeyId": KEY, "password": PASSWORD}}),
    "JSON in JSON": json.dumps({"body": json.dumps({"password": PASSWORD})}),
    "environment": f"export DB_PASSWORD='{PASSWORD}'",
    "URL": f"connecting to postgres://app:{quote(PASSWORD, safe='')}@db.internal/orders",
    "percent-encoded": f"GET /callback?state=1&key={quote('password=' + PASSWORD, safe='')}",
    "base64": f"Authorization: Basic {base64.b64encode(f'app:{PASSWORD}'.encode()).decode()}",
    "base64 of a file": base64.encodebytes(
        f"[default]\naws_access_key_id = {KEY}\nregion = eu\noutput = json\n{'x' * 60}".encode()
    ).decode(),
    "hexadecimal": f"dump: {f'key {KEY}'.encode().hex()}",
    "private key": f"loaded\n{BLOCK}\ndone",
    "private key in JSON": json.dumps({"private_key": BLOCK}),
    "private key cut off": f"loaded\n{BLOCK[:150]}",
    "bearer": f'curl -H "Authorization: Bearer {TOKEN}" https://api',
    "wrapped by a terminal": f"ANTHROPIC_KEY={TOKEN[:60]}\n{TOKEN[60:]}\nnext line",
    "unicode escape": '{"from": "' + ADDRESS.replace("@", "\\u0040") + '"}',
    "address": f"mail to <{ADDRESS}> bounced",
    "known value in pieces": f"the value is {PASSWORD[:9]}\n    {PASSWORD[9:]} over two lines",
}
NEVER = (
    KEY,
    PASSWORD,
    TOKEN,
    ADDRESS,
    KEY[4:],
    TOKEN[60:],
    "MIIEpAIBAAKCAQEA7bq98XwTz0",
    quote(PASSWORD, safe=""),
    KEY.encode().hex(),
)


class Recorder:
    """A model that calls a tool once and then ends, and keeps every byte that it was given."""

    name = "recorder"
    provider = "recorder"
    window = 200_000
    caching = None

    def __init__(self, *calls: ToolCall) -> None:
        self.calls = calls
        self.sent: list[str] = []

    def open(self, head: Head) -> Recorder:
        self.sent.append(head.model_dump_json())
        return self

    def append(self, message: Message) -> None:
        self.sent.append(message.model_dump_json())

    async def reply(self, listen: Listener = ignore) -> Reply:
        number = sum('"role":"assistant"' in text for text in self.sent)
        return Reply(message=Message(role="assistant", blocks=(self.calls[number],)), model=self.name)

    async def compact(self, count: int, instructions: str) -> Reply | None:
        return None

    def cost(self, usage: Usage) -> float | None:
        return None

    async def close(self) -> None:
        """Nothing to give back."""


async def report() -> str:
    """End."""
    raise Finish("done")


def printing(text: str) -> Tool:
    async def show() -> str:
        """Print."""
        return text

    return tool(show)


@pytest.mark.parametrize("form", FORMS)
async def test_a_planted_key_never_leaves(tmp_path: Path, form: str) -> None:
    """Whatever its form, it is in nothing that the model was given and in nothing that was journaled."""
    redaction = Redaction(tmp_path / "host", known=[PASSWORD])
    journal = MemoryJournal()
    model = Recorder(ToolCall(id="1", name="show"), ToolCall(id="2", name="report"))
    tools = {"show": printing(FORMS[form]), "report": tool(report)}
    context = Context(journal=journal, model=model, system="s", tools=tools)
    await run(context, [Redact(redaction)], f"begin: {FORMS[form]}")
    journaled = "\n".join(entry.model_dump_json() for entry in await journal.entries())
    for text in ("\n".join(model.sent), journaled):
        decoded = text + text.replace("\\n", "\n").replace("\\\\", "\\").replace('\\"', '"')
        assert [value for value in NEVER if value in decoded] == []
    shown = next(e.data["result"]["content"] for e in await journal.entries() if e.kind == "result")
    assert redaction.restore(shown) == FORMS[form]


async def test_placeholders_come_back_only_for_tools_that_stay_in_the_sandbox(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path)
    name = redaction.redact(KEY)
    seen: list[tuple[str, Any]] = []

    async def inside(command: str, more: dict[str, list[str]]) -> str:
        """Inside."""
        seen.append(("inside", (command, more)))
        return f"found {KEY}"

    async def outside(query: str) -> str:
        """Outside."""
        seen.append(("outside", query))
        return "none"

    calls = (
        ToolCall(id="1", name="inside", arguments={"command": f"grep {name} log", "more": {"a": [name]}}),
        ToolCall(id="2", name="outside", arguments={"query": f'{{line="{name}"}}'}),
        ToolCall(id="3", name="report"),
    )
    tools = {"inside": tool(inside, in_sandbox=True), "outside": tool(outside), "report": tool(report)}
    journal = MemoryJournal()
    await run(Context(journal=journal, model=Recorder(*calls), system="s", tools=tools), [Redact(redaction)], "begin")
    assert seen == [("inside", (f"grep {KEY} log", {"a": [KEY]})), ("outside", f'{{line="{name}"}}')]
    assert KEY not in "".join(entry.model_dump_json() for entry in await journal.entries())


@pytest.mark.slow
async def test_a_large_result_is_redacted_off_the_event_loop_and_whole(tmp_path: Path) -> None:
    text = "".join(f"line {number} with {KEY}\n" for number in range(20_000)) + BLOCK
    hook = Redact(Redaction(tmp_path))
    context = Context(journal=MemoryJournal(), model=Recorder(), system="s", tools={})
    result = await hook.after_call(context, ToolCall(id="1", name="x"), ToolResult(call_id="1", content=text))
    assert KEY not in result.content
    assert "MIIE" not in result.content
    assert result.content.count("[secret:aws-key:") == 20_000
