"""The contract of a forge: where proposed changes are published. `agent/forges/` holds one file each."""

from __future__ import annotations

from typing import Protocol

from agent.core.data import Data


class Proposal(Data):
    """A change, as a patch to the current main branch.

    key: the same for every attempt to publish this proposal, so that it is published once.
    branch: the branch to make. patch: `git diff --binary` against `base`, a full commit id of the main branch.
    """

    key: str
    repo: str
    branch: str
    base: str
    title: str
    body: str
    patch: bytes


class Forge(Protocol):
    """Where a repository's changes are proposed. `needs_approval` says whether a person has to agree before publish is called."""

    name: str
    needs_approval: bool

    async def find(self, repo: str, key: str) -> str | None:
        """The address of what was published under this key, or None."""

    async def publish(self, proposal: Proposal) -> str:
        """Publishes and returns an address a person can open. Calling it again with the same key changes nothing.

        Raises ForgeError.
        """
