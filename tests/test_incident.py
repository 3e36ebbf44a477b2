"""Incident folders: what is broken in one becomes a note that names file and place, and the rest is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import triggers
from agent.core.errors import BadInput
from agent.core.investigation import Case
from agent.incident import read_incident

AT = "at: 2026-03-01T12:00:00Z\n"


def _read(tmp_path: Path, manifest: str = "id: one\n" + AT, **files: str | bytes) -> Case:
    (tmp_path / "incident.yaml").write_text(manifest)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / f"{name}.json").write_bytes(data)
    return read_incident(tmp_path, triggers.read)


def test_the_least_there_can_be(tmp_path: Path) -> None:
    case = _read(tmp_path)
    assert (case.trigger.kind, case.trigger.title, case.trigger.at) == ("api", "one", datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert [note.removeprefix(str(tmp_path)) for note in case.notes] == [
        "/alert.json: there is no alert; the incident's own title stands for it",
        "/telemetry: there is no telemetry folder; what is claimed rests on code, deployments and changes",
    ]


def test_times_of_other_zones_become_utc(tmp_path: Path) -> None:
    rows = [
        {"timestamp": "2026-03-01T13:30:00+02:00", "service": "a", "commit": "c"},
        {"timestamp": "2026-03-01T11:30:00", "service": "b", "version": 7},
    ]
    case = _read(tmp_path, "id: x\nat: 2026-03-01 14:00:00 +02:00\n", deployments=json.dumps(rows))
    assert case.trigger.at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert {d.timestamp for d in case.deployments} == {datetime(2026, 3, 1, 11, 30, tzinfo=UTC)}
    assert case.deployments[1].version == "7"


def test_broken_records_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = ["no", {"service": "a"}, {"timestamp": "soon", "service": "a"}, {"timestamp": "2026-03-01T11:00:00Z", "service": "a"}]
    case = _read(tmp_path, deployments=json.dumps(rows), changes='[{"timestamp": ')
    assert len(case.deployments) == 1 and case.changes == ()
    notes = "\n".join(case.notes)
    for place in (
        "deployments.json[0]: expected an object",
        "deployments.json[1]: timestamp missing",
        "changes.json:1: not valid JSON",
    ):
        assert place in notes
    assert "deployments.json[2].timestamp: 'soon' is no RFC 3339 time" in notes


def test_a_broken_alert_is_a_note(tmp_path: Path) -> None:
    case = _read(tmp_path, "id: x\nsource: alertmanager\n" + AT, alert=b'{"alerts": [\xff\xfe')
    assert case.trigger.alerts == ()
    assert "alert.json: not readable as an alert of source 'alertmanager'" in "\n".join(case.notes)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("", "expected `name: value` lines"),
        ("id: x", "at missing"),
        ("id: x\nat: noon", "'noon' is no RFC 3339 time"),
        ("id: x\ntelemetri: t\n" + AT, ":2: there is no field 'telemetri'; did you mean 'telemetry'?"),
        ("id: x\nrepos: [{name: a}]\n" + AT, "repos[0]: a repository needs `name` and `path` or `url`"),
        ("id: x\nsource: pagerdutty\n" + AT, "there is no alert source 'pagerdutty'"),
        ("id: [", "cannot be read"),
    ],
)
def test_an_unusable_manifest_is_refused(tmp_path: Path, manifest: str, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        _read(tmp_path, manifest, alert="{}")
    assert problem in str(caught.value)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no incident folder"):
        read_incident(tmp_path, triggers.read)
