"""`sre-agent sandbox ...`: the image of the machines, and the sandboxes of a data folder, seen from the command line."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agent import sandboxes
from agent.config import load, load_rules
from agent.core.data import Data
from agent.core.egress import Egress, Rule
from agent.core.errors import BadInput, NotFound, SandboxError, ToolError
from agent.core.sandbox import WORKSPACE, Limits, Sandbox, Sandboxes
from agent.egress.audit import earlier
from agent.egress.outside import outside
from agent.sandboxes.microvm import MicroVM, accelerator, build, copies, qemu, template
from agent.sandboxes.microvm.machine import MicroVMSandbox
from agent.sandboxes.microvm.place import last_used

T = TypeVar("T")

_MARK = "\x1esre-agent "
"""Before what the shell says about where it ended."""


def build_image(packages: Sequence[Path], mirror: str | None, root: Path | None, tiers: Sequence[str]) -> None:
    """Builds the image and the templates of these tiers, or of all, with a bar of progress, and says what was made."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description:<32}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("image", total=1.0)

        def show(done: float, what: str) -> None:
            bar.update(task, completed=done * 0.9, description=what)

        image = build.build(build.packages(packages), mirror=mirror or build.MIRROR, progress=show)
        if root is not None:
            image = build.build_from_archive(root, image, progress=show)
        bar.update(task, description="warm templates")
        chosen = asyncio.run(_warm(image, tiers))
        bar.update(task, completed=1.0, description="done")
    print(f"{image.origin}, Linux {image.kernel}, {len(image.packages)} packages, accelerator {chosen}: {image.folder}")


async def _warm(image: build.Image, tiers: Sequence[str]) -> str:
    chosen = await accelerator.choose(image)
    for tier in (tier for tier in qemu.TIERS if not tiers or tier.name in tiers):
        await template.ready(template.Kind(image=image, tier=tier, accelerator=chosen, disk=Limits().disk))
    return chosen


def list_all(home: Path | None, data: Path | None) -> None:
    """Prints a line for each sandbox of each kind, those that are being made too."""

    async def listing(kinds: Sequence[Sandboxes], root: Path) -> None:
        for kind in kinds:
            making = await kind.making() if isinstance(kind, MicroVM) else []
            for id in sorted({*await kind.ids(), *making}):
                place = root / kind.name / id
                try:
                    state = (await kind.life(id)) if isinstance(kind, MicroVM) else "made"
                    used = datetime.fromtimestamp(last_used(place)).astimezone().isoformat(" ", "minutes")
                except NotFound:  # deleted meanwhile
                    continue
                room = sum(file.stat().st_blocks * 512 for file in [*place.glob("disk.img"), *place.glob("memory/*")])
                print(f"{id:<40} {kind.name:<11} {state:<10} {used}  {room / 1e6:8.1f} MB")

    settings = load(home, data=data)
    root = settings.data / "sandboxes"
    asyncio.run(listing([sandboxes.make(kind, root, settings.sandbox.keeping) for kind in sandboxes.KINDS], root))


def execute(home: Path | None, data: Path | None, id: str, command: Sequence[str]) -> int:
    """Runs a command and returns its exit code."""
    stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()

    async def run(sandbox: Sandbox) -> int:
        words = command[0] if len(command) == 1 else list(command)
        result = await sandbox.run(words, stdin=stdin)
        sys.stdout.buffer.write(result.stdout)
        sys.stderr.buffer.write(result.stderr)
        return result.exit_code

    return _with(home, data, id, run)


def shell(home: Path | None, data: Path | None, id: str) -> None:
    """A line at a time. What a line leaves running ends with it."""

    async def lines(sandbox: Sandbox) -> None:
        cwd = WORKSPACE
        while True:
            try:
                line = await asyncio.to_thread(input, f"{id}:{cwd}$ ")
            except EOFError:
                return
            told = f'eval {shlex.quote(line)}; code=$?; printf "{_MARK}%s" "$PWD" >&2; exit $code'
            result = await sandbox.run(told, cwd=cwd)
            said, _, at = result.stderr.decode("utf-8", "replace").rpartition(_MARK)
            cwd = at if said or result.stderr.startswith(_MARK.encode()) else cwd
            print(result.stdout.decode("utf-8", "replace"), end="", flush=True)
            print(said, end="", file=sys.stderr, flush=True)

    _with(home, data, id, lines)


def files(home: Path | None, data: Path | None, id: str, path: str) -> None:
    """Prints a folder's entries or a file's bytes."""

    async def show(sandbox: Sandbox) -> None:
        try:
            for info in await sandbox.list(path):
                print(f"{info.size:>12}  {info.path}{'/' if info.is_folder else ''}")
        except ToolError:
            sys.stdout.buffer.write(await sandbox.read(path))

    _with(home, data, id, show)


