"""Checkouts: folders with a repository at a commit, made once, kept, and laid copy-on-write into any number of sandboxes.

A checkout never changes after it is made, so that several may share files through hard links. Its files belong to whoever runs
this program and are readable by all; the sandbox decides how they become writable inside. In live use a checkout has all branches
and tags, the main branch as origin/main. In evals it has its own history, that of the main branch at the moment of the incident,
and the tags in them that are not of later; anything else is not in its object store at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import RepositoryError
from agent.core.sandbox import WORKSPACE, Layer
from agent.git import COMMIT_ID, git, has
from agent.lock import locked
from agent.repos.index import Entry, settle
from agent.repos.mirrors import Mirror
from agent.repos.views import REF_NAMES, View, before, everything, shallow_commits

FORMAT = "1"
"""Part of each key: a new one where the same commit would become another folder."""
LFS = b"version https://git-lfs.github.com/spec/"
LATELY = 3600.0
"""Seconds in which what was made or taken may still be on its way to a sandbox."""
BOOT = Path("/proc/sys/kernel/random/boot_id")

CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tfilemode = true
\tbare = false
\tcheckStat = minimal
\ttrustctime = false
\tfsmonitor = false
\tuntrackedCache = false
\tsplitIndex = false
[advice]
\tdetachedHead = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[user]
\tname = sre-agent
\temail = sre-agent@localhost
[remote "origin"]
\tfetch = +refs/heads/*:refs/remotes/origin/*
"""


class Checkout(Data):
    """A folder with a work tree and .git. `main` is the commit of the main branch in it.

    key: names the content. tips: in evals, the commits that lead to all that is visible; () means everything is.
    notes: submodules and large files that are not there.
    """

    name: str
    folder: Path
    key: str
    commit: str
    main: str
    tips: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        """The checkout as a sandbox takes it."""
        return Layer(source=self.folder, target=f"{WORKSPACE}/repos/{self.name}", key=self.key)


class _Made(Data):
    """What is kept beside a checkout: on which boot of the machine it was written (it is not synced to the disk), its size.

    files: bytes of its work tree, which it may share with other checkouts of the same commit. objects: bytes of its own.
    """

    boot: str
    files: int
    objects: int
    notes: tuple[str, ...]


