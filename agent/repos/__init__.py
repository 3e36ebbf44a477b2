"""Repositories at the incident: mirrors that are kept warm, the commit that was deployed, and checkouts for the sandbox."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from agent.core.errors import RepositoryError
from agent.core.investigation import Case, RepositoryRef
from agent.repos.checkouts import Checkout, Checkouts
from agent.repos.deployed import Deployed, deployed
from agent.repos.history import Commit, History
from agent.repos.mirrors import Mirror, Mirrors
from agent.repos.views import before, everything

__all__ = ["Checkout", "Commit", "Deployed", "History", "Mirror", "Repositories"]


class Repositories:
    """All repositories below one data folder of this host. Several processes may use the same folder at once."""

    def __init__(
        self,
        root: Path,
        *,
        paths: tuple[Path, ...] | None = None,
        env: Mapping[str, str] = {},
        limit: int = 20 << 30,
        timeout: float = 900.0,
    ) -> None:
        """paths: folders that local sources may lie in (None: anywhere). env: what git needs to reach remote ones (proxies, an
        ssh agent). limit: bytes of checkouts to keep. timeout: seconds for one fetch.
        `folders` has where each repository was last mirrored, by name.
        """
        self.folders: dict[str, Path] = {}
        self._mirrors = Mirrors(root / "mirrors", paths=paths, env=env, timeout=timeout)
        self._checkouts = Checkouts(root / "checkouts", limit=limit)

    async def mirror(self, ref: RepositoryRef, *, within: float = 0.0) -> Mirror:
        """The mirror of a repository, fetched now, or in the last `within` seconds. Raises RepositoryError."""
        with _reported(f"repository {ref.name!r}"):
            mirror = await self._mirrors.mirror(ref, within=within)
        self.folders[mirror.name] = mirror.folder
        return mirror

    def kept(self, ref: RepositoryRef) -> Path | None:
        """Where a repository's mirror lies as it was last fetched; None where there is none."""
        return self._mirrors.kept(ref)

    async def deployed(self, mirror: Mirror, case: Case) -> Deployed:
        """Which commit was deployed when the incident began, and why we think so. Raises RepositoryError if there is none."""
        return await deployed(self._mirrors, mirror, case)

    async def checkout(self, mirror: Mirror, commit: str, *, live: bool, at: datetime) -> Checkout:
        """A folder with the repository at a commit, to be laid copy-on-write into a sandbox. Raises RepositoryError.

        at: when the incident began; unless `live`, nothing later than it can be found in the folder.
        """
        with _reported(f"repository {mirror.name!r}"):
            return await self._checkouts.checkout(mirror, commit, live=live, at=at)

    async def main(self, mirror: Mirror, commit: str, *, live: bool, at: datetime) -> str:
        """The main branch's commit: the newest, or unless `live` the newest that may be seen beside the deployed `commit`."""
        return (await (everything(mirror) if live else before(mirror, commit, at))).main

    async def evict(self, in_use: Collection[Path]) -> int:
        """Removes the checkouts not used for longest until the rest is within the limit; those folders stay."""
        return await self._checkouts.evict(in_use)

    @staticmethod
    def history(mirrors: Collection[Mirror], checkouts: Collection[Checkout] = ()) -> History:
        """What may be read of these repositories by their names: all of a mirror, or what its checkout shows."""
        tips = {checkout.name: checkout.tips for checkout in checkouts}
        return History({mirror.name: mirror for mirror in mirrors}, tips)


@contextmanager
def _reported(place: str) -> Iterator[None]:
    """Turns what the file system refuses into an error that names the repository."""
    try:
        yield
    except OSError as error:
        raise RepositoryError(f"{place}: {error}", "Look at the space and the rights of the data folder.") from error
