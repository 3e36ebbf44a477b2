"""The HTTP API under /v1. Every door leads to the store; nothing is investigated here."""

import asyncio
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from agent import triggers
from agent.core.errors import AgentError, BadInput, NotFound
from agent.core.investigation import Deployment, Investigation, Trigger
from agent.core.report import ProposalRecord, Report, Verdict
from agent.markdown import render
from agent.server import events, requests, views
from agent.server.needs import Engine, Store
from agent.server.service import Enter, Here
from agent.triggers import payload

MOST_RECORDS = 10_000
BRIEF_WITHIN = 20
"""The brief is one of the first entries of a journal."""


class Conflict(AgentError):
    """What is asked does not fit how things stand."""


def body_of(model: type[Any], *, or_list: bool = False) -> dict[str, Any]:
    """The OpenAPI description of a body that is read by hand, because FastAPI would read it without our limit and our errors."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    schema = {"oneOf": [reference, {"type": "array", "items": reference}]} if or_list else reference
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def base(request: Request) -> str:
    """The address of this service as its users know it, without a slash at the end."""
    return str(request.app.state.service.public_url or request.base_url).rstrip("/")


def checked(id: str) -> str:
    """An id that may be one. Raises NotFound for anything else, before it reaches a query."""
    if not re.fullmatch(r"[a-z0-9-]{1,80}", id):
        raise NotFound(f"there is no investigation {id[:80]!r}", "GET /v1/investigations lists them.")
    return id


async def brief_of(store: Store, id: str) -> str:
    """The embedded investigator's first sight; "" as long as there is none."""
    entries = await (await store.journal(id)).entries(limit=BRIEF_WITHIN)
    return next((str(entry.data.get("text", "")) for entry in entries if entry.kind == "brief"), "")


async def verdicts(store: Store, found: Sequence[Investigation]) -> list[Verdict | None]:
    """The verdict of each investigation, None where there is no report yet."""
    reports = await asyncio.gather(*(store.report(one.id) for one in found))
    return [report.verdict if report else None for report in reports]


async def decide(store: Store, engine: Engine, id: str, number: int, decision: views.Decide, author: str) -> bool:
    """Leaves a decision on a proposal (1 is the first) and has it acted on. Raises NotFound or Conflict."""
    proposal = _proposal(await store.report(id), id, number)
    if proposal.status != "awaiting_approval":
        raise Conflict(f"proposal {number} of {id} awaits no approval: it is {proposal.status.replace('_', ' ')}")
    for post in await store.messages(id):
        if post.kind == "decision" and post.data.get("proposal") == number and post.data.get("decision") != decision.decision:
            raise Conflict(f"proposal {number} of {id} was decided already: {post.data.get('decision')}, by {post.author}")
    said = {"approve": "Approved", "reject": "Rejected"}[decision.decision]
    new = await store.send(
        id,
        f"{said}: proposal {number}, {proposal.title}" + (f"\n{decision.comment}" if decision.comment else ""),
        author=author,
        key=f"decision:{number}",
        kind="decision",
        data={"proposal": number, "decision": decision.decision, "comment": decision.comment},
    )
    await engine.wake(id)
    return new


async def judge(store: Store, id: str, said: views.Judge, author: str) -> bool:
    """Keeps an engineer's verdict beside what was said to the investigation. Nobody is woken. Raises NotFound or Conflict."""
    report = await store.report(id)
    if report is None:
        raise Conflict(f"{id} has no report yet, so there is nothing to judge")
    cause = report.causes[0].statement if report.causes else "no cause"
    text = f"{'Right' if said.right else 'Wrong'}: {cause}"
    if said.cause:
        really = [said.cause.statement, f"{said.cause.repo}@{said.cause.commit}" if said.cause.commit else "", said.cause.change]
        text += f"\nReally: {' '.join(part for part in really if part) or said.cause.category}"
    text += f"\n{said.comment}" if said.comment else ""
    data = said.model_dump(mode="json", exclude={"author"})
    key = f"verdict:{uuid.uuid4()}"
    return await store.send(id, text, author=author, key=key, kind="verdict", data=data)


def _proposal(report: Report | None, id: str, number: int) -> ProposalRecord:
    proposals = report.proposals if report else ()
    if not 1 <= number <= len(proposals):
        raise NotFound(f"{id} has no proposal {number}", f"It has {len(proposals)}; the first is 1.")
    return proposals[number - 1]