class Checkouts:
    """The checkouts below one folder. `limit` is how many bytes they may use together before old ones are removed."""

    def __init__(self, root: Path, *, limit: int = 20 << 30, threads: int | None = None) -> None:
        self.root = root.absolute()
        self.limit = limit
        self.threads = threads or os.cpu_count() or 1

    async def checkout(self, mirror: Mirror, commit: str, *, live: bool, at: datetime) -> Checkout:
        """The checkout of a commit, made if there is none yet. `at` is when the incident began. Raises RepositoryError."""
        if not COMMIT_ID.fullmatch(commit) or not await has(mirror.folder, commit):
            raise RepositoryError(f"repository {mirror.name!r} has no commit {commit[:100]!r}", "Give a full commit id.")
        async with locked(mirror.folder.with_suffix(".lock"), shared=True):
            view = await (everything(mirror) if live else before(mirror, commit, at))
            shallow = await shallow_commits(mirror, commit, view)
            content = "\n".join((FORMAT, commit, view.model_dump_json(), *shallow))
            key = f"{mirror.key}-{commit[:16]}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
            place = self.root / key
            async with locked(self._lock(key)):
                made = await asyncio.to_thread(_use, place)
                if made is None:
                    made = await self._make(mirror, commit, view, shallow, place)
        tips = tuple(dict.fromkeys((commit, view.main))) if view.hides else ()
        return Checkout(
            name=mirror.name, folder=place / "tree", key=key, commit=commit, main=view.main, tips=tips, notes=made.notes
        )

    async def evict(self, in_use: Collection[Path]) -> int:
        """Removes the checkouts that were not used for longest until the rest is within the limit, and returns how many.

        in_use: folders (as in `Checkout.folder`) that a sandbox has or may come back to; they stay, and so do those of the last
        hour, which a sandbox may be about to take.
        """
        await asyncio.to_thread(_sweep, self.root)
        kept = {folder.parent.name for folder in in_use}
        places = await asyncio.to_thread(_places, self.root)
        gone = 0
        for place in list(places):
            if _size(places) <= self.limit:
                break
            if place.name not in kept:
                async with locked(self._lock(place.name)):
                    removed = await asyncio.to_thread(_remove_unused, place)
                del places[place]
                gone += removed
        return gone

    def _lock(self, key: str) -> Path:
        """The lock file for a checkout. A few for each mirror serve all its commits."""
        mirror, commit, _ = key.rsplit("-", 2)
        return self.root / f"{mirror}-{commit[0]}.lock"

    async def _make(self, mirror: Mirror, commit: str, view: View, shallow: tuple[str, ...], place: Path) -> _Made:
        """Builds the folder aside and moves it into place whole."""
        building = self.root / f".{uuid.uuid4().hex}.building"
        sibling = await asyncio.to_thread(_sibling, self.root, mirror, commit)
        tree = building / "tree"
        try:
            await asyncio.to_thread(_frame, tree / ".git", mirror, commit, view, shallow)
            async with asyncio.TaskGroup() as group:
                objects = group.create_task(self._objects(mirror, commit, view, tree / ".git/objects"))
                files = group.create_task(self._files(mirror, commit, tree, sibling))
            made = _Made(boot=_boot(), files=files.result()[0], objects=objects.result(), notes=files.result()[1])
            await asyncio.to_thread(_let_read, building)
            (building / "made.json").write_text(made.model_dump_json(), "utf-8")
            await asyncio.to_thread(_remove, place)
            building.rename(place)
        except ExceptionGroup as group:
            raise _failure(f"repository {mirror.name!r} at {commit[:12]}", group.exceptions[0]) from group
        finally:
            await asyncio.to_thread(_remove, building)
        return made

    async def _objects(self, mirror: Mirror, commit: str, view: View, objects: Path) -> int:
        """Fills the object store and returns the bytes that are this checkout's own."""
        if not view.hides:
            return await asyncio.to_thread(_link_objects, mirror.folder / "objects", objects)
        tips = "".join(f"{id}\n" for id in dict.fromkeys((commit, *(id for _, id in view.refs))))
        await git(
            mirror.folder, "pack-objects", "--quiet", "--revs", "--use-bitmap-index", "--delta-base-offset",
            f"--threads={self.threads}", str(objects / "pack/pack"),
            stdin=tips.encode(), settings={"core.fsync": "none", "pack.writeReverseIndex": "true"},
        )  # fmt: skip
        return sum(path.stat().st_size for path in (objects / "pack").iterdir())

    async def _files(self, mirror: Mirror, commit: str, tree: Path, sibling: Path | None) -> tuple[int, tuple[str, ...]]:
        """Fills the work tree and the index; the bytes of its own, and notes."""
        shared = await asyncio.to_thread(_link_files, sibling, tree) if sibling else False
        if sibling and shared:
            made = _read_made(sibling.parent)
            return (made.files, made.notes) if made else (0, ())
        await git(
            tree / ".git", "read-tree", "-m", "-u", commit, timeout=1800,
            env={"GIT_WORK_TREE": str(tree), "GIT_OBJECT_DIRECTORY": str(mirror.folder / "objects")},
            settings={
                "checkout.workers": str(self.threads), "checkout.thresholdForParallelism": "200", "core.fsync": "none",
                "index.version": "2", "index.threads": "true", "core.symlinks": "true", "core.longPaths": "true",
            },
        )  # fmt: skip
        return await asyncio.to_thread(_finish, tree, mirror.name)


def _frame(folder: Path, mirror: Mirror, commit: str, view: View, shallow: tuple[str, ...]) -> None:
    """A .git with everything but objects and index. It is written here, not by git: no template, no reflog, no address."""
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/remotes/origin", "info"):
        (folder / name).mkdir(parents=True)
    sha256 = len(commit) == 64
    config = CONFIG.format(version=int(sha256)) + ("[extensions]\n\tobjectFormat = sha256\n" if sha256 else "")
    (folder / "config").write_text(config, "utf-8")
    (folder / "HEAD").write_text(f"{commit}\n", "ascii")
    text = "# pack-refs with: sorted \n" + "".join(f"{id} {name}\n" for name, id in sorted(view.refs))
    (folder / "packed-refs").write_text(text, REF_NAMES)
    if view.head:
        (folder / "refs/remotes/origin/HEAD").write_text(f"ref: {view.head}\n", "utf-8")
    if shallow:
        (folder / "shallow").write_text("".join(f"{id}\n" for id in shallow), "ascii")


def _let_read(building: Path) -> None:
    """Lets everybody read what was written here, whatever this process's umask is. What git wrote has these rights already."""
    for folder, _, names in os.walk(building):
        os.chmod(folder, 0o755)
        if ".git" in Path(folder).relative_to(building).parts:
            for name in names:
                path = os.path.join(folder, name)
                if os.stat(path).st_nlink == 1:
                    os.chmod(path, 0o644)


def _link_objects(source: Path, target: Path) -> int:
    """Shares the mirror's objects through hard links; where the file system cannot, copies. The bytes that were copied."""
    copied = 0
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        if (
            not path.is_file()
            or path.name.startswith((".tmp", "tmp_", "multi-pack-index"))
            or path.suffix in (".lock", ".bitmap")
        ):
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target / relative)
        except OSError:
            shutil.copyfile(path, target / relative)
            copied += path.stat().st_size
    return copied


