"""What came of a hypothesis, as text: short for the investigator who asked, whole for a file in results/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.core.data import Data
from agent.core.report import Conclusion, Evidence
from agent.markdown import line, place

SHORT = 4_000
"""Characters of one hypothesis in the answer."""
ALL = 20_000
"""Characters of all of them."""
QUOTE = 300


class Outcome(Data):
    """How a child ended. verdict: its own, or `failed`. text: for the parent. path: the file with the whole of it."""

    verdict: str
    text: str
    path: str


def reported(conclusion: Conclusion) -> str:
    """A child's report, the most important first, because it may be cut."""
    parts = [conclusion.summary]
    for cause in conclusion.causes:
        where = f" [{cause.repo or ''}@{cause.commit}]" if cause.commit else ""
        parts.append(
            f"- cause ({cause.category}, {cause.confidence:.0%}){where}: {line(cause.statement)} {line(cause.mechanism)}"
        )
    parts += [f"- ruled out: {line(item.what)}: {line(item.why)}" for item in conclusion.ruled_out]
    parts += [_evidence(item) for item in conclusion.evidence]
    parts += [f"- check: {line(check.claim)}: `{check.command}`" for check in conclusion.checks]
    parts += [f"- to do ({action.kind}): {line(action.what)} {action.command}".rstrip() for action in conclusion.actions]
    return "\n".join(parts)


def failed(why: str, findings: Sequence[dict[str, Any]], said: str) -> str:
    """What a child had that did not come to a report."""
    parts = [f"It did not come to a report: {why}"]
    parts += [f"- finding: {line(data['claim'])} ({data['source']})" for data in findings]
    parts += [f"Its last words: {line(said)}"] if said.strip() else []
    return "\n".join(parts)


def answer(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """What the parent reads: each hypothesis with what came of it."""
    room = min(SHORT, ALL // max(1, len(outcomes)))
    sections = []
    for number, (hypothesis, outcome) in enumerate(outcomes, 1):
        title = f"## {number}. {line(hypothesis)}\n\n{outcome.verdict}; all of it in {outcome.path}\n\n"
        sections.append(title + _cut(outcome.text, room))
    return "\n\n".join(sections)


def _evidence(item: Evidence) -> str:
    quote = line(item.quote)
    return f"- {item.supports}: {line(item.claim)} ({place(item.source)}): {quote[:QUOTE]}{' […]' if len(quote) > QUOTE else ''}"


def _cut(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    return text[:size].rsplit("\n", 1)[0] + f"\n[… {len(text) - size} characters more in the file]"
