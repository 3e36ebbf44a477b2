"""A paused machine that is nobody's yet, with its control group: what the pool keeps, and what a sandbox begins with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agent.core.sandbox import Limits
from agent.sandboxes import cgroups
from agent.sandboxes.identity import group_name
from agent.sandboxes.microvm.place import record, recorded
from agent.sandboxes.microvm.qemu import Machine, Tier

_QEMU_MEMORY = 320 << 20
"""Bytes that QEMU itself may use beside the guest's memory: translated code, devices, its libraries."""


class Clone:
    """`place` and `lock` are its own folder while it is in the pool, and None of a clone that was made for a sandbox."""

    def __init__(self, machine: Machine, group: cgroups.Group, place: Path | None = None, lock: int = -1) -> None:
        self.machine, self.group = machine, group
        self._place, self._lock = place, lock

    def release(self) -> None:
        """Removes its own folder. Its group must be recorded elsewhere by now, or gone."""
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            os.close(self._lock)
            self._place = None


def group_for(place: Path, tier: Tier, limits: Limits, name: str = "") -> cgroups.Group:
    """The control group of the machine in that folder, recorded there. name: of one that it is in already."""
    bounds = Limits(memory=(tier.megabytes << 20) + _QEMU_MEMORY, processes=64, disk=limits.disk, cores=limits.cores)
    before = recorded(place)
    if not before.folders:  # so that killed in between, it is found
        record(place, cgroups.candidates(name or group_name(place)))
    group = cgroups.make(name or group_name(place), bounds)
    record(place, group)
    if before.folders != group.folders:  # of a machine out of the pool that died with its process
        before.remove()
    return group
