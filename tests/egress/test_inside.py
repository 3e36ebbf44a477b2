"""The door as real programs inside a sandbox find it: curl, python, pip, git, apt, towards servers of their own on loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.egress import Egress, Rule
from agent.core.errors import NotFound
from agent.core.sandbox import Limits, Sandbox, Sandboxes, SandboxSpec
from agent.egress.outside import Outside
from agent.sandboxes.bubblewrap import Bubblewrap
from agent.sandboxes.microvm import MicroVM, build, copies
from agent.sandboxes.microvm.machine import MicroVMSandbox
from tests.contracts.attacks import ATTACKS, Attack, Field, battlefield
from tests.egress.conftest import rule
from tests.egress.world import World, echoes, says

LIMITS = Limits(memory=512 << 20, processes=64, disk=192 << 20, seconds=60.0, cores=2.0)
SECRET = "tok-1f8e7a66c0ffee"
"""Only the host knows it."""


class DoorContract:
    """What every kind's door does. Fill `sandboxes`, made with the fixture `outside`."""

    @pytest.fixture
    def outside(self, world: World) -> Outside:
        many = world.authorities.with_name("many.pem")  # as long as a system's whole bundle
        many.write_bytes(b"what is not a certificate is skipped\n" * 6_000 + world.authorities.read_bytes())
        return Outside(secrets={"key": SECRET}, authorities=many, resolve=world.resolve)

    @pytest.fixture
    def sandboxes(self, tmp_path: Path, outside: Outside) -> Sandboxes:
        raise NotImplementedError

    async def box(self, sandboxes: Sandboxes, *rules: Rule) -> Sandbox:
        return await sandboxes.create("one", SandboxSpec(limits=LIMITS, egress=Egress(rules=rules)))

    async def test_without_rules_there_is_no_door(self, sandboxes: Sandboxes) -> None:
        one = await self.box(sandboxes)
        said = await one.run("env | grep -ci proxy; ls /run/egress; curl -sS --max-time 5 http://127.0.0.1:3128/")
        assert said.stdout == b"0\n" and b"No such file" in said.stderr and b"Failed to connect" in said.stderr

    async def test_programs_find_it_by_themselves(self, world: World, sandboxes: Sandboxes) -> None:
        plain, secure = await world.serve(says(b"plain")), await world.serve(says(b"secure"), world.tls("a.test"))
        inspected = await world.serve(echoes, world.tls("b.test"))
        one = await self.box(
            sandboxes,
            rule("a.test", ports=[plain, secure]),
            rule("b.test", ports=[inspected], headers={"Authorization": "Bearer {key}"}),
        )
        said = await one.run(
            f"curl -sS http://a.test:{plain}/ && curl -sS https://a.test:{secure}/ && curl -sS https://b.test:{inspected}/ &&"
            f"python3 -c 'import urllib.request as u; print(u.urlopen(\"https://b.test:{inspected}/x\").read().decode())'"
        )
        assert said.stderr == b"" and said.stdout.startswith(b"plainsecureGET / HTTP/1.1\r\n")
        assert b"GET /x HTTP/1.1\r\n" in said.stdout and said.stdout.count(b"*" * len(f"Bearer {SECRET}")) == 2
        assert all(f"Authorization: Bearer {SECRET}".encode() in head for head in world.heads[2:])

    async def test_what_is_not_allowed_says_who_could_allow_it(self, sandboxes: Sandboxes) -> None:
        one = await self.box(sandboxes, rule("a.test"))
        said = await one.run("curl -sS http://elsewhere.test/; curl -sS --max-time 9 https://elsewhere.test/")
        assert b"egress to elsewhere.test:80 denied: no rule allows it" in said.stdout
        assert b"sre-agent sandbox egress one --allow elsewhere.test:80" in said.stdout
        assert b"403" in said.stderr

    async def test_it_opens_and_shuts_while_the_sandbox_lives(self, world: World, sandboxes: Sandboxes) -> None:
        port = await world.serve(says(b"hello"))
        one = await self.box(sandboxes)
        ask = f"curl -sS --max-time 9 http://a.test:{port}/"
        assert (await one.run(ask)).stdout == b""
        await one.set_egress(Egress(rules=(rule("a.test", ports=[port]),)))
        assert (await one.run(ask)).stdout == b"hello"
        again = await sandboxes.open("one")
        assert again.egress().rules[0].hosts == ("a.test",)
        await one.suspend()
        assert (await again.run(ask)).stdout == b"hello"
        await again.set_egress(Egress())
        assert (await one.run(ask)).stdout == b""

    async def test_nothing_else_of_the_host_is_reached_while_it_is_open(self, world: World, sandboxes: Sandboxes) -> None:
        port = await world.serve(says(b"hello"))
        one = await self.box(sandboxes, rule("a.test", ports=[port]))
        said = await one.run(
            f"curl -sS --noproxy '*' --max-time 3 http://127.0.0.1:{port}/; curl -sS --max-time 3 http://127.0.0.1:{port}/;"
            f"curl -sS --proxy http://127.0.0.1:3128 --noproxy '' http://127.0.0.1:{port}/ http://localhost:{port}/ http://2130706433:{port}/;"
            "wc -l </proc/net/dev; ls /run"
        )
        assert b"hello" not in said.stdout
        assert said.stdout.endswith(b"3\negress\n")

    async def test_a_flood_of_connections_leaves_the_door_and_the_host_as_they_were(
        self, world: World, sandboxes: Sandboxes
    ) -> None:
        port = await world.serve(says(b"hello"))
        one = await self.box(sandboxes, rule("a.test", ports=[port]))
        said = await one.run(
            "python3 -c 'import socket\n"
            "kept = []\n"
            "for n in range(600):\n"
            "    s = socket.socket(); s.settimeout(5); kept.append(s)\n"
            '    try: s.connect(("127.0.0.1", 3128)); s.send(b"G")\n'
            "    except OSError: pass\n"
            f"'; curl -sS --max-time 20 --retry 3 --retry-all-errors http://a.test:{port}/"
        )
        assert said.stdout == b"hello"

    async def test_pip_installs_from_an_index_that_is_allowed(self, world: World, sandboxes: Sandboxes, tmp_path: Path) -> None:
        wheel = make_wheel(tmp_path)
        port = await world.serve(files(tmp_path / "index"), world.tls("index.test"))
        one = await self.box(
            sandboxes,
            rule("index.test", ports=[port], methods=("GET",), paths=("/simple/*", "/files/*"), headers={"X-Key": "{key}"}),
        )
        said = await one.run(
            f"/usr/bin/python3 -m pip install -q --index-url https://index.test:{port}/simple/ tiny && python3 -c 'import tiny; print(tiny.SAYS)'"
        )
        assert (said.exit_code, said.stdout) == (0, b"hello from the wheel\n"), said.stderr.decode()
        assert wheel.name.encode() in world.heads[-1] and f"X-Key: {SECRET}".encode() in world.heads[-1]

    async def test_git_fetches_from_a_host_that_is_allowed(self, world: World, sandboxes: Sandboxes, tmp_path: Path) -> None:
        make_repository(tmp_path / "index" / "repo.git")
        port = await world.serve(files(tmp_path / "index"), world.tls("code.test"))
        one = await self.box(sandboxes, rule("code.test", ports=[port]))
        said = await one.run(f"git clone -q https://code.test:{port}/repo.git r && cat r/f")
        assert (said.exit_code, said.stdout) == (0, b"1\n"), said.stderr.decode()
        read = rule(
            "code.test", ports=[port], methods=("GET",), paths=("/repo.git/*",), headers={"Authorization": "Bearer {key}"}
        )
        await one.set_egress(Egress(rules=(read,)))
        said = await one.run("cd r && git fetch -q origin main && git log -1 --format=%s FETCH_HEAD")
        assert (said.exit_code, said.stdout) == (0, b"one\n"), said.stderr.decode()
        assert f"Authorization: Bearer {SECRET}".encode() in world.heads[-1]

    async def test_apt_installs_from_a_mirror_that_is_allowed(self, world: World, sandboxes: Sandboxes, tmp_path: Path) -> None:
        make_debs(tmp_path / "index" / "debs")
        port = await world.serve(files(tmp_path / "index"))
        one = await self.box(sandboxes, rule("mirror.test", ports=[port]))
        await one.write("here.list", f"deb [trusted=yes] http://mirror.test:{port}/debs ./\n".encode())
        options = "-o Dir::Etc::SourceList=/workspace/here.list -o Dir::Etc::SourceParts=-"
        said = await one.run(f"apt-get -q {options} update && apt-get -q {options} install tiny && tiny-says")
        assert said.exit_code == 0 and said.stdout.endswith(b"hello from the package\n"), said.stderr.decode()


