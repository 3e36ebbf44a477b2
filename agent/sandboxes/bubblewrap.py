"""Sandboxes made with bubblewrap: one `bwrap` per command, around a disk image that lasts. A boundary, but on a shared kernel.

What a command gets: its own process, network (loopback only), IPC, host name and mount namespaces; a user id of its own that owns
nothing on the host, no capabilities, no way to new privileges; /usr of the host, read-only, a few files of /etc, a fresh /proc
and /dev, and its workspace and /tmp on an image of bounded size; a system-call filter; a control group (or rlimits where there is
none); nothing in its environment. What it started is dead before `run` returns, also if this process is killed.

What it does not cover: a hole in the host's kernel, and side channels (page cache, timing, load). Whoever needs more uses a
virtual machine. Nothing here ever falls back to something weaker: what cannot be had makes `probe` and `create` fail with a mend.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from agent.core.egress import Egress
from agent.core.errors import NotFound, SandboxError, SandboxUnavailable
from agent.core.sandbox import WORKSPACE, FileInfo, Keeping, Layer, Limits, Probe, Result, Sandbox, SandboxSpec
from agent.egress.gateway import Gateway, Gateways
from agent.egress.outside import Outside
from agent.sandboxes import cgroups, locks, seccomp
from agent.sandboxes.command import check_id, environment, folder, seconds_allowed, to_the_end, words
from agent.sandboxes.disk import LoopDisk, check_layers, layer_sources
from agent.sandboxes.files import Files
from agent.sandboxes.identity import group_name, user_of
from agent.sandboxes.launch import HOST_PATH, Room, launch

_GONE = ".gone-"
"""How a folder is called while it is removed."""

_PROGRAMS = {
    "bwrap": "bubblewrap",
    "setpriv": "util-linux",
    "prlimit": "util-linux",
    "unshare": "util-linux",
    "mke2fs": "e2fsprogs",
    "bash": "bash",
}
"""What is run on the host, and the package it is in."""


class Bubblewrap:
    """The sandboxes below the folder `root`. Any number of processes may use the same root."""

    name = "bubblewrap"

    def __init__(self, root: Path, keeping: Keeping = Keeping(), *, outside: Outside | None = None) -> None:
        self.root, self.keeping = root.absolute(), keeping
        self._gateways = Gateways(outside or Outside())

    async def probe(self) -> Probe:
        """Makes a sandbox with a layer, runs a command that looks around, and deletes it."""
        try:
            return await to_the_end(self._probe())
        except SandboxError as error:
            return Probe(ok=False, detail=error.problem, mend=error.hint)

    async def _probe(self) -> Probe:
        source = self.root / f".probe-{secrets.token_hex(4)}"
        await asyncio.to_thread(_make_root, self.root)
        source.mkdir(mode=0o755)
        try:
            limits = Limits(memory=256 << 20, processes=32, disk=32 << 20, seconds=5.0, cores=1.0)
            layer = Layer(source=source, target=f"{WORKSPACE}/layer", key="probe")
            sandbox = await self._create(f"probe-{secrets.token_hex(6)}", SandboxSpec(layers=(layer,), limits=limits))
            try:
                looked = await sandbox.run(
                    "touch layer/written && id -u && wc -l </proc/net/dev && ls /root /home 2>/dev/null | wc -l"
                )
                bounds = sandbox.bounds()
            finally:
                await sandbox.delete()
            expected = f"{sandbox.uid}\n3\n0\n".encode()
            if looked.exit_code != 0 or looked.stdout != expected:
                raise SandboxError(f"a command in a new sandbox saw {looked.stdout!r}, {looked.stderr!r}; expected {expected!r}")
            return Probe(ok=True, detail=f"bubblewrap with {bounds}")
        finally:
            source.rmdir()

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        """See agent/core/sandbox.py. A cancelled creation leaves nothing."""
        return await to_the_end(self._create(id, spec), undo=lambda sandbox: sandbox.delete())

    async def _create(self, id: str, spec: SandboxSpec) -> BubblewrapSandbox:
        check_id(id)
        check_layers(spec.layers)
        sandbox = BubblewrapSandbox(self.root / id, spec, self._gateways)
        await asyncio.to_thread(self._make, sandbox)
        return sandbox

    def _make(self, sandbox: BubblewrapSandbox) -> None:
        check_host()
        _make_root(self.root)
        with ExitStack() as held:
            with locks.locked(self.root, fcntl.LOCK_EX):  # so that nobody sweeps the folder before its own lock is held
                self._sweep()
                try:
                    sandbox.folder.mkdir(mode=0o700)
                except FileExistsError:
                    raise SandboxError(f"there is a sandbox {sandbox.id!r} already", "Open it, or delete it first.") from None
                lock = held.enter_context(locks.locked(sandbox.folder, fcntl.LOCK_EX))
            try:
                sandbox.make(lock)
            except BaseException as error:
                sandbox.destroy()
                if isinstance(error, OSError):
                    raise SandboxError(f"the sandbox {sandbox.id!r} cannot be made: {error}", _room(self.root)) from error
                raise

    def _sweep(self) -> None:
        """Removes what makers or deleters that were killed in the middle have left. The caller holds the root's lock."""
        for place in self.root.iterdir():
            if place.name.startswith(_GONE):
                shutil.rmtree(place, ignore_errors=True)
            if place.name.startswith(".") or not place.is_dir() or (place / "state.json").exists():
                continue
            with suppress(NotFound, FileNotFoundError, BlockingIOError):
                with locks.locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    if not (place / "state.json").exists():
                        BubblewrapSandbox(place, SandboxSpec(), self._gateways).destroy()

    async def open(self, id: str) -> Sandbox:
        """See agent/core/sandbox.py."""
        try:
            check_id(id)
            state = await asyncio.to_thread((self.root / id / "state.json").read_bytes)
        except (SandboxError, FileNotFoundError):
            raise NotFound(f"there is no sandbox {id[:80]!r}", "It may have been deleted.") from None
        sandbox = BubblewrapSandbox(self.root / id, SandboxSpec.model_validate_json(state), self._gateways)
        await asyncio.to_thread(sandbox.resume)
        return sandbox

    async def ids(self) -> list[str]:
        """See agent/core/sandbox.py."""
        return await asyncio.to_thread(lambda: sorted(file.parent.name for file in self.root.glob("*/state.json")))

    async def sources(self) -> frozenset[Path]:
        """See agent/core/sandbox.py."""
        return await asyncio.to_thread(layer_sources, self.root, SandboxSpec.model_validate_json)

    async def tend(self) -> None:
        """See agent/core/sandbox.py. Nothing runs between commands, so only what nobody used for days is looked for."""
        for id in await self.ids():
            with suppress(NotFound, FileNotFoundError):
                used = (self.root / id / "lock").stat().st_mtime
                if time.time() - used > self.keeping.days * 86400:
                    await (await self.open(id)).delete()

    async def close(self) -> None:
        """There is nothing that only this process holds."""


