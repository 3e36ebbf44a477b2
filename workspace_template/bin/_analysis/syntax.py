"""Reads Python by its own grammar. What cannot be read so, or only with more stack than there is, is None. It runs nothing."""

from __future__ import annotations

import ast
import warnings
from typing import Any

UNREADABLE = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)
"""What Python's parser raises: the last two where brackets or operators are nested too deeply, whatever memory there is."""


def parse(text: str) -> ast.Module | None:
    """The syntax tree of a module."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except UNREADABLE:
        return None


def literal(node: ast.expr | str) -> Any:
    """The value that is written out. Raises ValueError where it is none."""
    try:
        return ast.literal_eval(node)
    except UNREADABLE as error:
        raise ValueError(f"no literal: {error}") from None


def written(node: ast.expr) -> str:
    """An expression as text; "…" where it is nested too deeply."""
    try:
        return ast.unparse(node)
    except UNREADABLE:
        return "…"
