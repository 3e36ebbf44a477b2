"""What tells the guilty commit in a library's own history: many releases back, silent changes, names that are gone, long lists."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.analysis.conftest import AT, LIVE, Scene, rfc
from tests.analysis.test_code import _committed, part


@pytest.mark.parametrize(
    ("lines", "kind", "facet"),
    [
        (
            (
                "-        while len(self) > self.capacity:",
                "+        while len(self) > self.capacity * 90:",
                "             self.pop()",
            ),
            "changed bound",
            "memory",
        ),
        (
            ("-    return Answer(dump(body))", "+    return Answer(", "+        dump(body, compact=True)", "+    )"),
            "other arguments",
            "wrong",
        ),
        (
            ("-        return rows.copy_to(other, deep=False)", "+        return rows.copy_to(other, deep=True)"),
            "changed value",
            "latency",
        ),
        (
            (
                "-        if limit is None:",
                "-            return rows",
                "+        if not limit:",
                "+            return list(rows)",
            ),
            "other guard",
            "nil",
        ),
        (("     found = load(name)", "+    if fresh:", "         _cache[name] = found", "     return found"), "made conditional", "latency"),
        (("     for v in queue:", "-        if v == target:", "-            break", "         visit(v)"), "removed guard", "latency"),
        (("-    if 0 < number <= 0xFFFF:", "+    if 0 < number <= 0x1FFFF:", "         write(number)"), "changed limit", "bounds"),
        (("-    return b'.'.join(parts)", "+    return joined(parts).decode()"), "other result", "type"),
        (
            ("+try:", "     import chardet", "+except ImportError:", "+    import charset_normalizer as chardet"),
            "other package used",
            "wrong",
        ),
        (
            ("-def size(value, binary=False, gnu=False):", "+def size(", "+    value: float,", "+    binary: bool = True,", "+    gnu: bool = False,", "+) -> str:"),
            "changed default",
            "wrong",
        ),
        (("-def size(value, unit=None):", "+def size(value, unit):"), "needed parameter", "type"),
        (("-def size(value, unit=None):", "+def size(value):"), "parameter gone", "type"),
        (("     elif key in known:", "         found = known[key]", "-        known[key] = found", "+        count += 1"), "no longer kept", "latency"),
    ],
)  # fmt: skip
def test_a_silent_change_is_known_for_what_it_brings(lines: tuple[str, ...], kind: str, facet: str) -> None:
    found = {delta.kind: delta for delta in part("deltas").of(_committed(*lines))}
    assert kind in found
    assert facet in found[kind].causes


def test_a_method_of_a_container_in_a_loop_is_cheap_and_a_client_is_not() -> None:
    strengths = [
        max(delta.strength for delta in part("deltas").of(_committed(" for row in rows:", f"+    found = {call}(row)")))
        for call in ("known.get", "client.get")
    ]
    assert strengths[0] < 0.5 < strengths[1]


def test_code_after_the_end_of_a_docstring_is_code() -> None:
    commit = _committed(' """', " import os", "-etree = load_tree", "+tree = load_tree", ' """', " Constants", ' """')
    (hunk,) = commit.files[0].hunks
    assert not any(id(row) in part("docstrings").lines(hunk) for row in hunk.lines if row.tag != " ")


def test_tests_that_expect_something_else_than_before_are_told_from_new_ones() -> None:
    history = part("commits")
    diff = (
        "diff --git a/tests/test_send.py b/tests/test_send.py\n--- a/tests/test_send.py\n+++ b/tests/test_send.py\n@@ -1,2 +1,2 @@\n"
        " def test_send():\n-    assert send() == 'a, b'\n+    assert send() == 'a,b'\n"
    )
    commit = history.Commit(repo="r", sha="a", subject="Separators have no blank any more by default", files=history.parse(diff))
    assert part("expectations").changed(commit) == 1.0
    fresh = history.Commit(
        repo="r", sha="b", subject="More tests", files=history.parse(diff.replace("-    assert send() == 'a, b'\n", ""))
    )
    assert part("expectations").changed(fresh) == 0.0


def _library(scene: Scene, releases: int = 3) -> list[str]:
    """A library whose oldest release after the first took a name away; the others touch many files."""
    base = {f"src/tags/part{n}.py": f"def part{n}(text):\n    return text\n" for n in range(40)}
    commits = [
        (AT - timedelta(days=300), "Begin", {**base, "src/tags/util.py": "def part(x):\n    return x\n\n\netree = part\n"})
    ]
    commits.append((AT - timedelta(days=250), "Tidy up", {"src/tags/util.py": "def part(x):\n    return x\n"}))
    for n in range(36):
        text = f"def part{n}(text):\n    if not text:\n        return None\n    return text.strip()\n"
        commits.append((AT - timedelta(days=240 - n), f"Rework part {n}", {f"src/tags/part{n}.py": text}))
    ids = scene.repository("tags", commits)
    for release in range(releases):
        scene.git("tags", "tag", f"v{release}.0", ids[1 + release * 12 if release else 0])
    scene.git("tags", "tag", f"v{releases}.0", ids[-1])
    return ids


