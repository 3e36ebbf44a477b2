"""Mirrors: bare repositories on the host that follow their sources. They are fetched under a lock that all processes share."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import RepositoryError
from agent.core.investigation import RepositoryRef
from agent.git import COMMIT_ID, git, redacted
from agent.lock import locked

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SCHEMES = ("https", "http", "ssh", "git", "file")
MAIN_NAMES = ("main", "master", "trunk", "develop", "default")
HEAD = "refs/agent/head"
"""What the source's HEAD is, where it is on no branch."""
BITMAP_SIZE = 32 << 20
PACKS = 12
LISTING = 60.0
"""Seconds for asking a source for its refs."""
FETCHED, FAILED = ".fetched", ".failed"

Refs = Mapping[str, str]


class Mirror(Data):
    """A mirror as of `fetched_at`. `main` is the full name of the main branch's ref, "" where there is no commit at all.

    notes: what a reader of the report must know (not reachable just now, shallow).
    """

    ref: RepositoryRef
    folder: Path
    main: str
    fetched_at: datetime
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def key(self) -> str:
        return self.folder.stem


class Mirrors:
    """The mirrors below one folder.

    paths: folders below which a local source may lie; None means anywhere.
    env: what git needs from the environment to reach remote sources (proxies, an ssh agent).
    """

    def __init__(
        self, root: Path, *, paths: tuple[Path, ...] | None = None, env: Mapping[str, str] = {}, timeout: float = 900.0
    ) -> None:
        self.root = root.absolute()
        self.paths = paths
        self.env = env
        self.timeout = timeout

    async def mirror(self, ref: RepositoryRef, *, within: float = 0.0) -> Mirror:
        """The mirror of a repository, fetched now. Callers that wait for a fetch that began after they asked share it.

        within: a fetch that was tried in the last so many seconds is good enough.
        Where the source cannot be reached but was mirrored before, the older state comes with a note. Raises RepositoryError.
        """
        asked = time.time_ns() - int(within * 1e9)
        if not NAME.fullmatch(ref.name):
            raise RepositoryError(
                f"repository {ref.name[:100]!r}: not usable as the name of a folder",
                "Use letters, digits, dot, dash, underscore.",
            )
        url, local = self._source(ref)
        folder = self._folder(ref, url)
        notes: tuple[str, ...] = ()
        async with locked(folder.with_suffix(".lock")) as lock:
            if _when(folder, FETCHED) < asked and not (_when(folder, FETCHED) and _when(folder, FAILED) >= asked):
                await self._try(ref, folder, url, local=local, lock=lock)
            if _when(folder, FAILED) > _when(folder, FETCHED):
                moment = datetime.fromtimestamp(_when(folder, FETCHED) / 1e9, UTC).isoformat(timespec="seconds")
                why = folder.with_suffix(FAILED).read_text("utf-8")
                notes = (f"repository {ref.name!r}: could not be fetched now, this is its state of {moment}: {why}",)
            main = await _main(folder)
        if (folder / "shallow").exists():
            notes += (f"repository {ref.name!r}: its source is shallow, so that older history is missing",)
        fetched_at = datetime.fromtimestamp(_when(folder, FETCHED) / 1e9, UTC)
        return Mirror(ref=ref, folder=folder, main=main, fetched_at=fetched_at, notes=notes)

    def kept(self, ref: RepositoryRef) -> Path | None:
        """Where its mirror lies as it was last fetched; None where there is none. Nothing is fetched."""
        folder = self._folder(ref, self._source(ref)[0])
        return folder if _when(folder, FETCHED) else None

    def _folder(self, ref: RepositoryRef, url: str) -> Path:
        return self.root / f"{ref.name}-{hashlib.sha256(redacted(url).encode()).hexdigest()[:12]}.git"

    async def fetch_commit(self, mirror: Mirror, commit: str) -> bool:
        """Tries to get a commit that no branch or tag of the source leads to any more. Whether it is there afterwards."""
        url, local = self._source(mirror.ref)
        async with locked(mirror.folder.with_suffix(".lock")) as lock:
            done = await git(
                mirror.folder, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "origin",
                f"{commit}:refs/agent/{commit}",
                settings=_remote(url, local=local), env=self.env, local=local, timeout=60, pass_fds=(lock,), ok=(0, 1, 128),
            )  # fmt: skip
        return done.code == 0

    def _source(self, ref: RepositoryRef) -> tuple[str, bool]:
        """The address as git takes it, and whether it is a path on this host."""
        url = ref.url
        scheme = url.partition("://")[0] if "://" in url else ""
        path = Path(url.removeprefix("file://"))
        remote_shell = re.match(r"[\w.-]+@?[\w.-]*:", url) and not scheme and not path.exists()
        odd = not url or not url.isprintable() or url.startswith("-") or re.match(r"\w+::", url)
        if odd or (scheme and scheme not in SCHEMES):
            raise RepositoryError(
                f"repository {ref.name!r}: {redacted(url)[:200]!r} is not an address that is fetched from",
                f"Use a path, a bundle file, or {', '.join(SCHEMES[:3])}.",
            )
        if remote_shell or scheme not in ("", "file"):
            return url, False
        path = path.absolute()
        if self.paths is not None and not any(path.resolve().is_relative_to(allowed.resolve()) for allowed in self.paths):
            raise RepositoryError(f"repository {ref.name!r}: {path} is outside the folders that local repositories may lie in")
        return str(path), True

    async def _try(self, ref: RepositoryRef, folder: Path, url: str, *, local: bool, lock: int) -> None:
        """Follows the source; where that fails and there is an older state, it is written down. Raises RepositoryError."""
        try:
            await self._follow(folder, url, local=local, lock=lock)
        except RepositoryError as error:
            hint = error.hint or _hint(error.problem)
            if not _when(folder, FETCHED):
                raise RepositoryError(f"repository {ref.name!r}: {error.problem}", hint) from error
            folder.with_suffix(FAILED).write_text(error.problem, "utf-8")

    async def _follow(self, folder: Path, url: str, *, local: bool, lock: int) -> None:
        """Makes the mirror equal to its source."""
        if local and not Path(url).exists():
            raise RepositoryError(f"there is nothing at {url}", "Name a repository, or clone it there.")
        started = time.time_ns()
        busy = folder.with_suffix(".busy")
        if busy.exists():
            await asyncio.to_thread(_sweep, folder)
        busy.touch()
        await _begin(folder, "sha1")
        theirs, head = await self._listed(folder, url, local=local, lock=lock)
        if len(next(iter(theirs.values()), "")) == 64:
            await _begin(folder, "sha256")
        wanted = {name: commit for name, commit in theirs.items() if name.startswith(("refs/heads/", "refs/tags/"))}
        specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        if not any(name.startswith("refs/heads/") for name in theirs):  # a checkout of a continuous integration, for one
            specs = ["+refs/remotes/origin/*:refs/heads/*", "^refs/remotes/origin/HEAD", specs[1]]
        if head and not head.startswith("refs/heads/"):
            specs.append(f"+HEAD:{HEAD}")
            wanted[HEAD] = theirs["HEAD"]
        known = await _refs(folder)
        if HEAD in known and HEAD not in wanted:
            await git(folder, "update-ref", "-d", HEAD)
            del known[HEAD]
        if known != wanted:
            await git(
                folder, "fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-write-fetch-head", "--update-shallow",
                "--no-auto-maintenance", "origin", *specs,
                settings=_remote(url, local=local), env=self.env, local=local, timeout=self.timeout, pass_fds=(lock,),
            )  # fmt: skip
            await _tidy(folder, lock)
        await _point(folder, head)
        busy.unlink(missing_ok=True)
        folder.with_suffix(FETCHED).touch()
        os.utime(folder.with_suffix(FETCHED), ns=(started, started))

    async def _listed(self, folder: Path, url: str, *, local: bool, lock: int) -> tuple[dict[str, str], str]:
        """The source's refs, and the name of its main branch: "HEAD" where HEAD is on no branch, "" where there is nothing."""
        listing = await git(
            folder, "ls-remote", "--symref", "origin", "HEAD", "refs/heads/*", "refs/tags/*", "refs/remotes/origin/*",
            settings=_remote(url, local=local), env=self.env, local=local, timeout=LISTING, pass_fds=(lock,),
        )  # fmt: skip
        refs: dict[str, str] = {}
        head = ""
        for line in listing.out.decode("utf-8", "surrogateescape").split("\n"):
            value, _, name = line.partition("\t")
            if value.startswith("ref: ") and name == "HEAD":
                head = value.removeprefix("ref: ")
            elif COMMIT_ID.fullmatch(value) and not name.endswith("^{}"):
                refs[name] = value
        if head not in refs:
            head = _likely_main(refs)
        return refs, head


