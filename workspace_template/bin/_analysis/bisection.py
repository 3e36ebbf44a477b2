"""Finds the commit of a package from which on a service's own call does what the telemetry tells of: it runs the call at both
ends of an upgrade and halves what lies between. It runs the code.

What is found rests on nothing but runs: the call does it at the commit and not at its parent.
"""

from __future__ import annotations

import math
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _analysis import reproduce, scenarios, uses
from _analysis.desk import Desk, service_key
from _analysis.git import git
from _analysis.history import History
from _analysis.packages import is_package, versions
from _analysis.probe import CLEAR, LONGER, SLOWER, WAITS, tells
from _analysis.symptoms import Symptoms
from _analysis.trials import Trial

TRIED, STEPS, ASIDE = 2, 60, 4
"""How many calls that differ are followed, how many runs that may take, and how far beside the middle where it cannot be run."""
MANY = 20
"""How many calls of one function that differ are repeated."""
LOOKING, SECONDS = 8.0, 20.0
"""After so long no further call is looked for, and nothing more is run."""
TOLD = 2.5
"""How much the telemetry has to tell of another value: that it is one for a value that failing lines name is not enough."""
SHORT = 40
"""Letters of a value or argument from which on it is shortened where it is only told."""
EMPTY = ("None", "''", "False", "[]", "{}", "0", "0.0", "()", "undefined", "null", "false", "NaN")


@dataclass(frozen=True, kw_only=True)
class Range:
    """What an upgrade brought: a service's repository, the package's, and the package's two commits."""

    service: str
    home: str
    package: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A call that does something else with the new version. kind: raises, slower or gives. seen: the telemetry names what it was
    called with, or the very error.
    """

    trial: Trial
    function: str
    call: list[Any]
    kind: str
    old: list[Any]
    new: list[Any]
    strength: float
    seen: bool = True
    stubs: tuple[str, ...] = ()

    def state(self, row: list[Any] | None) -> bool | None:
        """Whether what a call did is what it does with the new version (True) or with the old one; None where neither."""
        if row is None:
            return None
        raised, gave, seconds = row
        if self.kind == "slower":
            return bool(seconds > math.sqrt(max(self.old[2], 0.002) * self.new[2])) if not raised or _late(raised) else None
        if self.kind == "raises":
            kind = raised.partition(":")[0]
            return True if kind == self.new[0].partition(":")[0] else False if not raised else None
        return None if raised else True if gave == self.new[1] else False if gave == self.old[1] else None

    @property
    def said(self) -> str:
        return f"{self.function}({', '.join(_short(repr(argument)) for argument in self.call)})"

    @property
    def does(self) -> str:
        if self.kind == "slower":
            return f"takes {self.new[2]:.2f} s instead of {self.old[2]:.2f} s"
        if self.kind == "raises":
            return f"raises {self.new[0][:120]}"
        return f"gives {_short(self.new[1])} instead of {_short(self.old[1])}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The commit from which on a call does it. left: it, or all that it may be; parent: "" where that is not shown."""

    range: Range
    left: tuple[str, ...]
    parent: str
    flip: Flip

    @property
    def commit(self) -> str:
        return self.left[-1] if self.parent else ""


def search(desk: Desk, symptoms: Symptoms, history: History) -> Found | None:
    """The commit at which the strongest call that tells the versions apart turns; None where two of them turn at others."""
    end = time.monotonic() + SECONDS
    for one in ranges(desk, history):
        found: list[Found] = []
        with tempfile.TemporaryDirectory() as scratch:
            place = _Place(desk.repos[one.home], Path(scratch))
            flips = _flips(desk, symptoms, one, place, end - SECONDS + LOOKING)
            if any(f.raised for f in symptoms.frames):
                flips = [flip for flip in flips if flip.kind != "gives"]
            for flip in flips[:TRIED]:
                if found and flip.strength < found[0].flip.strength:
                    break
                if turned := _turn(one, place, flip, end):
                    found.append(turned)
        shown = [f for f in found if f.commit]
        if shown and len({f.commit for f in shown}) == 1:
            return shown[0]
        if found and not shown:
            return min(found, key=lambda f: len(f.left))
    return None


def ranges(desk: Desk, history: History) -> Iterator[Range]:
    """The upgrades that deployments brought to a service whose repository is on the desk, the last ones first."""
    for d in sorted([*desk.deployments, *history.moved], key=lambda d: -d.at):
        service = desk.services.get(d.service, ("",))[0] or next(
            (n for n in desk.repos if service_key(n) == service_key(d.service)), ""
        )
        for package, old, new in d.packages if service and (desk.at is None or d.at <= desk.at + 60) else ():
            for home, repo in desk.repos.items():
                if home != service and is_package(repo, home, package):
                    ends = versions(repo, package, (old, new))
                    if old in ends and new in ends:
                        yield Range(service=service, home=home, package=package, old=ends[old], new=ends[new])


