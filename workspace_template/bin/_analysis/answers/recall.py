"""Paragraphs of memory, earlier investigations and documents that speak of something."""

from __future__ import annotations

import math
from typing import Any

from _analysis import words
from _analysis.desk import Desk, start_of


def of(desk: Desk, asked: str, limit: int) -> dict[str, Any]:
    """Paragraphs that speak of what is asked, by BM25."""
    wanted = set(words.words(asked))
    paragraphs: list[tuple[str, int, str, dict[str, int]]] = []
    places = [desk.root / name for name in ("memory", "investigations", "incident")]
    files = [p for place in places if place.is_dir() for p in sorted(place.rglob("*.md"))]
    for repo in desk.repos.values():
        files += [p for pattern in ("*.md", "docs/**/*.md", "runbooks/**/*.md") for p in sorted(repo.glob(pattern))][:200]
    for path in files[:1000]:
        line = 1
        for paragraph in start_of(path, 200_000).split("\n\n"):
            counted: dict[str, int] = {}
            for word in words.words(paragraph + " " + path.stem):
                counted[word] = counted.get(word, 0) + 1
            if wanted & set(counted):
                paragraphs.append((desk.shown(path), line, paragraph.strip(), counted))
            line += paragraph.count("\n") + 2
    number = len(paragraphs) or 1
    rarity = {w: math.log(1 + number / (1 + sum(w in p[3] for p in paragraphs))) for w in wanted}
    scored = sorted(
        ((sum(rarity[w] * p[3][w] * 2.2 / (p[3][w] + 1.2) for w in wanted if w in p[3]), p) for p in paragraphs),
        key=lambda s: (-s[0], s[1][0], s[1][1]),
    )
    rows = [{"where": f"{p[0]}:{p[1]}", "score": round(score, 2), "text": p[2][:500]} for score, p in scored[:limit]]
    return {"asked": asked[:200], "searched": len(files), "rows": rows}


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    if not answer["rows"]:
        return f"nothing in {answer['searched']} documents speaks of this"
    return "\n\n".join(f"{row['where']}\n{row['text']}" for row in answer["rows"])