def suspend(home: Path | None, data: Path | None, id: str, *, disk_only: bool) -> None:
    """Suspends it. disk_only: memory that is kept of a microVM is given up too."""

    async def act(sandbox: Sandbox) -> None:
        if isinstance(sandbox, MicroVMSandbox):
            await sandbox.suspend(keep_memory=not disk_only)
        else:
            await sandbox.suspend()

    _with(home, data, id, act)


def resume(home: Path | None, data: Path | None, id: str) -> None:
    async def answer(sandbox: Sandbox) -> None:
        result = await sandbox.run("uptime; df -h /workspace")
        print(result.stdout.decode("utf-8", "replace"), end="")

    _with(home, data, id, answer)


def delete(home: Path | None, data: Path | None, id: str) -> None:
    _with(home, data, id, lambda sandbox: sandbox.delete())


def logs(home: Path | None, data: Path | None, id: str) -> None:
    """Prints what the machine's console says."""

    async def show(sandbox: Sandbox) -> None:
        said = copies.console(_machine(sandbox))
        print(said, end="")
        if not said:
            print(
                f"{id} has said nothing: a machine that was cloned boots no kernel, and speaks when it is in trouble",
                file=sys.stderr,
            )

    _with(home, data, id, show)


class EgressChange(Data):
    """What `sre-agent sandbox egress` was asked for."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rules: Path | None = None
    shut: bool = False
    log: bool = False


def egress(home: Path | None, data: Path | None, id: str, change: EgressChange) -> None:
    """Changes what a sandbox may reach, and prints what that is now; or prints what its door wrote down."""
    if change.log:
        file = load(home, data=data).data / "egress" / f"{id}.ndjson"
        for part in (earlier(file), file):
            if part.exists():
                sys.stdout.write(part.read_text("utf-8"))
        return
    given = load_rules(change.rules) if change.rules else Egress() if change.shut else None
    added = (*(_rule("deny", text) for text in change.deny), *(_rule("allow", text) for text in change.allow))

    async def act(sandbox: Sandbox) -> None:
        now = sandbox.egress() if given is None else given
        wanted = now.model_copy(update={"rules": (*added, *now.rules)})
        if added or given is not None:
            await sandbox.set_egress(wanted)
        shown = {"rules": [], **wanted.model_dump(mode="json", exclude_defaults=True)}
        print(yaml.safe_dump(shown, sort_keys=False), end="")

    _with(home, data, id, act)


def _rule(action: Literal["allow", "deny"], text: str) -> Rule:
    """HOST or HOST:PORT as a rule. An address stands for itself, also where it is not public."""
    host, _, port = text.rpartition(":") if re.fullmatch(r"(\[.*\]|[^:]*):[0-9]+", text) else (text, "", "")
    host = host.strip("[]")
    values: dict[str, object] = {"action": action, "hosts": (host,)}
    if port:
        values["ports"] = (int(port),)
    with suppress(ValueError):
        values["cidrs"] = (str(ipaddress.ip_network(host)),)
    try:
        return Rule.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"--{action} {text}: {error.errors()[0]['msg']}", "Write HOST, *.HOST, HOST:PORT or an address.") from None


def stats(home: Path | None, data: Path | None, id: str) -> None:
    """Prints memory, processor and disk of a machine as JSON."""

    async def show(sandbox: Sandbox) -> None:
        print(json.dumps(await copies.stats(_machine(sandbox)), indent=1))

    _with(home, data, id, show)


def snapshot(home: Path | None, data: Path | None, id: str, name: str, *, restore: bool) -> None:
    """Keeps or brings back a machine."""

    async def act(sandbox: Sandbox) -> None:
        machine = _machine(sandbox)
        await (copies.roll_back(machine, name) if restore else copies.snapshot(machine, name))

    _with(home, data, id, act)


def fork(home: Path | None, data: Path | None, id: str, new: str) -> None:
    """Makes another one like it."""

    async def act(sandbox: Sandbox) -> None:
        await copies.fork(_machine(sandbox), new)

    _with(home, data, id, act)


def _machine(sandbox: Sandbox) -> MicroVMSandbox:
    if not isinstance(sandbox, MicroVMSandbox):
        raise BadInput(f"{sandbox.id} is no microVM", "Only microVMs can do this.")
    return sandbox


def _with(home: Path | None, data: Path | None, id: str, act: Callable[[Sandbox], Awaitable[T]]) -> T:
    """Opens the sandbox of that id, of whatever kind, does the thing, and gives back what this process held."""

    async def opened() -> T:
        settings = load(home, data=data)
        root, keeping, beyond = settings.data / "sandboxes", settings.sandbox.keeping, outside(settings)
        for kind in (sandboxes.make(kind, root, keeping, beyond) for kind in sandboxes.KINDS):
            try:
                sandbox = await kind.open(id)
            except NotFound:
                continue
            try:
                return await act(sandbox)
            finally:
                await kind.close()
        raise NotFound(f"there is no sandbox {id[:80]!r} in {root}", "List them: sre-agent sandbox list")

    if os.geteuid() != 0:
        raise SandboxError("sandboxes belong to root", "Run it with sudo.")
    return asyncio.run(opened())
