"""The vocabulary: how text becomes words, and which words speak of which kind of trouble. General to the field, of no one
system."""

from __future__ import annotations

import re
from functools import lru_cache

PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
FOREIGN = re.compile(r"\w*[^\W\x00-\x7f]\w*")
"""Words with letters that no identifier of ours has: their pieces are no words."""
NAME = re.compile(r"[A-Za-z_$][\w$]*")

COMMON = frozenset(
    [
        "the",
        "a",
        "an",
        "and",
        "or",
        "of",
        "to",
        "in",
        "on",
        "at",
        "by",
        "for",
        "from",
        "with",
        "without",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "has",
        "have",
        "had",
        "not",
        "no",
        "yes",
        "as",
        "it",
        "its",
        "this",
        "that",
        "then",
        "than",
        "if",
        "else",
        "when",
        "while",
        "do",
        "does",
        "did",
        "done",
        "will",
        "would",
        "can",
        "could",
        "should",
        "may",
        "might",
        "must",
        "func",
        "function",
        "def",
        "return",
        "returns",
        "var",
        "let",
        "const",
        "type",
        "struct",
        "class",
        "public",
        "private",
        "static",
        "final",
        "void",
        "int",
        "string",
        "str",
        "bool",
        "float",
        "import",
        "package",
        "module",
        "self",
        "new",
        "err",
        "error",
        "errors",
        "ctx",
        "context",
        "nil",
        "null",
        "none",
        "true",
        "false",
        "get",
        "set",
        "log",
        "info",
        "warn",
        "debug",
        "level",
        "msg",
        "message",
        "service",
        "svc",
        "time",
        "data",
        "value",
        "values",
        "name",
        "key",
        "id",
        "args",
        "kwargs",
        "result",
        "res",
        "req",
        "request",
        "response",
        "resp",
        "item",
        "items",
        "list",
        "map",
        "test",
        "tests",
        "code",
        "api",
        "http",
        "server",
        "client",
        "app",
        "main",
        "init",
        "call",
        "called",
        "calls",
        "fmt",
        "utils",
        "util",
        "common",
        "base",
        "file",
        "line",
        "python",
        "go",
        "java",
        "js",
        "ts",
        "src",
        "lib",
        "pkg",
        "internal",
        "usr",
        "local",
        "site",
        "packages",
        "io",
        "net",
        "com",
        "org",
        "per",
        "min",
        "mins",
        "sec",
        "ms",
        "mb",
        "kb",
        "gb",
        "above",
        "below",
        "over",
        "under",
        "usual",
        "usually",
        "more",
        "less",
        "fewer",
        "most",
        "any",
        "anything",
        "nothing",
        "some",
        "only",
        "after",
        "before",
        "while",
        "since",
        "again",
        "too",
        "long",
        "rises",
        "falls",
        "xx",
        "start",
        "started",
        "starting",
        "py",
    ]
)

