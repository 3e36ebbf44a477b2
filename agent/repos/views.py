"""What of a mirror a checkout shows: in live use everything, in evals nothing that is later than the incident."""

from __future__ import annotations

from datetime import datetime

from agent.core.data import Data
from agent.git import git
from agent.repos.deployed import last_before
from agent.repos.mirrors import Mirror

REF_NAMES = "latin-1"
"""How names of refs are held here: one character a byte, since git knows no encoding for them."""


class View(Data):
    """What of a mirror a checkout shows: refs with their commits (or tag objects), and the names of branches as origin's."""

    main: str
    refs: tuple[tuple[str, str], ...]
    head: str
    hides: bool


async def everything(mirror: Mirror) -> View:
    """All branches and tags as they are now."""
    rows = await _for_each_ref(mirror, "refs/heads", "refs/tags")
    refs = tuple((_shown(name), id) for name, id, _ in rows)
    main = (await git(mirror.folder, "rev-parse", "--verify", f"{mirror.main}^{{commit}}")).text
    if mirror.main.startswith("refs/heads/"):
        return View(main=main, refs=refs, head=_shown(mirror.main), hides=False)
    return View(main=main, refs=(*refs, ("refs/remotes/origin/HEAD", main)), head="", hides=False)


async def before(mirror: Mirror, commit: str, at: datetime) -> View:
    """The main branch as it was at a moment, and the tags of its history and that of `commit` that are not of later."""
    main = await main_at(mirror, commit, at)
    rows = await _for_each_ref(mirror, f"--merged={commit}", f"--merged={main}", "refs/tags")
    tags = [(name, id) for name, id, made in rows if made is None or made <= at.timestamp()]
    branch = _shown(mirror.main) if mirror.main.startswith("refs/heads/") else "refs/remotes/origin/main"
    return View(main=main, refs=((branch, main), *tags), head=branch, hides=True)


async def main_at(mirror: Mirror, commit: str, at: datetime) -> str:
    """The newest commit of the main branch whose history, beyond that of `commit`, has nothing of later than `at`."""
    newest = await last_before(mirror, at)
    if newest is None:
        return commit
    listing = await git(mirror.folder, "log", "--topo-order", "--reverse", "--format=%H %ct %P", newest, f"^{commit}", "--")
    late: set[str] = set()
    parent_of: dict[str, str] = {}
    for line in listing.text.splitlines():
        id, seconds, *parents = line.split()
        parent_of[id] = parents[0] if parents else ""
        if int(seconds) > at.timestamp() or not late.isdisjoint(parents):
            late.add(id)
    while newest in late:
        newest = parent_of[newest]
    return newest or commit


async def _for_each_ref(mirror: Mirror, *arguments: str) -> list[tuple[str, str, float | None]]:
    """Name, object and, for an annotated tag, the time it was made."""
    listing = await git(mirror.folder, "for-each-ref", "--format=%(objectname) %(taggerdate:unix) %(refname)", *arguments)
    rows = (row.split(" ", 2) for row in listing.out.decode(REF_NAMES).split("\n") if row)
    return [(name, id, float(made) if made else None) for id, made, name in rows]


def _shown(name: str) -> str:
    """A mirror's branch as the checkout names it."""
    return name.replace("refs/heads/", "refs/remotes/origin/", 1) if name.startswith("refs/heads/") else name


async def shallow_commits(mirror: Mirror, commit: str, view: View) -> tuple[str, ...]:
    """The commits of the checkout whose parents its source does not have."""
    file = mirror.folder / "shallow"
    if not file.exists():
        return ()
    cut = set(file.read_text("ascii").split())
    if view.hides:
        cut &= set((await git(mirror.folder, "rev-list", commit, view.main, "--")).text.split())
    return tuple(sorted(cut))
