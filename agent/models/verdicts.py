"""What the embedded investigator makes of the analysis commands' answers: findings on the way, and the conclusion.

It claims a root cause only where a call tells the commit from its parent as was seen, or where one cause stands far above all
others, a commit by what it does and not by its time and place alone, and a check by time can be given; else it says `likely`, and
`inconclusive` where nothing stands out. How it words a cause is in `statements.py`, its evidence and checks in `proofs.py`, the
order of steps in `statistical.py`.
"""

from __future__ import annotations

from typing import Any

from agent.models import proofs, statements
from agent.models.known import Known, weight

FOUND = {"commit": (0.7, 4.0), "change": (0.8, 8.0), "none": (0.8, 8.0)}
"""How likely a cause of that kind has to be that a check by time may carry, and how many times as likely as the next. That no
commit did it is easily wrong where one comes near.
"""
MANY, SURE = 25, (0.8, 6.0)
"""With so many others live at once, how likely a commit has to be that does not bring the failing line or its
text, and how many times as likely as the next."""
CHECKED = 0.85
"""The least confidence in such a cause; where its check does not hold, the host takes it back."""
LIKELY = 0.45
APART = 2.5
LEAST = 0.12


def findings(known: Known) -> list[dict[str, Any]]:
    """The ledger's lines: the symptom and the likeliest cause."""
    lines = []
    for symptom in (known.answer.get("symptoms") or ())[:2]:
        claim = f"{symptom['service']}: {symptom['text']} since {symptom['onset']}"
        lines.append(
            {"claim": claim, "source": symptom.get("where") or "telemetry", "quote": str(symptom.get("quote") or "")[:1000]}
        )
    for p, kind, what in known.options[:1]:
        if kind == "commit":
            claim = f"commit {what['commit'][:12]} of {what['repo']} is the likeliest cause ({p:.0%}): {'; '.join(what['why'])}"
            lines.append(
                {
                    "claim": claim,
                    "source": f"{what['repo']}@{what['commit']}:{what.get('path', '')}",
                    "quote": str(what.get("text", "")),
                }
            )
        else:
            lines.append({"claim": f"{statements.name_of(kind, what)} ({p:.0%})", "source": "suspects", "quote": ""})
    return [{**line, "hypothesis": ""} for line in lines]


def conclude(known: Known, objections: list[str], refused: list[str]) -> dict[str, Any]:
    """The arguments of the report tool. Each objection of the host makes it weaker; a refused call makes it simpler."""
    if known.kind in ("chat", "schedule") and not known.answer.get("symptoms"):
        return _answer(known)
    conclusion = _conclusion(known)
    if objections:
        conclusion = _weaker(conclusion, objections)
    if refused:
        conclusion = {**conclusion, "evidence": [], "checks": [], "timeline": [], "verdict": _below(conclusion["verdict"])}
    return conclusion


def _conclusion(known: Known) -> dict[str, Any]:
    options = known.options
    if not options or weight(options[0]) < LEAST or float(known.answer.get("unknown", 0)) > weight(options[0]):
        return _inconclusive(known)
    p, kind, what = options[0]
    cause = {"commit": statements.guilty, "none": statements.without, "change": statements.changed}[kind](known, what, p)
    evidence = [
        *proofs.symptoms(known, what if kind == "none" else {}),
        *(proofs.mechanism(what) if kind == "commit" else proofs.signs(known, what)),
    ]
    shown = proofs.reproduction(known, what) if kind == "commit" else []
    checks = [*shown, *proofs.checks(known, what)][: proofs.MOST]
    second = next((other for other, _, rival in options[1:] if not _same(what, rival)), 0.0)
    verdict = "likely" if weight(options[0]) >= LIKELY or p >= max(LIKELY / 2, APART * second) else "inconclusive"
    if shown or (checks and _stands_out(p, second, kind, what)):
        verdict = "root_cause_found"
        cause = {**cause, "confidence": max(cause["confidence"], CHECKED)}
    if cause["category"] == "alert" and p >= LIKELY:
        verdict = "alert_unsound"
    return {
        "verdict": verdict,
        "summary": statements.summary(known, cause),
        "causes": [cause],
        "suspects": _suspects(known),
        "evidence": evidence,
        "checks": checks,
        "ruled_out": _ruled_out(known, what),
        "impact": statements.impact(known),
        "timeline": statements.timeline(known, what),
        "actions": statements.actions(known, kind, what, cause),
    }


