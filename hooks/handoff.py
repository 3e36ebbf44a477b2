"""What a compacted history begins with: nothing that was found, said or written down is lost by it.

In this order: the first message as it was; the ledger of findings, the engineers' messages, notes.md, the summary if there is
one, the paths of all files in results/ and of the whole transcript; then the last turns. It decides nothing: that is compact.py.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from agent.core.context import Context
from agent.core.errors import AgentError, SandboxError, ToolError
from agent.core.message import Block, Message, Opaque, Text, ToolCall, ToolResult, user
from agent.core.size import weigh
from agent.hooks.offload import excerpt
from agent.hooks.prune import called, whole
from agent.hooks.results import Results

TOLD = ("inbox", "budget", "guard", "finish")
"""Hooks whose words the model must not forget."""
PATHS, FINDINGS, SAID, NOTES = 24_000, 60_000, 12_000, 8_000
"""Characters of each part at most, and less in a small window. Beyond them the older ones are named by the file they lie in."""
SHOWN, LEAST_SHOWN = 1_000, 150
"""Characters of each end of a large result in the last turn."""
CHARACTERS = 3
"""Of a token, about."""

SHORTENED = "(The history was shortened here."
LOOK_UP = "Look things up rather than doing them again."

Read = Callable[[str], Awaitable[bytes]]


class Handoff:
    """Makes the messages. `read` gives a file of the workspace (notes.md, with hypotheses and plan); None where there is none."""

    def __init__(self, results: Results, *, read: Read | None = None) -> None:
        self.results = results
        self.read = read

    async def messages(self, context: Context, summary: str, *, tail: int, first: int | None = None) -> list[Message]:
        """The messages of the new epoch; about `tail` tokens of the last turns among them, and of the first message at most
        `first`, where that is given.
        """
        last = await self._tail(context, tail)
        begin = await self._first(context, first)
        told = f"{SHORTENED} What follows is all that is known, then the last turns. {LOOK_UP})"
        return [begin, user("\n\n".join([told, *await self._known(context, last, summary)])), *last]

    async def after(self, context: Context, summary: Message, place: int) -> list[Message]:
        """The messages of a new epoch after a summary of the provider's own: those from `place` on follow it unchanged, and then
        all that no summary may lose.
        """
        last = context.messages[place:]
        asked = context.first.text if context.first else ""
        told = f"{SHORTENED} Above are its summary and the last turns. {LOOK_UP})"
        known = await self._known(context, last, "(above)")
        return [summary, *last, user("\n\n".join([told, _section("What was asked", asked), *known]))]

    def place(self, context: Context, tokens: int) -> int:
        """Where the last turns of about so many tokens begin: at an assistant's message. 0 if there is none."""
        messages = context.messages
        places = [place for place, message in enumerate(messages) if place and message.role == "assistant"]
        begin, used = 0, 0
        for place in reversed(places):
            used += sum(weigh(context.count, message) for message in messages[place : begin or len(messages)])
            if begin and used > tokens:
                break
            begin = place
        return begin

    async def _known(self, context: Context, last: Sequence[Message], summary: str) -> list[str]:
        """The sections of what is known beside the last turns."""
        transcript = await self._transcript(context)
        entries = await context.journal.entries()
        findings = [entry.data for entry in entries if entry.kind == "finding"]
        kept = {message.text for message in last}
        said = [e.data["message"] for e in entries if e.kind == "message" and e.data["by"] in TOLD]
        texts = [text for message in said if (text := Message.model_validate(message).text) not in kept]
        sections = [
            _section("Findings (the ledger, findings.jsonl)", _findings(findings, min(FINDINGS, context.model.window * 3 // 5))),
            _section(
                "Messages since the beginning",
                _newest(dict.fromkeys(texts), min(SAID, context.model.window // 8), "older ones are in the transcript"),
            ),
            _section("Hypotheses and plan (notes.md)", await self._notes()),
            _section("Handover", summary or ("" if findings else "None was written.")),
            _section("Results that were given out (whole, in these files)", await self._paths(context)),
            _section("The whole history until now", transcript),
        ]
        return list(filter(None, sections))

    async def _first(self, context: Context, tokens: int | None) -> Message:
        """The first message, with the ends of its texts where it is larger than that."""
        message = context.first or context.messages[0]
        if tokens is None or weigh(context.count, message) <= tokens:
            return message
        end = max(LEAST_SHOWN, tokens * CHARACTERS // (2 * len(message.blocks)))
        blocks: list[Block] = []
        for block in message.blocks:
            if isinstance(block, Text) and len(block.text) > 3 * end:
                path = await self.results.keep(context, "first-message", block.text)
                block = block.model_copy(update={"text": excerpt(block.text, path, end)})
            blocks.append(block)
        return message.model_copy(update={"blocks": tuple(blocks)})

    async def _transcript(self, context: Context) -> str:
        """Writes the history as the model saw it to a file, and says where it is."""
        path = f"results/transcript-{context.epoch:02}.md"
        try:
            await self.results.write(context, path, written(context.messages).encode("utf-8", "replace"))
        except (ToolError, SandboxError) as error:
            return f"It could not be written: {error.problem}"
        earlier = [f"results/transcript-{epoch:02}.md" for epoch in range(1, context.epoch)]
        return f"{path} (search it before you ask anything again)" + (f"; before that: {', '.join(earlier)}" if earlier else "")

    async def _notes(self) -> str:
        if self.read is None:
            return ""
        try:
            text = (await self.read("notes.md")).decode("utf-8", "replace").strip()
        except AgentError:
            return ""
        return text if len(text) <= NOTES else f"{text[:NOTES]}\n[cut; the rest is in notes.md]"

    async def _paths(self, context: Context) -> str:
        paths = [path for path in await self.results.paths(context) if "/transcript-" not in path]
        text = _newest(paths, min(PATHS, context.model.window // 5), "the older ones are in results/index.md")
        if len(text.splitlines()) != len(paths):
            await self.results.write(context, "results/index.md", "".join(f"{path}\n" for path in paths).encode())
        return text

    async def _tail(self, context: Context, tokens: int) -> list[Message]:
        """The last turns, from an assistant's message on so that no call is without its result. The very last one always stays,
        with large results shortened to their ends. Whether thinking may be sent back in a new epoch is the model's to say.
        """
        messages = context.messages
        begin = self.place(context, tokens)
        if not begin:
            return messages[1:] if len(messages) > 1 and context.epoch == 1 else []
        kept = messages[begin:]
        if sum(weigh(context.count, message) for message in kept) > tokens:
            count = sum(isinstance(block, ToolResult) for message in kept for block in message.blocks)
            end = max(LEAST_SHOWN, min(SHOWN, tokens * CHARACTERS // (2 * max(count, 1))))
            names = called(kept)
            kept = [await self._shortened(context, message, names, end) for message in kept]
        return kept

    async def _shortened(self, context: Context, message: Message, names: Mapping[str, str], end: int) -> Message:
        blocks: list[Block] = []
        for block in message.blocks:
            if isinstance(block, ToolResult) and len(block.content) > 3 * end:
                path = await whole(context, self.results, block, names)
                block = block.model_copy(update={"content": excerpt(block.content, path, end)})
            blocks.append(block)
        return message.model_copy(update={"blocks": tuple(blocks)})


def written(messages: Iterable[Message]) -> str:
    """Messages as text, for people and grep."""
    return "\n\n".join("\n\n".join((f"## {one.role}", *filter(None, map(_written, one.blocks)))) for one in messages) + "\n"


def _written(block: Block) -> str:
    match block:
        case Text():
            return block.text
        case ToolCall():
            return f"call {block.id} {block.name} {block.malformed or json.dumps(block.arguments, ensure_ascii=False)}"
        case ToolResult():
            return f"result {block.call_id}{' (error)' if block.is_error else ''}\n{block.content}"
        case Opaque():
            return ""


def _findings(findings: Sequence[dict[str, object]], limit: int) -> str:
    """Every finding; where they are too many, the older ones without their quotes, which are in the ledger's file."""
    lines = [json.dumps(finding, ensure_ascii=False) for finding in findings]
    at, total = 0, sum(map(len, lines))
    while total > limit and at < len(lines):
        bare = json.dumps({**findings[at], "quote": "(in findings.jsonl)"}, ensure_ascii=False)
        total -= len(lines[at]) - len(bare)
        lines[at] = bare
        at += 1
    return "\n".join(lines)


def _newest(texts: Iterable[str], limit: int, rest: str) -> str:
    """The newest of the texts that fit, in their order."""
    kept: list[str] = []
    used = 0
    everything = list(texts)
    for text in reversed(everything):
        used += len(text) + 1
        if used > limit:
            kept.append(f"({rest})")
            break
        kept.append(text)
    return "\n".join(reversed(kept))


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text.strip() else ""
