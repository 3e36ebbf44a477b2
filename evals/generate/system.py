"""Runs the small system: one process for each service from a checkout of its repository, a seeded load, deployments.

A deployment starts the new version beside the old one on the same port and then ends the old one, as a rolling update does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random, uniform

from agent.evals.generate.edits import Tree
from agent.evals.generate.history import git

SERVICES = ("pricing", "orders", "storefront")
SHOP = Path(__file__).parent / "shop"


def first_tree(service: str) -> Tree:
    """The files a service began with."""
    folder = SHOP / service
    return {str(path.relative_to(folder)).removesuffix(".txt"): path.read_text("utf-8") for path in sorted(folder.rglob("*.txt"))}


@dataclass(kw_only=True)
class System:
    """The running services. `folder` holds checkouts, logs/ and spans/."""

    folder: Path
    repositories: Mapping[str, Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    deployed: dict[str, str] = field(default_factory=dict)
    libraries: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {service: _free_port() for service in SERVICES}
        for name in ("logs", "spans", "checkouts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.switch(())

    def switch(self, flags: Sequence[str]) -> None:
        """Makes these feature flags, and no others, on."""
        partial = self.folder / "flags.partial"
        partial.write_text(json.dumps(list(flags)))
        partial.replace(self.folder / "flags.json")

    def url(self, service: str) -> str:
        """Where a service listens."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def log(self, service: str) -> Path:
        """The file a service logs to."""
        return self.folder / "logs" / f"{service}.log"

    def checkout(self, service: str, commit: str) -> Path:
        """A working tree of a commit, made where there is none yet."""
        folder = self.folder / "checkouts" / f"{service}-{commit[:12]}"
        if not folder.exists():
            source = self.repositories.get(service) or self.libraries[service]
            git(self.folder, "clone", "-q", "--no-checkout", str(source), str(folder))
            git(folder, "checkout", "-q", "--detach", commit)
        return folder

    def required(self, checkout: Path) -> list[Path]:
        """Where the libraries are that a working tree's requirements.txt pins, each at the tag of its version."""
        pins = checkout / "requirements.txt"
        rows = [line.partition("==") for line in pins.read_text().splitlines()] if pins.exists() else []
        return [self.checkout(name, f"v{version}") for name, _, version in rows if name in self.libraries]

    def deploy(self, service: str, commit: str, environment: Mapping[str, str] | None = None) -> float:
        """Puts a commit of a service into service; returns once it serves alone, with when it began to (seconds since 1970)."""
        checkout = self.checkout(service, commit)
        before = self._listening(service)
        with (self.folder / "logs" / f"{service}.err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-B", "-m", service],
                cwd=checkout,
                stdout=errors,
                stderr=errors,
                env={
                    "PATH": os.defpath,
                    "PORT": str(self.ports[service]),
                    "ORDERS_URL": self.url("orders"),
                    "PRICING_URL": self.url("pricing"),
                    "LOG_FILE": str(self.log(service)),
                    "PYTHONPATH": os.pathsep.join(map(str, self.required(checkout))),
                    "FLAGS_FILE": str(self.folder / "flags.json"),
                    "SPAN_FILE": str(self.folder / "spans" / f"{service}.jsonl"),
                    **self.environment,
                    **(environment or {}),
                },
            )
        deadline = time.monotonic() + 20
        while self._listening(service) == before:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{service} at {commit[:12]} does not start: {(self.folder / 'logs' / f'{service}.err').read_text()[-2000:]}"
                )
            time.sleep(0.01)
        served = time.time()
        old = self.processes.get(service)
        self.processes[service] = process
        self.deployed[service] = commit
        if old:
            _end(old)
        return served

    def _listening(self, service: str) -> int:
        log = self.log(service)
        return log.read_bytes().count(b"listening on port") if log.exists() else 0

    def stop(self) -> None:
        """Ends all processes."""
        for process in self.processes.values():
            _end(process)
        self.processes.clear()


class Payments:
    """The payments provider: not ours, and no repository of it. It takes its time to charge, or answers 503 while `works` is
    False.
    """

    def __init__(self) -> None:
        self.works = True
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(uniform(0.008, 0.025))
                content = b'{"state": "charged"}' if provider.works else b'{"error": "service unavailable"}'
                self.send_response(200 if provider.works else 503)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a caller that gave up

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Payments:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def running(
    folder: Path,
    repositories: Mapping[str, Path],
    commits: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    libraries: Mapping[str, Path] | None = None,
) -> Iterator[System]:
    """The system with these commits in service, ended with the block."""
    system = System(folder=folder, repositories=repositories, environment=environment or {}, libraries=libraries or {})
    try:
        for service in SERVICES:
            system.deploy(service, commits[service])
        yield system
    finally:
        system.stop()


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What visitors do. `products` and `orders` are shares of all requests, `coupons` of the checkouts, `single` of the baskets
    with one piece of one product.
    """

    per_second: float = 20.0
    products: float = 0.45
    orders: float = 0.15
    coupons: Mapping[str, float] = field(default_factory=lambda: {"WELCOME10": 0.22, "SPRING15": 0.12, "TENOFF": 0.06})
    single: float = 0.2
    countries: tuple[str, ...] = ("DE", "DE", "DE", "AT", "NL", "FR", "BE", "DK")


SKUS = (
    "KET-100",
    "TEA-107",
    "MUG-114",
    "BOW-121",
    "PLA-128",
    "CAR-135",
    "TRA-142",
    "WHI-149",
    "LAD-163",
    "SKI-184",
    "APR-198",
    "TIM-205",
)


class Load:
    """Visitors: requests at random moments from a seeded source, until `stop`. It goes on where requests fail."""

    def __init__(self, url: str, rng: Random, mix: Mix) -> None:
        self._url = url
        self._rng = rng
        self.mix = mix
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(96)
        self._thread = threading.Thread(target=self._run)
        self._orders: list[str] = []
        self._begun = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._pool.shutdown()

    def forget(self) -> None:
        """Nobody asks for an earlier order again: orders keeps them in memory and has just begun anew."""
        self._orders = []
        self._begun += 1

    def _run(self) -> None:
        while not self._stopped.wait(self._rng.expovariate(self.mix.per_second)):
            self._pool.submit(self._visit, self._begun, *self._request())

    def _request(self) -> tuple[str, dict[str, object] | None]:
        choice = self._rng.random()
        if choice < self.mix.products or (choice < self.mix.products + self.mix.orders and not self._orders):
            return f"/product/{self._rng.choice(SKUS)}", None
        if choice < self.mix.products + self.mix.orders:
            return f"/order/{self._rng.choice(self._orders)}", None
        items: list[dict[str, object]] = [{"sku": self._rng.choice(SKUS), "quantity": 1}]
        if self._rng.random() >= self.mix.single:
            skus = self._rng.sample(SKUS, self._rng.choice((1, 1, 2, 3, 4)))
            items = [{"sku": sku, "quantity": self._rng.choice((1, 1, 1, 2, 2, 3, 6))} for sku in skus]
        body: dict[str, object] = {"customer": f"c{self._rng.randrange(2000, 9000)}", "items": items}
        body["country"] = self._rng.choice(self.mix.countries)
        left = self._rng.random()
        for code, share in self.mix.coupons.items():
            left -= share
            if left < 0:
                body["coupon"] = code
                break
        return "/checkout", body

    def _visit(self, begun: int, path: str, body: dict[str, object] | None) -> None:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url + path, data), timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass  # a visitor who got no answer goes away
        else:
            if path == "/checkout" and begun == self._begun:
                self._orders = [*self._orders[-200:], str(found["order"])]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
