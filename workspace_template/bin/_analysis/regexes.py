"""Says whether a regular expression can take exponentially or polynomially long to fail. Static: it matches nothing.

An expression backtracks for long where two ways of reading the same text lie within one repetition (nested repetitions, branches
that overlap) or side by side (two repetitions of overlapping characters that only something optional separates).
"""

from __future__ import annotations

import re
import string
import warnings
from functools import lru_cache
from typing import Any

from _analysis import ambiguity

try:
    from re import _constants as constants  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
except ImportError:
    import sre_constants as constants
    import sre_parse as parser

LITERAL = re.compile(
    r"(?<![\w])[rRbBuU]{0,2}(\"\"\"|'''|\"|')((?:\\.|(?!\1)[^\\\n])*)\1|"
    r"(?<=[=(:,!&|? ])/((?:\\.|[^/\n\\])+)/[gimsuy]*"
)
EXPRESSION = re.compile(r"\\[sdwSDWbB]|\[[^\]]+\][*+?{]|\(\?|[)\].\w][*+]\??(?:[)\[(\\$^]|$)|\.\*|\.\+|\^|\$$|\|")
BETWEEN = 3
"""How much may stand between two repetitions, or before the first."""
NAMED = re.compile(r"\(\?<(?![=!])")
"""How other languages begin a group with a name."""
SETS = {
    "CATEGORY_DIGIT": set("0123456789"),
    "CATEGORY_SPACE": set(" \t\n\r"),
    "CATEGORY_WORD": set(string.ascii_letters + string.digits + "_é"),
}
ALPHABET = SETS["CATEGORY_WORD"] | set(" \t\n\r" + string.punctuation)


def expressions(text: str) -> list[str]:
    """The string literals of a line of code that look like regular expressions."""
    found = []
    for match in LITERAL.finditer(text):
        body = match[2] if match[2] is not None else match[3]
        if len(body) >= 3 and EXPRESSION.search(body):
            found.append(body)
    return found


@lru_cache(maxsize=4000)
def danger(expression: str) -> float:
    """0 where it is harmless or not readable, 0.6 where it can take polynomially long, 1 where exponentially long."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(NAMED.sub("(?P<", expression))
    except (re.error, OverflowError, RecursionError):
        return 0.0
    if _exponential(list(tree)) or (_nested(list(tree)) and ambiguity.exponential(list(tree), _first, _endless)):
        return 1.0
    return 0.6 * _polynomial(list(tree))


def _nested(sequence: list[Any], within: bool = False) -> bool:
    """Whether an endless repetition has another one, or branches, within it."""
    for node in sequence:
        inner = _endless(node)
        if within and (inner or node[0] is constants.BRANCH):
            return True
        if any(_nested(child, within or inner) for child in _children(node)):
            return True
    return False


def _endless(node: Any) -> bool:
    op, argument = node
    return op in (constants.MAX_REPEAT, constants.MIN_REPEAT) and argument[1] >= 20


def _children(node: Any) -> list[list[Any]]:
    """The sequences within a node."""
    op, argument = node
    if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        return [list(argument[2])]
    if op is constants.SUBPATTERN:
        return [list(argument[-1])]
    if op is constants.BRANCH:
        return [list(branch) for branch in argument[1]]
    if op in (constants.ASSERT, constants.ASSERT_NOT):
        return [list(argument[1])]
    return []


def _exponential(sequence: list[Any]) -> float:
    for node in sequence:
        if _endless(node) and _ambiguous(_flat(list(node[1][2]))):
            return 1.0
        if any(_exponential(child) for child in _children(node)):
            return 1.0
    return 0.0


def _flat(sequence: list[Any]) -> list[Any]:
    """A sequence without the groups around it."""
    while len(sequence) == 1 and sequence[0][0] is constants.SUBPATTERN:
        sequence = list(sequence[0][1][-1])
    return sequence


def _ambiguous(body: list[Any]) -> bool:
    """Whether what is repeated can be read in two ways: it is itself an endless repetition, next to which nothing must stand that
    the repetition cannot take; or its branches begin alike, or one is made of others.
    """
    if not body:
        return False
    if len(body) == 1 and body[0][0] is constants.BRANCH:
        branches = [list(branch) for branch in body[0][1][1]]
        if any(_ambiguous(branch) for branch in branches):
            return True
        texts = [_text(branch) for branch in branches]
        known = [text for text in texts if text]
        if any(a != b and a and set_of_parts(a, [t for t in known if t != a]) for a in known for b in known):
            return True
        singles = [_first(branch) for branch in branches if len(branch) == 1 and not _endless(branch[0])]
        return any(a & b for i, a in enumerate(singles) for b in singles[i + 1 :])
    for index, node in enumerate(body):
        inner = _flat([node])
        if len(inner) == 1 and _endless(inner[0]):
            taken = _first(list(inner[0][1][2]))
            rest = [other for place, other in enumerate(body) if place != index]
            if taken and all(_optional(other) or _first([other]) & taken for other in rest):
                return True
        elif inner and inner != [node] and len(body) == 1 and _ambiguous(inner):
            return True
    return False


def set_of_parts(text: str, parts: list[str]) -> bool:
    """Whether a text can be put together from others."""
    reach = {0}
    for end in range(1, len(text) + 1):
        if any(
            end - len(part) in reach and text.startswith(part, end - len(part)) for part in parts if part and len(part) <= end
        ):
            reach.add(end)
    return len(text) in reach and bool(text)


def _text(sequence: list[Any]) -> str:
    """The literal that a sequence is, or "" where it is no literal."""
    if all(op is constants.LITERAL for op, _ in sequence):
        return "".join(chr(argument) for _, argument in sequence)
    return ""


def _optional(node: Any) -> bool:
    op, argument = node
    if op is constants.AT:
        return True
    if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        return bool(argument[0] == 0)
    if op is constants.SUBPATTERN:
        return all(_optional(inner) for inner in argument[-1])
    return op is constants.BRANCH and any(all(_optional(n) for n in branch) for branch in argument[1])


def _first(sequence: list[Any]) -> set[str]:
    """Characters (of a sample alphabet) that a sequence can begin with."""
    found: set[str] = set()
    for node in sequence:
        op, argument = node
        if op is constants.LITERAL:
            found |= {chr(argument)}
        elif op is constants.NOT_LITERAL:
            found |= ALPHABET - {chr(argument)}
        elif op is constants.ANY:
            found |= ALPHABET - {"\n"}
        elif op is constants.IN:
            found |= _set(argument)
        elif op is constants.CATEGORY:
            found |= _category(str(argument))
        else:
            for child in _children(node):
                found |= _first(child) if op not in (constants.ASSERT, constants.ASSERT_NOT) else set()
        if not _optional(node) and op not in (constants.ASSERT, constants.ASSERT_NOT):
            return found
    return found


def _ends(sequence: list[Any]) -> bool:
    """Whether something has to come after which can be missing: only then is another way tried."""
    return any(op is constants.AT or not _optional((op, argument)) for op, argument in sequence)


@lru_cache(maxsize=4000)
def rescans(expression: str) -> bool:
    """Whether a search reads the same text again from each of its characters: what it begins with belongs to an endless
    repetition, after which something can be missing, and no anchor says where to begin.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = list(parser.parse(NAMED.sub("(?P<", expression)))
    except (re.error, OverflowError, RecursionError):
        return False
    tree = _flat(tree)
    branches = [list(branch) for branch in tree[0][1][1]] if len(tree) == 1 and tree[0][0] is constants.BRANCH else [tree]
    return any(_rescans(branch) for branch in branches)


