"""Builds each part once from the settings and hands contracts over. It decides which part is used, not what it does."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent import connectors, models, sandboxes
from agent.ablation import template_without, text_without, tools_without
from agent.cases import Cases
from agent.config import Settings
from agent.core.connector import Connector
from agent.core.egress import Egress
from agent.core.errors import ConfigError, SandboxUnavailable
from agent.core.hook import Hook
from agent.core.investigation import Case, Investigation
from agent.core.journal import Journal
from agent.core.model import Listener, Model, ignore
from agent.core.report import Conclusion, ProposalRecord
from agent.core.sandbox import Sandbox, Sandboxes
from agent.core.tool import Tool
from agent.delegation import Delegation
from agent.desk import Desk
from agent.egress import audit
from agent.egress.outside import outside
from agent.forges.local import Local
from agent.hooks import stack
from agent.hooks.budget import Budget, Day, Spent
from agent.hooks.caller import Caller
from agent.hooks.compact import Compact, Compaction
from agent.hooks.connectors import Connectors
from agent.hooks.guard import Guard
from agent.hooks.handoff import Handoff
from agent.hooks.inbox import Bell, Inbox, Letter
from agent.hooks.knowledge_map import KnowledgeMap
from agent.hooks.meter import Meter
from agent.hooks.offload import Offload
from agent.hooks.orient import Orient
from agent.hooks.progress import Progress
from agent.hooks.prune import Prune, Pruning
from agent.hooks.redact import Redact
from agent.hooks.repositories import Repositories as RepositoriesHook
from agent.hooks.results import Results
from agent.hooks.topology import Topology
from agent.hooks.verify import Verify
from agent.memory import Memory
from agent.models import prices, tokens
from agent.models.patience import Patience
from agent.models.wire import Http
from agent.paths import PACKAGE, shipped
from agent.proposals import Proposals
from agent.redaction import Redaction
from agent.repos import Repositories
from agent.store import Store
from agent.tools.ask import ask
from agent.tools.bash import bash
from agent.tools.delegate import delegate, refused
from agent.tools.files import files
from agent.tools.finding import finding
from agent.tools.propose import propose
from agent.tools.query import query
from agent.tools.report import report
from agent.worker import Announce, Bench, Worker, silent

NOT_FOR_CHILDREN = ("delegate", "propose", "ask")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything, built."""

    settings: Settings
    store: Store
    sandboxes: Sandboxes
    desk: Desk
    cases: Cases
    connectors: Mapping[str, Connector]
    redaction: Redaction
    worker: Worker

    async def start(self, case: Case) -> Investigation:
        """A new investigation that this process runs itself, without a queue."""
        investigation, _ = await self.store.accept(None, case, enqueue=lambda connection, id: None)
        assert investigation is not None
        return investigation


