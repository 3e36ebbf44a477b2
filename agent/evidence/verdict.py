"""Which verdict the verified evidence and the checks can carry, and what the model should mend. It runs and reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from agent.core.data import Data
from agent.core.report import Cause, Check, CodeSource, CommandSource, Conclusion, Evidence, TelemetrySource, Verdict
from agent.evidence.experiments import Outcome
from agent.evidence.ties import Tie

CONFIDENCE: dict[Verdict, float] = {"root_cause_found": 0.99, "alert_unsound": 0.99, "likely": 0.7, "inconclusive": 0.3}
SLACK = timedelta(minutes=10)


class Suspect(Data):
    """What the host knows of the first cause's commit.

    problem: it does not exist, or it cannot have done it; "" if nothing speaks against it. unknown: no such commit.
    files: what it changed. tie: names that it shares with the verified telemetry. live: since when it was deployed, as far as
    the deployments say, else made; recorded: whether they say it. foremost: no other commit that was deployed shares as much, and
    the host's own analysis has none before it, if it has an opinion. plausible: this analysis has nothing far above it, or no
    opinion. first: this analysis has it far above all else, and what it
    does is of the kind that brings such trouble; of a cause without a commit, a cause of its kind. rival: what else this analysis
    has far above all others.
    """

    commit: str = ""
    problem: str = ""
    unknown: bool = False
    files: tuple[str, ...] = ()
    tie: Tie = Tie()
    live: datetime | None = None
    recorded: bool = False
    foremost: bool = False
    plausible: bool = False
    first: bool = False
    rival: str = ""


class Judgement(Data):
    """What became of a conclusion. objections: for the model, each with what to do."""

    conclusion: Conclusion
    downgraded: str = ""
    objections: tuple[str, ...] = ()


def rule(
    conclusion: Conclusion, outcomes: Sequence[Outcome], suspect: Suspect, *, alert_evidence: bool
) -> tuple[Verdict, list[str]]:
    """The strongest verdict that holds, at most the one claimed, and why it is not the one claimed."""
    verified = [item for item in conclusion.evidence if item.verified]
    if conclusion.verdict == "inconclusive":
        return "inconclusive", []
    if conclusion.verdict == "alert_unsound":
        lacking = [] if alert_evidence else ["no verified evidence is about the alert's own data (its payload, its series)"]
        return ("alert_unsound" if not lacking else "likely" if verified and conclusion.causes else "inconclusive"), lacking
    if not conclusion.causes:
        return "inconclusive", ["it names no cause"]
    if suspect.unknown:
        return "inconclusive", [suspect.problem]
    if not verified:
        return "inconclusive", ["no evidence could be verified"]
    if conclusion.verdict == "likely":
        return "likely", []
    lacking = _lacking(conclusion, conclusion.causes[0], outcomes, suspect)
    return ("likely" if lacking else "root_cause_found"), lacking


def _lacking(conclusion: Conclusion, cause: Cause, outcomes: Sequence[Outcome], suspect: Suspect) -> list[str]:
    """What root_cause_found needs and this conclusion has not."""
    verified = [item for item in conclusion.evidence if item.verified]
    lacking = [suspect.problem] if suspect.problem else []
    if suspect.rival and not suspect.commit:
        lacking.append(
            f"it says that no commit is guilty, and the host's own analysis finds {suspect.rival} far more probable than anything"
            " else: look at it, and at what it changed"
        )
    if not any(item.supports == "symptom" for item in verified):
        lacking.append("no verified evidence of the symptom")
    if not any(item.supports == "mechanism" and _is_about(item, cause, suspect) for item in verified):
        of = f" of what commit {suspect.commit[:12]} changed" if suspect.commit else ""
        lacking.append(f"no verified evidence of the mechanism{of}")
    if not any(outcome.problem == "" for outcome in outcomes):
        lacking.append("no check tells the suspect from its absence")
    elif not any(supports(outcome, suspect) for outcome in outcomes):
        lacking.append(_why_not(outcomes, suspect))
    return lacking


def supports(outcome: Outcome, suspect: Suspect) -> bool:
    """Whether a check that discriminates speaks for this suspect and not for any other.

    One that runs the code has to make happen what was observed; where that is nothing that says by itself that something is wrong
    (a plain line, a metric's row), the host's own analysis must not find something else far more probable. Or else it has to call
    functions, and the commit has to stand out among all that went live with it. One that looks at data says when it began:
    nothing but the commit can say which one it was.
    Where no commit is blamed, one that compares instances does, for they run the same code; one that says when it began does only
    where the host's own analysis finds such a cause.
    """
    if outcome.problem:
        return False
    if not suspect.commit:
        return outcome.kind == "instance" or (outcome.kind != "commit" and suspect.first)
    stands_out = suspect.first or (suspect.tie.strong and suspect.foremost and not suspect.rival)
    if outcome.kind == "commit":
        shown = outcome.reproduces and (suspect.plausible or not outcome.quietly)
        return outcome.executes and (shown or (outcome.calls and stands_out))
    return stands_out and in_time(outcome, suspect)


def in_time(outcome: Outcome, suspect: Suspect) -> bool:
    """Whether the windows of a check by time lie on both sides of the suspect's going live."""
    if suspect.live is None or outcome.start is None or outcome.until is None:
        return True
    before = outcome.until <= suspect.live + SLACK or not suspect.recorded
    return outcome.start >= suspect.live - SLACK and before


def _why_not(outcomes: Sequence[Outcome], suspect: Suspect) -> str:
    good = [outcome for outcome in outcomes if not outcome.problem]
    short = suspect.commit[:12]
    if not suspect.commit and any(o.kind == "commit" for o in good):
        return "the check compares commits, and the report says that none is guilty"
    if not suspect.commit:
        return (
            "the check shows when it began, and a commit that went live then would pass it too: compare an instance, region or"
            " input that has the trouble with one that runs the same code and has not. A check by time counts only where the"
            " host's own analysis finds such a cause (`suspects` lists explanations with their categories)"
        )
    if any(o.kind != "commit" and not in_time(o, suspect) for o in good):
        return f"the check's windows do not lie on both sides of the moment when commit {short} went live ({suspect.live})"
    if any(o.executes and o.quietly and o.reproduces for o in good):
        return (
            f"what the check shows of commit {short} is seen only in lines that are written when all is well, and the host's own"
            " analysis finds something else far more probable: quote what says that something is wrong, and show that"
        )
    if any(o.executes for o in good):
        return (
            f"the check shows that commit {short} changed something, not that this is what was observed: with the commit it"
            " raises no error of the verified symptom, slows nothing down and prints nothing of it. Have it call the code as it"
            " was called then, let the error out or print what comes of it, and quote the telemetry that has the same"
        )
    if any(o.kind == "commit" for o in good):
        return "the check reads the change itself instead of running the code, which any commit would pass"
    if suspect.rival:
        return (
            f"the check shows when it began, not that commit {short} did it, and the host's own analysis finds {suspect.rival}"
            " far more probable: run the code at the commit and at its parent, or look at that one"
        )
    return (
        f"the check shows when it began, not that commit {short} did it: other commits went live too, the verified telemetry"
        " names nothing that only this one changed, and the host's own analysis does not put it far before all others for what it"
        " does"
    )


def _is_about(item: Evidence, cause: Cause, suspect: Suspect) -> bool:
    """Whether evidence of the mechanism is about this cause: for a commit, its diff or a file that it changed."""
    if not suspect.commit:
        return True
    source = item.source
    if not isinstance(source, CodeSource) or source.repo != cause.repo:
        return False
    return source.commit == suspect.commit or (source.path is not None and source.path in suspect.files)


def about_alert(item: Evidence, alert_words: set[str]) -> bool:
    """Whether evidence is about the alert's own data: its payload, or telemetry that its words name."""
    if isinstance(item.source, CodeSource) or not item.verified:
        return False
    if isinstance(item.source, TelemetrySource) and item.source.path.startswith("incident/alert"):
        return True
    asked = item.source.command if isinstance(item.source, CommandSource) else getattr(item.source, "query", "")
    text = f"{item.quote} {asked}".lower()
    return sum(word in text for word in alert_words) >= 2


def capped(causes: Sequence[Cause], verdict: Verdict, *, suspect: Suspect, shown: Sequence[bool]) -> tuple[Cause, ...]:
    """The causes with no more confidence than the verdict allows, and than `likely` does where no check speaks for them. shown:
    of those after the first, whether one does."""
    limit = 0.3 if suspect.problem else CONFIDENCE[verdict]
    limits = (limit, *(limit if one else min(limit, CONFIDENCE["likely"]) for one in shown))
    return tuple(
        cause.model_copy(update={"confidence": min(cause.confidence, most)}) for cause, most in zip(causes, limits, strict=False)
    )


def objections(conclusion: Conclusion, checks: Sequence[Check], verdict: Verdict, lacking: Sequence[str]) -> tuple[str, ...]:
    """What the model should mend, most important first."""
    found = []
    if verdict != conclusion.verdict:
        found.append(f"The verdict {conclusion.verdict} does not stand; it would become {verdict}: {'; '.join(lacking)}.")
    for number, item in enumerate(conclusion.evidence, 1):
        if not item.verified:
            found.append(f"Evidence {number} ({item.claim[:80]!r}) is not verified: {item.problem}.")
    for number, check in enumerate(checks, 1):
        if not check.discriminates:
            found.append(f"Check {number} ({check.claim[:80]!r}) does not discriminate: {check.outcome}.")
    return tuple(found)
