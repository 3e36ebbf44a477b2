"""Which accelerator machines use on this host: KVM where a machine boots with it, else emulation. No file says so.

`/dev/kvm` may be there, and even make machines, on hosts where no guest boots: so one is booted, with a time limit, once for each
image, version of QEMU and boot of the host, and the answer is kept.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from agent.core.errors import SandboxError
from agent.sandboxes.cgroups import Group
from agent.sandboxes.microvm import qemu
from agent.sandboxes.microvm.build import Image
from agent.sandboxes.microvm.channel import Ask

SECONDS = 10.0
_UID = 0x7F00_0001


def known(image: Image) -> str | None:
    """The answer, if it was found before."""
    try:
        kept = json.loads((image.folder / "accelerator.json").read_bytes())
    except (OSError, ValueError):
        return None
    return str(kept["accelerator"]) if kept.get("of") == _circumstances() else None


async def choose(image: Image) -> str:
    """`kvm` or `tcg`."""
    if (found := known(image)) is not None:
        return found
    found = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and await _boots(image) else "tcg"
    new = image.folder / f".accelerator-{os.getpid()}"
    new.write_text(json.dumps({"of": _circumstances(), "accelerator": found}))
    new.rename(image.folder / "accelerator.json")
    return found


def _circumstances() -> list[str]:
    return [qemu.version(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]


async def _boots(image: Image) -> bool:
    tier = qemu.TIERS[0]
    memory = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, tier.megabytes << 20)
        os.fchmod(memory, 0o666)
        where = [f"mem-path=/proc/self/fd/{memory}", "share=off"]
        machine = await qemu.start(
            "probe", image, tier, "kvm", uid=_UID, group=Group(), memory=where, boot=True, descriptors=(memory,)
        )
        try:
            await machine.channel.ask(Ask.PING, seconds=SECONDS)
        finally:
            await machine.stop()
    except SandboxError:
        return False
    finally:
        os.close(memory)
    return True
