"""How long the embedded investigation and its brief take: 100 MB of logs, 30,000 commits of history, 600 in one deployment.
And of the brief alone beside 1 GB of logs, 210 MB of metrics and 500 MB of traces, of which it has to leave most.

The desk lies in a folder of this host: starting a sandbox is bench/sandbox.py's to measure. `--megabytes N` for other logs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.core.investigation import Case, Deployment, RepositoryRef, Trigger
from bench import _large as large
from evals.offline import desk, investigate

AT = datetime(2026, 5, 5, 12, tzinfo=UTC)
LIVE = AT - timedelta(minutes=14)
COMMITS, DEPLOYED, FILES = 30_000, 600, 400
WRONG = "'north'"
TRACE = (
    'Traceback (most recent call last):\n  File "/srv/shop/shop/cart/part1.py", line 3, in step1\n    return reserve(order)\n'
    '  File "/srv/shop/shop/stock/reserve.py", line 2, in reserve\n    return order.warehouse[' + WRONG + "]\n"
    "KeyError: " + WRONG + "\n"
)
PLACES = ("cart", "stock", "price", "mail", "user", "search", "image", "label")


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of what was measured, in seconds."""
    megabytes = int(arguments[1]) if arguments[:1] == ["--megabytes"] else 100
    with tempfile.TemporaryDirectory(prefix="bench-diagnosis-") as scratch:
        folder = Path(scratch)
        print(f"making {megabytes} MB of logs and {COMMITS} commits ...", file=sys.stderr)
        guilty, old, new = _history(folder / "shop.git")
        _telemetry(folder / "telemetry", megabytes)
        case = _case(folder, old, new)
        desk(folder / "desk", case)
        os.environ["SRE_ANALYSIS_CACHE"] = str(folder / "cache")
        brief, _ = _timed([str(folder / "desk" / "bin" / "brief"), "--root", str(folder / "desk"), "--json"])
        (folder / "cache").rename(folder / "used")
        before = _processor()
        began = time.monotonic()
        conclusion = asyncio.run(investigate(case, folder / "desk"))
        whole, used = time.monotonic() - began, _processor() - before
        answered = max((c for c in conclusion.causes), key=lambda c: c.confidence, default=None)
        named = bool(answered and answered.commit == guilty)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        rows = _large(folder, old, new, guilty)
    print(f"the guilty commit was {'' if named else 'NOT '}named, of {DEPLOYED}", file=sys.stderr)
    about = f"{megabytes} MB logs, {COMMITS} commits"
    return [
        {"what": "the brief, nothing cached", "of": about, "measured": round(brief, 2), "at_most": 10.0, "unit": "s"},
        {
            "what": "the whole investigation, nothing cached",
            "of": about,
            "measured": round(whole, 2),
            "at_most": 30.0,
            "unit": "s",
        },
        {"what": "processor time of the investigation", "of": about, "measured": round(used, 2), "unit": "s"},
        {"what": "memory of the largest process", "of": about, "measured": round(peak, 1), "at_most": 1024.0, "unit": "MB"},
        *rows,
    ]


def _case(folder: Path, old: str, new: str) -> Case:
    return Case(
        trigger=Trigger(kind="alert", key="k", at=AT, title="shop: more than 5 % of requests fail", service="shop"),
        repositories=(RepositoryRef(name="shop", url=str(folder / "shop.git"), service="shop", ref=new),),
        deployments=(
            Deployment(timestamp=LIVE - timedelta(days=20), service="shop", commit=old),
            Deployment(timestamp=LIVE, service="shop", commit=new),
        ),
        telemetry=folder / "telemetry",
    )


