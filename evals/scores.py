"""Scores one report against the truth: plain functions of the two, without a model, a sandbox or a runner. docs/evals.md has
what each figure means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.core.data import Data
from agent.core.report import Cause, CodeSource, CommandSource, Conclusion, Evidence, Report, Verdict
from agent.evals.figures import brier, chance
from agent.evals.grounds import Grounds
from agent.evals.truth import Named, Truth

DEPTHS = (1, 3, 5)
NOTHING = "nothing"
NONE = "none"
STRENGTH: dict[Verdict, int] = {"inconclusive": 0, "likely": 1, "root_cause_found": 2, "alert_unsound": 2}


class Score(Data):
    """How one report compares with the truth.

    guilty: whether a commit is guilty at all. right: the first cause is a guilty commit, or rightly none. rank: of the first
    guilty commit among the answers. answered: the commit blamed first, `none`, or `nothing` where no cause is named.
    claimed: the model's own verdict, when it first reported. downgrade: where that did not stand, `right` if its cause is wrong.
    evidence: pieces, verified ones, and relevant ones among those for the mechanism. extra: claims beside the right ones that are
    not true. confidence: of the first cause.
    """

    guilty: bool
    right: bool
    rank: int | None = None
    answered: str
    category_right: bool | None = None
    complete: bool | None = None
    abstained: bool = False
    decoy: bool = False
    verdict: Verdict
    claimed: Verdict
    downgrade: str = ""
    wrong_as_found: bool = False
    pieces: int = 0
    verified: int = 0
    mechanism: int = 0
    relevant: int = 0
    extra: int = 0
    confidence: float = 0.0
    brier: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    usd: float | None = 0.0


def score(report: Report, truth: Truth, grounds: Grounds, *, claims: Sequence[Conclusion] = ()) -> Score:
    """Compares a report with the truth. claims: the reports that the model tried, where the first is what it claimed itself."""
    first = report.causes[0] if report.causes else None
    right = first is not None and true(first, truth)
    claim = claims[0] if claims else report
    weaker = STRENGTH[report.verdict] < STRENGTH[claim.verdict]
    claimed_right = true(claim.causes[0], truth) if claim.causes else False
    mechanism = [item for item in report.evidence if item.verified and item.supports == "mechanism"] if _known(truth) else []
    confidence = first.confidence if first else 0.0
    usage = report.usage
    return Score(
        guilty=bool(truth.guilty),
        right=right,
        rank=next((number for number, commit in enumerate(answers(report), 1) if is_one(commit, truth.guilty)), None),
        answered=NOTHING if first is None else first.commit or NONE,
        category_right=first is not None and first.category == truth.category if truth.category else None,
        complete=all(any(is_one(cause.commit, (named,)) for cause in report.causes) for named in truth.guilty)
        if truth.guilty
        else None,
        abstained=first is None or first.commit is None,
        decoy=first is not None and is_one(first.commit, truth.decoys),
        verdict=report.verdict,
        claimed=claim.verdict,
        downgrade="" if not weaker else "wrong" if claimed_right else "right",
        wrong_as_found=report.verdict == "root_cause_found" and not right,
        pieces=len(report.evidence),
        verified=sum(item.verified for item in report.evidence),
        mechanism=len(mechanism),
        relevant=sum(relevant(item, truth, grounds) for item in mechanism),
        extra=sum(not true(cause, truth) for cause in report.causes[1:]) + sum(not item.verified for item in report.evidence),
        confidence=confidence,
        brier=brier(confidence, right),
        seconds=usage.seconds,
        tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens + usage.output_tokens,
        usd=usage.usd,
    )


def _known(truth: Truth) -> bool:
    """Whether the truth says enough to tell relevant evidence from other evidence."""
    return bool(truth.guilty or truth.culprits or truth.relevant)


def true(cause: Cause, truth: Truth) -> bool:
    """Whether a cause is one that the truth names: a guilty commit; or none, with the guilty change named if there is one."""
    if truth.guilty:
        return is_one(cause.commit, truth.guilty)
    if cause.commit is not None:
        return False
    said = _plain(f"{cause.statement} {cause.mechanism} {cause.service}")
    return not truth.culprits or any(_plain(name.rpartition(".")[2]) in said for name in truth.culprits)


def is_one(commit: str | None, named: Sequence[Named]) -> bool:
    """Whether an id, or the first seven digits or more of one, is that of a named commit."""
    ids = [id for one in named for id in (one.commit, *one.also)]
    said = (commit or "").lower()
    return len(said) >= 7 and any(id.startswith(said) or said.startswith(id) for id in ids)


def answers(report: Report) -> list[str | None]:
    """What the report answers, best first: the commits of its causes (None for a cause without one), then its other suspects."""
    named = [cause.commit for cause in report.causes]
    return list(dict.fromkeys([*named, *(suspect.commit for suspect in report.suspects)]))


def relevant(item: Evidence, truth: Truth, grounds: Grounds) -> bool:
    """Whether a verified piece is about what is true: a guilty commit, a file that it changed, a guilty change, a given text."""
    source = item.source
    if isinstance(source, CodeSource) and (is_one(source.commit, truth.guilty) or (source.path and source.path in grounds.files)):
        return True
    asked = source.command if isinstance(source, CommandSource) else getattr(source, "query", "")
    said = _plain(f"{item.quote} {asked}")
    return any(_plain(text) in said for text in (*truth.relevant, *(name.rpartition(".")[2] for name in truth.culprits)))


def _plain(text: str) -> str:
    """A text without what only spells a name differently: case, dashes, underscores, more than one blank."""
    return " ".join(re.sub(r"[-_.\s]+", " ", text).casefold().split())


class Odds(Data):
    """What one incident gives to those who look at no telemetry.

    right: the chance of an answer drawn from the eligible commits and `none`. at: of a guilty commit among 1, 3, 5 drawn ones.
    latest, service: the rank at which the two rules have a guilty commit; None where they have none of the five.
    """

    eligible: int
    right: float
    at: tuple[float, ...]
    latest: int | None
    service: int | None
    latest_decoy: bool = False
    service_decoy: bool = False


def odds(truth: Truth, grounds: Grounds) -> Odds:
    """Chance and the two rules for one incident. The rules never abstain."""
    number = max(grounds.eligible, len(truth.guilty))
    return Odds(
        eligible=number,
        right=max(1, len(truth.guilty)) / (number + 1),
        at=tuple(chance(number, len(truth.guilty), k) for k in DEPTHS),
        latest=_rank(grounds.latest, truth),
        service=_rank(grounds.service, truth),
        latest_decoy=any(is_one(commit, truth.decoys) for commit in grounds.latest[:1]),
        service_decoy=any(is_one(commit, truth.decoys) for commit in grounds.service[:1]),
    )


def _rank(commits: Sequence[str], truth: Truth) -> int | None:
    return next((number for number, commit in enumerate(commits, 1) if is_one(commit, truth.guilty)), None)
