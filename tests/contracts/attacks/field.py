"""Where attacks happen: two sandboxes and a host that has secrets and services planted for them. It knows no kind of sandbox."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from agent.core.sandbox import Layer, Limits, Sandbox, Sandboxes, SandboxSpec

LIMITS = Limits(memory=256 << 20, processes=64, disk=96 << 20, seconds=30.0, cores=2.0)

Attack = Callable[["Field"], Awaitable[str | None]]
ATTACKS: list[Attack] = []


def attack(function: Attack) -> Attack:
    ATTACKS.append(function)
    return function


class Host:
    """What a host has that nobody inside may reach, planted for the attacks: all of it holds `secret`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = f"planted-{secrets.token_hex(12)}"
        self.file = folder / "secret"
        self.file.write_text(self.secret)
        self.mark = folder / "mark"
        (folder / "mark-of-the-host").touch()
        self.port = 0
        self.abstract = f"\0{self.secret}"
        self.heard: list[str] = []

    def script(self, text: str) -> str:
        """A Python program to run inside, with what it may know about the host."""
        known = f"FILE={str(self.file)!r}; MARK={str(self.mark)!r}; PORT={self.port}; SECRET={self.secret!r}"
        return f"python3 - <<'EOF'\n{known}\n{textwrap.dedent(text)}\nEOF"


class Field:
    """Where an attack happens: a sandbox, another one beside it, and the host."""

    def __init__(self, sandbox: Sandbox, beside: Sandbox, host: Host) -> None:
        self.sandbox, self.beside, self.host = sandbox, beside, host

    async def python(self, text: str, *, timeout: float | None = None) -> str:
        """What a program prints. What goes wrong inside is the attacker's bad luck."""
        result = await self.sandbox.run(self.host.script(text), timeout=timeout)
        return (result.stdout + result.stderr).decode("utf-8", "replace")

    async def shell(self, text: str, *, timeout: float | None = None) -> str:
        return (await self.sandbox.run(text, timeout=timeout)).stdout.decode("utf-8", "replace")


@contextmanager
def planted() -> Iterator[Host]:
    """A host with a secret in a file, in the environment, in a process, in the kernel's keyring, and with services listening."""
    folder = Path(tempfile.mkdtemp(prefix="sre-agent-attacks-", dir="/var/tmp"))
    folder.chmod(0o755)
    host = Host(folder)
    host.file.chmod(0o644)
    os.environ["PLANTED"] = host.secret
    victim = subprocess.Popen(["/bin/sh", "-c", "read -r end", host.secret], stdin=subprocess.PIPE)
    services = [socket.create_server(("127.0.0.1", 0)), _unix(str(folder / "socket")), _unix(host.abstract), _datagrams()]
    host.port = services[0].getsockname()[1]
    stop = threading.Event()
    listeners = [threading.Thread(target=_listen, args=(service, host, stop)) for service in services]
    for listener in listeners:
        listener.start()
    _add_key(host.secret)
    shared = _LIBC.shmget(0, 4096, 0o1666)
    try:
        yield host
        if victim.poll() is not None:
            host.heard.append("a process of the host was killed")
    finally:
        stop.set()
        for listener in listeners:
            listener.join()
        for service in services:
            service.close()
        _LIBC.shmctl(shared, 0, None)
        assert victim.stdin
        victim.kill()
        victim.stdin.close()
        victim.wait()
        del os.environ["PLANTED"]
        shutil.rmtree(folder)


@asynccontextmanager
async def battlefield(sandboxes: Sandboxes) -> AsyncIterator[Field]:
    """Two sandboxes on one layer, and a host with secrets."""
    with planted() as host:
        for name in ("source", "deep"):
            (host.folder / name).mkdir()
            for file in ("file", "second", "third"):
                (host.folder / name / file).write_text(f"{name} {file}\n")
        layers = (
            Layer(source=host.folder / "source", target="/workspace/layer", key="layer"),
            Layer(source=host.folder / "deep", target="/workspace/ground/deep", key="deep"),
        )
        made: list[Sandbox] = []
        try:
            for id in ("attacker", "beside"):
                made.append(await sandboxes.create(id, SandboxSpec(layers=layers, limits=LIMITS)))
            yield Field(made[0], made[1], host)
        finally:
            for sandbox in made:
                await sandbox.delete()


def _unix(name: str) -> socket.socket:
    service = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    service.bind(name)
    if not name.startswith("\0"):
        os.chmod(name, 0o777)
    service.listen()
    return service


def _datagrams() -> socket.socket:
    service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    service.bind(("127.0.0.1", 0))
    return service


def _listen(service: socket.socket, host: Host, stop: threading.Event) -> None:
    service.settimeout(0.02)
    while not stop.is_set():
        with suppress(TimeoutError):
            if service.type == socket.SOCK_DGRAM:
                service.recvfrom(10)
            else:
                service.accept()[0].close()
            host.heard.append(f"{service.getsockname()!r} was reached")


_LIBC = ctypes.CDLL(None, use_errno=True)
_ADD_KEY = {"x86_64": 248, "aarch64": 217}


def _add_key(secret: str) -> None:
    """Plants a key in this thread's user keyring, where a process of the same user and session would find it."""
    number = _ADD_KEY.get(os.uname().machine)
    if number is not None:
        for keyring in (-3, -4):  # KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING
            _LIBC.syscall(number, b"user", b"sre-agent-planted", secret.encode(), len(secret), keyring)