class _Place:
    """Commits of the package, unpacked as they are asked for."""

    def __init__(self, repo: Path, scratch: Path) -> None:
        self.repo = repo
        self._scratch = scratch
        self._known: dict[str, Path | None] = {}

    def at(self, commit: str) -> Path | None:
        if commit not in self._known:
            self._known[commit] = reproduce.unpack(self.repo, commit, self._scratch / commit)
        return self._known[commit]


def _flips(desk: Desk, symptoms: Symptoms, one: Range, place: _Place, end: float) -> list[Flip]:
    """Calls that do something else with the new version than with the old one, what the telemetry tells of first."""
    root, home = desk.repos[one.service], desk.repos[one.home]
    waits = max((symptoms.facets.get(name, 0.0) for name in WAITS), default=0.0) >= CLEAR
    texts = [a.quote for a in symptoms.anomalies[:30] if a.kind == "log"] + [f.raised for f in symptoms.frames[:20] if f.raised]
    old, new = place.at(one.old), place.at(one.new)
    found: list[Flip] = []
    for script in scenarios.scripts(root, one.package, home, symptoms, scenarios.slow(home, one.old, one.new) if waits else []):
        trial = Trial(script=script, root=root, package=one.package, tops=sorted(uses.tops(one.package, home)))
        for function in script.functions:
            if not (old and new) or time.monotonic() > end:
                break
            first, stubs = _rows(trial, new, function.name, function.calls)
            told = {n: row for n, row in enumerate(first) if _tells_of(row, texts, desk.text, waits, n < function.told)}
            before, _ = _rows(trial, old, function.name, [function.calls[n] for n in told])
            differing = {n: row for n, row in zip(told, before, strict=False) if _kind(row, told[n], waits)}
            again, _ = _rows(trial, new, function.name, [function.calls[n] for n in list(differing)[:MANY]])
            for (n, row), repeated in zip(differing.items(), again, strict=False):
                kind = _kind(row, told[n], waits)
                if kind == _kind(row, repeated, waits) and (kind == "slower" or told[n][:2] == repeated[:2]):
                    strength = _strength(kind, told[n], texts, desk.text, n < function.told)
                    made = Flip(trial=trial, function=function.name, call=function.calls[n], kind=kind, old=row, new=told[n],
                                strength=strength, seen=n < function.told or kind == "raises", stubs=tuple(stubs))  # fmt: skip
                    found += [made] if kind != "gives" or strength >= TOLD else []
    return sorted(found, key=lambda f: (-f.strength, -f.new[2] if f.kind == "slower" else 0.0, len(repr(f.call))))


def _rows(trial: Trial, lib: Path, name: str, calls: list[list[Any]]) -> tuple[list[list[Any]], list[str]]:
    """What calls of one function did, as far as time allowed, and what had stand-ins."""
    answer = trial.run(lib, {name: calls}) if calls else None
    return (answer["told"].get(name, []), answer.get("stubs", [])) if answer else ([], [])


def _tells_of(row: list[Any], texts: Sequence[str], alert: str, waits: bool, told: bool) -> bool:
    """Whether what a call did with the new version may be what was seen."""
    raised, gave, seconds = row
    if waits and (_late(raised) or seconds > LONGER):
        return True
    if raised:
        return any(tells(raised, text, alert) for text in texts)
    return told or _shown(gave, texts)


def _kind(old: list[Any], new: list[Any], waits: bool) -> str:
    """In which way a call does something else with the new version; "" where in none."""
    if old[0]:
        return ""
    if waits and (not new[0] or _late(new[0])) and new[2] > max(SLOWER * old[2], old[2] + LONGER):
        return "slower"
    if new[0]:
        return "" if _late(new[0]) else "raises"
    return "gives" if new[1] != old[1] else ""


def _strength(kind: str, new: list[Any], texts: Sequence[str], alert: str, told: bool) -> float:
    """How much the telemetry tells of it."""
    if kind == "slower":
        return 3.0
    if kind == "raises":
        return 3.0 + max((tells(new[0], text, alert) for text in texts), default=0.0)
    return 1.0 + told + 0.5 * (new[1] in EMPTY) + _shown(new[1], texts)


def _shown(gave: str, texts: Sequence[str]) -> bool:
    plain = gave.strip("'\"")
    return len(plain) > 3 and any(plain in text for text in texts)


