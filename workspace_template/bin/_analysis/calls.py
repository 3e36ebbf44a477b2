"""Calls that came or went, what they stand for (caching, safety, set-up, release), and packages used in the place of others."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache

from _analysis.commits import FileDiff, Hunk, Line
from _analysis.delta import Delta, Rows, made
from _analysis.rows import Moved
from _analysis.words import PIECE

CALL = re.compile(
    r"(?<![\w$])(?:await\s+|new\s+|go\s+|defer\s+)?((?:[A-Za-z_$][\w$]*(?:\.|"
    r"->|::))*[A-Za-z_$][\w$]*)\s*(?:<[\w, ]+>|\[[A-Za-z_.]\w*\])?\("
)
NO_CALL = frozenset(
    [
        "if",
        "for",
        "while",
        "switch",
        "return",
        "func",
        "function",
        "def",
        "catch",
        "elif",
        "with",
        "and",
        "or",
        "not",
        "in",
        "is",
        "lambda",
        "assert",
        "match",
        "except",
        "class",
        "new",
        "await",
        "raise",
        "throw",
        "print",
        "len",
        "range",
        "make",
        "append",
        "str",
        "int",
        "float",
        "bool",
        "list",
        "dict",
        "set",
        "tuple",
        "sizeof",
        "string",
        "byte",
        "interface",
        "error",
        "errors",
        "super",
        "isinstance",
        "getattr",
        "cast",
        "TypeVar",
        "NewType",
        "overload",
    ]
)
SAYS = re.compile(
    r"(?i)^(?:\w+\.)*(?:log|logger|logging|slog|zap|console|fmt|printf?|println|"
    r"debug|info|warn|warning|error|fatal|LOG_[A-Z]+|trace|observe|inc|dec|counter|histogram|gauge|register|"
    r"mustregister|newcounter|newhistogram|setattributes?|setattribute|errorf|sprintf|wrap|record|span|metrics?\w*)(?:\.\w+)*$|"
    r"^(?:\w+\.)*(?:new_?)?(?:err[A-Z_]\w*|\w*(?:Error|Exception))$"
)
LOOP = re.compile(r"^\s*(?:async\s+)?(?:for|while|foreach|loop)\b|\.(?:map|forEach|each|flatMap)\(|\bfor\s+\w+\s+in\b")
DEFINITION = re.compile(r"\b(?:func|def|function|fn|class|interface|struct|void)\s+(?:\([^)]*\)\s*)?([A-Za-z_$][\w$]*)")
RELEASE = re.compile(
    r"(?i)(close|release|unlock|free|evict|delete|remove|discard|pop|clear|dispose|"
    r"destroy|cancel|stop|shutdown|purge|expire|trim|unsubscribe|detach|rollback|cleanup|drain)"
)
SETUP = re.compile(
    r"(?i)(register|init|seed|load|setup|install|bootstrap|configure|bind|subscribe|"
    r"connect|migrate|mount|add|attach|enable|start|warm|import|include|inject|provide)"
)
SAFETY = re.compile(
    r"(?i)(validate|verify|check|sanitize|escape|authori[sz]e|authenticate|ensure|"
    r"assert|guard|limit|throttle|clamp|lock|acquire|retry|backoff|sleep|flush|commit|ack|fsync|sync|wait|"
    r"join|dedupe|dedup)"
)
CACHING = re.compile(
    r"(?i)(cache|memo|lru|get_?or_?(?:load|compute|fetch|set|add|else)|if_?absent|singleflight|"
    r"once|batch|bulk|pool|preload|prefetch|index|paginate|limit|compress|gzip|etag)"
)
FETCHING = re.compile(
    r"(?i)(get|fetch|load|query|find|select|request|send|post|put|read|write|"
    r"call|exec|lookup|list|save|publish|insert|update|scan|open|connect|item|invoke)"
)
CHEAP = re.compile(
    r"get|items?|update|insert|write|find|(?:get|is|has)_?(?:attr|item|origin|args|type|name|class|field|option)s?"
)
WAITS = re.compile(r"(?i)wait|block|sync|lock|acquire|join")
KEEPS = re.compile(r"(?i)append|push|add|put|store|cache|register|listen|subscribe|track|retain")
WORKS = re.compile(r"(?i)compile|regex|sort|deepcopy|clone|copy|hash|encrypt|serialize|dump|marshal|scan|walk|recurs")
FAR = re.compile(r"(?i)_?(?:fetch|query|request|send|post|select|exec|lookup|publish|save|open|connect|load|invoke|call)")
REMOTE = re.compile(r"(?i)client|http|session|api|request|store|repo|db|conn|service|remote|cursor|redis|cache|catalog|upstream")
"""What mostly is a method of a container in memory; what leaves the process, by the call's name or its receiver's."""
INFLECTED = re.compile(r"(?:e?s|e?d|ing|e?rs?|ors?|ation|iali[sz]e\w*|item|left|all|up|able)?(?![a-z])")
CARRIED = re.compile(r"[\w$]\.(?:call|apply|bind)$")
"""How JavaScript calls a function with another `this`: the function is what is called."""
OTHERWISE = frozenset({"startswith", "startsWith", "includes", "indexOf", "lastIndexOf", "loads", "addEventListener"})
"""Names that have such a word and mean another thing."""
READS = re.compile(r"(?:=|\breturn|[(,])\s*[\w.\[\]]+\.pop\(\s*[\"']|[\"'\w]\.join\(\s*(?!timeout)[\w\[(\"']")
"""A key's value is taken out to be used, or a text is put together: nothing is let go, and nobody is waited for."""
DELETED = re.compile(r"(?:del\s+|delete\s*\(?\s*)([A-Za-z_][\w.]*)\s*[\[.,]")
IMPORTED = re.compile(r"(?:import\s+([A-Za-z_]\w*)|from\s+([A-Za-z_]\w*)[\w.]*\s+import)\b")
STANDS_IN = re.compile(r"import\s+([A-Za-z_]\w*)\s+as\s+([A-Za-z_]\w*)")
PLAIN = frozenset(sys.stdlib_module_names) | {"typing_extensions", "six", "importlib_metadata", "importlib_resources", "mock"}
"""Modules that come with the language, and what stands in for newer ones of them."""
REMOVED: tuple[tuple[re.Pattern[str], str, float, tuple[str, ...]], ...] = (
    (RELEASE, "removed release", 0.9, ("memory", "pool", "lock", "queue", "disk", "cpu")),
    (CACHING, "removed caching or batching", 0.9, ("volume", "latency", "query", "throttle", "cache", "cpu")),
    (SAFETY, "removed safety call", 0.8, ("wrong", "retry", "throttle", "lock", "error", "auth", "parse", "missing", "timeout")),
    (SETUP, "removed set-up", 0.95, ("missing", "nil", "error")),
)


