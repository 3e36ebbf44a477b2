"""How the embedded investigator words a cause: what it states, how it went on, and what to do. It decides nothing."""

from __future__ import annotations

import re
from typing import Any

from agent.models.known import Known

DONE_BY = {
    "external": ("escalate", "Escalate to the provider, and fail over where there is another region or provider."),
    "infrastructure": ("escalate", "Renew the certificate or credential, or move off the machine; no rollback mends it."),
    "data": ("fix", "Take the input that is refused out of the way (skip, quarantine, dead-letter), and tell whoever sends it."),
    "capacity": ("scale", "Scale out or shed load; no change of ours is guilty."),
    "alert": ("alert", "Correct the alert: what it measures did not change."),
}


def guilty(known: Known, what: dict[str, Any], p: float) -> dict[str, Any]:
    """A commit as the cause. Where no call shows it, its confidence is what the analysis has, not its share of the odds."""
    shown = known.reproduced.get("commit") == what["commit"]
    delta = f"{what.get('kind', 'change')}: {what.get('what', what['subject'])}"
    where = f" in {what['path']}" if what.get("path") else ""
    brought = f" It came with the upgrade of {what['package']} by {what['carrier']}." if what.get("carrier") else ""
    return {
        "statement": f"Commit {what['commit'][:12]} ({what['subject']}), live{_at_service(what)} "
        f"since {what.get('live', '?')}: {delta}{where}.{brought}",
        "mechanism": f"{delta}{where}; then {symptom(known)}",
        "category": _category(what),
        "service": what.get("service", known.answer.get("service", "")),
        "repo": what["repo"],
        "commit": what["commit"],
        "files": [what["path"]] if what.get("path") else [],
        "symbols": re.findall(r"[A-Za-z_]\w+(?=\s*\()", str(what.get("within", "")))[-1:],
        "confidence": round(p if shown else min(p, float(what.get("confidence", p))), 3),
    }


def _category(what: dict[str, Any]) -> str:
    if what.get("package") or what.get("kind") == "upgraded package":
        return "dependency"
    return "config" if re.search(r"\.(ya?ml|toml|ini|cfg|conf|properties|env|json|tf)$", str(what.get("path", ""))) else "code"


def without(known: Known, what: dict[str, Any], p: float) -> dict[str, Any]:
    """A cause without a guilty commit."""
    why = "; ".join(what["why"])
    return {
        "statement": f"No commit is guilty: {what['statement']}.",
        "mechanism": f"{why}; then {symptom(known)}",
        "category": what["category"],
        "service": what.get("service") or known.answer.get("service", ""),
        "confidence": round(p, 3),
    }


def changed(known: Known, what: dict[str, Any], p: float) -> dict[str, Any]:
    """A flag or another change as the cause."""
    return {
        "statement": f"The {what['kind']} {what['name']} went from {what['from'] or '?'} to {what['to'] or '?'} at {what['at']}.",
        "mechanism": f"{'; '.join(what['why'])}; then {symptom(known)}",
        "category": "config" if what["kind"] in ("flag", "config") else "infrastructure",
        "service": what.get("service") or known.answer.get("service", ""),
        "confidence": round(p, 3),
    }


def symptom(known: Known) -> str:
    """The strongest symptom, in words."""
    strongest = [*known.logs[:1], *known.metrics[:1]] or (known.answer.get("symptoms") or [])[:1]
    told = [f"{s['service']}: {s['text']}" + (f" {s['detail']}" if s.get("detail") else "") for s in strongest]
    return "; ".join(told) or "the alert fired"


def name_of(kind: str, what: dict[str, Any]) -> str:
    """An option in a few words."""
    if kind == "commit":
        return f"commit {what['commit'][:12]} of {what['repo']} ({what['subject']})"
    return f"{what['kind']} {what['name']}" if kind == "change" else str(what["statement"])


def _at_service(what: dict[str, Any]) -> str:
    return f" at {what['service']}" if what.get("service") else ""


def impact(known: Known) -> str:
    """What is affected, and how much."""
    affected = ", ".join(known.brief.get("affected") or ()) or known.answer.get("service", "")
    told = "; ".join(f"{m['service']} {m['text']} {m['detail']}" for m in known.metrics[:3])
    return f"Affected: {affected}. {told}".strip()


def timeline(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """When what happened, in order."""
    moments = [(what.get("live") or what.get("at"), f"live{_at_service(what)}: {what.get('subject') or what.get('name')}")]
    moments.append((known.answer.get("onset"), "onset in the data"))
    moments += [(s.get("onset"), f"{s['service']}: {s['text']}") for s in (known.answer.get("symptoms") or ())[:5]]
    moments.append((known.answer.get("alert"), "the alert"))
    return [{"at": at, "what": text[:200]} for at, text in sorted({(a, t) for a, t in moments if a})]


def actions(known: Known, kind: str, what: dict[str, Any], cause: dict[str, Any]) -> list[dict[str, Any]]:
    """What to do now, and what to look at where that may not be all."""
    return [*_remedy(known, kind, what, cause), *([_second(known.second)] if known.second else [])]


def _second(other: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "escalate",
        "what": f"If {other['symptom']['service']}: {other['symptom']['text']} goes on: look at {other['subject']!r}, "
        f"live since {other['live']}. It may be a second cause.",
        "command": f"git -C {other['repo']} show {other['commit']}",
    }


def _remedy(known: Known, kind: str, what: dict[str, Any], cause: dict[str, Any]) -> list[dict[str, Any]]:
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


def summary(known: Known, cause: dict[str, Any]) -> str:
    """The whole of it in three sentences."""
    onset, alert = known.answer.get("onset", ""), known.answer.get("alert", "")
    text = f"{cause['statement']} Since {onset}: {symptom(known)} (the alert is of {alert})."
    if known.reproduced.get("commit") == cause.get("commit") and cause.get("commit"):
        text += f" Reproduced: {known.reproduced['told']}."
    else:
        text += " This is from statistics alone."
    if other := known.second:
        seen = other["symptom"]
        text += (
            f" Perhaps not all of it: {seen['service']}: {seen['text']} began only at {seen['onset']}, after the deployment of "
            f"{other['live']}, with {other['repo']}@{other['commit'][:12]} ({other['subject']})."
        )
    return text + (" A revert is proposed." if known.proposed else "")