def _turn(one: Range, place: _Place, flip: Flip, end: float) -> Found | None:
    """The commit at which the call turns, by halving the way along first parents, then within the merge that brought it."""
    low, high = one.old, one.new
    steps = 0

    def state(commit: str) -> bool | None:
        nonlocal steps
        steps += 1
        folder = place.at(commit) if steps <= STEPS and time.monotonic() < end else None
        answer = flip.trial.run(folder, {flip.function: [flip.call]}, 1.5) if folder else None
        rows = answer["told"].get(flip.function) if answer else None
        return flip.state(rows[0] if rows else None)

    if state(low) is not False or state(high) is not True:
        return None
    left: tuple[str, ...] = ()
    number = 0
    for way in ("--first-parent", "--topo-order"):
        row = git(place.repo, "rev-list", "--reverse", way, high, f"^{low}").split()
        number, left = number or len(row), _halved(row, state)
        parents = git(place.repo, "rev-list", "-1", "--parents", left[-1]).split()[1:] if left else []
        if len(left) != 1 or not parents or state(parents[0]) is not False:
            break
        if len(parents) == 1:
            return Found(range=one, left=left, parent=parents[0], flip=flip)
        low, high = parents[0], left[-1]
    return Found(range=one, left=left, parent="", flip=flip) if 0 < len(left) <= number / 2 else None


def _halved(row: Sequence[str], state: Callable[[str], bool | None]) -> tuple[str, ...]:
    """What remains of a row of commits, the last of which it is at the latest. What cannot be run is gone around, as far as
    ASIDE.
    """
    low, high = -1, len(row) - 1
    while high - low > 1:
        middle = (low + high) // 2
        wide = range(low + 1, high, max(1, (high - low) // ASIDE))
        near = dict.fromkeys([middle, *sorted(range(low + 1, high), key=lambda n: abs(n - middle))[:ASIDE], *wide])
        told = next(((n, known) for n in near if (known := state(row[n])) is not None), None)
        if told is None:
            break
        low, high = (low, told[0]) if told[1] else (told[0], high)
    return tuple(row[low + 1 : high + 1])


def command(found: Found) -> str:
    """Exits 0 where the call does it, 1 where not: the service's own file with the package as it lies in its repository."""
    flip, script = found.flip, found.flip.trial.script
    if not script.python:
        return ""
    call = f"service.{flip.function}({', '.join(_written(argument) for argument in flip.call)})"
    lines = [
        "import importlib.util, sys, time, types",
        f'sys.path[:0] = ["src", "lib", ".", "../{found.range.service}"]',
        *(_STAND_IN if flip.stubs else ()),
        *(f"sys.modules[{name!r}] = Stub({name!r})" for name in flip.stubs),
        f'spec = importlib.util.spec_from_file_location("service", "../{found.range.service}/{script.path}")',
        "service = importlib.util.module_from_spec(spec)",
        "spec.loader.exec_module(service)",
        "began = time.monotonic()",
        "try:",
        f"    value = {call}",
        "except Exception as error:",
        '    value = ""',
        f"    if type(error).__name__ == {flip.new[0].partition(':')[0]!r}:",
        '        print(f"{type(error).__name__}: {error}")',
        "        sys.exit(0)",
    ]
    if flip.kind == "slower":
        limit = math.sqrt(max(flip.old[2], 0.002) * flip.new[2])
        lines += [
            "took = time.monotonic() - began",
            'print(f"it took {took:.3f} seconds")',
            f"sys.exit(0 if took > {limit:.3g} else 1)",
        ]
    elif flip.kind == "gives":
        lines += [
            "import re",
            'shown = re.sub("0x[0-9a-f]+", "", repr(value))[:160]',
            "print(shown)",
            f"sys.exit(0 if shown == {flip.new[1]!r} else 1)",
        ]
    else:
        lines.append("sys.exit(1)")
    return f"cd repos/{shlex.quote(found.range.home)} && python3 -c {shlex.quote(chr(10).join(lines))}"


_STAND_IN = (
    "class Stub(types.ModuleType):",
    "    __path__ = []",
    "    def __getattr__(self, name):",
    '        if name.startswith("__"): raise AttributeError(name)',
    '        return self.__dict__.setdefault(name, Stub(self.__name__ + "." + name))',
    "    def __call__(self, *given, **named):",
    "        return given[0] if len(given) == 1 and isinstance(given[0], (types.FunctionType, type)) else self",
    "    def __mro_entries__(self, bases): return ()",
)


def _written(value: Any) -> str:
    """A value as a program writes it, a text that repeats itself shorter."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_written(inner) for inner in value)}]"
    if isinstance(value, str) and len(value) > 80 and (match := re.search(r"(.{1,6}?)\1{15,}", value, re.DOTALL)):
        number = len(match[0]) // len(match[1])
        return f"{value[: match.start()]!r} + {match[1]!r} * {number} + {value[match.end() :]!r}"
    return repr(value)


def _late(raised: str) -> bool:
    return raised.startswith("TimeoutError: no answer")


def _short(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"
