"""How values are written in the database so that every database takes them and text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """2026-11-20T14:30:15.000000Z; a time without a zone is UTC."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def now() -> str:
    return stamp(datetime.now(UTC))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def storable(text: str) -> str:
    """Text without what some database refuses: NUL (PostgreSQL), half a surrogate pair (both)."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
