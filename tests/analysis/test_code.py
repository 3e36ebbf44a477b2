"""What the analysis reads in code and numbers: dangerous expressions, leaks, stack traces of several languages, mixtures, upgrades."""

from __future__ import annotations

import importlib
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.conftest import AT, BIN, LIVE, Scene, rfc

BEFORE = AT - timedelta(days=3)


def part(name: str) -> Any:
    """A module that the commands share; they are no package of ours, but files on the desk."""
    if str(BIN) not in sys.path:
        sys.path.insert(0, str(BIN))
    return importlib.import_module(f"_analysis.{name}")


@pytest.mark.parametrize(
    ("expression", "danger"),
    [
        (r"((\r\n|\r|\n)+) *$", 1.0),
        (r"(a+)+$", 1.0),
        (r"^(\w+\s?)*$", 1.0),
        (r"^(([a-z])+.)+[A-Z]([a-z])+$", 1.0),
        (r"(?:x|y|xy)*z", 1.0),
        (r"\s*(.*?)\s*$", 0.6),
        (r"[a-z]+\d+", 0.0),
        (r"^v?\d+(\.\d+)*$", 0.0),
        (r"\"(?:[^\"\\]|\\.)*\"", 0.0),
        (r"(broken", 0.0),
    ],
)
def test_an_expression_that_backtracks_for_long_is_told_from_one_that_does_not(expression: str, danger: float) -> None:
    assert part("regexes").danger(expression) == danger


def test_expressions_are_found_in_code_and_plain_texts_are_not() -> None:
    found = part("regexes").expressions
    assert found('ADDRESS = re.compile(r"^(\\w+\\.)*@", re.I)') == [r"^(\w+\.)*@"]
    assert found("let x = /(a+)+$/i.test(y)") == ["(a+)+$"]
    assert found('log("an order was placed, all is well")') == []


STACKS = {
    "python": 'Traceback (most recent call last):\n  File "/srv/a.py", line 3, in outer\n    inner()\n  File "/srv/a.py", line 9, in inner\n'
    "    raise ValueError(1)\nValueError: 1",
    "java": "java.lang.IllegalStateException: 1\n\tat shop.A.inner(A.java:9)\n\tat shop.A.outer(A.java:3)",
    "node": "TypeError: x is undefined\n    at inner (/srv/a.js:9:3)\n    at outer (/srv/a.js:3:1)",
    "go": "panic: 1\n\ngoroutine 7 [running]:\nmain.inner(0x1)\n\t/srv/a.go:9 +0x1d\nmain.outer()\n\t/srv/a.go:3 +0x2f",
}


@pytest.mark.parametrize("language", sorted(STACKS))
def test_where_it_was_raised_is_known_in_every_language(scene: Scene, language: str) -> None:
    scene.write("telemetry/logs/orders.log", f"{rfc(LIVE)} ERROR request failed\n{STACKS[language]}\n{rfc(AT)} INFO fine\n")
    scene.furnish()
    frames = part("logs")._scan(part("desk").read(scene.root), [scene.root / "telemetry/logs/orders.log"]).frames
    found = {frame.name.rsplit(".", 1)[-1]: (frame.depth, frame.line) for frame in frames}
    assert found == {"inner": (0, 9), "outer": (1, 3)}


