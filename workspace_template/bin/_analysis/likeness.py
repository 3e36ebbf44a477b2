"""How alike the words of a commit and of the symptoms are: BM25, whatever the words mean. It knows no times and no code."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict

from _analysis import docstrings, words
from _analysis.calls import only_says
from _analysis.commits import Commit
from _analysis.kinds import IDLE, kind_of
from _analysis.symptoms import Symptoms

SUBJECT, BODY, CHANGELOG = 0.8, 0.4, 0.5
"""What a word counts there, where one in a changed line counts 1."""
TELLING = 0.5
"""Which part of all that the symptoms speak of a diff has to have, to be taken for what they speak of."""
NEWS = re.compile(
    r"(?i)(^|/)(change|history|news|release|whatsnew|upgrad|migrat)[^/]*(/|$)|\.(feature|bugfix|removal|breaking|change)\."
)
"""Files that tell users what changed."""


def scores(commits: list[Commit], symptoms: Symptoms) -> list[tuple[float, list[str]]]:
    """BM25 of the symptom's words in each commit, as a share of the best, and the words that they have in common."""
    documents = [document(commit) for commit in commits]
    number = len(documents) or 1
    present = Counter(word for said in documents for word in said)
    mean = sum(sum(d.values()) for d in documents) / number or 1.0
    found = []
    for said in documents:
        length = sum(said.values())
        parts = []
        for word, weight in said.items():
            asked = symptoms.words.get(word, 0.0)
            if asked:
                rarity = math.log(1 + (number - present[word] + 0.5) / (present[word] + 0.5))
                parts.append((min(asked, 3.0) * rarity * weight * 2.2 / (weight + 1.2 * (0.25 + 0.75 * length / mean)), word))
        parts.sort(reverse=True)
        found.append((sum(score for score, _ in parts), [word for _, word in parts[:6]]))
    best = max([*(score for score, _ in found), _told(symptoms, present, number)]) or 1.0
    return [(score / best, shared) for score, shared in found]


def _told(symptoms: Symptoms, present: Counter[str], number: int) -> float:
    """The score that a diff should have to be taken for what the symptoms speak of, whatever the others have."""
    worth = sorted(
        (
            min(asked, 3.0) * math.log(1 + (number - present[word] + 0.5) / (present[word] + 0.5))
            for word, asked in symptoms.words.items()
            if present[word]
        ),
        reverse=True,
    )
    return TELLING * sum(worth[:10])


def document(commit: Commit) -> dict[str, float]:
    """The words of a commit: those of changed lines count most, of tests and documents little, of a changelog more."""
    found: dict[str, float] = defaultdict(float)
    for file in commit.files:
        idle = kind_of(file.path) in IDLE
        log = idle and NEWS.search(file.path)
        for word in words.words(file.path):
            found[word] += 0.2 if idle else 0.8
        for hunk in file.hunks[:60]:
            for word in words.words(hunk.within):
                found[word] += 0.1 if idle else 0.5
            told = docstrings.lines(hunk) if file.path.endswith((".py", ".pyi")) else set()
            for line in hunk.lines:
                weight = (0.1 if idle else 1.0) if line.tag != " " else 0.05 if idle else 0.2
                weight = CHANGELOG if log and line.tag == "+" else weight
                weight *= 0.3 if id(line) in told else 1.0
                weight *= 0.3 if only_says(line.text.strip()) else 1.0
                for word in words.words(line.text):
                    found[word] += weight
    for word in words.words(commit.subject):
        found[word] += SUBJECT
    for word in words.words(commit.body[:1500]):
        found[word] += BODY
    return found
