"""One sandbox's door on the host: its rules as they are now, its authority, its audit, and the connections that are open.

In the sandbox's folder: `egress.json`, the rules, where they were changed after the sandbox was made; `egress/`, the authority,
and the bundle of certificates that the sandbox trusts. Any process may change the rules: they are looked at before every request,
and every half second while a connection is open; what they no longer allow is cut off.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.core.egress import Egress
from agent.core.errors import SandboxError
from agent.egress.audit import Audit
from agent.egress.authority import Authority
from agent.egress.environment import BUNDLE, environment
from agent.egress.link import Link
from agent.egress.outside import Outside
from agent.egress.proxy import converse
from agent.egress.refusal import Refusal
from agent.egress.rules import decide
from agent.egress.stream import Stream

_LOOK = 0.5
"""Seconds between two looks at the rules and at the connections' times."""


class Gateway:
    """The door of the sandbox in `place`. `first`: the rules that it was made with."""

    def __init__(self, place: Path, first: Egress, outside: Outside) -> None:
        self.sandbox, self.place, self.outside = place.name, place, outside
        self._first = first
        self._seen: tuple[tuple[int, int, int] | None, Egress] = (None, first)
        self._links: set[Link] = set()
        self._watching: asyncio.Task[None] | None = None
        self._authority: Authority | None = None
        self._requests = 0
        self._spent = 0
        audits = outside.audit or place
        self.audit = Audit(audits / (f"{self.sandbox}.ndjson" if outside.audit else "egress.ndjson"))

    # The rules.

    @property
    def rules(self) -> Egress:
        """As they are now. Raises Refusal where they cannot be read: then nothing passes."""
        file = self.place / "egress.json"
        try:
            about = file.stat()
            seen = (about.st_mtime_ns, about.st_ino, about.st_size)
            if self._seen[0] != seen:
                self._seen = (seen, Egress.model_validate_json(file.read_bytes()))
            return self._seen[1]
        except FileNotFoundError:
            return self._first
        except (OSError, ValueError) as error:
            raise Refusal(503, "the rules of this sandbox cannot be read") from error

    def current(self) -> Egress:
        """The rules, for whoever is not at the door. Raises SandboxError."""
        try:
            return self.rules
        except Refusal as refusal:
            raise SandboxError(f"{self.sandbox}: {refusal.reason}", "Set them anew: sre-agent sandbox egress ID") from refusal

    @property
    def opens(self) -> bool:
        """Whether there is a door at all."""
        try:
            return self.rules.opens
        except Refusal:
            return False

    def change(self, egress: Egress) -> None:
        """Sets the rules, for every process and at once. Raises SandboxError."""
        new = self.place / "egress.json.new"
        try:
            new.write_text(egress.model_dump_json())
            new.replace(self.place / "egress.json")
        except OSError as error:
            raise SandboxError(f"the rules of {self.sandbox} cannot be set: {error}") from error
        self._look()

    # What the sandbox is given.

    def environment(self) -> dict[str, str]:
        """Variables that lead programs to the door; none where there is none."""
        return environment() if self.opens else {}

    def certificates(self) -> bytes:
        """What is trusted inside besides the system's: this door's authority and the host's own ones. Raises SandboxError."""
        try:
            more = self.outside.authorities.read_bytes() if self.outside.authorities else b""
        except OSError as error:
            raise SandboxError(f"policy.egress.authorities cannot be read: {error}") from error
        return b"\n" + self.authority.certificate + more

    def bundle(self) -> Path:
        """The system's bundle and ours, as a file for a sandbox that has the host's system. Raises SandboxError."""
        file = self.place / "egress" / "ca-certificates.crt"
        ours = self.certificates()
        try:
            system = BUNDLE.read_bytes() if BUNDLE.exists() else b""
            if not file.exists() or file.read_bytes() != system + ours:
                new = file.with_name("ca-certificates.crt.new")
                new.write_bytes(system + ours)
                new.chmod(0o644)
                new.replace(file)
        except OSError as error:
            raise SandboxError(f"the certificates for {self.sandbox} cannot be written: {error}") from error
        return file

    @property
    def authority(self) -> Authority:
        if self._authority is None:
            try:
                self._authority = Authority(self.place / "egress", self.sandbox)
            except OSError as error:
                raise SandboxError(f"{self.sandbox}: no certificate authority can be made: {error}") from error
        return self._authority

    # Its connections.

    async def serve(self, stream: Stream) -> None:
        """Serves one connection to its end, whoever ends it."""
        link = Link(asyncio.get_running_loop().time())
        if len(self._links) >= self._most():
            stream.close()
            return
        self._links.add(link)
        link.task = asyncio.create_task(converse(self, link, stream))
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([link.task])
        finally:
            link.end("the command has ended")
            self._links.discard(link)
            stream.close()
        if not link.task.cancelled():
            link.task.result()

    async def close(self) -> None:
        """Ends every connection."""
        tasks = [link.task for link in self._links if link.task is not None]
        for link in tuple(self._links):
            link.end("the door was closed")
        if self._watching is not None:
            self._watching.cancel()
            tasks.append(self._watching)
        if tasks:
            await asyncio.wait(tasks)

    def number(self) -> int:
        """Of the next request."""
        self._requests += 1
        return self._requests

    def spend(self, count: int) -> None:
        """Counts bytes. Raises Refusal when they are used up."""
        self._spent += count
        if self._spent > self.rules.limits.bytes:
            raise Refusal(403, f"the {self.rules.limits.bytes} bytes that this sandbox may move are used up")

    def _most(self) -> int:
        try:
            return self.rules.limits.connections
        except Refusal:
            return 0

    async def _watch(self) -> None:
        while self._links:
            await asyncio.sleep(_LOOK)
            self._look()

    def _look(self) -> None:
        """Cuts off what is no longer allowed, what lasts too long and what is silent."""
        if not self._links:
            return
        now = asyncio.get_running_loop().time()
        for link in tuple(self._links):
            try:
                rules = self.rules
                verdict = decide(rules, link.asked) if link.asked else None
            except Refusal as refusal:
                link.end(refusal.reason)
                continue
            limits = rules.limits
            unread = link.unread and verdict and (verdict.outcome != "allow" or verdict.inspect)
            if verdict and (verdict.outcome == "deny" or unread):
                link.end("the rules have changed")
            elif now - link.began > limits.seconds:
                link.end(f"it lasted longer than {limits.seconds:.0f} s")
            elif now - link.moved > limits.idle:
                link.end(f"nothing moved for {limits.idle:.0f} s")
            elif link.head is not None and now - link.head > limits.head:
                link.end(f"the head of a request took longer than {limits.head:.0f} s")


class Gateways:
    """The doors of this process's sandboxes, by their folders: all handles on one sandbox share its door."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._made: dict[Path, tuple[asyncio.AbstractEventLoop, Gateway]] = {}

    def of(self, place: Path, first: Egress) -> Gateway:
        """The door of the sandbox in that folder."""
        loop = asyncio.get_running_loop()
        made = self._made.get(place)
        if made is None or made[0] is not loop:
            made = self._made[place] = (loop, Gateway(place, first, self._outside))
        return made[1]

    async def forget(self, place: Path) -> None:
        """Closes the door of a sandbox that is deleted."""
        loop, gateway = self._made.pop(place, (None, None))
        if gateway is not None and loop is asyncio.get_running_loop():
            await gateway.close()
