"""`python -m agent.evals.generate KIND --seed N --out DIR`: makes, runs and records one incident, or with `all` one of each kind.

DIR/NAME becomes the incident folder and DIR/truth/NAME.json what really happened. A run whose alert does not fire, or whose
symptom is there before its cause (a host that was busy with something else), is made again. Exit code 2 where none was sound.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import yaml

from agent.evals.generate import record
from agent.evals.generate.clock import Clock, rfc
from agent.evals.generate.features import POOLS
from agent.evals.generate.history import Commit, Plan, commits, git, write
from agent.evals.generate.scenario import Deploy, Library, Scenario, Turn
from agent.evals.generate.scenarios import KINDS
from agent.evals.generate.system import SERVICES, Load, Payments, System, first_tree, running

ALL = "all"
FACTOR = 80.0  # shown seconds for each real one
AFTER_ALERT = timedelta(minutes=4)
RUNS = 6
WARMING = 3.0  # real seconds of requests before the shown time begins
LARGE = (30, 108)
LIBRARY = (22, 26)
SIZES = {"pricing": (58, 26), "orders": (34, 16), "storefront": (34, 22)}
VERSIONS = {"pricing": 17, "orders": 31, "storefront": 88}


@dataclass(kw_only=True)
class Past:
    """A service's repository: its commits, their ids, and which of them was deployed before the newest."""

    repository: Path
    made: list[Commit]
    ids: list[str]
    deployed: int

    def id_of(self, subject: str) -> str:
        """The id of the newest commit with a subject."""
        return next(sha for commit, sha in zip(reversed(self.made), reversed(self.ids), strict=True) if commit.subject == subject)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m agent.evals.generate", description=__doc__)
    parser.add_argument("kind", choices=[ALL, *sorted(KINDS)])
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same histories (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="where the folders go")
    parser.add_argument("--name", default="", help="of the incident folder; neutral, because whoever investigates it reads it")
    parser.add_argument("--jobs", type=int, default=1, help="how many are made side by side (default: %(default)s)")
    asked = parser.parse_args()
    if asked.kind == ALL and asked.name:
        parser.error("`all` names the folders itself, 0001 and on, so that a name says nothing of the kind")
    wanted = named(asked.seed) if asked.kind == ALL else {asked.name or f"{asked.seed:04d}": asked.kind}
    with ThreadPoolExecutor(max_workers=max(1, asked.jobs)) as pool:
        made = list(pool.map(lambda one: _alone(one[1], asked.seed, asked.out, one[0], asked.kind != ALL), wanted.items()))
    sys.exit(0 if all(made) else 2)


def named(seed: int) -> dict[str, str]:
    """The kinds by the names of their folders, in an order of this seed's own."""
    kinds = sorted(KINDS)
    Random(seed).shuffle(kinds)
    return {f"{number:04d}": kind for number, kind in enumerate(kinds, 1)}


def _alone(kind: str, seed: int, out: Path, name: str, here: bool) -> bool:
    """Makes one incident, here or in a process of its own: threads of several would take time from each other's requests."""
    if not here:
        command = [sys.executable, "-m", "agent.evals.generate", kind, "--seed", str(seed), "--out", str(out), "--name", name]
        sound = subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
        print(f"{out / name}" if sound else f"{out / name}: no run was sound; try again on a host that does nothing else")
        return sound
    with tempfile.TemporaryDirectory(prefix="shop-") as work:
        return generate(kind, seed, out, name, Path(work))


@dataclass(kw_only=True)
class Run:
    """What one run of the system showed: when each event really happened, and in `trouble` why it is of no use, or ""."""

    points: list[record.Point]
    alert: tuple[int, float] | None
    times: dict[Deploy | Turn, datetime]
    trouble: str = ""


