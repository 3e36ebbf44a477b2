"""Live data, end to end: real services misbehave after a deployment, a real Prometheus and Alertmanager notice, the webhook reaches a
real `sre-agent serve`, and the investigation asks for the telemetry itself. Nothing is recorded, shifted or faked here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from agent.evals.generate.__main__ import Past, past
from agent.evals.generate.scenario import Scenario
from agent.evals.generate.scenarios import KINDS
from agent.evals.generate.system import SERVICES, Load, System, running
from tests.live import processes
from tests.live.processes import HTTP, answers, ask, free_port, program, until

NEEDS = ("prometheus", "prometheus-alertmanager", "git")
DEPENDS = {"storefront": ["orders", "pricing"], "orders": ["pricing"], "pricing": []}
OWNERS = {"storefront": "team-web", "orders": "team-fulfilment", "pricing": "team-commerce"}
FAILING = 'sum by (job) (rate(http_requests_total{job="storefront",status=~"5.."}[15s]))'
RULE = {
    "alert": "CheckoutErrors",
    "expr": f'{FAILING} / sum by (job) (rate(http_requests_total{{job="storefront"}}[15s])) > 0.03',
    "for": "3s",
    "labels": {"severity": "critical", "service": "storefront"},
    "annotations": {"summary": "The storefront's requests fail", "description": "{{ $value | humanizePercentage }} of them."},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not all(map(shutil.which, NEEDS)), reason=f"needs {', '.join(NEEDS)}: ./dev setup installs them"),
]


@dataclass(frozen=True, kw_only=True)
class Live:
    """All that runs."""

    scenario: Scenario
    pasts: Mapping[str, Past]
    system: System
    prometheus: str
    agent: str
    home: Path


def home_of(folder: Path, pasts: Mapping[str, Past], system: System, prometheus: str) -> Path:
    """A home as a team would write it."""
    home = folder / "home"
    home.mkdir()
    services = {
        service: {
            "repository": {"url": str(pasts[service].repository), "tests": "python3 -m unittest"},
            "owner": OWNERS[service],
            "telemetry": {"job": service},
            "depends_on": DEPENDS[service],
            "runbook": f"https://runbooks.shop.example/{service}",
        }
        for service in SERVICES
    }
    connectors = {
        "prometheus": {"kind": "prometheus", "url": prometheus},
        "app-logs": {"kind": "logs", "paths": [str(system.folder / "logs" / "*.log")]},
    }
    settings = {"services": services, "connectors": connectors, "model": {"name": "statistical"}}
    (home / "sre-agent.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return home


@contextmanager
def serving(folder: Path, home: Path, port: int) -> Iterator[str]:
    """`sre-agent serve` on a port. Its address."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from agent.cli import main; main()", "--home", str(home), "serve", "--port", str(port)]
    log = folder / "serve.out"
    with program(command, log, env={"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": ""}):
        until("sre-agent serve answers", answers(f"{url}/v1/investigations"), seconds=60, log=log)
        yield url


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """The shop under load with yesterday's versions, watched by Prometheus, with an agent behind Alertmanager."""
    rng = Random(5)
    scenario = KINDS["exception"](rng)
    now = datetime.now(UTC)
    pasts = {service: past(service, scenario, now, rng, tmp_path) for service in SERVICES}
    before = {service: one.ids[one.deployed] for service, one in pasts.items()}
    port = free_port()
    with ExitStack() as stack:
        enter = stack.enter_context
        system = enter(running(tmp_path / "run", {service: one.repository for service, one in pasts.items()}, before))
        enter(Load(system.url("storefront"), Random(5), scenario.mix))
        alertmanager = enter(processes.alertmanager(tmp_path, webhook=f"http://127.0.0.1:{port}/v1/alerts/alertmanager"))
        targets = {service: [system.url(service).removeprefix("http://")] for service in SERVICES}
        prometheus = enter(processes.prometheus(tmp_path, jobs=targets, rules=[RULE], alertmanager=alertmanager))
        home = home_of(tmp_path, pasts, system, prometheus)
        agent = enter(serving(tmp_path, home, port))
        records = [record(service, one.ids[one.deployed], now - timedelta(days=6)) for service, one in pasts.items()]
        ask("POST", f"{agent}/v1/deployments", records)
        yield Live(scenario=scenario, pasts=pasts, system=system, prometheus=prometheus, agent=agent, home=home)