def _leak(scene: Scene) -> list[str]:
    """Something grows since four hours before the alert; another deployment lies shortly before it."""
    app = "def serve(order):\n    return order.total\n"
    leaking = "_seen = []\n\n\ndef serve(order):\n    _seen.append(order)\n    return order.total\n"
    ids = scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"app.py": app, "settings.py": "PAGE = 20\nLIMIT = 100\n"}),
            (BEFORE + timedelta(hours=1), "Longer pages", {"settings.py": "PAGE = 25\nLIMIT = 100\n"}),
            (BEFORE + timedelta(hours=2), "Keep what was served", {"app.py": leaking}),
            (AT - timedelta(hours=1), "A higher limit", {"settings.py": "PAGE = 25\nLIMIT = 300\n"}),
        ],
    )
    scene.deployments = [
        {"timestamp": rfc(BEFORE), "service": "orders", "commit": ids[0]},
        {"timestamp": rfc(AT - timedelta(hours=4)), "service": "orders", "commit": ids[2]},
        {"timestamp": rfc(AT - timedelta(minutes=15)), "service": "orders", "commit": ids[3]},
    ]
    scene.metric = "resident_memory_mb"
    rows = scene.series("orders", "resident_memory_mb", lambda m: 200 + max(0.0, m + 220) * 0.8, minutes=420)
    scene.write("telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + rows)
    return ids


def test_a_leak_is_traced_to_what_went_live_hours_before_the_alert(scene: Scene) -> None:
    ids = _leak(scene)
    answer = scene.answer("suspects")
    first = answer["suspects"][0]
    assert (first["commit"], first["kind"]) == (ids[2], "growing container")
    assert rfc(AT - timedelta(hours=4, minutes=20)) <= answer["onset"] <= rfc(AT - timedelta(hours=3, minutes=30))


@pytest.mark.parametrize("later", [2, 12])
def test_an_alert_that_comes_later_changes_no_answer(scene: Scene, later: int) -> None:
    ids = _leak(scene)
    scene.at = AT + timedelta(minutes=later)
    assert scene.answer("suspects")["suspects"][0]["commit"] == ids[2]


def test_a_ratio_that_fell_because_other_things_came_makes_the_alert_unsound(scene: Scene) -> None:
    scene.repository("orders", [(BEFORE, "Begin", {"a.py": "x = 1\n"}), (BEFORE, "More", {"a.py": "x = 2\n"})])
    scene.metric = "cache_hit_ratio"

    def small(minute: float) -> float:
        return 5.0 if minute < 0 else 300.0

    rows = [
        scene.series("orders", "hits_per_minute", lambda m: 80.0),
        scene.series("orders", "lookups_per_minute", lambda m: 100.0 + small(m)),
        scene.series("orders", "small_requests_per_minute", small),
        scene.series("orders", "cache_hit_ratio", lambda m: 80.0 / (100.0 + small(m))),
    ]
    scene.write("telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + "".join(rows))
    best = scene.answer("suspects")["explanations"][0]
    assert best["category"] == "alert" and best["p"] > 0.5
    assert "without small_requests_per_minute" in best["why"][0]


@pytest.mark.slow
def test_what_an_upgrade_in_a_manifest_brought_is_read_from_the_packages_own_history(scene: Scene) -> None:
    zones = "ZONES = {'DE': 1}\n\n\ndef zone(country):\n    return ZONES%s\n"
    library = scene.repository(
        "parcels",
        [
            (BEFORE - timedelta(days=9), "Begin", {"parcels/__init__.py": "", "parcels/zones.py": zones % ".get(country, 4)"}),
            (BEFORE - timedelta(days=8), "Look zones up", {"parcels/zones.py": zones % "[country]"}),
            (BEFORE - timedelta(days=7), "Say what it is", {"README.md": "parcels\n"}),
        ],
    )
    for commit, tag in ((library[0], "v1.0.0"), (library[2], "v1.1.0")):
        scene.git("parcels", "tag", tag, commit)
    app = "from parcels import zones\n\n\ndef cost(order):\n    return 100 * zones.zone(order.country)\n"
    ids = scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"orders/app.py": app, "requirements.txt": "parcels==1.0.0\n"}),
            (BEFORE + timedelta(hours=1), "Newer parcels", {"requirements.txt": "parcels==1.1.0\n"}),
            (BEFORE + timedelta(hours=2), "Describe it", {"README.md": "orders\n"}),
        ],
    )
    scene.deployments = [
        {"timestamp": rfc(BEFORE), "service": "orders", "commit": ids[0]},
        {"timestamp": rfc(LIVE), "service": "orders", "commit": ids[2]},
    ]
    stack = "Traceback (most recent call last):\n  File \"/srv/lib/parcels/zones.py\", line 5, in zone\n    return ZONES[country]\nKeyError: 'DK'\n"
    rows = [
        f"{rfc(AT - timedelta(minutes=m))} ERROR request failed\n{stack}"
        if m < 20
        else f"{rfc(AT - timedelta(minutes=m))} INFO ok"
        for m in range(90, -1, -1)
    ]
    scene.write("telemetry/logs/orders.log", "\n".join(rows))
    answer = scene.answer("suspects")
    assert [s["commit"] for s in answer["suspects"][:2]] == [library[1], ids[1]]
    assert answer["suspects"][0]["package"] == "parcels" and answer["suspects"][1]["through"] == library[1]
    upgrade = scene.answer("dependency-diff")["upgrades"]
    assert [(u["package"], u["from"], u["to"], u["commits"]) for u in upgrade] == [("parcels", "1.0.0", "1.1.0", 2)]