webhook = APIRouter(prefix="/v1", tags=["alerts"])
"""The alerts' door, which authenticates by signature too."""

router = APIRouter(prefix="/v1", responses={code: {"model": views.Problem} for code in (401, 403, 404, 422, 503)})
"""Everything else."""


@webhook.post(
    "/alerts/{source}",
    status_code=202,
    responses={code: {"model": views.Problem} for code in (401, 403, 404, 408, 413, 503)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}},
)
async def alert(source: str, request: Request, here: Here) -> views.Received:
    """Takes an alert as its source sends it. It is on disk before it is read; 5xx only where it could not be kept."""
    caller = here.guard.sender(request, source)
    if source not in triggers.SOURCES:
        unknown = triggers.UnknownSource(source)
        raise NotFound(unknown.problem, unknown.hint)
    headers = dict(request.headers)
    try:
        content = await requests.body(request, here.body_limit)
    except requests.TooLarge as error:
        if caller is not None:
            await here.intake.flag(source, headers, error.start, str(error))
        raise
    if caller is None or here.guard.checks_signature(source, headers):
        here.guard.signed(source, headers, content)
    return views.received(await here.intake.take(source, headers, content), base(request))


@router.post("/deployments", status_code=201, tags=["deployments"], openapi_extra=body_of(views.DeploymentRecord, or_list=True))
async def deployments(request: Request, here: Here, caller: Enter) -> views.Recorded:
    """Records deployments, one or a list, all or none. Sent twice, they are kept once."""
    value = await requests.json(request, here.body_limit)
    records, ignored = _records(value)
    return views.Recorded(recorded=len(records), new=await here.store.record_deployments(records), ignored=ignored)


@router.post("/investigations", status_code=202, tags=["investigations"], openapi_extra=body_of(views.Ask))
async def ask(request: Request, here: Here, caller: Enter) -> views.Started:
    """Asks for an investigation. With an `Idempotency-Key` header, asking again while it is open joins it."""
    asked = requests.fit(views.Ask, await requests.json(request, here.body_limit))
    trigger = Trigger(
        kind="api",
        key=f"api:{request.headers.get('idempotency-key') or uuid.uuid4()}",
        at=min(asked.at or datetime.now(UTC), datetime.now(UTC)),
        title=payload.one_line(asked.title),
        severity=asked.severity,
        service=asked.service,
        labels=asked.labels,
        request=asked.request or asked.title,
    )
    found, created = await here.intake.begin(trigger)
    return views.Started(id=found.id, created=created, why="asked", links=views.links(base(request), found.id))


@router.get("/investigations", tags=["investigations"])
async def listing(request: Request, here: Here, caller: Enter, which: Annotated[views.Listed, Query()]) -> views.Listing:
    """Lists investigations, newest first."""
    found = await here.store.investigations(status=which.status, limit=which.limit + 1, before=which.before)
    page = found[: which.limit]
    said = await verdicts(here.store, page)
    summaries = tuple(views.summary(one, verdict, base(request)) for one, verdict in zip(page, said, strict=True))
    return views.Listing(investigations=summaries, next=page[-1].id if len(found) > len(page) else None)


@router.get("/investigations/{id}", tags=["investigations"])
async def investigation(id: str, request: Request, here: Here, caller: Enter) -> views.Detail:
    """One investigation: trigger, brief, messages, report."""
    found = await here.store.investigation(checked(id))
    report, brief, posts = await asyncio.gather(here.store.report(id), brief_of(here.store, id), here.store.messages(id))
    said = tuple(views.Said(number=p.number, at=p.at, kind=p.kind, author=p.author, text=p.text) for p in posts)
    return views.detail(found, report, brief, said, base(request))


