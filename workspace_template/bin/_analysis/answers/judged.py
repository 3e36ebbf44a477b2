"""The one judgement that all commands share which judge: made once, then read from the cache."""

from __future__ import annotations

import json
import os
from typing import Any

from _analysis import logs, series, suspects, tracefiles
from _analysis.answers import brief, dependency_diff
from _analysis.answers import suspects as ranking
from _analysis.desk import Desk, cache
from _analysis.git import git


def of(desk: Desk) -> dict[str, Any]:
    """The ranking, the brief and the upgrades, from the cache where nothing changed: every command that judges shares one
    judgement."""
    files = [p for p in (desk.root / "incident", desk.root / "memory", desk.root / "investigations") if p.is_dir()]
    inputs = [p for base in files for p in sorted(base.rglob("*")) if p.is_file()]
    inputs += logs.files(desk) + series.files(desk) + tracefiles.files(desk)
    refs = [git(repo, "for-each-ref") + git(repo, "rev-parse", "HEAD") for repo in desk.repos.values()]
    kept = cache(desk, "judged", inputs, refs)
    if kept.exists():
        return dict(json.loads(kept.read_text("utf-8")))
    verdict = suspects.judge(desk)
    if desk.left:
        desk.notes.insert(0, f"not all was looked at in time: {', '.join(desk.left)}; the investigation does it")
    answer = {
        "suspects": ranking.of(desk, verdict, 30),
        "brief": brief.of(desk, verdict),
        "dependencies": dependency_diff.of(desk, "", "", "", verdict, 30),
    }
    if not desk.left:
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(answer), "utf-8")
        partial.replace(kept)
    return answer
