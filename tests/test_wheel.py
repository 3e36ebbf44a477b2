"""The wheel: what is installed from it works outside a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_works_outside_a_checkout(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    build = [
        str(uv),
        "build",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "agent/hooks/guard.py",
        "agent/prompt.md",
        "agent/workspace_template/bin/brief",
        "agent/shipped_memory/overview.md",
        "agent/evals/runs.py",
        "agent/evals/incidents/first/incident.yaml",
        "agent/evals/incidents/truth/first.json",
    ):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name]
    assert not [name for name in names if "/incidents/0" in name or "/truth/0" in name], "they are for the repository alone"

    place = tmp_path / "site"
    subprocess.run([str(uv), "pip", "install", "-q", "--no-deps", "--target", str(place), str(wheel)], check=True, timeout=120)
    work = tmp_path / "work"
    work.mkdir()
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    demo = [sys.executable, "-P", "-m", "agent.cli", "--data", str(work / "data"), "demo", "--json"]
    env = {"PYTHONPATH": f"{place}:{packages}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(work)}
    done = subprocess.run(demo, cwd=work, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert '"status": "published"' in done.stdout
