"""The one judgement that all commands share which judge: made once, then read from the cache."""

from __future__ import annotations

from typing import Any

from _analysis import kept, suspects, telemetry
from _analysis.answers import brief, dependency_diff
from _analysis.answers import suspects as ranking
from _analysis.desk import Desk
from _analysis.git import git


def of(desk: Desk) -> dict[str, Any]:
    """The ranking, the brief and the upgrades, from the cache where nothing changed: every command that judges shares one
    judgement."""
    files = [p for p in (desk.root / "incident", desk.root / "memory", desk.root / "investigations") if p.is_dir()]
    inputs = [p for base in files for p in sorted(base.rglob("*")) if p.is_file()]
    inputs += telemetry.logs(desk) + telemetry.metrics(desk) + telemetry.traces(desk)
    refs = [git(repo, "for-each-ref") + git(repo, "rev-parse", "HEAD") for repo in desk.repos.values()]
    place = kept.place(desk, "judged", inputs, refs)
    if known := kept.load(place):
        return dict(known)
    verdict = suspects.judge(desk)
    if desk.left:
        desk.notes.insert(0, f"not all was looked at in time: {'; '.join(desk.left)}. The investigation does it.")
    answer = {
        "suspects": ranking.of(desk, verdict, 30),
        "brief": brief.of(desk, verdict),
        "dependencies": dependency_diff.of(desk, "", "", "", verdict, 30),
    }
    if not desk.left:
        kept.keep(place, answer)
    return answer
