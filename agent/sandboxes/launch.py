"""Starting one command in bubblewrap, and making sure that nothing of it is left. In which sandbox is its caller's affair.

The chain, each link replacing the one before: prlimit (rlimits), sh (enters the control groups), bwrap (namespaces, mounts,
filter), and inside: setpriv (the sandbox's user, no privileges), sh (the gate), env (the environment), the command. Up to the
gate only the host's programs run, with an empty environment and arguments that the agent cannot choose.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import SandboxError
from agent.core.sandbox import WORKSPACE, Limits, Result
from agent.egress.environment import BUNDLE, INSIDE
from agent.egress.gateway import Gateway
from agent.sandboxes import apt, seccomp, system
from agent.sandboxes.cgroups import Group
from agent.sandboxes.command import TIMED_OUT, Pipes, collect, exit_code, feed, kill, readable, to_the_end
from agent.sandboxes.doorstep import Doorstep, open_doorstep

HOST_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the host's own programs are looked for, whatever the environment says."""

_SHARED_MEMORY = 64 << 20
"""Bytes of /dev/shm, which is memory, and counts as the sandbox's where a control group counts."""

_JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; exec "$@"'
"""Enters the control groups, then becomes bubblewrap. Arguments: files to write to, --, the command."""

_GATE = 'read -r go || exit 125; [ "$1" = piped ] || exec </dev/null; cd -- "$2" || exit 1; shift 2; exec /usr/bin/env -i -- "$@"'
"""Waits for the word of a host that is alive, then becomes the command with its environment. It runs as the sandbox's user."""


_DRAIN = 30.0
"""Seconds to take what was written before all of the command's processes died. It is in the pipes: less than a MiB."""


class Room(Data):
    """Where a command runs: the host user it is, its folders on the host, its limits, its control group, its door."""

    uid: int
    view: Path
    etc: Path
    limits: Limits
    group: Group
    gateway: Gateway | None = None
    trust: Path | None = None
    """The certificates that are trusted inside, where that is not just the host's."""


async def launch(room: Room, inside: Sequence[str], cwd: str, stdin: bytes, seconds: float, output_limit: int) -> Result:
    """Runs `inside` (NAME=VALUE ..., then the command) to its end, or to the end of its time. Raises SandboxError."""
    started = time.monotonic()
    gate = ["/bin/sh", "-c", _GATE, "sh", "piped" if stdin else "empty", cwd, *inside]
    running = await to_the_end(_start(room, gate, output_limit), undo=lambda running: running.end())
    timed_out = False
    try:
        async with asyncio.timeout(seconds):
            await running.started()
            if room.gateway is not None:
                await running.open_door(room.gateway)
            await running.finished(stdin)
    except TimeoutError:
        timed_out = True
    finally:
        await to_the_end(running.end())
    return running.result(time.monotonic() - started, timed_out)


async def _start(room: Room, inner: list[str], output_limit: int) -> _Running:
    with _Descriptors() as held:
        status = held.pipe()
        arguments = held.file(_options(room))
        filter = held.file(seccomp.program(platform.machine(), without_shared_memory="memory" not in room.group.bounds))
        outer = ["--args", str(arguments), "--seccomp", str(filter), "--json-status-fd", str(status[1])]
        pipes = Pipes(stdin=True, owner=room.uid)
        try:
            process = await asyncio.create_subprocess_exec(
                *_confined(room, [*outer, "--", *_drop(room.uid), *inner]),
                stdin=pipes.stdin,
                stdout=pipes.stdout,
                stderr=pipes.stderr,
                env={"PATH": HOST_PATH, "LC_ALL": "C"},
                cwd="/",
                pass_fds=(arguments, filter, status[1]),
            )
        except BaseException:
            pipes.failed()
            raise
        pipes.started()
        return _Running(process, pipes, held.give(status[0]), output_limit)


def _confined(room: Room, bwrap: list[str]) -> list[str]:
    """The command line that sets rlimits and enters the control groups before it becomes bubblewrap."""
    # A core limit of 1, not 0: with 0 the kernel still starts a crash handler that core_pattern names (core(5)).
    rlimits = {"core": 1, "nofile": 16384, "nproc": room.limits.processes, "fsize": room.limits.disk}
    if "memory" not in room.group.bounds:
        rlimits["as"] = room.limits.memory
    joins = [str(file) for file in room.group.joins]
    allowed = {name: str(_allowed(name, value)) for name, value in rlimits.items()}
    allowed["nofile"] = f"{min(4096, int(allowed['nofile']))}:{allowed['nofile']}"
    prlimit = ["/usr/bin/prlimit", *(f"--{name}={value}" for name, value in allowed.items()), "--"]
    return [*prlimit, "/bin/sh", "-c", _JOIN, "sh", *joins, "--", "/usr/bin/bwrap", *bwrap]


