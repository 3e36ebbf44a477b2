"""Prints results: per system, per kind and together, beside chance and the two rules. It computes what stands in a table only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agent.core.data import Data
from agent.evals.figures import Share, mean, median, share
from agent.evals.runs import Result
from agent.evals.scores import DEPTHS, Score


class Row(Data):
    """The figures of one group of incidents. Shares are over incidents: the mean of an incident's trials counts as one.

    kind: whether it is one kind of a system. right: the exact commit, or rightly none. at: a guilty commit among the first 1, 3,
    5, where one is guilty. abstained: where none is guilty. wrongly: no commit blamed where one is guilty. chance, latest,
    service: what guessing and the two rules reach.
    """

    name: str
    kind: bool = False
    incidents: int
    runs: int
    failed: int
    right: Share
    at: tuple[Share, ...]
    abstained: Share
    wrongly: Share
    decoys: Share
    category: Share
    complete: Share
    chance: tuple[float, ...]
    chance_right: float
    latest: tuple[Share, ...]
    service: tuple[Share, ...]
    rules_right: tuple[Share, Share]
    rules_decoys: tuple[Share, Share]
    downgraded_right: int
    downgraded_wrong: int
    wrong_as_found: int
    found: int
    verified: Share
    relevant: Share
    extra: float | None
    brier: float | None
    seconds: float | None
    slowest: float | None
    tokens: float | None
    usd: float | None


def rows(results: Sequence[Result]) -> list[Row]:
    """A row for each kind of each system, one for each system, and one for all where there are several."""
    made = []
    systems = sorted({one.system for one in results})
    for system in systems:
        own = [one for one in results if one.system == system]
        kinds = sorted({one.kind for one in own})
        if len(kinds) > 1:
            groups = {kind: [one for one in own if one.kind == kind] for kind in kinds}
            made += [row(f"{system}: {kind or 'other'}", group, kind=True) for kind, group in groups.items()]
        made.append(row(system, own))
    if len(systems) > 1:
        made.append(row("all", results))
    return made


def row(name: str, results: Sequence[Result], *, kind: bool = False) -> Row:
    """The figures of these results. A run that failed is a wrong one, without confidence."""
    scores = [one.score for one in results if one.score]
    names = sorted({one.incident for one in results})
    by = {name: [one for one in results if one.incident == name] for name in names}
    odds = [by[name][0].odds for name in names]
    guilty = [name for name in names if any(one.at[0] > 0 for one in [by[name][0].odds])]
    none = [name for name in names if name not in guilty]

    def shares(chosen: Sequence[str], told: Callable[[Score], bool | None]) -> Share:
        values = []
        for name in chosen:
            said = [told(one.score) if one.score else False for one in by[name]]
            if known := [float(one) for one in said if one is not None]:
                values.append(math.fsum(known) / len(known))
        return share(values)

    def rule(ranks: Sequence[int | None], k: int) -> Share:
        return share([float(rank is not None and rank <= k) for rank in ranks])

    of_guilty = [by[name][0].odds for name in guilty]
    return Row(
        name=name,
        kind=kind,
        incidents=len(names),
        runs=len(results),
        failed=sum(one.score is None for one in results),
        right=shares(names, lambda score: score.right),
        at=tuple(shares(guilty, lambda score, k=k: score.rank is not None and score.rank <= k) for k in DEPTHS),  # type: ignore[misc]
        abstained=shares(none, lambda score: score.right),
        wrongly=shares(guilty, lambda score: score.abstained),
        decoys=shares(names, lambda score: score.decoy),
        category=shares(names, lambda score: score.category_right),
        complete=shares(guilty, lambda score: score.complete),
        chance=tuple(mean([one.at[i] for one in of_guilty]) or 0.0 for i in range(len(DEPTHS))),
        chance_right=mean([one.right for one in odds]) or 0.0,
        latest=tuple(rule([one.latest for one in of_guilty], k) for k in DEPTHS),
        service=tuple(rule([one.service for one in of_guilty], k) for k in DEPTHS),
        rules_right=(rule([one.latest for one in odds], 1), rule([one.service for one in odds], 1)),
        rules_decoys=(share([float(one.latest_decoy) for one in odds]), share([float(one.service_decoy) for one in odds])),
        downgraded_right=sum(one.downgrade == "right" for one in scores),
        downgraded_wrong=sum(one.downgrade == "wrong" for one in scores),
        wrong_as_found=sum(one.wrong_as_found for one in scores),
        found=sum(one.verdict == "root_cause_found" for one in scores),
        verified=share([one.verified / one.pieces for one in scores if one.pieces]),
        relevant=share([one.relevant / one.mechanism for one in scores if one.mechanism]),
        extra=mean([float(one.extra) for one in scores]),
        brier=mean([one.brier for one in scores]),
        seconds=median([one.seconds for one in scores]),
        slowest=max((one.seconds for one in scores), default=None),
        tokens=median([float(one.tokens) for one in scores]),
        usd=None if any(one.usd is None for one in scores) else math.fsum(one.usd or 0.0 for one in scores),
    )


def text(found: Sequence[Row], model: str, *, width: int | None = None) -> str:
    """The tables, for people; one below the other where they are wider than a terminal."""
    wide = _wide(found, model)
    fits = width is None or max(map(len, wide.splitlines())) <= width
    return wide if fits else "\n\n".join(_narrow(found, model))


def _narrow(found: Sequence[Row], model: str) -> Iterator[str]:
    """The same figures down the page: a table for each system and for all, and one line for each kind."""
    yield "95 % Wilson intervals over incidents; at k: where a commit is guilty"
    for one in (one for one in found if not one.kind):
        head = [f"{one.name} ({one.incidents})", model, "chance", "latest", "service"]
        rules = (one.latest, one.service)
        lines = [["right", _ci(one.right), f"{one.chance_right:.2f}", *map(_of, one.rules_right)]]
        for i, k in enumerate(DEPTHS):
            known = f"{one.chance[i]:.2f}" if one.at[0].number else "-"
            lines.append([f"at {k}", _ci(one.at[i]), known, *(_of(rule[i]) for rule in rules)])
        lines.append(["rightly none", _of(one.abstained), "", *[_of(one.abstained.model_copy(update={"right": 0.0}))] * 2])
        lines.append(["wrongly none", _of(one.wrongly), "", "", ""])
        lines.append(["decoys", _of(one.decoys), "", *map(_of, one.rules_decoys)])
        lines += [[name, value, "", "", ""] for name, value in _worth(one)]
        yield columns([head, *lines])
    kinds = [one for one in found if one.kind]
    if kinds:
        yield columns(
            [
                ["kind", "", "right", "at 1", "Brier"],
                *([k.name, f"{k.incidents}", _of(k.right), _of(k.at[0]), _number(k.brier, 3)] for k in kinds),
            ]
        )


def _worth(one: Row) -> list[tuple[str, str]]:
    """What a system's reports are worth and what they took, by name."""
    return [
        ("found", f"{one.found}"),
        ("wrong as found", f"{one.wrong_as_found}"),
        ("lowered rightly", f"{one.downgraded_right}"),
        ("lowered wrongly", f"{one.downgraded_wrong}"),
        ("verified", _percent(one.verified)),
        ("relevant", _percent(one.relevant)),
        ("false extras", _number(one.extra, 2)),
        ("category", _percent(one.category)),
        ("all causes", _percent(one.complete)),
        ("Brier", _number(one.brier, 3)),
        ("runs", f"{one.runs}"),
        ("failed", f"{one.failed}"),
        ("seconds", f"{_number(one.seconds, 1)} (slowest {_number(one.slowest, 1)})"),
        ("tokens", _number(one.tokens, 0)),
        ("USD", "unknown" if one.usd is None else f"{one.usd:.2f}"),
    ]


