"""Runs one harness at one trajectory, or at all faults: the server in a process of its own, the harness in its environment."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contest.environments import Contestant
from bench.contest.trajectories import TRAJECTORIES, ends, faults
from tests.provider.server import KEY

ROOT = Path(__file__).parents[2]
DRIVERS = Path(__file__).parent / "drivers"
MODELS = {"anthropic": "claude-opus-5-5", "openai": "gpt-6.1-sol"}
FAULTY: dict[str, Any] = {"window": 200_000, "off": False, "idle": 2.0, "limit": 60.0}
"""Where something goes wrong: seconds of silence that are allowed, and those after which it is taken to have no end."""
LIMIT, STARTING = 600.0, 60.0
"""Seconds that a trajectory may take, and importing a harness."""
WRITE, WRITE_LONG, READ = 1.25, 2.0, 0.1
"""Prices of cached tokens, in those of a token that is not."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """tally: what the server counted. cpu: processor seconds a turn, setting up included. turns: those of each turn but the
    first. endless: it had to be stopped.
    """

    tally: dict[str, Any]
    error: str
    cpu: float
    turns: Sequence[float]
    wall: float
    endless: bool = False

    @property
    def survived(self) -> bool:
        return bool(self.tally["ended"]) and not self.error

    @property
    def prompt(self) -> int:
        return sum(int(self.tally[kind]) for kind in ("input", "read", "written"))

    @property
    def hits(self) -> float:
        """Percent of all prompt tokens that were read from the cache."""
        return 100 * self.tally["read"] / self.prompt if self.prompt else 0.0

    @property
    def cost(self) -> int:
        """What the prompts cost, in tokens at the plain price of input."""
        tally = self.tally
        short = tally["written"] - tally["written_long"]
        return round(float(tally["input"] + WRITE * short + WRITE_LONG * tally["written_long"] + READ * tally["read"]))


def run(contestant: Contestant, api: str, trajectory: str, *, limit: float = LIMIT) -> Outcome:
    """One trajectory."""
    played = TRAJECTORIES[trajectory]
    order = {"window": played.window, "off": played.off, "idle": 300.0, "limit": limit}
    (outcome,) = _contest(contestant, api, [{"trajectory": trajectory}], order)
    return outcome


def run_faults(contestant: Contestant, api: str) -> dict[str, Outcome]:
    """Every fault that passes, by name."""
    names = list(faults(api))
    outcomes = _contest(contestant, api, [{"fault": name} for name in names], FAULTY)
    return dict(zip(names, outcomes, strict=True))


def run_ends(contestant: Contestant, api: str) -> dict[str, Outcome]:
    """Every fault that stays, by name."""
    names = list(ends(api))
    outcomes = _contest(contestant, api, [{"end": name} for name in names], FAULTY)
    return dict(zip(names, outcomes, strict=True))


def _contest(contestant: Contestant, api: str, asked: Sequence[dict[str, Any]], order: dict[str, Any]) -> list[Outcome]:
    orders = [{**one, "api": api, "finish": contestant.finish} for one in asked]
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.contest.server", json.dumps(orders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with server, tempfile.TemporaryDirectory() as folder:
        assert server.stdin is not None and server.stdout is not None
        urls = json.loads(server.stdout.readline())
        common = {"api": api, "key": KEY, "model": MODELS[api], **order}
        folders = [str(Path(folder) / str(number)) for number in range(len(urls))]
        given = [{**common, "url": url, "folder": place} for url, place in zip(urls, folders, strict=True)]
        said = _drive(contestant, given, order["limit"] * len(given) + STARTING)
        server.stdin.close()
        tallies = json.loads(server.stdout.read())
    silent = {"error": "it ended, or had to be ended, without a word", "cpu": 0.0, "wall": 0.0, "marks": [], "endless": False}
    said += [silent] * (len(tallies) - len(said))
    return [
        Outcome(
            tally=tally,
            error=one["error"],
            cpu=one["cpu"] / max(1, tally["turns"]),
            turns=[after - before for before, after in itertools.pairwise(one["marks"])],
            wall=one["wall"],
            endless=one["endless"],
        )
        for tally, one in zip(tallies, said, strict=True)
    ]


def _drive(contestant: Contestant, orders: list[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
    """What the driver printed, one object for each order that it came to the end of."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} if contestant.own else dict(os.environ)
    command = [contestant.python, str(DRIVERS / f"{contestant.driver}.py"), json.dumps(orders)]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    )
    try:
        out, _ = driver.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        driver.kill()
        out, _ = driver.communicate()
    lines = [line for line in out.splitlines() if line.startswith('{"error"')]
    return [json.loads(line) for line in lines]
