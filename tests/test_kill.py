"""kill -9 of the whole service at random moments: every investigation ends, nothing outside is done twice, the report says the same.

One reference investigation runs undisturbed. Then alerts like it come in one after the other while the service is killed and
started again; each must end in the same report, one proposal and one commit of the memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.paths import shipped
from agent.sandboxes.bubblewrap import Bubblewrap
from tests.live.processes import HTTP, free_port, until
from tests.test_cli import PROGRAM

INCIDENT = shipped("incidents") / "first"
GUILTY = json.loads((shipped("incidents") / "truth" / "first.json").read_text())["guilty"][0]["commit"]
POINTS = int(os.environ.get("KILL_POINTS", "50"))
VARIES = ("investigation", "written_at", "usage", "brief", "at")


def _home(folder: Path) -> None:
    """A home whose model follows a script: look, note, fix, write memory, propose, report with evidence and a check."""
    diff = {"type": "code", "repo": "pricing", "commit": GUILTY}
    quote = 'minimum = coupon.get("minimum", 0)'
    evidence = [{"claim": "it removes the default", "supports": "mechanism", "source": diff, "quote": quote}]
    reproducer = (
        'cd repos/pricing && python3 -c \'from pricing import coupons\ntry: coupons.reduction("WELCOME10", 6000)\n'
        "except KeyError: raise SystemExit(0)\nraise SystemExit(1)'"
    )
    check = {
        "claim": "coupons without a minimum fail",
        "command": reproducer,
        "repo": "pricing",
        "with": {"ref": GUILTY},
        "without": {"ref": f"{GUILTY}~1"},
    }
    cause = {
        "statement": "a coupon may lack a minimum",
        "category": "code",
        "repo": "pricing",
        "commit": GUILTY,
        "confidence": 0.9,
    }
    report = {"verdict": "likely", "summary": "coupons", "causes": [cause], "evidence": evidence, "checks": [check]}
    git = "git -C repos/pricing"
    revert = f"rm -f repos/pricing/.git/index.lock; if {git} diff --quiet HEAD; then {git} revert --no-commit {GUILTY}; fi"
    fix = ("bash", {"command": f"{revert}; echo '# Coupons' > memory/coupons.md"})
    turns: list[list[tuple[str, dict[str, Any]]]] = [
        [("bash", {"command": "suspects --json | head -c 300"}), ("read_file", {"path": "repos/pricing/pricing/coupons.py"})],
        [("finding", {"claim": "KeyError minimum", "source": "repos/pricing/pricing/coupons.py:1"})],
        [fix],
        [fix],  # a script cannot look whether a call that a kill cut off had happened: it does what is not done yet
        [
            (
                "propose",
                {"repo": "pricing", "title": "Revert the change of coupons", "body": "It broke coupons without a minimum."},
            )
        ],
        *[[("report", report)]] * 3,
    ]
    script = [{"calls": [{"name": name, "arguments": arguments} for name, arguments in turn]} for turn in turns]
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    repository = {"url": str(INCIDENT / "pricing.bundle")}
    settings = {"model": {"name": f"scripted:{folder / 'script.yaml'}"}, "services": {"pricing": {"repository": repository}}}
    (folder / "sre-agent.yaml").write_text(yaml.safe_dump(settings))


class Service:
    """`sre-agent serve` for a home, started and killed at will."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--home", str(self.home), "serve", "--port", str(self.port)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self.process
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str) -> Any:
        return HTTP.get(self.url + path).json()

    def alert(self, number: int) -> str:
        """Sends an alert until it is kept; the id of its investigation."""
        alert = {
            "title": "Checkout fails",
            "service": "pricing",
            "fingerprint": f"f{number}",
            "starts_at": "2026-04-17T11:38:00Z",
        }

        def send() -> str | None:
            answer = HTTP.post(f"{self.url}/v1/alerts/generic", json=alert)
            return str(answer.json()["investigations"][0]["id"]) if answer.status_code == 202 else None

        return until("the alert is kept", send, log=self.log)

    def is_done(self, id: str) -> bool:
        return bool(self.ask(f"/v1/investigations/{id}")["status"] in ("done", "failed"))


@contextmanager
def _service(home: Path) -> Iterator[Service]:
    _home(home)
    service = Service(home)
    service.start()
    try:
        yield service
    finally:
        service.kill()
        asyncio.run(_clear(home))


async def _clear(home: Path) -> None:
    sandboxes = Bubblewrap(home / ".sre-agent/sandboxes/bubblewrap")
    for id in await sandboxes.ids():
        await (await sandboxes.open(id)).delete()


def _said(service: Service, id: str) -> dict[str, Any]:
    """What a report says, less what differs between any two runs."""
    report = service.ask(f"/v1/investigations/{id}")["report"]
    proposals = [{**proposal, "url": "", "branch": ""} for proposal in report["proposals"]]
    for proposal in proposals:
        for tests in (proposal["tests_before"], proposal["tests_after"]):
            tests["output"] = ""
    return {key: value for key, value in {**report, "proposals": proposals}.items() if key not in VARIES}


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_random_moments_everything_ends_once_and_the_same(tmp_path: Path) -> None:
    with _service(tmp_path) as service:
        reference = service.alert(0)
        began = time.monotonic()
        until("the undisturbed investigation ends", lambda: service.is_done(reference), seconds=120, log=service.log)
        lasts = time.monotonic() - began
        expected = _said(service, reference)
        assert expected["proposals"][0]["status"] == "published", expected["proposals"]
        assert expected["memory_changes"] == ["coupons.md"]

        chance = random.Random(7)
        kills, ids, places = 0, [service.alert(1)], set()
        while kills < POINTS:
            time.sleep(chance.uniform(0.05, lasts))  # the moment of the kill is what is tested
            service.kill()
            kills += 1
            places.add((ids[-1], _reached(tmp_path, ids[-1])))
            service.start()
            until("it serves", lambda: _answers(service), seconds=60, log=service.log)
            if service.is_done(ids[-1]):
                ids.append(service.alert(len(ids) + 1))
        for id in ids:
            until(f"{id} ends", lambda id=id: service.is_done(id), seconds=180, log=service.log)  # type: ignore[misc]
            found = _said(service, id)
            assert {**found, "memory_changes": []} == {**expected, "memory_changes": []}
        journals = [_entries(service, id) for id in ids]
        told = f"{kills} of {POINTS}, at {len(places)} places of {len(ids)} investigations of {lasts:.1f} s each"
        print(f"\nkill -9 points survived: {told}")
    for entries in journals:
        done = [entry["data"]["key"] for entry in entries if entry["kind"] == "done"]
        assert len(done) == len(set(done)) == 1
        assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    published = list((tmp_path / ".sre-agent/forge/proposals").glob("*/proposal.json"))
    assert len(published) == len(ids) + 1


def _reached(home: Path, id: str) -> int:
    """The last entry of an investigation's journal, read while nothing runs."""
    with closing(sqlite3.connect(home / ".sre-agent/sre-agent.db")) as database:
        found = database.execute("SELECT entries FROM investigations WHERE id = ?", (id,)).fetchone()
    return int(found[0])


def _answers(service: Service) -> bool:
    return HTTP.get(f"{service.url}/healthz").status_code == 200


def _entries(service: Service, id: str) -> list[dict[str, Any]]:
    entries = []
    with HTTP.stream("GET", f"{service.url}/v1/investigations/{id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                entries.append(json.loads(line.removeprefix("data:")))
    return [entry for entry in entries if "seq" in entry]
