"""What the embedded investigator makes of the analysis commands' answers: findings, a proposal, the conclusion. Not the order
of steps.

It claims a root cause only where one change stands far above all others, nothing else went live between it and the onset, and
a check by
time can be given; else it says `likely`, and `inconclusive` where nothing stands out.
"""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from typing import Any

from agent.models.known import Known, moment, rfc

FOUND = 0.88
LIKELY = 0.45
APART = 2.5
LEAST = 0.12
PROPOSE = 0.6
NEAR = timedelta(minutes=45)
DONE_BY = {
    "external": ("escalate", "Escalate to the provider, and fail over where there is another region or provider."),
    "infrastructure": ("escalate", "Renew the certificate or credential, or move off the machine; no rollback mends it."),
    "data": ("fix", "Take the input that is refused out of the way (skip, quarantine, dead-letter), and tell whoever sends it."),
    "capacity": ("scale", "Scale out or shed load; no change of ours is guilty."),
    "alert": ("alert", "Correct the alert: what it measures did not change."),
}


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
            lines.append({"claim": f"{_name(kind, what)} ({p:.0%})", "source": "suspects", "quote": ""})
    return [{**line, "hypothesis": ""} for line in lines]


def revert(known: Known) -> str:
    """A command that takes the guilty commit back in the working tree and says REVERTED, or "" where that is not justified."""
    if not known.options or known.options[0][1] != "commit" or known.options[0][0] < PROPOSE:
        return ""
    what = known.options[0][2]
    if what.get("package") or known.kind not in ("alert", "api"):
        return ""
    folder = shlex.quote(f"repos/{what['repo']}")
    commit = shlex.quote(what["commit"])
    git = f"git -C {folder}"
    return (
        f"{git} diff --quiet HEAD && {git} show --format= --binary {commit} > /tmp/guilty.patch "
        f"&& {git} apply --reverse --check /tmp/guilty.patch"
        f" && {git} apply --reverse /tmp/guilty.patch && {git} diff --stat && echo REVERTED"
    )


def proposal(known: Known) -> dict[str, Any]:
    """The arguments of the propose tool."""
    what = known.options[0][2]
    lines = [
        f"{_symptom(known)}",
        f"Since {known.answer.get('onset', '')}, after this went live at {what.get('service', 'the service')} "
        f"at {what.get('live', '')}.",
        f"This takes back {what['commit'][:12]} ({what['subject']}): {'; '.join(what['why'])}.",
    ]
    return {"repo": what["repo"], "title": f"Revert “{what['subject'][:60]}”", "body": "\n\n".join(lines)}


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
    if not options or options[0][0] < LEAST or float(known.answer.get("unknown", 0)) > options[0][0]:
        return _inconclusive(known)
    p, kind, what = options[0]
    cause = {"commit": _guilty, "none": _without, "change": _changed}[kind](known, what, p)
    evidence = [
        *_symptoms(known, what if kind == "none" else {}),
        *(_mechanism(what) if kind == "commit" else _signs(known, what)),
    ]
    shown = _shown(known, what) if kind == "commit" else []
    checks = [*shown, *(_checks(known, what) if kind in ("commit", "change") else [])]
    second = options[1][0] if len(options) > 1 else 0.0
    verdict = "likely" if p >= LIKELY or p >= max(LIKELY / 2, APART * second) else "inconclusive"
    if shown or (kind == "commit" and p >= FOUND and checks and _direct(what) and _alone(known, what)):
        verdict = "root_cause_found"
    if cause["category"] == "alert" and p >= LIKELY:
        verdict = "alert_unsound"
    return {
        "verdict": verdict,
        "summary": _summary(known, cause),
        "causes": [cause],
        "suspects": _suspects(known),
        "evidence": evidence,
        "checks": checks,
        "ruled_out": _ruled_out(known, what),
        "impact": _impact(known),
        "timeline": _timeline(known, what),
        "actions": _actions(known, kind, what, cause),
    }


