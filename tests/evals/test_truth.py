"""The published format of what is true of an incident: where it lies, and what is said of a file that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.core.errors import BadInput
from agent.evals.generate.scenarios import KINDS
from agent.evals.truth import incidents, read_truth
from agent.paths import shipped


def folder(tmp_path: Path, truth: str | None, name: str = "one", ending: str = ".json") -> Path:
    (tmp_path / name).mkdir()
    (tmp_path / name / "incident.yaml").write_text("id: one\nat: 2026-03-01T12:00:00Z\n")
    (tmp_path / "truth").mkdir(exist_ok=True)
    if truth is not None:
        (tmp_path / "truth" / f"{name}{ending}").write_text(truth)
    return tmp_path


def test_the_shipped_incidents_have_their_truth_beside_them() -> None:
    found = {incident.name: incident.truth for incident in incidents(shipped("incidents"))}
    assert (found["first"].kind, len(found["first"].guilty)) == ("exception", 1)
    assert sorted(truth.kind for name, truth in found.items() if name != "first") == sorted(KINDS)


def test_one_incident_or_a_folder_of_them(tmp_path: Path) -> None:
    folder(tmp_path, "{}")
    folder(tmp_path, "kind: leak\nguilty:\n- {repo: a, commit: abcdef1}\n", "two", ".yaml")
    (one,) = incidents(tmp_path / "one")
    assert (one.name, one.truth.id, one.truth.system) == ("one", "one", tmp_path.name)
    assert [incident.truth.kind for incident in incidents(tmp_path)] == ["", "leak"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"kind": "x",\n "guilty": [\n', "truth.json:3: not valid JSON"),
        ("[]", "truth.json:1: expected an object, found list"),
        ('{\n "id": "x",\n "gilty": []\n}', "truth.json:3: there is no field 'gilty'; did you mean 'guilty'?"),
        (
            '{\n "guilty": [\n  {"repo": "a",\n   "commit": "1",\n   "sha": 2}\n ]\n}',
            "truth.json:5: there is no field 'guilty.0.sha'",
        ),
        ('{\n "guilty": [\n\n  {"repo": "a"}\n ]\n}', "truth.json:4: guilty.0.commit: Field required"),
        ('{"id": "x",\n "category": "weather"}', "truth.json:2: category: Input should be"),
        ('{"guilty": [{"repo": "a",\n "commit": "main"}]}', "truth.json:2: guilty.0.commit: 'main' is no commit id of seven"),
        ('{\n"eligible": {"a": -1}}', "truth.json:2: eligible.a"),
        ("[" * 100_000, "truth.json:1: not valid JSON: nested too deeply"),
        ('{"onset":\n "soon"}', "truth.json:1: onset: Input should be"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "truth.json"
    file.write_text(text)
    with pytest.raises(BadInput) as raised:
        read_truth(file)
    assert problem in str(raised.value)


def test_an_incident_without_a_truth_and_a_folder_without_incidents(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no incident"):
        incidents(tmp_path)
    folder(tmp_path, None)
    with pytest.raises(BadInput, match=r"nobody says what is true of it: .*truth/one.json does not exist"):
        incidents(tmp_path)
    with pytest.raises(BadInput, match="is no folder"):
        incidents(tmp_path / "nowhere")


def test_the_page_has_the_whole_format() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evals.md").read_text()
    (example,) = [part.split("```")[0] for part in page.split("```json\n")[1:] if '"guilty"' in part.split("```")[0]]
    file = json.loads(example)
    assert set(file) >= {"id", "system", "kind", "category", "guilty", "decoys", "culprits", "onset", "eligible", "relevant"}
