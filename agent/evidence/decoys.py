"""Desks on which a commit's text is changed and its behaviour is not: what went or came stands in the files as a comment.

A check that reads the text of a change (`grep 'timeout = 5'`) cannot tell such a desk from the real one, and would pass for any
commit at all; a check that runs the code can. Only files of languages with comments can be changed this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from agent.core.errors import SandboxError, ToolError
from agent.core.sandbox import Sandbox
from agent.evidence.diffs import Changed

MOST = 200
"""Files of one commit that are changed at most."""


def _block(opening: str, closing: str) -> Callable[[list[str]], str]:
    return lambda lines: "\n".join([opening, *(line.replace(closing.strip(), "") for line in lines), closing])


def _lines(mark: str) -> Callable[[list[str]], str]:
    return lambda lines: "\n".join(f"{mark} {line}" for line in lines)


_SLASHES = _block("/*", "*/")
_HASHES = _lines("#")
COMMENTS: dict[str, Callable[[list[str]], str]] = {
    ".py": _block("r'''", "'''"),
    ".rb": _block("=begin", "=end"),
    ".sql": _SLASHES,
    **dict.fromkeys((".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".java", ".go", ".c", ".h", ".cc", ".cpp", ".hpp"), _SLASHES),
    **dict.fromkeys((".rs", ".kt", ".kts", ".scala", ".swift", ".cs", ".php", ".css", ".scss", ".groovy", ".proto"), _SLASHES),
    **dict.fromkeys((".html", ".xml", ".vue", ".svelte"), _block("<!--", "-->")),
    **dict.fromkeys((".yaml", ".yml", ".toml", ".sh", ".bash", ".ini", ".cfg", ".conf", ".properties", ".tf", ".pl"), _HASHES),
    **dict.fromkeys((".ex", ".exs", ".r", ".jl", ".txt", ".env", ".mk", ".cmake"), _HASHES),
    **dict.fromkeys(("Dockerfile", "Makefile", "requirements.txt", "Gemfile", "Rakefile"), _HASHES),
}


def comment(path: str) -> Callable[[list[str]], str] | None:
    """How lines become a comment in this file; None where nobody knows."""
    name = PurePosixPath(path)
    return COMMENTS.get(name.name) or COMMENTS.get(name.suffix.lower())


async def plant(sandbox: Sandbox, repo: str, files: Iterable[Changed], *, removed: bool) -> int:
    """Appends what the commit added (or removed) to the files that are there, as comments. Returns how many files it changed."""
    planted = 0
    for file in list(files)[:MOST]:
        lines = [line for line in (file.removed if removed else file.added) if line.strip()]
        make = comment(file.path)
        if not lines or make is None:
            continue
        path = f"repos/{repo}/{file.path}"
        try:
            content = await sandbox.read(path)
        except (ToolError, SandboxError):
            continue
        await sandbox.write(path, content.rstrip(b"\n") + b"\n" + make(lines).encode() + b"\n")
        planted += 1
    return planted
