"""One hypothesis, from its first message to its outcome: the same loop with the same head, in a journal and a sandbox of its own.

Every step is journaled when it is done, so that a child that was cut off goes on where it was, like its parent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent.core import loop
from agent.core.context import Budget, Context
from agent.core.errors import AgentError, Interrupted, LeaseLost, ModelUnavailable, SandboxError, StoreError, ToolError
from agent.core.hook import Hook
from agent.core.journal import Entry, Journal
from agent.core.message import Message, Reply
from agent.core.report import Conclusion
from agent.core.sandbox import Sandbox
from agent.core.tool import Tool
from agent.core.turn import outgoing
from agent.delegation import outcome
from agent.delegation.files import Files
from agent.delegation.journal import ChildJournal
from agent.delegation.outcome import Outcome
from agent.tools.finding import write_ledger

EMBEDDED = "embedded"
TRIES = 5
"""How often a child may come upon a provider that is away before it is given up."""
SLACK = 60.0


class Home(Protocol):
    """What a child is given by the service."""

    async def open(self, id: str) -> Sandbox:
        """The child's sandbox as it was left, or a new one on the parent's plan. Raises AgentError."""

    async def remove(self, id: str) -> None:
        """Removes it, if it is there."""

    def equip(self, id: str, journal: Journal, sandbox: Sandbox) -> tuple[Mapping[str, Tool], Sequence[Hook]]:
        """Its tools, to the letter those of its parent, and its hooks."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """One child. parent: the run that asked; `workspace` and `ledger` are that run's sandbox and journal.

    started: called when the first of its request's answer is there. files: the parent's small files, for a new sandbox.
    """

    id: str
    hypothesis: str
    message: Message
    budget: Budget
    parent: Context
    journal: ChildJournal
    ledger: Journal
    workspace: Sandbox
    home: Home
    files: Files
    started: Callable[[], None]

    async def run(self) -> Outcome:
        """Runs it to its end. A failure of its own is an outcome; raised are only what concerns the whole investigation:
        ModelUnavailable (it goes on later), Interrupted, LeaseLost and StoreError.
        """
        try:
            ended = await self._last("ended")
            if ended is None:
                ended = await self._end(*await self._concluded())
            await self.home.remove(self.id)
            return Outcome(**{name: ended.data[name] for name in Outcome.model_fields})
        finally:
            self.started()

    async def _concluded(self) -> tuple[str, str, str]:
        """The verdict, the short text and the whole one."""
        try:
            async with asyncio.timeout(2 * (self.budget.working_seconds or 0) + SLACK):
                conclusion = await self._investigate()
            whole = conclusion.model_dump_json(indent=1, by_alias=True, exclude_defaults=True)
            return conclusion.verdict, outcome.reported(conclusion), whole
        except (LeaseLost, Interrupted, StoreError):
            raise
        except ModelUnavailable as error:
            await self.journal.append("unavailable", {"why": error.problem})
            if sum(entry.kind == "unavailable" for entry in await self.journal.entries()) < TRIES:
                raise
            why = error.problem
        except TimeoutError:
            why = "its time was up"
        except AgentError as error:
            why = error.problem
        text = outcome.failed(why, await self._own_findings(), await self._said())
        return "failed", text, text

    async def _investigate(self) -> Conclusion:
        if self.parent.model.provider == EMBEDDED:
            raise ToolError("the model that delegated it is away, and the embedded one has a way of its own")
        sandbox = await self._sandbox()
        tools, hooks = self.home.equip(self.id, self.journal, sandbox)
        context = Context(
            journal=self.journal,
            model=self.parent.model,
            system=self.parent.system,
            tools=dict(tools),
            budget=self.budget,
            listen=lambda piece: self.started(),
            count=self.parent.count,
            now=self.parent.now,
        )
        if await self._last("head") is None:
            await self.journal.begin(await outgoing(context, hooks, self.message))
        return Conclusion.model_validate(await loop.run(context, [_Started(self.started), *hooks]))

    async def _sandbox(self) -> Sandbox:
        furnished = await self._last("desk") is not None
        if not furnished:  # one that is there was cut off before it held all that it should
            await self.home.remove(self.id)
        sandbox = await self.home.open(self.id)
        if not furnished:
            await self.files.unpack(sandbox)
            await self.journal.append("desk", {"sandbox": sandbox.id})
        return sandbox

    async def _end(self, verdict: str, text: str, whole: str) -> Entry:
        """Brings back what has to outlive the child, then journals its outcome."""
        path = f"results/hypothesis-{self.id}.txt"
        content = f"{self.hypothesis}\n\n{whole}\n".encode("utf-8", "replace")
        await self.ledger.append("offload", {"path": path, "blob": await self.ledger.put(content), "call": ""})
        try:
            await self.workspace.write(path, content)
            await self._bring_back()
        except (ToolError, SandboxError) as error:
            text = f"{text}\n(Not all of its files could be brought to your workspace: {error.problem})"
        return await self.journal.append("ended", {"verdict": verdict, "text": text, "path": path})

    async def _bring_back(self) -> None:
        for entry in await self.journal.entries():
            if entry.kind in ("query", "offload") and entry.data.get("child") == self.id:
                await self.workspace.write(entry.data["path"], await self.journal.get(entry.data["blob"]))
        await write_ledger(self.workspace, self.ledger)

    async def _own_findings(self) -> list[dict[str, Any]]:
        entries = await self.journal.entries()
        return [entry.data for entry in entries if entry.kind == "finding" and entry.data.get("child") == self.id]

    async def _said(self) -> str:
        reply = await self._last("reply")
        return Message.model_validate(reply.data["message"]).text if reply else ""

    async def _last(self, kind: str) -> Entry | None:
        entries = await self.journal.entries()
        return next((entry for entry in reversed(entries) if entry.kind == kind), None)


class _Started(Hook):
    """Says that an answer came, where none of it was text."""

    def __init__(self, started: Callable[[], None]) -> None:
        self._started = started

    async def after_reply(self, context: Context, reply: Reply, cost: float | None) -> None:
        self._started()