def generate(kind: str, seed: int, out: Path, name: str, work: Path) -> bool:
    """Makes one incident; whether one of RUNS was sound. The folder is written only then."""
    rng = Random(f"{kind}-{seed}")
    scenario = KINDS[kind](rng)
    shown = datetime(2026, 3, 3, 7, tzinfo=UTC) + timedelta(days=rng.randrange(0, 120), minutes=rng.randrange(0, 540))
    shown -= timedelta(days=max(0, shown.weekday() - 4))  # a working day
    pasts = histories(scenario, shown, rng, work)
    for attempt in range(RUNS):
        folder = _fresh(work / f"incident-{attempt}")
        run = _run(scenario, pasts, shown, Random(seed), work / f"run-{attempt}", folder)
        if run.alert and not run.trouble:
            at = shown + timedelta(minutes=run.alert[0])
            _write_case(folder, name, scenario, at, run.alert[1])
            _write_records(folder, scenario, pasts, run.times, shown)
            for service, one in pasts.items():
                git(one.repository, "bundle", "create", "-q", str(folder.absolute() / f"{service}.bundle"), "--all")
            target = out / name
            if target.exists():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, target)
            truth = out / "truth" / f"{name}.json"
            truth.parent.mkdir(parents=True, exist_ok=True)
            told = _truth(scenario, pasts, name, seed, run.times)
            truth.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
            return True
        print(f"run {attempt + 1} of {RUNS} is of no use: {run.trouble}", file=sys.stderr)
    return False


def _run(scenario: Scenario, pasts: Mapping[str, Past], shown: datetime, rng: Random, work: Path, folder: Path) -> Run:
    """Runs the system through the scenario once and writes its telemetry."""
    repositories = {service: pasts[service].repository for service in SERVICES}
    libraries = {name: one.repository for name, one in pasts.items() if name not in SERVICES}
    before = {service: pasts[service].ids[pasts[service].deployed] for service in SERVICES}
    times: dict[Deploy | Turn, datetime] = {}
    with Payments() as payments, running(work, repositories, before, {"PAYMENTS_URL": payments.url}, libraries) as system:
        for service in SERVICES:
            system.required(system.checkout(service, pasts[service].ids[-1]))
        clock = Clock(real=time.time() + WARMING, shown=shown, factor=FACTOR)
        with Load(system.url("storefront"), rng, scenario.mix) as load, record.Scraper(system, clock) as scraper:
            events: list[Deploy | Turn] = [*scenario.deploys, *scenario.turns]
            for event in sorted(events, key=lambda event: event.minute):
                clock.wait(timedelta(minutes=event.minute))
                times[event] = clock.at(time.time())
                if isinstance(event, Deploy):
                    commit = pasts[event.service].ids[-1] if event.newest else system.deployed[event.service]
                    times[event] = clock.at(system.deploy(event.service, commit, event.environment))
                    load.forget() if event.service == "orders" else None
                else:
                    _turn(event, system, load, payments)
            _watch(scenario, scraper, clock)
        points = record.metrics(scraper.seen)
        alert = record.firing(points, scenario.rule)
        onset = (_onset(scenario, times) - shown) / timedelta(minutes=1)
        trouble = record.trouble(points, scenario.rule, alert, onset)
        if alert:
            until = shown + timedelta(minutes=alert[0]) + AFTER_ALERT
            points = [point for point in points if shown + timedelta(minutes=point[0]) <= until]
            telemetry = {part: folder / "telemetry" / part for part in ("logs", "metrics", "traces")}
            for part in telemetry.values():
                part.mkdir(parents=True)
            record.write_metrics(telemetry["metrics"] / "services.csv", points, clock)
            record.write_logs(telemetry["logs"], system, clock, until)
            record.write_traces(telemetry["traces"] / "traces.json", system, clock, until)
    return Run(points=points, alert=alert, times=times, trouble=trouble)


def _watch(scenario: Scenario, scraper: record.Scraper, clock: Clock) -> None:
    """Waits until the alert has fired and some minutes more, or the scenario's time is over."""
    last = max([*(deploy.minute for deploy in scenario.deploys), *(turn.minute for turn in scenario.turns)]) + 3
    for minute in range(int(last), scenario.minutes + 1):
        clock.wait(timedelta(minutes=minute))
        alert = record.firing(record.metrics(scraper.seen), scenario.rule)
        if alert and minute > alert[0] + AFTER_ALERT / timedelta(minutes=1):
            return


def _turn(turn: Turn, system: System, load: Load, payments: Payments) -> None:
    if turn.mix is not None:
        load.mix = turn.mix
    if turn.flags is not None:
        system.switch(turn.flags)
    if turn.payments is not None:
        payments.works = turn.payments


