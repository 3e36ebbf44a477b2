"""Several hypotheses side by side: who may begin, with which share of what is left, and what the parent is told at the end.

Children begin with their parent's head and messages, to the byte, so all of them read the prefix that the provider has cached for
the parent; the first begins alone, and the others when its answer begins. One child's way is in child.py.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from agent.core.context import Budget, Context
from agent.core.errors import ModelUnavailable, ToolError
from agent.core.journal import Journal
from agent.core.message import Message, user
from agent.core.replay import charge
from agent.core.sandbox import Sandbox
from agent.delegation.child import Child, Home
from agent.delegation.files import Files
from agent.delegation.journal import KIND, ChildJournal, of_children
from agent.delegation.outcome import Outcome, answer
from agent.hooks.caller import CALLED, Called
from agent.markdown import line
from agent.tools.delegate import MOST

AT_ONCE = 4
SHARE = 0.5
"""Of what the parent has left, for all children of one call together."""
TURNS, SECONDS = 40, 1800.0
"""The most that one child gets."""
LEAST_TURNS = 2

HYPOTHESIS = Template(Path(__file__).with_name("hypothesis.md").read_text("utf-8"))


class Delegation:
    """The children of one investigation. `journal` and `sandbox` are the parent's; `home` gives children what they need."""

    def __init__(self, journal: Journal, sandbox: Sandbox, home: Home) -> None:
        self._journal = journal
        self._sandbox = sandbox
        self._home = home
        self._planning = asyncio.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def investigate(self, hypotheses: Sequence[str]) -> str:
        """What came of each, for the model that asked. Called again for the same call it goes on where it was.

        Raises ToolError where there is no room for them, and what concerns the whole investigation (child.py).
        """
        called = CALLED.get()
        budget = await self._planned(called, hypotheses)
        outcomes = await self._all(called, budget, hypotheses)
        return answer(list(zip(hypotheses, outcomes, strict=True)))

    async def _planned(self, called: Called, hypotheses: Sequence[str]) -> Budget:
        """Each child's budget, decided once."""
        async with self._planning:
            plans = of_children(await self._journal.entries(), "plan")
            known = next((plan.data for plan in plans if plan.data["child"] == called.position), None)
            if known is not None:
                return Budget.model_validate(known["budget"])
            left = MOST - sum(len(plan.data["hypotheses"]) for plan in plans)
            if len(hypotheses) > left:
                raise ToolError(
                    f"delegate: {len(hypotheses)} hypotheses, and {left} of {MOST} are left in this investigation",
                    "Choose the most important ones, or look into them yourself.",
                )
            budget = share(called.context, len(hypotheses))
            data = {"child": called.position, "of": "plan", "hypotheses": list(hypotheses), "budget": budget.model_dump()}
            await self._journal.append(KIND, data)
            return budget

    async def _all(self, called: Called, budget: Budget, hypotheses: Sequence[str]) -> list[Outcome]:
        """All outcomes, in order. What concerns the whole investigation stops the others; a provider that is away does not."""
        begun, files = asyncio.Event(), Files(self._sandbox)
        children = [self._child(called, budget, hypotheses, number, files, begun.set) for number in range(1, len(hypotheses) + 1)]

        async def run(number: int, child: Child) -> Outcome | ModelUnavailable:
            if number:
                await begun.wait()
            async with self._places:
                try:
                    return await child.run()
                except ModelUnavailable as error:
                    return error

        tasks = [asyncio.create_task(run(number, child)) for number, child in enumerate(children)]
        try:
            ended = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        outcomes = []
        for end in ended:
            if isinstance(end, ModelUnavailable):
                raise end
            outcomes.append(end)
        return outcomes

    def _child(self, called: Called, budget: Budget, hypotheses: Sequence[str], number: int, files: Files, started: Any) -> Child:
        parent, id, hypothesis = called.context, f"h{called.position}-{number}", hypotheses[number - 1]
        journal = ChildJournal(
            self._journal,
            id,
            hypothesis=line(hypothesis),
            head=parent.head,
            prefix=parent.messages[:-1],
            paid=functools.partial(charge, parent),
        )
        return Child(
            id=id,
            hypothesis=hypothesis,
            message=_message(hypotheses, number, budget),
            budget=budget,
            parent=parent,
            journal=journal,
            ledger=self._journal,
            workspace=self._sandbox,
            home=self._home,
            files=files,
            started=started,
        )


def share(context: Context, children: int) -> Budget:
    """One child's part of what the parent has left. Raises ToolError where that is not worth it."""
    limits, waves = context.budget, math.ceil(children / AT_ONCE)
    turns = TURNS if limits.turns is None else min(TURNS, int((limits.turns - context.turn) * SHARE))
    seconds = [SECONDS]
    seconds += [(limits.seconds - context.seconds) * SHARE / waves] if limits.seconds is not None else []
    seconds += [(limits.working_seconds - context.worked) * SHARE / waves] if limits.working_seconds is not None else []
    tokens = None if limits.tokens is None else int((limits.tokens - context.tokens) * SHARE / children)
    usd = None if limits.usd is None else (limits.usd - context.spent) * SHARE / children
    if turns < LEAST_TURNS or min(seconds) <= 0 or (tokens is not None and tokens <= 0) or (usd is not None and usd <= 0):
        raise ToolError(
            "delegate: too little of the budget is left for that", "Look into the best hypothesis yourself, or report."
        )
    return Budget(turns=turns, tokens=tokens, usd=usd, seconds=None, working_seconds=min(seconds), grace=limits.grace)


def _message(hypotheses: Sequence[str], number: int, budget: Budget) -> Message:
    others = [f"- {line(text)}" for place, text in enumerate(hypotheses, 1) if place != number]
    return user(
        HYPOTHESIS.substitute(
            count=len(hypotheses),
            hypothesis=hypotheses[number - 1],
            others="\n".join(["The others look into:", *others]) if others else "Nobody else looks into another one.",
            turns=budget.turns,
        ).strip()
    )