@asynccontextmanager
async def assemble(
    settings: Settings, *, listen: Listener = ignore, announce: Announce = silent, analysis: bool = True
) -> AsyncIterator[Parts]:
    """All parts, and their end. analysis: whether desks have the analysis commands (agent/ablation.py).

    Raises ConfigError, SandboxUnavailable, StoreUnavailable.
    """
    data = settings.data
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    audit.tidy(data / "egress", settings.policy.keep_days)
    sources = build_connectors(settings)
    chosen = await choose_sandboxes(settings)
    thinking = build_model(settings, settings.model_name)
    fallbacks = [build_model(settings, settings.model.fallback)] if settings.model.fallback else []
    store = await Store.open(settings.database_url, data / "blobs")
    try:
        known = (*settings.secrets, *settings.policy.egress.secrets.values())
        redaction = Redaction(data / "redaction", known=known, patterns=settings.policy.redact)
        memory = Memory(data / "memory.git", memory_seed(settings.home))
        template, system = shipped("workspace_template"), (PACKAGE / "prompt.md").read_text("utf-8")
        if not analysis:
            template, system = template_without(template, data / "template"), text_without(system)
        desk = Desk(
            repositories=Repositories(data / "repos", limit=settings.policy.checkout_bytes),
            sandboxes=chosen,
            memory=memory,
            template=template,
            whole=shipped("workspace_template"),
            scratch=data / "scratch",
            limits=settings.sandbox.limits,
            egress=Egress(rules=settings.policy.egress.rules, limits=settings.policy.egress.limits),
        )
        cases = Cases(settings, store)
        day = Day(functools.partial(_spent_today, store), usd=settings.budget.day_usd, tokens=settings.budget.day_tokens)
        shared = Shared(day=day, bell=Bell(store.interrupts), announce=announce)
        equipment = Equipment(settings, store, sources, redaction, desk, cases, shared, analysis)
        worker = Worker(
            name=f"{socket.gethostname()}-{os.getpid()}",
            records=store,
            desk=desk,
            memory=memory,
            model=thinking,
            embedded=models.model("statistical"),
            system=system,
            connectors=sources,
            equip=equipment.tools,
            hooks=equipment.hooks,
            publish=equipment.publish,
            redactor=redaction,
            budget=settings.budget,
            labels=cases.labels,
            fallbacks=fallbacks,
            park_seconds=settings.model.park_hours * 3600,
            day=day.used_up,
            count=tokens.count,
            listen=listen,
            announce=announce,
        )
        yield Parts(
            settings=settings,
            store=store,
            sandboxes=chosen,
            desk=desk,
            cases=cases,
            connectors=sources,
            redaction=redaction,
            worker=worker,
        )
    finally:
        await chosen.close()
        for model in (thinking, *fallbacks):
            await model.close()
        await store.close()


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all investigations of this process share."""

    day: Day
    bell: Bell
    announce: Announce


async def _spent_today(store: Store) -> Spent:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    usd, used = await store.spent(midnight)
    return Spent(usd=usd, tokens=used)


@dataclass(frozen=True)
class Equipment:
    """What each investigation works with: its tools and its hooks."""

    settings: Settings
    store: Store
    connectors: Mapping[str, Connector]
    redaction: Redaction
    desk: Desk
    cases: Cases
    shared: Shared
    analysis: bool = True

    def tools(self, bench: Bench, *, label: str = "") -> dict[str, Tool]:
        """The tools, by name, in the order in which the model reads them. `label` marks the files of a child's queries."""
        delegation = Delegation(bench.journal, bench.sandbox, ChildHome(self, bench))
        made = [
            bash(bench.sandbox, seconds=self.settings.sandbox.limits.seconds),
            *files(bench.sandbox),
            query(self.connectors, bench.sandbox, bench.journal, at=bench.case.trigger.at, label=label),
            finding(bench.sandbox, bench.journal),
            propose(bench.sandbox, bench.journal, commits=bench.commits),
            ask(bench.journal),
            delegate(delegation.investigate),
            report(),
        ]
        tools = {tool.name: tool for tool in made}
        return tools if self.analysis else tools_without(tools)

    def hooks(self, bench: Bench, *, label: str = "") -> Sequence[Hook]:
        """The hooks, in their order. `label` marks what is announced of a child."""
        id = bench.investigation.id

        def announce(text: str) -> None:
            self.shared.announce(id, f"{label}{text}")

        async def letters(after: int) -> list[Letter]:
            posts = await self.store.messages(id, after)
            return [Letter(number=post.number, author=post.author, text=post.text, kind=post.kind) for post in posts]

        limits = self.settings.context
        results = Results(bench.sandbox, restore=self.redaction.restore)
        return stack(
            orient=Orient(bench.case, bench.brief),
            connectors=Connectors(self.connectors),
            repositories=RepositoriesHook(bench.plan.repositories),
            topology=Topology(self.cases.services()),
            knowledge_map=KnowledgeMap(bench.sandbox),
            caller=Caller(),
            progress=Progress(announce),
            inbox=Inbox(letters, ring=functools.partial(self.shared.bell.ring, id)),
            guard=Guard(),
            redact=Redact(self.redaction),
            offload=Offload(results, threshold=limits.offload, turn=limits.turn),
            prune=Prune(results, Pruning(tokens=limits.prune_tokens, share=limits.prune_share)),
            compact=Compact(Handoff(results, read=bench.sandbox.read), compaction(self.settings)),
            meter=Meter(),
            budget=Budget(self.shared.day),
            verify=Verify(bench.checker, announce=announce),
        )

    async def publish(self, bench: Bench, conclusion: Conclusion) -> Sequence[ProposalRecord]:
        """Tests and publishes what was staged."""
        repositories = self.desk.repositories
        refs = [ref for ref in bench.case.repositories if ref.name in bench.commits]
        mirrors = {ref.name: (await repositories.mirror(ref)).folder for ref in refs}
        proposals = Proposals(
            repositories=repositories,
            sandboxes=self.desk.sandboxes,
            forge=Local(_forge(self.settings), mirrors),
            limits=self.desk.limits,
            tests=self.cases.tests(),
            secrets=self.settings.secrets,
        )
        return await proposals.publish(
            bench.journal,
            investigation=bench.investigation.id,
            case=bench.case,
            deployed=bench.commits,
            conclusion=conclusion,
        )


