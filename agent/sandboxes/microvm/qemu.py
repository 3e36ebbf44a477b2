"""One QEMU process: its command line and its confinement. What runs in the machine is somebody else's affair.

It is confined as if it were the attacker: a user id of its own, no capabilities, namespaces of its own with the host's /usr and
nothing else in them (bubblewrap), QEMU's own system-call filter, a control group, and no file but what it is handed as an open
descriptor. It dies with the process that started it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import SandboxError
from agent.sandboxes.cgroups import Group
from agent.sandboxes.command import kill
from agent.sandboxes.microvm.build import HOST_PATH, Image
from agent.sandboxes.microvm.channel import Channel
from agent.sandboxes.microvm.door import Door
from agent.sandboxes.microvm.monitor import Console, Monitor

QEMU = "/usr/bin/qemu-system-x86_64"
SLOTS = 10
"""Disks that a machine has beside its system: its own, its seed, then layers."""

_LARGEST_DISK = 1 << 40
"""Bytes of a slot as the guest sees it; what lies behind may be smaller."""

_CODE = 96
"""MiB of translated code that emulation keeps at most: Python and git together outgrow 32, and all of it is translated anew then.
QEMU's own default is a gigabyte. It takes what is used of it."""

_EMULATED = "Nehalem,+arat"
"""What emulation pretends to be: x86-64-v2. With newer processors' wide registers every program takes half as long again. And a
timer that goes on while the processor sleeps (arat): a kernel that has none ticks 250 times a second for ever."""

PORTS = ("agent", "egress")
"""The machine's virtio-serial ports: its agent's, and the door (door.py)."""

_JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; exec "$@"'

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Tier(Data):
    """A size of machine. One warm template is kept of each that is used."""

    name: str
    megabytes: int
    cores: int


TIERS = tuple(Tier(name=name, megabytes=size, cores=1) for name, size in (("XS", 512), ("S", 1024), ("M", 2048), ("L", 4096)))

KERNEL_MEGABYTES = 128
"""What of a machine's memory its kernel and agent need for themselves."""


def tier_for(memory: int) -> Tier:
    """The smallest tier whose commands can have `memory` bytes. Raises SandboxError."""
    for tier in TIERS:
        if (tier.megabytes - KERNEL_MEGABYTES) << 20 >= memory:
            return tier
    if memory <= TIERS[-1].megabytes << 20:
        return TIERS[-1]
    raise SandboxError(f"no machine has {memory >> 20} MB of memory", f"Set limits.memory to at most {TIERS[-1].megabytes} MB.")


@functools.cache
def version() -> str:
    """QEMU's own version."""
    return subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


