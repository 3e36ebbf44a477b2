"""TLS at the door: passed on unread, or read with the door's own authority; and secrets that only the host knows."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ssl
import zlib
from collections.abc import Sequence

import pytest

from agent.core.egress import Egress, Rule
from agent.egress import hello
from agent.egress.scrub import Scrub, forms
from tests.egress.conftest import Doorway, MakeDoor, rule
from tests.egress.world import Answer, World, echoes, says

SECRET = "tok-1f8e7a66c0ffee"
GET = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"


def get(path: str, host: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_an_unread_tunnel_carries_the_servers_own_certificate(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"secret of theirs"), world.tls("a.test"))
    one = await door(rule("a.test", ports=[port]))
    said = await one.secure("a.test", port, get("/x", "a.test"), trust=world.authorities.read_bytes())
    assert said.endswith(b"secret of theirs")
    await one.quiet()
    assert one.brief() == [("allowed", "CONNECT", "a.test", "", "1"), ("done", "CONNECT", "a.test", "", "1")]
    with pytest.raises(ssl.SSLCertVerificationError):
        await one.secure("a.test", port, trust=one.own())


async def test_rules_about_requests_hold_within_tls(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello"), world.tls("a.test"))
    one = await door(rule("a.test", ports=[port], methods=("GET",), paths=("/yes",)))
    host = f"a.test:{port}"
    assert (await one.secure("a.test", port, get("/yes", host), trust=one.own())).endswith(b"hello")
    said = await one.secure("a.test", port, get("/no", host), trust=one.own())
    assert said.startswith(b"HTTP/1.1 403 ") and f"egress to a.test:{port} denied".encode() in said
    await one.quiet()
    wanted = [("allowed", "CONNECT", ""), ("allowed", "GET", "/yes"), ("done", "GET", "/yes"), ("done", "CONNECT", "")]
    wanted += [("allowed", "CONNECT", ""), ("denied", "GET", "/no"), ("done", "CONNECT", "")]
    assert [(line[0], line[1], line[3]) for line in one.brief()] == wanted


async def test_a_server_whose_certificate_is_not_its_own_gets_no_request(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"x"), world.tls("other.test"))
    one = await door(rule("a.test", ports=[port], headers={"X-Key": "{key}"}), secrets={"key": SECRET})
    said = await one.secure("a.test", port, get("/", f"a.test:{port}"), trust=one.own())
    assert said.startswith(b"HTTP/1.1 502 ") and b"certificate" in said
    assert world.heads == []


async def injecting(world: World, door: MakeDoor, answer: Answer) -> tuple[Doorway, int]:
    port = await world.serve(answer, world.tls("a.test"))
    allowed = rule("a.test", ports=[port], headers={"Authorization": "Bearer {key}"})
    return await door(allowed, secrets={"key": SECRET}), port


async def test_a_secret_reaches_the_server_and_never_the_sandbox(world: World, door: MakeDoor) -> None:
    one, port = await injecting(world, door, echoes)
    headers = ("authorization: mine", "AUTHORIZATION: mine too", "Authorization_: x", "Range: bytes=0-5", "Accept-Encoding: br")
    said = await one.secure("a.test", port, get("/", f"a.test:{port}", *headers), trust=one.own())
    wanted = f"Authorization: Bearer {SECRET}".encode()
    assert world.heads[0].count(b"uthorization") == 2 and wanted in world.heads[0] and b"mine" not in world.heads[0]
    assert b"Range" not in world.heads[0] and b"identity" in world.heads[0]
    assert SECRET.encode() not in said and b"Authorization: " + b"*" * len("Bearer " + SECRET) in said
    assert SECRET not in one.gateway.audit.file.read_text()
    assert not [file for file in one.gateway.place.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    "body",
    [
        SECRET.encode(),
        base64.b64encode(b"user:" + SECRET.encode()),
        base64.urlsafe_b64encode(b"?" + SECRET.encode()),
        SECRET.encode().hex().encode(),
        f'{{"token": "{SECRET}"}}'.encode(),
    ],
    ids=["as it is", "in base64", "in base64 for addresses", "in hexadecimal", "in JSON"],
)
async def test_echoes_of_a_secret_are_scrubbed(world: World, door: MakeDoor, body: bytes) -> None:
    one, port = await injecting(world, door, says(body, b"X-Echo: " + SECRET.encode()))
    said = await one.secure("a.test", port, get("/", f"a.test:{port}"), trust=one.own())
    kept = SECRET.encode()[3:-3]
    for form in (kept, base64.b64encode(kept)[3:-3], kept.hex().encode()):
        assert form not in said
    assert len(said.partition(b"\r\n\r\n")[2]) == len(body)


@pytest.mark.parametrize(
    "echo",
    [
        "tok%2b1%2fx%3d%26%3c9",
        "tok%2B1%2Fx%3D%26%3C9",
        r"tok+1/x\u003d\u0026\u003c9",
        r"tok+1\/x=&<9",
        r"tok+1/x=\u0026\u003c9",
        "tok&#x2B;1&#x2F;x&#x3D;&#x26;&#x3C;9",
        "tok+1/x&#61;&#38;&#60;9",
        "tok+1/x=&amp;&lt;9",
    ],
)
def test_a_secret_is_known_as_other_languages_write_it(echo: str) -> None:
    assert Scrub(forms("tok+1/x=&<9")).whole(echo.encode()) == b"*" * len(echo)


def in_pieces(head: Sequence[bytes], pieces: Sequence[bytes]) -> Answer:
    """Chunks, each sent by itself."""

    async def answer(asked: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\r\n".join([b"HTTP/1.1 200 OK", *head, b"Transfer-Encoding: chunked", b"", b""]))
        for piece in pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\nX-Trailer: " + SECRET.encode() + b"\r\n\r\n")

    return answer


async def test_a_secret_across_pieces_is_scrubbed_and_trailers_are_dropped(world: World, door: MakeDoor) -> None:
    pieces = [b"a " + SECRET[:1].encode(), *(bytes([byte]) for byte in SECRET[1:].encode()), b" b " + SECRET[:7].encode()]
    one, port = await injecting(world, door, in_pieces([], pieces))
    said = await one.secure("a.test", port, get("/", f"a.test:{port}"), trust=one.own())
    body = b"".join(line for line in said.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
    assert body == b"a " + b"*" * len(SECRET) + b" b " + SECRET[:7].encode()
    assert b"Trailer" not in said


async def test_compressed_echoes_are_scrubbed_too(world: World, door: MakeDoor) -> None:
    content = b"x" * 300_000 + SECRET.encode() + b"y"
    for coding, packed in ((b"gzip", gzip.compress(content)), (b"deflate", zlib.compress(content))):
        one, port = await injecting(world, door, says(packed, b"Content-Encoding: " + coding))
        said = await one.secure("a.test", port, get("/", f"a.test:{port}"), trust=one.own())
        assert SECRET.encode() not in said and b"*" * len(SECRET) in said and len(said) > 300_000
    one, port = await injecting(world, door, says(b"?", b"Content-Encoding: br"))
    assert (await one.secure("a.test", port, get("/", f"a.test:{port}"), trust=one.own())).startswith(b"HTTP/1.1 502 ")


async def test_a_redirect_is_an_answer_and_goes_nowhere_with_the_secret(world: World, door: MakeDoor) -> None:
    elsewhere = await world.serve(says(b"thief"), world.tls("thief.test"))
    moved = says(b"", f"Location: https://thief.test:{elsewhere}/?t={SECRET}".encode(), status=b"302 Found")
    one, port = await injecting(world, door, moved)
    said = await one.secure("a.test", port, get("/", f"a.test:{port}"), trust=one.own())
    assert said.startswith(b"HTTP/1.1 302 ") and SECRET.encode() not in said
    assert len(world.heads) == 1 and world.asked == ["a.test"]


async def test_a_secret_that_the_host_does_not_have_lets_nothing_pass(world: World, door: MakeDoor) -> None:
    port = await world.serve(echoes)
    one = await door(rule("a.test", ports=[port], headers={"X-Key": "{gone}"}))
    said = await one.say(f"GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 502 ") and b"this host has no secret 'gone'" in said and world.heads == []


async def test_a_tunnel_that_new_rules_do_not_allow_is_cut(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello"), world.tls("a.test"))
    one = await door(rule("a.test", ports=[port]))
    _, reader, writer = await one.tunnel("a.test", port)
    await writer.start_tls(ssl.create_default_context(cafile=str(world.authorities)), server_hostname="a.test")
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"hello")
    one.gateway.change(Egress(rules=(rule("a.test", ports=[port]), rule("b.test"))))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"hello")
    (one.gateway.place / "egress.json").write_text(Egress(rules=(rule("b.test"),)).model_dump_json())  # as another process does
    assert await reader.read() == b""
    writer.close()
    assert [(line["event"], line.get("reason")) for line in one.audit()] == [
        ("allowed", None),
        ("ended", "the rules have changed"),
    ]
    head, _, writer = await one.tunnel("a.test", port)
    assert b" 403 " in head
    writer.close()


async def test_rules_that_cannot_be_read_let_nothing_pass(world: World, door: MakeDoor) -> None:
    one = await door(rule("a.test"))
    (one.gateway.place / "egress.json").write_text("{")
    assert (await one.say(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")) == b""
    assert not one.gateway.opens


async def test_a_tunnel_asks_for_the_server_that_it_was_opened_for(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello"), world.tls("a.test", "b.test"))
    for inspect in (False, True):
        one = await door(rule("a.test", ports=[port], inspect=inspect))
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await one.secure("a.test", port, get("/", "b.test"), trust=world.authorities.read_bytes(), name="b.test")
        assert one.audit()[-1]["reason"] == "the tunnel is to a.test, and TLS within it asks for 'b.test'"
    assert world.heads == []


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", b"\x16\x03\x01\xff\xff"]
)
async def test_a_tunnel_carries_tls_alone(world: World, door: MakeDoor, said: bytes) -> None:
    port = await world.serve(says(b"hello"))
    one = await door(rule("a.test", ports=[port]))
    _, reader, writer = await one.tunnel("a.test", port)
    writer.write(said)
    assert await reader.read() == b""
    writer.close()
    assert world.heads == [] and one.audit()[-1]["event"] == "failed"


def test_a_hello_is_read_at_any_cut_and_hidden_names_are_seen() -> None:
    client = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing, server_hostname="Some.Host.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    whole = outgoing.read()
    assert [hello.read(whole[:cut]) for cut in range(len(whole))] == [None] * len(whole)
    assert hello.read(whole + b"more") == hello.Hello(server="some.host.test", encrypted=False)
    message = whole[5:]
    fragments = b"".join(
        b"\x16\x03\x01" + len(message[at : at + 7]).to_bytes(2, "big") + message[at : at + 7] for at in range(0, len(message), 7)
    )
    assert hello.read(fragments) == hello.Hello(server="some.host.test", encrypted=False)
    hidden = bytearray(message)
    hidden += b"\xfe\x0d\x00\x01\x00"
    at = 4 + 2 + 32
    at += 1 + hidden[at]
    at += 2 + int.from_bytes(hidden[at : at + 2], "big")
    at += 1 + hidden[at]
    hidden[at : at + 2] = (int.from_bytes(hidden[at : at + 2], "big") + 5).to_bytes(2, "big")
    hidden[1:4] = (len(hidden) - 4).to_bytes(3, "big")
    assert hello.read(b"\x16\x03\x01" + len(hidden).to_bytes(2, "big") + bytes(hidden)) == hello.Hello(
        server="some.host.test", encrypted=True
    )


async def test_private_addresses_need_a_rule_that_names_them(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello"))
    get = f"GET http://inner.test:{port}/ HTTP/1.1\r\nHost: inner.test:{port}\r\nConnection: close\r\n\r\n".encode()
    one = await door(Rule(hosts=("inner.test",), ports=(port,)))
    assert b"127.0.0.1 is no public address, and no rule's cidrs hold it" in await one.say(get)
    two = await door(Rule(hosts=("inner.test",), ports=(port,), cidrs=("10.0.0.0/8",)))
    assert b" 403 " in await two.say(get)
    three = await door(Rule(cidrs=("127.0.0.1/32",), ports=(port,)))
    assert (await three.say(get)).endswith(b"hello")