def _guilty(known: Known, what: dict[str, Any], p: float) -> dict[str, Any]:
    delta = f"{what.get('kind', 'change')}: {what.get('what', what['subject'])}"
    where = f" in {what['path']}" if what.get("path") else ""
    return {
        "statement": f"Commit {what['commit'][:12]} ({what['subject']}), live{_at_service(what)} "
        f"since {what.get('live', '?')}: {delta}{where}.",
        "mechanism": f"{delta}{where}; then {_symptom(known)}",
        "category": _category(what),
        "service": what.get("service", known.answer.get("service", "")),
        "repo": what["repo"],
        "commit": what["commit"],
        "files": [what["path"]] if what.get("path") else [],
        "symbols": re.findall(r"[A-Za-z_]\w+(?=\s*\()", str(what.get("within", "")))[-1:],
        "confidence": round(p, 3),
    }


def _category(what: dict[str, Any]) -> str:
    if what.get("package") or what.get("kind") == "upgraded package":
        return "dependency"
    return "config" if re.search(r"\.(ya?ml|toml|ini|cfg|conf|properties|env|json|tf)$", str(what.get("path", ""))) else "code"


def _without(known: Known, what: dict[str, Any], p: float) -> dict[str, Any]:
    why = "; ".join(what["why"])
    return {
        "statement": f"No commit is guilty: {what['statement']}.",
        "mechanism": f"{why}; then {_symptom(known)}",
        "category": what["category"],
        "service": what.get("service") or known.answer.get("service", ""),
        "confidence": round(p, 3),
    }


def _changed(known: Known, what: dict[str, Any], p: float) -> dict[str, Any]:
    return {
        "statement": f"The {what['kind']} {what['name']} went from {what['from'] or '?'} to {what['to'] or '?'} at {what['at']}.",
        "mechanism": f"{'; '.join(what['why'])}; then {_symptom(known)}",
        "category": "config" if what["kind"] in ("flag", "config") else "infrastructure",
        "service": what.get("service") or known.answer.get("service", ""),
        "confidence": round(p, 3),
    }


def _symptom(known: Known) -> str:
    strongest = [*known.logs[:1], *known.metrics[:1]] or (known.answer.get("symptoms") or [])[:1]
    told = [f"{s['service']}: {s['text']}" + (f" {s['detail']}" if s.get("detail") else "") for s in strongest]
    return "; ".join(told) or "the alert fired"