def _stands_out(p: float, second: float, kind: str, what: dict[str, Any]) -> bool:
    """Whether a check by time may carry a cause: it is far likelier than all else, and a commit fits by what it does. Such a
    check cannot tell a commit from the others that went live with it: among many, it has to bring the failure itself, or be
    still likelier.
    """
    crowd = kind == "commit" and int(what.get("beside") or 0) >= MANY and not what.get("direct")
    least, times = SURE if crowd else FOUND[kind]
    return p >= max(least, times * second) and (kind != "commit" or bool(what.get("fits")))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether one of two options only brought the other: then both are one cause."""
    return bool(one.get("commit") and other.get("commit")) and (
        one.get("through") == other["commit"] or other.get("through") == one["commit"]
    )


def _suspects(known: Known) -> list[dict[str, Any]]:
    more = [{"repo": repo, "commit": commit, "score": float(p)} for repo, commit, p in known.answer.get("more") or ()]
    rows = [
        {
            "repo": s["repo"],
            "commit": s["commit"],
            "score": float(s["p"]),
            "why": "; ".join(s["why"])[:300],
            "service": s.get("service", ""),
        }
        for s in known.answer.get("suspects") or ()
    ] + more
    found = known.bisected.get("commit")
    if not found:
        return rows
    score = float(known.bisected["p"])
    first = [{**row, "score": score} for row in rows if row["commit"] == found]
    first = first or [
        {"repo": known.bisected["repo"], "commit": found, "score": score, "why": str(known.reproduced.get("told", ""))[:300]}
    ]
    return [*first, *(row for row in rows if row["commit"] != found)]


def _ruled_out(known: Known, best: dict[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for p, kind, what in known.options[1:5]:
        if what is not best:
            lines.append(
                {
                    "what": statements.name_of(kind, what),
                    "why": f"{p:.0%} against {known.options[0][0]:.0%}: {'; '.join(what['why'])}"[:400],
                }
            )
    return lines


def _inconclusive(known: Known) -> dict[str, Any]:
    options = known.options
    if not known.answer:
        summary = "Nothing could be analysed: the analysis commands gave no answer."
    else:
        best = f" The best guess is {statements.name_of(options[0][1], options[0][2])} at {options[0][0]:.0%}." if options else ""
        since = known.answer.get("onset") or "an unknown time"
        summary = f"No change on the desk explains it well enough. Since {since}: {statements.symptom(known)}.{best}"
    steps = [{"kind": "escalate", "what": str(known.brief["next"])}] if known.brief.get("next") else []
    notes = [{"what": "the input", "why": str(note)[:300]} for note in (known.answer.get("notes") or ())[:5]]
    return {
        "verdict": "inconclusive",
        "summary": summary,
        "suspects": _suspects(known),
        "evidence": proofs.symptoms(known, {}),
        "ruled_out": notes,
        "impact": statements.impact(known),
        "actions": steps,
    }


def _answer(known: Known) -> dict[str, Any]:
    """An answer to a question, from memory, earlier investigations and what changed."""
    rows = known.recalled.get("rows") or []
    told = [f"{row['where']}:\n{row['text']}" for row in rows[:4]]
    changed = [line for line in known.brief.get("changed") or () if not line.startswith("nothing")]
    parts = (
        ["What is on the desk about this:", *told]
        if told
        else ["Nothing in memory, earlier investigations or runbooks speaks of this."]
    )
    if changed:
        parts += ["What changed lately:", *(f"- {line}" for line in changed)]
    parts.append("This was looked up without a language model; it quotes, it does not reason.")
    return {"verdict": "inconclusive", "summary": "\n\n".join(parts), "suspects": _suspects(known)[:3]}


def _weaker(conclusion: dict[str, Any], objections: list[str]) -> dict[str, Any]:
    """Without what the host could not verify, and one step less sure where the verdict does not stand."""
    told = "\n".join(objections)
    checks = [check for check in conclusion.get("checks", ()) if repr(check["claim"][:80]) not in told]
    evidence = [item for item in conclusion.get("evidence", ()) if repr(item["claim"][:80]) not in told]
    verdict = _below(conclusion["verdict"]) if "does not stand" in told or not checks else conclusion["verdict"]
    return {**conclusion, "checks": checks, "evidence": evidence, "verdict": verdict}


def _below(verdict: str) -> str:
    return {"root_cause_found": "likely"}.get(verdict, verdict)
