"""The pages: what people see, and that nothing hostile in it does anything."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from agent.core.investigation import Status
from agent.core.journal import Entry
from agent.core.message import Message, Opaque, Reply, Text, ToolCall, ToolResult, Usage, user
from agent.core.report import (
    Action,
    Cause,
    Check,
    CodeSource,
    CommandSource,
    Evidence,
    Moment,
    ProposalRecord,
    QuerySource,
    Report,
    ReportUsage,
    RuledOut,
    Side,
    Suspect,
    TelemetrySource,
    TestRun,
)
from agent.server import events, pages, timeline
from agent.store import SqlJournal
from tests.server.desk import Desk, payload

AT = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
EVIL = "</pre></textarea><script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover='x {{ 7*7 }} javascript:alert(3)"


class Markup(HTMLParser):
    """What in a page could do something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: set[str] = set()
        self.addresses: set[str] = set()
        self.scripts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on") or name == "style"}
        self.addresses |= {value or "" for name, value in attrs if name in ("href", "src", "action")}
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))


def dangers(text: str) -> Markup:
    markup = Markup()
    markup.feed(text)
    return markup


def assert_harmless(text: str) -> None:
    found = dangers(text)
    assert found.handlers == set()
    assert set(found.scripts) <= {"/static/page.js"}
    assert "img" not in found.tags and "iframe" not in found.tags
    assert all(address.startswith(("/", "https://", "http://", "#")) for address in found.addresses), found.addresses
    assert "{{ 7*7 }}" in text, "the hostile text should be there to read"


def evil_report(id: str) -> Report:
    run = TestRun(command=EVIL, passed=1, failed=2, exit_code=1, output=EVIL)
    sources = (
        CodeSource(repo=EVIL, commit=EVIL, path=EVIL, start_line=1),
        TelemetrySource(path=EVIL),
        QuerySource(connector=EVIL, query=EVIL, start=AT, end=AT, link=EVIL),
        CommandSource(command=EVIL),
    )
    return Report(
        verdict="likely",
        summary=EVIL,
        investigation=id,
        title=EVIL,
        at=AT,
        written_at=AT,
        downgraded=EVIL,
        causes=(
            Cause(
                statement=EVIL, mechanism=EVIL, category="code", service=EVIL, repo=EVIL, commit=EVIL, files=(EVIL,), confidence=1
            ),
        ),
        suspects=(Suspect(repo=EVIL, commit=EVIL, score=0.5, why=EVIL),),
        evidence=tuple(Evidence(claim=EVIL, supports="symptom", source=one, quote=EVIL, problem=EVIL) for one in sources),
        checks=(Check(claim=EVIL, command=EVIL, with_=Side(label=EVIL), without=Side(ref=EVIL), outcome=EVIL),),
        ruled_out=(RuledOut(what=EVIL, why=EVIL),),
        impact=EVIL,
        timeline=(Moment(at=AT, what=EVIL),),
        actions=(Action(kind="rollback", what=EVIL, command=EVIL, risk=EVIL, owner=EVIL),),
        proposals=(
            ProposalRecord(
                repo=EVIL,
                title=EVIL,
                branch=EVIL,
                tests_before=run,
                tests_after=run,
                url=EVIL,
                status="awaiting_approval",
                why=EVIL,
            ),
        ),
        brief=EVIL,
        notes=(EVIL,),
        usage=ReportUsage(model=EVIL, usd=0.1),
    )


EVIL_ENTRIES: list[tuple[str, dict[str, Any]]] = [
    ("desk", {"repositories": [{"name": EVIL}], "notes": [EVIL]}),
    ("brief", {"text": EVIL}),
    ("head", {"epoch": 1, "head": {}, "messages": [user(EVIL).model_dump()]}),
    ("head", {"epoch": 2, "head": {}, "messages": []}),
    ("message", {"message": user(EVIL).model_dump(), "by": "inbox", "key": ""}),
    ("message", {"message": user(EVIL).model_dump(), "by": EVIL, "key": ""}),
    (
        "reply",
        Reply(
            message=Message(
                role="assistant",
                blocks=(
                    Text(text=EVIL),
                    Opaque(provider="p", data={}),
                    ToolCall(id="1", name=EVIL, arguments={EVIL: EVIL, "n": 1}),
                    ToolCall(id="2", name="bash", malformed=EVIL),
                ),
            ),
            usage=Usage(),
            stop="tools",
            model="m",
        ).model_dump(),
    ),
    ("result", {"result": ToolResult(call_id="1", content=f"{EVIL}\n{EVIL}", is_error=True).model_dump(), "finish": None}),
    ("finding", {"claim": EVIL, "source": EVIL, "quote": EVIL, "hypothesis": EVIL}),
    ("query", {"connector": EVIL, "query": EVIL, "start": EVIL, "end": EVIL, "link": EVIL, "blob": "", "path": EVIL}),
    ("question", {"question": EVIL}),
    ("handover", {"why": EVIL}),
    ("proposal", {"title": EVIL, "repo": EVIL}),
    ("error", {"problem": EVIL, "hint": EVIL}),
    ("report", {"report": {}}),
    ("judged", {"conclusion": {}, "downgraded": EVIL}),
    (EVIL, {EVIL: EVIL}),
]