def _likely_main(refs: Refs) -> str:
    """The main branch where the source does not say: the well-known name at HEAD's commit, else any branch there, else HEAD."""
    names = [f"refs/heads/{name}" for name in MAIN_NAMES if f"refs/heads/{name}" in refs]
    names += sorted(name for name in refs if name.startswith("refs/heads/"))
    if "HEAD" in refs:
        return next((name for name in names if refs[name] == refs["HEAD"]), names[0] if names else "HEAD")
    return names[0] if names else ""


def _remote(url: str, *, local: bool) -> dict[str, str]:
    """The source as settings of one command: an address with a token stands in no file and in no list of processes."""
    settings = {"remote.origin.url": url, "fetch.unpackLimit": "1", "fetch.writeCommitGraph": "true"}
    settings |= {"http.lowSpeedLimit": "1000", "http.lowSpeedTime": "30"}
    if local:  # somebody else's repository on this host: git serves it without running anything in it, if it is told to
        settings["remote.origin.uploadpack"] = "git -c safe.directory='*' -c core.hooksPath=/dev/null upload-pack"
    return settings


async def _begin(folder: Path, object_format: str) -> None:
    """An empty mirror, if there is none of that object format."""
    if (folder / "HEAD").exists() and (object_format == "sha1" or object_format in (folder / "config").read_text("utf-8")):
        return
    if folder.exists():
        await asyncio.to_thread(shutil.rmtree, folder)
    folder.mkdir(parents=True)
    await git(folder, "init", "--quiet", "--bare", "--template=", f"--object-format={object_format}", "--initial-branch=main")


