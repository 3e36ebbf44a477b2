"""Renders a report as markdown, for people: the verdict first, then what to do, then why it is believed."""

from __future__ import annotations

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


def render(report: Report) -> str:
    """The whole report."""
    return f"# {VERDICTS[report.verdict]}: {line(report.title)}\n\n{report.summary}\n\n{details(report)}"


def details(report: Report) -> str:
    """All but the verdict and the summary."""
    parts = [
        f"*{report.downgraded}*" if report.downgraded else "",
        _section("Cause" if len(report.causes) == 1 else "Causes", (_cause(cause) for cause in report.causes)),
        _section("What to do now", (_action(action) for action in report.actions)),
        _section("Proposed change", (_proposal(proposal) for proposal in report.proposals)),
        _section("Evidence", (_evidence(item) for item in report.evidence)),
        _section("Checks that tell the suspect from its absence", (_check(check) for check in report.checks)),
        _section("Ruled out", (f"- {line(item.what)}: {line(item.why)}" for item in report.ruled_out)),
        _section("Impact", [report.impact] if report.impact else []),
        _section("Timeline", (f"- {moment.at.isoformat()} {line(moment.what)}" for moment in report.timeline)),
        _section("Suspects", _suspects(report.suspects[:10])),
        _section("Brief", [report.brief] if report.brief else []),
        _section("Notes", (f"- {line(note)}" for note in report.notes)),
        _section("Memory", (f"- {line(path)}" for path in report.memory_changes)),
        _usage(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _suspects(suspects: Sequence[Suspect]) -> list[str]:
    """Those of which something is said, each on a line; then the others on one."""
    told = [f"- {s.repo}@{s.commit[:12]} ({s.score:.2f}) {line(s.why)}" for s in suspects if s.why]
    others = ", ".join(f"{s.repo}@{s.commit[:12]}" for s in suspects if not s.why)
    return [*told, *([f"- {'then, less likely: ' if told else ''}{others}"] if others else [])]


def line(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


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
    ticks = "``" if "`" in text else "`"
    return f"{ticks}{line(text)}{ticks}"


def fenced(text: str) -> str:
    """A text as a block of code, whatever it holds."""
    fence = "````" if "```" in text else "```"
    return f"{fence}\n{text}\n{fence}"


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
    where += [f"files {', '.join(cause.files)}"] if cause.files else []
    lines = [f"- **{line(cause.statement)}** ({cause.category}, confidence {cause.confidence:.0%})"]
    lines += [f"  How: {line(cause.mechanism)}"] if cause.mechanism else []
    lines += [f"  Where: {'; '.join(where)}"] if where else []
    return "  \n".join(lines)


def _action(action: Action) -> str:
    extra = "; ".join(
        text for text in (f"risk: {action.risk}" if action.risk else "", f"owner: {action.owner}" if action.owner else "") if text
    )
    text = f"- **{action.kind}**: {line(action.what)}" + (f" ({extra})" if extra else "")
    return text + (f"\n\n{fenced(action.command)}\n" if action.command else "")


def _proposal(proposal: ProposalRecord) -> str:
    lines = [f"- **{line(proposal.title)}** in {proposal.repo}: {proposal.status.replace('_', ' ')}"]
    lines += [f"  branch {code(proposal.branch)}"] if proposal.branch else []
    lines += [f"  {proposal.url}"] if proposal.url else []
    lines += [f"  {line(proposal.why)}"] if proposal.why else []
    for when, tests in (("before", proposal.tests_before), ("after", proposal.tests_after)):
        if tests:
            lines.append(f"  tests {when}: {tests.passed} passed, {tests.failed} failed ({code(tests.command)})")
    return "  \n".join(lines)


def _evidence(item: Evidence) -> str:
    mark = "verified" if item.verified else f"NOT verified: {line(item.problem)}"
    quote = "\n".join(f"  > {text}" for text in item.quote.strip().splitlines()[:12])
    where = _runnable(item.source.command) if isinstance(item.source, CommandSource) else f"  {place(item.source)}"
    return f"- {line(item.claim)} ({item.supports}; {mark})  \n{where}\n{quote}"


def _check(check: Check) -> str:
    mark = "discriminates" if check.discriminates else "does not discriminate"
    sides = f"with: {check.with_.label or check.with_.ref or 'the suspect'}; without: {check.without.label or check.without.ref}"
    return f"- {line(check.claim)} ({mark})  \n{_runnable(check.command)}\n  {sides}. {line(check.outcome)}"


def _usage(report: Report) -> str:
    usage = report.usage
    tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    cost = "" if usage.usd is None else f", {usage.usd:.2f} USD"
    cached = "" if usage.cache_hit_rate is None else f" ({usage.cache_hit_rate:.1%} from the cache)"
    facts = f"{usage.turns} turns, {tokens} tokens in{cached}, {usage.output_tokens} out{cost}, {usage.seconds:.0f} s"
    return f"---\n\nInvestigation {report.investigation}, {usage.model}: {facts}."