def _committed(*lines: str, path: str = "pay.py") -> Any:
    """A commit with one hunk, its lines as a diff has them; the hunk begins at line 10."""
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -10,9 +10,9 @@ def pay(order):\n"
    return part("commits").Commit(repo="pay", sha="a" * 40, files=part("commits").parse(head + "\n".join(lines)))


def test_a_short_line_is_quoted_with_its_neighbours_and_what_stood_there_before() -> None:
    commit = _committed("     order.check()", "-    n = 9", "+    n = 1", "     order.send(n)", "     return order.total")
    passages = part("passages").of(commit, part("deltas").of(commit)[0])
    assert [(p.side, p.start, p.end, p.text) for p in passages] == [
        ("+", 11, 13, "    n = 1\n    order.send(n)\n    return order.total"),
        ("-", 11, 13, "    n = 9\n    order.send(n)\n    return order.total"),
    ]


def test_a_long_line_is_quoted_alone_and_a_commit_that_does_nothing_by_its_longest_line() -> None:
    line = "    return order.warehouse.reserve(order.lines, timeout=3)"
    alone = _committed("     order.check()", f"+{line}", "     order.send(n)")
    idle = _committed("-# Pays an order.", "+# Pays an order, once and for all, in cents.", "+", path="README.md")
    assert [p.text for p in part("passages").of(alone, part("deltas").of(alone)[0])] == [line]
    assert [p.text for p in part("passages").of(idle, None)] == [
        "# Pays an order, once and for all, in cents.",
        "# Pays an order.",
    ]


def test_a_small_log_beside_a_huge_one_is_read_whole() -> None:
    stretches = part("stretches")
    huge = 2 << 30
    assert stretches.share_of([70_000, huge, 120_000]) == stretches.BUDGET - 190_000
    assert stretches.share_of([huge, huge]) == stretches.BUDGET // 2
    assert stretches.share_of([70_000, 120_000]) >= 120_000


@pytest.mark.parametrize(
    ("lines", "kind", "what"),
    [
        (("-        del self.active[key]", "         self.next()"), "removed release", "del self.active[key]"),
        (
            ("-    def get(self, *, follow: bool = True,", "-        allow_redirects: bool = True,", "+        follow_redirects: bool = False,"),
            "changed default",
            "allow_redirects = True -> follow_redirects = False",
        ),
        (('-_DEFAULT_FORMAT = "g"', '+_DEFAULT_FORMAT = ".3g"'), "changed default", '_DEFAULT_FORMAT = "g" -> _DEFAULT_FORMAT = ".3g"'),
        (("     spool = True", "+    max_part_size = 1024 * 1024  # 1 MB"), "new limit", "max_part_size = 1024 * 1024"),
        (("-    import chardet", "+    import charset_normalizer as chardet"), "other package used", "chardet -> charset_normalizer"),
        (("-        self.running[job] -= 1", "+        self.running[job] -= 0"), "changed value", "self.running[job] -= 1 -> self.running[job] -= 0"),
    ],
)  # fmt: skip
def test_a_change_is_recognised_for_what_it_can_do(lines: tuple[str, ...], kind: str, what: str) -> None:
    found = part("deltas").of(_committed(*lines))
    assert (kind, what) in [(delta.kind, delta.what.strip()) for delta in found]


