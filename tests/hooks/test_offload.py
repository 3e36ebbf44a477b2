"""Large results go to files, whole and once; the model gets both ends and the path, and one turn's sum is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.context import Context
from agent.core.journal import MemoryJournal
from agent.core.message import ToolCall, ToolResult
from agent.core.sandbox import Sandbox, SandboxSpec
from agent.hooks.offload import Offload
from agent.hooks.results import Results
from agent.models.scripted import ScriptedModel
from agent.sandboxes.local import Local


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    made = await Local(tmp_path, no_protection=True).create("offload", SandboxSpec())
    yield made
    await made.delete()


def _context() -> Context:
    return Context(journal=MemoryJournal(), model=ScriptedModel([]), system="", tools={})


async def _after(hook: Offload, context: Context, content: str, name: str = "bash") -> str:
    call = ToolCall(id="1", name=name)
    return (await hook.after_call(context, call, ToolResult(call_id="1", content=content))).content


async def test_a_large_result_is_whole_in_a_file_and_both_ends_are_shown(sandbox: Sandbox) -> None:
    text = "\n".join(f"line {n}" for n in range(10_000))
    shown = await _after(Offload(Results(sandbox)), _context(), text)
    assert len(shown) < 4_000
    assert shown.startswith("[10000 lines, 98889 bytes; all of it in results/000-bash-")
    assert "line 0\n" in shown and shown.endswith("line 9999")
    path = shown.split("all of it in ")[1].split("]")[0]
    assert (await sandbox.read(path)).decode() == text


async def test_a_small_result_and_what_is_read_from_a_file_stay(sandbox: Sandbox) -> None:
    hook, context = Offload(Results(sandbox)), _context()
    assert await _after(hook, context, "small") == "small"
    assert await _after(hook, context, "x" * 20_000, name="read_file") == "x" * 20_000


async def test_the_sum_of_one_turn_is_bounded_and_a_new_turn_begins_anew(sandbox: Sandbox) -> None:
    hook, context = Offload(Results(sandbox), threshold=8_000, turn=20_000), _context()
    first = [await _after(hook, context, f"{n}" + "x" * 6_999) for n in range(6)]
    assert [len(text) == 7_000 for text in first] == [True, True, False, False, False, False]
    context.turn = 1
    assert len(await _after(hook, context, "y" * 7_000)) == 7_000


async def test_the_file_holds_what_was_redacted_in_the_text(sandbox: Sandbox) -> None:
    hook = Offload(Results(sandbox, restore=lambda text: text.replace("[secret:1]", "hunter2")))
    shown = await _after(hook, _context(), "[secret:1] " * 2_000)
    path = shown.split("all of it in ")[1].split("]")[0]
    assert "hunter2" not in shown
    assert (await sandbox.read(path)).decode() == "hunter2 " * 2_000
