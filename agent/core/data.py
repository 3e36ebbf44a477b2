"""The one base of all data that is passed around: frozen, keyword-only, strict about unknown fields. It holds no behaviour."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Data(BaseModel):
    """A value. It never changes, it is built by keyword, it refuses fields it does not know, and it goes to JSON and back."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)