FACETS: dict[str, str] = {
    "timeout": r"deadline|time[d]?[ _-]?out|timed out|context cancel|cancelled|canceled|abandon",
    "nil": r"nil pointer|null ?pointer|nonetype|null reference|undefined is not|cannot "
    r"read propert|is not a function|segfault|segmentation|invalid memory address",
    "missing": r"not found|missing|no such|unknown|unregistered|undefined|keyerror|not "
    r"registered|does not exist|unresolved|attributeerror|importerror|modulenotfound|no attribute",
    "type": r"object has no attribute|unsupported operand|not subscriptable|not iterable|bytes-like|must be (?:str|bytes|int|a )|"
    r"expected (?:str|bytes|int|dict|list)|can't concat|positional argument|unexpected keyword|not callable",
    "retry": r"retr(?:y|ies)|attempt|exhausted|backoff|budget",
    "pool": r"\bpool|connections?\b|too many (?:clients|connections)|acquire|checkout "
    r"timeout|max_conn|open_fds|file descriptor|too many open files|sockets?\b|handles?\b",
    "throttle": r"throttl|rate.?limit|\b429\b|quota|throughput|slow ?down|capacity",
    "disk": r"no space|disk|read-only file|enospc|volume|inode|filesystem",
    "memory": r"\boom|out of memory|heap|memory|\brss\b|leak|\bgc\b|garbage|allocat|resident|objects",
    "cpu": r"\bcpu|load average|spin|saturat|busy",
    "latency": r"latency|duration|p9\d|p50|slow|response time|elapsed|seconds_(?:sum|bucket)|took",
    "cache": r"cache|hit.?ratio|hit.?rate|\bmiss(?:es)?\b|evict",
    "query": r"query|queries|select |rows|statement|\bsql\b|\bdb_|database|full scan|index|per_request",
    "volume": r"requests?_per|calls?_per|_per_request|per_sec|_rps|\bqps\b|\brps\b|throughput|per_minute|per_min|"
    r"count_per|calls?_total|capacity|requests_total|lps|bytes_out|egress",
    "auth": r"unauthori[sz]ed|forbidden|\b401\b|\b403\b|permission|access denied|token|credential|signature|login",
    "tls": r"certificate|x509|\btls\b|ssl|handshake",
    "parse": r"unmarshal|marshal|decode|encod|parse|invalid|schema|malformed|unexpected "
    r"(?:token|type|field|key)|validation|out of range|typeerror|valueerror|cast|convert|format",
    "lock": r"deadlock|lock wait|\block|contention|mutex|serializ|blocked",
    "dns": r"no such host|name resolution|nxdomain|resolve|dns|connection refused|unreachable|no route",
    "queue": r"\blag\b|backlog|queue|oldest|redeliver|offset|pending|stale|behind",
    "crash": r"panic|crash|restart|killed|exit(?:ed)?\b|fatal|abort|unhandled|uptime",
    "logging": r"log_|log volume|lines|lps|verbose|processing record|\bdebug\b",
    "bounds": r"index out of|out of bounds|overflow|underflow|negative|divi(?:de|sion) by zero|range",
    "wrong": r"mismatch|incorrect|wrong|inconsisten|duplicate|discrepan|unbalanced|total|amount|drift",
    "payload": r"too large|413|body|payload|max.?size|entity",
    "upstream": r"upstream|502|503|504|bad gateway|unavailable|downstream",
    "refused": r"refus|reject|denied|\b422\b|\b400\b|4xx|turned away|too (?:many|large|long)",
    "error": r"error|fail|5xx|\b500\b|exception",
    "recursion": r"recursion|stack overflow|maximum depth",
}
PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in FACETS.items()}

RISE_FALL: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("timeout deadline wait budget", ("latency", "pool", "queue"), ("timeout", "retry", "upstream")),
    (
        "ttl expiry expire expires expiration maxage lifetime",
        ("memory", "queue", "wrong", "disk"),
        ("cache", "query", "volume", "cpu", "auth"),
    ),
    ("retry retries attempts tries", ("volume", "throttle", "latency"), ("retry", "timeout", "crash")),
    (
        "backoff delay sleep interval period jitter frequency cooldown debounce",
        ("latency", "queue"),
        ("volume", "cpu", "throttle", "query"),
    ),
    ("pool conns connections conn idle", ("memory", "pool"), ("pool", "latency", "timeout")),
    (
        "threads workers concurrency parallelism parallel processes replicas shards partitions executors",
        ("memory", "cpu", "throttle", "pool", "lock"),
        ("queue", "latency", "pool", "timeout"),
    ),
    ("batch chunk bulk prefetch", ("memory", "timeout", "latency", "payload"), ("volume", "throttle", "latency", "query")),
    ("memory heap mem xmx ram", (), ("memory", "crash")),
    ("cpu cores millicores", (), ("cpu", "latency", "throttle")),
    ("sample sampling verbosity level verbose debug trace", ("logging", "disk", "volume", "cpu"), ()),
    (
        "limit max maximum size capacity buffer quota depth length page top",
        ("memory", "latency", "query", "disk", "payload"),
        ("throttle", "queue", "payload", "bounds", "pool", "missing"),
    ),
    ("threshold tolerance ratio rate weight factor", ("wrong", "throttle", "error"), ("wrong", "throttle", "error")),
)


