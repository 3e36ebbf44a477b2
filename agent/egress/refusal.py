"""Why the door says no, as the client inside is told."""

from __future__ import annotations


class Refusal(Exception):
    """An answer of the door's own. 403: a rule says so; 4xx: the request cannot be let through as it is; 5xx: it failed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
