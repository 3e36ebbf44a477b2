"""Work that a change adds: loops, loops in loops, recursion, an expression compiled anew, a search through a list each time, and
what is no longer remembered. It knows no symptoms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from _analysis.calls import LOOP, in_loops
from _analysis.commits import FileDiff, Hunk
from _analysis.delta import Delta, Rows, made
from _analysis.rows import DEFINED, Moved

CAUSES = ("latency", "cpu", "timeout")
COMPILES = re.compile(r"\bre\.compile\(|new RegExp\(|regexp\.MustCompile\(|Pattern\.compile\(")
SEARCHES = re.compile(
    r"\.(?:index|indexOf|includes|count|find)\(|\.(?:insert|pop)\(0|\.(?:shift|unshift)\(|\bif \w+ (?:not )?in self\.\w+:"
)
REMEMBERS = re.compile(r"@(?:\w+\.)*(?:\w*cached?(?:_property|_method)?|lru_cache|memoized?|reify)\b")


def found(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: Moved) -> Iterator[Delta]:
    """All of it in one hunk."""
    inside = in_loops(hunk)
    loops = [(line, text) for line, text in added if LOOP.search(text)]
    before = sum(bool(LOOP.search(text)) for _, text in removed)
    if len(loops) > before:
        line, text = next(((line, text) for line, text in loops if id(line) in inside), loops[0])
        nested = id(line) in inside
        yield made("loop in a loop" if nested else "added loop", text, file, hunk, line, 0.7 if nested else 0.45, CAUSES, ())
    yield from _recursion(file, hunk, removed, added)
    for line, text in added:
        deep = line.text[:1].isspace()
        if COMPILES.search(text) and deep and not any(COMPILES.search(old) and row.text[:1].isspace() for row, old in removed):
            yield made("compiled each time", text, file, hunk, line, 0.5, CAUSES, ())
        if SEARCHES.search(text) and id(line) in inside and not any(SEARCHES.search(old) for _, old in removed):
            yield made("search in a loop", text, file, hunk, line, 0.5, CAUSES, ())
    for line, text in removed:
        if REMEMBERS.match(text) and not REMEMBERS.search(moved.all_added):
            causes = ("latency", "cpu", "volume", "query", "cache")
            yield made("no longer remembered", text, file, hunk, line, 0.9, causes, (), side="-")


def _recursion(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """A function that now calls itself."""
    before = " ".join(text for _, text in removed)
    fresh = {id(line): text for line, text in added}
    head = DEFINED.match(hunk.within)
    current, depth = (head[1], _depth(hunk.within)) if head else ("", 0)
    for line in hunk.lines:
        if line.tag == "-" or not line.text.strip():
            continue
        if defined := DEFINED.match(line.text):
            current, depth = defined[1], _depth(line.text)
        elif _depth(line.text) <= depth and line.text.lstrip()[0] not in ")]}{":
            current = ""  # what comes after a function is not within it
        elif current and id(line) in fresh and _calls(fresh[id(line)], current) and not _calls(before, current):
            yield made("added recursion", f"{current} calls itself", file, hunk, line, 0.75, (*CAUSES, "recursion"), ())
            return


def _depth(text: str) -> int:
    return len(text) - len(text.lstrip())


def _calls(text: str, name: str) -> bool:
    return bool(re.search(rf"(?<![\w.])(?:self\.|cls\.|this\.)?{re.escape(name)}\(", text))