def files(root: Path):  # type: ignore[no-untyped-def]
    """A server of files and of folders as lists of links."""

    async def answer(head: bytes, reader: object, writer: object) -> None:
        path = root / head.split()[1].partition(b"?")[0].decode().strip("/")
        if path.is_dir():
            body = "".join(
                f'<a href="{entry.name}{"/" if entry.is_dir() else ""}">{entry.name}</a>' for entry in sorted(path.iterdir())
            ).encode()
            await says(body, b"Content-Type: text/html")(head, reader, writer)  # type: ignore[arg-type]
        elif path.is_file():
            await says(path.read_bytes(), b"Content-Type: application/octet-stream")(head, reader, writer)  # type: ignore[arg-type]
        else:
            await says(b"", status=b"404 Not Found")(head, reader, writer)  # type: ignore[arg-type]

    return answer


def make_wheel(folder: Path) -> Path:
    """A package without dependencies, in an index."""
    import zipfile

    place = folder / "index" / "simple" / "tiny"
    place.mkdir(parents=True)
    wheel = place / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "SAYS = 'hello from the wheel'\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            "tiny-1.0.dist-info/RECORD",
            "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n",
        )
    return wheel


def make_debs(folder: Path) -> None:
    """A package that says something, and the list that apt reads."""
    work = folder.parent / "deb"
    program = work / "usr" / "bin" / "tiny-says"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho hello from the package\n")
    program.chmod(0o755)
    (work / "DEBIAN").mkdir()
    control = "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b>\nDescription: says something\n"
    (work / "DEBIAN" / "control").write_text(control)
    folder.mkdir()
    deb = folder / "tiny_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(work), str(deb)], check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    (folder / "Packages").write_text(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n")


