"""How the tests of repositories are run and what their output says: a table of runners. It runs nothing itself."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Sequence

from agent.core.data import Data

Parse = Callable[[str], tuple[frozenset[str], frozenset[str]]]
"""From a run's output, the names of the tests that passed and of those that failed."""

TEST_FILE = re.compile(
    r"(^|/)(tests?|specs?|__tests__)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.(py|go|rs)$|\.(test|spec)\.[cm]?[jt]sx?$"
)


class Runner(Data):
    """A way to run tests.

    markers: names of files whose folder the tests are run in. languages: endings of the files it is about.
    needs: a command that succeeds where the runner is there. command: what is run, in that folder.
    """

    name: str
    markers: tuple[str, ...]
    languages: tuple[str, ...]
    needs: str
    command: str
    parse: Parse


class Candidate(Data):
    """A runner that may fit a repository: the folder to run in, relative to it, and the command."""

    runner: Runner
    folder: str
    command: str


def is_test(path: str) -> bool:
    """Whether a file belongs to the tests."""
    return TEST_FILE.search(path) is not None


def pytest_names(output: str) -> tuple[frozenset[str], frozenset[str]]:
    """From the short summary of `pytest -rpfE`."""
    rows = [("PASSED", name) for name in re.findall(r"^PASSED (\S.*)$", output, re.MULTILINE)]
    rows += re.findall(r"^(FAILED|ERROR) (\S(?:[^\[\n]|\[[^\]\n]*\])*?)(?: - .*)?$", output, re.MULTILINE)
    return _split((name, outcome == "PASSED") for outcome, name in rows if "::" in name or name.endswith(".py"))


def unittest_names(output: str) -> tuple[frozenset[str], frozenset[str]]:
    """From `unittest -v`: the outcome may stand lines below the name, after a docstring or what the test printed."""
    found: list[tuple[str, bool]] = []
    current = ""
    for line in output.splitlines():
        if summary := re.match(r"(?:FAIL|ERROR): ([\w.]+) \(([\w.]+)\)", line):
            found.append((_full(summary[1], summary[2]), False))
            continue
        if test := re.match(r"([\w.]+) \(([\w.]+)\)", line):
            current = _full(test[1], test[2])
        outcome = re.search(r"(?:^|\W)(ok|FAIL|ERROR|skipped .*|expected failure|unexpected success)$", line)
        if current and outcome:
            found += [(current, outcome[1] == "ok")] if outcome[1] in ("ok", "FAIL", "ERROR") else []
            current = ""
    return _split(found)


def _full(name: str, where: str) -> str:
    """The dotted name of a test; since Python 3.11 the part in brackets ends in its name, before it does not."""
    return where if where.endswith(f".{name}") else f"{where}.{name}"


def go_names(output: str) -> tuple[frozenset[str], frozenset[str]]:
    """From `go test -v`: tests are followed by the line of their package."""
    found: list[tuple[str, bool]] = []
    pending: list[tuple[str, bool]] = []
    for line in output.splitlines():
        if test := re.match(r"\s*--- (PASS|FAIL): (\S+)", line):
            pending.append((test[2], test[1] == "PASS"))
        elif package := re.match(r"(ok|FAIL)\s+(\S+)\s+(\[build failed\]|\[setup failed\])?", line):
            found += [(f"{package[2]}.{name}", passed) for name, passed in pending]
            if package[1] == "FAIL" and package[3]:
                found.append((f"{package[2]} {package[3]}", False))
            pending = []
    return _split([*found, *pending])


def cargo_names(output: str) -> tuple[frozenset[str], frozenset[str]]:
    """From `cargo test`."""
    rows = re.findall(r"^test (\S.*?) \.\.\. (ok|FAILED)$", output, re.MULTILINE)
    return _split((name, outcome == "ok") for name, outcome in rows)


def script_names(output: str) -> tuple[frozenset[str], frozenset[str]]:
    """From the test runners of JavaScript: TAP, and lists with a mark before each name."""
    rows: list[tuple[str, bool]] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines():
        if tap := re.match(r"\s*(not ok|ok) \d+(?: -)? ([^#]+?)\s*(?:#.*)?$", line):
            rows.append((tap[2], tap[1] == "ok"))
        elif mark := re.match(r"\s*([✓✔√✕✖✗×]|\d+\)) (.+?)(?: \(?[\d.]+ ?m?s\)?)?\s*$", line):
            rows.append((mark[2], mark[1] in "✓✔√"))
    return _split(rows)


