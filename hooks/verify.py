"""Sends the model back once when its report does not hold, with what is wrong and how to mend it. The second time it lets it go:
what stays unverified is marked by the host. It checks nothing itself: that is agent/evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.report import Conclusion
from agent.evidence import Checker, Judgement
from agent.hooks.budget import used_up

MOST = 12


class Verify(Hook):
    """times: how often a report is sent back at most, by any hook. announce: told that it checks, which may take a while."""

    def __init__(self, checker: Checker, *, times: int = 1, announce: Callable[[str], None] = lambda text: None) -> None:
        self._checker = checker
        self._times = times
        self._announce = announce

    async def before_finish(self, context: Context, result: Any) -> str | None:
        if context.sent_back >= self._times or used_up(context):
            return None
        self._announce("checking the evidence")
        judgement = await self._checker.judge(Conclusion.model_validate(result))
        honest = not judgement.downgraded and judgement.conclusion.verdict == "inconclusive"
        return objection(judgement) if judgement.objections and not honest else None


def objection(judgement: Judgement) -> str:
    """The text for the model."""
    shown = judgement.objections[:MOST]
    rest = len(judgement.objections) - len(shown)
    lines = ["The host checked your report. This does not hold:", *(f"{number}. {text}" for number, text in enumerate(shown, 1))]
    lines += [f"({rest} more of the kind)"] * (rest > 0)
    lines.append(
        "Mend what you can and call `report` again, whole: correct a quote or its place, make a check that runs the code at the"
        " commit and at its parent or looks at data on both sides of the onset, or take back what does not hold. If the evidence"
        " points to another cause, say that one. You are sent back only once; what stays unverified will be marked as such."
    )
    return "\n".join(lines)
