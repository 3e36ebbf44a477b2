"""The scorers on cases made by hand: each figure is what docs/evals.md says that it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.core.report import Cause, CodeSource, Evidence, Report, ReportUsage, Suspect, TelemetrySource
from agent.evals import comparison, tables
from agent.evals.figures import brier, chance, paired_means, paired_shares, sign_test, wilson
from agent.evals.grounds import Grounds
from agent.evals.runs import Result
from agent.evals.scores import Odds, odds, score
from agent.evals.truth import Named, Truth

AT = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
GUILTY, DECOY, OTHER = "a" * 40, "d" * 40, "b" * 40
TRUTH = Truth(
    system="shop",
    kind="exception",
    category="code",
    guilty=(Named(repo="shop", commit=GUILTY, also=("0ld5ha1",)),),
    decoys=(Named(repo="shop", commit=DECOY),),
)
NO_COMMIT = Truth(system="shop", kind="flag", category="config", culprits=("web.fast_checkout",))


def cause(commit: str | None = GUILTY, confidence: float = 0.9, **fields: Any) -> Cause:
    values: dict[str, Any] = {"statement": "it did it", "category": "code", "repo": "shop", **fields}
    return Cause(commit=commit, confidence=confidence, **values)


def report(*causes: Cause, suspects: tuple[str, ...] = (), **fields: Any) -> Report:
    values: dict[str, Any] = {"verdict": "root_cause_found", "summary": "s", **fields}
    ranked = tuple(Suspect(repo="shop", commit=commit, score=1.0) for commit in suspects)
    return Report(investigation="i", title="t", at=AT, written_at=AT, causes=causes, suspects=ranked, **values)


# Arithmetic


@pytest.mark.parametrize(
    ("right", "number", "low", "high"), [(10, 12, 0.552, 0.953), (0, 12, 0.0, 0.242), (12, 12, 0.758, 1.0), (1, 1, 0.207, 1.0)]
)
def test_wilson_intervals_are_the_published_ones(right: int, number: int, low: float, high: float) -> None:
    found = wilson(right, number)
    assert (round(found.low, 3), round(found.high, 3)) == (low, high)


def test_nothing_is_known_of_no_incidents() -> None:
    found = wilson(0, 0)
    assert (found.value, found.low, found.high) == (None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("eligible", "guilty", "k", "expected"),
    [(10, 1, 1, 0.1), (10, 1, 3, 0.3), (10, 2, 3, 8 / 15), (3, 1, 5, 1.0), (10, 0, 3, 0.0), (0, 0, 1, 0.0), (2, 5, 1, 1.0)],
)
def test_chance_draws_without_putting_back(eligible: int, guilty: int, k: int, expected: float) -> None:
    assert chance(eligible, guilty, k) == pytest.approx(expected)


def test_brier_of_a_sure_right_and_a_sure_wrong_answer() -> None:
    assert [brier(1.0, True), brier(1.0, False), brier(0.5, False), brier(0.7, True)] == pytest.approx([0, 1, 0.25, 0.09])


def test_paired_shares_are_honest_for_few_pairs() -> None:
    same = paired_shares([1.0] * 4, [1.0] * 4)
    better = paired_shares([0.0] * 12, [1.0] * 12)
    assert same.difference == 0 and same.low < -0.3 and same.high > 0.3
    assert better.difference == 1 and better.low > 0.5


def test_paired_means_and_the_sign_test() -> None:
    found = paired_means([10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    assert (found.difference, round(found.low, 2), round(found.high, 2)) == (2.0, -0.48, 4.48)
    assert [sign_test(0, 0), sign_test(5, 0), sign_test(3, 2)] == [1.0, 0.0625, 1.0]


# One report


def test_the_guilty_commit_first_is_right_and_its_rank_is_one() -> None:
    found = score(report(cause()), TRUTH, Grounds())
    assert (found.right, found.rank, found.decoy, found.abstained, found.wrong_as_found) == (True, 1, False, False, False)
    assert (found.complete, found.category_right, round(found.brier, 6)) == (True, True, 0.01)


@pytest.mark.parametrize("commit", [GUILTY[:8], "0ld5ha1"])
def test_a_short_id_and_another_name_of_the_commit_are_the_commit(commit: str) -> None:
    assert score(report(cause(commit)), TRUTH, Grounds()).right


def test_six_digits_name_no_commit() -> None:
    assert not score(report(cause(GUILTY[:6])), TRUTH, Grounds()).right


def test_suspects_count_behind_causes() -> None:
    found = score(report(cause(DECOY), suspects=(DECOY, OTHER, GUILTY)), TRUTH, Grounds())
    assert (found.right, found.rank, found.decoy, found.wrong_as_found) == (False, 3, True, True)


def test_no_commit_is_an_answer_and_takes_a_place() -> None:
    found = score(report(cause(None), suspects=(GUILTY,), verdict="likely"), TRUTH, Grounds())
    assert (found.right, found.rank, found.abstained, found.answered) == (False, 2, True, "none")


def test_where_no_commit_is_guilty_the_guilty_change_must_be_named() -> None:
    named = cause(None, statement="The flag fast-checkout was turned on", repo=None, category="config")
    assert score(report(named), NO_COMMIT, Grounds()).right
    assert not score(report(cause(None, repo=None)), NO_COMMIT, Grounds()).right
    assert not score(report(cause(GUILTY)), NO_COMMIT, Grounds()).right
    assert score(report(cause(None, repo=None)), Truth(kind="traffic"), Grounds()).right


def test_naming_no_cause_at_all_is_no_right_answer() -> None:
    found = score(report(verdict="inconclusive"), Truth(kind="traffic"), Grounds())
    assert (found.right, found.answered, found.brier) == (False, "nothing", 0.0)


def test_a_verdict_that_did_not_stand_was_rightly_lowered_where_its_cause_is_wrong() -> None:
    lowered = report(cause(DECOY), verdict="likely")
    claimed = report(cause(DECOY))
    assert score(lowered, TRUTH, Grounds(), claims=[claimed]).downgrade == "right"
    assert score(report(cause(), verdict="likely"), TRUTH, Grounds(), claims=[report(cause())]).downgrade == "wrong"
    assert score(lowered, TRUTH, Grounds(), claims=[lowered]).downgrade == ""


def test_evidence_is_relevant_where_it_is_of_the_guilty_commit_or_its_files() -> None:
    def piece(verified: bool = True, **place: Any) -> Evidence:
        source = CodeSource(repo="shop", **place)
        return Evidence(claim="c", supports="mechanism", source=source, quote="some line", verified=verified)

    symptom = Evidence(
        claim="c", supports="symptom", source=TelemetrySource(path="telemetry/logs/a.log"), quote="q", verified=True
    )
    pieces = (
        piece(commit=GUILTY),
        piece(commit=OTHER, path="a.py"),
        piece(commit=OTHER, path="b.py"),
        piece(False, commit=GUILTY),
        symptom,
    )
    found = score(report(cause(), evidence=pieces), TRUTH, Grounds(files=("a.py",)))
    assert (found.pieces, found.verified, found.mechanism, found.relevant) == (5, 4, 3, 2)


def test_claims_beside_the_right_one_that_are_not_true_are_counted() -> None:
    unverified = Evidence(claim="c", supports="symptom", source=TelemetrySource(path="telemetry/x"), quote="q")
    found = score(report(cause(), cause(OTHER), cause(DECOY), evidence=(unverified,)), TRUTH, Grounds())
    assert found.extra == 3


def test_tokens_of_all_kinds_and_unknown_prices() -> None:
    usage = ReportUsage(input_tokens=1, cache_read_tokens=2, cache_write_tokens=3, output_tokens=4, usd=None, seconds=7.0)
    found = score(report(cause(), usage=usage), TRUTH, Grounds())
    assert (found.tokens, found.usd, found.seconds) == (10, None, 7.0)


# Chance and the two rules, tables, comparison


def test_the_rules_answer_with_what_deployments_brought() -> None:
    found = odds(TRUTH, Grounds(eligible=9, latest=(DECOY, OTHER, GUILTY), service=()))
    assert found == Odds(
        eligible=9, right=0.1, at=(chance(9, 1, 1), chance(9, 1, 3), chance(9, 1, 5)), latest=3, service=None, latest_decoy=True
    )


def result(incident: str, trial: int, truth: Truth, *causes: Cause, suspects: tuple[str, ...] = ()) -> Result:
    grounds = Grounds(eligible=9, latest=(GUILTY,))
    scored = score(report(*causes, suspects=suspects), truth, grounds)
    return Result(incident=incident, system=truth.system, kind=truth.kind, trial=trial, odds=odds(truth, grounds), score=scored)


def test_trials_of_one_incident_count_as_one() -> None:
    results = [result("a", 1, TRUTH, cause()), result("a", 2, TRUTH, cause(DECOY)), result("b", 1, NO_COMMIT, cause(None))]
    (exception, flag, whole) = tables.rows(results)
    assert (exception.name, exception.right.right, exception.right.number) == ("shop: exception", 0.5, 1)
    assert (flag.at[0].number, flag.abstained.right, flag.chance_right) == (0, 0.0, 0.1)
    assert (whole.incidents, whole.runs, whole.wrong_as_found, whole.rules_right[0].right) == (2, 3, 2, 1.0)
    text = tables.text([exception, flag, whole], "statistical")
    assert "latest deployment" in text and "0.50 [" in text


def test_a_run_that_failed_is_a_wrong_one() -> None:
    failed = result("a", 1, TRUTH, cause()).model_copy(update={"score": None, "problem": "no sandbox"})
    found = tables.row("x", [failed])
    assert (found.failed, found.right.right, found.at[0].right, found.brier) == (1, 0.0, 0.0, None)


def test_two_runs_are_compared_by_incident() -> None:
    first = [result("a", 1, TRUTH, cause(DECOY)), result("b", 1, TRUTH, cause()), result("c", 1, TRUTH, cause())]
    second = [result("a", 1, TRUTH, cause()), result("b", 1, TRUTH, cause()), result("d", 1, TRUTH, cause())]
    found = comparison.compare(first, second)
    right = found.differences["right"]
    assert (right.number, right.first, right.second, right.difference) == (2, 0.5, 1.0, 0.5)
    assert (found.gained, found.lost, found.only_first, found.only_second) == (1, 0, ("c",), ("d",))
    assert "a" in comparison.text(found)


def test_the_figures_of_a_small_run_are_those_of_a_calculation_by_hand() -> None:
    results = [
        result("a", 1, TRUTH, cause(confidence=0.9)),
        result("b", 1, TRUTH, cause(DECOY, 0.8), suspects=(OTHER, GUILTY)),
        result("c", 1, TRUTH, cause(confidence=0.6)),
        result("c", 2, TRUTH, cause(None, 0.5)),
        result("d", 1, NO_COMMIT, cause(None, 0.7, statement="web.fast_checkout was switched on")),
    ]
    found = tables.row("x", results)
    # 1 + 0 + 1/2 + 1 of 4: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.625, n = 4, z² = 3.841459
    assert (found.right.right, found.right.number) == (2.5, 4)
    assert (found.right.low, found.right.high) == pytest.approx((0.21943, 0.90810), abs=5e-5)
    assert [(at.right, at.number) for at in found.at] == [(1.5, 3), (2.5, 3), (2.5, 3)]
    assert [(one.right, one.number) for one in (found.abstained, found.wrongly, found.decoys)] == [(1, 1), (0.5, 3), (1, 4)]
    assert found.chance == pytest.approx((1 / 9, 3 / 9, 5 / 9)) and found.chance_right == pytest.approx(0.1)
    assert [(rule.right, rule.number) for rule in (*found.latest, found.rules_right[0])] == [(3, 3)] * 3 + [(3, 4)]
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.16 + 0.25 + 0.09) / 5)
    assert (found.found, found.wrong_as_found) == (5, 2)


def test_a_narrow_terminal_gets_the_same_figures_down_the_page() -> None:
    text = tables.text(tables.rows([result("a", 1, TRUTH, cause()), result("b", 1, NO_COMMIT, cause(None))]), "m", width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert ["at", "1", "1.00", "[0.21", "1.00]", "0.11", "1/1", "0/1"] in [line.split() for line in text.splitlines()]
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(("wrong as found", "shop: "))] == [
        ["wrong", "as"], ["shop:", "exception"], ["shop:", "flag"],
    ]  # fmt: skip


def test_a_run_that_failed_is_a_wrong_one_beside_another_run_too() -> None:
    failed = result("a", 1, TRUTH, cause()).model_copy(update={"score": None, "problem": "no sandbox"})
    found = comparison.compare([failed], [result("a", 1, TRUTH, cause())])
    shares = {name: (one.first, one.second) for name, one in found.differences.items()}
    assert shares == {"right": (0.0, 1.0), **{f"guilty commit at {k}": (0.0, 1.0) for k in (1, 3, 5)}, "wrongly none": (0.0, 0.0),
                      "decoys blamed": (0.0, 0.0), "wrong as found": (0.0, 0.0)}  # fmt: skip
    assert (found.gained, found.pairs[0].answered) == (1, ("failed", GUILTY))