async def _refs(folder: Path) -> dict[str, str]:
    listing = await git(folder, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", HEAD)
    rows = (row.partition(" ") for row in listing.out.decode("utf-8", "surrogateescape").split("\n") if row)
    return {name: commit for commit, _, name in rows}


async def _point(folder: Path, head: str) -> None:
    """Makes the mirror's HEAD the main branch."""
    target = head if head.startswith("refs/heads/") else HEAD if head == "HEAD" else ""
    if not target:  # a source without branches of its own: those of its origin
        target = _likely_main(await _refs(folder)) or "refs/heads/main"
    if target != _head(folder):
        await git(folder, "symbolic-ref", "HEAD", target)


def _head(folder: Path) -> str:
    """The ref that HEAD stands for. In a mirror it always stands for one."""
    return (folder / "HEAD").read_text("utf-8", "surrogateescape").removeprefix("ref:").strip()


async def _main(folder: Path) -> str:
    name = _head(folder)
    found = await git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", ok=(0, 1, 128))
    return name if found.code == 0 else ""


async def _tidy(folder: Path, lock: int) -> None:
    """Keeps reading fast: refs in one file, few packs, and bitmaps where enumerating objects would take long."""
    await git(folder, "pack-refs", "--all", pass_fds=(lock,))
    if (folder / "shallow").exists():
        return
    packs = list((folder / "objects/pack").glob("pack-*.pack"))
    if len(packs) > PACKS:
        await git(folder, "repack", "-q", "-d", "--geometric=2", pass_fds=(lock,))
        packs = list((folder / "objects/pack").glob("pack-*.pack"))
    index = folder / "objects/pack/multi-pack-index"
    written = index.stat().st_mtime if index.exists() else 0
    newer = sum(pack.stat().st_mtime > written for pack in packs)
    if newer and (not written or newer > PACKS // 2) and sum(pack.stat().st_size for pack in packs) > BITMAP_SIZE:
        await git(folder, "multi-pack-index", "write", "--no-progress", "--bitmap", pass_fds=(lock,))


def _sweep(folder: Path) -> None:
    """Removes what a killed git left in a mirror; the lock says that none runs there now."""
    if not _when(folder, FETCHED):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        for pattern in ("*.lock", "refs/**/*.lock", "objects/**/*.lock", "objects/**/tmp_*", "objects/pack/.tmp-*"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def _when(folder: Path, what: str) -> int:
    """When the last fetch that succeeded began, or when the last one FAILED, in nanoseconds since 1970; 0 if there was none."""
    try:
        return folder.with_suffix(what).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _hint(problem: str) -> str:
    if "could not read Username" in problem or "Authentication failed" in problem or "Permission denied (publickey" in problem:
        return "Put a token into its address in the settings (https://${TOKEN}@host/...), or let an ssh agent hold the key."
    return "`sre-agent doctor` tries every repository of the settings."