def histories(scenario: Scenario, shown: datetime, rng: Random, work: Path) -> dict[str, Past]:
    """The repositories of all services, and of the library if the scenario has one."""
    pasts = {}
    if scenario.library:
        pasts[scenario.library.name] = _library(scenario.library, shown, rng, work)
    return {service: past(service, scenario, shown, rng, work) for service in SERVICES} | pasts


def _library(library: Library, shown: datetime, rng: Random, work: Path) -> Past:
    """Makes a library's repository; what lies between its two releases is newer than `deployed`."""
    earlier, later = LIBRARY
    turn = shown - timedelta(days=61)
    plan = Plan(
        first=first_tree(library.name),
        chains=POOLS[library.name](rng),
        spans=((earlier, shown - timedelta(days=160), turn), (later, turn, shown - timedelta(days=9))),
        fixed=library.fixed,
    )
    made = commits(plan, rng)
    repository = work / f"{library.name}.git"
    ids = write(repository, made, {f"v{library.old}": earlier - 1, f"v{library.new}": len(made) - 1})
    return Past(repository=repository, made=made, ids=ids, deployed=earlier - 1)


def past(service: str, scenario: Scenario, shown: datetime, rng: Random, work: Path) -> Past:
    """Makes a service's repository. Its newest deployment holds every commit since the one before."""
    earlier, later = LARGE if service == scenario.large else SIZES[service]
    turn = shown - timedelta(days=23 if service == scenario.large else 6, hours=3)
    plan = Plan(
        first=first_tree(service),
        chains=POOLS[service](rng),
        spans=((earlier, shown - timedelta(days=118), turn), (later, turn, shown - timedelta(hours=5))),
        early=scenario.early.get(service, ()),
        fixed=scenario.fixed.get(service, ()),
    )
    made = commits(plan, rng)
    number = VERSIONS[service]
    repository = work / f"{service}.git"
    ids = write(repository, made, {f"v{number}": earlier - 1, f"v{number + 1}": len(made) - 1})
    _check(repository, service, scenario, ids, made)
    return Past(repository=repository, made=made, ids=ids, deployed=earlier - 1)


def _check(repository: Path, service: str, scenario: Scenario, ids: list[str], made: list[Commit]) -> None:
    """The tests pass at both deployed commits, and still do with the guilty commits taken back. Raises CalledProcessError."""
    checkout = repository.parent / f"{service}-check"
    git(repository.parent, "clone", "-q", str(repository), str(checkout))
    tests = [sys.executable, "-B", "-m", "unittest", "-q"]
    if scenario.library and (checkout / "requirements.txt").exists():
        library = repository.parent / f"{scenario.library.name}-check"
        if not library.exists():
            git(repository.parent, "clone", "-q", str(repository.parent / f"{scenario.library.name}.git"), str(library))
        tests = [
            sys.executable,
            "-B",
            "-c",
            f"import sys; sys.path.append({str(library)!r}); import unittest; unittest.main(module=None)",
            "-q",
        ]
    subprocess.run(tests, cwd=checkout, check=True, capture_output=True)
    for index, (owner, subject) in enumerate(scenario.guilty):
        if owner == service:
            program = scenario.reproducer if index == 0 else ""
            sha = next(sha for commit, sha in zip(reversed(made), reversed(ids), strict=True) if commit.subject == subject)
            reproducer = [sys.executable, "-B", "-c", program]
            if program and subprocess.run(reproducer, cwd=checkout, check=False).returncode != 0:
                raise RuntimeError("the reproducer does not fail with the suspect")
            git(checkout, "revert", "--no-edit", sha)
            subprocess.run(tests, cwd=checkout, check=True, capture_output=True)
            if program and subprocess.run(reproducer, cwd=checkout, check=False).returncode != 1:
                raise RuntimeError("the reproducer does not pass without the suspect")
    shutil.rmtree(checkout)


