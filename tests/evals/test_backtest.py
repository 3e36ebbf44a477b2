"""Backtests: past investigations of a real store become incidents as of their time; the store is the same afterwards."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.core.errors import ConfigError, NotFound
from agent.core.investigation import Alert, Case, Change, Deployment, RepositoryRef, Status, Trigger
from agent.core.report import Cause, Report
from agent.evals.backtest import Past, rebuild
from agent.incident import read_incident
from agent.repos import Repositories
from agent.store import Store
from agent.triggers import read

AT = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
COMMIT = "c" * 40


def case(number: int, **changes: Any) -> Case:
    alert = Alert(
        source="alertmanager", fingerprint=f"f{number}", title="Orders fail", service="orders", starts_at=AT, labels={"team": "a"}
    )
    trigger = Trigger(kind="alert", key=f"k{number}", at=AT, title="Orders fail", service="orders", alerts=(alert,))
    deployments = (
        Deployment(timestamp=AT - timedelta(minutes=5), service="orders", commit=COMMIT),
        Deployment(timestamp=AT + timedelta(days=1), service="orders", commit="d" * 40),
    )
    return Case(trigger=trigger, deployments=deployments, **changes)


async def investigated(store: Store, number: int, *, verdict: dict[str, Any] | None = None, **changes: Any) -> str:
    """An investigation that is done: a desk, two queries (one of long after), a report that blames a commit."""
    repositories = (RepositoryRef(name="orders", url="/nowhere/orders", service="orders"),)
    changed = (Change(timestamp=AT - timedelta(minutes=7), kind="flag", name="orders.fast", to_value="on"),)
    found, _ = await store.accept(
        None, case(number, repositories=repositories, changes=changed, **changes), enqueue=lambda connection, id: None
    )
    assert found
    journal = await store.take(found.id, "worker")
    await journal.append("desk", {"repositories": [{"name": "orders", "commit": COMMIT}], "memory": "m", "notes": []})
    for name, end in (("0001-logs", AT), ("0002-logs", AT + timedelta(days=2))):
        blob = await journal.put(
            json.dumps({"connector": "logs", "columns": ["time"], "rows": [[end.isoformat()]], "name": name}).encode()
        )
        times = {"start": (end - timedelta(hours=1)).isoformat(), "end": end.isoformat()}
        await journal.append(
            "query", {"connector": "logs", "query": "", "path": f"telemetry/queries/{name}.json", "blob": blob, **times}
        )
    cause = Cause(statement="it broke", category="code", service="orders", repo="orders", commit=COMMIT, confidence=0.9)
    report = Report(
        verdict="root_cause_found", summary="s", causes=(cause,), investigation=found.id, title="t", at=AT, written_at=AT
    )
    investigation = await store.investigation(found.id)
    await store.save_report(found.id, report, lease=investigation.lease)
    await store.set_status(found.id, Status.DONE, lease=investigation.lease)
    if verdict:
        await store.send(found.id, "said", author="ann", key=f"verdict:{number}", kind="verdict", data=verdict)
    return found.id


async def rebuilt(tmp_path: Path, **options: Any) -> Past:
    """What a reader of the store makes of it; the store's bytes are the same before and after."""
    database = tmp_path / "sre-agent.db"
    before = _content(tmp_path)
    store = await Store.reader(f"sqlite:///{database}", tmp_path / "blobs")
    try:
        (tmp_path / "made").mkdir()
        made = await rebuild(store, Repositories(tmp_path / "repos"), tmp_path / "made", **options)
    finally:
        await store.close()
    assert _content(tmp_path) == before
    return made


def _content(folder: Path) -> dict[str, bytes]:
    places = [folder / "sre-agent.db", *(path for path in (folder / "blobs").rglob("*") if path.is_file())]
    return {str(path): path.read_bytes() for path in places}


async def prepared(tmp_path: Path, *verdicts: dict[str, Any] | None, **changes: Any) -> list[str]:
    store = await Store.open(f"sqlite:///{tmp_path}/sre-agent.db", tmp_path / "blobs")
    ids = [await investigated(store, number, verdict=verdict, **changes) for number, verdict in enumerate(verdicts)]
    await store.close()
    return ids