def test_a_release_that_skips_others_is_searched_to_its_beginning_and_all_are_ranked(scene: Scene) -> None:
    ids = _library(scene)
    scene.deployments = [{"timestamp": rfc(LIVE), "service": "wiki", "version": "3.0", "commit": ids[-1]}]
    scene.service = "wiki"
    where = '  File "/usr/lib/python3/site-packages/wiki/page.py", line 9, in page\n    return tags.util.etree(text)\n'
    raised = f"Traceback (most recent call last):\n{where}AttributeError: module 'tags.util' has no attribute 'etree'\n"
    lines = [f"{rfc(LIVE + timedelta(seconds=20 * n))} ERROR page failed\n{raised}" for n in range(40)]
    quiet = [f"{rfc(LIVE - timedelta(minutes=90 - n))} INFO page shown\n" for n in range(90)]
    scene.write("telemetry/logs/wiki.log", "".join([*quiet, *lines]))
    answer = scene.answer("suspects", "--limit", "12")
    assert answer["seen"] == len(ids)
    assert answer["suspects"][0]["commit"] == ids[1]
    assert len(answer["suspects"]) + len(answer["more"]) == 12
    assert all(repo == "tags" and commit in ids for repo, commit, _ in answer["more"])


def test_a_log_is_its_services_wherever_it_was_exported_from() -> None:
    service_of = part("stretches").service_of
    assert service_of(Path("telemetry/logs/logs-orders.log"), {"orders"}) == "orders"
    assert service_of(Path("telemetry/logs/partner-hub.log"), {"orders"}) == "partner-hub"


def test_fewer_refusals_speak_of_a_check_that_is_gone() -> None:
    related = part("concepts").related
    assert "validator" in related("orders_rejected falls")
    assert not related("orders_placed falls")


def test_a_line_next_to_the_one_that_raised_counts_and_one_in_another_function_less() -> None:
    symptoms, logs = part("symptoms"), part("stacktraces")
    raised = logs.Frame(
        service="s", file="/lib/pay.py", line=12, name="pay", raised="struct.error: too big", code="return pack(number)"
    )
    made = symptoms.Symptoms(frames=[raised])
    near = _committed("-    if number < 9:", "+    if number < 99:", "         return pack(number)")
    far = _committed("-    if number < 9:", "+    if number < 99:", *["     pass"] * 5, "         return pack(number)")
    line = part("places").failing_line
    assert (line(made, near), line(made, far)) == (0.6, 0.0)


def test_what_speaks_of_no_kind_of_trouble_may_be_a_silent_one() -> None:
    kinds = part("symptoms")._kinds
    assert set(kinds({})) == {"wrong", "missing", "refused", "parse"}
    assert kinds({"latency": 2.0, "error": 0.5}) == {"latency": 1.0, "error": 0.5}
    assert kinds({"latency": 0.1})["latency"] < 0.5


def test_an_attribute_that_another_type_lacks_is_gone_from_no_code() -> None:
    symptoms = part("symptoms")
    made = symptoms.Symptoms()
    for text in (
        "AttributeError: 'str' object has no attribute 'decode'",
        "AttributeError: module 'tags.util' has no attribute 'etree'",
    ):
        made.anomalies.append(
            part("anomalies").Anomaly(kind="log", service="s", text=text, onset=0.0, weight=1.0, level=3, fresh=True)
        )
    symptoms._named(made)
    assert (made.named["decode"], made.named["etree"], made.holders) == (False, True, {"etree": "tags.util"})


def test_a_sentence_that_begins_like_a_condition_is_none() -> None:
    deltas = part("deltas").of
    assert "removed guard" not in {
        delta.kind for delta in deltas(_committed("-    when (date): Removed in version 4", "     rest"))
    }
    assert "removed guard" in {
        delta.kind for delta in deltas(_committed("-    if when(date):", "-        rest()", "     more()"))
    }


def test_a_pattern_that_only_numbers_its_places_is_the_same() -> None:
    numbered = _committed(
        "-    found = re.compile('(?P<{0}>{1})'.format(a, b))", "+    found = re.compile('(?P<{}>{})'.format(a, b))"
    )
    assert "changed pattern" not in {delta.kind for delta in part("deltas").of(numbered)}


def test_a_record_that_begins_with_the_trouble_makes_no_alert_unsound(scene: Scene) -> None:
    begin, minutes = AT - timedelta(minutes=20), 20
    ids = scene.repository(
        "orders",
        [
            (AT - timedelta(days=9), "Begin", {"pay.py": "def pay(order):\n    return order.get('total', 0)\n"}),
            (AT - timedelta(days=2), "Pay", {"pay.py": "def pay(order):\n    return order['total']\n"}),
        ],
    )
    lines = [f"{rfc(begin + timedelta(seconds=20 * n))} ERROR order {n} not paid: KeyError 'total'\n" for n in range(3 * minutes)]
    scene.write("telemetry/logs/orders.log", "".join(lines))
    scene.write(
        "telemetry/metrics/orders.csv", "timestamp,service,metric,value\n" + scene.series("orders", "failed", lambda _: 3.0)
    )
    answer = scene.answer("suspects")
    assert not answer["explanations"]
    assert answer["suspects"][0]["commit"] == ids[1]
    scan, desk = part("logs").Scan(start=AT.timestamp() - 90 * 60), part("desk").read(scene.root)
    assert not part("anomalies").begins_late(scan, desk)


def test_empty_defaults_are_alike_and_words_with_foreign_letters_are_no_names() -> None:
    same = _committed("-def read(rows=[], mark=u''):", "+def read(rows=(), mark=''):")
    assert "changed default" not in {delta.kind for delta in part("deltas").of(same)}
    assert part("words").words("ni\u00f1o read_rows") == ["read_rows", "read", "rows"]


def test_the_name_of_a_service_says_nothing_of_what_is_wrong() -> None:
    symptoms = part("symptoms")
    made = symptoms.Symptoms(names={"tokenissuer": "token-issuer"})
    assert symptoms._nameless(made, "token-issuer is slow") == "  is slow"