def _fresh(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _write_case(folder: Path, name: str, scenario: Scenario, at: datetime, value: float) -> None:
    rule = scenario.rule
    incident = {
        "id": name,
        "title": rule.summary,
        "at": rfc(at),
        "service": rule.service,
        "alert": "alert.json",
        "source": "alertmanager",
        "repos": [
            *({"name": service, "path": f"{service}.bundle", "service": service} for service in SERVICES),
            *([{"name": scenario.library.name, "path": f"{scenario.library.name}.bundle"}] if scenario.library else []),
        ],
        "telemetry": "telemetry/",
        "deployments": "deployments.json",
        "changes": "changes.json",
    }
    (folder / "incident.yaml").write_text(yaml.safe_dump(incident, sort_keys=False), "utf-8")
    labels = {"alertname": rule.name, "service": rule.service, "severity": rule.severity}
    annotations = {
        "summary": rule.summary,
        "description": f"{rule.metric} of {rule.service} is {value:g}, {'below' if rule.below else 'above'} {rule.limit:g}.",
    }
    alert = {
        "status": "firing",
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc(at),
        "endsAt": "0001-01-01T00:00:00Z",
    }
    payload = {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{rule.name}"}}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "agent",
        "groupLabels": {"alertname": rule.name},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "http://alertmanager.shop.example:9093",
        "alerts": [
            {**alert, "generatorURL": "http://prometheus.shop.example:9090/graph", "fingerprint": f"{hash_of(rule.name):016x}"}
        ],
    }
    (folder / "alert.json").write_text(json.dumps(payload, indent=1) + "\n", "utf-8")


def hash_of(text: str) -> int:
    """FNV-1a, as Alertmanager's fingerprints are."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def _write_records(
    folder: Path, scenario: Scenario, pasts: Mapping[str, Past], times: Mapping[Deploy | Turn, datetime], shown: datetime
) -> None:
    deployments = []
    for service, one in ((service, pasts[service]) for service in SERVICES):
        first = one.made[one.deployed].at + timedelta(hours=2)
        deployments.append(_deployment(first, service, VERSIONS[service], one.ids[one.deployed]))
    for deploy in (deploy for deploy in scenario.deploys if deploy.newest):
        at = times[deploy]
        deployments.append(_deployment(at, deploy.service, VERSIONS[deploy.service] + 1, pasts[deploy.service].ids[-1]))
    deployments.sort(key=lambda row: str(row["timestamp"]))
    (folder / "deployments.json").write_text(json.dumps(deployments, indent=1) + "\n", "utf-8")
    changes = []
    for change in scenario.changes:
        values = dict(change)
        minutes = float(str(values.pop("minute")))
        changes.append({"timestamp": rfc(shown + timedelta(minutes=minutes)), **values})
    (folder / "changes.json").write_text(json.dumps(changes, indent=1) + "\n", "utf-8")


def _deployment(at: datetime, service: str, number: int, commit: str) -> dict[str, Any]:
    return {"timestamp": rfc(at), "service": service, "version": f"v{number}", "commit": commit}


def _onset(scenario: Scenario, times: Mapping[Deploy | Turn, datetime]) -> datetime:
    """When the first guilty event happened."""
    guilty = {service for service, _ in scenario.guilty}
    starts = [times[deploy] for deploy in scenario.deploys if deploy.service in guilty or not deploy.newest]
    return min([*starts, *(times[turn] for turn in scenario.turns)])


def _truth(
    scenario: Scenario, pasts: Mapping[str, Past], name: str, seed: int, times: Mapping[Deploy | Turn, datetime]
) -> dict[str, Any]:
    blamed = [*scenario.guilty, *([(scenario.library.name, scenario.library.guilty)] if scenario.library else [])]
    return {
        "id": name,
        "system": "shop",
        "kind": scenario.kind,
        "seed": seed,
        "verdict": scenario.verdict,
        "category": scenario.category,
        "mechanism": scenario.mechanism,
        "guilty": [{"service": s, "repo": s, "commit": pasts[s].id_of(subject), "subject": subject} for s, subject in blamed],
        "decoys": [
            {"service": s, "repo": s, "commit": pasts[s].id_of(subject), "subject": subject} for s, subject in scenario.decoys
        ],
        "onset": rfc(_onset(scenario, times)),
        "culprits": list(scenario.culprits),
        "eligible": {service: len(one.ids) - 1 - one.deployed for service, one in pasts.items()},
        "reproducer": scenario.reproducer,
    }


if __name__ == "__main__":
    main()
