"""Whether a regular expression can read one text in exponentially many ways: then a text that nearly matches takes that long.

The expression becomes an automaton of its characters (Glushkov's). It is exponentially ambiguous where some state can be reached
from itself by two different ways over the same text: in the graph of pairs of states, a pair of equal ones and a pair of
different ones lie on one cycle (Weber and Seidl, 1991). Look-arounds are left out, and a bounded repetition counts as one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

STATES = 120
"""Characters of an expression beyond which nobody looks."""


@dataclass(kw_only=True)
class Automaton:
    """`takes`: what each state reads; `follow`: how often each state can come after each."""

    takes: list[frozenset[str]] = field(default_factory=list)
    follow: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def join(self, before: Iterable[int], after: Iterable[int]) -> None:
        after = list(after)
        for state in before:
            self.follow[state].update(after)


Part = tuple[bool, list[int], list[int]]
"""Whether it can be empty, and the states it begins and ends with."""


class TooLarge(Exception):
    """The expression has more than STATES characters."""


def exponential(sequence: list[Any], first: Callable[[list[Any]], set[str]], endless: Callable[[Any], bool]) -> bool:
    """For a parsed expression. first: the characters that a node begins with; endless: whether a node repeats without bound."""
    made = Automaton()
    try:
        _sequence(made, sequence, first, endless)
    except TooLarge:
        return False
    return any(_ambiguous(made, group) for group in _cycles(len(made.takes), lambda state: made.follow[state]))


def _sequence(
    made: Automaton, nodes: Iterable[Any], first: Callable[[list[Any]], set[str]], endless: Callable[[Any], bool]
) -> Part:
    empty, begins, ends = True, list[int](), list[int]()
    for node in nodes:
        nothing, heads, tails = _node(made, node, first, endless)
        made.join(ends, heads)
        begins = begins + heads if empty else begins
        ends = ends + tails if nothing else tails
        empty = empty and nothing
    return empty, begins, ends


def _node(made: Automaton, node: Any, first: Callable[[list[Any]], set[str]], endless: Callable[[Any], bool]) -> Part:
    name, argument = str(node[0]), node[1]
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        nothing, begins, ends = _sequence(made, argument[2], first, endless)
        if endless(node):
            made.join(ends, begins)
        return nothing or argument[0] == 0, begins, ends
    if name == "SUBPATTERN":
        return _sequence(made, argument[-1], first, endless)
    if name == "BRANCH":
        parts = [_sequence(made, branch, first, endless) for branch in argument[1]]
        return any(p[0] for p in parts), [s for p in parts for s in p[1]], [s for p in parts for s in p[2]]
    if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY"):
        if len(made.takes) >= STATES:
            raise TooLarge
        made.takes.append(frozenset(first([node])))
        return False, [len(made.takes) - 1], [len(made.takes) - 1]
    return True, [], []


def _ambiguous(made: Automaton, states: list[int]) -> bool:
    """Whether one of these states, all on one cycle, comes to itself in two ways over the same text."""
    within = set(states)
    if any(number > 1 and after in within for state in states for after, number in made.follow[state].items()):
        return True
    numbers = {
        pair: n for n, pair in enumerate((a, b) for a in states for b in states if a == b or made.takes[a] & made.takes[b])
    }
    pairs = list(numbers)

    def after(number: int) -> Iterator[int]:
        a, b = pairs[number]
        for x in made.follow[a]:
            for y in made.follow[b]:
                if (x, y) in numbers and made.takes[x] & made.takes[y]:
                    yield numbers[x, y]

    for group in _cycles(len(pairs), after):
        equal = {pairs[n][0] == pairs[n][1] for n in group}
        if len(equal) == 2:
            return True
    return False


def _cycles(count: int, after: Callable[[int], Iterable[int]]) -> Iterator[list[int]]:
    """The groups of nodes that lie on cycles together (Tarjan)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on: set[int] = set()
    for root in range(count):
        if root in index:
            continue
        work = [(root, iter(list(after(root))))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group = []
                    while True:
                        member = stack.pop()
                        on.discard(member)
                        group.append(member)
                        if member == node:
                            break
                    if len(group) > 1 or node in set(after(node)):
                        yield group
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on.add(following)
                work.append((following, iter(list(after(following)))))
            elif following in on:
                low[node] = min(low[node], index[following])