class BubblewrapSandbox:
    """One of them: a folder of the root, see agent/sandboxes/disk.py for what is in it.

    state.json   what was asked for; it appears when the sandbox is whole and is the first thing to go
    lock         held shared by whoever runs a command, exclusively by whoever makes, suspends or deletes
    group.json   its control group
    egress.json, egress/   see agent/egress/gateway.py
    """

    def __init__(self, folder: Path, spec: SandboxSpec, gateways: Gateways) -> None:
        self.id, self.folder, self.spec, self._gateways = folder.name, folder, spec, gateways
        self.uid = user_of(folder)
        self._disk = LoopDisk(folder, spec, self.uid)
        self._files = Files(self._disk.view, self.uid)
        self._group: cgroups.Group | None = None

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
        gateway = self._gateway()
        variables = environment(env, door=gateway.environment())
        inside = [f"{name}={value}" for name, value in variables.items()] + words(command)
        seconds = seconds_allowed(timeout, self.spec.limits.seconds)
        lock = await self._use()
        try:
            room = Room(uid=self.uid, view=self._disk.view, etc=self._disk.etc, limits=self.spec.limits, group=self._joined())
            if gateway.opens:
                room = room.model_copy(update={"gateway": gateway, "trust": await asyncio.to_thread(gateway.bundle)})
            return await launch(room, inside, folder(cwd), stdin, seconds, output_limit)
        finally:
            os.close(lock)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """See agent/core/sandbox.py."""
        lock = await self._use()
        try:
            return await asyncio.to_thread(self._files.read, path, offset, limit)
        finally:
            os.close(lock)

    async def write(self, path: str, content: bytes) -> None:
        """See agent/core/sandbox.py."""
        lock = await self._use()
        try:
            await asyncio.to_thread(self._files.write, path, content)
        finally:
            os.close(lock)

    async def list(self, path: str = WORKSPACE) -> list[FileInfo]:
        """See agent/core/sandbox.py."""
        lock = await self._use()
        try:
            return await asyncio.to_thread(self._files.list, path)
        finally:
            os.close(lock)

    def egress(self) -> Egress:
        """See agent/core/sandbox.py."""
        return self._gateway().current()

    async def set_egress(self, egress: Egress) -> None:
        """See agent/core/sandbox.py."""
        self._check_exists()
        self._gateway().change(egress)

    async def suspend(self) -> None:
        """See agent/core/sandbox.py. Commands that still run are killed."""
        await to_the_end(asyncio.to_thread(self._suspend))

    async def delete(self) -> None:
        """See agent/core/sandbox.py. Commands that still run are killed."""
        await to_the_end(asyncio.to_thread(self._delete))
        await self._gateways.forget(self.folder)

    def _gateway(self) -> Gateway:
        return self._gateways.of(self.folder, self.spec.egress)

    def bounds(self) -> str:
        """What bounds it here, in words."""
        joined = self._joined().bounds
        memory = "memory" if "memory" in joined else "memory (of each process, by rlimit)"
        return ", ".join([memory, "processes", "time", "disk", *(["processor"] if "cpu" in joined else [])]) + " bounded"

    # What follows blocks and runs in threads.

    def make(self, lock: int) -> None:
        self._disk.make(lock)
        write_whole(self.folder / "state.json", self.spec.model_dump_json())

    def resume(self) -> None:
        """Attaches the disk if it is not. Raises NotFound if the sandbox is gone."""
        if self._disk.attached():
            return
        with locks.locked(self.folder, fcntl.LOCK_EX):
            self._check_exists()
            self._disk.attach()

    def destroy(self) -> None:
        """Removes everything; the caller holds the lock or is the only one who knows of it."""
        (self.folder / "state.json").unlink(missing_ok=True)
        self._release_group()
        self._disk.detach()
        gone = self.folder.with_name(f"{_GONE}{self.id}-{secrets.token_hex(4)}")
        self.folder.rename(gone)  # first, because who removes the lock file piece by piece no longer holds the lock
        shutil.rmtree(gone, ignore_errors=True)

    async def _use(self) -> int:
        """A shared lock, as a descriptor, on the attached sandbox. Raises NotFound if the sandbox is gone."""
        for _ in range(100):
            if not self._disk.attached():
                await to_the_end(asyncio.to_thread(self.resume))
            lock = await self._shared_lock()
            if self._disk.attached() and (self.folder / "state.json").exists():
                os.utime(lock)  # when it was last used
                return lock
            os.close(lock)
        raise SandboxError(f"the sandbox {self.id!r} is suspended again and again by somebody else")

    async def _shared_lock(self) -> int:
        try:
            return locks.lock(self.folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return await to_the_end(asyncio.to_thread(locks.lock, self.folder, fcntl.LOCK_SH), undo=locks.close)

    def _check_exists(self) -> None:
        if not (self.folder / "state.json").exists():
            raise NotFound(f"there is no sandbox {self.id!r} any more", "It was deleted.")

    def _suspend(self) -> None:
        with self._alone():
            self._check_exists()
            self._release_group()
            self._disk.detach()

    def _delete(self) -> None:
        with suppress(NotFound), self._alone():
            self.destroy()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Kills what runs until the lock can be had exclusively."""
        deadline = time.monotonic() + 30
        while (lock := self._exclusive_lock()) is None:
            if time.monotonic() > deadline:
                raise SandboxError(f"the sandbox {self.id!r} is still in use after 30 s", "Look for its processes.")
            self._kill()
            time.sleep(0.005)
        try:
            yield
        finally:
            os.close(lock)

    def _exclusive_lock(self) -> int | None:
        try:
            return locks.lock(self.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None

    def _kill(self) -> None:
        group = self._recorded()
        if group.folders:
            group.kill()
        else:
            kill_all_of(self.uid)

    def _joined(self) -> cgroups.Group:
        """Its control group, made if it is not there (any more)."""
        if self._group is None or not self._group.exists:
            self._group = self._recorded()
            if not self._group.folders or not self._group.exists:
                self._record(cgroups.candidates(group_name(self.folder)))
                self._group = cgroups.make(group_name(self.folder), self.spec.limits)
                self._record(self._group)
        return self._group

    def _record(self, group: cgroups.Group) -> None:
        write_whole(self.folder / "group.json", group.model_dump_json())

    def _recorded(self) -> cgroups.Group:
        try:
            return cgroups.Group.model_validate_json((self.folder / "group.json").read_bytes())
        except FileNotFoundError:
            return cgroups.Group()

    def _release_group(self) -> None:
        try:
            self._recorded().remove()
        except OSError as error:
            raise SandboxError(
                f"processes of the sandbox {self.id!r} cannot be killed: {error}", "Look for them with ps."
            ) from error
        self._group = None
        (self.folder / "group.json").unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    """The file holds the old text or the new one, whenever we are killed."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    new.write_text(text)
    new.rename(file)


def check_host() -> None:
    """Raises SandboxUnavailable, with the mend, if something is missing that can be seen without trying."""
    seccomp.program(platform.machine())
    if os.geteuid() != 0:
        raise SandboxUnavailable("bubblewrap sandboxes need root, to mount their disks", "Run the program as root or with sudo.")
    missing = [name for name in _PROGRAMS if shutil.which(name, path=HOST_PATH) is None]
    if missing:
        packages = sorted({_PROGRAMS[name] for name in missing})
        raise SandboxUnavailable(
            f"there is no {', '.join(missing)} on this host", f"Install it: apt-get install {' '.join(packages)}"
        )


def kill_all_of(uid: int) -> None:
    """Sends SIGKILL to every process of that user."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                if entry.stat().st_uid == uid:
                    os.kill(int(entry.name), signal.SIGKILL)


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SandboxError(f"the folder for sandboxes cannot be made: {error}", "Choose another data folder.") from error


def _room(root: Path) -> str:
    free = shutil.disk_usage(root).free
    return f"{root} has {free >> 20} MiB free."
