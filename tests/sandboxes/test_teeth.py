"""Do the attacks have teeth? Each protection of bubblewrap is taken out, and the attack that it holds off must then succeed.

Only weakenings that cannot hurt the machine the tests run on are here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.core.errors import SandboxError
from agent.core.sandbox import Layer
from agent.sandboxes import cgroups, command, disk, files, launch, seccomp, syscalls, system
from agent.sandboxes.bubblewrap import Bubblewrap
from agent.sandboxes.disk import LoopDisk
from tests.contracts.attacks import Attack, battlefield, network, outliving, privileges, reading, resources
from tests.contracts.attacks import files as file_attacks

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap needs root")]

Weakening = Callable[[pytest.MonkeyPatch], None]


def without(*words: str) -> Weakening:
    """bubblewrap without these options."""

    def weaken(patch: pytest.MonkeyPatch) -> None:
        options = launch._options

        def fewer(room: launch.Room) -> bytes:
            listed = options(room).split(b"\0")
            return b"\0".join(option for option in listed if option.decode() not in words)

        patch.setattr(launch, "_options", fewer)

    return weaken


def with_system(*more: str) -> Weakening:
    """bubblewrap with these options behind those of the system."""

    def weaken(patch: pytest.MonkeyPatch) -> None:
        options = system.options()
        patch.setattr(system, "options", lambda: (*options, *more))

    return weaken


def with_the_hosts_devices(patch: pytest.MonkeyPatch) -> None:
    options = launch._options
    shown, closed = b"--dev-bind\0/dev\0/dev\0", b"--remount-ro\0/dev\0"
    patch.setattr(launch, "_options", lambda room: options(room).replace(b"--dev\0/dev\0", shown).replace(closed, b""))


def without_filter(patch: pytest.MonkeyPatch) -> None:
    allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    patch.setattr(seccomp, "program", lambda machine, without_shared_memory=False: allow)


def without_dropping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launch, "_drop", lambda uid: [])


def with_roomy_groups(patch: pytest.MonkeyPatch) -> None:
    make = cgroups.make
    roomy = {"memory": 4 << 30, "processes": 800, "cores": 64.0}
    patch.setattr(cgroups, "make", lambda name, limits: make(name, limits.model_copy(update=roomy)))
    confined = launch._confined

    def unlimited(room: launch.Room, bwrap: list[str]) -> list[str]:
        return [word for word in confined(room, bwrap) if not word.startswith(("--nproc", "--as"))]

    patch.setattr(launch, "_confined", unlimited)


def with_a_core_limit_of_nothing(patch: pytest.MonkeyPatch) -> None:
    confined = launch._confined
    patch.setattr(launch, "_confined", lambda room, bwrap: [w.replace("--core=1", "--core=0") for w in confined(room, bwrap)])


def with_a_large_disk(patch: pytest.MonkeyPatch) -> None:
    make = disk.make_image
    patch.setattr(disk, "make_image", lambda image, size, lock: make(image, size * 10, lock))


def without_cutting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launch, "collect", lambda pipe, limit: command.collect(pipe, 1 << 40))


def with_naive_files(patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(root: int, name: str, flags: int) -> Iterator[int]:
        with files._explaining(name):
            file = os.open(f"{os.readlink(f'/proc/self/fd/{root}')}{name}", flags)
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def myself(uid: int, gid: int) -> Iterator[None]:
        yield

    patch.setattr(files, "_opened", opened)
    patch.setattr(syscalls, "acting_as", myself)


def with_the_sources_themselves(patch: pytest.MonkeyPatch) -> None:
    def bind(self: LoopDisk, number: int, layer: Layer, top: int, path: str) -> None:
        for place in [layer.source, *layer.source.rglob("*")]:
            place.chmod(0o777)
        target = self._folder(top, path)
        syscalls.mount(str(layer.source), f"/proc/self/fd/{target}", "", syscalls.MS_BIND)
        os.close(target)

    patch.setattr(LoopDisk, "_overlay", bind)


def with_loose_ground(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LoopDisk, "_hold", lambda self, top, path: None)
    patch.setattr(syscalls, "RESOLVE_BENEATH_PLAINLY", 0)


def offered(attack: Attack) -> bool:
    """Whether this host has what the attack is after."""
    if attack is network.find_interfaces:
        return any(name != "lo" for _, name in socket.if_nameindex())
    if attack is network.open_unusual_sockets:
        with suppress(OSError):
            socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
            return True
        return False
    return True


TEETH: list[tuple[Attack, Weakening]] = [
    (network.reach_services_of_the_host, without("--unshare-net")),
    (network.find_interfaces, without("--unshare-net")),
    (network.open_unusual_sockets, without_filter),
    (reading.read_the_hosts_name_and_shared_memory, without("--unshare-uts", "--hostname", "sandbox")),
    (reading.read_the_hosts_name_and_shared_memory, without("--unshare-ipc")),
    (reading.read_devices, with_the_hosts_devices),
    (reading.read_a_planted_file, with_system("--ro-bind", "/var", "/var")),
    (reading.read_private_files, with_system("--ro-bind", "/var", "/var")),
    (privileges.see_or_kill_other_processes, without("--unshare-pid")),
    (privileges.become_root, without_dropping),
    (privileges.make_namespaces, without_filter),
    (privileges.use_the_kernels_corners, without_filter),
    (privileges.start_the_crash_handler, without_filter),
    (privileges.start_the_crash_handler, with_a_core_limit_of_nothing),
    (privileges.write_the_system, with_system("--tmpfs", "/opt", "--chmod", "0777", "/opt")),
    (resources.fill_the_disk, with_a_large_disk),
    (resources.fill_the_memory, with_roomy_groups),
    (resources.fill_the_memory_with_many_processes, with_roomy_groups),
    (resources.bomb_with_forks, with_roomy_groups),
    (resources.flood_the_output, without_cutting),
    (outliving.outlive_in_the_background, without("--unshare-pid")),
    (outliving.outlive_as_a_daemon, without("--unshare-pid")),
    (file_attacks.lead_out_with_links, with_naive_files),
    (file_attacks.swap_a_link_during_the_call, with_naive_files),
    (file_attacks.change_a_layers_source, with_the_sources_themselves),
    (file_attacks.move_the_ground_away, with_loose_ground),
]


@pytest.mark.parametrize(("attack", "weaken"), TEETH, ids=[f"{n}-{attack.__name__}" for n, (attack, _) in enumerate(TEETH)])
async def test_without_its_protection_the_attack_succeeds(
    attack: Attack, weaken: Weakening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not offered(attack):
        pytest.skip("this host has nothing to reach")
    weaken(monkeypatch)
    monkeypatch.setattr(launch, "_DRAIN", 0.5)
    async with battlefield(Bubblewrap(tmp_path / "sandboxes")) as field:
        try:
            outcome = await attack(field)
        except SandboxError as error:
            outcome = str(error)
    assert outcome is not None
