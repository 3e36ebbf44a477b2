"""Watches a running system and writes what was seen as an incident folder, with times as they are shown."""

from __future__ import annotations

import csv
import json
import re
import threading
import urllib.request
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from agent.evals.generate.clock import Clock, rfc
from agent.evals.generate.scenario import Rule
from agent.evals.generate.system import SERVICES, System

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
Sample = dict[tuple[str, str], float]
TRACES = 90
WARM = 8
QUIET = 3
LATENCY, STALLED, LONGER = "latency_p95_ms", 4.0, 60.0
"""A minute before the cause that is so many times as slow as usual, by so many ms at least, is the host's, not the system's."""


class Scraper:
    """Reads every service's /metrics once each shown minute."""

    def __init__(self, system: System, clock: Clock) -> None:
        self._system = system
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: dict[str, list[Sample]] = {service: [] for service in SERVICES}

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        minute = 0
        while not self._stopped.is_set():
            self._clock.wait(timedelta(minutes=minute))
            for service in SERVICES:
                self.seen[service].append(self._scrape(service))
            minute += 1

    def _scrape(self, service: str) -> Sample:
        """The counters; none where the service did not answer."""
        try:
            with urllib.request.urlopen(self._system.url(service) + "/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        rows = (SAMPLE.match(line) for line in text.splitlines())
        return {(found[1], found[2] or ""): float(found[3]) for found in rows if found}


Point = tuple[int, str, str, float]
"""Minute, service, metric, value."""


def metrics(seen: Mapping[str, Sequence[Sample]]) -> list[Point]:
    """What a dashboard would show for each minute: rates, ratios, a percentile, memory."""
    points: list[Point] = []
    for service, samples in seen.items():
        last: deque[dict[str, float]] = deque(maxlen=5)
        for minute in range(1, len(samples)):
            if not samples[minute]:
                continue
            found = _minute(_moved(samples[minute - 1], samples[minute]), samples[minute])
            last.append(dict(found))
            found |= _ratios(last)
            points += [(minute, service, name, value) for name, value in found.items()]
    return points


def _moved(before: Sample, after: Sample) -> Sample:
    """How far the counters moved; one that fell was begun again by a new process."""
    return {key: value - before.get(key, 0) if value >= before.get(key, 0) else value for key, value in after.items()}


def _minute(moved: Sample, now: Sample) -> dict[str, float]:
    requests = sum(value for (name, _), value in moved.items() if name == "http_requests_total")
    found = {
        "http_requests_per_minute": requests,
        "http_4xx_per_minute": _with(moved, 'status="4'),
        "http_5xx_per_minute": _with(moved, 'status="5'),
        "latency_p95_ms": _percentile(moved, 0.95),
        "resident_memory_mb": round(now.get(("process_resident_memory_bytes", ""), 0) / 1e6, 1),
    }
    for (name, labels), value in moved.items():
        if name.endswith("_total") and not name.startswith("http_") and (name == "quotes_total" or "=" not in labels):
            rate = name.removesuffix("_total") + "_per_minute"
            found[rate] = found.get(rate, 0.0) + value
    failures = sum(value for (name, _), value in moved.items() if name == "client_failures_total")
    return {**found, "client_failures_per_minute": failures}


def _with(moved: Sample, label: str) -> float:
    return sum(value for (name, labels), value in moved.items() if name == "http_requests_total" and label in labels)


def _ratios(last: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Ratios over the last five minutes."""
    sums: dict[str, float] = defaultdict(float)
    for minute in last:
        for name, value in minute.items():
            sums[name] += value
    requests, quotes = sums["http_requests_per_minute"], sums["quotes_per_minute"] + sums["quotes_cached_per_minute"]
    found = {
        "http_4xx_ratio_5m": sums["http_4xx_per_minute"] / requests if requests else 0.0,
        "http_5xx_ratio_5m": sums["http_5xx_per_minute"] / requests if requests else 0.0,
    }
    if quotes:
        found["quote_cache_hit_ratio_5m"] = sums["quotes_cached_per_minute"] / quotes
    return {name: round(value, 4) for name, value in found.items()}


def _percentile(moved: Sample, share: float) -> float:
    """From the histogram's buckets, interpolated, in milliseconds."""
    buckets: dict[float, float] = defaultdict(float)
    for (name, labels), value in moved.items():
        if name == "http_request_duration_seconds_bucket":
            upper = re.search(r'le="([^"]+)"', labels)
            buckets[float(upper[1]) if upper else float("inf")] += value
    whole = buckets.get(float("inf"), 0.0)
    low, below = 0.0, 0.0
    for bound in sorted(buckets):
        if whole and buckets[bound] >= share * whole:
            if bound == float("inf"):
                return round(low * 1000, 1)
            inside = buckets[bound] - below
            return round((low + (bound - low) * ((share * whole - below) / inside if inside else 1)) * 1000, 1)
        low, below = bound, buckets[bound]
    return 0.0


def firing(points: Iterable[Point], rule: Rule) -> tuple[int, float] | None:
    """The minute at which a rule's alert fires and the value it sees then."""
    beyond = 0
    for minute, service, metric, value in points:
        if (service, metric) == (rule.service, rule.metric):
            beyond = beyond + 1 if rule.holds(value) else 0
            if minute >= WARM and beyond > rule.minutes:
                return minute, value
    return None


def trouble(points: Iterable[Point], rule: Rule, alert: tuple[int, float] | None, onset: float) -> str:
    """Why a run does not show what it should: no alert, one that is older than its cause, failures or stalls before it; or ""."""
    if alert is None:
        return f"{rule.metric} of {rule.service} stayed within its limit"
    if alert[0] <= onset:
        return f"{rule.metric} of {rule.service} was beyond its limit {onset - alert[0]:.0f} minutes before the cause"
    early = [
        (minute, value) for minute, _, metric, value in points if metric == "http_5xx_per_minute" and minute < onset and value
    ]
    if sum(value for _, value in early) > QUIET:
        return f"requests failed before the cause, from minute {early[0][0]}"
    for service in sorted({service for _, service, metric, _ in points if metric == LATENCY}):
        times = [
            (minute, value) for minute, name, metric, value in points if (name, metric) == (service, LATENCY) and minute < onset
        ]
        usual = median(value for _, value in times) if times else 0.0
        if stalled := [minute for minute, value in times if value > max(STALLED * usual, usual + LONGER)]:
            return f"{service} stalled before the cause, in minute {stalled[0]}"
    return ""


def write_metrics(file: Path, points: Iterable[Point], clock: Clock) -> None:
    """timestamp,service,metric,value."""
    with file.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["timestamp", "service", "metric", "value"])
        for minute, service, metric, value in sorted(points):
            at = (clock.shown + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")
            table.writerow([at, service, metric, f"{value:g}"])


def write_logs(folder: Path, system: System, clock: Clock, until: datetime) -> None:
    """Each service's log up to a shown moment. Checkouts appear as /srv/NAME, where an installation would have them."""
    places = re.compile(re.escape(str(system.folder / "checkouts")) + r"/(\w+)-(?:[0-9a-f]{12}|v[\d.]+)")
    end = rfc(until)
    for service in SERVICES:
        kept = []
        for line in system.log(service).read_text("utf-8").splitlines():
            shown = places.sub(r"/srv/\1", clock.text(line))
            stamp = re.search(r"\d{4}-\d\d-\d\dT[\d:.]+Z", shown[:50])
            if stamp and stamp[0] > end:
                break
            kept.append(shown)
        (folder / f"{service}.log").write_text("\n".join(kept) + "\n", "utf-8")


def write_traces(file: Path, system: System, clock: Clock, until: datetime) -> None:
    """A sample of whole traces over the time, a third of them failed, as a tracing backend with tail sampling keeps them."""
    traces: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for service in SERVICES:
        for line in (system.folder / "spans" / f"{service}.jsonl").read_text("utf-8").splitlines():
            span = json.loads(clock.text(line))
            traces[span["trace_id"]].append(span)
    whole = [sorted(spans, key=lambda span: str(span["start"])) for spans in traces.values()]
    whole = sorted((spans for spans in whole if str(spans[-1]["start"]) <= rfc(until)), key=lambda spans: str(spans[0]["start"]))
    failed = [spans for spans in whole if any(span["status"] == "ERROR" for span in spans)]
    fine = [spans for spans in whole if all(span["status"] == "OK" for span in spans)]
    kept = [*_spread(failed, TRACES // 3), *_spread(fine, TRACES - TRACES // 3)]
    spans = [span for trace in sorted(kept, key=lambda trace: str(trace[0]["start"])) for span in trace]
    file.write_text("[\n" + ",\n".join(json.dumps(span) for span in spans) + "\n]\n", "utf-8")


def _spread(items: Sequence[list[dict[str, Any]]], count: int) -> list[list[dict[str, Any]]]:
    return [items[index * len(items) // count] for index in range(count)] if len(items) > count else list(items)
