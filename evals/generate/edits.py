"""Edits of a tree of files: what commits are made of. An edit that does not apply to a tree is no error: it is left for later."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Tree = dict[str, str]
"""The text of each file by its path."""

Change = Callable[[Mapping[str, str]], Tree | None]
"""The files that change, with their new text; None where it does not apply."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change with the subject and body of its commit."""

    subject: str
    change: Change
    body: str = ""

    def apply(self, tree: Mapping[str, str]) -> Tree | None:
        """The whole tree after it, or None where it does not apply or would change nothing."""
        changed = self.change(tree)
        if not changed or all(tree.get(path) == text for path, text in changed.items()):
            return None
        return {**tree, **changed}


def replace(path: str, old: str, new: str) -> Change:
    """Replaces a text that occurs exactly once."""

    def change(tree: Mapping[str, str]) -> Tree | None:
        text = tree.get(path, "")
        return {path: text.replace(old, new)} if text.count(old) == 1 else None

    return change


def append(path: str, addition: str) -> Change:
    """Adds to the end of a file, which is made if there is none."""

    def change(tree: Mapping[str, str]) -> Tree | None:
        text = tree.get(path, "")
        return None if addition.strip() in text else {path: text + addition if text else addition.lstrip("\n")}

    return change


def number(path: str, name: str, value: int | float) -> Change:
    """Sets a constant to a number."""

    def change(tree: Mapping[str, str]) -> Tree | None:
        text, found = re.subn(rf"(?m)^{name} = [\d.]+$", f"{name} = {value}", tree.get(path, ""))
        return {path: text} if found == 1 else None

    return change


def row(path: str, table: str, line: str) -> Change:
    """Puts a line into a table, `NAME = {` to its closing bracket at the same depth, in alphabetical order."""

    def change(tree: Mapping[str, str]) -> Tree | None:
        lines = tree.get(path, "").splitlines()
        begin = next((n for n, text in enumerate(lines) if text.rstrip().endswith("{") and text.strip().startswith(table)), None)
        if begin is None or line in lines:
            return None
        depth = len(lines[begin]) - len(lines[begin].lstrip())
        end = next(n for n in range(begin + 1, len(lines)) if lines[n].startswith(" " * depth + "}"))
        place = next((n for n in range(begin + 1, end) if lines[n] > line), end)
        return {path: "\n".join([*lines[:place], line, *lines[place:]]) + "\n"}

    return change


def record(path: str, line: str) -> Change:
    """Puts an object at a deterministic place of a JSON list that has one object a line."""

    def change(tree: Mapping[str, str]) -> Tree | None:
        rows = [text.rstrip(",") for text in tree.get(path, "").splitlines()[1:-1]]
        if not rows or line in rows:
            return None
        place = sum(map(ord, line)) % (len(rows) + 1)
        rows.insert(place, line)
        return {path: "[\n" + ",\n".join(rows) + "\n]\n"}

    return change


def together(*changes: Change) -> Change:
    """All of them, or none where one does not apply."""

    def change(tree: Mapping[str, str]) -> Tree | None:
        now: Tree = dict(tree)
        changed: Tree = {}
        for one in changes:
            files = one(now)
            if files is None:
                return None
            now |= files
            changed |= files
        return changed

    return change