@dataclass(frozen=True)
class ChildHome:
    """What the children of an investigation are given (agent/delegation): a desk like its own, the same tools and hooks over a
    journal and a sandbox of theirs, less what is only the investigation's to do or to hear.
    """

    equipment: Equipment
    bench: Bench

    async def open(self, id: str) -> Sandbox:
        """A child's sandbox, as it was left or new."""
        bench = self.bench
        return await self.equipment.desk.sandbox(self._name(id), bench.case, bench.plan, connectors={}, investigations={})

    async def remove(self, id: str) -> None:
        """Removes it, if it is there."""
        await self.equipment.desk.clear(self._name(id))

    def equip(self, id: str, journal: Journal, sandbox: Sandbox) -> tuple[Mapping[str, Tool], Sequence[Hook]]:
        """Its tools and hooks."""
        own = dataclasses.replace(self.bench, journal=journal, sandbox=sandbox)
        tools = self.equipment.tools(own, label=f"{id}-")
        hint = "Say it in your report: it goes to the investigator who asked you."
        mine = {name: refused(tools[name], "only the investigator who asked you can do that", hint) for name in NOT_FOR_CHILDREN}
        hooks = self.equipment.hooks(own, label=f"{id}: ")
        return {**tools, **mine}, [hook for hook in hooks if not isinstance(hook, (Inbox, Verify))]

    def _name(self, id: str) -> str:
        return f"{self.bench.investigation.id}-{id}"


async def choose_sandboxes(settings: Settings) -> Sandboxes:
    """The kind of sandbox that the settings name, or the best that works. Nothing falls back to one without protection."""
    root, kind, keeping = settings.data / "sandboxes", settings.sandbox.kind, settings.sandbox.keeping
    if kind == "auto":
        return (await sandboxes.best(root, keeping, outside(settings)))[0]
    chosen = sandboxes.make(kind, root, keeping, outside(settings))
    probe = await chosen.probe()
    if not probe.ok:
        raise SandboxUnavailable(f"the {kind} sandbox does not work on this host: {probe.detail}", probe.mend)
    return chosen


def memory_seed(home: Path) -> Path:
    """What a new memory begins with: the home's own pages, or those that ship."""
    own = home / "memory"
    return own if own.is_dir() and any(own.rglob("*.md")) else shipped("memory")


def _forge(settings: Settings) -> Path:
    configured = next(iter(settings.forges.values()), None)
    return settings.home / configured.path if configured and configured.path else settings.data / "forge"


def build_connectors(settings: Settings) -> dict[str, Connector]:
    """The configured connectors, by name. Nothing is contacted. Raises ConfigError."""
    made = {}
    for name, values in settings.connectors.items():
        kind = values.get("kind")
        if not isinstance(kind, str):
            raise ConfigError(f"connectors.{name}: `kind` is missing", f"There are: {', '.join(connectors.KINDS)}.")
        made[name] = connectors.connector(kind, name, {key: value for key, value in values.items() if key != "kind"})
    return made


def compaction(settings: Settings) -> Compaction:
    """When histories are compacted: also before the price of a longer prompt goes up."""
    limits = settings.context
    provider, _, name = settings.model_name.partition(":")
    known = prices.find(provider, name or models.default(provider))
    return Compaction(
        tokens=limits.compact_tokens,
        share=limits.compact_share,
        cliff=known.above.tokens if known and known.above else None,
        summary=limits.summary_tokens,
        tail=limits.tail_tokens,
    )


def build_model(settings: Settings, name: str) -> Model:
    """A model of that name. Nothing is contacted. Raises ConfigError."""
    provider = name.partition(":")[0]
    given: dict[str, Any] = {}
    if provider in ("anthropic", "openai"):
        own = {"base_url", "window", "max_output"} if name == settings.model_name else set()
        given = settings.model.model_dump(include=own, exclude_none=True)
        given.setdefault("base_url", settings.base_urls.get(provider))
        given["key"] = settings.keys.get(f"{provider.upper()}_API_KEY", "")
        given["http"] = Http(idle=settings.model.idle_seconds)
        given["patience"] = Patience(seconds=settings.model.retry_seconds)
    return models.model(name, **given)