def changed(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: Moved) -> Iterator[Delta]:
    """Calls that are gone, new, or now made once for each of many."""
    before, after = _called(removed), _called(added)
    loops = in_loops(hunk)
    looped = any(LOOP.search(text) for _, text in removed)
    for name, line in before.items():
        last = re.split(r"\.|->|::", name)[-1]
        if SAYS.match(name) or moved.added_words.get(last, 0) >= moved.removed_words.get(last, 1):
            continue
        yield _removed_call(
            file,
            hunk,
            name,
            last,
            line,
            _defines(line.text, last),
            moved,
        )
    for name, line in after.items():
        last = re.split(r"\.|->|::", name)[-1]
        if SAYS.match(name) or _defines(line.text, last) or CARRIED.search(name):
            continue
        if id(line) in loops and moved.removed_words.get(last, 0) == 0 and FETCHING.search(last):
            causes = ("query", "volume", "latency", "throttle", "cpu", "upstream")
            remote = REMOTE.search(name.removesuffix(last)) or FAR.match(last)
            worth = (0.6 if looped else 1.0) if remote else 0.35 if CHEAP.fullmatch(last) else 0.55
            yield made("call in a loop", name, file, hunk, line, worth, causes, ())
        elif moved.removed_words.get(last, 0) < moved.added_words.get(last, 0):
            yield _added_call(file, hunk, name, last, line)


def stands_for(pattern: re.Pattern[str], name: str) -> bool:
    """Whether a word of a name is one of the pattern's, in whatever inflection: delimited is no limit, startswith no start."""
    for piece in PIECE.finditer(name) if name not in OTHERWISE else ():
        found = pattern.match(name, piece.start())
        if found and INFLECTED.match(name, found.end()):
            return True
    return False


