"""What became of a function's parameters: another default, one that is gone or that callers now have to give. Python only.

Both sides of a hunk are read as text, so a signature counts however it is wrapped, as long as the hunk shows it whole.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from _analysis import syntax
from _analysis.commits import FileDiff, Hunk, Line
from _analysis.delta import Delta, made
from _analysis.rows import closing

DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(", re.MULTILINE)
NEEDED = ""
LONGEST = 4000
"""Letters of a signature that is looked at."""
SILENT = ("wrong", "refused", "missing", "error", "volume", "payload", "cache", "parse", "latency")
"""What another default brings to those who never asked for it: mostly no error of its own."""


def changed(file: FileDiff, hunk: Hunk) -> Iterator[Delta]:
    """All changes of parameters in one hunk, a public function's more than a private one's."""
    before, after = _signatures(hunk, "-"), _signatures(hunk, "+")
    for name in before.keys() & after.keys():
        (old, _), (new, line) = before[name], after[name]
        worth = 0.7 if name.startswith("_") and not name.startswith("__") else 1.0
        old = _as_now(old, new)
        for parameter, default in new.items():
            was = old.get(parameter)
            if was is not None and NEEDED not in (was, default) and not _alike(was, default):
                what = f"{parameter} = {was} -> {parameter} = {default}"
                yield made("changed default", what, file, hunk, line, 0.9 * worth, SILENT, (), side="+", old=was, new=default)
            elif (was is None and default == NEEDED and old) or (was not in (None, NEEDED) and default == NEEDED):
                causes = ("error", "type", "missing")
                yield made("needed parameter", f"{name}({parameter})", file, hunk, line, 0.7 * worth, causes, (), side="+")
        for parameter in old.keys() - new.keys() if "**" not in new else ():
            causes = ("error", "type", "missing")
            yield made("parameter gone", f"{name}({parameter})", file, hunk, line, 0.6 * worth, causes, (), side="+")


def _as_now(old: Parameters, new: Parameters) -> Parameters:
    """The old parameters by the names that they have now: one that only got another name stands where it stood."""
    names = list(new)
    if len(old) != len(new):
        return old
    return {
        (now if now not in old and was not in new and default == new[now] else was): default
        for (was, default), now in zip(old.items(), names, strict=True)
    }


def _alike(old: str, new: str) -> bool:
    """Whether two defaults are the same for a caller: equal, or both empty containers."""
    try:
        values = [syntax.literal(old), syntax.literal(new)]
    except ValueError:
        return old == new
    empty = all(isinstance(value, (list, tuple, set, dict)) and not value for value in values)
    return empty or (type(values[0]) is type(values[1]) and values[0] == values[1])


Parameters = dict[str, str]
"""Defaults by name; NEEDED where there is none."""


def _signatures(hunk: Hunk, tag: str) -> dict[str, tuple[Parameters, Line]]:
    """The signatures that one side shows whole; a name that is defined twice is left out."""
    rows = [row for row in hunk.lines if row.tag in (" ", tag)]
    text = "\n".join(row.text for row in rows)
    found: dict[str, tuple[Parameters, Line]] = {}
    twice: set[str] = set()
    for match in DEFINED.finditer(text):
        closed = closing(text, match.end(), LONGEST)
        end = text.find(":", closed) if closed else -1
        parameters = _parameters(text[match.end() - 1 : closed + 1]) if end > 0 else None
        if parameters is None or match[1] in found:
            twice.add(match[1])
            continue
        first = text.count("\n", 0, match.start())
        last = text.count("\n", 0, end)
        line = next((row for row in rows[first : last + 1] if row.tag == tag), rows[first])
        found[match[1]] = (parameters, line)
    return {name: one for name, one in found.items() if name not in twice}


def _parameters(text: str) -> Parameters | None:
    tree = syntax.parse(f"def f{text}: pass")
    function = tree.body[0] if tree else None
    if not isinstance(function, ast.FunctionDef):
        return None
    given = function.args
    plain = [*given.posonlyargs, *given.args]
    found: Parameters = {argument.arg: NEEDED for argument in plain if argument.arg not in ("self", "cls")}
    for argument, default in zip(plain[::-1], given.defaults[::-1], strict=False):
        found[argument.arg] = syntax.written(default)
    for argument, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found[argument.arg] = syntax.written(value) if value else NEEDED
    return found | ({"**": "**"} if given.kwarg else {})