@functools.cache
def clock_khz() -> int:
    """The rate of this host's time-stamp counter, which emulation hands through and the guest cannot measure."""
    found = re.search(r"^cpu MHz\s*:\s*([0-9.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return round(float(found.group(1)) * 1000) if found else 2_000_000


def kernel_line(accelerator: str) -> str:
    """The kernel's command line. microvm has no timer to calibrate against, so under emulation it is told the rate.

    Nothing in the guest is to be watched by its kernel (lsm, psi, watchdogs): that costs at every turn, and its boundary is the
    machine. QEMU translates a program's code for the addresses at which it lies: randomized, at every start anew.
    """
    words = ["quiet", "loglevel=1", "panic=-1", "random.trust_cpu=on", "mitigations=off", "no_timer_check", "console=ttyS0"]
    words += ["lsm=yama", "psi=0", "nowatchdog", "audit=0", "transparent_hugepage=madvise"]
    if accelerator == "tcg":
        words += [f"tsc_early_khz={clock_khz()}", "tsc=reliable", "norandmaps"]
    return " ".join(words)


def machine(tier: Tier, accelerator: str, memory: Sequence[str], base: int, disks: Sequence[int] = ()) -> list[str]:
    """The part of the command line that must be the same for a template and its clones, but for what is behind the disks.

    Those of which no open file is given are empty: see Machine.attach.
    """
    chosen = f"tcg,tb-size={_CODE}" if accelerator == "tcg" else "kvm"
    processor = _EMULATED if accelerator == "tcg" else "host"
    board = "microvm,pit=off,pic=off,memory-backend=mem"  # the old timer would wake QEMU 36 times a second, for nobody
    arguments = [QEMU, "-M", board, "-accel", chosen, "-cpu", processor]
    arguments += ["-m", f"{tier.megabytes}M", "-smp", str(tier.cores)]
    arguments += ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    arguments += ["-global", "migration.send-configuration=off"]  # states of devices alone have no such head
    arguments += ["-object", f"memory-backend-file,id=mem,size={tier.megabytes}M,{','.join(memory)}", "-sandbox", _SANDBOX]
    arguments += ["-serial", "chardev:console", *_file("base", base, writable=False), "-device", "virtio-blk-device,drive=base"]
    for slot in range(SLOTS):
        if slot < len(disks):
            arguments += _file(f"f{disks[slot]}", disks[slot], writable=slot == 0)
            disk = _disk(slot, disks[slot])
        else:
            nothing = {"driver": "null-co", "size": _LARGEST_DISK, "read-only": slot > 0}
            disk = {"driver": "raw", "node-name": f"d{slot}", "file": nothing, "read-only": slot > 0}
        device = f"virtio-blk-device,drive=d{slot},werror=report"  # a full host is the guest's error, not its end
        arguments += ["-blockdev", json.dumps(disk), "-device", device]
    return arguments


def _file(name: str, descriptor: int, *, writable: bool) -> list[str]:
    return ["-add-fd", f"fd={descriptor},set={descriptor}", "-blockdev", json.dumps(_node(name, descriptor, writable=writable))]


def _node(name: str, fdset: int, *, writable: bool) -> dict[str, object]:
    node: dict[str, object] = {"driver": "file", "node-name": name, "filename": f"/dev/fdset/{fdset}", "locking": "off"}
    node |= {"read-only": not writable, "discard": "unmap"}
    if writable:  # what was synced outlives QEMU in the host's cache; a disk lives no longer than its host
        node["cache"] = {"no-flush": True}
    return node


def _disk(slot: int, fdset: int) -> dict[str, object]:
    return {"driver": "raw", "node-name": f"d{slot}", "file": f"f{fdset}", "read-only": slot > 0, "discard": "unmap"}


def confined(uid: int, group: Group, accelerator: str, command: Sequence[str]) -> list[str]:
    """The command line that becomes QEMU with nothing but what it needs."""
    arguments = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--hostname", "machine", "--cap-drop", "ALL"]
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        arguments += ["--cap-add", capability]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        place = Path("/", name)
        arguments += ["--symlink", os.readlink(place), str(place)] if place.is_symlink() else []
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc"]
    groups = "--clear-groups"
    if accelerator == "kvm":
        arguments += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
        groups = f"--groups={os.stat('/dev/kvm').st_gid}"
    arguments += ["--remount-ro", "/", "--"]
    drop = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", groups, "--inh-caps=-all", "--ambient-caps=-all"]
    drop += ["--bounding-set=-all", "--no-new-privs", "--"]
    return ["/bin/sh", "-c", _JOIN, "sh", *map(str, group.joins), "--", "/usr/bin/bwrap", *arguments, *drop, *command]


class Machine:
    """A running QEMU with its monitor and the agent's channel."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        monitor: Monitor,
        channel: Channel,
        console: Console,
        door: Door,
        errors: asyncio.Task[bytes],
    ) -> None:
        self.process, self.monitor, self.channel, self.console = process, monitor, channel, console
        self.door = door
        self._errors = errors

    @property
    def alive(self) -> bool:
        return self.process.returncode is None and self.channel.alive

    async def attach(self, files: Sequence[int]) -> None:
        """Puts open files behind the disks, the first one writable. Only while it is paused, and nothing of them is mounted."""
        for slot, file in enumerate(files):
            fdset = (await self.monitor.ask("add-fd", file))["fdset-id"]
            await self.monitor.ask("blockdev-add", **_node(f"f{fdset}", fdset, writable=slot == 0))
            await self.monitor.ask("blockdev-reopen", options=[_disk(slot, fdset)])

    async def speak_over(self, frozen: Channel) -> None:
        """Has a frozen channel go on with this machine's agent, in place of its own."""
        await frozen.thaw(await self.channel.give_up())
        self.channel = frozen

    async def why(self) -> str:
        """What QEMU said on its way out, or an empty string while it lives."""
        try:
            async with asyncio.timeout(2.0):
                return (await asyncio.shield(self._errors)).decode("utf-8", "replace").strip()[-1500:]
        except TimeoutError:
            return ""

    async def stop(self, reason: str = "the machine was stopped") -> None:
        """Kills it and waits until nothing of it is left. Idempotent."""
        await self.end()
        await self.channel.close(reason)

    async def end(self) -> None:
        """Like stop, but the channel is left as it is."""
        kill(self.process)
        await self.process.wait()
        await self.monitor.close()
        self.console.close()
        await self.door.close()
        await asyncio.wait([self._errors])

    def own_memory(self) -> int:
        """Bytes that are its own: of the guest's memory, what is no longer the template's."""
        status = Path(f"/proc/{self.pid()}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:"))

    def pid(self) -> int:
        """QEMU's own process on the host: the grandchild of bubblewrap. Raises SandboxError if it is gone."""
        try:
            process = self.process.pid
            for _ in range(2):
                process = int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])
            return process
        except (OSError, IndexError):
            raise SandboxError("the machine has ended") from None


