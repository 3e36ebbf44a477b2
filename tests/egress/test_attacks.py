"""What a program inside, or a server outside, might try at the door. Each attack must fail and leave the door working."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from contextlib import suppress

import pytest

from agent.core.egress import EgressLimits, Rule
from agent.egress import addresses, names
from agent.egress.refusal import Refusal
from tests.egress.conftest import MakeDoor, rule
from tests.egress.world import World, echoes, says

SECRET = "tok-1f8e7a66c0ffee"


def request(
    port: int, *headers: bytes, line: bytes = b"GET http://a.test:%d/ HTTP/1.1", host: bytes = b"Host: a.test:%d"
) -> bytes:
    lines = [line % port if b"%d" in line else line, host % port if b"%d" in host else host, *headers, b"", b""]
    return b"\r\n".join(lines)


# Smuggling: what two servers might read differently.


@pytest.mark.parametrize(
    "said",
    [
        request(80, b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
        request(80, b"Content-Length: 5", b"Content-Length: 6") + b"123456",
        request(80, b"Content-Length: 5", b"Content-Length: 5") + b"12345",
        request(80, b"Content-Length: 5, 5") + b"12345",
        request(80, b"Content-Length: +5") + b"12345",
        request(80, b"Content-Length: -1"),
        request(80, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n",
        request(80, b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
        request(80, b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
        request(80, b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
        request(80, b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
        request(80, b"X: a", b" Transfer-Encoding: chunked") + b"0\r\n\r\n",
        request(80, b"X: a\nTransfer-Encoding: chunked") + b"0\r\n\r\n",
        request(80, b"X: a\rTransfer-Encoding: chunked") + b"0\r\n\r\n",
        request(80, b"X: a\0b"),
        request(80, b"no colon"),
        request(80, b": no name"),
        request(80, b"Host: b.test"),
        request(80, host=b"Host: b.test"),
        request(80, host=b"Host: a.test:80@b.test"),
        request(80, host=b"X: no host"),
        request(80, line=b"GET http://a.test/ HTTP/1.1 HTTP/1.1"),
        request(80, line=b"GET  http://a.test/ HTTP/1.1"),
        request(80, line=b"GET http://a.test/ HTTP/9.9"),
        request(80, line=b"GET http://a.test/", host=b"X: 0.9"),
        request(80, line=b"GET http://a.test/#http://b.test HTTP/1.1"),
        request(80, line=b"GET http://u@a.test/ HTTP/1.1"),
        request(80, line=b"GET / HTTP/1.1"),
        request(80, line=b"GET https://a.test/ HTTP/1.1"),
        request(80, line=b"GET ftp://a.test/ HTTP/1.1"),
        request(80, line=b"POST http://a.test/ HTTP/1.0", host=b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        request(80, line=b"CONNECT a.test HTTP/1.1"),
        request(80, line=b"CONNECT a.test:443 HTTP/1.1", host=b"Host: b.test:443"),
        request(80, line=b"CONNECT http://a.test:443/ HTTP/1.1"),
        b"\r\n\r\nGET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x05\x01\x00",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        bytes((n * 167 + 13) % 256 for n in range(64)) + b"\r\n\r\n",
    ],
)
async def test_a_request_that_could_be_read_in_two_ways_is_not_read_at_all(world: World, door: MakeDoor, said: bytes) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(rule("a.test", "b.test", ports=[port, 80, 443]))
    world.names["a.test"] = world.names["b.test"] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(said.replace(b":80\r\n", b"\r\n"))
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    assert not answer or answer.split()[1] in (b"400", b"505"), answer
    assert world.asked == []


@pytest.mark.parametrize(
    "chunk",
    [
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"f" * 30 + b"\r\n",
        b"3;" + b"x" * 70_000,
    ],
)
async def test_a_chunk_of_another_form_ends_the_exchange(world: World, door: MakeDoor, chunk: bytes) -> None:
    port = await world.serve(echoes)
    one = await door(rule("a.test", ports=[port]))
    await one.say(
        request(port, b"Transfer-Encoding: chunked", line=b"POST http://a.test:%d/ HTTP/1.1") + chunk,
        b"GET http://a.test/evil HTTP/1.1\r\n\r\n",
    )
    assert not any(b"evil" in head for head in world.heads)


async def test_a_body_that_looks_like_a_request_is_none(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"ok"))
    one = await door(rule("a.test", ports=[port], paths=("/",)))
    evil = b"GET http://a.test:%d/evil HTTP/1.1\r\nHost: a.test:%d\r\n\r\n" % (port, port)
    await one.say(
        request(port, b"Content-Length: %d" % len(evil), b"Connection: close", line=b"POST http://a.test:%d/ HTTP/1.1") + evil
    )
    assert [head.split()[1] for head in world.heads] == [b"/"]


# Names and addresses.


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.0.0.1.", "0", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
        "[fe80::1%25lo]", "[fe80::1]", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1",
        "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "localhost", "a.test", "a.test.", "A.TEST", "%6c", "a..test",
        "a_b.test/", "１２７.0.0.1", "a.test%00.b.test", "[::1", "1.2.3", "256.1.1.1", "1.2.3.4.5", "*", "-a.test", "a" * 300,
    ],
)  # fmt: skip
async def test_no_way_of_writing_an_address_leads_into_the_host_or_its_network(world: World, door: MakeDoor, host: str) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(Rule(hosts=("*",), ports=(port,)))
    for line in (f"GET http://{host}:{port}/ HTTP/1.1", f"CONNECT {host}:{port} HTTP/1.1"):
        said = await one.say(f"{line}\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert said.split()[1] in (b"400", b"403"), said


@pytest.mark.parametrize(
    "found",
    ["169.254.169.254", "127.0.0.1", "10.1.1.1", "::1", "fd00:ec2::254", "fe80::1%2", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1",
     "168.63.129.16", "0.0.0.0", "192.0.0.192", "198.18.0.1", "240.0.0.1", "ff02::1"],
)  # fmt: skip
async def test_a_name_that_leads_to_no_public_address_is_refused(world: World, door: MakeDoor, found: str) -> None:
    world.names["inner.test"] = [found]
    one = await door(Rule(hosts=("*",)))
    said = await one.say(b"GET http://inner.test/ HTTP/1.1\r\nHost: inner.test\r\n\r\n")
    assert b"is no public address, and no rule's cidrs hold it" in said


def test_public_addresses_are_public() -> None:
    assert all(addresses.public(text) for text in ("1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::101:101", "151.101.0.223"))


async def test_a_name_that_changes_its_address_is_asked_once_and_its_first_answer_holds(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"ok"), world.tls("a.test"))
    one = await door(rule("a.test", ports=[port], inspect=True))
    head, _, writer = await one.tunnel("a.test", port)
    world.names["a.test"] = ["169.254.169.254"]
    assert b" 200 " in head
    writer.close()
    await one.quiet()
    assert world.asked == ["a.test"]
    said = await one.secure("a.test", port, trust=one.own())
    assert b"169.254.169.254 is no public address" not in said and b" 403 " in said
    assert world.asked == ["a.test", "a.test"]


async def test_only_the_allowed_of_several_addresses_is_tried(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"ok"))
    world.names["a.test"] = ["10.0.0.1", "::1", "127.0.0.1"]
    one = await door(rule("a.test", ports=[port]))
    assert b"200 OK" in await one.say(request(port, b"Connection: close"))
    assert [line["address"] for line in one.audit()] == ["127.0.0.1", "127.0.0.1"]


async def test_other_ports_of_an_allowed_host_stay_shut(world: World, door: MakeDoor) -> None:
    one = await door(rule("a.test"))
    for port in (22, 25, 8080, 65535, 0, 99999):
        assert (await one.say(b"CONNECT a.test:%d HTTP/1.1\r\nHost: a.test:%d\r\n\r\n" % (port, port))).split()[1] in (
            b"403",
            b"400",
        )
    assert world.asked == []


# Paths, methods, headers.

EVASIONS = (
    "/open/../closed", "/open/%2e%2e/closed", "/open/%2E./closed", "/open/..%2fclosed", "/open/%252e%252e/closed", "/open/..;/closed",
    "/open/..;a=b/closed", "/open/.%00./closed", "/open\\..\\closed", "/open/%5c../closed", "/open/./../closed", "/open/%2e%2e%2fclosed",
)  # fmt: skip


@pytest.mark.parametrize("path", EVASIONS)
async def test_a_path_that_may_lead_upwards_is_refused(world: World, door: MakeDoor, path: str) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(rule("a.test", ports=[port], paths=("/open/*",)))
    assert (await one.say(request(port, line=f"GET http://a.test:{port}{path} HTTP/1.1".encode()))).split()[1] == b"400"
    assert world.heads == []


@pytest.mark.parametrize(
    "path",
    [
        "//closed/x",
        "/closed%2fx",
        "/clos%65d/x",
        "/clos%2565d/x",
        "/closed;a/x",
        "/%2fclosed/x",
        "/closed/x?open",
        "///closed//x",
    ],
)
async def test_a_rule_that_denies_a_path_denies_every_way_of_writing_it(world: World, door: MakeDoor, path: str) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(Rule(action="deny", hosts=("a.test",), ports=(port,), paths=("/closed/*",)), rule("a.test", ports=[port]))
    assert (await one.say(request(port, line=f"GET http://a.test:{port}{path} HTTP/1.1".encode()))).split()[1] == b"403"


@pytest.mark.parametrize("path", ["/open%2fx", "/op%65n/../x", "/x?/open/", "/OPEN/x", "/openx"])
async def test_a_rule_that_allows_a_path_allows_no_other_reading_of_one(world: World, door: MakeDoor, path: str) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(rule("a.test", ports=[port], paths=("/open/*",)))
    assert (await one.say(request(port, line=f"GET http://a.test:{port}{path} HTTP/1.1".encode()))).split()[1] in (b"403", b"400")


def test_what_a_path_may_mean() -> None:
    assert names.readings("/a%2Fb;c//d?e=/../") == {
        "/a%2Fb;c//d",
        "/a/b;c//d",
        "/a%2Fb//d",
        "/a/b//d",
        "/a%2Fb;c/d",
        "/a/b;c/d",
        "/a%2Fb/d",
        "/a/b/d",
    }
    assert names.readings("/a/.//./b/.") == {"/a/.//./b/.", "/a/b/"}
    assert names.readings("/.a/b./.../c") == {"/.a/b./.../c"}
    with pytest.raises(Refusal):
        names.readings("a")


@pytest.mark.parametrize("header", [b"X-HTTP-Method-Override: DELETE", b"x-http-method: PUT", b"X-Method-Override: PUT"])
async def test_another_method_cannot_be_meant(world: World, door: MakeDoor, header: bytes) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(rule("a.test", ports=[port], methods=("GET", "POST")))
    assert (await one.say(request(port, header))).split()[1] == b"400"
    for method in (b"DELETE", b"get", b"TRACE"):
        assert (await one.say(request(port, line=method + b" http://a.test:%d/ HTTP/1.1"))).split()[1] in (b"403", b"405")
    assert world.heads == []


async def test_a_secret_cannot_be_taken_off_its_request_nor_doubled(world: World, door: MakeDoor) -> None:
    port = await world.serve(echoes)
    one = await door(rule("a.test", ports=[port], headers={"X-Api-Key": "{key}"}), secrets={"key": SECRET})
    said = await one.say(
        request(
            port,
            b"Connection: close, x-api-key",
            b"X_Api_Key: guess",
            b"X-API-KEY: guess",
            b"Proxy-Authorization: x",
            b"Trailer: X-Api-Key",
        )
    )
    assert b"200 OK" in said and SECRET.encode() not in said
    assert world.heads[0].lower().replace(b"_", b"-").count(b"x-api-key") == 1 and b"guess" not in world.heads[0]


async def test_a_line_cannot_be_put_into_a_request_or_the_audit(world: World, door: MakeDoor) -> None:
    port = await world.serve(echoes)
    one = await door(rule("a.test", ports=[port], headers={"X-Key": "{key}"}), secrets={"key": f"{SECRET}\r\nX-Evil: 1"})
    assert (await one.say(request(port))).split()[1] == b"502"
    two = await door(rule("a.test", ports=[port]))
    said = await two.say(request(port, b"Connection: close", line=b'GET http://a.test:%d/x%%0d%%0aX-Evil:1"} HTTP/1.1' % port))
    assert said.split()[1] in (b"200", b"400")
    assert not any(b"\r\nX-Evil" in head for head in world.heads)
    assert all(line["sandbox"] == "box-1" for line in two.audit())


async def test_websockets_and_other_ways_out_of_http_are_refused(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"", b"Upgrade: websocket", b"Connection: Upgrade", status=b"101 Switching Protocols"))
    one = await door(rule("a.test", ports=[port]))
    assert (await one.say(request(port, b"Upgrade: websocket", b"Connection: Upgrade"))).split()[1] == b"403"
    assert world.heads == []
    assert (await one.say(request(port, b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x"))).split()[
        1
    ] == b"502"
    assert b"pgrade" not in world.heads[0] and b"HTTP2" not in world.heads[0]


# Floods, and silence.


async def test_heads_without_end_are_cut(world: World, door: MakeDoor) -> None:
    one = await door(rule("a.test"))
    assert (await one.say(request(80, b"X: " + b"x" * 100_000))).split()[1] == b"431"
    assert (await one.say(request(80, *(b"X%d: y" % n for n in range(500))))).split()[1] == b"431"
    assert (await one.say(b"G" * 200_000))[:12] in (b"HTTP/1.1 431", b"")
    assert world.asked == []


LIMITS = EgressLimits(head=0.3, idle=0.9, seconds=30.0, connections=3)


async def test_a_head_that_comes_drop_by_drop_is_cut(world: World, door: MakeDoor) -> None:
    one = await door(rule("a.test"), limits=LIMITS)
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    dripping = asyncio.create_task(_drip(writer, request(80, b"X: " + b"x" * 10_000)))
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    dripping.cancel()
    writer.close()
    assert [(line["event"], line["reason"]) for line in one.audit()] == [("ended", "the head of a request took longer than 0 s")]


async def _drip(writer: asyncio.StreamWriter, content: bytes) -> None:
    for at in range(len(content)):
        writer.write(content[at : at + 1])
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_tunnel_that_is_silent_and_one_that_never_says_hello_are_cut(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"x"), world.tls("a.test"))
    one = await door(rule("a.test", ports=[port]), limits=LIMITS)
    head, reader, writer = await one.tunnel("a.test", port)
    assert b" 200 " in head and await reader.read() == b""
    writer.close()
    await one.quiet()
    assert one.audit()[-1]["reason"] == "nothing moved for 1 s"


async def test_more_connections_than_may_be_are_closed_at_once(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello"))
    one = await door(rule("a.test", ports=[port]), limits=EgressLimits(connections=3))
    kept = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(3)]
    for _, writer in kept:
        writer.write(b"G")
    await asyncio.sleep(0)
    assert await one.say(b"") == b""
    for _, writer in kept:
        writer.close()
    await one.quiet()
    assert b"hello" in await one.say(request(port, b"Connection: close"))


async def test_a_client_that_does_not_read_holds_the_server_back(world: World, door: MakeDoor) -> None:
    """What the host holds of an answer that nobody takes is bounded."""
    written = 0
    stuck = asyncio.Event()

    async def flood(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(1 << 16))
            written += 1 << 16
            try:
                await asyncio.wait_for(writer.drain(), 0.3)
            except TimeoutError:
                stuck.set()
                return

    port = await world.serve(flood)
    one = await door(rule("a.test", ports=[port]))
    _, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=1 << 16)
    writer.write(request(port))
    await stuck.wait()
    assert written < 24 << 20  # the kernel's own buffers are most of it
    writer.transport.abort()


@pytest.mark.slow
async def test_a_bomb_costs_no_more_than_the_bytes_that_may_be_moved(world: World, door: MakeDoor) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    port = await world.serve(says(bomb, b"Content-Encoding: gzip"))
    one = await door(
        rule("a.test", ports=[port], headers={"X-Key": "{key}"}), secrets={"key": SECRET}, limits=EgressLimits(bytes=1 << 20)
    )
    assert len(await one.say(request(port))) < 2 << 20


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"",
    ],
    ids=["garbage", "two lengths", "too short", "endless head", "bad chunk", "nothing"],
)
async def test_a_server_that_breaks_the_form_harms_nobody(world: World, door: MakeDoor, answer: bytes) -> None:
    async def broken(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    port = await world.serve(broken)
    one = await door(rule("a.test", ports=[port]))
    said = await one.say(request(port))
    assert not said or said.split()[1] in (b"502", b"200")
    await one.quiet()
    assert one.audit()[-1]["event"] == "failed"


async def test_a_client_that_goes_in_the_middle_leaves_nothing_open(world: World, door: MakeDoor) -> None:
    come, gone = asyncio.Event(), asyncio.Event()

    async def wait(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(100) == b"12345"
        come.set()
        assert await reader.read() == b""
        gone.set()

    port = await world.serve(wait)
    one = await door(rule("a.test", ports=[port]))
    _, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(request(port, b"Content-Length: 100", line=b"POST http://a.test:%d/ HTTP/1.1") + b"12345")
    await come.wait()
    writer.close()
    await gone.wait()
    await one.quiet()
    assert [line["event"] for line in one.audit()] == ["allowed", "failed"]


async def test_what_cannot_be_written_down_does_not_pass(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"reached"))
    one = await door(rule("a.test", ports=[port]))
    one.gateway.audit.file.mkdir()
    assert (await one.say(request(port))).split()[1] == b"503"
    assert world.heads == []


async def test_the_audit_of_a_flood_stays_bounded(world: World, door: MakeDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.egress.audit.LARGEST", 4_000)
    one = await door(rule("a.test"))
    for _ in range(30):
        await one.say(b"GET http://b.test/" + b"x" * 2_000 + b" HTTP/1.1\r\nHost: b.test\r\n\r\n")
    kept: Sequence[int] = [file.stat().st_size for file in one.gateway.place.glob("egress.ndjson*")]
    assert len(kept) == 2 and all(size <= 4_000 for size in kept)
