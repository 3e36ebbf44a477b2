"""Plain requests at the door: what passes, what does not, and what the audit says of it."""

from __future__ import annotations

from agent.core.egress import EgressLimits, Rule
from tests.egress.conftest import MakeDoor, rule
from tests.egress.world import World, echoes, says


async def test_a_request_that_a_rule_allows_passes_and_is_written_down(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello", b"X-Other: y"))
    one = await door(rule("files.test", ports=[port], name="files"))
    said = await one.say(
        b"GET http://files.test:%d/a/b?token=x HTTP/1.1\r\nHost: files.test:%d\r\nConnection: close\r\n\r\n" % (port, port)
    )
    assert said == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Other: y\r\nConnection: close\r\n\r\nhello"
    assert world.heads == [b"GET /a/b?token=x HTTP/1.1\r\nHost: files.test:%d\r\n\r\n" % port]
    assert one.brief() == [
        ("allowed", "GET", "files.test", "/a/b?", "1 files"),
        ("done", "GET", "files.test", "/a/b?", "1 files"),
    ]
    last = one.audit()[-1]
    assert (last["status"], last["address"], last["sandbox"], last["request"]) == (200, "127.0.0.1", "box-0", 1)
    assert last["sent"] > 50 and last["received"] > 50


async def test_without_a_rule_nothing_passes_and_no_name_is_resolved(world: World, door: MakeDoor) -> None:
    one = await door(rule("other.test"))
    said = await one.say(b"GET http://secret-data.attacker.test/ HTTP/1.1\r\nHost: secret-data.attacker.test\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 no rule allows it\r\n")
    assert b"egress to secret-data.attacker.test:80 denied: no rule allows it\n" in said
    assert b"sre-agent sandbox egress box-0 --allow secret-data.attacker.test:80" in said
    assert (world.asked, one.brief()) == ([], [("denied", "GET", "secret-data.attacker.test", "/", "")])


async def test_the_first_rule_that_matches_decides(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"hello"))
    one = await door(
        rule("*.example.test", ports=[port], methods=("GET",), paths=("/open/*",)),
        Rule(action="deny", hosts=("secret.example.test",), ports=(port,), name="no secrets"),
        rule("*", ports=[port]),
    )

    async def status(method: str, host: str, path: str) -> bytes:
        said = await one.say(
            f"{method} http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        return said[9:12]

    assert await status("GET", "secret.example.test", "/open/a") == b"200"
    assert await status("GET", "secret.example.test", "/closed") == b"403"
    assert await status("HEAD", "secret.example.test", "/open/a") == b"403"
    assert await status("GET", "elsewhere.test", "/closed") == b"200"
    assert [line[4] for line in one.brief() if line[0] in ("done", "denied")] == ["1", "", "", "3"]


async def test_one_connection_carries_many_requests_each_decided_anew(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"ok"))
    one = await door(rule("a.test", "b.test", ports=[port], paths=("/yes*",)))
    get = "GET http://{}:{}{} HTTP/1.1\r\nHost: {}:{}\r\n\r\n"
    requests = [
        get.format(host, port, path, host, port).encode()
        for host, path in (("a.test", "/yes1"), ("a.test", "/yes2"), ("b.test", "/yes3"), ("a.test", "/no"))
    ]
    said = await one.say(b"".join(requests))
    assert [said.count(b"HTTP/1.1 200 OK"), said.count(b"HTTP/1.1 403")] == [3, 1]
    assert [head.split()[1] for head in world.heads] == [b"/yes1", b"/yes2", b"/yes3"]


async def test_bodies_pass_both_ways_with_a_length_and_in_chunks(world: World, door: MakeDoor) -> None:
    port = await world.serve(echoes)
    one = await door(rule("a.test", ports=[port]))
    head = b"POST http://a.test:%d/ HTTP/1.1\r\nHost: a.test:%d\r\nConnection: close\r\n" % (port, port)
    assert b"200 OK" in await one.say(head + b"Content-Length: 0\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in await one.say(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_a_server_that_is_not_there_is_a_502_with_the_reason(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b""))
    await world.close()
    world.names["nowhere.test"] = []
    one = await door(rule("a.test", "nowhere.test", ports=[port]))
    said = await one.say(b"GET http://a.test:%d/ HTTP/1.1\r\nHost: a.test:%d\r\n\r\n" % (port, port))
    assert said.startswith(b"HTTP/1.1 502 ") and b"cannot be reached: 127.0.0.1" in said
    said = await one.say(b"GET http://nowhere.test:%d/ HTTP/1.1\r\nHost: nowhere.test:%d\r\n\r\n" % (port, port))
    assert b"nowhere.test cannot be resolved" in said
    assert [line[0] for line in one.brief()] == ["allowed", "failed", "denied"]


async def test_bytes_that_are_used_up_end_it(world: World, door: MakeDoor) -> None:
    port = await world.serve(says(b"x" * 500_000))
    one = await door(rule("a.test", ports=[port]), limits=EgressLimits(bytes=200_000))
    said = await one.say(b"GET http://a.test:%d/ HTTP/1.1\r\nHost: a.test:%d\r\n\r\n" % (port, port))
    assert len(said) < 300_000
    assert "used up" in one.audit()[-1]["reason"]
