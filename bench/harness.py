"""Long investigations side by side: this project's loop, the bare SDK, and four harnesses of the package index, all driven at the
same conformance server by the same scripts. `./dev bench harness --help` lists what can be chosen.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from bench.__main__ import table
from bench.contest.environments import FLOOR, OURS, PEERS, Contestant, prepare
from bench.contest.run import Outcome, run, run_faults
from bench.contest.trajectories import TRAJECTORIES

Row = dict[str, Any]
APIS = ("anthropic", "openai")
OWN_ONLY = ("endless",)
"""Trajectories that only we and the floor run: others would take minutes."""
CPU = {"anthropic": 4.0, "openai": 4.0}
COSTS = {"wide": 270_000, "long": 1_200_000, "bound": 1_790_000, "huge": 87_000}
"""Milliseconds of processor time a turn at 200 turns, and what prompts may cost, in tokens at the plain price of input."""


def main(arguments: Sequence[str]) -> list[Row]:
    """Prints what each run came to; the rows are the figures that this project has to reach."""
    chosen = _options().parse_args(arguments)
    contestants = [OURS, FLOOR, *(prepare(name) for name in chosen.peers)]
    runs: list[Row] = []
    figures: list[Row] = []
    for trajectory in chosen.trajectories:
        for api in chosen.apis:
            outcomes = dict(_contest(contestants, trajectory, api, chosen.repeat))
            runs += [_row(trajectory, api, one, outcome) for one, outcome in outcomes.items()]
            figures += _figures(trajectory, api, outcomes)
            print(table(runs[-len(outcomes) :]), "\n", flush=True)
    if chosen.faults:
        for api in chosen.apis:
            figures.append(_survive([one for one in contestants if api in one.apis and one is not FLOOR], api))
    return figures


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev bench harness", description=__doc__)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="default: all")
    parser.add_argument("--no-peers", dest="peers", action="store_const", const=[], help="only this project and the floor")
    parser.add_argument("--trajectories", nargs="*", choices=TRAJECTORIES, default=list(TRAJECTORIES), help="default: all")
    parser.add_argument("--apis", nargs="*", choices=APIS, default=list(APIS), help="default: both")
    parser.add_argument("--no-faults", dest="faults", action="store_false", help="leave the faults out")
    parser.add_argument("--repeat", type=int, default=3, help="runs for processor time, of which the best counts (default: 3)")
    return parser


def _contest(contestants: Sequence[Contestant], trajectory: str, api: str, repeat: int) -> Iterator[tuple[Contestant, Outcome]]:
    for one in contestants:
        if api not in one.apis or (trajectory in OWN_ONLY and not one.own):
            continue
        times = repeat if one.own and trajectory in ("plain", *OWN_ONLY) else 1
        yield one, min((run(one, api, trajectory) for _ in range(times)), key=lambda outcome: (not outcome.survived, outcome.cpu))


def _row(trajectory: str, api: str, one: Contestant, outcome: Outcome) -> Row:
    tally = outcome.tally
    return {
        "trajectory": trajectory,
        "api": api,
        "harness": f"{one.name} {one.version}".strip(),
        "ended": "well" if outcome.survived else f"died at turn {tally['turns']}",
        "ms/turn": f"{outcome.cpu * 1000:.1f}",
        "requests": tally["requests"],
        "not cached": tally["input"],
        "written": tally["written"],
        "read": tally["read"],
        "output": tally["output"],
        "cost": outcome.cost,
        "hits %": f"{outcome.hits:.1f}",
        "breaks": tally["breaks"],
        "refused": len(tally["refused"]),
        "summaries": tally["summaries"],
        "thinking dropped": tally["dropped"],
    }


def _figures(trajectory: str, api: str, outcomes: dict[Contestant, Outcome]) -> list[Row]:
    """What of a trajectory has to be reached."""
    ours, floor = outcomes[OURS], outcomes[FLOOR]
    name = f"{trajectory}, {api}"
    rows = [
        {"figure": f"{name}: ended well (0 is yes)", "measured": int(not ours.survived), "at_most": 0},
        {"figure": f"{name}: refused requests", "measured": len(ours.tally["refused"]), "at_most": 0},
    ]
    if trajectory == "plain":
        rows.append(_figure(f"{name}: processor time a turn", ours.cpu * 1000, CPU[api], "ms"))
        rows.append(_figure(f"{name}: the floor's", floor.cpu * 1000, CPU[api], "ms"))
    if trajectory == "endless":
        rows.append(_figure(f"{name}: growth of a turn's time, ours to the floor's", growth(ours) / growth(floor), 2.0, "times"))
    if trajectory == "wide":
        rows.append(_figure(f"{name}: prompt tokens not read from the cache", 100 - ours.hits, 5.0, "%"))
    if trajectory in COSTS:
        rows.append(_figure(f"{name}: cost", float(ours.cost), float(COSTS[trajectory]), "tokens"))
    return rows


def _figure(name: str, measured: float, at_most: float, unit: str) -> Row:
    return {"figure": name, "measured": round(measured, 2), "at_most": at_most, "unit": unit}


def growth(outcome: Outcome) -> float:
    """How much more processor time a turn takes, from the first fifth of the turns to the last: medians, in seconds."""
    turns = [after - before for before, after in itertools.pairwise(outcome.marks)]
    fifth = len(turns) // 5
    return statistics.median(turns[-fifth:]) - statistics.median(turns[:fifth])


def _survive(contestants: Sequence[Contestant], api: str) -> Row:
    """Which faults each outlives."""
    rows: dict[str, Row] = {}
    survived: dict[str, list[bool]] = {}
    for one in contestants:
        for fault, outcome in run_faults(one, api).items():
            row = rows.setdefault(fault, {"fault": fault, "api": api})
            row[one.name] = f"lives ({outcome.wall:.1f} s)" if outcome.survived else "dies"
            survived.setdefault(one.name, []).append(outcome.survived)
    print(table(list(rows.values())), "\n", flush=True)
    died = survived[OURS.name].count(False)
    return {"figure": f"faults, {api}: not survived of {len(rows)}", "measured": died, "at_most": 0}