def _allowed(name: str, value: int) -> int:
    """The limit, or our own hard limit where that is lower: under sudo or in a container root may be unable to raise it."""
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _options(room: Room) -> bytes:
    """bubblewrap's own options, which go by descriptor: the sandbox can read its first process's command line."""
    arguments = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # for setpriv, which drops them with the rest
        arguments += ["--cap-add", capability]
    arguments += system.options()
    arguments += ["--ro-bind", str(room.etc), "/etc"]
    if room.trust is not None:
        arguments += ["--dir", str(Path(INSIDE).parent), "--ro-bind", str(room.trust), INSIDE]
        if (room.etc / BUNDLE.relative_to("/etc")).exists():
            arguments += ["--ro-bind", str(room.trust), str(BUNDLE)]
        arguments += ["--ro-bind-try", "/var/lib/dpkg/status", f"/etc/{apt.STATUS}"]
    arguments += ["--perms", "1777", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    arguments += ["--bind", str(room.view / "tmp"), "/tmp", "--bind", str(room.view / "workspace"), WORKSPACE]
    return b"".join(os.fsencode(argument) + b"\0" for argument in [*arguments, "--remount-ro", "/"])


def _drop(uid: int) -> list[str]:
    """Becomes that user without groups, capabilities or a way to get any. The environment is empty up to here."""
    none = ["--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    return ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", *none, "--"]


class _Running:
    """One command, from the start of bubblewrap to the death of everything in it. It owns our ends of the pipes."""

    def __init__(self, process: asyncio.subprocess.Process, pipes: Pipes, status: int, output_limit: int) -> None:
        assert pipes.feed is not None
        self.process, self.gate, self.status = process, pipes.feed, status
        self.outputs = [asyncio.create_task(collect(pipe, output_limit)) for pipe in (pipes.out, pipes.err)]
        self.feeding: asyncio.Task[None] | None = None
        self.first: int | None = None
        self.number = 0
        self.doorstep: Doorstep | None = None
        self.said = b""

    async def started(self) -> None:
        """Until bubblewrap says which process is the first inside; a descriptor of that one tells when all are dead."""
        while b"\n" not in self.said and await self._hear():
            pass
        if b"\n" in self.said:  # it may have been killed in the middle of saying it
            with suppress(ProcessLookupError):
                self.number = json.loads(self.said.splitlines()[0])["child-pid"]
                self.first = os.pidfd_open(self.number)

    async def open_door(self, gateway: Gateway) -> None:
        """Before the gate is opened, so that the command finds it open. Raises SandboxError."""
        if self.first is not None:
            self.doorstep = await to_the_end(open_doorstep(self.number, gateway), undo=lambda doorstep: doorstep.close())

    async def _hear(self) -> bool:
        await readable(self.status)
        heard = os.read(self.status, 1 << 16)
        self.said += heard
        return bool(heard)

    async def finished(self, stdin: bytes) -> None:
        """Opens the gate, unless bubblewrap failed, and waits for its end, which is that of the command."""
        if self.first is not None:
            self.feeding = asyncio.create_task(feed(self.gate, b"go\n" + stdin))
            await asyncio.sleep(0)  # it runs, so it will close the gate
        await self.process.wait()

    async def end(self) -> None:
        """Kills what is left and waits until nothing is: the first process of a namespace dies after all others in it."""
        if self.feeding is None:
            os.close(self.gate)  # what waits there ends now: no command ever ran
        if self.first is None:
            await self._give_up()
        kill(self.process)
        if self.first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first, signal.SIGKILL)
            await readable(self.first)
            os.close(self.first)
        await self.process.wait()
        if self.doorstep is not None:
            await self.doorstep.close()
        await asyncio.wait(self.outputs, timeout=_DRAIN)
        for output in self.outputs:
            output.cancel()
        await asyncio.wait(self.outputs)
        if self.feeding is not None:
            self.feeding.cancel()
            await asyncio.wait([self.feeding])
        while await self._hear():
            pass
        os.close(self.status)

    async def _give_up(self) -> None:
        """Lets bubblewrap come to the closed gate by itself: killed while it starts, it would leave a child that waits for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                await self.process.wait()

    def result(self, seconds: float, timed_out: bool) -> Result:
        """Raises SandboxError if bubblewrap never came to the command."""
        if any(output.cancelled() for output in self.outputs):
            raise SandboxError("something still holds the output of a command that has ended", "Delete the sandbox.")
        stdout, stderr = (output.result() for output in self.outputs)
        code = self.process.returncode
        assert code is not None
        if code > 0 and not timed_out and b'"exit-code"' not in self.said:
            reason = stderr.content.decode("utf-8", "replace").strip()[-2000:] or f"bubblewrap exited with {code}"
            hint = "If it says that a resource is unavailable, the sandbox's limit of processes is used up by other commands."
            raise SandboxError(f"the command could not be started: {reason}", hint)
        return Result(
            exit_code=TIMED_OUT if timed_out else exit_code(code),
            stdout=stdout.content,
            stderr=stderr.content,
            seconds=seconds,
            timed_out=timed_out,
            truncated=stdout.truncated or stderr.truncated,
        )


class _Descriptors:
    """The descriptors that starting a command takes; whatever is still open at the end is closed."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*tuple(self._open))

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def file(self, content: bytes) -> int:
        """A file in memory, to be read from its beginning."""
        descriptor = os.memfd_create("sandbox")
        self._open.add(descriptor)
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def give(self, descriptor: int) -> int:
        """Somebody else closes this one."""
        self._open.remove(descriptor)
        return descriptor

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(self.give(descriptor))