async def start(
    name: str,
    image: Image,
    tier: Tier,
    accelerator: str,
    *,
    uid: int,
    group: Group,
    memory: Sequence[str],
    boot: bool = False,
    disks: Sequence[int] = (),
    descriptors: Sequence[int] = (),
) -> Machine:
    """Starts QEMU: booting the kernel, or waiting for a state to come in, and then for `cont`.

    disks: open files behind the first disks, as in Machine.attach. descriptors: what else it has open. All stay the caller's.
    """
    opened = [os.open(image.base, os.O_RDONLY | os.O_CLOEXEC)]
    if boot:
        opened += [os.open(file, os.O_RDONLY | os.O_CLOEXEC) for file in (image.kernel_file, image.initrd)]
    ours, theirs = zip(*(socket.socketpair() for _ in range(4)), strict=True)
    try:
        command = machine(tier, accelerator, memory, opened[0], disks) + _ends(theirs)
        command += _kernel(opened[1], opened[2], accelerator) if boot else ["-incoming", "defer", "-S"]
        passed = [*opened, *disks, *descriptors, *(end.fileno() for end in theirs)]
        process = await asyncio.create_subprocess_exec(
            *confined(uid, group, accelerator, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": HOST_PATH, "LC_ALL": "C"},
            cwd="/",
            pass_fds=passed,
        )
    except BaseException:
        for end in ours:
            end.close()
        raise
    finally:
        for end in theirs:
            end.close()
        for descriptor in opened:
            os.close(descriptor)
    assert process.stderr
    errors = asyncio.create_task(process.stderr.read())
    made = Machine(process, Monitor(ours[1]), Channel(ours[0], name), Console(ours[2]), Door(ours[3]), errors)
    try:
        await made.monitor.ready()
    except BaseException as error:
        await made.stop()
        if isinstance(error, SandboxError):
            raise SandboxError(
                f"{name}: QEMU does not start: {await made.why()}", "Look whether it is installed whole."
            ) from error
        raise
    return made


def _ends(theirs: Sequence[socket.socket]) -> list[str]:
    """What QEMU does with its ends of the sockets."""
    arguments: list[str] = []
    for id, end in zip(("agent", "monitor", "console", "egress"), theirs, strict=True):
        arguments += ["-chardev", f"socket,id={id},fd={end.fileno()}"]
    arguments += ["-mon", "chardev=monitor,mode=control", "-device", "virtio-serial-device"]
    for port in PORTS:
        arguments += ["-device", f"virtserialport,chardev={port},name=sbx.{port}"]
    return arguments


def _kernel(kernel: int, initrd: int, accelerator: str) -> list[str]:
    files = ["-kernel", f"/proc/self/fd/{kernel}", "-initrd", f"/proc/self/fd/{initrd}"]
    return [*files, "-append", kernel_line(accelerator)]