@router.get(
    "/investigations/{id}/events",
    tags=["investigations"],
    response_class=StreamingResponse,
    response_model=None,
    responses={
        200: {
            "description": "Journal entries under their kind, with their number as id; and `state`, `problem`, `end`",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream(
    id: str, request: Request, here: Here, caller: Enter, after: Annotated[int, Query(ge=0, le=1 << 53)] = 0
) -> Response:
    """Streams the journal as it grows, from its beginning or after `Last-Event-ID`. It closes after an event named `end`."""
    await here.store.investigation(checked(id))
    return here.streams.respond(id, events.place(request.headers, after), events.encode)


@router.get("/investigations/{id}/report.md", tags=["investigations"], response_class=PlainTextResponse)
async def report(id: str, here: Here, caller: Enter) -> PlainTextResponse:
    """The report as markdown."""
    found = await here.store.report(checked(id))
    if found is None:
        raise NotFound(f"{id} has no report yet", f"Its progress is at /v1/investigations/{id}/events.")
    return PlainTextResponse(render(found), media_type="text/markdown; charset=utf-8")


@router.post("/investigations/{id}/messages", status_code=202, tags=["investigations"], openapi_extra=body_of(views.Say))
async def message(id: str, request: Request, here: Here, caller: Enter) -> views.Sent:
    """Says something to an investigation. A running one hears it at its next turn; a finished one looks again."""
    said = requests.fit(views.Say, await requests.json(request, here.body_limit))
    key = said.key or request.headers.get("idempotency-key") or str(uuid.uuid4())
    new = await here.store.send(checked(id), said.text, author=said.author or caller.name, key=f"message:{key}")
    await here.engine.wake(id)
    return views.Sent(investigation=id, new=new)


@router.post(
    "/investigations/{id}/proposals/{number}/decision",
    status_code=202,
    tags=["investigations"],
    openapi_extra=body_of(views.Decide),
    responses={409: {"model": views.Problem}},
)
async def decision(id: str, number: int, request: Request, here: Here, caller: Enter) -> views.Sent:
    """Approves or rejects a proposal; the first is number 1. The first decision counts."""
    decided = requests.fit(views.Decide, await requests.json(request, here.body_limit))
    new = await decide(here.store, here.engine, checked(id), number, decided, decided.author or caller.name)
    return views.Sent(investigation=id, new=new)


@router.post(
    "/investigations/{id}/verdict",
    status_code=202,
    tags=["investigations"],
    openapi_extra=body_of(views.Judge),
    responses={409: {"model": views.Problem}},
)
async def verdict(id: str, request: Request, here: Here, caller: Enter) -> views.Sent:
    """Keeps an engineer's verdict on the report: whether its cause is right, and what it really was. It feeds the evals."""
    said = requests.fit(views.Judge, await requests.json(request, here.body_limit))
    return views.Sent(investigation=id, new=await judge(here.store, checked(id), said, said.author or caller.name))


@router.get("/schema/report.json", tags=["schema"])
async def schema(caller: Enter) -> JSONResponse:
    """The JSON schema of a report."""
    document = Report.model_json_schema(by_alias=True, mode="serialization")
    return JSONResponse({"$schema": "https://json-schema.org/draft/2020-12/schema"} | document)


def _records(value: Any) -> tuple[list[Deployment], tuple[str, ...]]:
    """The deployments in a body, and the names of fields that mean nothing to us. Raises Unfit that names index and field.

    A field that looks like a slip of one we know is an error: it would lose what it says. Any other is let through and named.
    """
    rows = value if isinstance(value, list) else [value]
    if len(rows) > MOST_RECORDS:
        raise BadInput(f"{len(rows)} records in one request", f"Send at most {MOST_RECORDS} at a time.")
    wrong: list[dict[str, str]] = []
    ignored: dict[str, None] = {}
    records = []
    for index, row in enumerate(rows):
        place = f"[{index}]" if isinstance(value, list) else ""
        try:
            known, others = _known(row, place)
            ignored |= others
            records.append(requests.fit(views.DeploymentRecord, known, place).deployment())
        except requests.Unfit as error:
            wrong += error.fields
    if wrong:
        raise requests.Unfit(wrong)
    return records, tuple(ignored)


def _known(row: Any, place: str) -> tuple[Any, Mapping[str, None]]:
    """A record without the fields that are not ours, and their names."""
    if not isinstance(row, dict):
        return row, {}
    fields = list(views.DeploymentRecord.model_fields)
    others = [name for name in row if name not in fields]
    slips = [
        {"field": f"{place}.{name}".lstrip("."), "problem": problem}
        for name in others
        if "did you mean" in (problem := requests.unknown(name, fields, cutoff=0.75))
    ]
    if slips:
        raise requests.Unfit(slips)
    return {name: item for name, item in row.items() if name in fields}, dict.fromkeys(others)


def problem(error: AgentError) -> dict[str, Any]:
    """An error as the API says it."""
    fields = tuple(error.fields) if isinstance(error, requests.Unfit) else ()
    return views.Problem(error=error.problem, hint=error.hint, fields=fields).model_dump()
