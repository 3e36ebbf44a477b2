"""Attacks through the file tools, the layers, and what the host does with a sandbox's files."""

from __future__ import annotations

import asyncio
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from agent.core.errors import SandboxError, ToolError
from tests.contracts.attacks.field import Field, attack


@attack
async def lead_out_with_links(field: Field) -> str | None:
    host = field.host
    await field.shell(
        f"ln -s {host.file} file; ln -s {host.folder} folder; ln -s ../../../../../../../..{host.folder} up; ln -s /proc/self/root root; ln -s / slash; ln -s /etc etc"
    )
    reached = []
    for path in (
        "file",
        "folder/secret",
        "up/secret",
        f"root{host.file}",
        f"slash{host.file}",
        f"../../..{host.file}",
        str(host.file),
        "etc/shadow",
        "etc/hostname",
    ):
        with suppress(ToolError):
            reached.append(f"read {path}: {(await field.sandbox.read(path))[:20]!r}")
        with suppress(ToolError):
            await field.sandbox.write(path, b"overwritten")
            if host.file.read_text() != host.secret:
                reached.append(f"wrote {path}")
    for path in ("folder", "up", "slash", "root", f"root{host.folder}", ".."):
        with suppress(ToolError):
            reached.append(f"listed {path}: {await field.sandbox.list(path)!r:.60}")
    with suppress(ToolError):
        await field.sandbox.write("folder/new", b"x")
    if (host.folder / "new").exists():
        reached.append("made a file on the host")
    return "; ".join(reached) or None


@attack
async def swap_a_link_during_the_call(field: Field) -> str | None:
    """A folder that is a link to the host's half of the time, exchanged as fast as it goes, while the host reads and writes."""
    host = field.host
    await field.shell(
        f"mkdir real; echo mine > real/secret; ln -s {host.folder} link; ln -s ../../../../../../../../..{host.folder} link2; cp -a real swap"
    )
    swapping = asyncio.create_task(
        field.python(
            """
            import ctypes, os, time
            libc = ctypes.CDLL(None)
            end = time.monotonic() + 40
            while time.monotonic() < end and not os.path.exists("stop"):
                for name in (b"link", b"link2"):
                    libc.renameat2(-100, b"swap", -100, name, 2); libc.renameat2(-100, b"swap", -100, name, 2)
            """
        )
    )
    reached: set[str] = set()
    calls, began = 0, time.monotonic()
    while not swapping.done() and (calls <= 40 or time.monotonic() < began + 1.2):
        calls += 1
        with suppress(ToolError):
            if host.secret.encode() in await field.sandbox.read("swap/secret"):
                reached.add("read the host's file")
        with suppress(ToolError):
            await field.sandbox.write("swap/secret", b"mine")
        with suppress(ToolError):
            await field.sandbox.write("swap/new/deep", b"mine")
        with suppress(ToolError):
            if any("mark-of-the-host" in info.path for info in await field.sandbox.list("swap")):
                reached.add("listed the host's folder")
    await field.sandbox.write("stop", b"")
    await swapping
    if host.file.read_text() != host.secret:
        reached.add("overwrote the host's file")
    if (host.folder / "new").exists():
        reached.add("made a folder on the host")
    return ", ".join(sorted(reached)) or (None if calls > 40 else f"only {calls} calls: the attack is wrong")


@attack
async def block_the_file_tools(field: Field) -> str | None:
    """Pipes, sockets, folders and endless links where a file is expected must not make the host wait."""
    await field.python("""
        import os, socket
        os.mkfifo("pipe"); socket.socket(socket.AF_UNIX).bind("socket"); os.symlink("loop", "loop"); os.mkdir("folder")
        os.symlink("/dev/zero", "zero"); os.symlink("/proc/self/mem", "mem"); os.symlink("pipe", "to-pipe")
    """)
    for path in ("pipe", "socket", "loop", "folder", "zero", "mem", "to-pipe"):
        for call in (field.sandbox.read(path), field.sandbox.write(path, b"x"), field.sandbox.list(path)):
            try:
                async with asyncio.timeout(5):
                    await call
            except ToolError:
                continue
            except TimeoutError:
                return f"waited for {path}"
            if path != "folder":
                return f"took {path} for a file"
    return None