def _symptoms(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """Evidence of what is wrong."""
    evidence = []
    shown = {str(s.get("where")): s for s in what.get("show") or ()}
    for symptom in known.logs[:3]:
        if str(symptom.get("where")) in shown:
            continue
        if item := _cited(known, symptom, "symptom"):
            evidence.append(item)
    for symptom in known.metrics[:2]:
        if item := _cited(known, symptom, "symptom"):
            evidence.append(item)
    return evidence


def _cited(known: Known, symptom: dict[str, Any], supports: str) -> dict[str, Any] | None:
    """A symptom as evidence: the line of a file, rows of a query, or a command whose output holds it."""
    claim = f"{symptom['service']}: {symptom['text']} since {symptom['onset']}"
    if symptom["kind"] == "metric":
        if not symptom.get("row"):
            return None
        service = f" --service {shlex.quote(symptom['service'])}" if symptom.get("service") else ""
        command = f"metric-shifts{service} --limit 100"
        return {"claim": claim, "supports": supports, "source": {"type": "command", "command": command}, "quote": symptom["row"]}
    quote = str(symptom.get("quote") or "")
    path, _, line = str(symptom.get("where") or "").rpartition(":")
    if symptom["kind"] != "log" or not path or len(re.sub(r"\W", "", quote)) < 8:
        return None
    if path.startswith("telemetry/queries/"):
        return _from_query(known, claim, supports, path, quote)
    source = {"type": "telemetry", "path": path, "start_line": int(line), "end_line": int(line)}
    return {"claim": claim, "supports": supports, "source": source, "quote": quote}


def _from_query(known: Known, claim: str, supports: str, path: str, quote: str) -> dict[str, Any] | None:
    asked = known.queries.get(path)
    return {"claim": claim, "supports": supports, "source": {"type": "query", **asked}, "quote": quote} if asked else None


def _mechanism(what: dict[str, Any]) -> list[dict[str, Any]]:
    """What it changes, quoted: from its file where lines came, from its diff where they went."""
    items = []
    for passage in what.get("quotes") or ():
        came = passage["side"] == "+"
        source = {"type": "code", "repo": what["repo"], "commit": what["commit"]}
        if came:
            source |= {"path": passage["path"], "start_line": passage["start"], "end_line": passage["end"]}
        does = f"{what['kind']}: {what['what']}" if what.get("what") else what["subject"]
        claim = f"{'It brings' if came else 'It takes away'} this in {passage['path']} ({does})"
        items.append({"claim": claim, "supports": "mechanism", "source": source, "quote": passage["text"]})
    return items


def _signs(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """What speaks for an explanation without a commit."""
    items = [_cited(known, symptom, "mechanism") for symptom in what.get("show") or ()]
    return [item for item in items if item]


def _checks(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """The strongest symptom is there after it went live and not before: the same command over two windows."""
    live, at, onset = (
        moment(what.get("live") or what.get("at")),
        known.at or moment(known.answer.get("alert")),
        moment(known.answer.get("onset")),
    )
    logs = [s for s in known.logs if int(s.get("count", 0)) >= 3]
    if not (live and at and onset and logs) or not timedelta(seconds=-60) <= onset - live <= NEAR:
        return []
    symptom = logs[0]
    literal = max(re.split(r"<\*>|['\"]", symptom["text"]), key=len).strip()
    if len(literal) < 8:
        return []
    end = at + timedelta(minutes=15)
    length = min(end - live, timedelta(hours=1))
    command = f"holds --log {shlex.quote(literal)}" + (
        f" --service {shlex.quote(symptom['service'])}" if symptom["service"] else ""
    )
    return [
        {
            "claim": f"“{literal}” is written only since {what.get('live') or what.get('at')}, when it went live",
            "command": command,
            **({"repo": what["repo"]} if what.get("repo") else {}),
            "with": {"label": "after it went live", "start": rfc(live), "end": rfc(end)},
            "without": {"label": "before", "start": rfc(live - length), "end": rfc(live)},
        }
    ]


def _shown(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """The call that fails with the commit as it was seen, and not with its parent."""
    found = known.reproduced
    if found.get("commit") != what["commit"] or not found.get("command"):
        return []
    return [
        {
            "claim": f"{found['call']} raises {found['raised']}, as it was seen, only with the commit",
            "command": found["command"],
            "repo": what["repo"],
            "with": {"label": "the commit", "ref": found["commit"]},
            "without": {"label": "its parent", "ref": found["parent"]},
        }
    ]


def _direct(what: dict[str, Any]) -> bool:
    """Whether more than time speaks for this one of all that came with it."""
    return bool(what.get("direct"))


def _alone(known: Known, what: dict[str, Any]) -> bool:
    """Whether nothing else that could have done it went live at the same time or between it and the onset."""
    live, onset = moment(what.get("live")), moment(known.answer.get("onset"))
    if not live or not onset:
        return False
    for p, kind, other in known.options[1:]:
        when = moment(other.get("live") or other.get("at"))
        if what["commit"] == other.get("through"):
            continue
        if kind == "none" and p > 0.05:
            return False
        if when and live - timedelta(minutes=1) <= when <= onset + timedelta(minutes=2) and p > 0.05:
            return False
    return True


def _suspects(known: Known) -> list[dict[str, Any]]:
    return [
        {
            "repo": s["repo"],
            "commit": s["commit"],
            "score": float(s["p"]),
            "why": "; ".join(s["why"])[:300],
            "service": s.get("service", ""),
        }
        for s in known.answer.get("suspects") or ()
    ]


def _ruled_out(known: Known, best: dict[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for p, kind, what in known.options[1:5]:
        if what is not best:
            lines.append(
                {"what": _name(kind, what), "why": f"{p:.0%} against {known.options[0][0]:.0%}: {'; '.join(what['why'])}"[:400]}
            )
    return lines


def _name(kind: str, what: dict[str, Any]) -> str:
    if kind == "commit":
        return f"commit {what['commit'][:12]} of {what['repo']} ({what['subject']})"
    return f"{what['kind']} {what['name']}" if kind == "change" else str(what["statement"])


def _at_service(what: dict[str, Any]) -> str:
    return f" at {what['service']}" if what.get("service") else ""


def _impact(known: Known) -> str:
    affected = ", ".join(known.brief.get("affected") or ()) or known.answer.get("service", "")
    told = "; ".join(f"{m['service']} {m['text']} {m['detail']}" for m in known.metrics[:3])
    return f"Affected: {affected}. {told}".strip()


def _timeline(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    moments = [(what.get("live") or what.get("at"), f"live{_at_service(what)}: {what.get('subject') or what.get('name')}")]
    moments.append((known.answer.get("onset"), "onset in the data"))
    moments += [(s.get("onset"), f"{s['service']}: {s['text']}") for s in (known.answer.get("symptoms") or ())[:5]]
    moments.append((known.answer.get("alert"), "the alert"))
    return [{"at": at, "what": text[:200]} for at, text in sorted({(a, t) for a, t in moments if a})]


def _actions(known: Known, kind: str, what: dict[str, Any], cause: dict[str, Any]) -> list[dict[str, Any]]:
    owner = str(known.brief.get("owner") or "")
    if kind == "none":
        action, told = DONE_BY.get(cause["category"], ("escalate", "Escalate."))
        return [{"kind": action, "what": told, "owner": owner}]
    if kind == "change":
        return [{"kind": "config", "what": f"Set {what['name']} back to {what['from'] or 'its old value'}.", "owner": owner}]
    if what.get("package"):
        return [{"kind": "pin", "what": f"Pin {what['package']} to the version before the upgrade.", "owner": owner}]
    version = f" (now {what['version']})" if what.get("version") else ""
    return [
        {
            "kind": "rollback",
            "what": f"Roll {what.get('service') or what['repo']}{version} back to what ran before "
            f"{what.get('live')}, or revert the commit.",
            "command": f"git -C {what['repo']} revert --no-edit {what['commit']}",
            "risk": "Whatever else that deployment brought goes back too.",
            "owner": owner,
        }
    ]


def _summary(known: Known, cause: dict[str, Any]) -> str:
    onset, alert = known.answer.get("onset", ""), known.answer.get("alert", "")
    text = f"{cause['statement']} Since {onset}: {_symptom(known)} (the alert is of {alert})."
    if known.reproduced.get("commit") == cause.get("commit") and cause.get("commit"):
        text += f" Reproduced: {known.reproduced['told']}."
    else:
        text += " This is from statistics alone."
    return text + (" A revert is proposed." if known.proposed else "")


def _inconclusive(known: Known) -> dict[str, Any]:
    options = known.options
    if not known.answer:
        summary = "Nothing could be analysed: the analysis commands gave no answer."
    else:
        best = f" The best guess is {_name(options[0][1], options[0][2])} at {options[0][0]:.0%}." if options else ""
        since = known.answer.get("onset") or "an unknown time"
        summary = f"No change on the desk explains it well enough. Since {since}: {_symptom(known)}.{best}"
    steps = [{"kind": "escalate", "what": str(known.brief["next"])}] if known.brief.get("next") else []
    notes = [{"what": "the input", "why": str(note)[:300]} for note in (known.answer.get("notes") or ())[:5]]
    return {
        "verdict": "inconclusive",
        "summary": summary,
        "suspects": _suspects(known),
        "evidence": _symptoms(known, {}),
        "ruled_out": notes,
        "impact": _impact(known),
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
    """Without what the host could not verify, and one step less sure."""
    told = "\n".join(objections)
    checks = [check for check in conclusion.get("checks", ()) if check["claim"][:60] not in told]
    evidence = [item for item in conclusion.get("evidence", ()) if item["claim"][:60] not in told]
    return {**conclusion, "checks": checks, "evidence": evidence, "verdict": _below(conclusion["verdict"])}


def _below(verdict: str) -> str:
    return {"root_cause_found": "likely"}.get(verdict, verdict)
