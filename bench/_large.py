"""Makes the telemetry of a large service in files, fast: logs, metrics of a hundred services, traces, with one fault in them."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

SERVICES = ("shop", "stock", "cart", "mail", *(f"svc{n:03d}" for n in range(96)))
METRICS = {
    "http_errors_ratio": 0.001,
    "latency_p95": 80.0,
    "requests_per_second": 300.0,
    "cpu": 0.4,
    "memory": 500.0,
    "gc": 0.01,
    "queue_depth": 12.0,
    "connections": 40.0,
}
WORSE = {("shop", "http_errors_ratio"): 60.0, ("stock", "http_errors_ratio"): 110.0, ("cart", "latency_p95"): 1.6}
"""How many times what it was a series is after the fault went live."""
CALLS = (
    ("gateway", "GET /cart", ""),
    ("shop", "handle", "a"),
    ("cart", "load", "b"),
    ("stock", "reserve", "b"),
    ("stock", "SELECT", "d"),
)
SPAN = timedelta(hours=6)
AFTER = timedelta(minutes=4)


def logs(target: Path, megabytes: int, at: datetime, live: datetime, failure: str, rng: random.Random) -> None:
    """Lines of one service until shortly after the alert; `failure` is what a fiftieth of them say once the fault is live."""
    calm = [
        f" INFO {rng.choice(('cart', 'stock', 'price'))} served order={rng.randrange(10**7)} ms={rng.random() * 90:.1f}\n"
        for _ in range(5000)
    ]
    worse = [failure if rng.random() < 0.02 else line for line in calm]
    seconds = int((SPAN + AFTER).total_seconds())
    each = megabytes * 1_000_000 // seconds // (sum(map(len, calm)) // len(calm) + 27)
    with target.open("w") as out:
        for second in range(seconds):
            now = at - SPAN + timedelta(seconds=second)
            stamp = now.strftime("%Y-%m-%dT%H:%M:%S.")
            tails = rng.choices(worse if now > live else calm, k=each)
            out.write("".join([f"{stamp}{n * 1_000_000 // each:06d}Z{tail}" for n, tail in enumerate(tails)]))


def metrics(target: Path, megabytes: int, at: datetime, live: datetime, rng: random.Random) -> None:
    """A table of eight metrics of a hundred services over a day, in the order of time."""
    keys = [
        (f",{service},{name},", value, WORSE.get((service, name), 1.0)) for service in SERVICES for name, value in METRICS.items()
    ]
    steps = megabytes * 1_000_000 // (len(keys) * 52)
    noise = [1 + 0.1 * rng.random() for _ in range(4 * len(keys))]
    with target.open("w") as out:
        out.write("timestamp,service,metric,value\n")
        for step in range(steps):
            now = at + AFTER - timedelta(days=1) * (1 - step / steps)
            stamp, fault, shift = now.strftime("%Y-%m-%dT%H:%M:%SZ"), now > live, rng.randrange(3 * len(keys))
            rows = zip(keys, noise[shift : shift + len(keys)], strict=True)
            out.write("".join([f"{stamp}{k}{v * (w if fault else 1.0) * x:.5f}\n" for (k, v, w), x in rows]))


def traces(target: Path, megabytes: int, at: datetime, live: datetime, rng: random.Random) -> None:
    """Traces of five spans each, one span a line, in the order of time; six of a hundred fail once the fault is live."""
    number = megabytes * 1_000_000 // (5 * 290)
    with target.open("w") as out:
        for n in range(number):
            now = at - SPAN + (SPAN + AFTER) * (n / number)
            failed = now > live and rng.random() < 0.06
            out.write("".join([_span(n, now, place, failed) for place in range(len(CALLS))]))


def _span(n: int, now: datetime, place: int, failed: bool) -> str:
    service, name, parent = CALLS[place]
    wrong = failed and place < 4
    error = ',"error.message":"KeyError: \'north\'"' if wrong and place == 3 else ""
    above = f"{n:012x}{parent * 4}" if parent else ""
    return (
        f'{{"trace_id":"{n:032x}","span_id":"{n:012x}{"abcde"[place] * 4}","parent_id":"{above}",'
        f'"service":"{service}","name":"{name}",'
        f'"start":"{now.isoformat()}","duration_ms":{30 - place * 5},"status":"{"ERROR" if wrong else "OK"}",'
        f'"attributes":{{"http.route":"/cart","k8s.pod":"p-1"{error}}}}}\n'
    )
