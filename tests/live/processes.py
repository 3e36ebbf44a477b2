"""Real programs on loopback for tests: each starts on a free port, is waited for by asking it, and is ended with its block.

Nothing here sleeps for a fixed time: `until` asks again until a deadline and says what the last answer was.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

Found = TypeVar("Found")

HTTP = httpx.Client(timeout=30, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
"""For all questions on loopback: a client of its own for each would read the certificates of the world each time."""


def until(what: str, ask: Callable[[], Found | None], *, seconds: float = 30.0, log: Path | None = None) -> Found:
    """What `ask` returns once it is true. Connection errors count as not yet. Fails with the end of the log."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = found = ask()
            if found:
                return found
        except httpx.HTTPError as error:
            last = error
        time.sleep(0.05)  # between two questions, not in place of one
    tail = log.read_text(errors="replace")[-3_000:] if log and log.exists() else ""
    raise AssertionError(f"{what}: not within {seconds:g} s; the last answer was {last!r}\n{tail}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def program(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command with its output in a file; the whole group is ended afterwards."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(env or {})}, cwd=cwd
        )
    try:
        yield process
    finally:
        for wish in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, wish)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        process.wait()


def answers(url: str) -> Callable[[], bool]:
    """Whether an address answers 200."""
    return lambda: HTTP.get(url).status_code == 200


@contextmanager
def prometheus(
    folder: Path, *, jobs: Mapping[str, Sequence[str]], rules: Sequence[Mapping[str, Any]] = (), alertmanager: str = ""
) -> Iterator[str]:
    """Debian's Prometheus with these jobs (a name and its host:port targets) and alert rules, scraping every second. Its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()],
    }
    if rules:
        (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "live", "rules": [dict(rule) for rule in rules]}]}))
        settings["rule_files"] = [str(folder / "rules.yml")]
    if alertmanager:
        target = alertmanager.removeprefix("http://")
        settings["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [target]}]}]}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(settings))
    command = [_installed("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}", f"--web.external-url={url}", "--log.level=warn"]
    log = folder / "prometheus.out"
    with program(command, log):
        until("Prometheus is ready", answers(f"{url}/-/ready"), log=log)
        yield url


@contextmanager
def alertmanager(folder: Path, *, webhook: str) -> Iterator[str]:
    """Debian's Alertmanager, which sends every group to one webhook at once. Its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = {
        "route": {
            "receiver": "agent",
            "group_by": ["alertname"],
            "group_wait": "1s",
            "group_interval": "2s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "agent", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump(settings))
    command = [_installed("prometheus-alertmanager"), f"--config.file={config}", f"--storage.path={folder / 'alertmanager'}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}", "--cluster.listen-address=", "--log.level=warn"]
    log = folder / "alertmanager.out"
    with program(command, log):
        until("Alertmanager is ready", answers(f"{url}/-/ready"), log=log)
        yield url


def ask(method: str, url: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON that an address answers. Fails on anything but success."""
    content = None if body is None else json.dumps(body)
    sent = {"Content-Type": "application/json", **(headers or {})}
    answer = HTTP.request(method, url, content=content, headers=sent)
    assert answer.is_success, f"{method} {url}: {answer.status_code} {answer.text[:500]}"
    return answer.json()


def _installed(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: apt-get install {name}"
    return found
