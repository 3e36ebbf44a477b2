"""Settings, parameters and constants that have another value, another default, or are gone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from _analysis import words
from _analysis.calls import CALL, SAYS
from _analysis.commits import FileDiff, Hunk, Line
from _analysis.delta import Delta, Rows, made
from _analysis.kinds import kind_of
from _analysis.rows import Moved

UNIT = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "m": 60.0,
    "min": 60.0,
    "mins": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "d": 86400.0,
}
QUANTITY = r"-?\d[\d_]*(?:\.\d+)?(?:\s*\*\s*\d[\d_]*(?:\.\d+)?)*\s*(?:\*\s*)?(?:time\.|chrono::)?(?:[A-Za-z%]+)?"
VALUE = rf"(?:{QUANTITY}|true|false|True|False|None|null|nil|\"[^\"]*\"|'[^']*'|[A-Za-z_][\w.-]*)"
SETTING = re.compile(
    rf"(?<!\w)(?<!\w[.-])[\"']?(?P<name>[A-Za-z_][\w.-]*)[\"']?\s*(?::=|=(?!=)|:(?!:)|=>)\s*(?:[A-Za-z_][\w.]*(?:\[[^\]]*\])?"
    rf"(?:\s*\|\s*[\w.\[\]]+)*\s*=\s*)?(?P<value>{VALUE})(?=\s*(?:$|[,;)}}\]#/]|//))"
)
CALLED_WITH = re.compile(rf"(?P<name>[A-Za-z_][\w.]*)\((?P<before>[^()]*?,)?\s*(?P<value>{QUANTITY})\s*\)")
DEFAULTED = re.compile(rf"\w\(\s*[\"'](?P<name>[A-Za-z_][\w.-]*)[\"']\s*,\s*[\"']?(?P<value>{QUANTITY})[\"']?\s*\)")
KEYWORD_VALUE = re.compile(r"\b(?P<name>LIMIT|OFFSET|TOP|TIMEOUT|MAXLEN|FETCH FIRST)\s+(?P<value>\d+)", re.IGNORECASE)
SLICE = re.compile(r"(?P<name>[A-Za-z_][\w.]*)\[:(?P<value>\d+)\]")
DEFAULT = re.compile(r"(?i)default")
ON, OFF = ("true", "on", "enabled", "yes"), ("false", "off", "disabled", "no")
LIMIT = re.compile(r"(?i)(?:^|_)(?:max|min|limit|timeout|quota|cap|threshold)(?:_|$|[A-Z])|^max[A-Z]")
SILENT = ("wrong", "refused", "missing", "error", "volume", "payload", "cache", "parse")
"""What another default brings to those who never asked for it: mostly no error of its own."""
ANNOTATION = r"(?::(?:[^=,\[\]]|\[[^=\[\]]*(?:\[[^=\[\]]*\][^=\[\]]*)*\])+)?"
PARAMETER = re.compile(
    rf"^\s*(?:def \w+\(.*?\b)?(?P<name>[A-Za-z_]\w*)\s*{ANNOTATION}=\s*(?P<value>{VALUE})\s*,?\s*(?:\)\s*(?:->.*)?:)?$"
)


def changed(file: FileDiff, kind: str, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Settings with another value, and settings that are gone."""
    before, after = _settings(removed, file.path), _settings(added, file.path)
    for name, (old, line) in before.items():
        if name not in after:
            if kind == "config" or quantity(old) is not None:
                causes, eases = words.effect(name, True)
                yield made("removed setting", name, file, hunk, line, 0.35, causes, eases, old=old)
            continue
        new, new_line = after[name]
        if new == old or _same_text(old, new) or re.search(r"(?i)version|copyright|release|author", name):
            continue
        yield _value_delta(file, hunk, kind, name, old, new, new_line)


def _value_delta(file: FileDiff, hunk: Hunk, kind: str, name: str, old: str, new: str, line: Line) -> Delta:
    a, b = quantity(old), quantity(new)
    unbounded = ("none", "null", "nil")
    if b is None and a is not None and new.lower() in unbounded:
        b = max(a, 1.0) * 1e6
    elif a is None and b is not None and old.lower() in unbounded:
        a = max(b, 1.0) * 1e6
    setting = name.rsplit("#", 1)[0]
    what = f"{setting} {old} -> {new}"
    if a is not None and b is not None:
        causes, eases = words.effect(setting, b > a)
        return made("changed value", what, file, hunk, line, _far(a, b), causes, eases, old=old, new=new)
    verbose = new.strip("\"'").lower() in ("debug", "trace", "all", "verbose") and "level" in name.lower()
    causes = ("logging", "disk", "volume", "cpu") if verbose else ()
    switch = {old.strip("\"'").lower(), new.strip("\"'").lower()} <= {*ON, *OFF}
    texts = old[:1] in "\"'" and new[:1] in "\"'"
    if switch or texts:
        causes = ("wrong", "error", "refused", "missing", "parse", "auth")
    known = words.switched(setting, new.strip("\"'").lower() in ON) if switch else ()
    causes = (*causes, *known)
    strength = 0.9 if verbose or known else 0.7 if switch else 0.6 if kind == "config" else 0.5 if texts else 0.3
    return made("changed value", what, file, hunk, line, strength, causes, (), old=old, new=new)