@attack
async def make_the_host_execute(field: Field) -> str | None:
    """Everything a repository can hold that makes git run something, then all that the host does with a sandbox."""
    mark = field.host.mark
    await field.shell(f"""
        git init -q repo && cd repo && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm x
        printf '#!/bin/sh\\ntouch {mark}\\n' > evil.sh && chmod +x evil.sh && evil=$PWD/evil.sh
        for key in core.fsmonitor core.pager core.editor core.sshCommand core.hooksPath diff.external filter.x.clean filter.x.smudge \
            merge.x.driver gpg.program credential.helper uploadpack.packObjectsHook alias.log; do git config $key "!$evil"; done
        git config core.fsmonitor $evil; git config diff.external $evil; echo '* filter=x diff=x merge=x' > .gitattributes
        for hook in pre-commit post-checkout post-index-change fsmonitor-watchman reference-transaction; do cp evil.sh .git/hooks/$hook; done
        echo {field.host.folder} > .git/objects/info/alternates; echo "gitdir: {field.host.folder}" > sub
    """)
    for info in await field.sandbox.list("repo"):
        if not info.is_folder:
            await field.sandbox.read(info.path)
    await field.sandbox.write("repo/f", b"changed")
    await field.sandbox.list("repo/.git/hooks")
    await field.sandbox.suspend()
    await field.sandbox.read("repo/.git/config")
    return "it ran on the host" if mark.exists() else None


def _repository_with(folder: Path, content: str) -> str:
    """Makes a repository that holds the content, and returns the object's name."""
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    store = ["git", "-C", str(folder), "hash-object", "-w", "--stdin"]
    return subprocess.run(store, input=content, capture_output=True, check=True, text=True).stdout.strip()


@attack
async def read_through_an_alternate(field: Field) -> str | None:
    """A repository of the host whose objects are named as the alternate of one inside."""
    repository = field.host.folder / "repository"
    name = await asyncio.to_thread(_repository_with, repository, field.host.secret)
    out = await field.shell(
        f"git init -q alt && cd alt && echo {repository}/.git/objects > .git/objects/info/alternates && git cat-file -p {name};"
        f"GIT_ALTERNATE_OBJECT_DIRECTORIES={repository}/.git/objects git cat-file -p {name}"
    )
    return "read an object of the host" if field.host.secret in out else None


def facts(path: Path) -> tuple[int, ...]:
    """What a change would show in: all but the time of reading."""
    about = path.lstat()
    return (about.st_mode, about.st_uid, about.st_gid, about.st_nlink, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@attack
async def change_a_layers_source(field: Field) -> str | None:
    source = field.host.folder / "source"
    before = {path.name: (facts(path), path.read_bytes()) for path in source.iterdir()}
    await field.shell("""
        cd layer && echo x >> file; truncate -s 0 file; chmod 777 file; touch -d 2001-01-01 file; ln file hard; mv file moved; rm -f second
        setfattr -n user.x -v y moved; chmod 777 .; touch new; python3 -c 'import os; os.chown("moved", 1, 1)'
    """)
    await field.sandbox.write("layer/third", b"by the host")
    after = {path.name: (facts(path), path.read_bytes()) for path in source.iterdir()}
    changed = [name for name in before if name not in after or before[name] != after[name]]
    return f"changed {changed}" if changed or set(before) != set(after) else None


@attack
async def move_the_ground_away(field: Field) -> str | None:
    """The folders above a layer replaced by links to the host, so that mounting again after a suspension lands there."""
    host = field.host
    trap = host.folder / "trap"
    (trap / "deep").mkdir(parents=True, exist_ok=True)
    await field.shell(
        f"mv ground moved; rm -rf ground; rmdir ground/deep ground; ln -s {trap} ground; mv layer l2; ln -s {trap} layer; ln -s {trap} ground/deep"
    )
    await field.sandbox.suspend()
    with suppress(SandboxError, ToolError):
        await field.sandbox.run("touch ground/deep/x ground/x layer/x")
        await field.sandbox.write("ground/deep/y", b"x")
    reached = [str(path) for path in trap.rglob("*") if path.name in "xy" or path.is_mount()]
    await field.sandbox.delete()
    await asyncio.to_thread(_clear, trap)
    return f"reached {reached}" if reached else None


def _clear(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_mount():
            subprocess.run(["/usr/bin/umount", path], check=True)
