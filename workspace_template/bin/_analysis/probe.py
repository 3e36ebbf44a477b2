"""Calls what a suspect commit changed, and what calls that, at the commit and at its parent: does it then take longer, refuse,
give another value or keep memory, in a way that the symptoms tell of? Python code only; it runs the code.

Arguments come from the repository's tests; where a test gives a number or a text, others are tried too. What is found is a call
and a command that exits 0 with the suspect. Whether another suspect does the same is the caller's to ask.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _analysis import places, syntax
from _analysis.anomalies import Anomaly
from _analysis.commits import Commit
from _analysis.kinds import IDLE, kind_of
from _analysis.symptoms import Symptoms

FUNCTIONS, CALLS, LEVELS = 10, 240, 2
SECONDS, SHORT, EACH = 6.0, 2.0, 2
"""The time of all calls at one commit, of those of one function, and of one call."""
REPEAT = 150
CLEAR = 0.3
"""From here on the symptoms tell of a kind of trouble."""
SLOWER, LONGER = 3.0, 0.04
"""How many times as long a call takes that is slower, and by how many seconds more at least."""
BLOCKS, GROWS = 600, 1.5
"""How many more blocks of memory stay after REPEAT calls, and how many times as many."""
SHARE = 0.3
"""The part of the tests' own calls that has to give another value: one rare case is not what the telemetry shows."""
WAITS = frozenset(("latency", "timeout", "pool", "queue"))
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")

DRIVER = """
import importlib, json, signal, sys, time
sys.path[:0] = ["src", "."]
job = json.load(sys.stdin)
def late(*_):
    raise TimeoutError("no answer")
signal.signal(signal.SIGALRM, late)
def shown(value):
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: repr(value[key])[:80] for key in list(value)[:40]}
    return {"": repr(value)[:120]}
told, last = {}, time.monotonic() + job["seconds"]
def tried(function, arguments):
    raised, gave, began = "", {}, time.monotonic()
    signal.alarm(job["each"])
    try:
        gave = function(*arguments)
    except SystemExit as error:
        raised = "SystemExit: %s" % error
    except BaseException as error:
        raised = ("%s: %s" % (type(error).__name__, error))[:300]
    signal.alarm(0)
    return [raised, {} if raised else shown(gave), time.monotonic() - began]
for one in job["functions"]:
    rows, kept, end = [], [], min(last, time.monotonic() + job["short"])
    try:
        function = getattr(importlib.import_module(one["module"]), one["name"])
    except BaseException as error:
        continue
    for arguments in one["calls"]:
        if time.monotonic() > end:
            break
        rows.append(tried(function, json.loads(json.dumps(arguments))))
    for number in range(one["own"] if job["repeat"] else 0):
        if number < len(rows) and not rows[number][0] and time.monotonic() < end:
            before, rounds = sys.getallocatedblocks(), 0
            while rounds < job["repeat"] and time.monotonic() < end:
                tried(function, json.loads(json.dumps(one["calls"][number])))
                rounds += 1
            kept.append(sys.getallocatedblocks() - before if rounds == job["repeat"] else None)
        else:
            kept.append(None)
    told[one["module"] + ":" + one["name"]] = {"rows": rows, "kept": kept}
print("\\n" + json.dumps(told))
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A function to call. own: how many of the calls are the tests' own; they come first."""

    module: str
    name: str
    calls: list[list[Any]]
    own: int


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a call does with the suspect and not without it, in words, and the lines of a program that exits 0 where it does."""

    call: str
    does: str
    program: tuple[str, ...]
    strength: float

    def command(self, repo: str) -> str:
        return f"cd repos/{shlex.quote(repo)} && python3 -c {shlex.quote(chr(10).join(self.program))}"


def search(symptoms: Symptoms, commit: Commit, sides: tuple[Path, Path], strings: Sequence[str], alert: str) -> Effect | None:
    """The strongest effect of a commit that the symptoms tell of. sides: the code with it and without it."""
    targets = list(_targets(commit, sides[0], strings))
    if not targets:
        return None
    job = {
        "functions": [{"module": t.module, "name": t.name, "calls": t.calls, "own": t.own} for t in targets],
        "seconds": SECONDS,
        "short": SHORT,
        "each": EACH,
        "repeat": REPEAT if symptoms.facets.get("memory", 0.0) >= CLEAR else 0,
    }
    with_, without = (_run(side, json.dumps(job)) for side in sides)
    found = [e for t in targets for e in _effects(symptoms, t, with_, without, alert)]
    return max(found, key=lambda e: e.strength, default=None)


def _run(folder: Path, job: str) -> dict[str, Any]:
    command = [sys.executable, "-c", DRIVER]
    try:
        done = subprocess.run(command, input=job, capture_output=True, text=True, cwd=folder, timeout=4 * SECONDS, check=False)
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _targets(commit: Commit, folder: Path, strings: Sequence[str]) -> Iterator[Target]:
    """The module-level functions that it changed, then those that use them."""
    trees = {path: tree for path in sorted(folder.rglob("*.py"))[:1500] if (tree := _tree(path))}
    acting = {p: t for p, t in trees.items() if kind_of(str(p.relative_to(folder))) not in IDLE}
    tests = [t for p, t in trees.items() if p not in acting]
    names: set[str] = set()
    for file in commit.files:
        if file.path.endswith(".py") and kind_of(file.path) not in IDLE:
            names |= {name for _, (name, _) in places.touched(file)}
    seen: set[tuple[Path, str]] = set()
    for _ in range(LEVELS + 1):
        found = [
            (path, node)
            for path, tree in acting.items()
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and (path, node.name) not in seen and (node.name in names or _used(node) & names)
        ]
        for path, node in found:
            seen.add((path, node.name))
            if len(seen) <= FUNCTIONS and (needed := _needed(node)) is not None:
                own = list(_own(tests, node.name, needed))
                calls = [*own, *_varied(own, strings)] if own else list(_plain(needed, strings))
                module = ".".join(path.relative_to(folder).with_suffix("").parts).removeprefix("src.").removesuffix(".__init__")
                yield Target(module=module, name=node.name, calls=calls[:CALLS], own=len(own))
        names = {node.name for _, node in found}


def _tree(path: Path) -> ast.Module | None:
    try:
        return syntax.parse(path.read_text("utf-8", errors="replace"))
    except OSError:
        return None


def _used(node: ast.FunctionDef) -> set[str]:
    """The names that a function uses."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def _needed(node: ast.FunctionDef) -> int | None:
    """How many arguments it needs; None where it cannot be called simply."""
    needed = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
    return needed if needed <= 3 and len(node.args.kwonlyargs) == len([d for d in node.args.kw_defaults if d]) else None