def _removed_call(file: FileDiff, hunk: Hunk, name: str, last: str, line: Line, definition: bool, moved: Moved) -> Delta:
    replaced = any(
        last.lower() in other.lower() or other.lower() in last.lower() for other in moved.added_words if len(other) > 3
    )
    kind, strength = "removed call", 0.55
    causes: tuple[str, ...] = ("missing", "wrong", "error")
    for pattern, named, worth, brings in REMOVED:
        if stands_for(pattern, last) and not READS.search(line.text):
            kind, strength, causes = named, worth, brings
            break
    if definition:
        strength *= 0.4
    if replaced:
        strength *= 0.35
    return made(kind, name, file, hunk, line, strength, causes, (), side="-")


def _added_call(file: FileDiff, hunk: Hunk, name: str, last: str, line: Line) -> Delta:
    causes: tuple[str, ...] = ("latency", "error")
    strength = 0.3
    if re.fullmatch(r"(?i)sleep|delay|usleep|settimeout|time\.after|sleep_?\w+", last):
        causes, strength = ("latency", "timeout", "queue"), 1.0
    elif stands_for(WAITS, last) and not READS.search(line.text):
        causes, strength = ("latency", "lock", "timeout", "queue"), 0.6
    elif stands_for(KEEPS, last):
        causes, strength = ("memory", "queue", "latency"), 0.4
    elif stands_for(WORKS, last):
        causes, strength = ("cpu", "latency", "memory"), 0.45
    elif FETCHING.match(last):
        causes, strength = ("latency", "query", "volume", "error", "upstream"), 0.4
    return made("added call", name, file, hunk, line, strength, causes, ())


def _called(rows: Rows) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for line, text in rows:
        for name in CALL.findall(text):
            if name.split(".")[-1] not in NO_CALL and name not in found:
                found[name] = line
    return found


def _defines(text: str, name: str) -> bool:
    match = DEFINITION.search(text)
    return bool(match) and match is not None and match[1] == name


def in_loops(hunk: Hunk) -> set[int]:
    """Ids of lines that stand deeper than a loop's head above them, both on the new side."""
    inside: set[int] = set()
    heads: list[int] = []
    for line in hunk.lines:
        if line.tag == "-" or not line.text.strip():
            continue
        depth = len(line.text.expandtabs(4)) - len(line.text.expandtabs(4).lstrip())
        heads = [head for head in heads if depth > head]
        if heads:
            inside.add(id(line))
        if LOOP.search(line.text):
            heads.append(depth)
    return inside


def dropped(file: FileDiff, hunk: Hunk, removed: Rows, moved: Moved) -> Iterator[Delta]:
    """Entries that are no longer taken out of a container."""
    for line, text in removed:
        match = DELETED.match(text)
        if match and not re.search(
            rf"(?:\bdel\s+|\bdelete\b\W*){re.escape(match[1])}\b|{re.escape(match[1])}\.(?:pop|remove|discard|clear)",
            moved.added_text,
        ):
            causes = ("memory", "pool", "lock", "queue", "wrong")
            yield made("removed release", text[:80], file, hunk, line, 0.9, causes, (), side="-")


def libraries(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Another package imported in the place of one: the same thing done by other code."""
    before = {m[1] or m[2]: line for line, text in removed if (m := IMPORTED.match(text))}
    after = {m[1] or m[2]: line for line, text in added if (m := IMPORTED.match(text))}
    gone, fresh = before.keys() - after.keys() - PLAIN, after.keys() - before.keys() - PLAIN
    known = {m[1] or m[2] for line in hunk.lines if (m := IMPORTED.match(line.text.strip()))}
    stands_in = {m[1] for _, text in added if (m := STANDS_IN.match(text)) and m[2] in known - {m[1]} and m[1] not in PLAIN}
    if (gone and fresh) or stands_in:
        name = sorted(stands_in or fresh)[0]
        gone = gone or set(before) or {name}
        causes = ("wrong", "parse", "error", "missing", "latency", "cpu")
        yield made("other package used", f"{sorted(gone)[0]} -> {name}", file, hunk, after[name], 0.55, causes, ())


@lru_cache(maxsize=50_000)
def only_says(text: str) -> bool:
    """Whether a line only logs, measures, imports or is a text."""
    call = CALL.search(text)
    return (
        text.startswith(("import ", "from ", "require", "using ", "#include", "package ", "use "))
        or bool(call and SAYS.match(call[1]))
        or bool(re.fullmatch(r"[\"'`].*[\"'`],?\)?", text))
    )
