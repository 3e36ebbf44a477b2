"""Reading, writing and searching files in the sandbox. For anything beyond that there is the shell."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent.core.errors import ToolError
from agent.core.sandbox import Sandbox
from agent.core.tool import Tool, tool

LINE = 2_000
READ = 24_000
MATCHES = 200

Path = Annotated[str, Field(description="Absolute or relative to /workspace.")]


def files(sandbox: Sandbox) -> list[Tool]:
    """read_file, write_file, edit_file, grep, find."""

    async def read_file(
        path: Path,
        start_line: Annotated[int, Field(ge=1)] = 1,
        lines: Annotated[int, Field(ge=1, le=2000)] = 300,
    ) -> str:
        """Read lines of a text file, numbered. At most 24 kB are returned; the last line says where to go on."""
        end = start_line + lines - 1
        result = await sandbox.run(["sed", "-n", f"{start_line},{end}p;{end}q", "--", path], output_limit=4 * READ)
        if result.exit_code:
            raise ToolError(
                f"read_file {path}: {result.stderr.decode('utf-8', 'replace').strip()}", "`find` shows what is there."
            )
        return _numbered(result.stdout.decode("utf-8", "replace"), start_line, path, result.truncated)

    async def write_file(path: Path, content: str) -> str:
        """Write a whole file, making its folders. What stood there is replaced."""
        await sandbox.write(path, content.encode())
        return f"Wrote {len(content.encode())} bytes to {path}."

    async def edit_file(
        path: Path,
        old: Annotated[
            str, Field(description="The exact text to replace; it must stand in the file exactly once.", min_length=1)
        ],
        new: str,
    ) -> str:
        """Replace one piece of text in a file."""
        text = (await sandbox.read(path)).decode("utf-8", "surrogateescape")
        count = text.count(old)
        if count != 1:
            where = "It is not in the file: read it first." if count == 0 else "Add lines around it until it is unique."
            raise ToolError(f"edit_file {path}: the old text stands there {count} times", where)
        await sandbox.write(path, text.replace(old, new).encode("utf-8", "surrogateescape"))
        return f"Edited {path}, line {text[: text.index(old)].count(chr(10)) + 1}."

    async def grep(
        pattern: Annotated[str, Field(description="A regular expression (Rust syntax).")],
        path: Path = ".",
        glob: Annotated[str, Field(description="Only files whose name matches, like *.py")] = "",
        ignore_case: bool = False,
        context: Annotated[int, Field(ge=0, le=20, description="Lines around each match.")] = 0,
    ) -> str:
        """Search files for a pattern. Shows path:line: text, at most 200 lines, and how many there are in all."""
        command = ["rg", "--line-number", "--no-heading", "--with-filename", "--color=never", "--max-columns=500"]
        command += ["--hidden", "--glob=!.git", "--sort=path", f"--context={context}", "--max-columns-preview"]
        command += [f"--glob={glob}"] * bool(glob) + ["--ignore-case"] * ignore_case
        result = await sandbox.run([*command, "--regexp", pattern, "--", path], timeout=60)
        if result.exit_code not in (0, 1):
            raise ToolError(f"grep {pattern!r} in {path}: {result.stderr.decode('utf-8', 'replace').strip()[:500]}")
        return _first(result.stdout.decode("utf-8", "replace"), f"No line matches {pattern!r} in {path}.")

    async def find(
        path: Path = ".",
        name: Annotated[str, Field(description="A pattern for the name, like *.log")] = "*",
        depth: Annotated[int, Field(ge=1, le=20)] = 4,
    ) -> str:
        """List files and folders below a path with their sizes in bytes; .git is left out."""
        command = ["find", path, "-maxdepth", str(depth), "-name", ".git", "-prune", "-o", "-name", name]
        result = await sandbox.run([*command, "-printf", "%y %s %p\\n"], timeout=60)
        if result.exit_code and not result.stdout:
            raise ToolError(f"find {path}: {result.stderr.decode('utf-8', 'replace').strip()[:500]}")
        listing = "\n".join(
            sorted(result.stdout.decode("utf-8", "replace").splitlines(), key=lambda line: line.split(" ", 2)[2:])
        )
        return _first(listing, f"Nothing below {path} is named {name!r}.")

    readers = [tool(function, in_sandbox=True, repeatable=True) for function in (read_file, grep, find)]
    return [*readers, tool(write_file, in_sandbox=True, repeatable=True), tool(edit_file, in_sandbox=True)]


def _numbered(text: str, start: int, path: str, cut: bool) -> str:
    shown: list[str] = []
    size = 0
    for number, line in enumerate(text.splitlines(), start):
        shown.append(f"{number}\t{line if len(line) <= LINE else line[:LINE] + f' [… {len(line) - LINE} more characters]'}")
        size += len(shown[-1])
        if size > READ:
            return "\n".join([*shown, f"[cut here; go on with start_line={number + 1}]"])
    if not shown:
        return f"[{path} has no line {start}]"
    return "\n".join(shown) + ("\n[cut here]" if cut else "")


def _first(text: str, none: str) -> str:
    lines = text.splitlines()
    if not lines:
        return none
    more = len(lines) - MATCHES
    return "\n".join(lines[:MATCHES]) + (f"\n[{more} more lines; narrow it down]" if more > 0 else "")
