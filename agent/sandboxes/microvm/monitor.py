"""What QEMU itself says and is told: its monitor (QMP), and the console on which the guest's kernel and agent print."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from agent.core.errors import SandboxError


class Console:
    """The end of what the kernel and the agent print: a panic's reason, above all."""

    KEPT = 64 << 10

    def __init__(self, stream: socket.socket) -> None:
        self._stream, self._said = stream, bytearray()
        stream.setblocking(False)
        asyncio.get_running_loop().add_reader(stream, self._hear)

    @property
    def said(self) -> str:
        return self._said.decode("utf-8", "replace").replace("\r", "")

    def close(self) -> None:
        if self._stream.fileno() >= 0:
            self._hear()
            asyncio.get_running_loop().remove_reader(self._stream)
            self._stream.close()

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            if more := self._stream.recv(1 << 16):
                self._said += more
                del self._said[: -self.KEPT]
                return
            asyncio.get_running_loop().remove_reader(self._stream)


class Monitor:
    """QMP (docs/interop/qmp-spec.txt): one command at a time, and the events that are waited for."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self._stream = stream
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._events: list[dict[str, Any]] = []
        self._asking = asyncio.Lock()

    async def ready(self) -> None:
        """Waits for the greeting and makes it take commands."""
        self._send(_request("qmp_capabilities", {}), None)
        self._reader, self._writer = await asyncio.open_connection(sock=self._stream, limit=1 << 22)
        await self._line()
        await self._answer("qmp_capabilities")

    def forget(self) -> None:
        """Forgets the events of earlier."""
        self._events.clear()

    async def give(self, name: str, descriptor: int) -> None:
        """Hands QEMU an open file under a name (getfd)."""
        await self.ask("getfd", descriptor, fdname=name)

    async def ask(self, command: str, descriptor: int | None = None, /, **arguments: Any) -> Any:
        """The answer. Raises SandboxError with QEMU's words."""
        async with self._asking:
            self._send(_request(command, arguments), descriptor)
            return await self._answer(command)

    async def load(self, state: int, capabilities: Sequence[object]) -> None:
        """Has it take in a state from an open file, and waits until that is done."""
        async with self._asking:
            asked: dict[str, dict[str, object]] = {
                "getfd": {"fdname": "state"},
                "migrate-set-capabilities": {"capabilities": capabilities},
                "migrate-incoming": {"uri": "fd:state"},
            }
            self._send(b"".join(_request(command, arguments) for command, arguments in asked.items()), state)
            for command in asked:
                await self._answer(command)
        await self.until_migrated()

    async def _answer(self, command: str) -> Any:
        while True:
            answer = await self._line()
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise SandboxError(f"QEMU refused {command}: {answer['error'].get('desc', '')}")
            else:
                return answer.get("return")

    async def until_migrated(self, seconds: float = 60.0) -> None:
        """Waits for the end of a migration, in or out. Raises SandboxError if it failed."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    while self._events:
                        event = self._events.pop(0)
                        status = event.get("data", {}).get("status") if event["event"] == "MIGRATION" else ""
                        if status == "completed":
                            return
                        if status == "failed":
                            raise SandboxError("the state of the machine could not be moved")
                    answer = await self._line()
                    if "event" in answer:
                        self._events.append(answer)
        except TimeoutError:
            raise SandboxError(f"the state of the machine has not moved for {seconds:.0f} s") from None

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        else:
            self._stream.close()

    def _send(self, line: bytes, descriptor: int | None) -> None:
        """A request is short and the monitor waits for it: it fits into the socket."""
        try:
            if descriptor is None:
                self._stream.sendall(line)
            else:
                socket.send_fds(self._stream, [line], [descriptor])
        except OSError as error:
            raise SandboxError("the machine has ended") from error

    async def _line(self) -> dict[str, Any]:
        assert self._reader
        try:
            line = await self._reader.readline()
            answer = json.loads(line) if line else None
        except (OSError, ValueError) as error:
            raise SandboxError("the monitor of the machine does not answer") from error
        if not isinstance(answer, dict):
            raise SandboxError("the machine has ended")
        return answer


def _request(command: str, arguments: Mapping[str, object]) -> bytes:
    """As short as can be: QEMU reads its monitor a byte at a time, with several system calls for each."""
    request = {"execute": command} | ({"arguments": arguments} if arguments else {})
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"