def _wide(found: Sequence[Row], model: str) -> str:
    answers, trust, cost = [], [], []
    for one in found:
        rules = [f"{one.chance_right:.2f}", *map(_of, one.rules_right)]
        answers.append([one.name, model, f"{one.incidents}", _ci(one.right), *map(_ci, one.at), *_answered(one), *rules])
        if not one.kind:
            answers += _beside(one)
        downgrades = f"{one.downgraded_right} / {one.downgraded_wrong}"
        trust.append(
            [one.name, f"{one.found}", f"{one.wrong_as_found}", downgrades, *map(_percent, (one.verified, one.relevant)),
             _number(one.extra, 2), *map(_percent, (one.category, one.complete)), _number(one.brier, 3)]
        )  # fmt: skip
        cost.append([one.name, f"{one.runs}", f"{one.failed}", _number(one.seconds, 1), _number(one.slowest, 1),
                     _number(one.tokens, 0), "unknown" if one.usd is None else f"{one.usd:.2f}"])  # fmt: skip
    tables = (
        ("Answers (95 % Wilson intervals over incidents; at k: where a commit is guilty)",
         ["", "who", "incidents", "right", "at 1", "at 3", "at 5", "rightly none", "wrongly none", "decoys", "chance",
          "latest", "service"], answers),
        ("What the reports are worth",
         ["", "found", "wrong as found", "downgrades right / wrong", "verified", "relevant", "false extras", "category",
          "all causes", "Brier"], trust),
        ("What it took", ["", "runs", "failed", "seconds", "slowest", "tokens", "USD"], cost),
    )  # fmt: skip
    return "\n\n".join(f"{title}\n{columns([head, *lines])}" for title, head, lines in tables)


def _beside(one: Row) -> list[list[str]]:
    """The lines of chance and of the two rules."""
    chances = [f"{value:.2f}" if one.at[0].number else "-" for value in one.chance]
    lines = [["", "chance", "", f"{one.chance_right:.2f}", *chances, *[""] * 6]]
    for which, rule in enumerate(("latest deployment", "service match")):
        shares = [_of(one.rules_right[which]), *map(_of, (one.latest, one.service)[which])]
        none = one.abstained.model_copy(update={"right": 0.0})
        lines.append(["", rule, "", *shares, _of(none), "", _of(one.rules_decoys[which]), *[""] * 3])
    return lines


def _answered(one: Row) -> list[str]:
    return [_of(one.abstained), _of(one.wrongly), _of(one.decoys)]


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as aligned columns; the first two to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    aligned = [[cell.ljust(widths[i]) if i < 2 else cell.rjust(widths[i]) for i, cell in enumerate(line)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def _ci(one: Share) -> str:
    return f"{one.value:.2f} [{one.low:.2f} {one.high:.2f}]" if one.value is not None else "-"


def _of(one: Share) -> str:
    return f"{one.right:.3g}/{one.number}" if one.number else "-"


def _percent(one: Share) -> str:
    return f"{one.value:.0%}" if one.value is not None else "-"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def whole(results: Sequence[Result], about: dict[str, Any]) -> dict[str, Any]:
    """Everything as data, for `--json`."""
    return {
        **about,
        "rows": [one.model_dump(mode="json") for one in rows(results)],
        "results": [one.model_dump(mode="json") for one in results],
    }
