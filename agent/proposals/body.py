"""The text of a proposal, for its reviewer: body.md filled in. Whatever came from outside or from a model is made harmless.

Forges act on what they read: @names notify people, `fixes #1` closes issues, pictures call home, HTML hides. So a text of one
line is escaped whole, and a longer one stands in a quotation, which it cannot leave.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from agent.core.data import Data
from agent.core.report import Check, CodeSource, CommandSource, Conclusion, Evidence, QuerySource, Side, TelemetrySource
from agent.markdown import visible
from agent.patch import Applied
from agent.proposals.trials import Comparison

TEMPLATE = Template(Path(__file__).with_name("body.md").read_text("utf-8"))
INERT = "\N{ZERO WIDTH SPACE}"
LIMIT = 60_000
WATCHED = re.compile(
    r"(^|/)(\.github|\.gitlab-ci\.yml|\.circleci|Jenkinsfile|\.buildkite|azure-pipelines\.yml|\.travis\.yml|\.ci)(/|$)"
)


class Facts(Data):
    """What the body is made of. `trigger` is the title of what was investigated, `why` the agent's reasons for the change."""

    investigation: str
    key: str
    repo: str
    trigger: str
    title: str
    why: str
    conclusion: Conclusion
    applied: Applied
    comparison: Comparison


def body(facts: Facts) -> str:
    """The whole text, in markdown."""
    text = TEMPLATE.substitute(
        summary=f"**{plain(facts.title)}**",
        broke=_broke(facts),
        why=quotation(facts.why) if facts.why.strip() else "Nothing was written down beyond the cause above.",
        evidence=_evidence(facts.conclusion),
        verify=_verify(facts),
        back=_back(facts),
        unchecked=_bullets(_unchecked(facts)) or "Nothing that we know of.",
        investigation=plain(facts.investigation),
        repo=plain(facts.repo),
        base=facts.applied.base[:12],
        key=facts.key,
    )
    return text if len(text) <= LIMIT else text[:LIMIT] + "\n\n(cut here: the report has the rest)\n"


def plain(text: str) -> str:
    """A text on one line that markdown shows as it is and no forge acts on."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text).split())
    return inert(re.sub(r"([\\`*\[\]<>~]|(?<!\w)_|_(?!\w))", r"\\\1", line))


def inert(text: str) -> str:
    """A text in which no forge finds a person, an issue, a commit or an address of its own accord."""
    text = re.sub(r"(?<![\w.])@(?=\w)", f"@{INERT}", text)
    text = re.sub(r"#(?=\d)", f"#{INERT}", text)
    text = re.sub(r"(?i)\b(GH|fix|close|resolve)(e[sd]|[sd])?(\W+)(?=\S*[#/\d])", rf"\1\2{INERT}\3", text)
    return re.sub(r"(?i)\b(https?|ftp)(?=://)|\bwww(?=\.)", lambda match: match[0] + INERT, text)


def quotation(text: str) -> str:
    """A longer text as a quotation. Its lists and code stay readable; tags, pictures and links do not work."""
    lines = []
    for line in text.strip().replace("\r", "").split("\n")[:200]:
        shown = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)
        shown = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", shown)
        shown = re.sub(r"\](?=[(\[:])", "]\\\\", shown)
        lines.append(f"> {inert(shown)}".rstrip())
    return "\n".join(lines)


def code(text: str) -> str:
    """A text as a block of code, which it cannot leave, and in which nothing turns its writing round."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{visible(text.strip())}\n{fence}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _broke(facts: Facts) -> str:
    conclusion = facts.conclusion
    lines = [f"Investigated: {plain(facts.trigger)}", "", quotation(conclusion.summary)]
    for cause in conclusion.causes[:3]:
        where = f", commit {cause.commit}" if cause.commit else ""
        lines += ["", f"Cause ({cause.category}, confidence {cause.confidence:.0%}{where}): {plain(cause.statement)}"]
        lines += [f"How: {plain(cause.mechanism)}"] if cause.mechanism else []
    return "\n".join(lines)


