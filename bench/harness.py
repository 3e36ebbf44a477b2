"""Long investigations side by side: this project's loop, the bare SDK, and four harnesses of the package index, all driven at the
same conformance server by the same scripts. `./dev bench harness --help` lists what can be chosen.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.__main__ import table
from bench.contest.environments import FLOOR, OURS, PEERS, Contestant, prepare
from bench.contest.run import LIMIT, Outcome, run, run_ends, run_faults
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
            outcomes = dict(_contest(contestants, trajectory, api, chosen.repeat, chosen.limit))
            runs += [_row(trajectory, api, one, outcome) for one, outcome in outcomes.items()]
            figures += _figures(trajectory, api, outcomes)
            print(table(runs[-len(outcomes) :]), "\n", flush=True)
    if chosen.faults:
        harnesses = [one for one in contestants if one is not FLOOR]
        for api in chosen.apis:
            passing = _tell(harnesses, api, run_faults, _lived)
            staying = _tell(harnesses, api, run_ends, _ended)
            died = sum(not outcome.survived for outcome in passing.values())
            silent = sum(not (outcome.error and _tries(outcome) == 1) for outcome in staying.values())
            figures.append({"figure": f"faults that pass, {api}: not survived of {len(passing)}", "measured": died, "at_most": 0})
            figures.append({"figure": f"faults that stay, {api}: not said at once", "measured": silent, "at_most": 0})
    return figures


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev bench harness", description=__doc__)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="default: all")
    parser.add_argument("--no-peers", dest="peers", action="store_const", const=[], help="only this project and the floor")
    parser.add_argument("--trajectories", nargs="*", choices=TRAJECTORIES, default=list(TRAJECTORIES), help="default: all")
    parser.add_argument("--apis", nargs="*", choices=APIS, default=list(APIS), help="default: both")
    parser.add_argument("--no-faults", dest="faults", action="store_false", help="leave the faults out")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for one trajectory (default: {LIMIT:.0f})")
    parser.add_argument("--repeat", type=int, default=3, help="runs for processor time, of which the best counts (default: 3)")
    return parser


def _contest(
    contestants: Sequence[Contestant], trajectory: str, api: str, repeat: int, limit: float
) -> Iterator[tuple[Contestant, Outcome]]:
    for one in contestants:
        if trajectory in OWN_ONLY and not one.own:
            continue
        times = repeat if one.own and trajectory in ("plain", *OWN_ONLY) else 1
        yield one, _best([run(one, api, trajectory, limit=limit) for _ in range(times)])


def _best(outcomes: Sequence[Outcome]) -> Outcome:
    """The quickest run, with the quickest of all runs for each of its turns: what else the machine does only ever adds."""
    best = min(outcomes, key=lambda outcome: (not outcome.survived, outcome.cpu))
    return replace(best, turns=[min(times) for times in zip(*(one.turns for one in outcomes), strict=False)])


def _row(trajectory: str, api: str, one: Contestant, outcome: Outcome) -> Row:
    tally = outcome.tally
    return {
        "trajectory": trajectory,
        "api": api,
        "harness": f"{one.name} {one.version}".strip(),
        "ended": "well" if outcome.survived else f"not: turn {tally['turns']}",
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
        "why": outcome.error[:60],
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
        rows.append(_figure(f"{name}: growth in the second half to that in the first", bend(ours), 1.5, "times"))
    if trajectory == "wide":
        rows.append(_figure(f"{name}: prompt tokens not read from the cache", 100 - ours.hits, 5.0, "%"))
    if trajectory == "bound" and api == "anthropic":
        dropped = ours.tally["dropped_new"]
        rows.append({"figure": f"{name}: turns that lost thinking but where an epoch began", "measured": dropped, "at_most": 0})
    if trajectory in COSTS:
        rows.append(_figure(f"{name}: cost", float(ours.cost), float(COSTS[trajectory]), "tokens"))
    return rows


def _figure(name: str, measured: float, at_most: float, unit: str) -> Row:
    return {"figure": name, "measured": round(measured, 2), "at_most": at_most, "unit": unit}


def growth(outcome: Outcome) -> float:
    """How much more processor time a turn takes, from the first fifth of the turns to the last: medians, in seconds."""
    fifth = len(outcome.turns) // 5
    return statistics.median(outcome.turns[-fifth:]) - statistics.median(outcome.turns[:fifth])


def bend(outcome: Outcome) -> float:
    """The growth in the second half of the turns to that in the first: 1 where it is linear, as the bytes that are sent are."""
    fifth = len(outcome.turns) // 5
    first, middle, last = (statistics.median(outcome.turns[n * fifth :][:fifth]) for n in (0, 2, 4))
    return (last - middle) / (middle - first)


def _tell(
    contestants: Sequence[Contestant],
    api: str,
    run: Callable[[Contestant, str], Mapping[str, Outcome]],
    say: Callable[[Outcome], str],
) -> Mapping[str, Outcome]:
    """Prints what came of each fault; ours is given back."""
    rows: dict[str, Row] = {}
    ours: Mapping[str, Outcome] = {}
    for one in contestants:
        outcomes = run(one, api)
        ours = outcomes if one is OURS else ours
        for fault, outcome in outcomes.items():
            rows.setdefault(fault, {"fault": fault, "api": api})[one.name] = say(outcome)
    print(table(list(rows.values())), "\n", flush=True)
    return ours


def _lived(outcome: Outcome) -> str:
    if outcome.survived:
        return f"lives ({outcome.wall:.1f} s)"
    return "no end" if outcome.endless else f"dies: {_name(outcome)}" if outcome.error else "ends as if all were well"


def _ended(outcome: Outcome) -> str:
    """How it says that it cannot go on, and after how many requests."""
    said = f"{_name(outcome)}" if outcome.error else "ends as if all were well"
    return f"{'tries on' if outcome.endless else said} ({_tries(outcome)} x)"


def _tries(outcome: Outcome) -> int:
    """Requests beside those that had a turn for an answer."""
    return int(outcome.tally["asked"]) - int(outcome.tally["turns"])


def _name(outcome: Outcome) -> str:
    return outcome.error.partition(":")[0]
