"""The bundled incident is sound, and the generator that made it gives the same repositories for the same seed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from agent.evals.generate.__main__ import generate, histories
from agent.evals.generate.record import trouble
from agent.evals.generate.scenarios import KINDS
from agent.incident import read_incident
from agent.triggers import read

INCIDENTS = Path(__file__).parents[2] / "evals" / "incidents"
FIRST = INCIDENTS / "first"
SHOWN = datetime(2026, 5, 5, 12, tzinfo=UTC)
TRUTH = json.loads((INCIDENTS / "truth" / "first.json").read_text())


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_bundled_incident_is_read_without_a_complaint() -> None:
    case = read_incident(FIRST, read)
    assert (case.notes, case.trigger.service, len(case.repositories), len(case.deployments)) == ((), "storefront", 3, 5)


def test_the_bundled_incident_is_small_and_does_not_tell_its_cause() -> None:
    files = [path for path in FIRST.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert max(path.stat().st_size for path in FIRST.glob("*.bundle")) < 300_000
    guilty = TRUTH["guilty"][0]
    readable = [path.read_text() for path in files if path.suffix != ".bundle"]
    assert not any(
        guilty["commit"] in text or guilty["subject"] in text or TRUTH["kind"] in path.name for path in files for text in readable
    )


def test_the_incidents_to_measure_on_are_read_and_none_tells_what_it_is() -> None:
    named = sorted(path for path in INCIDENTS.glob("0*"))
    assert len(named) == len(KINDS) and sum(p.stat().st_size for one in named for p in one.rglob("*") if p.is_file()) < 9_000_000
    for folder in named:
        truth = json.loads((INCIDENTS / "truth" / f"{folder.name}.json").read_text())
        assert read_incident(folder, read).notes == ()
        told = "".join((folder / name).read_text() for name in ("incident.yaml", "alert.json"))
        assert not any(g["commit"] in told or g["subject"] in told for g in truth["guilty"])


@pytest.mark.slow
def test_the_guilty_commit_explains_the_failure_and_its_revert_mends_it(tmp_path: Path) -> None:
    guilty = TRUTH["guilty"][0]
    git(tmp_path, "clone", "-q", str(FIRST / f"{guilty['repo']}.bundle"), "repo")
    repo = tmp_path / "repo"

    def outcome(ref: str) -> int:
        git(repo, "checkout", "-q", ref)
        return subprocess.run([sys.executable, "-B", "-c", TRUTH["reproducer"]], cwd=repo, check=False).returncode

    assert [outcome(guilty["commit"]), outcome(f"{guilty['commit']}~1"), outcome("main")] == [0, 1, 0]
    git(repo, "-c", "user.name=t", "-c", "user.email=t@t", "revert", "--no-edit", guilty["commit"])
    assert outcome("main") == 1
    assert (
        subprocess.run([sys.executable, "-B", "-m", "unittest", "-q"], cwd=repo, capture_output=True, check=False).returncode == 0
    )


def test_there_are_a_hundred_candidates_and_a_decoy_after_the_onset() -> None:
    assert TRUTH["eligible"]["pricing"] >= 100 and TRUTH["decoys"][0]["service"] == "storefront"
    deployments = json.loads((FIRST / "deployments.json").read_text())
    assert deployments[-1]["service"] == "storefront" and deployments[-1]["timestamp"] > TRUTH["onset"]


def test_a_run_in_which_the_host_stalled_before_the_cause_is_of_no_use() -> None:
    rule = KINDS["latency"](Random(1)).rule
    for slowest, expected in ((120.0, ""), (900.0, "storefront stalled before the cause, in minute 7")):
        points = [(minute, "storefront", "latency_p95_ms", slowest if minute == 7 else 60.0) for minute in range(30)]
        assert trouble(points, rule, (28, 300.0), 25.0) == expected


@pytest.mark.slow
def test_a_seed_gives_the_same_repositories_again(tmp_path: Path) -> None:
    made = []
    for turn in ("a", "b"):
        rng = Random(7)
        scenario = KINDS["exception"](rng)
        (tmp_path / turn).mkdir()
        made.append([one.ids for one in histories(scenario, SHOWN, rng, tmp_path / turn).values()])
    assert made[0] == made[1]
    assert all(len(set(ids)) == len(ids) for ids in made[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_history_of_every_kind_has_its_guilty_commits_decoys_and_a_hundred_candidates(kind: str, tmp_path: Path) -> None:
    """Making a history runs its tests and the reproducer, with the guilty commits and with them taken back."""
    for seed in (21, 22):
        rng = Random(seed)
        scenario = KINDS[kind](rng)
        folder = tmp_path / str(seed)
        folder.mkdir()
        pasts = histories(scenario, SHOWN, rng, folder)
        for service, subject in (*scenario.guilty, *scenario.decoys):
            assert pasts[service].ids.index(pasts[service].id_of(subject)) > pasts[service].deployed
        if scenario.library:
            library = pasts[scenario.library.name]
            assert library.ids.index(library.id_of(scenario.library.guilty)) > library.deployed
        large = pasts[scenario.large]
        assert len(large.ids) - 1 - large.deployed >= 100


@pytest.mark.slow
def test_an_incident_is_made_from_a_real_run(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    assert generate("flag", 11, tmp_path / "out", "one", work)
    case = read_incident(tmp_path / "out" / "one", read)
    truth = json.loads((tmp_path / "out" / "truth" / "one.json").read_text())
    assert case.notes == () and truth["culprits"] == ["storefront.express_checkout"]
    onset = datetime.fromisoformat(truth["onset"])
    failed = (tmp_path / "out" / "one" / "telemetry" / "logs" / "storefront.log").read_text().splitlines()
    times = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in failed if "KeyError" in line]
    assert len(times) > 20 and onset <= times[0] and abs(times[0] - onset) < timedelta(minutes=3)
