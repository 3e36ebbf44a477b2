"""What the runtime itself says of a failure, in Python and JavaScript: which words are its own, and what was not as the code took
it for. It knows no commits.
"""

from __future__ import annotations

import re

from _analysis import words
from _analysis.stacktraces import Frame

ARGUMENTS = (
    r"positional arguments?\s+but\s+\S*\s*(?:was|were)\s+given|unexpected keyword argument|"
    r"required (?:positional|keyword-only) arguments?"
)
SAID = re.compile(
    rf"(?i)takes\s+(?:from\s+)?\S*\s*(?:to\s+\S*\s*)?(?:{ARGUMENTS})|(?:got an|missing\s+\S*)\s+(?:{ARGUMENTS})|"
    r"object has no attribute|has no attribute|object is not (?:callable|subscriptable|iterable)|"
    r"unsupported operand type\(s\) for|string indices must be integers|cannot read propert(?:y|ies) of (?:undefined|null)|"
    r"\(reading|is not (?:a function|iterable|defined|a constructor)|invalid literal for int\(\) with base|"
    r"could not convert string to float|(?:list|tuple|string) index out of range|(?:division|modulo) by zero|local variable|"
    r"referenced before assignment|not enough values to unpack|too many values to unpack"
)
KINDS = re.compile(r"\b(?:Type|Attribute|Key|Index|Name|Value|ZeroDivision|UnboundLocal|Reference|Range)Error\b:?")
ABSENT = re.compile(r"has no attribute ['\"](\w+)['\"]|\(reading ['\"](\w+)['\"]\)")
UNCALLED = re.compile(r"object is not callable|(?:([\w$]+)\.)*([\w$]+) is not a function")
UNHELD = re.compile(r"object is not (?:subscriptable|iterable)|is not iterable")
HELD = re.compile(r"([A-Za-z_]\w*)(?:\([^()]*\))?\[|\bin (?:\w+\.)*([A-Za-z_]\w*)")
GIVEN = re.compile(ARGUMENTS)
VALUES = {"type", "nil", "missing", "bounds", "error"}
GENERAL = frozenset({"self", "this", "cls", "data", "value", "result", "item", "obj", "response", "request"})


def plain(text: str) -> str:
    """A message without what the runtime always says."""
    return KINDS.sub(" ", SAID.sub(" ", text)) if SAID.search(text) else text


def facets(text: str) -> set[str]:
    """The kinds of trouble that a text speaks of; a message of the runtime's speaks of the value, never of input."""
    found = words.facets(text)
    return (words.facets(plain(text)) | found & VALUES) if SAID.search(text) else found


def taken_for_another(frames: list[Frame]) -> list[str]:
    """Names in the lines that raised whose values were not what the code took them for."""
    found: list[str] = []
    for frame in frames[:8]:
        code, said = frame.code, frame.raised
        if frame.depth > 0 or not said:
            continue
        if absent := ABSENT.search(said):
            name = re.escape(absent[1] or absent[2])
            found += re.findall(rf"([A-Za-z_]\w*)(?:\([^()]*\)|\[[^\]]*\])?\??\.{name}\b", code)
        elif uncalled := UNCALLED.search(said):
            found += [uncalled[2]] if uncalled[2] else re.findall(r"([A-Za-z_]\w*)\(", code)
        elif UNHELD.search(said):
            found += [match[1] or match[2] for match in HELD.finditer(code)]
        elif GIVEN.search(said):
            found += re.findall(r"\*(?:\w+\.)*([A-Za-z_]\w*)", code)
    return [name for name in dict.fromkeys(found) if len(name) > 2 and name not in GENERAL]
