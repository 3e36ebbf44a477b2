"""Says what a commit changes in behaviour: values, calls, conditions, clauses, dependencies; or that it changes nothing that
acts.

Moved and reformatted lines cancel out; comments, tests, documents and styles count for nothing. It knows no symptoms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from _analysis import calls, conditions, docstrings, growth, guards, signatures, values, work
from _analysis.commits import Commit, FileDiff, Hunk, Line
from _analysis.delta import Delta, Rows, made
from _analysis.kinds import IDLE, kind_of
from _analysis.packages import NAMED, PINNED
from _analysis.rows import Moved, bare, code

FILES, HUNKS = 80, 60


def of(commit: Commit) -> list[Delta]:
    """All changes of behaviour of a commit, strongest first; empty if nothing in it acts."""
    found: list[Delta] = []
    acting = [file for file in commit.files if kind_of(file.path) not in IDLE]
    moved = Moved(acting)
    for file in acting[:FILES]:
        kind = kind_of(file.path)
        if kind == "dependency":
            found += _dependencies(file)
            continue
        for hunk in file.hunks[:HUNKS]:
            found += _hunk(file, kind, hunk, moved)
        if file.status == "D" and kind == "code":
            found.append(Delta(kind="removed file", what=file.path, path=file.path, strength=0.4, causes=("missing", "error")))
    found.sort(key=lambda d: (-d.strength, d.path, d.number))
    return found


def _hunk(file: FileDiff, kind: str, hunk: Hunk, moved: Moved) -> Iterator[Delta]:
    removed: Rows = []
    added: Rows = []
    told = docstrings.lines(hunk) if file.path.endswith((".py", ".pyi")) else set()
    for line in hunk.lines:
        text = code(line.text, file.path) if line.tag != " " and id(line) not in told else ""
        if text and not moved.take(line.tag, text):
            (removed if line.tag == "-" else added).append((line, text))
    if (not removed and not added) or _side(hunk, "-") == _side(hunk, "+"):
        return
    yield from values.changed(file, kind, hunk, removed, added)
    if kind == "code":
        yield from values.defaults(file, hunk, removed, added, moved)
        if file.path.endswith((".py", ".pyi")) and any(line.tag == "+" for line in hunk.lines):
            yield from signatures.changed(file, hunk)
    yield from conditions.operators(file, hunk, removed, added)
    yield from conditions.limits(file, hunk, removed, added)
    if kind in ("code", "migration", "build"):
        yield from conditions.clauses(file, hunk, removed, added)
        yield from (_toned(delta, len(removed) + len(added)) for delta in calls.changed(file, hunk, removed, added, moved))
        yield from (_toned(delta, len(removed) + len(added)) for delta in guards.found(file, hunk, removed, added, moved))
        yield from calls.dropped(file, hunk, removed, moved)
        yield from work.found(file, hunk, removed, added, moved)
        yield from calls.libraries(file, hunk, removed, added)
        yield from conditions.patterns(file, hunk, removed, added)
        yield from conditions.returned(file, hunk, removed, added)
        for name, what, line, strength in growth.found(file, hunk, removed, added, moved.all_added, moved.removed_text):
            yield made(name, what, file, hunk, line, strength, ("memory", "queue", "cache"), (), side=line.tag)
        for name, what, line, strength in growth.unkept(hunk, removed, moved.all_added):
            causes = ("latency", "cache", "cpu", "volume", "missing", "wrong")
            yield made(name, what, file, hunk, line, strength, causes, (), side="-")
        yield from conditions.expressions(file, hunk, removed, added)
        yield from conditions.arguments(file, hunk, removed, added)
    yield from _plain(file, kind, hunk, removed, added)


def _side(hunk: Hunk, tag: str) -> str:
    """What one side of a hunk says, in whatever form."""
    return bare("".join(line.text for line in hunk.lines if line.tag == tag))


def _toned(delta: Delta, lines: int) -> Delta:
    """Weaker in a large hunk: there code was rewritten, and what seems gone is mostly said in another way."""
    return replace(delta, strength=round(delta.strength * max(0.55, 1.0 - max(0, lines - 10) / 100), 3))


def _plain(file: FileDiff, kind: str, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """What remains: lines of behaviour that changed in no way known here, weak; text and measurements only, almost nothing."""
    acting = [(line, text) for line, text in (*added, *removed) if not calls.only_says(text)]
    if not acting:
        line = (added or removed)[0][0]
        yield made("text or measurement", line.text.strip()[:80], file, hunk, line, 0.05, ("logging",), (), side=line.tag)
    elif removed and added:
        yield made("rewritten", acting[0][1][:80], file, hunk, acting[0][0], 0.25, (), (), side=acting[0][0].tag)
    elif added:
        fresh = file.status == "A" or re.match(
            r"(func|def|class|function|fn|public|private|export|async def|type)\b", acting[0][1]
        )
        yield made("added code", acting[0][1][:80], file, hunk, acting[0][0], 0.15 if fresh else 0.25, (), ())
    else:
        yield made("removed code", acting[0][1][:80], file, hunk, acting[0][0], 0.35, (), (), side="-")


def _dependencies(file: FileDiff) -> Iterator[Delta]:
    """Packages with another version."""
    before: dict[str, str] = {}
    after: dict[str, tuple[str, Line, str]] = {}
    for hunk in file.hunks:
        context = ""
        for line in hunk.lines:
            named = NAMED.search(line.text)
            context = named[1] or named[2] if named else context
            match = PINNED.search(line.text)
            if not match or line.tag == " ":
                continue
            name = context if match[1] == "version" else match[1]
            if line.tag == "-":
                before[name] = match[2]
            else:
                after[name] = (match[2], line, hunk.within)
    for name, (new, line, within) in after.items():
        old = before.get(name)
        if old and old != new and name:
            strength = (
                0.6 if old.split(".")[0] != new.split(".")[0] else 0.45 if old.split(".")[:2] != new.split(".")[:2] else 0.25
            )
            yield Delta(
                kind="upgraded package",
                what=f"{name} {old} -> {new}",
                path=file.path,
                strength=strength,
                side="+",
                number=line.number,
                text=line.text,
                old=old,
                new=new,
                within=within,
            )
