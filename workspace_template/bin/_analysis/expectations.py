"""What a commit's tests expect that they did not expect before. It knows no symptoms."""

from __future__ import annotations

import re

from _analysis.commits import Commit, FileDiff
from _analysis.kinds import kind_of

ASSERTS = re.compile(r"\s*(?:assert\b|self\.assert\w+\(|expect\(|.*\.(?:should|toBe|toEqual|raises)\b|with .*raises\()")
PARAMETERS = re.compile(r"\s*[(\[\"']")


def changed(commit: Commit) -> float:
    """How much the tests expect other things than before: 1 where an expectation became another, 0.5 where one is gone."""
    return max((_expects(file) for file in commit.files if kind_of(file.path) == "test"), default=0.0)


def _expects(file: FileDiff) -> float:
    """1 where an expectation became another one, 0.5 where one is gone; new ones alone say nothing."""
    best = 0.0
    for hunk in file.hunks:
        gone = [row.text for row in hunk.lines if row.tag == "-" and (ASSERTS.match(row.text) or PARAMETERS.match(row.text))]
        new = [row.text for row in hunk.lines if row.tag == "+" and (ASSERTS.match(row.text) or PARAMETERS.match(row.text))]
        if any(_head(old) == _head(text) and old.strip() != text.strip() for old in gone for text in new):
            return 1.0
        if gone and any(ASSERTS.match(text) for text in gone):
            best = 0.5
    return best


def _head(text: str) -> str:
    """The beginning of a line, by which it is known for the same expectation."""
    return re.sub(r"\W+", " ", text.strip())[:16]
