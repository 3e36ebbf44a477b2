"""What the embedded investigator has learned so far, from the first message and the commands' answers. It decides nothing."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

SHOWN = 0.96


@dataclass
class Known:
    """What has been learned so far."""

    first: str
    later: str = ""
    answer: dict[str, Any] = field(default_factory=dict)
    brief: dict[str, Any] = field(default_factory=dict)
    recalled: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    queries: dict[str, dict[str, str]] = field(default_factory=dict)
    reproduced: dict[str, Any] = field(default_factory=dict)
    proposal: dict[str, Any] = field(default_factory=dict)
    proposed: bool = False

    @property
    def kind(self) -> str:
        """The door: alert, schedule, chat or api."""
        match = re.search(r"^- door: (\w+)", self.first, re.MULTILINE)
        return match[1] if match else "alert"

    @property
    def asked(self) -> str:
        """What a person or a plan asks, or ""."""
        match = re.search(r"^## Asked\n+(.*?)(?=\n## |\Z)", self.first, re.MULTILINE | re.DOTALL)
        return match[1].strip() if match else ""

    @property
    def at(self) -> datetime | None:
        """When it began, as reported."""
        match = re.search(r"^- began \(as reported\): (\S+)", self.first, re.MULTILINE)
        return moment(match[1]) if match else None

    def look(self, answer: dict[str, Any]) -> None:
        """Takes a ranking in."""
        if answer:
            self.answer = answer

    def queried(self, heads: str) -> None:
        """Takes in what was asked of sources: lines of `path:{"connector": ..., "query": ..., "start": ..., "end": ...`."""
        for line in heads.splitlines():
            path, _, head = line.partition(":")
            with suppress(ValueError):
                self.queries[path] = json.loads(head + "}")

    @property
    def options(self) -> list[tuple[float, str, dict[str, Any]]]:
        """All that may be the cause, likeliest first: (probability, commit | none | change, what). A commit with which a call
        fails
        as it was seen, and without which it does not, stands above all.
        """
        found = [(float(s["p"]), "commit", s) for s in self.answer.get("suspects") or ()]
        found += [(float(e["p"]), "none", e) for e in self.answer.get("explanations") or ()]
        found += [(float(f["p"]), "change", f) for f in self.answer.get("flips") or ()]
        guilty = self.reproduced.get("commit")
        shown = [o for o in found if guilty and o[1] == "commit" and o[2]["commit"] == guilty]
        if shown or self.bisected:
            others = (option for option in found if option not in shown)
            rest = [(p * (1 - SHOWN), kind, {**what, "whole": 0.0}) for p, kind, what in others]
            p, _, what = shown[0] if shown else (0.0, "commit", {})
            least = float(self.bisected.get("p", SHOWN))
            found = [(max(least, p), "commit", {**self.bisected, **what, **_sure(self.bisected)}), *rest]
        return sorted(found, key=lambda o: (-weight(o), -o[0]))

    @property
    def bisected(self) -> dict[str, Any]:
        """The commit that was found by halving a package's history, described like a suspect; {} where none was."""
        found = self.reproduced.get("suspect")
        return found if isinstance(found, dict) else {}

    @property
    def suspected(self) -> bool:
        """Whether a commit is a suspect at all."""
        return any(float(s["p"]) > 0.03 for s in self.answer.get("suspects") or ())

    @property
    def second(self) -> dict[str, Any]:
        """Trouble that may have a second cause, with the commit to look at; {} where there is none."""
        found = self.answer.get("later")
        return found if isinstance(found, dict) else {}

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [s for s in self.answer.get("symptoms") or () if s.get("kind") == "log"]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [s for s in self.answer.get("symptoms") or () if s.get("kind") == "metric"]


def _sure(found: dict[str, Any]) -> dict[str, Any]:
    """Whether halving a history, where that was done, found a commit that fits."""
    return {"fits": found["fits"]} if "fits" in found else {}


def weight(option: tuple[float, str, dict[str, Any]]) -> float:
    """How likely an option is, or what it came with: one commit of an upgrade may be uncertain where the upgrade is not."""
    p, _, what = option
    return max(p, float(what.get("whole") or 0.0))


def moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def rfc(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
