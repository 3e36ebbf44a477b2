"""The documentation is true: its programs run, its commands exist, its tree is the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agent.cli import main
from tests.provider import Call, Provider, Turn, serve

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


async def test_the_program_in_the_loops_page_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/loop.md").read_text(), re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 26
    names: dict[str, Any] = {}
    exec(compile(program, "docs/loop.md", "exec"), names)  # noqa: S102
    provider = Provider([Turn(calls=[Call(name="disk_usage", arguments={"path": "/var"})]), Turn(text="Yes: 93 %.")])
    async with serve(provider):
        assert await names["main"](provider.key, provider.url, tmp_path) == "Yes: 93 %."
        (_, second) = provider.asked
    assert b"/var: 93 % used" in second.raw


def test_each_command_in_the_readme_exists() -> None:
    used = set(re.findall(r"sre-agent (?:--home \S+ )?([a-z]+)", README)) - {"yaml"}
    assert used and used <= set(main.commands)
    for name in used:
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_dev_is_a_program_that_says_what_it_does() -> None:
    said = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True).stdout
    assert "./dev setup" in said and "./dev inspect" in said


def test_each_command_of_dev_in_the_readme_exists() -> None:
    dev = (ROOT / "dev").read_text()
    for name in set(re.findall(r"\./dev ([a-z-]+)", README)):
        assert f"    {name})" in dev, name


def test_the_readmes_tree_is_the_tree() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    top = re.findall(r"^([a-z_]+)/? ", tree, re.MULTILINE)
    assert set(top) == {"dev", "agent", "hooks", "workspace_template", "memory", "docs"}
    for name in re.findall(r"(?:^  |  )([a-z_]+(?:/|\.py)) ", tree, re.MULTILINE):
        assert any((ROOT / folder / name).exists() for folder in ("", "agent")), name


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