async def begin_evil(service: Desk, client: httpx.AsyncClient) -> tuple[str, SqlJournal]:
    """An investigation whose every text is hostile."""
    alert = {
        "title": EVIL,
        "service": EVIL,
        "severity": EVIL,
        "description": EVIL,
        "labels": {EVIL: EVIL},
        "annotations": {EVIL: EVIL},
    }
    alert |= {"links": [EVIL, "javascript:alert(1)", f"https://ok.example.com/{EVIL}"], "id": EVIL}
    answer = await client.post("/v1/alerts/generic", json=alert)
    id = str(answer.json()["investigations"][0]["id"])
    await client.post(f"/v1/investigations/{id}/messages", json={"text": EVIL, "author": EVIL[:100]})
    journal = await service.store.take(id, "test")
    for kind, data in EVIL_ENTRIES:
        await journal.append(kind, data)
    return id, journal


async def test_hostile_text_is_read_and_does_nothing(service: Desk, client: httpx.AsyncClient) -> None:
    await client.post("/v1/alerts/generic", content=f'{{"x": {EVIL}'.encode())
    id, journal = await begin_evil(service, client)
    before = await client.get(f"/investigations/{id}")
    await service.store.save_report(id, evil_report(id), lease=journal.lease)
    await service.store.set_status(id, Status.FAILED, EVIL, lease=journal.lease)
    after = await client.get(f"/investigations/{id}")
    for answer in (before, after, await client.get("/")):
        assert answer.status_code == 200
        assert_harmless(answer.text)
    assert_harmless((await client.get(f"/investigations/{id}")).text)


@pytest.mark.parametrize(("kind", "data"), EVIL_ENTRIES, ids=lambda value: value[:12] if isinstance(value, str) else "")
def test_hostile_text_in_a_live_event_does_nothing(kind: str, data: dict[str, Any]) -> None:
    content = pages._live(events.Event(name="entry", entry=Entry(seq=7, kind=kind, at=AT, data=data))).decode()
    markup = "\n".join(line.removeprefix("data: ") for line in content.split("\n") if line.startswith("data: "))
    found = dangers(markup)
    assert (found.handlers, found.scripts) == (set(), [])
    assert found.tags <= {"li", "time", "span", "div", "details", "summary", "pre", "a"}
    assert content.count("\nid: 7") == 1 and content.endswith("\n\n")
    assert [line for line in content.split("\n") if line and not line.startswith(("data: ", "event: ", "id: "))] == []


