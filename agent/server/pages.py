"""The pages for people: the list of investigations, one of them live, and the door. Templates escape everything: nothing that
comes from an alert, a log or a model is ever markup here.
"""

import asyncio
import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import format_sse_event
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent.core.errors import BadInput
from agent.core.investigation import Investigation
from agent.core.journal import Entry
from agent.markdown import VERDICTS, place
from agent.server import api, events, requests, timeline, views
from agent.server.auth import COOKIE, SESSION_SECONDS, Refused
from agent.server.intake import NOTHING
from agent.server.needs import Delivery, Store
from agent.server.service import Enter, Here

TEMPLATES = Path(__file__).parent / "templates"
PAGE = 50
INBOX = 200
PROBLEMS = 20
PROBLEM_DAYS = 7
FORM_LIMIT = 64 * 1024
SHOWN_ENTRIES = 2000


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "time": lambda value: value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "clock": lambda value: value.astimezone(UTC).strftime("%H:%M:%S"),
        "rfc3339": lambda value: value.astimezone(UTC).isoformat(),
        "ago": _ago,
        "web": lambda value: value if re.match(r"https?://[^\s]", str(value)) else "",
        "cut": timeline.cut,
        "words": lambda value: str(value).replace("_", " "),
        "verdict": lambda value: VERDICTS[value],
        "place": place,
        "percent": lambda value: f"{value:.0%}",
        "kilobytes": lambda value: f"{value} B" if value < 1024 else f"{value / 1024:.0f} kB",
    }
    return environment


def is_page(request: Request) -> bool:
    """Whether a person's browser asks for a page."""
    path = request.url.path
    return (path == "/" or path.startswith(("/investigations", "/login"))) and not path.endswith("/live")


def error(request: Request, status: int, problem: str, hint: str) -> HTMLResponse:
    """A page that says what went wrong."""
    return _html("error.html", status, problem=problem, hint=hint, code=status)


def login_address(request: Request) -> str:
    """The login page, which leads back here."""
    return f"/login?{urlencode({'next': request.url.path})}"


def _html(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(ENVIRONMENT.get_template(template).render(**values), status)


def _ago(value: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - value).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


ENVIRONMENT = _environment()


router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
async def start(request: Request, here: Here, caller: Enter, before: str | None = None) -> Response:
    found, rows = await asyncio.gather(here.store.investigations(limit=PAGE + 1, before=before), here.store.inbox(INBOX))
    page = found[:PAGE]
    listed = list(zip(page, await api.verdicts(here.store, page), strict=True))
    return _html(
        "index.html",
        listed=listed,
        next=page[-1].id if len(found) > PAGE else None,
        before=before,
        problems=[row for row in rows if _is_problem(row)][:PROBLEMS],
        waiting=sum(row.state == "received" for row in rows),
        address=api.base(request),
        guarded=here.guard.asks,
    )


@router.get("/investigations")
async def listing(caller: Enter) -> Response:
    return RedirectResponse("/", 303)


@router.get("/investigations/{id}")
async def investigation(id: str, request: Request, here: Here, caller: Enter) -> Response:
    found = await here.store.investigation(api.checked(id))
    entries = await (await here.store.journal(id)).entries(limit=SHOWN_ENTRIES)
    return _html("investigation.html", guarded=here.guard.asks, **await _shown(here.store, found, entries))


@router.get("/investigations/{id}/live")
async def live(id: str, request: Request, here: Here, caller: Enter, after: int = 0) -> Response:
    """Events for the page: each item of the timeline as the markup that the page itself would have had for it."""
    await here.store.investigation(api.checked(id))
    return here.streams.respond(id, events.place(request.headers, after), _live)


@router.post("/investigations/{id}/messages")
async def message(id: str, request: Request, here: Here, caller: Enter) -> Response:
    said = requests.fit(views.Say, await _form(request))
    await here.store.send(api.checked(id), said.text, author=said.author or caller.name, key=f"message:{uuid.uuid4()}")
    await here.engine.wake(id)
    return RedirectResponse(f"/investigations/{id}#messages", 303)


@router.post("/investigations/{id}/proposals/{number}/decision")
async def decision(id: str, number: int, request: Request, here: Here, caller: Enter) -> Response:
    decided = requests.fit(views.Decide, await _form(request))
    await api.decide(here.store, here.engine, api.checked(id), number, decided, decided.author or caller.name)
    return RedirectResponse(f"/investigations/{id}#proposals", 303)


@router.get("/login")
async def door(request: Request, here: Here) -> Response:
    if not here.guard.asks:
        return RedirectResponse("/", 303)
    return _html("login.html", next=_inside(request.query_params.get("next", "/")), problem="", guarded=False)


@router.post("/login")
async def enter(request: Request, here: Here) -> Response:
    given = await _form(request)
    next = _inside(given.get("next", "/"))
    session = here.guard.session(given.get("token", ""))
    if session is None:
        return _html("login.html", 401, next=next, problem="This token is not valid.", guarded=False)
    response = RedirectResponse(next, 303)
    secure = request.url.scheme == "https" or api.base(request).startswith("https:")
    response.set_cookie(COOKIE, session, max_age=SESSION_SECONDS, httponly=True, samesite="lax", secure=secure)
    return response


@router.post("/logout")
async def leave() -> Response:
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE)
    return response


async def _shown(store: Store, found: Investigation, entries: list[Entry]) -> dict[str, Any]:
    """What the page of an investigation shows."""
    report, posts = await asyncio.gather(store.report(found.id), store.messages(found.id))
    decisions = {post.data.get("proposal"): post for post in posts if post.kind == "decision"}
    return {
        "found": found,
        "trigger": found.case.trigger,
        "report": report,
        "posts": posts,
        "decisions": decisions,
        "brief": next((str(entry.data.get("text", "")) for entry in entries if entry.kind == "brief"), ""),
        "items": [item for entry in entries for item in timeline.item(entry)],
        "last": entries[-1].seq if entries else 0,
        "is_open": found.status not in events.CLOSED,
        "cut_off": len(entries) >= SHOWN_ENTRIES,
    }


def _live(event: events.Event) -> bytes:
    if event.name == "beat":
        return format_sse_event(comment="still here")
    if event.entry is None:
        return format_sse_event(event=event.name, data_str=json.dumps(event.data))
    seq = str(event.entry.seq)
    if event.entry.kind in ("brief", "report"):
        return format_sse_event(event="reload", data_str=event.entry.kind, id=seq)
    markup = ENVIRONMENT.get_template("_items.html").render(items=timeline.item(event.entry))
    return format_sse_event(event="items", data_str=markup, id=seq)


def _is_problem(row: Delivery) -> bool:
    fresh = datetime.now(UTC) - row.received_at < timedelta(days=PROBLEM_DAYS)
    return fresh and row.state == "rejected" and not row.problem.startswith(NOTHING)


def _inside(address: str) -> str:
    """A path of this service; the start page for anything that leads elsewhere."""
    return quote(address) if re.fullmatch(r"/(?![/\\])[A-Za-z0-9/_.-]*", address) else "/"


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises BadInput."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise BadInput("this is no form", "Use the page, or the API under /v1.")
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refused("the form was sent by another site", "Use this service's own pages.", 403)
    content = await requests.body(request, FORM_LIMIT)
    return {name: values[-1] for name, values in parse_qs(content.decode("utf-8", "replace")).items()}
