"""Looks for a call that fails at a suspect commit, as the stack traces do, and does not fail at its parent. Python code only.

The function is one of the stack trace's; its arguments come from the repository's own tests and data files and from the logs.
Both
commits are unpacked and run here, so this belongs into a sandbox. What it finds is a command that exits 0 with the suspect.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _analysis import syntax
from _analysis.git import git
from _analysis.kinds import IDLE, kind_of
from _analysis.stacktraces import Frame
from _analysis.suspects import same_file
from _analysis.symptoms import Symptoms
from _analysis.templates import mask

CALLS = 3000
SECONDS = 20
STRINGS, NUMBERS = 250, 25

DRIVER = """
import importlib, json, sys
sys.path[:0] = ["src", "."]
job = json.load(sys.stdin)
out = []
try:
    function = getattr(importlib.import_module(job["module"]), job["name"])
except Exception as error:
    print(json.dumps({"broken": f"{type(error).__name__}: {error}"}))
    raise SystemExit
for arguments in job["calls"]:
    try:
        function(*arguments)
        out.append("")
    except BaseException as error:
        out.append(f"{type(error).__name__}: {error}"[:300])
print("\\n" + json.dumps({"out": out}))
"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A call that tells the two commits apart. `raised` is what it raises at the suspect."""

    module: str
    name: str
    arguments: list[Any]
    raised: str

    def command(self, repo: str) -> str:
        """Exits 0 where the call raises this exception, 1 where it returns or raises another."""
        kind = self.raised.partition(": ")[0]
        call = ", ".join(repr(a) for a in self.arguments)
        lines = [
            "import sys",
            'sys.path[:0] = ["src", "."]',
            f"from {self.module} import {self.name}",
            "try:",
            f"    {self.name}({call})",
            "except Exception as error:",
            f"    if type(error).__name__ == {kind!r}:",
            '        print(f"{type(error).__name__}: {error}")',
            "        sys.exit(0)",
            "sys.exit(1)",
        ]
        return f"cd repos/{shlex.quote(repo)} && python3 -c {shlex.quote(chr(10).join(lines))}"


def search(symptoms: Symptoms, repo: Path, commit: str, parent: str, values: Sequence[str]) -> Found | None:
    """The first call that fails at the commit as the stack traces do, and not at its parent."""
    with tempfile.TemporaryDirectory() as scratch:
        sides = [unpack(repo, ref, Path(scratch) / name) for ref, name in ((commit, "with"), (parent, "without"))]
        if not all(sides):
            return None
        strings, numbers = pool(sides[0] or Path(scratch), values)
        for frame, path in _frames(symptoms, repo, commit):
            parameters = _parameters(Path(scratch) / "with" / path, frame.name)
            if parameters is None:
                continue
            calls = list(_calls(Path(scratch) / "with", frame.name, parameters, strings, numbers))
            found = _try(Path(scratch), path, frame, calls)
            if found:
                return found
    return None


