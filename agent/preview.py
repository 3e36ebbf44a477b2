"""What an investigation would send first, and what it may cost: the desk is set up for real, no model is asked.

The estimate assumes that each turn adds a few thousand tokens of results and that all but the newest are read from the provider's
cache; measured investigations lie within a factor of two of it.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from agent.core.context import Context
from agent.core.investigation import Case, Investigation, Status
from agent.core.journal import MemoryJournal
from agent.core.message import Usage
from agent.core.model import Model
from agent.models.tokens import estimate
from agent.worker import Worker

RESULT_TOKENS = 2_000
OUTPUT_TOKENS = 400
SHORT, LONG = 15, 60


async def preview(worker: Worker, case: Case) -> dict[str, Any]:
    """The first message, its size, and the cost of a short and of a long investigation."""
    now = datetime.now(UTC)
    investigation = Investigation(
        id=f"dry-{secrets.token_hex(4)}", status=Status.RUNNING, case=case, created_at=now, updated_at=now
    )
    journal = MemoryJournal()
    bench = await worker.set_up(investigation, journal)
    try:
        context = Context(journal=journal, model=worker.model, system=worker.system, tools=dict(worker.equip(bench)))
        sections = [await hook.start(context) for hook in worker.hooks(bench)]
    finally:
        await bench.sandbox.delete()
    first = "\n\n".join(section for section in sections if section)
    head = estimate(context.head.model_dump_json())
    start = head + estimate(first)
    turns = {"short": SHORT, "long": min(LONG, worker.budget.turns or LONG)}
    return {
        "model": worker.model.name,
        "first_message": first,
        "tokens": {"head": head, "first_message": start - head},
        "estimates": {name: _estimate(worker.model, start, count) for name, count in turns.items()},
        "budget": worker.budget.model_dump(),
        "notes": [*case.notes, *bench.plan.notes],
    }


def _estimate(model: Model, start: int, turns: int) -> dict[str, Any]:
    """Each request is priced by itself, because a provider may charge more for a long prompt."""
    sent = [start + turn * (RESULT_TOKENS + OUTPUT_TOKENS) for turn in range(turns)]
    requests = [
        Usage(cache_read_tokens=before, cache_write_tokens=size - before, output_tokens=OUTPUT_TOKENS)
        for before, size in zip([0, *sent], sent, strict=False)
    ]
    costs = [model.cost(usage) for usage in requests]
    return {"turns": turns, "prompt_tokens": sum(sent), "usd": None if None in costs else round(sum(c or 0.0 for c in costs), 2)}