@pytest.mark.parametrize("path", ["/", "/login", "/investigations/none", "/v1/investigations", "/static/page.js", "/healthz"])
async def test_every_answer_forbids_a_browser_to_do_what_it_should_not(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert (headers.get("cache-control") == "no-store") == (not path.startswith("/static"))


async def test_nothing_is_fetched_from_elsewhere(client: httpx.AsyncClient) -> None:
    for path in ("/", "/login"):
        assert "http" not in " ".join(dangers((await client.get(path)).text).addresses)
    for file in ("page.css", "page.js", "icon.svg"):
        answer = await client.get(f"/static/{file}")
        assert answer.status_code == 200
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")


async def test_an_empty_desk_says_how_to_begin(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    assert "No alert has come yet." in page
    assert "http://127.0.0.1:8484/v1/alerts/alertmanager" in page
    assert "Authorization: Bearer $TOKEN" in page


async def test_the_start_page_lists_investigations_and_what_could_not_be_used(service: Desk, client: httpx.AsyncClient) -> None:
    await client.post("/v1/alerts/alertmanager", content=payload("alertmanager_grouped_firing.json"))
    await client.post("/v1/alerts/alertmanager", content=payload("alertmanager_firing.json")[:500])
    await client.post("/v1/alerts/pagerduty", content=payload("pagerduty_v3_service_updated.json"))
    page = (await client.get("/")).text
    assert "High 5xx ratio on checkout" in page and "2 alerts" in page and "queued" in page
    assert "<b>1</b> delivery could not be used" in page
    assert "the JSON ends in the middle, at 500 bytes" in page
    assert "nothing to investigate" not in page


async def test_older_investigations_are_on_the_next_page(service: Desk, client: httpx.AsyncClient) -> None:
    for n in range(pages.PAGE + 3):
        await client.post("/v1/investigations", json={"title": f"Question {n}"})
    first = await client.get("/")
    (older,) = [address for address in dangers(first.text).addresses if address.startswith("/?before=")]
    second = await client.get(older)
    assert (first.text.count("Question "), second.text.count("Question ")) == (pages.PAGE, 3)


async def test_an_investigation_is_followed_until_its_end(service: Desk, client: httpx.AsyncClient) -> None:
    id = str((await client.post("/v1/investigations", json={"title": "Why?", "request": "Please look."})).json()["id"])
    waiting = (await client.get(f"/investigations/{id}")).text
    assert f'data-live="/investigations/{id}/live?after=0"' in waiting
    assert "Nothing yet: it waits for a free worker." in waiting and "Please look." in waiting
    journal = await service.store.take(id, "test")
    await journal.append("brief", {"text": "web was deployed at 09:58"})
    await journal.append("finding", {"claim": "It fails since 09:58.", "source": "telemetry/logs/web.log:7"})
    running = (await client.get(f"/investigations/{id}")).text
    assert f'data-live="/investigations/{id}/live?after=2"' in running
    assert "web was deployed at 09:58" in running and "It fails since 09:58." in running
    report = Report(verdict="root_cause_found", summary="It was 4f2a91c.", investigation=id, title="Why?", at=AT, written_at=AT)
    await service.store.save_report(id, report, lease=journal.lease)
    await service.store.set_status(id, Status.DONE, lease=journal.lease)
    done = (await client.get(f"/investigations/{id}")).text
    assert "data-live" not in done
    assert "Root cause found" in done and "It was 4f2a91c." in done
    live = await client.get(f"/investigations/{id}/live", params={"after": 1})
    assert [line for line in live.text.split("\n") if line.startswith("event: ")] == [
        "event: state",
        "event: items",
        "event: end",
    ]


async def test_a_message_and_a_decision_from_the_page(service: Desk, client: httpx.AsyncClient) -> None:
    id, journal = await begin_evil(service, client)
    await service.store.save_report(id, evil_report(id), lease=journal.lease)
    assert "Approve</button>" in (await client.get(f"/investigations/{id}")).text
    said = await client.post(f"/investigations/{id}/messages", data={"text": "look at the cache"})
    decided = await client.post(f"/investigations/{id}/proposals/1/decision", data={"decision": "reject"})
    assert (said.status_code, decided.status_code) == (303, 303)
    assert [post.kind for post in await service.store.messages(id)] == ["message", "message", "decision"]
    page = (await client.get(f"/investigations/{id}")).text
    assert "look at the cache" in page and "Approve</button>" not in page and "Rejected: proposal 1" in page
    again = await client.post(f"/investigations/{id}/proposals/1/decision", data={"decision": "approve"})
    assert (again.status_code, "was decided already" in again.text) == (409, True)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"json": {"text": "x"}}, 400),
        ({"data": {"txt": "x"}}, 422),
        ({"data": {"text": ""}}, 422),
        ({"data": {"text": "x" * 70_000}}, 413),
        ({"data": {"text": "x"}, "headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
    ],
)
async def test_a_form_that_is_none_of_ours(service: Desk, client: httpx.AsyncClient, given: dict[str, Any], status: int) -> None:
    id = str((await client.post("/v1/investigations", json={"title": "Why?"})).json()["id"])
    answer = await client.post(f"/investigations/{id}/messages", **given)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert await service.store.messages(id) == []


def test_long_texts_are_cut_in_the_middle_and_say_so() -> None:
    content = "\n".join(f"line {n}" for n in range(100_000))
    (item,) = timeline.item(
        Entry(
            seq=1, kind="result", at=AT, data={"result": {"call_id": "1", "content": content, "is_error": False}, "finish": None}
        )
    )
    assert item.title == "line 0  · 100000 lines"
    assert len(item.more) < timeline.SHOWN + 100
    assert item.more.startswith("line 0\n") and item.more.endswith("line 99999") and "characters more in the API" in item.more


@pytest.mark.parametrize("data", [{}, {"message": {}}, {"result": {}}, {"report": None}])
@pytest.mark.parametrize("kind", [*timeline.SHOW, "unknown"])
def test_an_entry_without_what_it_should_have_is_shown_as_far_as_it_goes(kind: str, data: dict[str, Any]) -> None:
    json.dumps([item.model_dump(mode="json") for item in timeline.item(Entry(seq=1, kind=kind, at=AT, data=data))])