def test_an_example_in_a_docstring_does_nothing() -> None:
    ends_inside = _committed(
        "     Finds what looks like a mistake:", "-        seek('log|n')", "+        seek('log|n+')", '     """'
    )
    begins = _committed(
        " def seek(text):", '-    """Seeks, log|n."""', '+    """Seeks: re.search(\'(a+)+\', x)."""', "     return text"
    )
    query = _committed(' TEXT = """', "-SELECT a FROM b LIMIT 5", "+SELECT a FROM b", ' """')
    kinds = [{delta.kind for delta in part("deltas").of(commit)} for commit in (ends_inside, begins, query)]
    assert (kinds[0], kinds[1], "removed clause" in kinds[2]) == (set(), set(), True)


def test_an_example_after_an_import_is_not_run_either() -> None:
    lines = part("docstrings").lines
    commit = _committed(' """About this module."""', " import os", "+x = os.name")
    (hunk,) = commit.files[0].hunks
    assert [row.text for row in hunk.lines if id(row) in lines(hunk)] == ['"""About this module."""']


@pytest.mark.parametrize(
    ("symptom", "code"),
    [
        ("responses_3xx_per_min rises", "redirect"),
        ("POST /claims answered 413 for customer 7", "limit"),
        ("subjects of messages are garbled", "charset"),
        ("process_open_fds rises", "close"),
        ("order 413 was placed", ""),
    ],
)
def test_what_a_symptom_speaks_of_is_put_into_words_of_code(symptom: str, code: str) -> None:
    found = part("concepts").related(symptom)
    assert code in found if code else not found


def test_a_step_begins_where_it_jumps_although_a_spike_lies_before_it() -> None:
    values = [0.5 + 0.01 * (n % 3) for n in range(300)] + [6.0 + 0.1 * (n % 4) for n in range(40)]
    values[299] = 0.7
    points = [(1000.0 + 30 * n, value) for n, value in enumerate(values)]
    shift = part("metrics").shift_of(part("series").Series(service="a", metric="m", points=points), None)
    assert shift and points[299][0] <= shift.onset <= points[300][0]


@pytest.mark.parametrize("suffers", [True, False])
def test_growth_is_a_lack_of_capacity_only_where_something_suffers_from_it(suffers: bool, tmp_path: Path) -> None:
    common = {"service": "shop", "onset": 1000.0, "file": "m.csv"}
    grown = part("metrics").Shift(
        metric="orders_per_minute", before=10.0, after=30.0, score=5.0, explained=0.5, shape="step", points=60, **common
    )
    slow = part("anomalies").Anomaly(kind="metric", text="latency_p95_ms rises", weight=0.6, **{**common, "onset": 1060.0})
    made = part("symptoms").Symptoms(shifts=[grown], anomalies=[slow] if suffers else [], onset=1060.0)
    explanations = part("explanations")
    found = explanations.explain(part("desk").Desk(root=tmp_path), made)
    capacity = next(e for e in found if e.category == "capacity")
    assert (capacity.score > explanations.PRESENT) is suffers
    assert any("nothing ran short of capacity" in why for why in capacity.why) is not suffers


@pytest.mark.parametrize(
    ("sufferer", "work", "capacity"), [("stock", "", True), ("shop", "", False), ("stock", "queries_per_request", False)]
)
def test_growth_elsewhere_than_where_it_hurts_is_a_callers_doing(
    sufferer: str, work: str, capacity: bool, tmp_path: Path
) -> None:
    """What calls more often for each of its own requests suffers itself, and what it calls only sees more of them."""

    def shift(service: str, metric: str, before: float, after: float) -> Any:
        values = {"before": before, "after": after, "score": 5.0, "explained": 0.5, "shape": "step", "points": 60}
        return part("metrics").Shift(service=service, metric=metric, onset=1000.0, file="m.csv", **values)

    slow = part("anomalies").Anomaly(
        kind="metric", service=sufferer, text="latency_p95_ms rises", weight=0.6, onset=1060.0, file="m.csv"
    )
    shifts = [shift("stock", "requests_per_sec", 100.0, 400.0), *([shift("stock", work, 3.0, 40.0)] if work else [])]
    made = part("symptoms").Symptoms(shifts=shifts, anomalies=[slow], onset=1060.0)
    explanations = part("explanations")
    found = explanations.explain(part("desk").Desk(root=tmp_path), made)
    assert (next(e for e in found if e.category == "capacity").score > explanations.PRESENT + explanations.ELSEWHERE) is capacity
