"""The evals as a task of inspect_ai, run by inspect_ai itself in the environment that `./dev test-all` makes for it: no key, no
network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSPECT = Path(sys.prefix) / "inspect" / "bin" / "inspect"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(
    not INSPECT.exists(), reason="inspect_ai has no environment here; `./dev test-all` and `./dev inspect` make it"
)
def test_the_scorers_are_inspects_scorers_too(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "one"
    folder.mkdir(parents=True)
    (folder / "incident.yaml").write_text("id: one\nat: 2026-03-01T12:00:00Z\n")
    (tmp_path / "set" / "truth").mkdir()
    (tmp_path / "set" / "truth" / "one.json").write_text('{"kind": "traffic"}')
    cause = {"statement": "a sale", "category": "capacity", "confidence": 0.6}
    report = {"verdict": "likely", "summary": "s", "causes": [cause]}
    (tmp_path / "script.yaml").write_text(json.dumps([{"calls": [{"name": "report", "arguments": report}]}] * 2))
    command = [
        str(INSPECT),
        "eval",
        f"{ROOT}/evals/inspect_task.py@incidents",
        "--model",
        "none",
        "--display",
        "plain",
        "--log-format",
        "json",
    ]
    arguments = [
        "-T",
        f"folder={tmp_path}/set",
        "-T",
        f"model=scripted:{tmp_path}/script.yaml",
        "--log-dir",
        str(tmp_path / "logs"),
    ]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (tmp_path / "logs").glob("*.json")
    header = json.loads(log.read_text())
    assert header["status"] == "success", header.get("error")
    means = {score["name"]: score["metrics"]["mean"]["value"] for score in header["results"]["scores"]}
    assert (means["right"], means["rightly_none"], means["wrong_as_found"], means["decoy_blamed"]) == (1.0, 1.0, 0.0, 0.0)
    assert round(means["brier"], 6) == 0.49, "a cause without evidence keeps no more than 30 %"
