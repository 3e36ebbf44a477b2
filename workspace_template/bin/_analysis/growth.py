"""Finds containers that outlive a call and only grow, and references no longer weak or bounded: the ways memory leaks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from _analysis.calls import only_says
from _analysis.commits import FileDiff, Hunk, Line
from _analysis.delta import Rows

MADE = re.compile(
    r"^(?:export\s+|static\s+|private\s+|public\s+|final\s+|const\s+|let\s+|var\s+)*(?:[\w<>\[\], ]+\s)?"
    r"(?P<name>(?:self\.|cls\.|this\.|(?:module\.)?exports\.)?[A-Za-z_$]\w*)"
    r"\s*(?::[^=]+)?:?=\s*(?:\[\]|\{\}|set\(\)|dict\(\)|list\(\)|(?:collections\.)?(?:defaultdict|OrderedDict|deque|Counter)\([^)]*\)|"
    r"new\s+(?:Map|Set|Array|HashMap|ArrayList|HashSet|ConcurrentHashMap|LinkedList)\b.*|make\(map.*|map\[.*\{\}|\[\]\w+\{\})\s*;?$"
)
GROWN = re.compile(
    r"(?P<name>(?:self\.|cls\.|this\.|(?:module\.)?exports\.)?[A-Za-z_$]\w*(?:\.[A-Za-z_$]\w*)?)\s*(?:\.(?:append|add|extend|setdefault|insert|push|put|"
    r"appendleft|unshift|update)\(|\[[^\]]+\]\s*=(?!=)|\s*=\s*append\((?P=name),)"
)
SHRUNK = (
    r"{name}\s*(?:\.(?:pop|popleft|popitem|clear|remove|discard|delete|shift|evict)\b|\[[^\]]*:\s*\]\s*=)|del\s+{name}\b|"
    r"len\({name}\)\s*>|delete\({name}"
)
ENDLESS = re.compile(
    r"lru_cache\(\s*(?:maxsize\s*=\s*)?None\s*\)|@(?:functools\.)?cache\b(?!d)|"
    r"maxsize\s*=\s*(?:None|0|-1|math\.inf|float\()"
)
WEAK = re.compile(r"\b(?:Weak(?:Value|Key)?(?:Dictionary|Set|Map|HashMap|Reference|Method)|weakref\.\w+|WeakRef)\b")
BOUND = re.compile(r"\b(?:maxlen|maxsize|max_size|max_entries|capacity|lru_cache|LRUCache|TTLCache|maximumSize|expireAfter\w*)\b")
PUT = re.compile(r"(?P<name>(?:self\.|cls\.|this\.)?[A-Za-z_]\w*)\[[^\]\"']+\]\s*=(?!=)")
MEASURED = re.compile(
    r"(?:el)?(?:if|while)\b\s*\(?\s*(?:not\s+)?((?:len|size|count)\([^)]*\)|[\w.]*(?:size|length|count)(?:\(\))?)\s*[<>]"
)
KEPT = re.compile(r"^(?:self|cls|this|(?:module\.)?exports)\.|^_[A-Za-z]|^[A-Z][A-Z_0-9]+$")

Growth = tuple[str, str, Line, float]
"""Kind, what, the line, strength."""


def found(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, all_added: str, all_removed: str) -> Iterator[Growth]:
    """Ways to leak in one hunk; the texts are all added and removed lines of its commit."""
    made = {m["name"] for line in all_added.splitlines() if (m := MADE.match(line.strip()))}
    for line, text in added:
        match = GROWN.search(text)
        if match:
            name = match["name"]
            fresh = name in made and not _local(file, name)
            shrinks = re.search(SHRUNK.format(name=re.escape(name)), all_added)
            known = KEPT.search(name) is not None
            if fresh or known:
                yield "growing container", name, line, (1.1 if fresh else 0.6) * (0.35 if shrinks else 1.0)
        if ENDLESS.search(text) and not any(ENDLESS.search(old) for _, old in removed):
            yield "unbounded cache", text[:80], line, 0.95
    before = " ".join(text for _, text in removed)
    yield from _bounds(removed, added)
    for line, text in removed:
        if only_says(text):
            continue
        if WEAK.search(text) and not WEAK.search(all_added):
            yield "reference no longer weak", text[:80], line, 0.95
            return
        if BOUND.search(text) and not set(BOUND.findall(text)) & set(BOUND.findall(all_added)):
            yield "bound taken away", text[:80], line, 0.8
            return
        if re.match(r"(?:el)?if\b.*\blen\(|while\b.*\blen\(|while\b.*(?:size|count|length)", text) and text not in all_added:
            later = before[before.find(text) :]
            if re.search(r"\bdel\b|pop|evict|remove|shift|discard", later):
                yield "removed eviction", text[:80], line, 1.0
                return


def _local(file: FileDiff, name: str) -> bool:
    """Whether a container of this name is made within a function, as far as the diff shows: then it ends with the call."""
    if "." in name:
        return False
    form = re.compile(rf"\s+{re.escape(name)}\s*(?::|=)")
    return any(MADE.match(line.text.strip()) and form.match(line.text) for hunk in file.hunks for line in hunk.lines)


def unkept(hunk: Hunk, removed: Rows, all_added: str) -> Iterator[Growth]:
    """Entries that are no longer put into a container in which the code around looks things up: they are made again each time."""
    around = "\n".join(line.text for line in hunk.lines if line.tag != "-")
    for line, text in removed:
        match = PUT.match(text)
        name = re.escape(match["name"]) if match else ""
        if name and not re.search(rf"{name}\s*(?:\[[^\]]*\]\s*=(?!=)|\.(?:set|setdefault|update|put|add)\()", all_added):
            looked = re.search(rf"\bin {name}\b|{name}\.get\(|=\s*{name}\[", around)
            yield "no longer kept", text[:80], line, 0.85 if looked else 0.5


def _bounds(removed: Rows, added: Rows) -> Iterator[Growth]:
    """What a size is compared with, where that became something else."""
    for line, text in added:
        measured = MEASURED.match(text)
        olds = [(text, m[1]) for _, text in removed if (m := MEASURED.match(text))] if measured else []
        old = next((other for other, name in olds if measured and name == measured[1] and other != text), "")
        if old:
            yield "changed bound", f"{old[:60]} -> {text[:60]}", line, 0.9
