"""Sets up the desk of an investigation: which commit of each repository, and a sandbox with everything on it.

What was decided is a Plan, journaled once, so that a resumed investigation and every pristine copy stand on the same ground.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.core.connector import Connector
from agent.core.data import Data
from agent.core.egress import Egress
from agent.core.errors import AgentError, NotFound, RepositoryError
from agent.core.investigation import Case, RepositoryRef
from agent.core.sandbox import WORKSPACE, Layer, Limits, Sandbox, Sandboxes, SandboxSpec
from agent.core.workspace import furnish
from agent.hooks.repositories import DeskRepository
from agent.memory import Memory
from agent.repos import Checkout, History, Mirror, Repositories

RECENT = 10
FETCHED_LATELY = 600.0
"""Seconds for which a fetch is good enough for the copies of a desk that is planned already."""


class Plan(Data):
    """What stands on a desk: each repository's commit and why, the memory's commit, and what could not be had."""

    repositories: tuple[DeskRepository, ...]
    memory: str
    notes: tuple[str, ...]


class Desk:
    """Makes desks. `scratch` is a folder for workspaces while they are copied in; `template` what each begins with; `whole` what
    the host's own ones begin with, if that is more than an investigation has.
    """

    def __init__(
        self,
        *,
        repositories: Repositories,
        sandboxes: Sandboxes,
        memory: Memory,
        template: Path,
        scratch: Path,
        limits: Limits,
        egress: Egress = Egress(),
        whole: Path | None = None,
    ) -> None:
        self.repositories = repositories
        self.sandboxes = sandboxes
        self.memory = memory
        self.template = template
        self.whole = whole or template
        self.scratch = scratch
        self.limits = limits
        self.egress = egress
        """What investigations may reach; what is pristine reaches nothing, so that a check says the same every time."""

    async def plan(self, case: Case) -> Plan:
        """Decides what stands on the desk. A repository that cannot be had becomes a note."""
        found = await asyncio.gather(*(self._repository(ref, case) for ref in case.repositories))
        repositories = tuple(repository for repository, _ in found if repository)
        notes = tuple(note for _, lines in found for note in lines)
        with tempfile.TemporaryDirectory(dir=self._scratch()) as folder:
            memory = await self.memory.copy(Path(folder))
        return Plan(repositories=repositories, memory=memory, notes=notes)

    async def sandbox(
        self, id: str, case: Case, plan: Plan, *, connectors: Mapping[str, Connector], investigations: Mapping[str, str]
    ) -> Sandbox:
        """The investigation's own sandbox: as it was left, or else a new one."""
        try:
            return await self.sandboxes.open(id)
        except NotFound:
            pass
        described = await asyncio.gather(*(connector.describe() for connector in connectors.values()))
        catalogues = dict(zip(connectors, described, strict=True))
        with tempfile.TemporaryDirectory(dir=self._scratch()) as folder:
            memory = Path(folder) / "memory"
            await self.memory.copy(memory)
            seed = Path(folder) / "seed"
            furnish(seed, template=self.template, case=case, memory=memory, investigations=investigations, catalogues=catalogues)
            _tell(seed / "AGENTS.md", self.egress)
            spec = await self._spec(seed, case, plan, {})
            return await self.sandboxes.create(id, spec.model_copy(update={"egress": self.egress}))

    @asynccontextmanager
    async def pristine(self, id: str, case: Case, plan: Plan, refs: Mapping[str, str]) -> AsyncIterator[Sandbox]:
        """A desk that nobody worked at, with some repositories at other commits (by name); it is gone at the end."""
        with tempfile.TemporaryDirectory(dir=self._scratch()) as folder:
            seed = Path(folder)
            furnish(seed, template=self.whole, case=case)
            sandbox = await self.sandboxes.create(id, await self._spec(seed, case, plan, refs))
        try:
            yield sandbox
        finally:
            await sandbox.delete()

    async def clear(self, prefix: str) -> None:
        """Removes sandboxes that a killed process left behind, by the beginning of their ids."""
        for id in await self.sandboxes.ids():
            if id.startswith(prefix):
                await (await self.sandboxes.open(id)).delete()

    async def _repository(self, ref: RepositoryRef, case: Case) -> tuple[DeskRepository | None, list[str]]:
        try:
            mirror = await self.repositories.mirror(ref)
            deployed = await self.repositories.deployed(mirror, case)
            checkout = await self.repositories.checkout(mirror, deployed.commit, live=case.live, at=case.trigger.at)
            commits = await self.repositories.history([mirror], [checkout]).commits(ref.name, deployed.commit, limit=RECENT)
        except AgentError as error:
            return None, [f"repository {ref.name}: {error.problem}"]
        recent = tuple(f"{commit.id[:12]} {commit.at.isoformat()} {commit.author}: {commit.subject}" for commit in commits)
        desk = DeskRepository(name=ref.name, commit=deployed.commit, why=deployed.why, recent=recent)
        return desk, [*mirror.notes, *deployed.notes, *checkout.notes]

    async def _spec(self, seed: Path, case: Case, plan: Plan, refs: Mapping[str, str]) -> SandboxSpec:
        known = {repository.name: repository.commit for repository in plan.repositories}
        if unknown := set(refs) - set(known):
            raise RepositoryError(
                f"there is no repository {sorted(unknown)[0]!r} on this desk", f"There are: {', '.join(known)}."
            )
        checkouts = await asyncio.gather(
            *(self._checkout(ref, refs.get(ref.name, known[ref.name]), case) for ref in case.repositories if ref.name in known)
        )
        layers = [checkout.layer for _, checkout in checkouts]
        telemetry = [_telemetry(case.telemetry)] if case.telemetry else []
        return SandboxSpec(seed=seed, layers=(*layers, *telemetry), limits=self.limits)

    async def history(self, case: Case, plan: Plan) -> History:
        """What may be read of the repositories on a desk: what its checkouts show."""
        known = {repository.name: repository.commit for repository in plan.repositories}
        pairs = await asyncio.gather(
            *(self._checkout(ref, known[ref.name], case) for ref in case.repositories if ref.name in known)
        )
        return self.repositories.history([mirror for mirror, _ in pairs], [checkout for _, checkout in pairs])

    async def _checkout(self, ref: RepositoryRef, commit: str, case: Case) -> tuple[Mirror, Checkout]:
        mirror = await self.repositories.mirror(ref, within=FETCHED_LATELY)
        return mirror, await self.repositories.checkout(mirror, commit, live=case.live, at=case.trigger.at)

    def _scratch(self) -> Path:
        self.scratch.mkdir(parents=True, exist_ok=True)
        return self.scratch

    async def evict(self) -> int:
        """Removes old checkouts beyond the limit that no sandbox needs, and returns how many."""
        return await self.repositories.evict(await self.sandboxes.sources())


def _tell(page: Path, egress: Egress) -> None:
    """Adds to the desk's page what can be reached, if anything can."""
    if not egress.opens:
        return
    lines = []
    for rule in egress.rules:
        parts = [", ".join(rule.hosts or rule.cidrs), f"port {', '.join(map(str, rule.ports))}"]
        parts += [f"only {', '.join(rule.methods)}"] if rule.methods else []
        parts += [f"only {', '.join(rule.paths)}"] if rule.paths else []
        lines.append(f"- {'' if rule.action == 'allow' else 'not '}{'; '.join(parts)}\n")
    text = page.read_text("utf-8").replace("There is no network:", "There is no network but what is listed at the end:")
    page.write_text(
        f"{text.rstrip()}\n\n## What can be reached\n\n"
        "HTTP and HTTPS, through a proxy that the environment names; `curl`, `pip`, `git` and `apt-get` find it by themselves. "
        "The first line that fits decides. `apt-get install` unpacks into /tmp/apt/root, which is on the PATH. "
        f"Each request is written down.\n\n{''.join(lines)}",
        "utf-8",
    )


def _telemetry(folder: Path) -> Layer:
    return Layer(source=folder, target=f"{WORKSPACE}/telemetry", key=f"telemetry-{folder}")
