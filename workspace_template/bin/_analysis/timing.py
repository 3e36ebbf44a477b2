"""When something changed against when what is wrong began."""

from __future__ import annotations

from _analysis.clock import span
from _analysis.symptoms import Symptoms


def soon(symptoms: Symptoms, moment: float) -> tuple[float, float]:
    """Which share of all that is wrong begins after a moment (less of it, the later), and which had begun before it."""
    follows = early = total = 0.0
    for anomaly in symptoms.anomalies:
        if anomaly.kind == "span" or anomaly.weight < 0.1:
            continue
        total += anomaly.weight
        after = anomaly.onset - moment
        if after < -anomaly.slack:
            early += anomaly.weight * min(1.0, 0.5 - (after + anomaly.slack) / 120)
        else:
            follows += anomaly.weight / (1 + max(0.0, after - 180) / 1800)
    if not total:
        return (0.0, 0.5) if symptoms.series or symptoms.scan.templates else (0.0, 0.0)
    return follows / total, early / total


def gap(seconds: float | None) -> str:
    """Says how long before the onset."""
    if seconds is None:
        return "at a time that cannot be compared"
    return f"{span(seconds)} {'before' if seconds >= 0 else 'after'} the onset"