def record(service: str, commit: str, at: datetime) -> dict[str, str]:
    return {"timestamp": at.isoformat(), "service": service, "commit": commit}


def value(prometheus: str, expression: str) -> float:
    """What an expression is now; 0 where nothing matches."""
    found = ask("GET", f"{prometheus}/api/v1/query?query={expression}")["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def deploy(live: Live, service: str) -> str:
    """Puts the newest commit of a service into service and tells the agent, as a deployment pipeline does."""
    commit = live.pasts[service].ids[-1]
    live.system.deploy(service, commit)
    ask("POST", f"{live.agent}/v1/deployments", record(service, commit, datetime.now(UTC)))
    return commit


def ended(live: Live) -> dict[str, Any] | None:
    """The first investigation, once it has ended."""
    found = ask("GET", f"{live.agent}/v1/investigations")
    rows = found if isinstance(found, list) else found["investigations"]
    over = [row for row in rows if row["status"] in ("done", "failed")]
    return ask("GET", f"{live.agent}/v1/investigations/{over[0]['id']}") if over else None


def test_an_alert_from_live_data_ends_in_the_guilty_commit_and_a_proposal(live: Live, tmp_path: Path) -> None:
    served = 'sum(http_requests_total{job="storefront"})'
    until("there is a baseline", lambda: value(live.prometheus, served) > 500, seconds=60)
    assert value(live.prometheus, FAILING) == 0
    deploy(live, "pricing")
    until("requests fail", lambda: value(live.prometheus, FAILING) > 0)
    deploy(live, "storefront")

    log = tmp_path / "serve.out"
    investigation = until("the investigation ends", lambda: ended(live), seconds=120, log=log)
    assert investigation["status"] == "done", log.read_text()[-3_000:]

    report = investigation["report"]
    guilty = live.pasts["pricing"].id_of(live.scenario.guilty[0][1])
    assert "most likely" in report["brief"] and guilty[:10] in report["brief"], "the first look came before the brief"
    causes = [(cause["repo"], cause["commit"]) for cause in report["causes"]]
    assert causes[0] == ("pricing", guilty), json.dumps(report, indent=1)[:4_000]
    assert report["verdict"] in ("root_cause_found", "likely")
    assert_asked_the_sources(live, investigation["id"])
    assert_proposed_a_change_that_mends(live, report["proposals"], tmp_path)


def assert_asked_the_sources(live: Live, id: str) -> None:
    """The webhook brought no telemetry: both connectors were asked, and Prometheus' answers lead back to it."""
    queries = [entry["data"] for kind, entry in journal(live, id) if kind == "query"]
    assert {query["connector"] for query in queries} == {"prometheus", "app-logs"}
    links = [query["link"] for query in queries if query["connector"] == "prometheus"]
    assert links and all(link.startswith(f"{live.prometheus}/graph?g0.expr=") for link in links)


def assert_proposed_a_change_that_mends(live: Live, proposals: list[dict[str, Any]], folder: Path) -> None:
    """The proposal's branch is in the local forge, and on it the failing behaviour is right."""
    published = [proposal for proposal in proposals if proposal["status"] == "published"]
    assert [(p["repo"], p["applies_to_main"]) for p in published] == [("pricing", True)], proposals
    assert published[0]["tests_after"]["exit_code"] == 0
    forge = Path(published[0]["url"]).parents[2] / "pricing.git"
    checkout = folder / "proposal"
    subprocess.run(["git", "clone", "-q", "-b", published[0]["branch"], str(forge), str(checkout)], check=True)
    run = [sys.executable, "-B", "-c", live.scenario.reproducer]
    assert subprocess.run(run, cwd=checkout, check=False).returncode == 1


def journal(live: Live, id: str) -> list[tuple[str, dict[str, Any]]]:
    """The kinds and data of an investigation's journal, from its stream of events, which ends with it."""
    stream = HTTP.get(f"{live.agent}/v1/investigations/{id}/events").text
    entries = []
    for event in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
        if "data" in fields:
            entries.append((fields.get("event", ""), json.loads(fields["data"])))
    return entries