SWITCHES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "deep copy clone recursive full eager all sync fsync flush strict thorough verify",
        ("latency", "cpu", "memory"),
        ("wrong",),
    ),
    (
        "cache cached reuse keep pool lazy stream batch compress gzip index incremental",
        ("memory", "wrong"),
        ("latency", "volume", "cpu"),
    ),
    ("reload debug verbose trace echo", ("latency", "cpu", "logging"), ()),
    ("weak close autoclose evict prune expire", (), ("memory", "pool")),
    ("follow redirect redirects absolute correct normalize", ("wrong", "upstream"), ("wrong", "missing", "refused", "upstream")),
    ("sort sorted ascii escape autoescape strip trim", ("wrong", "parse"), ("wrong", "parse")),
)
"""What switching something of this name on brings, and what switching it off."""

TOPICS: tuple[tuple[str, str], ...] = (
    ("wait sleep delay backoff interval pause schedule jitter", "latency timeout retry"),
    ("retry attempt tries", "retry latency volume"),
    ("cache memo lru evict expire expiry ttl maxsize sizeof weak gc", "memory cache latency"),
    ("pool acquire release close socket connection conn session", "pool latency memory"),
    ("regex regexp pattern re match lexer token scan strip split", "cpu latency parse"),
    ("loop recurse recursion sort copy deepcopy walk traverse", "cpu latency"),
    ("buffer queue backlog", "memory queue"),
    ("redirect location header cookie host url", "wrong upstream refused"),
    ("parse load dump decode encode format serialize deserialize convert cast", "parse wrong"),
    ("auth token sign verify key credential permission login", "auth refused"),
    ("round amount total sum price rate tax quantity", "wrong"),
    ("lock mutex semaphore thread async", "lock latency"),
)


@lru_cache(maxsize=200_000)
def pieces(name: str) -> tuple[str, ...]:
    """The words within an identifier, in lower case: MaxIdle is max, idle."""
    return tuple(p.lower() for p in PIECE.findall(name))


def words(text: str) -> list[str]:
    """Words of a text: identifiers whole (in lower case) and in pieces, without common ones."""
    found: list[str] = []
    for name in NAME.findall(FOREIGN.sub(" ", text) if not text.isascii() else text):
        found += _of_name(name)
    return found


@lru_cache(maxsize=200_000)
def _of_name(name: str) -> tuple[str, ...]:
    parts = pieces(name)
    told = tuple(_stem(p) for p in parts if len(p) > 1 and p not in COMMON and not p.isdigit())
    return (name.lower(), *told) if len(parts) > 1 and len(name) > 5 else told


def _stem(word: str) -> str:
    for end in ("ies", "ing", "ed", "es", "s"):
        if word.endswith(end) and len(word) - len(end) >= 4:
            return word[: -len(end)] + ("y" if end == "ies" else "")
    return word


def facets(text: str) -> set[str]:
    """The kinds of trouble that a text speaks of."""
    return {name for name, pattern in PATTERNS.items() if pattern.search(text)}


def effect(name: str, rises: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a setting of this name causes when it rises (or falls), and what the opposite would."""
    parts = {_stem(p) for p in pieces(name)} | set(pieces(name))
    for keys, up, down in RISE_FALL:
        if parts & set(keys.split()):
            return (up, down) if rises else (down, up)
    return (), ()


def switched(name: str, on: bool) -> tuple[str, ...]:
    """What switching something of this name on (or off) brings."""
    parts = {_stem(p) for p in pieces(name)} | set(pieces(name))
    return tuple(facet for keys, yes, no in SWITCHES if parts & set(keys.split()) for facet in (yes if on else no))


@lru_cache(maxsize=100_000)
def topics(text: str) -> frozenset[str]:
    """The kinds of trouble that code with these names is about."""
    parts = {_stem(p) for name in NAME.findall(text) for p in pieces(name)}
    return frozenset(facet for keys, brought in TOPICS if parts & set(keys.split()) for facet in brought.split())
