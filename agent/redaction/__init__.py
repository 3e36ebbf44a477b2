"""Takes secrets and personal data out of text before it reaches a model's provider, and puts them back inside the sandbox.

`redact` replaces what it finds by stable placeholders like [secret:aws-key:3fa2c1] or [email:91bd02]; `restore` is exact: it
gives back the very characters that stood there. What it cannot find: a value split over two tool results, one that a command
reversed, encrypted or compressed, names of people, and secrets that have no format, no telling name and no entry in `known`.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.core.errors import ConfigError
from agent.redaction.detectors import Format, formats
from agent.redaction.known import variants
from agent.redaction.patterns import ANCHORS, Span, numbers
from agent.redaction.vault import PLACEHOLDER, Vault
from agent.redaction.views import runs, unwrapped, views

CHUNK = 1 << 18
LEARNED = 64
DEPTH = 2


class Redaction:
    """Redacts and restores. Safe to use from several threads.

    folder: where the key and the map lie. known: values that are always taken out, in any encoding (the service's own secrets).
    patterns: more expressions by name, from the configuration; a group, where there is one, is what is taken out.
    Raises ConfigError for a pattern that is none, or a file that others can read.
    """

    def __init__(self, folder: Path, *, known: Iterable[str] = (), patterns: Mapping[str, str] = {}) -> None:
        self.vault = Vault(folder)
        self._known = tuple(dict.fromkeys(variant for value in known if value for variant in variants(value)))
        self._patterns = tuple((name, _compile(name, text)) for name, text in patterns.items())
        self._learned: OrderedDict[str, str] = OrderedDict()
        self._learning = threading.Lock()

    @cached_property
    def _formats(self) -> tuple[Format, ...]:
        return formats()

    def redact(self, text: str) -> str:
        """The text without secrets and personal data. Placeholders in it stay: redacting twice is redacting once."""
        if len(text) <= CHUNK:
            return self._redact(text)
        return "".join(self._redact(part) for part in _parts(text))

    def restore(self, text: str) -> str:
        """The text with every placeholder of this installation replaced by what it stands for."""
        if "[" not in text:
            return text
        return PLACEHOLDER.sub(lambda match: self._value(match[0]), text)

    def redact_data(self, value: Any) -> Any:
        """A JSON value with every string in it redacted, names of fields included."""
        return _map(value, self.redact)

    def restore_data(self, value: Any) -> Any:
        """A JSON value with every string in it restored."""
        return _map(value, self.restore)

    def _value(self, placeholder: str) -> str:
        value = self.vault.value(placeholder)
        return placeholder if value is None else value

    def _redact(self, text: str) -> str:
        kept = [match.span() for match in PLACEHOLDER.finditer(text) if self.vault.holds(match[0])] if "[" in text else []
        spans = list(_disjoint(_outside(kept, self._spans(text, DEPTH))))
        if not spans:
            return text
        pieces, position = [], 0
        for start, end, kind in spans:
            value = text[start:end]
            self._learn(kind, value)
            pieces += [text[position:start], self.vault.placeholder(kind, value)]
            position = end
        pieces.append(text[position:])
        return "".join(pieces)

    def _learn(self, kind: str, value: str) -> None:
        """A secret that its surroundings gave away is known from now on wherever it stands, if it cannot be a word."""
        is_word = len(value) < 10 or value.isalpha() or value.isdigit()
        if kind.startswith("secret:") and not is_word:
            with self._learning:
                self._learned[value] = kind
                self._learned.move_to_end(value)
                if len(self._learned) > LEARNED:
                    self._learned.popitem(last=False)

    def _spans(self, text: str, depth: int) -> Iterator[Span]:
        low = text.lower()
        if len(low) != len(text):  # a letter whose lower case is two: places would shift
            low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
        yield from _occurrences(text, self._known)
        with self._learning:
            learned = tuple(self._learned.items())
        for value, kind in learned:
            yield from _occurrences(text, (value,), kind)
        for anchor in ANCHORS:
            for literal in anchor.literals:
                place = low.find(literal)
                while place >= 0:
                    yield from anchor.find(text, low, place, place + len(literal))
                    place = low.find(literal, place + len(literal))
        yield from numbers(text)
        for format in self._formats:
            if any(literal in low for literal in format.literals):
                yield from format.find(text, low)
        for name, regex in self._patterns:
            yield from (_group(match, f"{name}") for match in regex.finditer(text) if match[0])
        if depth:
            yield from self._encoded(text, depth - 1)

    def _encoded(self, text: str, depth: int) -> Iterator[Span]:
        for view in views(text):
            yield from ((*view.back(start, end), kind) for start, end, kind in self._spans(view.text, depth))
        for start, end, decoded in runs(text):
            if found := next(iter(self._spans(decoded, depth)), None):
                yield start, end, found[2]
        if self._known and "\n" in text:
            flat = unwrapped(text)
            yield from ((*flat.back(start, end), kind) for start, end, kind in _occurrences(flat.text, self._known))


def _compile(name: str, text: str) -> re.Pattern[str]:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ConfigError(f"policy.redact.{name}: a name is made of [a-z0-9-]", "It stands in the placeholder: [name:3fa2c1].")
    try:
        regex = re.compile(text)
    except re.error as error:
        raise ConfigError(f"policy.redact.{name}: not a regular expression: {error}", f"It is: {text}") from None
    if regex.match(""):
        raise ConfigError(f"policy.redact.{name}: it matches the empty text", f"It is: {text}")
    return regex


def _occurrences(text: str, values: Iterable[str], kind: str = "secret:known") -> Iterator[Span]:
    for value in values:
        place = text.find(value)
        while place >= 0:
            yield place, place + len(value), kind
            place = text.find(value, place + len(value))


def _group(match: re.Match[str], kind: str) -> Span:
    group = 1 if match.re.groups and match[1] else 0
    return (*match.span(group), kind)


def _outside(kept: list[tuple[int, int]], spans: Iterable[Span]) -> Iterator[Span]:
    """The spans without the placeholders in them; one that begins within a placeholder was found in its name and is none."""
    for start, end, kind in spans:
        if any(left < start < right for left, right in kept):
            continue
        for left, right in kept:
            if start <= left < end:
                yield start, left, kind
                start = right
        yield start, end, kind


def _disjoint(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, overlapping ones made one."""
    merged: list[Span] = []
    for start, end, kind in sorted((span for span in spans if span[0] < span[1]), key=lambda span: (span[0], -span[1])):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]), merged[-1][2])
        else:
            merged.append((start, end, kind))
    return merged


def _parts(text: str) -> Iterator[str]:
    """Pieces at ends of lines, none of which ends within a private key."""
    start = 0
    while start < len(text):
        end = min(len(text), start + CHUNK)
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
            begin = text.rfind("-----BEGIN ", start, end)
            stop = text.find("-----END ", begin, begin + 50_000) if begin >= 0 else -1
            if stop >= end:
                end = text.find("\n", stop) + 1 or len(text)
        yield text[start:end]
        start = end


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name) if isinstance(name, str) else name: _map(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map(item, change) for item in value]
    return value
