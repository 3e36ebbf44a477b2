"""Says what a commit changes in behaviour: values, calls, conditions, clauses, dependencies; or that it changes nothing that
acts.

Moved and reformatted lines cancel out; comments, tests, documents and styles count for nothing. It knows no symptoms.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from _analysis import docstrings, growth, regexes, words
from _analysis.delta import Delta, Rows
from _analysis.history import NAMED, PINNED, Commit, FileDiff, Hunk, Line
from _analysis.kinds import IDLE, kind_of

FILES, HUNKS = 80, 60

UNIT = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "m": 60.0,
    "min": 60.0,
    "mins": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "d": 86400.0,
}
UNIT |= {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
UNIT |= {
    "nanoseconds": 1e-9,
    "microseconds": 1e-6,
    "milliseconds": 1e-3,
    "seconds": 1.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86400.0,
    "millis": 1e-3,
}
UNIT |= {
    "b": 1.0,
    "kb": 1e3,
    "k": 1e3,
    "mb": 1e6,
    "mi": 2.0**20,
    "ki": 2.0**10,
    "gi": 2.0**30,
    "gb": 1e9,
    "g": 1e9,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
    "%": 0.01,
}
QUANTITY = r"-?\d[\d_]*(?:\.\d+)?(?:\s*\*\s*\d[\d_]*(?:\.\d+)?)*\s*(?:\*\s*)?(?:time\.|chrono::)?(?:[A-Za-z%]+)?"
VALUE = rf"(?:{QUANTITY}|true|false|True|False|None|null|nil|\"[^\"]*\"|'[^']*'|[A-Za-z_][\w.-]*)"
SETTING = re.compile(
    rf"[\"']?(?P<name>[A-Za-z_][\w.-]*)[\"']?\s*(?::=|=(?!=)|:(?!:)|=>)\s*(?:[A-Za-z_][\w.]*(?:\[[^\]]*\])?"
    rf"(?:\s*\|\s*[\w.\[\]]+)*\s*=\s*)?(?P<value>{VALUE})(?=\s*(?:$|[,;)}}\]#/]|//))"
)
CALLED_WITH = re.compile(rf"(?P<name>[A-Za-z_][\w.]*)\((?P<before>[^()]*?,)?\s*(?P<value>{QUANTITY})\s*\)")
DEFAULTED = re.compile(rf"\w\(\s*[\"'](?P<name>[A-Za-z_][\w.-]*)[\"']\s*,\s*[\"']?(?P<value>{QUANTITY})[\"']?\s*\)")
KEYWORD_VALUE = re.compile(r"\b(?P<name>LIMIT|OFFSET|TOP|TIMEOUT|MAXLEN|FETCH FIRST)\s+(?P<value>\d+)", re.IGNORECASE)
SLICE = re.compile(r"(?P<name>[A-Za-z_][\w.]*)\[:(?P<value>\d+)\]")
COMPARED = re.compile(r"(?P<name>[A-Za-z_][\w.()]*)\s*(?P<op><=|>=|<|>|==|!=)\s*(?P<value>-?\d[\w.]*)")

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
GUARD = re.compile(r"\b(?:if|unless|elif|else if|assert|guard|require|when)\b|\?\?|\?\.|\|\||\b(?:or|and)\b")
CATCH = re.compile(r"\b(?:try|except|catch|rescue|recover|finally|ensure)\b")
REGEX = re.compile(
    r"(?:re\.(?:compile|match|search|sub|fullmatch|split|findall)|regexp\.\w+|RegExp|Pattern\.compile|Regex::new|\br?[\"'/]\^)"
)
PORTABLE = re.compile(
    r"version_info|python_version|\bPY[23]\b|\bsix\.|\bbasestring\b|\b_?text_type\b|\bunicode\)|\bstring_types\b|TYPE_CHECKING|"
    r"sys\.platform|os\.name|runtime\.GOOS|__version__"
)
LITERAL_REGEX = re.compile(REGEX.pattern + r".*[\"'`/]|(?i:regex|pattern|_re)\w*\s*[:=].*[\"'`]")
CLAUSE = re.compile(
    r"\b(LIMIT|WHERE|INDEX|DISTINCT|ORDER BY|GROUP BY|JOIN|ON CONFLICT|FOR UPDATE|"
    r"SKIP LOCKED|NOLOCK|RETURNING|UNIQUE|NOT NULL|CASCADE|DROP|ALTER|RENAME|CREATE INDEX|LOCK|SELECT|INSERT|"
    r"UPDATE|DELETE|TRUNCATE)\b"
)
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
    r"(?i)(cache|memo|lru|getorload|singleflight|once|batch|bulk|pool|preload|prefetch|index|paginate|limit|compress|gzip|etag)"
)
FETCHING = re.compile(
    r"(?i)(get|fetch|load|query|find|select|request|send|post|put|read|write|"
    r"call|exec|lookup|list|save|publish|insert|update|scan|open|connect|item|invoke)"
)


DELETED = re.compile(r"(?:del\s+|delete\s*\(?\s*)([A-Za-z_][\w.]*)\s*[\[.,]")
IMPORTED = re.compile(r"(?:import\s+([A-Za-z_]\w*)|from\s+([A-Za-z_]\w*)[\w.]*\s+import)\b")
STANDS_IN = re.compile(r"import\s+([A-Za-z_]\w*)\s+as\s+([A-Za-z_]\w*)")
PLAIN = frozenset(sys.stdlib_module_names) | {"typing_extensions", "six", "importlib_metadata", "importlib_resources", "mock"}
"""Modules that come with the language, and what stands in for newer ones of them."""
DEFAULT = re.compile(r"(?i)default")
LIMIT = re.compile(r"(?i)(?:^|_)(?:max|min|limit|timeout|quota|cap|threshold)(?:_|$|[A-Z])|^max[A-Z]")
SILENT = ("wrong", "refused", "missing", "error", "volume", "payload", "cache", "parse")
"""What another default brings to those who never asked for it: mostly no error of its own."""
PARAMETER = re.compile(
    rf"^\s*(?:def \w+\(.*?\b)?(?P<name>[A-Za-z_]\w*)\s*(?::[^=]+)?=\s*(?P<value>{VALUE})\s*,?\s*(?:\)\s*(?:->.*)?:)?$"
)


REMOVED: tuple[tuple[re.Pattern[str], str, float, tuple[str, ...]], ...] = (
    (RELEASE, "removed release", 0.9, ("memory", "pool", "lock", "queue", "disk", "cpu")),
    (CACHING, "removed caching or batching", 0.9, ("volume", "latency", "query", "throttle", "cache", "cpu")),
    (SAFETY, "removed safety call", 0.8, ("wrong", "retry", "throttle", "lock", "error", "auth", "parse", "missing", "timeout")),
    (SETUP, "removed set-up", 0.95, ("missing", "nil", "error")),
)


def of(commit: Commit) -> list[Delta]:
    """All changes of behaviour of a commit, strongest first; empty if nothing in it acts."""
    found: list[Delta] = []
    acting = [file for file in commit.files if kind_of(file.path) not in IDLE]
    moved = _Moved(acting)
    for file in acting[:FILES]:
        kind = kind_of(file.path)
        if kind == "dependency":
            found += _dependencies(file)
            continue
        for hunk in file.hunks[:HUNKS]:
            found += _hunk(file, kind, hunk, moved)
        if file.status == "D" and kind == "code":
            found.append(Delta(kind="removed file", what=file.path, path=file.path, strength=0.4, causes=("missing", "error")))
    found.sort(key=lambda d: (-d.strength, d.path, d.number))
    return found


def names(commit: Commit) -> tuple[Counter[str], Counter[str]]:
    """Identifiers and literals in lines that were removed and in lines that were added, moved lines left out."""
    moved = _Moved([file for file in commit.files if kind_of(file.path) not in IDLE])
    return moved.removed_words, moved.added_words


class _Moved:
    """Lines of a commit that appear on both sides, and the words of each side."""

    def __init__(self, files: list[FileDiff]) -> None:
        removed: Counter[str] = Counter()
        added: Counter[str] = Counter()
        texts: dict[str, str] = {}
        for file in files:
            for hunk in file.hunks:
                for line in hunk.lines:
                    text = code(line.text, file.path)
                    if text:
                        texts[squash(text)] = text
                    if text and line.tag == "-":
                        removed[squash(text)] += 1
                    elif text and line.tag == "+":
                        added[squash(text)] += 1
        both = removed & added
        self._both = {"-": Counter(both), "+": Counter(both)}
        self.removed_words = _names(removed - both, texts)
        self.added_words = _names(added - both, texts)
        self.added_pieces = {piece for word in self.added_words for piece in words.pieces(word)}
        self.added_text = "\n".join(texts[line] for line in added - both)
        self.removed_text = "\n".join(texts[line] for line in removed - both)
        self.all_added = "\n".join(texts[line] for line in added)

    def take(self, tag: str, text: str) -> bool:
        """Whether this line stands on the other side too."""
        left = self._both[tag]
        if left.get(squash(text), 0) > 0:
            left[squash(text)] -= 1
            return True
        return False


def squash(text: str) -> str:
    """A line without blanks, trailing commas and braces: what remains the same when it is moved or reformatted."""
    return re.sub(r"\s+", "", text).rstrip(",;{")


def code(text: str, path: str) -> str:
    """A line without comments; "" if there is nothing else."""
    stripped = text.strip()
    c_like = re.search(r"\.(c|cc|cpp|h|hpp|cs|go|java|js|jsx|ts|tsx|rs|swift|kt|scala|php|m|proto)$", path)
    if stripped.startswith(("//", "/*", "<!--", '"""', "'''")) or (
        stripped.startswith(("#", "*")) and not (c_like and stripped.startswith("#"))
    ):
        return ""
    if path.endswith(".sql") and stripped.startswith("--"):
        return ""
    stripped = re.sub(r"\s//\s.*$", "", stripped) if c_like else re.sub(r"\s#\s.*$", "", stripped)
    return "" if stripped in ("{", "}", "})", ");", ")", "(", "},", "];", "]", "end", "else:", "} else {", "pass") else stripped


