"""The kinds of sandboxes: the menu. `best` takes the first that works on this host; one without protection is not on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.core.errors import BadInput, SandboxUnavailable
from agent.core.sandbox import Keeping, Probe, Sandboxes
from agent.egress.outside import Outside
from agent.sandboxes.bubblewrap import Bubblewrap
from agent.sandboxes.microvm import MicroVM

KINDS: dict[str, Callable[[Path, Keeping, Outside], Sandboxes]] = {
    "microvm": lambda root, keeping, outside: MicroVM(root, keeping, outside=outside),
    "bubblewrap": lambda root, keeping, outside: Bubblewrap(root, keeping, outside=outside),
}
"""By preference, best first; machines only where they run fast.

`local` (agent/sandboxes/local.py) protects nothing and is deliberately missing."""


def make(kind: str, root: Path, keeping: Keeping = Keeping(), outside: Outside | None = None) -> Sandboxes:
    """The sandboxes of that kind below the folder `root`/KIND; `outside`: what their doors have.

    Raises BadInput for a kind that is not on the menu.
    """
    if kind not in KINDS:
        raise BadInput(f"there is no kind of sandbox {kind!r}", f"There are: {', '.join(KINDS)}.")
    return KINDS[kind](root / kind, keeping, outside or Outside())


async def best(root: Path, keeping: Keeping = Keeping(), outside: Outside | None = None) -> tuple[Sandboxes, Probe]:
    """The best kind that works here and runs fast, and what its probe said, with why it is none that would be better.

    Raises SandboxUnavailable with the mend of each that does not.
    """
    refused: list[str] = []
    for kind in KINDS:
        sandboxes = make(kind, root, keeping, outside)
        if isinstance(sandboxes, MicroVM) and (slow := sandboxes.fast()):
            refused.append(f"{kind}: {slow}")
            continue
        probe = await sandboxes.probe()
        if probe.ok:
            return sandboxes, probe.model_copy(update={"detail": "; not ".join([probe.detail, *refused])})
        refused.append(f"{kind}: {probe.detail}. {probe.mend}".rstrip())
    raise SandboxUnavailable("no kind of sandbox works on this host", "\n".join(refused))
