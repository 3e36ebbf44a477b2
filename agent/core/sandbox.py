"""The contract of a sandbox: where the agent's commands run and its files lie. `agent/sandboxes/` holds the kinds.

A sandbox is a workspace at /workspace with a command line, nobody's identity, and limits on memory, processes, time and disk. It
has no network; what it may reach, if anything, it reaches through a door that the host keeps (agent/core/egress.py). Every kind
passes the same contract suite, attacks included (tests/contracts/sandbox.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agent.core.data import Data
from agent.core.egress import Egress

WORKSPACE = "/workspace"


class Layer(Data):
    """A host folder that appears at `target` inside, as if it were the sandbox's own: it may be written there, the host's stays.

    `source` never changes while anything uses it. `key` names its content, so that a kind may cache an image of it.
    """

    source: Path
    target: str
    key: str


class Limits(Data):
    """What a sandbox may use. Sizes in bytes, time in seconds; `seconds` bounds one command."""

    memory: int = 1 << 30
    processes: int = 256
    disk: int = 2 << 30
    seconds: float = 600.0
    cores: float = 2.0


class SandboxSpec(Data):
    """What to make. `seed` is a host folder copied into /workspace at creation; layers come on top of it."""

    seed: Path | None = None
    layers: tuple[Layer, ...] = ()
    limits: Limits = Limits()
    egress: Egress = Egress()


class Keeping(Data):
    """How long sandboxes live, and what is made in advance of those with `limits`. Where a kind cannot, it leaves it.

    One that no call used for `idle_seconds` is suspended, with its memory or with its disk alone; one that nobody used for `days`
    is deleted. `pool` machines are kept ready.
    """

    idle_seconds: float = 900.0
    memory: bool = True
    days: float = 30.0
    pool: int = 0
    limits: Limits = Limits()


class Result(Data):
    """What a command did. Output beyond `output_limit` is cut in the middle and `truncated` says so.

    exit_code is 124 with `timed_out` where the time was up, and 128+n where a signal n ended it.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    timed_out: bool = False
    truncated: bool = False


class FileInfo(Data):
    """One entry of a folder inside. `path` is relative to /workspace."""

    path: str
    size: int
    is_folder: bool


class Sandbox(Protocol):
    """One sandbox. Paths are inside it, absolute or relative to /workspace; one that leads out raises ToolError."""

    id: str

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
        """Runs a command (a string through `bash -c`) to its end. Nothing it started is alive afterwards.

        Cancelling kills it. Raises SandboxError only where the sandbox itself failed.
        """

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """Bytes of a regular file. Raises ToolError if there is none or if the path leads out of /workspace."""

    async def write(self, path: str, content: bytes) -> None:
        """Writes a file, making its folders. Raises ToolError if the path leads out or the disk is full."""

    async def list(self, path: str = WORKSPACE) -> list[FileInfo]:
        """A folder's entries, sorted by name. Raises ToolError if there is none."""

    def egress(self) -> Egress:
        """What it may reach now. Raises SandboxError."""

    async def set_egress(self, egress: Egress) -> None:
        """Changes what it may reach, for every process: new connections at once, open ones within a second. Raises SandboxError.

        A command that was started without a door may have to be started again to find one.
        """

    async def suspend(self) -> None:
        """Gives the host back all but room on its disk. The next call brings it back, also in another process (`Sandboxes.open`).

        What only memory held comes back where the kind keeps it. Of commands that run, a kind kills those that it cannot pause.
        """

    async def delete(self) -> None:
        """Removes it and its disk. Idempotent."""


class Probe(Data):
    """Whether something works on this host, why not, and how to mend it."""

    ok: bool
    detail: str
    mend: str = ""


class Sandboxes(Protocol):
    """One kind of sandbox on this host."""

    name: str

    async def probe(self) -> Probe:
        """Tries the real thing, quickly (under two seconds)."""

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        """Makes a sandbox. An id is made of [a-z0-9-]. Raises SandboxUnavailable or SandboxError (the id exists already)."""

    async def open(self, id: str) -> Sandbox:
        """The sandbox of that id with its disk as it was left, even if its maker was killed. Raises NotFound."""

    async def ids(self) -> list[str]:
        """The ids of all that exist, sorted."""

    async def sources(self) -> frozenset[Path]:
        """The host folders that the layers of all of them come from: while one exists, they have to stay."""

    async def tend(self) -> None:
        """Does what is due by the kind's Keeping: suspends what is idle, deletes what nobody used. A service calls it often."""

    async def close(self) -> None:
        """Gives back what this process holds to run them. All can be opened again."""
