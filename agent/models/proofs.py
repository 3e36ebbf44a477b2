"""What the embedded investigator gives as evidence, and the checks that tell a suspect from its absence."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from typing import Any

from agent.models.known import Known, moment, rfc

NEAR = timedelta(minutes=45)


def symptoms(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
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


def mechanism(what: dict[str, Any]) -> list[dict[str, Any]]:
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


def signs(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """What speaks for an explanation without a commit."""
    items = [_cited(known, symptom, "mechanism") for symptom in what.get("show") or ()]
    return [item for item in items if item]


def checks(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
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


def reproduction(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
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
