"""Renders a report as markdown, for people: the verdict first, then what to do, then why it is believed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from agent.core.report import (
    Action,
    Cause,
    Check,
    CodeSource,
    CommandSource,
    Evidence,
    ProposalRecord,
    QuerySource,
    Report,
    Source,
    Suspect,
    TelemetrySource,
)

VERDICTS = {
    "root_cause_found": "Root cause found",
    "likely": "Likely cause",
    "inconclusive": "Inconclusive",
    "alert_unsound": "The alert is unsound",
}


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ELEMENT, LINK, HEADING = re.compile(r"<(?=[A-Za-z/!?])"), re.compile(r"\]\("), re.compile(r"(?m)^(\s*)(#{1,6}\s|```|~~~)")


def render(report: Report) -> str:
    """The whole report."""
    head = f"# {VERDICTS[report.verdict]}: {prose(report.title)}\n\n{harmless(report.summary)}"
    return f"{visible(head)}\n\n{details(report)}"


def details(report: Report) -> str:
    """All but the verdict and the summary."""
    parts = [
        f"*{prose(report.downgraded)}*" if report.downgraded else "",
        _section("Cause" if len(report.causes) == 1 else "Causes", (_cause(cause) for cause in report.causes)),
        _section("What to do now", (_action(action) for action in report.actions)),
        _section("Proposed change", (_proposal(proposal) for proposal in report.proposals)),
        _section("Evidence", (_evidence(item) for item in report.evidence)),
        _section("Checks that tell the suspect from its absence", (_check(check) for check in report.checks)),
        _section("Ruled out", (f"- {prose(item.what)}: {prose(item.why)}" for item in report.ruled_out)),
        _section("Impact", [harmless(report.impact)] if report.impact else []),
        _section("Timeline", (f"- {moment.at.isoformat()} {prose(moment.what)}" for moment in report.timeline)),
        _section("Suspects", _suspects(report.suspects[:10])),
        _section("Brief", [harmless(report.brief)] if report.brief else []),
        _section("Notes", (f"- {prose(note)}" for note in report.notes)),
        _section("Memory", (f"- {prose(path)}" for path in report.memory_changes)),
        _usage(report),
    ]
    return visible("\n\n".join(part for part in parts if part) + "\n")


def _suspects(suspects: Sequence[Suspect]) -> list[str]:
    """Those of which something is said, each on a line; then the others on one."""
    told = [f"- {s.repo}@{s.commit[:12]} ({s.score:.2f}) {prose(s.why)}" for s in suspects if s.why]
    others = ", ".join(f"{s.repo}@{s.commit[:12]}" for s in suspects if not s.why)
    return [*told, *([f"- {'then, less likely: ' if told else ''}{others}"] if others else [])]


def line(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def visible(text: str) -> str:
    """A text in which whatever would move a terminal's cursor, or turn its writing round, is written out."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def harmless(text: str) -> str:
    """Text of logs, commits or a model that makes no element, link or heading of its own in a page."""
    return HEADING.sub(r"\1\\\2", LINK.sub(r"]\(", ELEMENT.sub(r"\\<", text)))


def prose(text: str) -> str:
    """A text on one line, harmless."""
    return harmless(line(text))


def place(source: Source) -> str:
    """Where a piece of evidence stands, in words."""
    if isinstance(source, CodeSource):
        lines = f":{source.start_line}" + (f"-{source.end_line}" if source.end_line else "") if source.start_line else ""
        return f"{source.repo}@{source.commit[:12]}" + (f" {source.path}{lines}" if source.path else " (its diff)")
    if isinstance(source, TelemetrySource):
        return source.path + (f":{source.start_line}" if source.start_line else "")
    if isinstance(source, QuerySource):
        window = f"{source.start.isoformat()} to {source.end.isoformat()}"
        return f"{source.connector}: {code(source.query)} from {window}" + (f" <{source.link}>" if source.link else "")
    assert isinstance(source, CommandSource)
    return code(source.command)