def _large(folder: Path, old: str, new: str, guilty: str) -> list[dict[str, Any]]:
    """The brief where there is far more telemetry than there is time."""
    print("making 1 GB of logs, 210 MB of metrics and 500 MB of traces ...", file=sys.stderr)
    rng = random.Random(3)
    shutil.rmtree(folder / "telemetry")
    for name in ("logs", "metrics", "traces"):
        (folder / "telemetry" / name).mkdir(parents=True)
    failure = f" ERROR stock request failed: KeyError: {WRONG}\n{TRACE}"
    large.logs(folder / "telemetry/logs/shop.log", 1000, AT, LIVE, failure, rng)
    large.metrics(folder / "telemetry/metrics/all.csv", 210, AT, LIVE, rng)
    large.traces(folder / "telemetry/traces/all.ndjson", 500, AT, LIVE, rng)
    desk(folder / "large", _case(folder, old, new))
    brief, said = _timed([str(folder / "large/bin/brief"), "--root", str(folder / "large"), "--json"])
    likely = json.loads(said)["likely"]
    print(f"beside so much telemetry: {likely}", file=sys.stderr)
    about = "1 GB logs, 210 MB metrics, 500 MB traces"
    return [
        {"what": "the brief, nothing cached", "of": about, "measured": round(brief, 2), "at_most": 10.0, "unit": "s"},
        {"what": "wrong briefs", "of": about, "measured": int(guilty[:10] not in likely), "at_most": 0, "unit": ""},
    ]


def _processor() -> float:
    """Seconds of processor time so far, children that ended included: what counts on a host that is busy with something else."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _timed(command: list[str]) -> tuple[float, str]:
    """The seconds that a command took, and what it printed."""
    began = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.monotonic() - began, done.stdout


def _history(target: Path) -> tuple[str, str, str]:
    """A repository of COMMITS commits; its guilty one, and what was deployed before and last."""
    rng = random.Random(1)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(target)], check=True)
    stream = "".join(_commits(rng))
    subprocess.run(["git", "-C", str(target), "fast-import", "--quiet"], input=stream.encode(), check=True)
    ids = subprocess.run(
        ["git", "-C", str(target), "rev-list", "--reverse", "main"], capture_output=True, text=True, check=True
    ).stdout.split()
    return ids[COMMITS - DEPLOYED // 2], ids[COMMITS - DEPLOYED - 1], ids[-1]


def _commits(rng: random.Random) -> Iterator[str]:
    texts: dict[str, list[str]] = {}
    for number in range(COMMITS):
        path = f"shop/{rng.choice(PLACES)}/part{rng.randrange(FILES // len(PLACES))}.py"
        if number == COMMITS - DEPLOYED // 2:
            path = "shop/stock/reserve.py"
        lines = texts.setdefault(path, [f"def step{n}(order):\n    return order.total + {n}\n\n\n" for n in range(12)])
        place = rng.randrange(len(lines))
        lines[place] = f"def step{place}(order):\n    limit = {rng.randrange(1000)}\n    return order.total + limit\n\n\n"
        if path == "shop/stock/reserve.py":
            lines[place] = f"def reserve(order):\n    return order.warehouse[{WRONG}]\n\n\n"
        text = "".join(lines)
        at = int((AT - timedelta(minutes=12 * (COMMITS - number) + 120)).timestamp())
        subject = f"Change {path.rsplit('/', 1)[-1]} for {rng.choice(PLACES)}"
        yield (
            f"commit refs/heads/main\ncommitter Kim <kim@shop.example> {at} +0000\ndata {len(subject)}\n{subject}\n"
            f"M 100644 inline {path}\ndata {len(text)}\n{text}\n"
        )


def _telemetry(folder: Path, megabytes: int) -> None:
    rng = random.Random(2)
    (folder / "logs").mkdir(parents=True)
    (folder / "metrics").mkdir()
    span = timedelta(hours=6)
    with (folder / "logs" / "shop.log").open("w") as out:
        written, size, line = 0, megabytes * 1_000_000, ""
        while written < size:
            now = AT - span + (span + timedelta(minutes=4)) * (written / size)
            stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            order, user = rng.randrange(10**7), rng.randrange(9999)
            line = f"{stamp} INFO {rng.choice(PLACES)} served order={order} ms={rng.random() * 90:.1f} user=u{user}\n"
            if now > LIVE and rng.random() < 0.02:
                line = f"{stamp} ERROR stock request failed: KeyError: {WRONG}\n{TRACE}"
            out.write(line)
            written += len(line)
    rows = [["timestamp", "service", "metric", "value"]]
    for minute in range(364):
        now = AT - span + timedelta(minutes=minute)
        ratio = 0.06 if now > LIVE else 0.001
        rows.append([now.strftime("%Y-%m-%dT%H:%M:%SZ"), "shop", "http_errors_ratio", f"{ratio + rng.random() * 0.001:.5f}"])
    (folder / "metrics" / "shop.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    (folder / "about.json").write_text(json.dumps({"made": "bench/diagnosis.py"}))
