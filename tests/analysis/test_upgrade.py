"""What an upgrade of a library brought: which of its commits the service reaches, what work they add, which patterns they build."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest

from tests.analysis.conftest import LIVE, Scene, rfc
from tests.analysis.test_code import BEFORE, _committed, part


@pytest.mark.parametrize(
    ("expression", "danger"),
    [
        (r"^(?:[!-~](?:[ \t!-~]+[!-~]){,1}){0,}$", 1.0),
        (r"(?:[!-~](?:[ \t]+[!-~]){0,}){0,}$", 0.0),
        (r"(?:a|ab?)(?:b|c)*", 0.0),
        (r"(?:\w+ ?=\w+&?)*;", 1.0),
        (r"(?:ab|a(?:b|cd))*e", 1.0),
        ("(?:" + "|".join(f"k{n}[a-z]" for n in range(90)) + ")*", 0.0),
    ],
)
def test_two_ways_to_read_one_text_are_found_wherever_they_part(expression: str, danger: float) -> None:
    assert part("regexes").danger(expression) == danger


def test_an_expression_is_known_where_it_is_put_together() -> None:
    source = (
        'import re\nMARK = r"[!-~]"\nPART = MARK + "([ !-~]+" + MARK + "){,1}"\nWHOLE = "({0}){{0,}}".format(PART)\n'
        'LINE = re.compile(as_bytes("^(?P<name>" + MARK + "+):" + f"{WHOLE}$"))\nOTHER = UNKNOWN + "(x"\n'
    )
    found = part("built").expressions(source)
    assert found["LINE"] == r"^(?P<name>[!-~]+):([!-~]([ !-~]+[!-~]){,1}){0,}$"
    assert "OTHER" not in found
    assert part("built").expressions("broken(") == {}


@pytest.mark.parametrize(
    ("lines", "kind", "facet"),
    [
        ((" def fix(node):", "+    for child in node.parts:", "+        fix(child)"), "added recursion", "cpu"),
        ((" for row in rows:", "+    for other in rows:", "+        compare(row, other)"), "loop in a loop", "latency"),
        ((" def fix(node):", "+    while node.parent:", "+        node = node.parent"), "added loop", "latency"),
        ((" def fix(text):", "+    form = re.compile(PATTERN)", "     return form.sub('', text)"), "compiled each time", "cpu"),
        (("-@lru_cache(maxsize=256)", " def rate(country):"), "no longer remembered", "latency"),
        (("+exports.all = [];", " function make(name) {", "+  exports.all.push(name);", " }"), "growing container", "memory"),
    ],
)
def test_work_and_memory_that_a_change_adds_are_seen(lines: tuple[str, ...], kind: str, facet: str) -> None:
    path = "src/pay.js" if "exports" in lines[0] else "pay.py"
    found = {delta.kind: delta for delta in part("deltas").of(_committed(*lines, path=path))}
    assert facet in found[kind].causes


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("if text.startswith(mark):", "removed set-up"),
        ("rows = delimited_list(text)", "removed caching or batching"),
        ("text = ', '.join(parts)", "removed safety call"),
        ("size = headers.pop('size', None)", "removed release"),
    ],
)
def test_a_name_that_only_holds_such_a_word_means_nothing_of_it(line: str, kind: str) -> None:
    assert kind not in {delta.kind for delta in part("deltas").of(_committed(f"-    {line}", " done()"))}


def test_a_default_is_that_of_its_own_parameter() -> None:
    commit = _committed("-    def read(self, size, partial=False):", "+    def read(self, size: int, partial: bool = False):")
    assert "changed default" not in {delta.kind for delta in part("deltas").of(commit)}


@pytest.mark.parametrize(
    ("code", "said", "names"),
    [
        ("left = pull.retry.stop.limit", "AttributeError: 'function' object has no attribute 'stop'", ["retry"]),
        ("answer = job.func(*job.args, **job.kwargs)", "TypeError: run() takes 1 positional argument but 2 were given", ["args", "kwargs"]),
        ("first = rates.of(day)[0]", "TypeError: 'NoneType' object is not subscriptable", ["of"]),
        ("total += 1", "KeyError: 'total'", []),
    ],
)  # fmt: skip
def test_what_was_not_as_the_code_took_it_for_is_named(code: str, said: str, names: list[str]) -> None:
    frame = SimpleNamespace(depth=0, code=code, raised=said)
    assert [n for n in part("runtimes").taken_for_another([frame]) if len(n) > 2] == [n for n in names if len(n) > 2]


def test_words_that_the_runtime_always_says_are_no_words_of_the_failure() -> None:
    plain = part("runtimes").plain("TypeError: Report.nightly() takes 2 positional arguments but 3 were given")
    assert re.findall(r"\w+", plain) == ["Report", "nightly"]
    assert part("runtimes").plain("ValueError: no such plan") == "ValueError: no such plan"


def test_code_after_a_docstring_is_code_wherever_it_stands() -> None:
    commit = _committed(
        "         ", '         """', "-        return old(url)", "+        other = url", "+        return new(other)"
    )
    assert part("deltas").of(commit)


