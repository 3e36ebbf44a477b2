"""What the embedded investigator gives as evidence, and the checks that tell a suspect from its absence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

from agent.models.known import Known, moment, rfc

NEAR = timedelta(hours=2)
MOST = 2
"""Checks by time at most."""


def symptoms(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """Evidence of what is wrong."""
    shown = {str(s.get("where")) for s in what.get("show") or ()}
    logs = known.logs[:3]
    others = [s for s in logs if str(s.get("where")) not in shown]
    cited = (_cited(known, symptom, "symptom") for symptom in (*(others or logs), *known.metrics[:2]))
    return [item for item in cited if item]


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
    if symptom["kind"] == "span" and symptom.get("where") and len(re.sub(r"\W", "", quote)) >= 8:
        return {"claim": claim, "supports": supports, "source": {"type": "telemetry", "path": symptom["where"]}, "quote": quote}
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
    """What speaks for an explanation without a commit: what shows it, and the code that reads what was changed."""
    items = [_cited(known, symptom, "mechanism") for symptom in what.get("show") or ()]
    for reader in what.get("readers") or ():
        place = {"path": reader["path"], "start_line": reader["line"], "end_line": reader["line"]}
        source = {"type": "code", "repo": reader["repo"], "commit": reader["commit"], **place}
        claim = f"{reader['path']} reads {what['name']}"
        items.append({"claim": claim, "supports": "mechanism", "source": source, "quote": str(reader["text"]).strip()})
    return [item for item in items if item and len(re.sub(r"\W", "", item["quote"])) >= 8]


def checks(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """The strongest symptoms are there after it went live and not before: each the same command over two windows. What did not go
    live is taken to have begun a minute before the first symptom that shows it.
    """
    at = known.at or moment(known.answer.get("alert"))
    live = moment(what.get("live") or what.get("at")) or _began(known, what)
    if not (live and at) or live > at:
        return []
    end = at + timedelta(minutes=15)
    before = {"label": "before", "start": rfc(live - min(end - live, timedelta(hours=1))), "end": rfc(live)}
    found = []
    kinds = zip_longest(_lines(known), _levels(known))  # one of each first: what one lacks, the other may have
    for told, command, onset in (one for both in kinds for one in both if one):
        if not timedelta(seconds=-60) <= onset - live <= NEAR:
            continue
        start = max(live, onset) if command.startswith("holds --metric") else live
        found.append(
            {
                "claim": f"{told} only since {rfc(live)}, when it {'began' if 'show' in what else 'went live'}",
                "command": command,
                **({"repo": what["repo"]} if what.get("repo") else {}),
                "with": {"label": "since then", "start": rfc(start), "end": rfc(end)},
                "without": before,
            }
        )
    return found[:MOST]


def _began(known: Known, what: dict[str, Any]) -> datetime | None:
    shown = [onset for s in what.get("show") or () if (onset := moment(s.get("onset")))]
    first = min(shown, default=None) or moment(known.answer.get("onset"))
    return first - timedelta(minutes=1) if first else None


def _lines(known: Known) -> Iterator[tuple[str, str, datetime]]:
    """Lines that tell of the trouble: in words, as a command that finds them, and since when they are written."""
    for symptom in known.logs:
        literal = max(symptom["text"].split("<*>"), key=len).strip()
        onset = moment(symptom.get("onset"))
        if int(symptom.get("count", 0)) >= 3 and onset and len(literal) >= 8:
            yield f"“{literal}” is written", f"holds --log {shlex.quote(literal)}{_service(symptom)}", onset


def _levels(known: Known) -> Iterator[tuple[str, str, datetime]]:
    """Metrics that moved: in words, as a command that looks at their level, and since when."""
    for symptom in known.metrics:
        moved = re.match(r"(\S+) -> (\S+) ", str(symptom.get("detail", "")))
        onset = moment(symptom.get("onset"))
        if not (moved and onset and symptom.get("service")):
            continue
        name, old, new = str(symptom["text"]).rsplit(" ", 1)[0], float(moved[1]), float(moved[2])
        level = f"{old + (new - old) / 3:.4g}"
        way, told = ("--above", "above") if new > old else ("--below", "below")
        command = f"holds --metric {shlex.quote(name)}{_service(symptom)} {way} {level}"
        yield f"{name} of {symptom['service']} is {told} {level}", command, onset


def _service(symptom: dict[str, Any]) -> str:
    return f" --service {shlex.quote(symptom['service'])}" if symptom.get("service") else ""


def reproduction(known: Known, what: dict[str, Any]) -> list[dict[str, Any]]:
    """The call that does with the commit what was seen, and not with its parent."""
    found = known.reproduced
    if found.get("commit") != what["commit"] or not found.get("command"):
        return []
    return [
        {
            "claim": f"{found['call']} {found.get('does', 'fails')}, as it was seen, only with the commit",
            "command": found["command"],
            "repo": what["repo"],
            "with": {"label": "the commit", "ref": found["commit"]},
            "without": {"label": "its parent", "ref": found["parent"]},
        }
    ]
