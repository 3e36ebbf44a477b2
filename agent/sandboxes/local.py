"""A sandbox without any protection: a folder and plain processes of this user. For tests of other things, never a fallback.

A command can read, write and reach whatever this process can. /workspace exists only in words: it is replaced by the folder's
name in what goes in, and back again in what comes out. Limits other than time do not hold.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.core.egress import Egress
from agent.core.errors import NotFound, SandboxError, SandboxUnavailable
from agent.core.sandbox import WORKSPACE, FileInfo, Probe, Result, Sandbox, SandboxSpec
from agent.sandboxes.command import (
    TIMED_OUT,
    Pipes,
    check_id,
    collect,
    environment,
    exit_code,
    feed,
    folder,
    seconds_allowed,
    to_the_end,
    words,
)
from agent.sandboxes.disk import check_layers, copy_tree, inside_workspace, layer_sources
from agent.sandboxes.files import Files

_START = 'cd -- "$1" || exit 1; shift; exec /usr/bin/env -i -- "$@"'


class Local:
    """Folders below `root`. Whoever makes it says in so many words that it protects nothing."""

    name = "local"

    def __init__(self, root: Path, *, no_protection: bool = False) -> None:
        if not no_protection:
            raise SandboxUnavailable(
                "the local sandbox protects nothing and is for tests only", "Use bubblewrap, or say no_protection=True in a test."
            )
        self.root = root.absolute()

    async def probe(self) -> Probe:
        """It works everywhere, for what it is worth."""
        return Probe(ok=True, detail="no protection at all: for tests only")

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        """See agent/core/sandbox.py."""
        check_id(id)
        check_layers(spec.layers)
        return await to_the_end(asyncio.to_thread(self._make, self.root / id, spec), undo=lambda sandbox: sandbox.delete())

    def _make(self, place: Path, spec: SandboxSpec) -> LocalSandbox:
        try:
            (place / "view" / "workspace").mkdir(parents=True)
        except FileExistsError:
            raise SandboxError(f"there is a sandbox {place.name!r} already", "Open it, or delete it first.") from None
        (place / "view" / "tmp").mkdir()
        try:
            if spec.seed is not None:
                copy_tree(spec.seed, place / "view" / "workspace", os.getuid())
            for layer in spec.layers:
                if not layer.source.is_dir():
                    raise SandboxError(f"the layer for {layer.target} has no folder {layer.source} on the host")
                target = place / "view" / "workspace" / inside_workspace(layer.target)
                target.mkdir(parents=True, exist_ok=True)
                copy_tree(layer.source, target, os.getuid())
            (place / "state.json").write_text(spec.model_dump_json())
        except BaseException:
            shutil.rmtree(place)
            raise
        return LocalSandbox(place, spec)

    async def open(self, id: str) -> Sandbox:
        """See agent/core/sandbox.py."""
        try:
            check_id(id)
            state = (self.root / id / "state.json").read_bytes()
        except (SandboxError, FileNotFoundError):
            raise NotFound(f"there is no sandbox {id[:80]!r}", "It may have been deleted.") from None
        return LocalSandbox(self.root / id, SandboxSpec.model_validate_json(state))

    async def ids(self) -> list[str]:
        """See agent/core/sandbox.py."""
        return sorted(file.parent.name for file in self.root.glob("*/state.json"))

    async def sources(self) -> frozenset[Path]:
        """See agent/core/sandbox.py."""
        return await asyncio.to_thread(layer_sources, self.root, SandboxSpec.model_validate_json)

    async def tend(self) -> None:
        """There is nothing to tend."""

    async def close(self) -> None:
        """There is nothing to give back."""


class LocalSandbox:
    """One of them: view/workspace and view/tmp in a folder of the root."""

    def __init__(self, place: Path, spec: SandboxSpec) -> None:
        self.id, self.place, self.spec = place.name, place, spec
        self._files = Files(place / "view", os.getuid())
        self._running: set[asyncio.subprocess.Process] = set()
        self._deleted = False

    async def run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str = WORKSPACE,
        env: Mapping[str, str] = {},
        stdin: bytes = b"",
        timeout: float | None = None,
        output_limit: int = 10_000_000,
    ) -> Result:
        """See agent/core/sandbox.py."""
        self._check_exists()
        arguments = [self._outside(word) for word in words(command)]
        variables = {name: self._outside(value) for name, value in environment({"HOME": "/tmp", **env}).items()}
        seconds = seconds_allowed(timeout, self.spec.limits.seconds)
        started = time.monotonic()
        pipes = Pipes(stdin=bool(stdin))
        try:
            process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _START, "sh", self._outside(folder(cwd))),
                *(f"{name}={value}" for name, value in variables.items()),
                *arguments,
                stdin=pipes.stdin,
                stdout=pipes.stdout,
                stderr=pipes.stderr,
                start_new_session=True,
            )
        except BaseException:
            pipes.failed()
            raise
        pipes.started()
        outputs = [asyncio.create_task(collect(pipe, output_limit)) for pipe in (pipes.out, pipes.err)]
        feeding = asyncio.create_task(feed(pipes.feed, stdin)) if pipes.feed is not None else None
        self._running.add(process)
        if self._deleted:  # while it was started
            self._kill(process)
        timed_out = False
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            await to_the_end(self._end(process, outputs, feeding))
            self._running.discard(process)
        stdout, stderr = (output.result() for output in outputs)
        return Result(
            exit_code=TIMED_OUT if timed_out else exit_code(process.returncode or 0),
            stdout=self._inside(stdout.content),
            stderr=self._inside(stderr.content),
            seconds=time.monotonic() - started,
            timed_out=timed_out,
            truncated=stdout.truncated or stderr.truncated,
        )

    async def _end(
        self, process: asyncio.subprocess.Process, outputs: Sequence[asyncio.Task[object]], feeding: asyncio.Task[None] | None
    ) -> None:
        """Kills the command's session: what left it with setsid stays alive, one more thing that nothing here prevents."""
        self._kill(process)
        await process.wait()
        await asyncio.gather(*outputs)
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """See agent/core/sandbox.py."""
        self._check_exists()
        return await asyncio.to_thread(self._files.read, path, offset, limit)

    async def write(self, path: str, content: bytes) -> None:
        """See agent/core/sandbox.py."""
        self._check_exists()
        await asyncio.to_thread(self._files.write, path, content)

    async def list(self, path: str = WORKSPACE) -> list[FileInfo]:
        """See agent/core/sandbox.py."""
        self._check_exists()
        return await asyncio.to_thread(self._files.list, path)

    def egress(self) -> Egress:
        """See agent/core/sandbox.py. Nothing keeps it: commands here have this process's network."""
        return Egress()

    async def set_egress(self, egress: Egress) -> None:
        """There is no door here."""
        raise SandboxUnavailable("a local sandbox has no door", "Use bubblewrap or a microVM.")

    async def suspend(self) -> None:
        """There is nothing to give back."""

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    async def delete(self) -> None:
        """See agent/core/sandbox.py."""
        self._deleted = True
        for process in self._running:
            self._kill(process)
        await to_the_end(asyncio.to_thread(shutil.rmtree, self.place, ignore_errors=True))

    def _check_exists(self) -> None:
        if not (self.place / "state.json").exists():
            raise NotFound(f"there is no sandbox {self.id!r} any more", "It was deleted.")

    def _outside(self, text: str) -> str:
        return text.replace(WORKSPACE, str(self.place / "view" / "workspace"))

    def _inside(self, output: bytes) -> bytes:
        return output.replace(os.fsencode(self.place / "view" / "workspace"), WORKSPACE.encode())