def any_names(output: str) -> tuple[frozenset[str], frozenset[str]]:
    """From whatever a command of the repository's own runs: the first reading that finds tests."""
    readings = (pytest_names, unittest_names, go_names, cargo_names, script_names)
    return next((found for found in (parse(output) for parse in readings) if any(found)), (frozenset(), frozenset()))


def _split(rows: Iterable[tuple[str, bool]]) -> tuple[frozenset[str], frozenset[str]]:
    outcomes: dict[str, bool] = {}
    for name, passed in rows:
        outcomes[name] = outcomes.get(name, True) and passed
    return frozenset(n for n, passed in outcomes.items() if passed), frozenset(n for n, p in outcomes.items() if not p)


PYTHON = ("pyproject.toml", "setup.py", "setup.cfg", "pytest.ini", "tox.ini")
PYTEST = Runner(
    name="pytest", markers=PYTHON, languages=(".py",), needs="python3 -m pytest --version", parse=pytest_names,
    command="PYTHONPATH=src:. python3 -m pytest -q -rpfE --color=no --tb=short -p no:cacheprovider"
    " --continue-on-collection-errors",
)  # fmt: skip
UNITTEST = Runner(
    name="unittest", markers=PYTHON, languages=(".py",), needs="python3 -c 'import unittest'", parse=unittest_names,
    command="PYTHONPATH=src:. python3 -m unittest discover -v",
)  # fmt: skip
GO = Runner(
    name="go test", markers=("go.mod",), languages=(".go",), needs="command -v go", parse=go_names,
    command="GOPROXY=off go test -v ./...",
)  # fmt: skip
CARGO = Runner(
    name="cargo test", markers=("Cargo.toml",), languages=(".rs",), needs="command -v cargo", parse=cargo_names,
    command="cargo test --offline --no-fail-fast",
)  # fmt: skip
NPM = Runner(
    name="npm test", markers=("package.json",), languages=(".js", ".ts", ".jsx", ".tsx", ".mjs", ".cjs"), needs="command -v npm",
    command="CI=true npm test --silent", parse=script_names,
)  # fmt: skip
MAKE = Runner(
    name="make test", markers=("Makefile", "makefile", "GNUmakefile"), languages=(),
    needs="command -v make && make -n test", command="make test", parse=any_names,
)  # fmt: skip
RUNNERS = (PYTEST, UNITTEST, GO, CARGO, NPM, MAKE)


def candidates(paths: Collection[str], changed: Sequence[str], *, configured: str = "") -> list[Candidate]:
    """The ways to try, the likeliest first: the configured command, else runners of the languages that are changed, then others.

    paths: all files of the repository. changed: those that the change touches.
    """
    if configured:
        own = Runner(name="configured", markers=(), languages=(), needs="true", command=configured, parse=any_names)
        return [Candidate(runner=own, folder="", command=configured)]
    endings = {posixpath.splitext(path)[1] for path in changed}
    known = set(paths)
    found = [(runner, _folder(runner, known, changed)) for runner in RUNNERS]
    fitting = [(runner, folder) for runner, folder in found if folder is not None and _has_tests(runner, known, folder)]
    fitting.sort(key=lambda pair: not endings & set(pair[0].languages))
    return [Candidate(runner=runner, folder=folder, command=_command(runner, known, folder)) for runner, folder in fitting]


def _folder(runner: Runner, paths: set[str], changed: Sequence[str]) -> str | None:
    """Where to run: the nearest folder above a changed file that has a marker, else the root if it has one."""
    for path in changed:
        folder = posixpath.dirname(path)
        while folder:
            if any(f"{folder}/{marker}" in paths for marker in runner.markers):
                return folder
            folder = posixpath.dirname(folder)
    at_root = any(marker in paths for marker in runner.markers)
    return "" if at_root or ".py" in runner.languages else None


def _has_tests(runner: Runner, paths: set[str], folder: str) -> bool:
    """Whether there is anything to run; only for languages where that can be told from the names of files."""
    if ".py" in runner.languages:
        return any(path.startswith(folder) and path.endswith(".py") and is_test(path) for path in paths)
    if ".go" in runner.languages:
        return any(path.startswith(folder) and path.endswith("_test.go") for path in paths)
    return True


def _command(runner: Runner, paths: set[str], folder: str) -> str:
    if runner is not UNITTEST:
        return runner.command
    prefix = f"{folder}/" if folder else ""
    for name in ("tests", "test"):
        if any(path.startswith(f"{prefix}{name}/test") for path in paths):
            package = f"{prefix}{name}/__init__.py" in paths
            return f"{runner.command} -s {name}" + (" -t ." if package else "")
    return runner.command
