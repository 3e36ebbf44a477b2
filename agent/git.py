"""git on the host, in repositories that only the host writes. It is never run where a sandbox could write.

Writing (packs, work trees, patches) goes through the git binary; reading (commits, trees, tags) through GitPython. Both see no
configuration but ours, no hook, no helper program, no terminal, and no protocol but those named here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.core.data import Data
from agent.core.errors import RepositoryError

if TYPE_CHECKING:
    from git import Commit as Commit
    from git import Repo as Repo

COMMIT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
"""A full commit id."""

IDENTITY = {
    "GIT_AUTHOR_NAME": "sre-agent",
    "GIT_AUTHOR_EMAIL": "sre-agent@localhost",
    "GIT_COMMITTER_NAME": "sre-agent",
    "GIT_COMMITTER_EMAIL": "sre-agent@localhost",
}
REMOTE_PROTOCOLS = "https:http:ssh:git"
SETTINGS = {
    "advice.detachedHead": "false",
    "color.ui": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "safe.directory": "*",
    "submodule.recurse": "false",
}
"""On the command line's level, above what stands in a repository's own configuration. `safe.directory` only means that the data
folder may belong to another user than the one that runs: git is run in our own folders and nowhere else."""

Read = TypeVar("Read")


class Output(Data):
    """What a git command did. `cut` is set where it had more to say than was asked for."""

    code: int
    out: bytes
    errors: str
    cut: bool = False

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "replace").strip()


def environment(settings: Mapping[str, str] = {}, *, local: bool = False) -> dict[str, str]:
    """The whole environment of a git process. `local` allows the file protocol, for a path that somebody configured."""
    values = {**SETTINGS, **settings}
    pairs = {f"GIT_CONFIG_KEY_{index}": name for index, name in enumerate(values)}
    pairs |= {f"GIT_CONFIG_VALUE_{index}": value for index, value in enumerate(values.values())}
    return {
        "PATH": f"{os.defpath}:/usr/local/bin",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_COUNT": str(len(values)),
        "GIT_ALLOW_PROTOCOL": f"file:{REMOTE_PROTOCOLS}" if local else REMOTE_PROTOCOLS,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        "GIT_TERMINAL_PROMPT": "0",
        **pairs,
    }


async def git(
    folder: Path,
    *arguments: str,
    stdin: bytes = b"",
    settings: Mapping[str, str] = {},
    env: Mapping[str, str] = {},
    local: bool = False,
    ok: tuple[int, ...] = (0,),
    timeout: float = 600.0,
    limit: int | None = None,
    memory: int | None = None,
    pass_fds: tuple[int, ...] = (),
) -> Output:
    """Runs git with `folder` as its repository and waits for its end; cancelling kills it with all it started.

    limit: how many bytes of output to take before it is stopped. memory: how many bytes it may use.
    Raises RepositoryError if its exit code is not in `ok`.
    """
    bounded = ("sh", "-c", 'ulimit -v "$0" && exec git "$@"', str(memory >> 10)) if memory else ("git",)
    try:
        process = await asyncio.create_subprocess_exec(
            *bounded, *arguments, cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True, umask=0o022, pass_fds=pass_fds,
            env={**environment(settings, local=local), "GIT_DIR": str(folder), **env},
        )  # fmt: skip
    except OSError as error:
        hint = "Install git." if error.filename == "git" else ""
        raise RepositoryError(f"git {arguments[0]} could not be started in {folder}: {error}", hint) from error
    assert process.stdin and process.stdout and process.stderr
    try:
        async with asyncio.timeout(timeout):
            _, (out, cut), (errors, _) = await asyncio.gather(
                _feed(process.stdin, stdin), _take(process.stdout, limit, process), _take(process.stderr, None, process)
            )
            code = await process.wait()
    except TimeoutError:
        raise RepositoryError(f"git {arguments[0]} took more than {timeout:.0f} s and was stopped") from None
    finally:
        _kill(process)
        await process.wait()
    text = redacted(errors[-20_000:].decode("utf-8", "replace").strip())
    if code not in ok and not cut:
        raise RepositoryError(f"git {arguments[0]} failed: {text or f'exit code {code}'}")
    return Output(code=code, out=out, errors=text, cut=cut)


async def has(folder: Path, commit: str) -> bool:
    """Whether a repository has a commit, named by its full id."""
    return (await git(folder, "cat-file", "-e", f"{commit}^{{commit}}", ok=(0, 1, 128))).code == 0


async def _feed(pipe: asyncio.StreamWriter, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended early: its exit code says why
        pipe.write(content)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _take(pipe: asyncio.StreamReader, limit: int | None, process: asyncio.subprocess.Process) -> tuple[bytes, bool]:
    """All that comes, or the first `limit` bytes of it; then the process is ended."""
    pieces: list[bytes] = []
    size = 0
    while piece := await pipe.read(1 << 18):
        pieces.append(piece)
        size += len(piece)
        if limit is not None and size > limit:
            _kill(process)
            return b"".join(pieces)[:limit], True
    return b"".join(pieces), False


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def read(folder: Path, reader: Callable[[Repo], Read]) -> Read:
    """Calls `reader` with the repository, opened through GitPython, in a thread; it must not keep lazy objects.

    Raises what `reader` raises, and RepositoryError if there is no repository.
    """
    return await asyncio.to_thread(_read, folder, reader)


def _read(folder: Path, reader: Callable[[Repo], Read]) -> Read:
    from git import GitCommandError, InvalidGitRepositoryError, NoSuchPathError, Repo

    try:
        with contextlib.closing(Repo(folder)) as repo:
            repo.git.update_environment(**environment(), GIT_DIR=str(folder))
            return reader(repo)
    except (InvalidGitRepositoryError, NoSuchPathError) as error:
        raise RepositoryError(f"{folder} is no git repository", "`sre-agent doctor` looks at the data folder.") from error
    except GitCommandError as error:
        raise RepositoryError(f"{folder}: git failed: {redacted(str(error.stderr).strip())}") from error


async def clone(source: Path, target: Path) -> None:
    """A bare copy of one repository of ours as another, without configuration. Raises RepositoryError."""
    await asyncio.to_thread(_clone, source, target)


def _clone(source: Path, target: Path) -> None:
    from git import GitCommandError, Repo

    try:
        with contextlib.closing(Repo.clone_from(str(source), str(target), env=environment(local=True), bare=True)) as repo:
            repo.delete_remote(repo.remote("origin"))
    except GitCommandError as error:
        raise RepositoryError(f"{source} could not be copied: {redacted(str(error.stderr).strip())}") from error


def redacted(text: str) -> str:
    """A text without the user names, passwords and tokens of the addresses in it."""
    return re.sub(r"(\w+://)[^/\s'\"]*@", r"\1", text)
