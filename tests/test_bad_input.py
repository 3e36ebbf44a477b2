"""An incident folder with everything wrong with it: each fault is named with file and line, and the investigation goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent import triggers
from agent.core.investigation import Status
from agent.incident import read_incident
from tests.test_walkthrough import INCIDENT, TRUTH, _run, _service


def _copy(tmp_path: Path) -> Path:
    folder = tmp_path / "incident"
    shutil.copytree(INCIDENT, folder)
    return folder


@pytest.mark.slow
async def test_everything_broken_at_once_still_finds_the_cause(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    manifest = (folder / "incident.yaml").read_text()
    (folder / "incident.yaml").write_text(
        manifest.replace("telemetry: telemetry/", "- name: gone\n  path: gone.git\ntelemetry: telemetry/")
    )
    metrics = next((folder / "telemetry/metrics").glob("*.csv"))
    lines = metrics.read_text().splitlines()
    lines[5:5] = ["2026-04-17T11:0", "not,a,row", "2026-04-17T11:00:00Z,pricing,latency,NaN-ish", "\x00\x00"]
    metrics.write_text("\n".join(lines) + "\n")
    (folder / "telemetry/logs/broken.log").write_bytes(b"\xff\xfe\x00garbage without a time\n" * 50)
    (folder / "telemetry/logs/empty.log").touch()
    (folder / "telemetry/traces/cut.json").write_text('[{"trace_id": "1", "span')
    deployments = json.loads((folder / "deployments.json").read_text())
    deployments.append({"timestamp": "2026-04-17T13:36:00+02:00", "service": "orders", "commit": "deadbeef" * 5})
    deployments.append({"timestamp": "half past nine", "service": "orders"})
    (folder / "deployments.json").write_text(json.dumps(deployments))
    (folder / "changes.json").write_text('{"not": "a list"')

    async with _service(tmp_path) as parts:
        investigation, report = await _run(parts, read_incident(folder, triggers.read))

    assert investigation.status is Status.DONE
    assert report.causes and report.causes[0].commit == TRUTH["guilty"][0]["commit"]
    notes = "\n".join(report.notes)
    for problem in (
        "gone",
        "deadbeefdead",
        "deployments.json[6].timestamp: 'half past nine' is no RFC 3339 time",
        "changes.json:1: not valid JSON",
    ):
        assert problem in notes, f"{problem!r} is not in:\n{notes}"
    said = f"{notes}\n{report.brief}\n{report.summary}"
    for problem in ("services.csv:6", "cut.json", "broken.log"):
        assert problem in said, f"{problem!r} is not in:\n{said}"


@pytest.mark.slow
async def test_an_empty_log_folder_and_no_repository_is_an_honest_report(tmp_path: Path) -> None:
    folder = tmp_path / "incident"
    (folder / "telemetry/logs").mkdir(parents=True)
    (folder / "incident.yaml").write_text("id: bare\nat: 2026-04-17T11:38:00Z\ntitle: Something is slow\n")
    async with _service(tmp_path) as parts:
        investigation, report = await _run(parts, read_incident(folder, triggers.read))
    assert investigation.status is Status.DONE
    assert report.verdict == "inconclusive"
    assert "the telemetry folder is empty" in "\n".join(report.notes)


@pytest.mark.slow
async def test_a_log_of_two_gigabytes_is_windowed(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    line = b"2026-04-17T10:%02d:%02d.%03dZ INFO request served path=/products status=200 ms=%d\n"
    with (folder / "telemetry/logs/edge.log").open("wb") as log:
        block = b"".join(line % (n // 3000 % 60, n // 50 % 60, n % 1000, n % 90) for n in range(180_000))
        for _ in range(2 * 10**9 // len(block) + 1):
            log.write(block)
    async with _service(tmp_path) as parts:
        investigation, report = await _run(parts, read_incident(folder, triggers.read))
    assert investigation.status is Status.DONE
    assert report.causes and report.causes[0].commit == TRUTH["guilty"][0]["commit"]
    print(f"\n2 GB of logs: {report.usage.seconds:.1f} s")
