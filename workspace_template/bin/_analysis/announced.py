"""What a commit says of itself that it changes for those who use the code: tests that expect something else than before,
and words of its message, its changelog and its documents. It knows no symptoms.
"""

from __future__ import annotations

import re

from _analysis.commits import Commit, FileDiff
from _analysis.kinds import kind_of

CHANGELOG = re.compile(
    r"(?i)(^|/)(change|history|news|release|whatsnew|upgrad|migrat)[^/]*(/|$)|\.(feature|bugfix|removal|breaking|change)\."
)
ASSERTS = re.compile(r"\s*(?:assert\b|self\.assert\w+\(|expect\(|.*\.(?:should|toBe|toEqual|raises)\b|with .*raises\()")
PARAMETERS = re.compile(r"\s*[(\[\"']")
SAYS = re.compile(
    r"(?i)\bno longer\b|\bby default\b|\bbreaking\b|\bbackwards?[- ]incompatib|\binstead of\b|\bversionchanged\b|\bstricter\b|"
    r"\bdefaults? (?:to|is|value|was|has)\b|\b(?:is|are|has been|have been) (?:now|removed|renamed|changed)\b|\brenam|"
    r"\bnow (?:is|are|uses?|returns?|raises?|requires?|always|only)\b|\bmust (?:be|now)\b|\bdrop(?:ped|s)?\b.*\bsupport\b"
)


def features(commit: Commit) -> dict[str, float]:
    """expects: how much the tests expect other things than before; announces: how plainly it says that it changes something."""
    expects = max((_expects(file) for file in commit.files if kind_of(file.path) == "test"), default=0.0)
    texts = [commit.subject, commit.body]
    for file in commit.files:
        if kind_of(file.path) == "docs" or file.path.endswith((".py", ".pyi")):
            rows = [row.text for hunk in file.hunks for row in hunk.lines if row.tag == "+"]
            texts += rows if kind_of(file.path) == "docs" else [row for row in rows if ".. version" in row]
    return {"expects": expects, "announces": float(any(SAYS.search(text) for text in texts))}


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
