"""Repositories for tests and benchmarks, made commit by commit, the same bytes every time. It is no part of the program."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}


def git(folder: Path, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] = {}, check: bool = True) -> str:
    """Runs git in a folder and returns what it printed, stripped."""
    command = ["git", "-c", "safe.directory=*", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, cwd=folder, input=stdin, env={**ENVIRONMENT, **env}, capture_output=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout.decode("utf-8", "replace").strip()


class Link(str):
    """The target of a symbolic link, as the content of a file."""


class Executable(str):
    """The content of an executable file."""


class Submodule(str):
    """A commit id, as the content of a submodule."""


File = str | bytes | None
"""What a path holds after a commit; None removes it."""


class Source:
    """A bare repository that grows by one commit at a time. Commits are an hour apart unless told otherwise."""

    def __init__(self, folder: Path, *, main: str = "main") -> None:
        self.folder = folder
        self.main = main
        self.at = START
        for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
            (folder / name).mkdir(parents=True)
        (folder / "HEAD").write_text(f"ref: refs/heads/{main}\n")
        (folder / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")

    def commit(
        self,
        files: Mapping[str, File] = {},
        message: str = "Change",
        *,
        at: datetime | None = None,
        branch: str | None = None,
        parents: tuple[str, ...] | None = None,
    ) -> str:
        """Adds a commit to a branch (default: main) and returns its id. `parents` default to the branch's tip."""
        self.at = at or self.at + timedelta(hours=1)
        ref = f"refs/heads/{branch or self.main}"
        if parents is None:
            packed = self.folder / "packed-refs"
            exists = (self.folder / ref).exists() or (packed.exists() and f" {ref}\n" in packed.read_text())
            parents = (f"{ref}^0",) if exists else ()
        stream = b"".join(_commit(ref, message, self.at, parents, files)) + b"get-mark :1\n"
        return git(self.folder, "fast-import", "--quiet", "--force", "--cat-blob-fd=1", stdin=stream)

    def tag(self, name: str, commit: str = "HEAD", *, at: datetime | None = None) -> None:
        """A tag: annotated where `at` is given."""
        if at is None:
            git(self.folder, "tag", name, commit)
        else:
            git(self.folder, "tag", "-a", "-m", name, name, commit, env={"GIT_COMMITTER_DATE": at.isoformat()})

    def read(self, *arguments: str) -> str:
        """What a git command says about this repository."""
        return git(self.folder, *arguments)


def _commit(ref: str, message: str, at: datetime, parents: tuple[str, ...], files: Mapping[str, File]) -> Iterator[bytes]:
    """One commit in the language of `git fast-import`."""
    when = f"{int(at.timestamp())} {at.strftime('%z') or '+0000'}"
    text = message.encode()
    yield f"commit {ref}\nmark :1\nauthor Ada <ada@example.com> {when}\ncommitter Ada <ada@example.com> {when}\n".encode()
    yield f"data {len(text)}\n".encode() + text + b"\n"
    for index, parent in enumerate(parents):
        yield f"{'merge' if index else 'from'} {parent}\n".encode()
    for path, content in files.items():
        quoted = os.fsencode('"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"')
        if content is None:
            yield b"D %b\n" % quoted
        elif isinstance(content, Submodule):
            yield b"M 160000 %b %b\n" % (content.encode(), quoted)
        else:
            mode = "120000" if isinstance(content, Link) else "100755" if isinstance(content, Executable) else "100644"
            data = content if isinstance(content, bytes) else content.encode()
            yield b"M %b inline %b\ndata %d\n%b\n" % (mode.encode(), quoted, len(data), data)


def large(folder: Path, *, commits: int = 30_000, files: int = 6_000, size: int = 300 << 20, seed: int = 1) -> None:
    """A bare repository with that many commits and files on its main branch. As called by default its pack has 306 MB; fewer
    commits make it smaller than `size`.

    Files are lines of text of which a quarter is redundant; most commits change one line of one file, some rewrite a file.
    """
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "--bare", "--template=", "--initial-branch=main", ".")
    command = ["git", "fast-import", "--quiet", "--depth=10"]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for piece in _history(random.Random(seed), commits, files, size):
            process.stdin.write(piece)
    if process.returncode:
        raise AssertionError("git fast-import failed")


def _history(chance: random.Random, commits: int, files: int, size: int) -> Iterator[bytes]:
    lines = max(4, int(size * 0.22 / files / 60))
    contents: dict[str, list[str]] = {}
    rewritten = max(1, int(size * 0.22 / (lines * 60)))
    for number in range(commits):
        change: dict[str, File] = {}
        new = range(number * files // 200, (number + 1) * files // 200) if number < 200 else range(0)
        for index in new:
            path = f"src/part{index % 60:02}/module{index:05}.py"
            contents[path] = [_line(chance) for _ in range(lines)]
            change[path] = "\n".join(contents[path])
        if not change:
            path = (
                chance.choice(list(contents))
                if number % 50 == 0
                else f"src/part{(k := chance.randrange(files)) % 60:02}/module{k:05}.py"
            )
            if number % max(1, commits // rewritten) == 0:
                contents[path] = [_line(chance) for _ in range(lines)]
            contents[path][chance.randrange(lines)] = _line(chance)
            change[path] = "\n".join(contents[path])
        yield from _commit("refs/heads/main", f"Change {number}", START + timedelta(minutes=number), (), change)


def _line(chance: random.Random) -> str:
    return f"value = {chance.randbytes(36).hex()}"