def _link_files(source: Path, target: Path) -> bool:
    """Shares the work tree and index of another checkout of the same commit. False, with nothing left, where it cannot."""
    try:
        for folder, folders, names in os.walk(source):
            if Path(folder) == source:
                folders.remove(".git")
            place = target / Path(folder).relative_to(source)
            for name in folders:
                if not os.path.islink(os.path.join(folder, name)):
                    (place / name).mkdir()
            for name in (*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):
                os.link(os.path.join(folder, name), place / name, follow_symlinks=False)
        os.link(source / ".git/index", target / ".git/index")
    except OSError:
        for path in target.iterdir():
            if path.name != ".git":
                _remove(path)
        return False
    return True


def _finish(tree: Path, name: str) -> tuple[int, tuple[str, ...]]:
    """Gives all files one old time, which the index knows too, so that `git status` in a sandbox need not read them."""
    entries = settle(tree)
    modules = [entry.path for entry in entries if entry.is_submodule]
    notes = []
    if modules:
        shown = ", ".join(map(ascii, modules[:5])) + (" ..." if len(modules) > 5 else "")
        notes.append(f"repository {name!r}: {len(modules)} submodules are empty folders here: {shown}")
    if pointers := _pointers(tree, entries):
        notes.append(f"repository {name!r}: {pointers} files are pointers to Git LFS; their content is not here")
    return sum(entry.size for entry in entries), tuple(notes)


def _pointers(tree: Path, entries: Collection[Entry]) -> int:
    attributes = [entry for entry in entries if entry.is_file and entry.path.rpartition("/")[2] == ".gitattributes"]
    if not any(b"filter=lfs" in entry.read(tree) for entry in attributes):
        return 0
    return sum(entry.is_file and 100 < entry.size < 300 and entry.read(tree).startswith(LFS) for entry in entries)


def _use(place: Path) -> _Made | None:
    """Marks a checkout as used now. None if there is none, or one that a crash of the machine may have cut."""
    made = _read_made(place)
    if made is None or made.boot != _boot():
        return None
    os.utime(place / "made.json")
    return made


def _read_made(place: Path) -> _Made | None:
    try:
        return _Made.model_validate_json((place / "made.json").read_bytes())
    except (OSError, ValueError):
        return None


def _sibling(root: Path, mirror: Mirror, commit: str) -> Path | None:
    """Another checkout of the same commit, whose files can be shared."""
    boot = _boot()
    for place in root.glob(f"{mirror.key}-{commit[:16]}-*"):
        if (made := _read_made(place)) and made.boot == boot:
            return place / "tree"
    return None


def _places(root: Path) -> dict[Path, _Made]:
    """The checkouts, the one not used for longest first."""
    found = [(place, _read_made(place)) for place in root.iterdir() if place.is_dir()] if root.is_dir() else []
    known = {place: made for place, made in found if made}
    return dict(sorted(known.items(), key=lambda item: (item[0] / "made.json").stat().st_mtime))


def _size(places: Mapping[Path, _Made]) -> int:
    """The bytes of checkouts; those of the same commit share their files."""
    files = {place.name.rpartition("-")[0]: made.files for place, made in places.items()}
    return sum(files.values()) + sum(made.objects for made in places.values())


def _sweep(root: Path) -> None:
    """Removes what a killed process left half made or half removed an hour ago or earlier."""
    for path in (*root.glob(".*.building"), *root.glob(".*.gone")):
        with suppress(FileNotFoundError):  # another process sweeps too
            if path.stat().st_mtime < time.time() - LATELY:
                shutil.rmtree(path)


def _boot() -> str:
    return BOOT.read_text("ascii").strip() if BOOT.exists() else ""


def _remove_unused(place: Path) -> bool:
    """Removes a checkout that nobody took in the last hour, and says whether it did. The caller holds its lock."""
    with suppress(FileNotFoundError):
        if (place / "made.json").stat().st_mtime > time.time() - LATELY:
            return False
        _remove(place)
        return True
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        gone = path.with_name(f".{uuid.uuid4().hex}.gone")
        path.rename(gone)
        shutil.rmtree(gone)
    else:
        path.unlink(missing_ok=True)


def _failure(place: str, error: Exception) -> Exception:
    """What the first of several things that went wrong is reported as."""
    if isinstance(error, RepositoryError):
        return RepositoryError(f"{place}: {error.problem}", error.hint)
    if isinstance(error, OSError):
        return RepositoryError(f"{place}: {error}", "Look at the space and the rights of the data folder.")
    return error
