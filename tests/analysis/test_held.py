"""A library that a service holds within its repository, as a submodule or as copied files: its own history is searched too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.analysis.conftest import LIVE, Scene, rfc
from tests.analysis.test_code import BEFORE

LINK = "class Link:\n    def __init__(self, text):\n        self.text = text\n\n    def merge(self, other):\n        return %s\n"
OTHER = "def spare(rows):\n    total = 0\n    for row in rows:\n        total += row\n    return %s\n"
APP = "from linker.link import Link\n\n\ndef follow(a, b):\n    return Link(a).merge(Link(b))\n"


def _library(scene: Scene) -> list[str]:
    start = {"linker/__init__.py": "", "linker/link.py": LINK % "join(self, other)", "linker/other.py": OTHER % "total"}
    ids = scene.repository(
        "linker",
        [
            (BEFORE - timedelta(days=90), "Begin", start),
            (BEFORE - timedelta(days=80), "Simplify spare", {"linker/other.py": OTHER % "total or None"}),
            (BEFORE - timedelta(days=70), "Simplify merge", {"linker/link.py": LINK % "other or None"}),
            (BEFORE - timedelta(days=60), "Later", {"linker/other.py": OTHER % "total or 0"}),
        ],
    )
    for commit, tag in ((ids[0], "v1.0.0"), (ids[2], "v1.1.0")):
        scene.git("linker", "tag", tag, commit)
    return ids


def _submodule(scene: Scene, library: list[str]) -> list[str]:
    ids = scene.repository("orders", [(BEFORE, "Begin", {"orders/app.py": APP})])
    for number in (0, 2):
        scene.git("orders", "update-index", "--add", "--cacheinfo", f"160000,{library[number]},third/linker")
        scene.git("orders", "commit", "-q", "-m", "Newer linker")
        ids.append(scene.git("orders", "rev-parse", "HEAD").strip())
    return ids


def _copied(scene: Scene, _: list[str]) -> list[str]:
    def copy(version: str, link: str, other: str) -> dict[str, str]:
        head = f'"""Links."""\n\n__version__ = "{version}"\n'
        return {"third/linker/__init__.py": head, "third/linker/link.py": LINK % link, "third/linker/other.py": OTHER % other}

    return scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"orders/app.py": APP, **copy("1.0.0", "join(self, other)", "total")}),
            (BEFORE, "Note", {"README.md": "Orders.\n"}),
            (BEFORE + timedelta(hours=1), "Newer linker", copy("1.1.0", "other or None", "total or None")),
        ],
    )


@pytest.mark.parametrize("hold", [_submodule, _copied])
def test_what_came_with_a_library_held_within_the_repository_is_blamed_in_its_own_history(
    scene: Scene, hold: Callable[[Scene, list[str]], list[str]]
) -> None:
    library = _library(scene)
    ids = hold(scene, library)
    scene.deployments = [
        {"timestamp": rfc(BEFORE), "service": "orders", "commit": ids[1]},
        {"timestamp": rfc(LIVE), "service": "orders", "commit": ids[2]},
    ]
    rows = scene.series("orders", "links_missing", lambda m: 50.0 if m >= 0 else 2.0)
    scene.write("telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + rows)
    answer = scene.answer("suspects")
    assert [s["commit"] for s in answer["suspects"][:2]] == [library[2], ids[2]]
    assert library[3] not in [s["commit"] for s in answer["suspects"]]
