"""Stack traces in log lines, of several languages: their frames, counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

FRAMES = 4_000
LINE = 2_000
"""Characters of a line that are looked at: no frame is longer, and what a pattern takes can grow with the square of them."""
CONTINUES = re.compile(
    r"^(?:\s|Traceback |Caused by:|goroutine \d|\.\.\. \d+ more|During handling|The above exception|stack traceback)"
)
RAISED = re.compile(
    r"^(Error(?=: )|[A-Za-z_][\w.$]*(?:Error|Exception|Warning|Exit|Interrupt|Fault|Failure|Timeout|NotFound)\w*)(?::\s?(.*))?$"
)
GOROUTINE = re.compile(r"^([\w./-]+(?:\.\(\*?\w+\))?[\w.]*)\([^()]*\)$")
CHAINED = re.compile(r"^\s*(?:Caused by:|During handling of|The above exception)")
FRAME = (
    re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)'),
    re.compile(r"^\s*at (?P<name>[\w.$<>/ \[\]]+?)\s?\((?P<file>[^():]+\.\w+):(?P<line>\d+)(?::\d+)?\)"),
    re.compile(r"^\s*at (?:async )?(?P<name>)(?P<file>[^():\s]+\.\w+):(?P<line>\d+)"),
    re.compile(r"^\s*at (?P<name>[\w.$<>`+\[\],]+)\([^()]*\) in (?P<file>(?:[A-Za-z]:)?[^:]+\.\w+):line (?P<line>\d+)"),
    re.compile(r"^\s*#\d+ (?P<file>[^():\s]+\.php)\((?P<line>\d+)\): (?P<name>[\w\\:>-]+)"),
    re.compile(r"^\s*(?P<name>)(?P<file>/?[\w./@-]+\.(?:go|rs|c|cc|cpp|h|rb|py|js|ts|ex|php)):(?P<line>\d+)"),
)


@dataclass(kw_only=True)
class Frame:
    """A place in a stack trace, counted. depth 0 is where it was raised; `code` is the source line, where the trace quotes it."""

    service: str
    file: str
    line: int
    name: str
    count: int = 0
    first: float | None = None
    raised: str = ""
    depth: int = 0
    code: str = ""


@dataclass(kw_only=True)
class _Entry:
    """A frame as it is read. `last`: its language prints the innermost frame last; `chain` counts the exceptions of one trace."""

    file: str
    line: int
    name: str
    last: bool
    chain: int
    code: str = ""


def is_frame(text: str) -> bool:
    """Whether a line is a frame of a stack trace."""
    return any(form.search(text, 0, LINE) for form in FRAME)


def raises(text: str) -> bool:
    """Whether a line names the exception that was raised."""
    return RAISED.match(text[:LINE]) is not None


def raised(trace: str) -> str:
    """What a trace says was raised: the last exception that it names, or else its last line."""
    lines = [line.strip().removeprefix("Caused by: ") for line in trace.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if raises(line)), lines[-1] if lines else "")


def called(text: str) -> str:
    """The function that a line of a goroutine's trace calls, or ""."""
    found = GOROUTINE.match(text) if len(text) <= LINE else None
    return found[1].rsplit("/", 1)[-1] if found else ""


class Stack:
    """The stack trace that is being read, and the frames of all that were. `above`: a function whose place comes next."""

    def __init__(self, service: str, weight: int) -> None:
        self.service, self.weight = service, weight
        self.frames: dict[tuple[str, str, str, int], Frame] = {}
        self.entries: list[_Entry] = []
        self.above = ""

    def add(self, text: str) -> None:
        """A line of the trace."""
        text = text[:LINE]
        chain = self.entries[-1].chain if self.entries else 0
        if CHAINED.match(text) and self.entries:
            self.entries.append(_Entry(file="", line=0, name="", last=False, chain=chain + 1))
            return
        for number, form in enumerate(FRAME):
            match = form.search(text)
            if match:
                name = match["name"].strip() or self.above
                file = match["file"].replace("\\", "/")
                self.entries.append(_Entry(file=file, line=int(match["line"]), name=name, last=not number, chain=chain))
                self.above = ""
                return
        if self.entries and self.entries[-1].last and text[:1].isspace() and re.search(r"\w", text):
            self.entries[-1].code = self.entries[-1].code or text.strip()[:200]

    def whole(self, text: str, service: str, when: float | None) -> None:
        """A trace that came in one piece."""
        if "\n" not in text and 'File "' not in text:
            return
        for line in text.splitlines():
            self.add(line)
        self.end(when, raised(text), service)

    def end(self, when: float | None, raised: str = "", service: str = "") -> None:
        """The stack that was read belongs to the line before it, or to the exception named after it."""
        chains: dict[int, list[_Entry]] = {}
        for entry in self.entries[-80:]:
            chains.setdefault(entry.chain, []).append(entry)
        self.entries.clear()
        for chain in chains.values():
            entries = [entry for entry in chain if entry.file]
            for depth, entry in enumerate(entries[::-1] if entries and entries[0].last else entries):
                key = (service or self.service, entry.file, entry.name, entry.line)
                frame = self.frames.get(key)
                if frame is None:
                    if len(self.frames) > FRAMES:
                        return
                    frame = Frame(service=key[0], file=entry.file, line=entry.line, name=entry.name, first=when, depth=depth)
                    self.frames[key] = frame
                frame.count += self.weight
                frame.depth = min(frame.depth, depth)
                frame.raised = frame.raised or raised[:200]
                frame.code = frame.code or entry.code