def make_repository(bare: Path) -> None:
    """A bare repository that a server of files can serve."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    work = bare.parent.parent / "work"
    bare.parent.mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    (work / "f").write_text("1\n")
    subprocess.run([*git, "-C", str(work), "add", "."], check=True)
    subprocess.run([*git, "-C", str(work), "commit", "-qm", "one"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)


def _built() -> bool:
    try:
        return bool(build.current())
    except NotFound:
        return False


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap sandboxes need root")
class TestBubblewrap(DoorContract):
    @pytest.fixture
    async def sandboxes(self, tmp_path: Path, outside: Outside) -> AsyncIterator[Sandboxes]:
        made = Bubblewrap(tmp_path / "sandboxes", outside=outside)
        yield made
        for id in await made.ids():
            await (await made.open(id)).delete()


class OpenBubblewrap(Bubblewrap):
    """Every sandbox of it has a door that leads somewhere."""

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        rules = (Rule(hosts=("somewhere.test",), cidrs=("203.0.113.0/24",)),)
        return await super().create(id, spec.model_copy(update={"egress": Egress(rules=rules)}))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap sandboxes need root")
class TestAttacksWithAnOpenDoor:
    """What a sandbox withstands without a door it withstands with one."""

    @pytest.fixture
    async def field(self, tmp_path: Path) -> AsyncIterator[Field]:
        made = OpenBubblewrap(tmp_path / "sandboxes")
        async with battlefield(made) as field:
            yield field
        for id in await made.ids():
            await (await made.open(id)).delete()

    @pytest.mark.parametrize("attack", [a for a in ATTACKS if a.__module__.endswith(("network", "reading", "outliving"))])
    async def test_attack(self, field: Field, attack: Attack) -> None:
        assert await attack(field) in (None, "saw 'egress\\n'")  # /run is empty but for the certificates
        assert field.host.heard == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="microVM sandboxes need root")
@pytest.mark.skipif(not _built(), reason="no image was built: sre-agent sandbox build")
class TestMicroVM(DoorContract):
    @pytest.fixture
    async def sandboxes(self, tmp_path: Path, outside: Outside) -> AsyncIterator[Sandboxes]:
        made = MicroVM(tmp_path / "sandboxes", outside=outside)
        yield made
        for id in await made.ids():
            await (await made.open(id)).delete()
        await made.close()

    async def test_the_door_is_open_again_after_a_suspension_and_a_fork_has_one_of_its_own(
        self, world: World, sandboxes: Sandboxes
    ) -> None:
        port = await world.serve(says(b"hello"), world.tls("a.test"))
        one = await self.box(sandboxes)
        await one.set_egress(Egress(rules=(rule("a.test", ports=[port], inspect=True),)))
        ask = f"curl -sS --max-time 30 https://a.test:{port}/"
        assert (await one.run(ask)).stdout == b"hello"
        await one.suspend()
        assert (await one.run(ask)).stdout == b"hello"
        assert isinstance(one, MicroVMSandbox)
        two = await copies.fork(one, "two")
        await one.set_egress(Egress())
        assert (await two.run(ask)).stdout == b"hello"
        assert (await one.run(ask)).stdout == b""
