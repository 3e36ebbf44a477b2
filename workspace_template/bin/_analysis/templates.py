"""Log lines that differ only in their values are one template: how a line is masked, and how templates are joined."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice

BUCKET = 15
VALUES = re.compile(r"\d[0-9a-fA-F.,:_-]*")
NAMED = re.compile(r"([A-Za-z_][\w.-]{1,30})[=:]\s?[\"']?([^\s,;\"')\]]{1,60})")
START = 4_000
"""Characters of a line in which values are looked for."""
EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+\b")


@dataclass(kw_only=True)
class Template:
    """Lines that differ only in their values. `buckets` counts by BUCKET seconds; `place` is the first one: file, byte offset."""

    service: str
    text: str
    level: int = 1
    count: int = 0
    first: float | None = None
    last: float | None = None
    buckets: dict[int, int] = field(default_factory=dict)
    file: str = ""
    offset: int = 0
    sample: str = ""
    values: dict[str, dict[str, int]] = field(default_factory=dict)
    merged: int = 1


def mask(message: str) -> str:
    """A line without its values: numbers, times, addresses, and ids from their first digit on."""
    if "@" in message:
        message = EMAIL.sub("<*>", message)
    return VALUES.sub("<*>", message).strip()


def keep_values(template: Template, message: str) -> None:
    """What the named values of a failing line are: key=value and key: value, a few distinct ones of each."""
    for found in islice(NAMED.finditer(message[:START]), 12):
        name, value = found.groups()
        seen = template.values.setdefault(name, {})
        if value in seen or len(seen) < 12:
            seen[value] = seen.get(value, 0) + 1


def absorb(into: Template, other: Template) -> None:
    """Adds the counts, times and values of one template to another."""
    into.count += other.count
    into.level = max(into.level, other.level)
    for bucket, number in other.buckets.items():
        into.buckets[bucket] = into.buckets.get(bucket, 0) + number
    if other.first is not None and (into.first is None or other.first < into.first):
        into.first, into.file, into.offset, into.sample = other.first, other.file, other.offset, other.sample
    if other.last is not None and (into.last is None or other.last > into.last):
        into.last = other.last
    for name, values in other.values.items():
        seen = into.values.setdefault(name, {})
        for value, number in values.items():
            if value in seen or len(seen) < 12:
                seen[value] = seen.get(value, 0) + number


def drain(templates: list[Template]) -> list[Template]:
    """Joins templates that agree in length and most words (Drain, He et al. 2017): the words that differ become <*>."""
    groups: dict[tuple[str, int, str], list[tuple[list[str], Template]]] = {}
    for template in sorted(templates, key=lambda t: (-t.count, t.service, t.text)):
        words = template.text.split()
        group = groups.setdefault((template.service, len(words), words[0] if words and "<*>" not in words[0] else ""), [])
        for known, into in group[:60]:
            same = sum(a == b for a, b in zip(known, words, strict=True))
            if len(words) >= 4 and same >= 0.7 * len(words) and abs(into.level - template.level) < 2:
                known[:] = [a if a == b else "<*>" for a, b in zip(known, words, strict=True)]
                into.text = " ".join(known)
                into.merged += 1
                absorb(into, template)
                break
        else:
            group.append((words, template))
    return sorted((t for group in groups.values() for _, t in group), key=lambda t: (-t.count, t.service, t.text))