def _evidence(conclusion: Conclusion) -> str:
    verified = [item for item in conclusion.evidence if item.verified]
    if not verified:
        return "None that the host could verify."
    parts = [
        f"- {plain(item.claim)} ({item.supports}; {_place(item)})\n\n{_indented(code(item.quote[:2000]))}"
        for item in verified[:20]
    ]
    return "\n".join(parts)


def _place(item: Evidence) -> str:
    source = item.source
    if isinstance(source, CodeSource):
        lines = f":{source.start_line}" if source.start_line else ""
        return plain(f"{source.repo}@{source.commit} {source.path or 'diff'}{lines}")
    if isinstance(source, QuerySource):
        link = f" {plain(source.link)}" if source.link else ""
        return f"{plain(source.connector)}, {source.start.isoformat()} to {source.end.isoformat()}: {plain(source.query)}{link}"
    if isinstance(source, TelemetrySource):
        return plain(source.path) + (f":{source.start_line}" if source.start_line else "")
    assert isinstance(source, CommandSource)
    return plain(source.command)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _verify(facts: Facts) -> str:
    found = facts.comparison
    parts = []
    if found.before and found.after:
        before, after = found.before, found.after
        parts.append(
            f"The tests, in a sandbox without network: {before.passed} passed and {before.failed} failed before, "
            f"{after.passed} passed and {after.failed} failed after. To run them:\n\n{code(found.command)}"
        )
    elif found.command:
        parts.append(f"Run the tests; they could not be run where this was made:\n\n{code(found.command)}")
    if found.reproducers:
        parts.append(
            "These fail without the change and pass with it:\n\n" + _bullets([plain(name) for name in found.reproducers[:20]])
        )
    parts += [_check(check) for check in facts.conclusion.checks if check.discriminates]
    return "\n\n".join(parts) or "There are no tests and no check that could be re-run; read the change."


def _check(check: Check) -> str:
    sides = f"succeeds with the suspect ({_side(check.with_)}) and fails without it ({_side(check.without)})"
    return f"{plain(check.claim)}: this {sides}:\n\n{code(check.command)}"


def _side(side: Side) -> str:
    return plain(side.label or side.ref or (side.start.isoformat() if side.start else "as found"))


def _back(facts: Facts) -> str:
    lines = [
        "Nothing was changed but this branch: closing the proposal undoes it. Once merged, revert the merge:",
        "",
        code("git revert -m 1 MERGE_COMMIT"),
    ]
    for action in facts.conclusion.actions:
        if action.kind in ("rollback", "pin", "config") and action.command:
            lines += ["", f"Until then, {action.kind}: {plain(action.what)}", "", code(action.command)]
    return "\n".join(lines)


def _unchecked(facts: Facts) -> list[str]:
    found, conclusion = facts.comparison, facts.conclusion
    lines = []
    if conclusion.verdict != "root_cause_found":
        lines.append(f"The verdict is `{conclusion.verdict}`: no check told the suspect from its absence.")
    if not found.after:
        lines.append(
            f"The tests did not run: {plain(found.problem)}." if found.problem else "The repository has no tests that we found."
        )
    elif not found.reproducers:
        lines.append("No test fails without this change and passes with it.")
    if found.after and found.after.failed:
        lines.append(f"{found.after.failed} tests fail both before and after.")
    if found.gone:
        shown = ", ".join(plain(name) for name in found.gone[:10])
        lines.append(f"**{len(found.gone)} tests passed before and are not there after:** {shown}")
    watched = [file.path for file in facts.applied.files if WATCHED.search(file.path)]
    if watched:
        lines.append(f"**It changes what the build service runs:** {', '.join(plain(path) for path in watched[:10])}")
    unverified = sum(not item.verified for item in conclusion.evidence)
    if unverified:
        lines.append(f"{unverified} pieces of evidence could not be verified and are left out here.")
    return lines
