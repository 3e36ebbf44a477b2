"""Conditions that are gone, new, loosened or tightened, and errors that are no longer caught."""

from __future__ import annotations

import re
from collections.abc import Iterator

from _analysis import syntax
from _analysis.commits import FileDiff, Hunk, Line
from _analysis.delta import Delta, Rows, made
from _analysis.rows import Moved, code

ASKS = re.compile(r"(?:\}?\s*(?:else\s+)?(?:if|unless|elif|assert|guard|require|when)\b)")
CATCH = re.compile(r"\b(?:try|except|catch|rescue|recover|finally|ensure)\b")
PORTABLE = re.compile(
    r"version_info|python_version|\bPY[23]\b|\bsix\.|\bbasestring\b|\b_?text_type\b|\bunicode\)|\bstring_types\b|TYPE_CHECKING|"
    r"sys\.platform|os\.name|runtime\.GOOS|__version__"
)
REPLACED = 0.55
"""What a guard is worth in whose place another one came."""
LEAVES = re.compile(r"(?:break|continue)\b")
KEEPS = re.compile(r"(?i)(?:cache|memo|pool|seen|known)\w*(?:\[[^\]]*\]\s*=(?!=)|\.(?:set|put|add|setdefault|store|update)\()")


def found(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: Moved) -> Iterator[Delta]:
    """All of these in one hunk."""
    added_text = moved.added_text
    gone = 0
    for line, text in removed:
        if PORTABLE.search(text):
            continue
        caught = CATCH.match(text)
        if (not caught and not ASKS.match(text)) or (file.path.endswith(".py") and not _asks(text)):
            continue
        asked = text.split(";", 1)[1] if re.match(r"(\}?\s*else )?if .*:=.*;", text) else text
        parts = set(re.findall(r"[A-Za-z_$][\w$]*|\d[\d.]*", re.split(r"\{|:$|\breturn\b|\braise\b", asked)[0])) - {
            "if",
            "else",
            "elif",
            "return",
        }
        kept = {part for part in parts if part in added_text}
        if parts and len(kept) >= 0.7 * len(parts):
            if kept != parts:
                yield made(
                    "changed condition",
                    text,
                    file,
                    hunk,
                    line,
                    0.45,
                    ("wrong", "error", "bounds", "missing", "refused"),
                    (),
                    side="-",
                )
            continue
        brings: tuple[str, ...] = ("crash", "error", "upstream") if caught else _guarded(text)
        if LEAVES.match(_below(hunk, line)):
            brings = (*brings, "latency", "cpu", "volume")
        others = sum(bool(CATCH.match(new) if caught else ASKS.match(new)) for _, new in added)
        gone += 1
        worth = 0.95 if gone > others else REPLACED
        yield made("removed guard" if worth > REPLACED else "other guard", text, file, hunk, line, worth, brings, (), side="-")
    if not removed:
        for line, text in added:
            if re.match(r"(?:\}?\s*(?:else\s+)?(?:if|unless|elif|assert|guard|require)\b|raise\b|throw\b)", text):
                raising = bool(re.search(r"raise|throw|panic|abort|return.*err", text + _next(hunk, line)))
                below = _below(hunk, line)
                if not raising and below and code(below, file.path) not in {new for _, new in added}:
                    causes: tuple[str, ...] = ("wrong", "missing", "refused", "cache", "volume")
                    caching = KEEPS.search(below)
                    causes = (*causes, "latency", "cpu") if caching else causes
                    what = f"{text} {below}"
                    yield made("made conditional", what, file, hunk, line, 0.8 if caching else 0.6, causes, ())
                yield made(
                    "added condition",
                    text,
                    file,
                    hunk,
                    line,
                    0.65 if raising else 0.25,
                    ("error", "parse", "missing", "refused") if raising else ("wrong",),
                    ("nil", "crash", "bounds"),
                )


def _asks(text: str) -> bool:
    """Whether a line of Python is code that asks, and no sentence that begins like it."""
    if text.endswith(("(", "[", "{", "\\", " and", " or", ",")) or CATCH.match(text):
        return True
    whole = f"if x: pass\n{text}\n pass" if text.startswith("elif") else f"{text}\n pass" if text.endswith(":") else text
    return syntax.parse(whole) is not None


def _below(hunk: Hunk, line: Line) -> str:
    """The line under this one, on its side."""
    rows = [row for row in hunk.lines if row.tag in (" ", line.tag)]
    place = next((n for n, row in enumerate(rows) if row is line), len(rows))
    return rows[place + 1].text.strip() if place + 1 < len(rows) else ""


def _next(hunk: Hunk, line: Line) -> str:
    """The two lines after this one."""
    for index, other in enumerate(hunk.lines):
        if other is line:
            return " ".join(following.text for following in hunk.lines[index + 1 : index + 3])
    return ""


def _guarded(text: str) -> tuple[str, ...]:
    if re.search(r"\bnil\b|\bnull\b|None|undefined|\?\.|\?\?", text):
        return ("nil", "crash", "error", "missing")
    if re.search(r"len\(|length|size|count|max|limit|capacity|full", text, re.IGNORECASE):
        return ("bounds", "crash", "error", "memory", "queue", "payload", "refused")
    if re.search(r"<|>|empty", text, re.IGNORECASE):
        return ("bounds", "crash", "error", "wrong")
    return ("error", "wrong", "missing", "parse", "auth", "crash", "cache")