def unpack(repo: Path, ref: str, target: Path) -> Path | None:
    """The code at a commit in a new folder; None where it cannot be had."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(repo), "archive", ref], capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        return None
    target.mkdir()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            place = (target / member.name).resolve()
            content = archive.extractfile(member) if member.isfile() and place.is_relative_to(target.resolve()) else None
            if content:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content.read())
    return target


def _frames(symptoms: Symptoms, repo: Path, commit: str) -> Iterator[tuple[Frame, str]]:
    """The functions of the stack traces that lie in this repository, the deepest first."""
    paths = [p for p in git(repo, "ls-tree", "-r", "--name-only", commit).splitlines() if p.endswith(".py")]
    seen = set()
    for frame in sorted(symptoms.frames, key=lambda f: (f.depth, -f.count))[:20]:
        path = next((p for p in paths if same_file(frame.file, p) and kind_of(p) not in IDLE), "")
        if path and frame.raised and (path, frame.name) not in seen and frame.name.isidentifier():
            seen.add((path, frame.name))
            yield frame, path


def _parameters(path: Path, name: str) -> int | None:
    """How many arguments a top-level function needs; None for a method, an async function or none."""
    try:
        tree = syntax.parse(path.read_text("utf-8", errors="replace"))
    except OSError:
        return None
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == name and not node.args.kwonlyargs:
            needed = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
            return needed if 1 <= needed <= 3 else None
    return None


def pool(folder: Path, values: Sequence[str]) -> tuple[list[str], list[float | int]]:
    """Strings and numbers that the data files, the tests and the logs know."""
    strings: dict[str, None] = dict.fromkeys(values)
    numbers: dict[float | int, None] = dict.fromkeys((0, 1, -1, 100))
    for path in sorted(folder.rglob("*.json"))[:60]:
        try:
            _gather(json.loads(path.read_text("utf-8", errors="replace")[:500_000]), strings, numbers)
        except ValueError:
            continue
    for tree in _trees(folder):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                _gather(node.value, strings, numbers)
    return list(strings)[:STRINGS], list(numbers)[:NUMBERS]


def _gather(value: Any, strings: dict[str, None], numbers: dict[float | int, None]) -> None:
    if isinstance(value, str) and 0 < len(value) <= 60:
        strings.setdefault(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        numbers.setdefault(value)
    elif isinstance(value, dict):
        for key, inner in list(value.items())[:300]:
            _gather(key, strings, numbers)
            _gather(inner, strings, numbers)
    elif isinstance(value, list):
        for inner in value[:300]:
            _gather(inner, strings, numbers)


def _trees(folder: Path) -> Iterator[ast.Module]:
    """The syntax trees of the tests."""
    for path in sorted(folder.rglob("*.py"))[:2000]:
        if kind_of(str(path.relative_to(folder))) == "test":
            try:
                tree = syntax.parse(path.read_text("utf-8", errors="replace"))
            except OSError:
                continue
            if tree:
                yield tree


def _calls(folder: Path, name: str, needed: int, strings: Sequence[str], numbers: Sequence[float | int]) -> Iterator[list[Any]]:
    """Arguments to try: the tests' own with one of them replaced, then plain combinations."""
    known = [call for tree in _trees(folder) for call in _literal_calls(tree, name) if len(call) >= needed][:12]
    made = 0
    pool: list[Any] = [*strings, *numbers, None, "", {}, []]
    for call in known:
        yield call
        for place in range(len(call)):
            for value in pool:
                if made < CALLS and (isinstance(value, type(call[place])) or value in (None, "")):
                    made += 1
                    yield [*call[:place], value, *call[place + 1 :]]
    if known:
        return
    combined: list[list[Any]] = [list(strings)[:60], [*numbers, *strings[:20]], [*numbers[:5], None]]
    yield from _product([pool] if needed == 1 else combined[:needed])


def _product(pools: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    for combination in itertools.islice(itertools.product(*pools), CALLS):
        yield list(combination)


def _literal_calls(tree: ast.Module, name: str) -> Iterator[list[Any]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not node.keywords and _called(node.func) == name:
            try:
                arguments = [syntax.literal(argument) for argument in node.args]
                yield json.loads(json.dumps(arguments))
            except (ValueError, TypeError):
                continue


def _called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _try(scratch: Path, path: str, frame: Frame, calls: list[list[Any]]) -> Found | None:
    module = path.removeprefix("src/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    kind, _, text = frame.raised.rpartition("|")[2].strip().partition(":")
    kind = kind.rsplit(".", 1)[-1]
    sides = [_outcomes(scratch / side, module, frame.name, calls) for side in ("with", "without")]
    if None in sides:
        return None
    wanted = f"{kind}: {text.strip()}"
    best: tuple[int, int] | None = None
    for number, (with_, without) in enumerate(zip(sides[0] or [], sides[1] or [], strict=False)):
        if with_.split(":")[0] == kind and without.split(":")[0] != kind:
            rank = (0 if mask(with_) == mask(wanted) else 1) * 2 + (0 if not without else 1)
            best = min(best, (rank, number)) if best else (rank, number)
    if best is None or best[0] >= 2:
        return None
    return Found(module=module, name=frame.name, arguments=calls[best[1]], raised=(sides[0] or [])[best[1]])


def _outcomes(folder: Path, module: str, name: str, calls: list[list[Any]]) -> list[str] | None:
    job = json.dumps({"module": module, "name": name, "calls": calls})
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER], input=job, capture_output=True, text=True, cwd=folder, timeout=SECONDS, check=False
        )
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return answer.get("out") if isinstance(answer, dict) else None


def values_of(symptoms: Symptoms) -> list[str]:
    """Values that the failing lines name."""
    found: dict[str, None] = {}
    for anomaly in symptoms.anomalies[:20]:
        for seen in anomaly.values.values():
            found.update(dict.fromkeys(value for value in seen if len(value) <= 60))
        found.update(dict.fromkeys(re.findall(r"[\"'=]([A-Za-z][\w-]{2,30})\b", anomaly.quote)))
    return list(found)[:80]
