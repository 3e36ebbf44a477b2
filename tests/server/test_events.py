"""Event streams and slow clients, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.core.investigation import Status
from agent.server import events, requests, serving
from agent.store import SqlJournal
from tests.server.desk import AUTHORIZED, TOKEN, Desk, desk


async def eventually(holds: Callable[[], Awaitable[object]]) -> None:
    """Waits until something outside says that it is so: uvicorn and sockets have no event for it."""
    async with asyncio.timeout(5):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def _resolved(value: object) -> object:
    return value


@contextlib.asynccontextmanager
async def listening(service: Desk) -> AsyncIterator[serving.Server]:
    """The application on a port of this machine."""
    server = serving.server(service.app, host="127.0.0.1", port=0)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: _resolved(server.started))
        yield server
    finally:
        server.should_exit = True
        async with asyncio.timeout(5):
            await task


def reach(server: serving.Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=AUTHORIZED, timeout=5)


async def begin(service: Desk, client: httpx.AsyncClient) -> tuple[str, SqlJournal]:
    id = str((await client.post("/v1/investigations", json={"title": "Why?"})).json()["id"])
    return id, await service.store.take(id, "test")


async def parse(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    """Events as a browser would give them; a comment as {"comment": ...}."""
    event: dict[str, str] = {}
    async for line in lines:
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value
        elif event:
            yield event
            event = {}


@contextlib.asynccontextmanager
async def following(client: httpx.AsyncClient, id: str, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    async with client.stream("GET", f"/v1/investigations/{id}/events", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield parse(answer.aiter_lines())


async def until(heard: AsyncIterator[dict[str, str]], name: str) -> list[dict[str, str]]:
    """Events up to the first of this name, without comments and settings."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(5):
        async for event in heard:
            if "event" in event:
                found.append(event)
            if event.get("event") == name:
                return found
    return found


async def closed(service: Desk) -> None:
    """Waits until no stream is open."""
    await eventually(lambda: _resolved(service.app.state.service.streams.open == 0))


async def test_a_stream_tells_the_journal_as_it_grows_and_ends_with_it(service: Desk) -> None:
    async with listening(service) as server, reach(server) as client:
        id, journal = await begin(service, client)
        await journal.append("brief", {"text": "two\nlines"})
        async with following(client, id) as heard:
            first = await until(heard, "brief")
            await journal.append("finding", {"claim": "x"})
            second = await until(heard, "finding")
            await service.store.set_status(id, Status.DONE, lease=journal.lease)
            last = await until(heard, "end")
    assert [(event["event"], event.get("id")) for event in first] == [("state", None), ("brief", "1")]
    entry = json.loads(first[1]["data"])
    assert (entry["seq"], entry["kind"], entry["data"]) == (1, "brief", {"text": "two\nlines"})
    assert [(event["event"], event["id"]) for event in second] == [("finding", "2")]
    assert [event["event"] for event in last] == ["state", "end"]
    assert json.loads(last[-1]["data"]) == {"status": "done", "why": ""}
    await closed(service)


@pytest.mark.slow
async def test_a_client_that_comes_back_hears_everything_once_also_from_another_process(tmp_path: Path) -> None:
    heard_ids: list[str] = []
    async with desk(tmp_path) as service:
        async with listening(service) as server, reach(server) as client:
            id, journal = await begin(service, client)
            for n in range(5):
                await journal.append("note", {"n": n})
            async with asyncio.timeout(5), following(client, id) as heard:
                async for event in heard:
                    if event.get("event") == "note":
                        heard_ids.append(event["id"])
                    if len(heard_ids) == 3:
                        break
    async with desk(tmp_path) as service, listening(service) as server, reach(server) as client:
        journal = await service.store.take(id, "test")
        await journal.append("note", {"n": 5})
        await service.store.set_status(id, Status.DONE, lease=journal.lease)
        async with following(client, id, **{"Last-Event-ID": heard_ids[-1]}) as heard:
            heard_ids += [event["id"] for event in await until(heard, "end") if event["event"] == "note"]
    assert heard_ids == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.slow
async def test_many_clients_hear_the_same(service: Desk) -> None:
    async with listening(service) as server, reach(server) as client:
        id, journal = await begin(service, client)

        async def listen() -> list[str]:
            async with following(client, id) as heard:
                return [event["id"] for event in await until(heard, "end") if event["event"] == "note"]

        tasks = [asyncio.create_task(listen()) for _ in range(10)]
        for n in range(30):
            await journal.append("note", {"n": n})
        await service.store.set_status(id, Status.DONE, lease=journal.lease)
        assert await asyncio.gather(*tasks) == [[str(n) for n in range(1, 31)]] * 10
    await closed(service)


@pytest.mark.slow
async def test_a_silent_stream_shows_that_it_lives(service: Desk) -> None:
    async with listening(service) as server, reach(server) as client:
        id, _ = await begin(service, client)
        async with asyncio.timeout(5), following(client, id) as heard:
            async for event in heard:
                if event == {"comment": "still here"}:
                    break