def _rescans(sequence: list[Any]) -> bool:
    before: list[set[str]] = []
    for place, node in enumerate(sequence[: BETWEEN + 1]):
        node = next(iter(_flat([node])), node)
        if node[0] is constants.AT:
            return False
        if _endless(node):
            taken = _first(list(node[1][2]))
            return all(taken & one for one in before) and _ends(sequence[place + 1 :])
        before.append(_first([node]))
    return False


def _set(items: Any) -> set[str]:
    found: set[str] = set()
    negated = False
    for op, argument in items:
        if op is constants.NEGATE:
            negated = True
        elif op is constants.LITERAL:
            found.add(chr(argument))
        elif op is constants.RANGE:
            found |= {c for c in ALPHABET if argument[0] <= ord(c) <= argument[1]}
        elif op is constants.CATEGORY:
            found |= _category(str(argument))
    return ALPHABET - found if negated else found


def _category(name: str) -> set[str]:
    positive = SETS.get(name.replace("NOT_", "").replace("UNI_", ""), set())
    return ALPHABET - positive if "NOT_" in name else positive


def _polynomial(sequence: list[Any]) -> float:
    """Whether two endless repetitions of overlapping characters follow each other, and between them only what is optional, or,
    where something has to come after them, what both of them can take too.
    """
    flat: list[Any] = []
    for node in sequence:
        inner = _flat([node])
        flat += inner if len(inner) == 1 else [node]
    for index, node in enumerate(flat):
        if _endless(node):
            taken = _first(list(node[1][2]))
            between: list[set[str]] = []
            for place, other in enumerate(flat[index + 1 :], index + 1):
                if _endless(other):
                    common = taken & _first(list(other[1][2]))
                    if common and (not between or (_ends(flat[place + 1 :]) and all(common & one for one in between))):
                        return 1.0
                if not _optional(other):
                    between.append(_first([other]))
                    if len(between) > BETWEEN or not between[-1] & taken:
                        break
    return max((_polynomial(child) for node in sequence for child in _children(node)), default=0.0)
