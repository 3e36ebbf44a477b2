"""Interrupting an investigation: what is kept, who is woken, and what is refused."""

from __future__ import annotations

import httpx
import pytest

from agent.core.investigation import Case, Status, Trigger
from tests.server.desk import Desk
from tests.server.test_api import AT


async def _begun(service: Desk, status: Status = Status.RUNNING) -> str:
    case = Case(trigger=Trigger(kind="api", key="k", at=AT, title="Slow"))
    investigation, _ = await service.store.accept(None, case, enqueue=lambda transaction, id: None)
    assert investigation is not None
    await service.store.take(investigation.id, "worker")
    await service.store.set_status(investigation.id, status, lease=1)
    return investigation.id


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PARKED, Status.WAITING, Status.QUEUED])
async def test_an_interruption_is_kept_once_and_wakes(service: Desk, client: httpx.AsyncClient, status: Status) -> None:
    id = await _begun(service, status)
    body = {"text": "Look at the cache.", "author": "ada", "key": "1"}
    for new in (True, False):
        answer = await client.post(f"/v1/investigations/{id}/interrupt", json=body)
        assert (answer.status_code, answer.json()) == (202, {"investigation": id, "new": new})
    (post,) = await service.store.messages(id)
    assert (post.kind, post.author, post.text) == ("interrupt", "ada", "Look at the cache.")
    assert service.engine.woken == [id, id]
    assert await service.store.interrupts([id, "inv-unknown"]) == {id: (1, "ada")}


async def test_nothing_has_to_be_said(service: Desk, client: httpx.AsyncClient) -> None:
    id = await _begun(service)
    assert (await client.post(f"/v1/investigations/{id}/interrupt")).status_code == 202
    assert [post.text for post in await service.store.messages(id)] == [""]


async def test_what_is_over_cannot_be_interrupted(service: Desk, client: httpx.AsyncClient) -> None:
    id = await _begun(service, Status.DONE)
    answer = await client.post(f"/v1/investigations/{id}/interrupt", json={"text": "stop"})
    assert answer.status_code == 409 and "nothing to interrupt" in answer.json()["error"]
    assert (await client.post("/v1/investigations/inv-none/interrupt", json={})).status_code == 404
    wrong = await client.post(f"/v1/investigations/{id}/interrupt", json={"txt": "stop"})
    assert wrong.status_code == 422 and "did you mean 'text'" in wrong.text
    assert await service.store.messages(id) == [] and service.engine.woken == []