def _own(tests: Sequence[ast.Module], name: str, needed: int) -> Iterator[list[Any]]:
    """Calls of a function in the tests, with the arguments that they write out."""
    seen: set[str] = set()
    for node in (n for tree in tests for n in ast.walk(tree) if isinstance(n, ast.Call) and not n.keywords):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called != name or len(node.args) < needed:
            continue
        try:
            arguments = json.loads(text := json.dumps([syntax.literal(argument) for argument in node.args]))
        except (ValueError, TypeError):
            continue
        if text not in seen and len(seen) < 12:
            seen.add(text)
            yield arguments


def _varied(calls: Sequence[list[Any]], strings: Sequence[str]) -> Iterator[list[Any]]:
    """The calls with one number or text of theirs replaced, however deep it lies."""
    for call in calls:
        for path, value in _leaves(call, ()):
            if isinstance(value, bool):
                continue
            numbers = (0, -value, value + 1, value * 3 + 1, value * 10, value * 100) if isinstance(value, (int, float)) else ()
            for other in (*numbers, *(strings[:20] if isinstance(value, str) else ())):
                changed = json.loads(json.dumps(call))
                place = changed
                for step in path[:-1]:
                    place = place[step]
                place[path[-1]] = other
                yield changed


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    inner = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, below in inner:
        if isinstance(below, (list, dict)):
            yield from _leaves(below, (*path, key))
        else:
            yield (*path, key), below


def _plain(needed: int, strings: Sequence[str]) -> Iterator[list[Any]]:
    """Arguments for a function that no test calls."""
    pool: list[Any] = ["x", 1, 100, {}, [], *strings[:6]]
    for value in pool if needed else [None]:
        yield [value] * needed


def _effects(symptoms: Symptoms, target: Target, with_: dict[str, Any], without: dict[str, Any], alert: str) -> Iterator[Effect]:
    key = f"{target.module}:{target.name}"
    if key not in with_ or key not in without:
        return
    pairs = list(zip(target.calls, with_[key]["rows"], without[key]["rows"], strict=False))
    seen = [a for a in symptoms.anomalies if a.kind == "log" and a.level >= 2][:30]
    yield from _slower(symptoms, target, pairs)
    yield from _raised(target, pairs, seen, alert)
    yield from _gave(target, pairs[: target.own] or pairs, seen)
    yield from _keeps(symptoms, target, with_[key]["kept"], without[key]["kept"])


Pairs = list[tuple[list[Any], list[Any], list[Any]]]