def _names(lines: Counter[str], texts: dict[str, str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for line, number in lines.items():
        for name in re.findall(r"[A-Za-z_$][\w$]*|\d[\d.]*", texts[line]):
            counted[name] += number
    return counted


def _hunk(file: FileDiff, kind: str, hunk: Hunk, moved: _Moved) -> Iterator[Delta]:
    removed: Rows = []
    added: Rows = []
    told = docstrings.lines(hunk) if file.path.endswith((".py", ".pyi")) else set()
    for line in hunk.lines:
        text = code(line.text, file.path) if line.tag != " " and id(line) not in told else ""
        if text and not moved.take(line.tag, text):
            (removed if line.tag == "-" else added).append((line, text))
    if not removed and not added:
        return
    yield from _values(file, kind, hunk, removed, added)
    if kind == "code":
        yield from _defaults(file, hunk, removed, added, moved)
    yield from _operators(file, hunk, removed, added)
    if kind in ("code", "migration", "build"):
        yield from _clauses(file, hunk, removed, added)
        yield from (_toned(delta, len(removed) + len(added)) for delta in _calls(file, hunk, removed, added, moved))
        yield from (_toned(delta, len(removed) + len(added)) for delta in _guards(file, hunk, removed, added, moved))
        yield from _dropped(file, hunk, removed, moved)
        yield from _libraries(file, hunk, removed, added)
        yield from _patterns(file, hunk, removed, added)
        yield from _returned(file, hunk, removed, added)
        for name, what, line, strength in growth.found(hunk, removed, added, moved.all_added, moved.removed_text):
            yield _delta(name, what, file, hunk, line, strength, ("memory", "queue", "cache"), (), side=line.tag)
        yield from _expressions(file, hunk, removed, added)
    yield from _plain(file, kind, hunk, removed, added)


def _toned(delta: Delta, lines: int) -> Delta:
    """Weaker in a large hunk: there code was rewritten, and what seems gone is mostly said in another way."""
    return replace(delta, strength=round(delta.strength * max(0.55, 1.0 - max(0, lines - 10) / 100), 3))


def _values(file: FileDiff, kind: str, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Settings with another value, and settings that are gone."""
    before, after = _settings(removed, file.path), _settings(added, file.path)
    for name, (old, line) in before.items():
        if name not in after:
            if kind == "config" or quantity(old) is not None:
                causes, eases = words.effect(name, True)
                yield _delta("removed setting", name, file, hunk, line, 0.35, causes, eases, old=old)
            continue
        new, new_line = after[name]
        if new == old or _same_text(old, new) or re.search(r"(?i)version|copyright|release|author", name):
            continue
        yield _value_delta(file, hunk, kind, name, old, new, new_line)


def _value_delta(file: FileDiff, hunk: Hunk, kind: str, name: str, old: str, new: str, line: Line) -> Delta:
    a, b = quantity(old), quantity(new)
    unbounded = ("none", "null", "nil")
    if b is None and a is not None and new.lower() in unbounded:
        b = max(a, 1.0) * 1e6
    elif a is None and b is not None and old.lower() in unbounded:
        a = max(b, 1.0) * 1e6
    setting = name.rsplit("#", 1)[0]
    what = f"{setting} {old} -> {new}"
    if a is not None and b is not None:
        causes, eases = words.effect(setting, b > a)
        return _delta("changed value", what, file, hunk, line, _far(a, b), causes, eases, old=old, new=new)
    verbose = new.strip("\"'").lower() in ("debug", "trace", "all", "verbose") and "level" in name.lower()
    causes = ("logging", "disk", "volume", "cpu") if verbose else ()
    switch = {old.strip("\"'").lower(), new.strip("\"'").lower()} <= {
        "true",
        "false",
        "on",
        "off",
        "enabled",
        "disabled",
        "yes",
        "no",
    }
    texts = old[:1] in "\"'" and new[:1] in "\"'"
    if switch or texts:
        causes = ("wrong", "error", "refused", "missing", "parse", "auth")
    strength = 0.9 if verbose else 0.7 if switch else 0.6 if kind == "config" else 0.5 if texts else 0.3
    return _delta("changed value", what, file, hunk, line, strength, causes, (), old=old, new=new)


def _defaults(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: _Moved) -> Iterator[Delta]:
    """Parameters and constants with another default, also where they got another name with it."""
    before = {m["name"]: m["value"] for _, text in removed if (m := PARAMETER.match(text)) and _is_value(m["value"], file.path)}
    after = {
        m["name"]: (m["value"], line) for line, text in added if (m := PARAMETER.match(text)) and _is_value(m["value"], file.path)
    }
    for name, (new, line) in after.items():
        old_name = name if name in before else _renamed(name, before.keys() - after.keys()) or name
        limit = LIMIT.search(name) and quantity(new) is not None and name not in moved.removed_words
        if limit and old_name == name and name not in before:
            causes = ("refused", "payload", "bounds", "timeout", "error")
            yield _delta("new limit", f"{name} = {new}", file, hunk, line, 0.7, causes, (), new=new)
            continue
        old = before.get(old_name, new)
        if old == new or _same_text(old, new) or re.search(r"(?i)version|copyright|release|author", name):
            continue
        if old_name != name or DEFAULT.search(name) or line.text.rstrip().endswith((",", "):", ",)")):
            what = f"{old_name} = {old} -> {name} = {new}"
            a, b = quantity(old), quantity(new)
            strength = 0.9 if a is None or b is None else _far(a, b)
            yield _delta("changed default", what, file, hunk, line, strength, SILENT, (), old=old, new=new)


def _renamed(name: str, gone: Iterable[str]) -> str:
    """Which of these names was replaced by this one: one that ends alike."""
    last = words.pieces(name)[-1:]
    return next((other for other in sorted(gone) if words.pieces(other)[-1:] == last and len(last[0]) > 3), "") if last else ""


def _far(a: float, b: float) -> float:
    """How much a number that became another can do: by how many times it did."""
    ratio = max(abs(a), abs(b)) / max(min(abs(a), abs(b)), 1e-9)
    return 0.4 if ratio < 1.5 else 0.55 if ratio < 2.5 else 0.8 if ratio < 5 else 1.0


def _settings(rows: Rows, path: str) -> dict[str, tuple[str, Line]]:
    found: dict[str, tuple[str, Line]] = {}
    for line, text in rows:
        if SAYS.match((CALL.search(text) or [None, ""])[1] or ""):
            continue
        for form in (SETTING, DEFAULTED, CALLED_WITH, KEYWORD_VALUE, SLICE):
            for match in form.finditer(text):
                name = match["name"] if form is not SLICE else f"{match['name']} length"
                value = match["value"].strip()
                if form is SETTING and not _is_value(value, path):
                    continue
                if form is CALLED_WITH and SAYS.match(name):
                    continue
                key = name
                while key in found and form is not SETTING:
                    key += "#"
                found.setdefault(key, (value, line))
    return found


def _is_value(value: str, path: str) -> bool:
    """A literal, not a variable; in configuration any word is a value."""
    plain = value.strip("\"'")
    if (
        quantity(value) is not None
        or value[:1] in "\"'"
        or plain.lower() in ("true", "false", "on", "off", "none", "null", "nil")
    ):
        return True
    return kind_of(path) == "config" and not path.endswith(".tf")


def quantity(text: str) -> float | None:
    """A number with its unit, in seconds or bytes or ones; None for what is none."""
    text = text.strip().strip("\"'")
    match = re.fullmatch(
        r"(-?\d[\d_]*(?:\.\d+)?(?:\s*\*\s*\d[\d_]*(?:\.\d+)?)*)\s*(?:\*\s*)?(?:[\w]*(?:\.|::))?([A-Za-z%]*)", text
    )
    if not match:
        return None
    product = 1.0
    for part in match[1].split("*"):
        try:
            product *= float(part.strip().replace("_", ""))
        except ValueError:
            return None
    unit = match[2].lower()
    if unit and unit not in UNIT:
        return None
    return product * (UNIT[unit] if unit else 1.0)


def _same_text(old: str, new: str) -> bool:
    return old.strip("\"'`") == new.strip("\"'`")


def _operators(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Lines that are the same but for an operator, a bound or a negation."""
    left = {
        re.sub(r"<=|>=|==|!=|&&|\|\||[<>!]|\bnot\b|\bis\b|\band\b|\bor\b|[+\-*/%]", "~", squash_words(text)): text
        for _, text in removed
    }
    for line, text in added:
        key = re.sub(r"<=|>=|==|!=|&&|\|\||[<>!]|\bnot\b|\bis\b|\band\b|\bor\b|[+\-*/%]", "~", squash_words(text))
        old = left.get(key)
        if old and squash(old) != squash(text) and not text.startswith(("import", "from")):
            yield _delta(
                "changed operator",
                f"{old} -> {text}",
                file,
                hunk,
                line,
                0.8,
                ("wrong", "bounds", "error", "parse", "refused"),
                (),
                old=old,
                new=text,
            )


def squash_words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(",;{ ")


def _clauses(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Clauses of a query that are gone or new."""
    before, after = _clause_words(removed), _clause_words(added)
    for clause in before:
        if before[clause][0] > after.get(clause, (0, None))[0]:
            causes = (
                ("query", "latency", "cpu", "memory")
                if clause in ("LIMIT", "WHERE", "INDEX", "CREATE INDEX", "DISTINCT", "JOIN")
                else ("query", "wrong", "lock")
            )
            yield _delta("removed clause", clause, file, hunk, before[clause][1], 0.9, causes, ())
    for clause in after:
        if clause not in before:
            harsh = clause in (
                "DROP",
                "ALTER",
                "RENAME",
                "TRUNCATE",
                "FOR UPDATE",
                "LOCK",
                "CASCADE",
                "NOT NULL",
                "UNIQUE",
                "DELETE",
            )
            index = clause in ("INDEX", "CREATE INDEX", "LIMIT", "ON")
            brings = ("lock", "query", "missing", "latency", "error") if harsh else ("lock",) if index else ("query", "latency")
            eases = ("query", "latency", "cpu") if index else ()
            yield _delta(
                "added clause", clause, file, hunk, after[clause][1], 0.7 if harsh else 0.15 if index else 0.5, brings, eases
            )


def _clause_words(rows: Rows) -> dict[str, tuple[int, Line]]:
    found: dict[str, tuple[int, Line]] = {}
    for line, text in rows:
        for clause in CLAUSE.findall(text):
            number, first = found.get(clause, (0, line))
            found[clause] = (number + 1, first)
    return found


def _calls(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: _Moved) -> Iterator[Delta]:
    """Calls that are gone, new, or now made once for each of many."""
    before, after = _called(removed), _called(added)
    loops = _in_loops(hunk)
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
        if SAYS.match(name) or _defines(line.text, last):
            continue
        if id(line) in loops and moved.removed_words.get(last, 0) == 0 and FETCHING.search(last):
            causes = ("query", "volume", "latency", "throttle", "cpu", "upstream")
            yield _delta("call in a loop", name, file, hunk, line, 0.6 if looped else 1.0, causes, ())
        elif moved.removed_words.get(last, 0) < moved.added_words.get(last, 0):
            yield _added_call(file, hunk, name, last, line)


def _removed_call(file: FileDiff, hunk: Hunk, name: str, last: str, line: Line, definition: bool, moved: _Moved) -> Delta:
    replaced = any(
        last.lower() in other.lower() or other.lower() in last.lower() for other in moved.added_words if len(other) > 3
    )
    kind, strength = "removed call", 0.55
    causes: tuple[str, ...] = ("missing", "wrong", "error")
    for pattern, named, worth, brings in REMOVED:
        if pattern.search(last):
            kind, strength, causes = named, worth, brings
            break
    if definition:
        strength *= 0.4
    if replaced:
        strength *= 0.35
    return _delta(kind, name, file, hunk, line, strength, causes, (), side="-")


def _added_call(file: FileDiff, hunk: Hunk, name: str, last: str, line: Line) -> Delta:
    causes: tuple[str, ...] = ("latency", "error")
    strength = 0.3
    if re.fullmatch(r"(?i)sleep|delay|usleep|settimeout|time\.after|sleep_?\w+", last):
        causes, strength = ("latency", "timeout", "queue"), 1.0
    elif re.search(r"(?i)wait|block|sync|lock|acquire|join", last):
        causes, strength = ("latency", "lock", "timeout", "queue"), 0.6
    elif re.search(r"(?i)append|push|add|put|store|cache|register|listen|subscribe|track|retain", last):
        causes, strength = ("memory", "queue", "latency"), 0.4
    elif re.search(r"(?i)compile|regex|sort|deepcopy|clone|copy|hash|encrypt|serialize|dumps|marshal|scan|walk|recurs", last):
        causes, strength = ("cpu", "latency", "memory"), 0.45
    elif FETCHING.match(last):
        causes, strength = ("latency", "query", "volume", "error", "upstream"), 0.4
    return _delta("added call", name, file, hunk, line, strength, causes, ())


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


def _in_loops(hunk: Hunk) -> set[int]:
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


def _dropped(file: FileDiff, hunk: Hunk, removed: Rows, moved: _Moved) -> Iterator[Delta]:
    """Entries that are no longer taken out of a container."""
    for line, text in removed:
        match = DELETED.match(text)
        if match and not re.search(
            rf"(?:\bdel\s+|\bdelete\b\W*){re.escape(match[1])}\b|{re.escape(match[1])}\.(?:pop|remove|discard|clear)",
            moved.added_text,
        ):
            causes = ("memory", "pool", "lock", "queue", "wrong")
            yield _delta("removed release", text[:80], file, hunk, line, 0.9, causes, (), side="-")


def _libraries(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Another package imported in the place of one: the same thing done by other code."""
    before = {m[1] or m[2]: line for line, text in removed if (m := IMPORTED.match(text))}
    after = {m[1] or m[2]: line for line, text in added if (m := IMPORTED.match(text))}
    gone, fresh = before.keys() - after.keys() - PLAIN, after.keys() - before.keys() - PLAIN
    stands_in = {m[1] for _, text in added if (m := STANDS_IN.match(text)) and m[2] in (*before, *after) and m[1] not in PLAIN}
    if (gone and fresh) or stands_in:
        name = sorted(stands_in or fresh)[0]
        gone = gone or set(before) or {name}
        causes = ("wrong", "parse", "error", "missing", "latency", "cpu")
        yield _delta("other package used", f"{sorted(gone)[0]} -> {name}", file, hunk, after[name], 0.55, causes, ())


def _guards(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows, moved: _Moved) -> Iterator[Delta]:
    """Conditions that are gone, loosened or tightened, and errors that are no longer caught."""
    added_text = moved.added_text
    for line, text in removed:
        if PORTABLE.search(text):
            continue
        caught = CATCH.match(text)
        if not caught and not re.match(r"(?:\}?\s*(?:else\s+)?(?:if|unless|elif|assert|guard|require|when)\b)", text):
            continue
        asked = text.split(";", 1)[1] if re.match(r"(\}?\s*else )?if .*:=.*;", text) else text
        parts = set(re.findall(r"[A-Za-z_$][\w$]*|\d[\d.]*", re.split(r"\{|:$|\breturn\b|\braise\b", asked)[0])) - {
            "if",
            "else",
            "elif",
            "return",
        }
        kept = {part for part in parts if part in added_text}
        if parts and len(kept) >= 0.7 * len(parts):
            if kept != parts:
                yield _delta(
                    "changed condition",
                    text,
                    file,
                    hunk,
                    line,
                    0.45,
                    ("wrong", "error", "bounds", "missing", "refused"),
                    (),
                    side="-",
                )
            continue
        brings: tuple[str, ...] = ("crash", "error", "upstream") if caught else _guarded(text)
        yield _delta("removed guard", text, file, hunk, line, 0.95, brings, (), side="-")
    if not removed:
        for line, text in added:
            if re.match(r"(?:\}?\s*(?:else\s+)?(?:if|unless|elif|assert|guard|require)\b|raise\b|throw\b)", text):
                raising = bool(re.search(r"raise|throw|panic|abort|return.*err", text + _next(hunk, line)))
                yield _delta(
                    "added condition",
                    text,
                    file,
                    hunk,
                    line,
                    0.65 if raising else 0.25,
                    ("error", "parse", "missing", "refused") if raising else ("wrong",),
                    ("nil", "crash", "bounds"),
                )


def _next(hunk: Hunk, line: Line) -> str:
    """The two lines after this one."""
    for index, other in enumerate(hunk.lines):
        if other is line:
            return " ".join(following.text for following in hunk.lines[index + 1 : index + 3])
    return ""


def _guarded(text: str) -> tuple[str, ...]:
    if re.search(r"\bnil\b|\bnull\b|None|undefined|\?\.|\?\?", text):
        return ("nil", "crash", "error", "missing")
    if re.search(r"len\(|length|size|count|max|limit|capacity|full", text, re.IGNORECASE):
        return ("bounds", "crash", "error", "memory", "queue", "payload", "refused")
    if re.search(r"<|>|empty", text, re.IGNORECASE):
        return ("bounds", "crash", "error", "wrong")
    return ("error", "wrong", "missing", "parse", "auth", "crash", "cache")


def _patterns(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Regular expressions, names of fields and addresses that became others."""
    known = {e for _, text in removed for e in regexes.expressions(text)}
    worst = max((regexes.danger(e) for e in known), default=0.0)
    for line, text in added:
        fresh = [e for e in regexes.expressions(text) if e not in known]
        danger = max((regexes.danger(e) for e in fresh), default=0.0)
        used = bool(REGEX.search(text) or LITERAL_REGEX.search(text) or known)
        if danger > worst and fresh:
            causes: tuple[str, ...] = ("cpu", "latency", "timeout")
            yield _delta(
                "pattern that can backtrack", max(fresh, key=len)[:120], file, hunk, line, 0.5 + 0.7 * danger, causes, ()
            )
        elif fresh and used:
            causes = ("cpu", "latency", "parse", "wrong", "timeout", "missing")
            yield _delta("changed pattern", max(fresh, key=len)[:120], file, hunk, line, 0.75 if known else 0.5, causes, ())
    old_names, after = _literals(removed), _literals(added)
    for literal in sorted(set(old_names) - set(after)):
        if re.fullmatch(r"[\w.:/{}-]{2,60}", literal) and old_names[literal] and quantity(literal) is None:
            others = sorted(set(after) - set(old_names))
            if others and not SAYS.match((CALL.search(old_names[literal].text.strip()) or ["", ""])[1]):
                causes = (
                    ("dns", "upstream", "missing")
                    if re.search(r"://|\.\w+:\d|localhost", literal)
                    else ("missing", "parse", "wrong", "auth", "nil", "cache")
                )
                yield _delta(
                    "changed name",
                    f"{literal} -> {others[0]}",
                    file,
                    hunk,
                    after[others[0]],
                    0.5,
                    causes,
                    (),
                    old=literal,
                    new=others[0],
                )
                return


def _returned(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Another constant returned."""
    form = re.compile(rf"return\s+(?P<value>{VALUE})\s*;?$")
    before = [m["value"] for _, text in removed if (m := form.match(text))]
    after = [(m["value"], line) for line, text in added if (m := form.match(text))]
    for old, (new, line) in zip(before, after, strict=False):
        if old != new and not _same_text(old, new):
            causes = ("wrong", "error", "bounds", "missing", "refused", "memory")
            yield _delta("changed value", f"return {old} -> {new}", file, hunk, line, 0.6, causes, (), old=old, new=new)


def _expressions(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Lines that became alike but other ones: another argument, another operand, another thing returned."""
    left = [(line, text, re.findall(r"\w+|[^\w\s]", text)) for line, text in removed]
    for line, text in added:
        tokens = re.findall(r"\w+|[^\w\s]", text)
        if (
            len(tokens) < 4
            or only_says(text)
            or re.match(r"raise|throw|__version__|version\b", text)
            or text.startswith(("import ", "from ", "def ", "class ", "func ", "@"))
        ):
            continue
        best, old = max(((_alike(tokens, other), before) for _, before, other in left), default=(0.0, ""))
        if 0.55 <= best < 1.0:
            bare = [re.sub(r"\"[^\"]*\"|'[^']*'|\b\d[\d_.]*\b", "~", side) for side in (old, text)]
            if squash(bare[0]) != squash(bare[1]):
                causes = ("wrong", "error", "missing", "bounds", "parse")
                yield _delta("changed expression", f"{old} -> {text}", file, hunk, line, 0.5, causes, (), old=old, new=text)
                return
            if squash(old) != squash(text) and not any(SETTING.search(side) or CALLED_WITH.search(side) for side in (old, text)):
                causes = ("wrong", "bounds", "memory", "queue", "pool", "lock", "error")
                yield _delta("changed value", f"{old} -> {text}", file, hunk, line, 0.6, causes, (), old=old, new=text)
                return


def _alike(a: list[str], b: list[str]) -> float:
    """Share of tokens that two lines have in common, from both ends."""
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    return (head + tail) / max(len(a), len(b))


def _literals(rows: Rows) -> dict[str, Line]:
    return {literal: line for line, text in rows for literal in re.findall(r"[\"'`]([^\"'`]{2,80})[\"'`]", text)}


def _plain(file: FileDiff, kind: str, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """What remains: lines of behaviour that changed in no way known here, weak; text and measurements only, almost nothing."""
    acting = [(line, text) for line, text in (*added, *removed) if not only_says(text)]
    if not acting:
        line = (added or removed)[0][0]
        yield _delta("text or measurement", line.text.strip()[:80], file, hunk, line, 0.05, ("logging",), (), side=line.tag)
    elif removed and added:
        yield _delta("rewritten", acting[0][1][:80], file, hunk, acting[0][0], 0.25, (), (), side=acting[0][0].tag)
    elif added:
        fresh = file.status == "A" or re.match(
            r"(func|def|class|function|fn|public|private|export|async def|type)\b", acting[0][1]
        )
        yield _delta("added code", acting[0][1][:80], file, hunk, acting[0][0], 0.15 if fresh else 0.25, (), ())
    else:
        yield _delta("removed code", acting[0][1][:80], file, hunk, acting[0][0], 0.35, (), (), side="-")


@lru_cache(maxsize=50_000)
def only_says(text: str) -> bool:
    """Whether a line only logs, measures, imports or is a text."""
    call = CALL.search(text)
    return (
        text.startswith(("import ", "from ", "require", "using ", "#include", "package ", "use "))
        or bool(call and SAYS.match(call[1]))
        or bool(re.fullmatch(r"[\"'`].*[\"'`],?\)?", text))
    )


def _dependencies(file: FileDiff) -> Iterator[Delta]:
    """Packages with another version."""
    before: dict[str, str] = {}
    after: dict[str, tuple[str, Line, str]] = {}
    for hunk in file.hunks:
        context = ""
        for line in hunk.lines:
            named = NAMED.search(line.text)
            context = named[1] or named[2] if named else context
            match = PINNED.search(line.text)
            if not match or line.tag == " ":
                continue
            name = context if match[1] == "version" else match[1]
            if line.tag == "-":
                before[name] = match[2]
            else:
                after[name] = (match[2], line, hunk.within)
    for name, (new, line, within) in after.items():
        old = before.get(name)
        if old and old != new and name:
            strength = (
                0.6 if old.split(".")[0] != new.split(".")[0] else 0.45 if old.split(".")[:2] != new.split(".")[:2] else 0.25
            )
            yield Delta(
                kind="upgraded package",
                what=f"{name} {old} -> {new}",
                path=file.path,
                strength=strength,
                side="+",
                number=line.number,
                text=line.text,
                old=old,
                new=new,
                within=within,
            )


def _delta(
    kind: str,
    what: str,
    file: FileDiff,
    hunk: Hunk,
    line: Line,
    strength: float,
    causes: tuple[str, ...],
    eases: tuple[str, ...],
    *,
    side: str = "",
    old: str = "",
    new: str = "",
) -> Delta:
    weight = (0.6 if kind_of(file.path) == "build" else 1.0) * (0.5 if file.status == "A" else 1.0)
    return Delta(
        kind=kind,
        what=what[:160],
        path=file.path,
        strength=round(strength * weight, 3),
        causes=causes,
        eases=eases,
        side=side or line.tag,
        number=line.number,
        text=line.text,
        old=old,
        new=new,
        within=hunk.within,
    )
