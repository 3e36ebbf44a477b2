"""What the rules say of a request, of which not everything may be known yet. Pure: no network, no clock."""

from __future__ import annotations

import functools
import re
from enum import Enum
from typing import Literal

from agent.core.data import Data
from agent.core.egress import Egress, Rule
from agent.egress.addresses import public, within
from agent.egress.names import Place, readings


class Asked(Data):
    """A request. What is None is not known yet: the address before the name was resolved, method and path within TLS."""

    place: Place
    address: str | None = None
    method: str | None = None
    path: str | None = None


class Verdict(Data):
    """`depends`: what is not known yet decides. rule: which one decided, for the audit. inspect: requests must be read."""

    outcome: Literal["allow", "deny", "depends"]
    reason: str
    rule: str = ""
    inspect: bool = False
    headers: dict[str, str] = {}


class _Match(Enum):
    NO = 0
    YES = 1
    PERHAPS = 2


def decide(egress: Egress, asked: Asked) -> Verdict:
    """The first rule that matches decides. Raises Refusal for a path that cannot be compared."""
    perhaps: list[Rule] = []
    private = False
    for number, rule in enumerate(egress.rules, 1):
        match = _match(rule, asked)
        if match is _Match.YES and _needs_network(rule, asked):
            private = True
        elif match is _Match.PERHAPS:
            perhaps.append(rule)
        elif match is _Match.YES:
            name = f"{number} {rule.name}".rstrip()
            inspect = rule.inspects or any(other.inspects for other in perhaps)
            if perhaps and (rule.action == "allow" or any(other.action == "allow" for other in perhaps)):
                return Verdict(outcome="depends", reason="", inspect=inspect)
            reason = f"rule {name} {'allows' if rule.action == 'allow' else 'denies'} it"
            return Verdict(outcome=rule.action, reason=reason, rule=name, inspect=inspect, headers=rule.headers)
    if any(rule.action == "allow" for rule in perhaps):
        return Verdict(outcome="depends", reason="", inspect=any(rule.inspects for rule in perhaps))
    if private:
        return Verdict(outcome="deny", reason=f"{asked.address} is no public address, and no rule's cidrs hold it")
    return Verdict(outcome="deny", reason="no rule allows it")


def _match(rule: Rule, asked: Asked) -> _Match:
    """Whether all that the rule names is so. What is not known counts only where the rest matches."""
    place = asked.place
    if place.port not in rule.ports or (rule.hosts and not any(_is_host(pattern, place) for pattern in rule.hosts)):
        return _Match.NO
    open_question = False
    if rule.cidrs:
        if asked.address is None:
            open_question = True
        elif not within(asked.address, rule.cidrs):
            return _Match.NO
    if rule.methods:
        if asked.method is None:
            open_question = True
        elif asked.method not in rule.methods:
            return _Match.NO
    if rule.paths:
        if asked.path is None:
            open_question = True
        elif not _is_path(rule, asked.path):
            return _Match.NO
    return _Match.PERHAPS if open_question else _Match.YES


def _needs_network(rule: Rule, asked: Asked) -> bool:
    """Whether it is an address that only a rule with `cidrs` may allow, and this one has none."""
    return rule.action == "allow" and not rule.cidrs and asked.address is not None and not public(asked.address)


def _is_host(pattern: str, place: Place) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return place.host.endswith(pattern[1:]) and not place.is_address
    return place.host == pattern


def _is_path(rule: Rule, path: str) -> bool:
    """A rule that allows must match every reading of a path, one that denies any."""
    ways = readings(path)
    judge = all if rule.action == "allow" else any
    return judge(any(_pattern(pattern).fullmatch(way) for pattern in rule.paths) for way in ways)


@functools.lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.compile(".*".join(parts), re.DOTALL)