def _slower(symptoms: Symptoms, target: Target, pairs: Pairs) -> Iterator[Effect]:
    weight = max((symptoms.facets.get(name, 0.0) for name in WAITS), default=0.0)
    times = [(call, new[2], old[2]) for call, new, old in pairs]
    slower = [(new - old, call, new, old) for call, new, old in times if new > max(SLOWER * old, old + LONGER)]
    usual = slower if not target.own else [s for s in slower if s[1] in target.calls[: target.own]]
    if weight < CLEAR or len(usual) < SHARE * min(len(pairs), target.own or len(pairs)):
        return
    _, call, new, old = max(usual, key=lambda s: s[0])
    limit = math.sqrt(max(old, 0.002) * new)
    said = _said(target, call)
    program = (
        "import sys, time",
        *_head(target),
        "began = time.monotonic()",
        *_guarded(said, "pass"),
        "took = time.monotonic() - began",
        'print(f"it took {took:.3f} seconds")',
        f"sys.exit(0 if took > {limit:.3g} else 1)",
    )
    yield Effect(call=said, does=f"takes {new:.2f} s instead of {old:.2f} s", program=program, strength=1.0 + weight)


def _raised(target: Target, pairs: Pairs, seen: Sequence[Anomaly], alert: str) -> Iterator[Effect]:
    for call, new, old in pairs:
        if not new[0] or old[0] or new[0].startswith(("TimeoutError: no answer", "ImportError", "NameError", "SyntaxError")):
            continue
        tie = max((tells(new[0], a.quote, alert) for a in seen), default=0.0)
        if tie:
            kind, said = new[0].partition(":")[0], _said(target, call)
            program = (
                "import sys",
                *_head(target),
                *_guarded(said, f"if type(error).__name__ == {kind!r}: print(error); sys.exit(0)"),
                "sys.exit(1)",
            )
            yield Effect(call=said, does=f"raises {new[0][:120]}", program=program, strength=tie)
            return


def tells(raised: str, text: str, alert: str) -> float:
    """How much a line of telemetry tells of this error: 2 where it has all of it, 1 where it has its kind and words of it."""
    kind, _, message = raised.partition(": ")
    if len(re.sub(r"\W", "", message)) >= 2 and re.search(rf"\b{re.escape(raised)}(?!\w)", text):
        return 2.0
    own = {w.lower() for w in WORD.findall(message)} - {w.lower() for w in WORD.findall(alert)}
    shared = own & {w.lower() for w in WORD.findall(text)}
    return 1.0 if shared and (len(shared) >= 2 or re.search(rf"\b{re.escape(kind)}\b", text, re.IGNORECASE)) else 0.0


def _gave(target: Target, pairs: Pairs, seen: Sequence[Anomaly]) -> Iterator[Effect]:
    good = [(call, new, old) for call, new, old in pairs if not new[0] and not old[0]]
    for key in sorted({k for _, new, _ in good for k in new[1] if k}):
        others = [(call, new, old) for call, new, old in good if key in old[1] and old[1][key] != new[1].get(key)]
        told = any(re.search(rf"\b{re.escape(key)}[\"']?\s?[=:]", a.quote) for a in seen)
        if told and len(others) >= max(1, math.ceil(SHARE * len(good))):
            call, new, old = others[0]
            said = _said(target, call)
            program = (
                "import sys",
                *_head(target),
                f"value = {said}[{key!r}]",
                f'print("{key}", value)',
                f"sys.exit(0 if repr(value)[:80] == {new[1][key]!r} else 1)",
            )
            does = f"gives {key} {new[1][key][:40]} instead of {old[1][key][:40]}"
            yield Effect(call=said, does=does, program=program, strength=1.0 + len(others) / len(good))


def _keeps(symptoms: Symptoms, target: Target, new: Sequence[int | None], old: Sequence[int | None]) -> Iterator[Effect]:
    weight = symptoms.facets.get("memory", 0.0)
    for number, (more, less) in enumerate(zip(new, old, strict=False)):
        if weight >= CLEAR and more is not None and less is not None and more > max(less + BLOCKS, GROWS * less):
            said = _said(target, target.calls[number])
            program = (
                "import sys",
                *_head(target),
                "before = sys.getallocatedblocks()",
                f"for _ in range({REPEAT}):",
                f"    {said}",
                "kept = sys.getallocatedblocks() - before",
                'print(f"{kept} blocks of memory are kept")',
                f"sys.exit(0 if kept > {(more + max(less, 0)) // 2} else 1)",
            )
            does = f"keeps {more} blocks of memory after {REPEAT} calls instead of {less}"
            yield Effect(call=said, does=does, program=program, strength=1.0 + weight)
            return


def _said(target: Target, call: Sequence[Any]) -> str:
    return f"{target.name}({', '.join(repr(argument) for argument in call)})"


def _head(target: Target) -> tuple[str, ...]:
    return ('sys.path[:0] = ["src", "."]', f"from {target.module} import {target.name}")


def _guarded(call: str, then: str) -> tuple[str, ...]:
    return ("try:", f"    {call}", "except Exception as error:", f"    {then}")