def defaults(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: Moved) -> Iterator[Delta]:
    """Parameters and constants with another default, also where they got another name with it."""
    before = {m["name"]: m["value"] for _, text in removed if (m := PARAMETER.match(text)) and _is_value(m["value"], file.path)}
    after = {
        m["name"]: (m["value"], line) for line, text in added if (m := PARAMETER.match(text)) and _is_value(m["value"], file.path)
    }
    for name, (new, line) in after.items():
        old_name = name if name in before else _renamed(name, before.keys() - after.keys()) or name
        limit = LIMIT.search(name) and quantity(new) is not None and name not in moved.removed_words
        if limit and old_name == name and name not in before:
            causes = ("refused", "payload", "bounds", "timeout", "error")
            yield made("new limit", f"{name} = {new}", file, hunk, line, 0.7, causes, (), new=new)
            continue
        old = before.get(old_name, new)
        if old == new or _same_text(old, new) or re.search(r"(?i)version|copyright|release|author", name):
            continue
        if old_name != name or DEFAULT.search(name) or line.text.rstrip().endswith((",", "):", ",)")):
            what = f"{old_name} = {old} -> {name} = {new}"
            a, b = quantity(old), quantity(new)
            strength = 0.9 if a is None or b is None else _far(a, b)
            yield made("changed default", what, file, hunk, line, strength, SILENT, (), old=old, new=new)


def _renamed(name: str, gone: Iterable[str]) -> str:
    """Which of these names was replaced by this one: one that ends alike."""
    last = words.pieces(name)[-1:]
    return next((other for other in sorted(gone) if words.pieces(other)[-1:] == last and len(last[0]) > 3), "") if last else ""


def _far(a: float, b: float) -> float:
    """How much a number that became another can do: by how many times it did."""
    ratio = max(abs(a), abs(b)) / max(min(abs(a), abs(b)), 1e-9)
    return 0.4 if ratio < 1.5 else 0.55 if ratio < 2.5 else 0.8 if ratio < 5 else 1.0


def _settings(rows: Rows, path: str) -> dict[str, tuple[str, Line]]:
    found: dict[str, tuple[str, Line]] = {}
    for line, text in rows:
        if SAYS.match((CALL.search(text) or [None, ""])[1] or ""):
            continue
        for form in (SETTING, DEFAULTED, CALLED_WITH, KEYWORD_VALUE, SLICE):
            for match in form.finditer(text):
                name = match["name"] if form is not SLICE else f"{match['name']} length"
                value = match["value"].strip()
                if form is SETTING and not _is_value(value, path):
                    continue
                if form is CALLED_WITH and SAYS.match(name):
                    continue
                key = name
                while key in found and form is not SETTING:
                    key += "#"
                found.setdefault(key, (value, line))
    return found


def _is_value(value: str, path: str) -> bool:
    """A literal, not a variable; in configuration any word is a value."""
    plain = value.strip("\"'")
    if (
        quantity(value) is not None
        or value[:1] in "\"'"
        or plain.lower() in ("true", "false", "on", "off", "none", "null", "nil")
    ):
        return True
    return kind_of(path) == "config" and not path.endswith(".tf")


def quantity(text: str) -> float | None:
    """A number with its unit, in seconds or bytes or ones; None for what is none."""
    text = text.strip().strip("\"'")
    match = re.fullmatch(
        r"(-?\d[\d_]*(?:\.\d+)?(?:\s*\*\s*\d[\d_]*(?:\.\d+)?)*)\s*(?:\*\s*)?(?:[\w]*(?:\.|::))?([A-Za-z%]*)", text
    )
    if not match:
        return None
    product = 1.0
    for part in match[1].split("*"):
        try:
            product *= float(part.strip().replace("_", ""))
        except ValueError:
            return None
    unit = match[2].lower()
    if unit and unit not in UNIT:
        return None
    return product * (UNIT[unit] if unit else 1.0)


def _same_text(old: str, new: str) -> bool:
    return re.sub(r"^[uU](?=[\"'])", "", old).strip("\"'`") == re.sub(r"^[uU](?=[\"'])", "", new).strip("\"'`")
