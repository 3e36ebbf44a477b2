"""Calls of what a commit changed: what they do with it and not without it, where the telemetry tells of that."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from typing import Any

import pytest

from tests.analysis.conftest import AT, LIVE, Scene, git, rfc
from tests.analysis.test_code import part

BEFORE = AT - timedelta(days=3)
SHOP = """
import time

KEPT = []


class Refused(Exception):
    pass


def quote(basket):
    count = basket["count"]
    {step}
    net = 100 * count
    return {{"net": net, "tax": net * {rate} // 100}}
"""
PLAIN = SHOP.format(step="pass", rate=19)
TESTS = "import unittest\nimport shop\n\nclass T(unittest.TestCase):\n    def test(self):\n        shop.quote({'count': 2})\n"


def effect(scene: Scene, after: str, quoted: str, **facets: float) -> Any:
    """What is found of a commit that changes PLAIN to `after`, where a line of the log is `quoted`; its command is run too."""
    ids = scene.repository(
        "shop", [(BEFORE, "Begin", {"shop.py": PLAIN, "tests/test_shop.py": TESTS}), (AT, "Change", {"shop.py": after})]
    )
    repo = scene.root / "repos" / "shop"
    commit = part("commits").Commit(repo="shop", sha=ids[1])
    part("commits").with_diffs("shop", repo, {ids[1]: commit}, [])
    sides = []
    for name, sha in (("with", ids[1]), ("without", ids[0])):
        shutil.copytree(repo, scene.root / name / "repos" / "shop")
        git(scene.root / name / "repos" / "shop", "checkout", "-q", sha)
        sides.append(scene.root / name / "repos" / "shop")
    anomaly = part("anomalies").Anomaly(kind="log", service="shop", text=quoted, onset=0.0, weight=1.0, quote=quoted)
    made = part("symptoms").Symptoms(anomalies=[anomaly], facets=facets)
    found = part("probe").search(made, commit, (sides[0], sides[1]), ["EUR"], "shop orders")
    if found:
        command = found.command("shop")
        codes = [
            subprocess.run(["bash", "-c", command], cwd=scene.root / n, capture_output=True).returncode
            for n in ("with", "without")
        ]
        assert codes == [0, 1]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "rate", "quoted", "facets", "does"),
    [
        ("time.sleep(0.1)", 19, "WARN no worker became free", {"latency": 1.0}, "takes 0."),
        ("time.sleep(0.1)", 19, "WARN no worker became free", {"memory": 1.0}, ""),
        ("KEPT.append([[n] for n in range(9)])", 19, "INFO fine", {"memory": 1.0}, "blocks of memory after 150 calls instead of"),
        ("KEPT.append([[n] for n in range(9)])", 19, "INFO fine", {"latency": 1.0}, ""),
        ("if count > 4: raise Refused('a basket of many pieces')", 19, "WARN basket refused", {}, "raises Refused: a basket of many"),
        ("if count > 4: raise Refused('a basket of many pieces')", 19, "WARN order cut", {}, ""),
        ("pass", 7, "WARN quote does not add up total=238 tax=14", {}, "gives tax 14 instead of 38"),
        ("pass", 7, "WARN quote does not add up", {}, ""),
        ("if count > 4: net = 1", 19, "WARN quote does not add up net=1 tax=14", {}, ""),
    ],
    ids=["slow", "slow, but nobody waits", "kept", "kept, but memory is fine", "refused", "refused, but nobody says so",
         "another value", "another value, but nobody says so", "nothing that a test's own call would show"],
)  # fmt: skip
def test_an_effect_counts_where_the_telemetry_tells_of_it(
    scene: Scene, step: str, rate: int, quoted: str, facets: dict[str, float], does: str
) -> None:
    found = effect(scene, SHOP.format(step=step, rate=rate), quoted, **facets)
    assert (does in found.does) if does else found is None


@pytest.mark.slow
@pytest.mark.parametrize("second", [False, True])
def test_where_two_suspects_do_it_none_is_shown_by_it(scene: Scene, second: bool) -> None:
    last = SHOP.format(step="pass", rate=8 if second else 7) + ("" if second else "\n# The rates are those of March.\n")
    ids = scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"shop.py": PLAIN, "tests/test_shop.py": TESTS}),
            (BEFORE + timedelta(hours=1), "Tax of books", {"shop.py": SHOP.format(step="pass", rate=7)}),
            (BEFORE + timedelta(hours=2), "Tax of some", {"shop.py": last}),
        ],
    )
    scene.deployments = [
        {"timestamp": rfc(LIVE - timedelta(days=9)), "service": "orders", "version": "1", "commit": ids[0]},
        {"timestamp": rfc(LIVE), "service": "orders", "version": "2", "commit": ids[2]},
    ]
    rows = []
    for n in range(240):
        moment = AT - timedelta(minutes=115) + timedelta(seconds=30 * n)
        rows.append(f"{rfc(moment)} INFO quoted")
        rows += [f"{rfc(moment)} WARNING quote does not add up net={n} tax={n}"] * (moment > LIVE)
    scene.write("telemetry/logs/orders.log", "\n".join(rows))
    found = scene.answer("reproduce")
    assert found.get("commit", "") == ("" if second else ids[1]), json.dumps(found)
    assert ("more than one suspect does something of the kind" in found["told"]) is second