def test_the_librarys_own_commit_stands_before_the_one_that_moved_the_library(scene: Scene) -> None:
    other = "def spare(rows):\n    total = 0\n    for row in rows:\n        total += row\n    return %s\n"
    link = (
        "class Link:\n    def __init__(self, text):\n        self.text = text\n\n    def merge(self, other):\n        return %s\n"
    )
    library = scene.repository(
        "linker",
        [
            (
                BEFORE - timedelta(days=9),
                "Begin",
                {"linker/__init__.py": "", "linker/link.py": link % "join(self, other)", "linker/other.py": other % "total"},
            ),
            (BEFORE - timedelta(days=8), "Simplify spare", {"linker/other.py": other % "total or None"}),
            (BEFORE - timedelta(days=7), "Simplify merge", {"linker/link.py": link % "other or None"}),
        ],
    )
    for commit, tag in ((library[0], "v1.0.0"), (library[2], "v1.1.0")):
        scene.git("linker", "tag", tag, commit)
    app = "from linker.link import Link\n\n\ndef follow(a, b):\n    return Link(a).merge(Link(b))\n"
    ids = scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"orders/app.py": app, "requirements.txt": "linker==1.0.0\n"}),
            (BEFORE + timedelta(hours=1), "Newer linker", {"requirements.txt": "linker==1.1.0\n"}),
        ],
    )
    scene.deployments = [
        {"timestamp": rfc(BEFORE), "service": "orders", "commit": ids[0]},
        {"timestamp": rfc(LIVE), "service": "orders", "commit": ids[1]},
    ]
    scene.write(
        "telemetry/metrics/m.csv",
        "timestamp,service,metric,value\n" + scene.series("orders", "links_missing", lambda m: 50.0 if m >= 0 else 2.0),
    )
    answer = scene.answer("suspects")
    assert [s["commit"] for s in answer["suspects"][:2]] == [library[2], ids[1]]
    assert answer["suspects"][0]["carrier"] == f"{ids[1][:12]} of orders"
    assert answer["suspects"][0]["whole"] > answer["suspects"][0]["p"]


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("def f(a: int, b: str = 'x', *rest: Any, **more: Dict[str, int]) -> None:", "def f(a, b= 'x', *rest, **more):"),
        ("limits: Dict[str, List[int]] = {}", "limits = {}"),
        ("size: int | None,", "size,"),
        ("else: size = 1", "else: size = 1"),
        ("return {size: limit}", "return {size: limit}"),
    ],
)
def test_types_do_nothing(typed: str, plain: str) -> None:
    assert part("rows").unannotated(typed) == plain


def test_outcomes_that_grow_are_no_traffic_where_requests_are_counted_and_do_not(scene: Scene) -> None:
    head = "timestamp,service,metric,value\n"
    grown = scene.series("orders", "discounts_per_minute", lambda m: 90.0 if m >= 0 else 20.0)
    grown += scene.series("orders", "latency_p99_ms", lambda m: 900.0 if m >= 1 else 90.0)
    asked = scene.series("orders", "http_requests_per_minute", lambda _: 300.0)
    scene.write("telemetry/metrics/m.csv", head + grown)
    assert [e["category"] for e in scene.answer("suspects")["explanations"]][:1] == ["capacity"]
    scene.write("telemetry/metrics/m.csv", head + grown + asked)
    assert "capacity" not in {e["category"] for e in scene.answer("suspects")["explanations"]}


def test_another_party_that_answers_with_failure_is_taken_for_it_without_a_host(scene: Scene) -> None:
    lines = [
        f"{rfc(LIVE + timedelta(minutes=m))} ERROR payments provider answered 503 Service Unavailable, invoice {m} is not charged"
        if m >= 0
        else f"{rfc(LIVE + timedelta(minutes=m))} INFO invoice stored"
        for m in range(-90, 20)
    ]
    scene.write("telemetry/logs/orders.log", "\n".join(lines))
    best = scene.answer("suspects")["explanations"][0]
    assert best["category"] == "external" and "payments provider" in best["why"][0]


def test_what_is_only_written_in_another_form_is_no_change() -> None:
    rows = ("-    return connect(host, port, timeout=wait)", "+    return connect(", "+        host,", "+        port,", "+        timeout=wait,", "+    )")  # fmt: skip
    assert part("deltas").of(_committed(*rows)) == []
    assert part("deltas").of(_committed(*rows[:-2], "+        timeout=2 * wait,", "+    )"))
