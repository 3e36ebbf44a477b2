"""The rules that keep the code what it is: imports run downward, one SDK in one file, files stay readable."""

from __future__ import annotations

import functools
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

FLOORS = (
    ("core",),
    ("config", "git", "lock", "patch", "paths", "telemetry", "markdown"),
    (
        "models", "sandboxes", "egress", "connectors", "forges", "triggers", "hooks", "store", "repos", "memory", "evidence", "redaction",
        "incident",
    ),
    ("tools", "proposals", "desk", "cases", "delegation", "succession", "firstlook"),
    ("engine", "worker", "server"),
    ("preview", "judgement", "publishing", "ablation"),
    ("assembly",),
    ("cli", "commands", "evals"),
)  # fmt: skip

SDK = {
    "anthropic": ("agent/models/anthropic.py",),
    "openai": ("agent/models/openai.py",),
    "dbos": ("agent/engine.py",),
    "azure": ("agent/connectors/kusto.py",),
    "grafana_client": ("agent/connectors/grafana.py",),
    "git": ("agent/git.py",),
    "detect_secrets": ("agent/redaction/detectors.py",),
    "tiktoken": ("agent/models/tokens.py",),
    "cryptography": ("agent/egress/authority.py",),
    "h11": ("agent/egress/client.py", "agent/egress/exchange.py", "agent/egress/proxy.py"),
}
SAME_FLOOR = {
    ("git", "lock"), ("patch", "git"),
    ("hooks", "evidence"), ("hooks", "redaction"), ("evidence", "redaction"), ("evidence", "repos"),
    ("desk", "tools"), ("delegation", "tools"), ("tools", "proposals"),
    ("sandboxes", "egress"), ("cli", "commands"), ("commands", "evals"),
}  # fmt: skip


@functools.cache
def _files() -> list[Path]:
    folders = [ROOT / "agent", ROOT / "hooks", ROOT / "evals"]
    return sorted(
        p for folder in folders for p in folder.rglob("*.py") if "agent/hooks" not in str(p) and "agent/evals" not in str(p)
    )


def _code() -> list[Path]:
    return [path for path in _files() if (ROOT / "agent/workspace_template") not in path.parents]


_IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) import (\([^)]*\)|[^\n]+)|import ([\w., ]+))", re.MULTILINE)


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    """What is imported anywhere in a file. Read as text: to parse every file takes seconds."""
    found: list[str] = []
    for module, names, plain in _IMPORT.findall(path.read_text()):
        found += [name.split()[0] for name in plain.split(",") if name.strip()]
        if module:
            found += [module, *(f"{module}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip())]
    return tuple(found)


def _part(path: Path) -> str:
    """The part of the program a file belongs to: agent/core/loop.py is `core`, hooks/budget.py is `hooks`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "agent" and len(parts) > 1 else parts[0]


def _floor(part: str) -> int | None:
    return next((number for number, floor in enumerate(FLOORS) if part in floor), None)


def test_imports_run_downward() -> None:
    for path in _code():
        _check_floors(path)


def _check_floors(path: Path) -> None:
    here = _part(path)
    if here in ("__init__", "__main__"):
        return
    floor = _floor(here)
    assert floor is not None, f"{here} has no floor: say in FLOORS where it belongs"
    for name in _imports(path):
        if not name.startswith("agent.") or name.split(".")[1] == here:
            continue
        there = name.split(".")[1]
        other = _floor(there)
        if other is None:
            continue
        allowed = other < floor or (here, there) in SAME_FLOOR
        assert allowed, f"{path.relative_to(ROOT)} imports {name}: {here} may not see {there}"


def test_one_sdk_is_imported_by_one_file() -> None:
    for path in _code():
        for name in _imports(path):
            homes = SDK.get(name.split(".")[0])
            if homes and not name.startswith("agent."):
                assert str(path.relative_to(ROOT)) in homes, f"{path.relative_to(ROOT)} imports {name}; only {homes} may"


def test_only_the_configuration_reads_the_environment() -> None:
    for path in _code():
        text = path.read_text()
        if path.name != "config.py":
            assert "os.environ" not in text and "os.getenv" not in text, f"{path.relative_to(ROOT)} reads the environment"


def test_every_file_says_what_it_is() -> None:
    for path in _code():
        opens = re.sub(r"\A(?:#[^\n]*\n|\s)+", "", path.read_text())
        assert not opens or opens.startswith('"""'), f"{path.relative_to(ROOT)} opens without a sentence"


def test_no_file_is_one_that_a_newcomer_dreads() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _code()}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


def test_core_holds_no_sdk_and_nothing_else_of_ours() -> None:
    for path in (ROOT / "agent/core").glob("*.py"):
        for name in _imports(path):
            allowed = name.startswith(("agent.core", "pydantic")) or name.split(".")[0] in _standard_library()
            assert allowed, f"{path.name} imports {name}"


def _standard_library() -> frozenset[str]:
    import sys

    return frozenset(sys.stdlib_module_names)