async def test_a_past_investigation_is_an_incident_as_of_its_time(tmp_path: Path) -> None:
    telemetry = tmp_path / "came" / "logs"
    telemetry.mkdir(parents=True)
    (telemetry / "a.log").write_text("2026-03-04T11:59:00Z ERROR x\n")
    (id,) = await prepared(tmp_path, {"right": True}, telemetry=telemetry.parent)
    made = await rebuilt(tmp_path)
    (incident,) = made.incidents
    assert (incident.name, incident.truth.kind, incident.truth.system, incident.truth.guilty[0].commit) == (
        id,
        "judged right",
        "orders",
        COMMIT,
    )
    found = read_incident(incident.folder, read)
    assert (found.notes, found.live, found.trigger.title, found.trigger.alerts[0].labels["team"]) == (
        (),
        False,
        "Orders fail",
        "a",
    )
    assert [d.timestamp for d in found.deployments] == [AT - timedelta(minutes=5)], "what went live later is not known yet"
    assert [change.name for change in found.changes] == ["orders.fast"]
    assert (found.repositories[0].ref, found.repositories[0].url) == (COMMIT, "/nowhere/orders")
    files = sorted(str(path.relative_to(incident.folder / "telemetry")) for path in incident.folder.rglob("telemetry/**/*.*"))
    assert files == ["logs/a.log", "queries/0001-logs.json"], "what was asked of long after is not of its time"


async def test_what_the_engineers_said_is_the_truth(tmp_path: Path) -> None:
    cause = {"repo": "orders", "commit": "ABCDEF1234", "category": "code", "statement": "really"}
    flag = {"repo": "", "commit": None, "change": "orders.fast", "category": "config", "statement": ""}
    verdicts = ({"right": False, "cause": cause}, {"right": False, "cause": flag}, {"right": False, "cause": None}, None)
    await prepared(tmp_path, *verdicts)
    made = await rebuilt(tmp_path)
    truths = [incident.truth for incident in made.incidents]
    assert sorted(((t.kind, [g.commit for g in t.guilty], t.culprits) for t in truths), key=str) == [
        ("corrected", ["abcdef1234"], ()),
        ("corrected", [], ("orders.fast",)),
    ]
    left = "\n".join(made.left_out)
    assert "judged wrong, and nobody said what it really was" in left and "no engineer has judged it" in left


async def test_what_nobody_judged_is_taken_at_its_word_only_when_asked(tmp_path: Path) -> None:
    (id,) = await prepared(tmp_path, None)
    made = await rebuilt(tmp_path, unjudged=True, ids=[id])
    assert [(i.truth.kind, i.truth.guilty[0].commit) for i in made.incidents] == [("unjudged", COMMIT)]


async def test_a_store_that_is_not_there_or_of_another_release_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no store at"):
        await Store.reader(f"sqlite:///{tmp_path}/none/sre-agent.db", tmp_path / "blobs")
    assert not (tmp_path / "none").exists()
    await prepared(tmp_path)
    store = await Store.open(f"sqlite:///{tmp_path}/sre-agent.db", tmp_path / "blobs")
    await store.database.write(lambda transaction: transaction.run("DELETE FROM schema_versions WHERE version > 1"))
    await store.close()
    with pytest.raises(ConfigError, match="its schema is number 1"):
        await Store.reader(f"sqlite:///{tmp_path}/sre-agent.db", tmp_path / "blobs")


@pytest.mark.slow
def test_a_backtest_from_the_command_line(tmp_path: Path) -> None:
    """An investigation by one model, judged by an engineer, run again by another one."""
    incident = tmp_path / "incident"
    incident.mkdir()
    (incident / "incident.yaml").write_text("id: one\nat: 2026-03-01T12:00:00Z\nservice: orders\n")
    (incident / "alert.json").write_text(json.dumps({"title": "Orders fail", "service": "orders", "at": "2026-03-01T12:00:00Z"}))
    home = ["--data", str(tmp_path / "data")]

    def script(name: str, statement: str) -> str:
        cause = {"statement": statement, "category": "external", "confidence": 0.6}
        report = {"verdict": "likely", "summary": "s", "causes": [cause]}
        (tmp_path / name).write_text(json.dumps([{"calls": [{"name": "report", "arguments": report}]}] * 2))
        return f"scripted:{tmp_path / name}"

    first = CliRunner().invoke(main, [*home, "investigate", str(incident), "--model", script("a", "the provider")])
    assert first.exit_code in (0, 3), first.output
    refused = CliRunner().invoke(main, [*home, "backtest", "--model", "statistical"])
    assert (refused.exit_code, "no past investigation can be scored" in refused.output) == (2, True)

    async def judge() -> None:
        store = await Store.open(f"sqlite:///{tmp_path}/data/sre-agent.db", tmp_path / "data" / "blobs")
        (found,) = await store.investigations()
        change = {"change": "payments", "category": "external"}
        await store.send(found.id, "x", author="ann", key="v", kind="verdict", data={"right": False, "cause": change})
        await store.close()

    asyncio.run(judge())
    out = tmp_path / "out"
    done = CliRunner().invoke(main, [*home, "backtest", "--model", script("b", "Payments is down"), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["kind"], result["system"], result["score"]["right"]) == ("corrected", "orders", True)
    assert list((out / "incidents" / "truth").glob("*.json"))
