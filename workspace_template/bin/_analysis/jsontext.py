"""JSON texts of unknown origin: whatever is wrong with one, nesting too, is a ValueError that says where and what."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 60


def parse(text: str) -> Any:
    """The value of a text."""
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def shallow(text: str) -> Any:
    """The value of a text that may not be nested deeper than what is made by hand or by our own programs."""
    found = parse(text)
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise json.JSONDecodeError("nested too deeply", "", 0)
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in _inside(outer)]
    return found


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is an object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none where it is no list."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def trouble(error: ValueError) -> tuple[int, str]:
    """The line, from 1, and what is wrong in it."""
    return getattr(error, "lineno", 1), getattr(error, "msg", "") or str(error)


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
