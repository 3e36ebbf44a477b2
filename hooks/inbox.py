"""Passes on what arrives while the investigation runs: engineers' messages, alerts that joined, decisions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agent.core.context import Context
from agent.core.data import Data
from agent.core.hook import Hook, Note


class Letter(Data):
    """One message to the investigation. `number` counts up within it."""

    number: int
    author: str
    text: str


class Inbox(Hook):
    """Joins new messages before the next turn. `read` gives all that came after a number."""

    def __init__(self, read: Callable[[int], Awaitable[Sequence[Letter]]]) -> None:
        self.read = read

    async def before_turn(self, context: Context) -> list[Note]:
        told = [int(key.removeprefix("inbox:")) for key in context.keys if key.startswith("inbox:")]
        letters = await self.read(max(told, default=0))
        return [Note(key=f"inbox:{letter.number}", text=f"[message from {letter.author}]\n{letter.text}") for letter in letters]