async def test_a_client_that_vanishes_leaves_nothing_behind(service: Desk) -> None:
    before = len(asyncio.all_tasks())
    async with listening(service) as server:
        async with reach(server) as client:
            id, _ = await begin(service, client)
            for _ in range(3):
                async with following(client, id) as heard:
                    await anext(heard)
        await closed(service)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.slow
async def test_a_client_that_takes_nothing_is_let_go_and_holds_up_nobody(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STALLED_SECONDS", 0.5)
    async with listening(service) as server, reach(server) as client:
        id, journal = await begin(service, client)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(f"GET /v1/investigations/{id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        for _ in range(20):
            await journal.append("result", {"content": "x" * 1_000_000})
        async with following(client, id) as heard:
            assert len(await until(heard, "result")) == 2
        await closed(service)
        writer.transport.abort()


async def test_a_stop_does_not_wait_for_streams(service: Desk) -> None:
    async with listening(service) as server, reach(server) as client:
        id, _ = await begin(service, client)
        async with following(client, id) as heard:
            await until(heard, "state")
            server.should_exit = True
            async with asyncio.timeout(3):
                assert [event async for event in heard if "event" in event] == []


async def test_streams_are_limited_in_number(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 1)
    async with listening(service) as server, reach(server) as client:
        id, _ = await begin(service, client)
        async with following(client, id) as heard:
            await until(heard, "state")
            answer = await client.get(f"/v1/investigations/{id}/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "٣"])
async def test_a_place_that_makes_no_sense(service: Desk, client: httpx.AsyncClient, last: str) -> None:
    id, _ = await begin(service, client)
    answer = await client.get(f"/v1/investigations/{id}/events", headers=[(b"last-event-id", last.encode())])
    assert (answer.status_code, answer.json()["error"].startswith("Last-Event-ID is ")) == (400, True)


async def raw(server: serving.Server, *parts: bytes, seconds: float = 5.0) -> bytes:
    """What the server answers to bytes on a socket until it closes, or within some seconds if it answers at all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = b""
    try:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(seconds):
                while piece := await reader.read(65536):
                    answer += piece
    except TimeoutError:
        assert answer, "neither an answer nor an end"
    finally:
        writer.transport.abort()
    return answer


@pytest.mark.slow
async def test_a_client_that_dawdles_over_its_headers_is_let_go(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.Impatient, "header_seconds", 0.4)
    async with listening(service) as server, reach(server) as client:
        dawdlers = [asyncio.create_task(raw(server, b"POST /v1/alerts/generic HTTP/1.1\r\nHost: x\r\nX-")) for _ in range(20)]
        silent = asyncio.create_task(raw(server))
        patient = asyncio.create_task(raw(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /healthz HTTP/1.1\r\n"))
        assert (await client.post("/v1/alerts/generic", content=b'{"title": "x"}')).status_code == 202
        assert await asyncio.gather(*dawdlers, silent) == [b""] * 21
        assert (await patient).count(b"200 OK") == 1
        id, _ = await begin(service, client)
        async with following(client, id) as heard:  # a stream may be open for long
            for _ in range(10):
                await anext(heard)


async def test_a_body_that_dawdles_or_breaks_off_is_not_waited_for(service: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.2)
    head = f"POST /v1/alerts/generic HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    async with listening(service) as server:
        slow = await raw(server, f'{head}Content-Length: 100\r\n\r\n{{"title'.encode())
        assert slow.startswith(b"HTTP/1.1 408 ") and b"7 bytes came" in slow
    assert await service.store.inbox() == []


async def test_a_chunked_body_without_end_is_cut_off_at_the_limit(service: Desk) -> None:
    head = f"POST /v1/alerts/generic HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with listening(service) as server:
        answer = await raw(server, head.encode(), *[chunk] * 17)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
    assert [(row.state, row.size) for row in await service.store.inbox()] == [("rejected", 1 << 20)]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/alerts/generic HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/alerts/generic HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
@pytest.mark.slow
async def test_what_is_no_http_harms_nobody(service: Desk, request_bytes: bytes) -> None:
    async with listening(service) as server, reach(server) as client:
        answer = await raw(server, request_bytes, seconds=0.3)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 303", b"HTTP/1.1 404"))
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.slow
async def test_a_crash_between_keeping_and_placing_is_made_good_by_the_next_process(tmp_path: Path) -> None:
    async with desk(tmp_path) as service:

        async def never(*_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

        service.store.accept = never  # type: ignore[method-assign]
        async with listening(service) as server, reach(server) as client:
            sending = asyncio.create_task(client.post("/v1/alerts/generic", content=b'{"title": "x"}'))
            await eventually(service.store.unprocessed)
            sending.cancel()
            for task in list(service.app.state.service.intake._tasks):
                task.cancel()
    async with desk(tmp_path) as service, listening(service):
        await eventually(service.all)
        (found,) = await service.all()
        assert found.case.trigger.title == "x"
        assert [row.state for row in await service.store.inbox()] == ["accepted"]
