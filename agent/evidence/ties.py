"""What ties a suspect commit, or a check's output, to the observed symptom: names that stand in both.

A first form: names in code (functions, files, settings, error texts). Words of the alert and names of services tie nothing:
every change to the loud service would share them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from agent.core.data import Data
from agent.core.investigation import Case
from agent.evidence.diffs import Changed
from agent.evidence.exercise import Effect

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")
FIELD = re.compile(r"\"[\w.@ -]{1,60}\"\s*:")
NUMBER = re.compile(r"(?<![\w:.-])\d{4,12}(?:\.\d+)?(?![\w:-])")
TIME = re.compile(
    r"latency|duration|slow|time[sd]?[ _-]?out|deadline|_seconds|\b\d*ms\b|_ms\b|\bp9\d|too long|overdue|_wait|queue|worker",
    re.IGNORECASE,
)
MEMORY = re.compile(r"memory|\brss\b|_rss|heap|\boom\b|oom[_-]?kill|out of mem|resident|swap|\bgc\b", re.IGNORECASE)
QUIET = re.compile(r"(?i)(?:^|[\s\"'=\[(|:])(?:info|debug|trace|notice)(?=[\s\"'\])|,:]|$)")
LOUD = re.compile(
    r"(?i)error|fail|exception|warn|fatal|critical|panic|refus|reject|denied|invalid|inconsisten|mismatch|wrong|not add up"
)
SAMPLE = re.compile(r"(?:\S+[,;\t])+\s*-?[\d.]+(?:e[+-]?\d+)?\s*$")
"""A row of a metric: a moment, whose it is, a number."""
COMMON = frozenset(
    re.findall(
        r"\S+",
        """
        args array assert async await begin body boolean bytes call calls catch class client code config const count create
        data date debug default defaults delete dict elif else error errors except exception failed failure false file files
        finally first float format from function group handler header headers host http https import index info init insert
        inside integer item items json kwargs lambda last length level line lines list logger logging main message method most
        name names next none null number object order param params path print printf private public raise recent request
        requests response responses result results return select self server service services size start static status stop
        string table test tests text this throw throws time timestamp total trace traceback true tuple type types undefined
        update user users value values warning where while with yield
        """,
    )
)


def words(text: str) -> set[str]:
    """The distinctive words of a text, in lower case."""
    return {word.lower() for word in WORD.findall(text)} - COMMON


def of_change(files: Iterable[Changed]) -> str:
    """The text of a change that names things: its lines, the functions they stand in, the files."""
    parts = []
    for file in files:
        parts += [*file.added, *file.removed, *file.functions, " ".join(PurePosixPath(file.path).with_suffix("").parts)]
    return "\n".join(parts)


class Tie(Data):
    """What two texts both name. strong: a file's path, or at least two words."""

    names: tuple[str, ...] = ()
    strong: bool = False


def between(files: Sequence[Changed], seen: str, ignore: Iterable[str]) -> Tie:
    """What a change and the telemetry both name, words of `ignore` left out."""
    paths = [tail for file in files if "/" in (tail := "/".join(PurePosixPath(file.path).parts[-2:])) and tail in seen]
    found = (words(of_change(files)) & words(told(seen))) - words(" ".join(ignore))
    return Tie(names=tuple(sorted({*paths, *found})), strong=bool(paths) or len(found) >= 2)


def told(seen: str) -> str:
    """What lines of JSON say, without the names of their fields: every line has those, failing or not."""
    return FIELD.sub(" ", seen)


def loud(seen: str) -> str:
    """The lines that say that something is wrong: not what is written when all is well, and not the rows of a metric."""
    lines = [
        line
        for line in seen.splitlines()
        if LOUD.search(line) or not (QUIET.search(line[:200]) or SAMPLE.fullmatch(line.strip()))
    ]
    return "\n".join(lines)


def printed(output: str, other: str, command: str, seen: str, ignore: Iterable[str]) -> bool:
    """Whether a check printed names or numbers of the observed symptom with the suspect only.

    other: what it printed without the suspect. What its own command or the alert gave it counts for nothing.
    """
    own = (words(output) | _numbers(output)) - words(other) - _numbers(other) - words(command) - _numbers(command)
    return bool((own & (words(seen) | _numbers(seen))) - words(" ".join(ignore)))


def happened(found: Effect, files: Sequence[str], seen: str, ignore: Iterable[str]) -> bool:
    """Whether what a check makes happen with the suspect only is what was observed. files: what the suspect changed.

    The very error, word for word; one of the same type with a word of its message or its function, or with two words of it;
    where what was observed is about time, a function of the changed files that takes several times as long; where it is about
    memory, more memory that is kept.
    """
    known = words(seen) - words(" ".join(ignore))
    for raised in found.raised:
        text, _, where = raised.rpartition(" in ")
        kind, _, message = text.partition(":")
        if len(re.sub(r"\W", "", message)) >= 2 and re.search(rf"\b{re.escape(text.strip())}(?!\w)", seen):
            return True
        shared = ((words(message) | words(where.rpartition(":")[2])) & known) - {kind.lower()}
        if len(words(message) & shared) >= 2 or (shared and re.search(rf"\b{re.escape(kind)}\b", seen, re.IGNORECASE)):
            return True
    slower = any(name.rpartition(":")[0].endswith(tuple(f"/{file}" for file in files)) for name in found.slower)
    return (slower and bool(TIME.search(seen))) or (found.larger and bool(MEMORY.search(seen)))


def gave(found: Effect, seen: str, ignore: Iterable[str]) -> bool:
    """Whether a value is another with the suspect, under a name that was observed."""
    known = words(seen) - words(" ".join(ignore))
    for name in found.gave:
        function, _, key = name.rpartition(":")[2].partition(".")
        if key and re.search(rf"\b{re.escape(key.rpartition('.')[2])}[\"']?\s?[=:]", seen):
            return True
        if not key and words(function) & known:
            return True
    return False


def _numbers(text: str) -> set[str]:
    """Numbers that are not met by chance: of four digits or more, and no part of a moment or an id."""
    return set(NUMBER.findall(text))


def rarity(ties: Sequence[Tie]) -> list[float]:
    """How much each of several changes has in common with the symptom; a name that few of them share counts for more."""
    shared = Counter(name for tie in ties for name in tie.names)
    return [math.fsum(math.log((len(ties) + 1) / shared[name]) for name in tie.names) for tie in ties]


def common(case: Case, *more: str) -> tuple[str, ...]:
    """Texts whose words tie nothing to anything: every change to the loud service would share them."""
    names = [name for ref in case.repositories for name in (ref.name, ref.service)]
    return (alert_text(case), *more, *names)


def alert_text(case: Case) -> str:
    """All that the alert says."""
    trigger = case.trigger
    labels = [f"{name} {value}" for alert in trigger.alerts for name, value in alert.labels.items()]
    texts = [text for alert in trigger.alerts for text in (alert.title, alert.description, *alert.annotations.values())]
    return " ".join([trigger.title, trigger.service, *trigger.labels.values(), *labels, *texts])