def code(text: str) -> str:
    """A text as inline code, whatever it holds."""
    ticks, pad = _ticks(text, 1), " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{ticks}{pad}{line(text)}{pad}{ticks}"


def fenced(text: str) -> str:
    """A text as a block of code, whatever it holds."""
    fence = _ticks(text, 3)
    return f"{fence}\n{text}\n{fence}"


def _ticks(text: str, least: int) -> str:
    """More backticks than the text has in a row, as many at least."""
    return "`" * max(least, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _runnable(text: str) -> str:
    """A command within a list's item, so that it can be copied and run: inline, or a block where it has several lines."""
    text = text.strip()
    return "\n".join(f"  {row}" for row in fenced(text).splitlines()) if "\n" in text else f"  {code(text)}  "


def _section(title: str, lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return f"## {title}\n\n{text}" if text.strip() else ""


def _cause(cause: Cause) -> str:
    where = [f"service {cause.service}"] if cause.service else []
    where += [f"commit {cause.repo}@{cause.commit}"] if cause.commit else []
    where += [f"files {prose(', '.join(cause.files))}"] if cause.files else []
    lines = [f"- **{prose(cause.statement)}** ({cause.category}, confidence {cause.confidence:.0%})"]
    lines += [f"  How: {prose(cause.mechanism)}"] if cause.mechanism else []
    lines += [f"  Where: {'; '.join(where)}"] if where else []
    return "  \n".join(lines)


def _action(action: Action) -> str:
    extra = "; ".join(
        text
        for text in (
            f"risk: {prose(action.risk)}" if action.risk else "",
            f"owner: {prose(action.owner)}" if action.owner else "",
        )
        if text
    )
    text = f"- **{action.kind}**: {prose(action.what)}" + (f" ({extra})" if extra else "")
    return text + (f"\n\n{fenced(action.command)}\n" if action.command else "")


def _proposal(proposal: ProposalRecord) -> str:
    lines = [f"- **{prose(proposal.title)}** in {proposal.repo}: {proposal.status.replace('_', ' ')}"]
    lines += [f"  branch {code(proposal.branch)}"] if proposal.branch else []
    lines += [f"  {proposal.url}"] if proposal.url else []
    lines += [f"  {prose(proposal.why)}"] if proposal.why else []
    for when, tests in (("before", proposal.tests_before), ("after", proposal.tests_after)):
        if tests:
            lines.append(f"  tests {when}: {tests.passed} passed, {tests.failed} failed ({code(tests.command)})")
    return "  \n".join(lines)


def _evidence(item: Evidence) -> str:
    mark = "verified" if item.verified else f"NOT verified: {prose(item.problem)}"
    quote = "\n".join(f"  > {harmless(text)}" for text in item.quote.strip().splitlines()[:12])
    where = _runnable(item.source.command) if isinstance(item.source, CommandSource) else f"  {place(item.source)}"
    return f"- {prose(item.claim)} ({item.supports}; {mark})  \n{where}\n{quote}"


def _check(check: Check) -> str:
    mark = "discriminates" if check.discriminates else "does not discriminate"
    sides = f"with: {check.with_.label or check.with_.ref or 'the suspect'}; without: {check.without.label or check.without.ref}"
    return f"- {prose(check.claim)} ({mark})  \n{_runnable(check.command)}\n  {sides}. {prose(check.outcome)}"


def _usage(report: Report) -> str:
    usage = report.usage
    tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    cost = "" if usage.usd is None else f", {usage.usd:.2f} USD"
    cached = "" if usage.cache_hit_rate is None else f" ({usage.cache_hit_rate:.1%} from the cache)"
    facts = f"{usage.turns} turns, {tokens} tokens in{cached}, {usage.output_tokens} out{cost}, {usage.seconds:.0f} s"
    return f"---\n\nInvestigation {report.investigation}, {usage.model}: {facts}."
