"""What all investigations together paid models for, summed up from their journals."""

from __future__ import annotations

from datetime import datetime

from agent.store.columns import stamp
from agent.store.database import Transaction

KINDS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


def since(transaction: Transaction, moment: datetime) -> tuple[float, int]:
    """US dollars and tokens since then; what has no known price counts as nothing."""
    if transaction.is_sqlite:
        usd, tokens = "json_extract(data, '$.cost')", [f"json_extract(data, '$.{path}.{kind}')" for path, kind in _paths()]
    else:
        usd = "(data::json ->> 'cost')::float"
        tokens = [f"(data::json -> '{path}' ->> '{kind}')::bigint" for path, kind in _paths()]
    total = " + ".join(f"coalesce({one}, 0)" for one in tokens)
    row = transaction.row(
        f"""
        SELECT coalesce(sum({usd}), 0) AS usd, coalesce(sum({total}), 0) AS tokens FROM entries
        WHERE kind IN ('reply', 'summary', 'discarded', 'child') AND at >= :moment""",
        moment=stamp(moment),
    )
    assert row is not None
    return float(row["usd"]), int(row["tokens"])


def _paths() -> list[tuple[str, str]]:
    return [(path, kind) for path in ("usage", "discarded") for kind in KINDS]
