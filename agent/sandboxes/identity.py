"""Who a sandbox is on the host: a user of its own and the name of its control group, both by its folder alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_FIRST_UID = 0x70000000
"""Host user ids from here on belong to nobody (systemd's UIDS-GIDS lists 1879048192 and above as unused)."""

_UIDS = 1 << 27


def user_of(folder: Path) -> int:
    """The host user of the sandbox in that folder: another one for each, and always the same."""
    return _FIRST_UID + int.from_bytes(hashlib.sha256(os.fsencode(folder)).digest()[:8], "big") % _UIDS


def group_name(folder: Path) -> str:
    """The name of its control group."""
    return f"sre-agent-{user_of(folder) - _FIRST_UID:x}-{folder.name}"
