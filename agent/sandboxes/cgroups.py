"""One control group per sandbox: bounds on memory, processes and processor, by cgroup v1 or v2, whichever the host gives us.

Where the host gives none (no rights, a container), `make` answers an empty group and the caller is left with rlimits. Groups are
made beneath this process's own, or as near above it as the kernel's rules allow, so that whatever bounds us bounds them too.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.core.data import Data
from agent.core.sandbox import Limits

_PERIOD = 100_000
"""Microseconds over which the processor's quota is counted."""

_OVERHEAD = 64
"""Processes of bubblewrap itself, two a command, which are not the sandbox's own."""

_CONTROLLERS = ("memory", "pids", "cpu")

Settings = Callable[[str, Limits], dict[str, str]]
"""What to write into which file for a controller's bound."""


class Group(Data):
    """Folders that a process joins, and which bounds that gives: memory, pids, cpu."""

    folders: tuple[Path, ...] = ()
    bounds: tuple[str, ...] = ()

    @property
    def joins(self) -> tuple[Path, ...]:
        """Where a process of one thread writes `0` to join. Through v1's `tasks` it does not wait for the whole host to agree."""
        tasks = [folder / "tasks" for folder in self.folders]
        return tuple(file if file.exists() else file.with_name("cgroup.procs") for file in tasks)

    @property
    def exists(self) -> bool:
        return all(folder.is_dir() for folder in self.folders)

    def processes(self) -> set[int]:
        """Everything in it now."""
        found: set[int] = set()
        for folder in self.folders:
            try:
                found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
            except FileNotFoundError:
                continue
        return found

    def kill(self) -> None:
        """Sends SIGKILL to everything in it, once. What forks meanwhile is caught by calling again."""
        for folder in self.folders:
            if (folder / "cgroup.kill").exists():
                (folder / "cgroup.kill").write_text("1")
                return
        for process in self.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def remove(self, *, seconds: float = 5.0) -> None:
        """Kills what is in it and removes it. Raises OSError (EBUSY) if something cannot be killed in time."""
        deadline = time.monotonic() + seconds
        while True:
            self.kill()
            try:
                for folder in self.folders:
                    if folder.is_dir():
                        folder.rmdir()
                return
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                    raise
            time.sleep(0.002)


def candidates(name: str) -> Group:
    """Every folder that `make` could make for that name now: to be noted before it does, for whoever must clean up."""
    return Group(folders=tuple(parent / name for parent, _, _ in _places()))


def make(name: str, limits: Limits) -> Group:
    """A new group of that name with these bounds, or one without folders if this process may not make any."""
    folders: list[Path] = []
    bounds: list[str] = []
    for parent, controllers, settings in _places():
        try:
            folders.append(_enter(parent / name, [settings(controller, limits) for controller in controllers]))
        except OSError:  # not ours to write, or not this kernel's: no bound of this kind
            continue
        bounds += controllers
    return Group(folders=tuple(folders), bounds=tuple(bounds))


def _places() -> list[tuple[Path, list[str], Settings]]:
    """Where groups are made, with which controllers, and what is written there."""
    mounts = _mounts()
    own = _hierarchies(mounts)
    places: list[tuple[Path, list[str], Settings]] = [(own[c], [c], _settings_v1) for c in _CONTROLLERS if c in own]
    rest = [controller for controller in _CONTROLLERS if controller not in own]
    if "" in own and (place := _place_v2(own[""], mounts[""], rest)) is not None:
        places.append((place, [controller for controller in rest if _gives(place, controller)], _settings_v2))
    return places


def _enter(folder: Path, settings: Sequence[dict[str, str]]) -> Path:
    made = not folder.is_dir()
    folder.mkdir(exist_ok=True)
    try:
        for file, value in (pair for part in settings for pair in part.items()):
            optional = file.startswith("?")
            path = folder / file.lstrip("?")
            if not optional or path.exists():
                path.write_text(value)
        with (folder / "cgroup.procs").open("w"):
            pass
    except OSError:
        if made:
            folder.rmdir()
        raise
    return folder


def _place_v2(own: Path, top: Path, controllers: Sequence[str]) -> Path | None:
    """The nearest v2 group, from ours upward, whose children can have the controllers; None if none gives any.

    Processes and children with controllers do not go together (cgroups(7), the no-internal-processes rule), except at the top:
    a group that holds processes, as ours does, is passed over.
    """
    chain = [place for place in (own, *own.parents) if place.is_relative_to(top)]
    empty = [place for place in chain if place == top or not _holds_processes(place)]
    given = [(sum(_gives(place, controller) for controller in controllers), -distance) for distance, place in enumerate(empty)]
    most, distance = max(given, default=(0, 0))
    return empty[-distance] if most else None


def _holds_processes(place: Path) -> bool:
    try:
        return bool((place / "cgroup.procs").read_text().split())
    except OSError:  # a threaded group, or one that is not ours to look into
        return True


def _gives(place: Path, controller: str) -> bool:
    """Whether children of that v2 group have the controller; tries to switch it on (refused where processes live in it)."""
    switch = place / "cgroup.subtree_control"
    try:
        if controller in switch.read_text().split():
            return True
        if controller not in (place / "cgroup.controllers").read_text().split():
            return False
        switch.write_text(f"+{controller}")
    except OSError:  # not writable, or it holds processes itself
        return False
    return True


def _settings_v1(controller: str, limits: Limits) -> dict[str, str]:
    if controller == "memory":
        size = str(limits.memory)
        return {"memory.limit_in_bytes": size, "?memory.memsw.limit_in_bytes": size, "?memory.swappiness": "0"}
    if controller == "pids":
        return {"pids.max": str(limits.processes + _OVERHEAD)}
    return {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(max(1000, round(limits.cores * _PERIOD)))}


def _settings_v2(controller: str, limits: Limits) -> dict[str, str]:
    if controller == "memory":
        return {"memory.max": str(limits.memory), "?memory.swap.max": "0"}
    if controller == "pids":
        return {"pids.max": str(limits.processes + _OVERHEAD)}
    return {"cpu.max": f"{max(1000, round(limits.cores * _PERIOD))} {_PERIOD}"}


def _hierarchies(mounts: Mapping[str, Path]) -> dict[str, Path]:
    """This process's own folder per controller ("" for v2), as /proc/self/cgroup and the mounts say."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        mounted = mounts.get(controllers.split(",")[0])
        if mounted is None:
            continue
        folder = mounted / own.lstrip("/")
        if not folder.is_dir():  # a container that sees only its own part of the tree
            folder = mounted
        for controller in controllers.split(","):
            found[controller] = folder
    return found


@functools.cache
def _mounts() -> dict[str, Path]:
    """Where each controller's hierarchy is mounted first ("" for v2)."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        names = {"cgroup": options.split(","), "cgroup2": [""]}.get(kind, ())
        for name in names:
            found.setdefault(name, Path(before.split(" ")[4]))
    return found
