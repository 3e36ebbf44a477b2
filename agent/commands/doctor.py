"""`sre-agent doctor`: tries every part for real and says how to mend what does not work. It writes in the data folder alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from agent import sandboxes
from agent.assembly import build_connectors, build_model, choose_sandboxes
from agent.cases import Cases
from agent.config import FILE, Settings, load
from agent.core.data import Data
from agent.core.egress import Egress
from agent.core.errors import AgentError
from agent.egress.outside import outside
from agent.egress.trial import try_door
from agent.repos import Repositories
from agent.store import Store

LEAST_DISK = 2 << 30
MARKS = {"ok": "[green]ok  [/]", "warning": "[yellow]warn[/]", "failed": "[red]FAIL[/]"}


class Finding(Data):
    """What one part said when it was tried."""

    part: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    mend: str = ""


def examine(home: Path | None, data: Path | None, *, as_json: bool) -> int:
    """Prints a finding for each part. Returns 0 if nothing failed, else 1."""
    return asyncio.run(_examine(load(home, data=data), as_json))


async def _examine(settings: Settings, as_json: bool) -> int:
    console = Console(highlight=False)
    findings = []
    async for finding in _findings(settings):
        findings.append(finding)
        if not as_json:
            console.print(f"{MARKS[finding.state]}  [bold]{escape(finding.part)}[/]: {escape(finding.detail)}", soft_wrap=True)
            if finding.mend:
                console.print(f"      {escape(finding.mend)}", style="dim", soft_wrap=True)
    if as_json:
        print(json.dumps([finding.model_dump() for finding in findings], indent=2))
    return int(any(finding.state == "failed" for finding in findings))


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield _settings(settings)
    yield _data(settings)
    yield await _database(settings)
    yield await _sandbox(settings)
    yield await _egress(settings)
    yield _model(settings)
    async for finding in _connectors(settings):
        yield finding
    async for finding in _repositories(settings):
        yield finding
    yield _server(settings)


def _settings(settings: Settings) -> Finding:
    file = settings.home / FILE
    if not file.exists():
        return Finding(
            part="settings", state="warning", detail=f"{file} does not exist; defaults are used", mend="sre-agent init DIR"
        )
    return Finding(part="settings", state="ok", detail=f"{file}: {len(settings.services)} services")


def _data(settings: Settings) -> Finding:
    folder = settings.data
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(part="data folder", state="failed", detail=f"{folder}: {error}", mend="Choose another with --data.")
    detail = f"{folder}, {free >> 30} GiB free"
    if not os.access(folder, os.W_OK):
        return Finding(
            part="data folder", state="failed", detail=f"{folder} cannot be written", mend="Choose another with --data."
        )
    if free < LEAST_DISK:
        return Finding(part="data folder", state="warning", detail=detail, mend="Sandboxes and checkouts need at least 2 GiB.")
    return Finding(part="data folder", state="ok", detail=detail)


async def _database(settings: Settings) -> Finding:
    try:
        store = await Store.open(settings.database_url, settings.data / "blobs")
        await store.close()
    except AgentError as error:
        return Finding(part="database", state="failed", detail=error.problem, mend=error.hint)
    return Finding(part="database", state="ok", detail=settings.database_url.split("://", 1)[0])


async def _sandbox(settings: Settings) -> Finding:
    kind = settings.sandbox.kind
    try:
        if kind == "auto":
            chosen, probe = await sandboxes.best(settings.data / "sandboxes")
            kind_name = chosen.name
        else:
            kind_name = kind
            probe = await sandboxes.make(kind, settings.data / "sandboxes").probe()
    except AgentError as error:
        return Finding(part="sandbox", state="failed", detail=error.problem, mend=error.hint)
    state: Literal["ok", "failed"] = "ok" if probe.ok else "failed"
    return Finding(part=f"sandbox {kind_name}", state=state, detail=probe.detail, mend=probe.mend)


async def _egress(settings: Settings) -> Finding:
    """Opens a door for real, if there are rules: a program in a sandbox asks a server of this process."""
    rules = settings.policy.egress.rules
    if not Egress(rules=rules).opens:
        return Finding(part="egress", state="ok", detail="shut: sandboxes reach nothing (policy.egress has no rules)")
    try:
        authorities = outside(settings).tls.cert_store_stats()["x509_ca"]
        took = await try_door(await choose_sandboxes(settings))
    except AgentError as error:
        return Finding(part="egress", state="failed", detail=error.problem, mend=error.hint)
    except OSError as error:
        mend = "Is policy.egress.authorities a file of certificates (PEM)?"
        return Finding(part="egress", state="failed", detail=f"authorities: {error}", mend=mend)
    detail = f"{len(rules)} rules, {len(settings.policy.egress.secrets)} secrets, a request from inside took {took * 1000:.0f} ms"
    if not authorities:
        mend = "Requests that are read need them: apt-get install ca-certificates"
        return Finding(part="egress", state="warning", detail=f"{detail}; this host trusts no certificate authority", mend=mend)
    return Finding(part="egress", state="ok", detail=detail)


def _model(settings: Settings) -> Finding:
    try:
        model = build_model(settings, settings.model_name)
    except AgentError as error:
        return Finding(part="model", state="failed", detail=error.problem, mend=error.hint)
    if model.provider == "embedded":
        mend = "ANTHROPIC_API_KEY or OPENAI_API_KEY in the environment makes a language model think."
        return Finding(part="model", state="ok", detail="the embedded statistical investigator (no key)", mend=mend)
    return Finding(part="model", state="ok", detail=f"{model.provider}: {model.name}, {model.window} tokens; not called")


async def _connectors(settings: Settings) -> AsyncIterator[Finding]:
    try:
        connectors = build_connectors(settings)
    except AgentError as error:
        yield Finding(part="connectors", state="failed", detail=error.problem, mend=error.hint)
        return
    if not connectors:
        mend = "Name telemetry sources under `connectors:`."
        yield Finding(part="connectors", state="warning", detail="none; alerts bring no telemetry of their own", mend=mend)
    for name, connector in connectors.items():
        try:
            yield Finding(part=f"connector {name}", state="ok", detail=await connector.check())
        except AgentError as error:
            yield Finding(part=f"connector {name}", state="failed", detail=error.problem, mend=error.hint)


async def _repositories(settings: Settings) -> AsyncIterator[Finding]:
    repositories = Repositories(settings.data / "repos")
    for ref in Cases(settings).repositories():
        try:
            mirror = await repositories.mirror(ref)
            yield Finding(
                part=f"repository {ref.name}",
                state="ok",
                detail=f"mirrored, {mirror.main.removeprefix('refs/heads/')} is its main branch",
            )
        except AgentError as error:
            yield Finding(part=f"repository {ref.name}", state="failed", detail=error.problem, mend=error.hint)


def _server(settings: Settings) -> Finding:
    server = settings.server
    detail = f"http://{server.host}:{server.port}, {len(server.tokens)} tokens"
    if not server.tokens:
        mend = "Set server.tokens or SRE_AGENT_TOKEN before you bind anything else."
        return Finding(part="server", state="ok", detail=f"{detail}: this machine only", mend=mend)
    return Finding(part="server", state="ok", detail=detail)
