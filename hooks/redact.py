"""Takes secrets and personal data out of all that goes to the model, and puts them back where a tool stays in the sandbox.

It does not look for them: that is agent/redaction. It belongs before the hook that shortens results, because half a secret has no
format any more, and no later hook may add text of its own.
"""

from __future__ import annotations

import asyncio

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.message import Block, Message, Text, ToolCall, ToolResult
from agent.redaction import Redaction

INLINE = 4096
"""Characters that are redacted on the event loop itself; longer texts go to a thread."""


class Redact(Hook):
    """Redacts every text and tool result; restores the arguments of tools whose effects stay in the sandbox."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction

    async def before_call(self, context: Context, call: ToolCall) -> ToolCall | str:
        tool = context.tools.get(call.name)
        if tool is None or not tool.in_sandbox:
            return call
        return call.model_copy(update={"arguments": self._redaction.restore_data(call.arguments)})

    async def after_call(self, context: Context, call: ToolCall, result: ToolResult) -> ToolResult:
        return result.model_copy(update={"content": await self._redact(result.content)})

    async def outgoing(self, context: Context, message: Message) -> Message:
        return message.model_copy(update={"blocks": tuple([await self._block(block) for block in message.blocks])})

    async def _block(self, block: Block) -> Block:
        if isinstance(block, Text):
            return block.model_copy(update={"text": await self._redact(block.text)})
        if isinstance(block, ToolResult):
            return block.model_copy(update={"content": await self._redact(block.content)})
        return block

    async def _redact(self, text: str) -> str:
        if len(text) <= INLINE:
            return self._redaction.redact(text)
        return await asyncio.to_thread(self._redaction.redact, text)
