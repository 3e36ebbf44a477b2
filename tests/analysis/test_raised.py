"""What a commit does with the line that raised, and with its surroundings: it brings it, renames in it, or says it in other words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.analysis.conftest import LIVE, Scene, rfc
from tests.analysis.test_code import BEFORE, _committed, part

CALL = "return self._load(text, forms)"
RAISE = 'raise LoadError(f"no form fits {text}")'
RENAMED = (
    " def pay(self, text):",
    "-    forms = self.forms(value)",
    "-    known = self.known(value)",
    "-    return self._load(value, forms)",
    "+    forms = self.forms(text)",
    "+    known = self.known(text)",
    f"+    {CALL}",
)


@pytest.mark.parametrize(
    ("lines", "quoted", "least", "most"),
    [
        ((" def pay(self, text):", f"+    {CALL}"), CALL, 1.0, 1.0),
        (RENAMED, CALL, 0.1, 0.3),
        ((" def pay(self, text):", "-    return self._load(forms, text)", f"+    {CALL}"), CALL, 1.0, 1.0),
        ((" def pay(self, text):", '-    raise LoadError("it does not fit")', f"+    {RAISE}"), RAISE, 0.4, 0.6),
        ((" def pay(self, text):", "-    return None", f"+    {RAISE}"), RAISE, 1.0, 1.0),
        ((" def pay(self, text):", "     pass", "", " def other(self):", f"+    {RAISE}"), RAISE, 0.0, 0.0),
    ],
)
def test_a_failing_line_is_brought_only_by_what_did_not_fail_there_before(
    lines: tuple[str, ...], quoted: str, least: float, most: float
) -> None:
    frame = part("stacktraces").Frame(service="s", file="/lib/pay.py", line=12, name="pay", raised="LoadError: no", code=quoted)
    made = part("symptoms").Symptoms(frames=[frame])
    assert least <= part("places").failing_line(made, _committed(*lines)) <= most


def test_a_container_made_elsewhere_in_a_function_of_the_file_ends_with_the_call() -> None:
    hunks = ("     rows = {}", "-    fill(rows)", "+    rows = {}", "+    fill(rows, 1)")
    local = _committed(*hunks, "@@ -90,2 +90,3 @@ def fill(rows, number):", "     pass", "+    rows[number] = number")
    kept = _committed("+ROWS = {}", "@@ -90,2 +90,3 @@ def fill(number):", "     pass", "+    ROWS[number] = number")
    kinds = [{delta.kind for delta in part("deltas").of(commit)} for commit in (local, kept)]
    assert ["growing container" in found for found in kinds] == [False, True]


def test_a_parameter_that_got_another_name_is_neither_gone_nor_new() -> None:
    renamed = part("deltas").of(_committed("-def read(self, text):", "+def read(self, given):", "     pass"))
    other = part("deltas").of(_committed("-def read(self, text):", "+def read(self, text, form):", "     pass"))
    assert not {"needed parameter", "parameter gone"} & {delta.kind for delta in renamed}
    assert "needed parameter" in {delta.kind for delta in other}


@pytest.mark.parametrize(
    ("expression", "danger"),
    [
        (r"^key:(.*?);(.*?)(?:@(.*))?$", 0.6),
        (r"^key:([^;]*);(.*)$", 0.0),
        (r"^(.*);(.*)", 0.0),
        (r"\w+x\w+!", 0.6),
    ],
)
def test_what_both_of_two_repetitions_can_take_separates_them_in_many_ways(expression: str, danger: float) -> None:
    assert part("regexes").danger(expression) == danger


@pytest.mark.parametrize(
    ("expression", "again"),
    [(r"\s+$", True), (r"<[^>]*>|[\n\t]", True), (r"^\s+$", False), (r"<[^<>]*>", False), (r"\s+", False)],
)
def test_a_search_reads_again_where_what_it_begins_with_repeats(expression: str, again: bool) -> None:
    assert part("regexes").rescans(expression) is again


def test_such_an_expression_in_script_makes_slow() -> None:
    found = part("deltas").of(
        _committed("-  return text;", "+  return text.replace(/<[^>]*>|[\\n\\t]/g, '');", path="lib/text.js")
    )
    assert any(delta.kind == "changed pattern" and "latency" in delta.causes for delta in found)


def test_what_comes_after_a_function_does_not_call_it_from_within() -> None:
    after = _committed(" def pay(order):", "     return order", "", "+total = pay(9)")
    within = _committed(" def pay(order):", "+    return pay(order.rest)", "     return order")
    kinds = [{delta.kind for delta in part("deltas").of(commit)} for commit in (after, within)]
    assert ["added recursion" in found for found in kinds] == [False, True]


def test_a_frame_that_quotes_no_code_gets_the_line_that_stands_there(scene: Scene) -> None:
    body = "function keep(name) {\n  if (!%s.test(name)) {\n    throw new TypeError('name is invalid');\n  }\n}\n"
    ids = scene.repository(
        "orders", [(BEFORE, "Begin", {"keep.js": body % "/./"}), (LIVE, "Narrow", {"keep.js": body % "/^a+$/"})]
    )
    trace = "    at keep (/srv/node_modules/orders/keep.js:3:11)\n    at handle (/srv/app.js:7:3)"
    rows = [f"{rfc(LIVE + timedelta(minutes=m))} ERROR failed\nTypeError: name is invalid\n{trace}" for m in range(9)]
    scene.write("telemetry/logs/orders.log", "\n".join(rows) + "\n")
    scene.furnish()
    desk = part("desk").read(scene.root)
    made = part("symptoms").gather(desk)
    part("places").quote(desk, made)
    commit = part("commits").Commit(repo="orders", sha=ids[1])
    part("commits").with_diffs("orders", desk.repos["orders"], {ids[1]: commit}, [])
    assert [f.code for f in made.frames if f.name == "keep"] == ["throw new TypeError('name is invalid');"]
    assert part("places").failing_line(made, commit) == 0.6
