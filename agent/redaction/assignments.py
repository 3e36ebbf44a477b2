"""Secrets that only their name gives away: `password=...`, `"apiKey": "..."`, a header. It judges names and values.

The name must end where the secret's word ends (`token_count`, `secretName` are none), and a value that looks like code, a message
or a reference (`settings["X"]`, `${X}`, `must not be empty`) stays, because logs and code are evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

KEY_NAMES = tuple(
    f"{first}{joint}key"
    for first in (
        "api", "access", "secret", "private", "auth", "account", "encryption", "signing", "master", "storage", "service",
        "license", "client", "app", "admin", "root", "hmac", "aes", "session", "subscription", "deploy", "webhook", "ingest",
    )
    for joint in ("", "_", "-", " ")
)  # fmt: skip
NOT_SECRET_NAMES = ("public", "cache", "partition", "primary", "foreign", "page", "sync", "cancellation", "sort", "csrf_field")
STRONG = ("pass", "pwd", "credential")
"""Names whose values are secrets even if they are plain words."""

ASSIGNED = re.compile(
    r"""
    (?:word|wd|code|phrase|s)?(?:_?(?:value|plaintext|v?\d))?
    (?P<close>\\{0,3}["'`])?\]?
    (?: [ ]{0,3}(?P<sep>=>|:=|={1,3}|!=|:|%3d)[ ]{0,3} | (?P<tag>>) | (?P<gap>[ ]+) )
    (?: (?P<quote>\\{0,3}["'`])(?P<quoted>(?:(?!(?P=quote)|[\r\n]).){1,4096})(?:(?P=quote)|(?=[\r\n]|$))
      | (?P<bare>[^\s"'`&;,<>\\]{1,4096}) )
    """,
    re.VERBOSE,
)
REFERENCE = re.compile(
    r"""[$%#@]?[{<(\[%$].*|\$\w+|@\w+@|[*•.xX?_-]+|(?:%[sdrv])|(.)\1*"""
    r"""|(?i:none|null|nil|true|false|undefined|required|optional|str|string|bytes|secret\w*|password\w*|passwd|pwd|token|redacted)""",
)
CODE = re.compile(
    r"""[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(.*|\[.*)|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\(.*|.*\)\s*[:;]?|[a-z]+(?:_[a-z]+)+|lambda|await|not"""
)
NAME_WORD = re.compile(r"(?i)pass|secret|token|key|cred|pwd|env|config|setting|param")


def assigned(text: str, low: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The value that follows a secret's name, if it is one."""
    word = low[start:end]
    if word == "key" and not low.endswith(KEY_NAMES, max(0, end - 20), end):
        return
    if word == "pass" and low[start - 1 : start].isalnum() and not low.startswith(("word", "wd", "phrase", "code"), end):
        return  # compass, bypass
    match = ASSIGNED.match(low, end)
    if match is None or not _may_follow(match, low, start):
        return
    part = "quoted" if match["quoted"] is not None else "bare"
    left, right = match.span(part)
    value = text[left:right]
    if part == "bare":
        trimmed = value.rstrip(".)]}") if not CODE.fullmatch(value) else value
        value, right = trimmed, left + len(trimmed)
    if _is_secret(value, strong=word.startswith(STRONG), quoted=part == "quoted", sep=match["sep"] or match["tag"] or " "):
        yield left, right, f"secret:{_kind(low, start, word)}"


def _may_follow(match: re.Match[str], low: str, start: int) -> bool:
    """A space between name and value is for command lines (`--password x`) and SQL (`PASSWORD 'x'`); names are not compared."""
    name = re.search(r"[\w.-]*\Z", low[max(0, start - 40) : start])
    before = name[0] if name else ""
    if before.rstrip("_-.").endswith(NOT_SECRET_NAMES):
        return False
    if match["sep"] in ("==", "===", "!=") and match["bare"] is not None:
        return False
    if match["gap"]:
        return (before.startswith("--") and match["bare"] is not None and match["bare"][0] != "-") or match["quoted"] is not None
    return match["tag"] is None or low[max(0, start - len(before) - 1) : start - len(before)] == "<"


def _kind(low: str, start: int, word: str) -> str:
    if word.startswith(STRONG):
        return "password"
    return "token" if word == "token" else "key" if word == "key" else "secret"


def _is_secret(value: str, *, strong: bool, quoted: bool, sep: str) -> bool:
    if len(value) < (4 if strong else 8) or REFERENCE.fullmatch(value):
        return False
    if quoted and re.search(r"\s", value):
        return strong and len(value.split()) >= 3 and any(c.isdigit() for c in value)
    if not quoted and (CODE.fullmatch(value) or (NAME_WORD.search(value) and value.replace("_", "").isalpha())):
        return False
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    if strong:
        return quoted or mixed or not value.isalpha() or sep in ("=", ">")
    return mixed or (len(value) >= 20 and any(c.isupper() for c in value) and any(c.islower() for c in value))


AUTHORIZATION = re.compile(
    r"""\\{0,3}["'\]]*\s{0,3}[:=,]\s{0,3}\[?\\{0,3}["']?\s*
    (?:(?i:basic|bearer|token|digest|apikey|api-key|negotiate|bot|key|splunk|genietoken)\s+)?
    (?P<secret>[^\s"',;\\]{6,4096})""",
    re.VERBOSE,
)
BEARER = re.compile(r"(?:\s+|%20|\+)(?P<secret>[\w.~+/=-]{8,4096})", re.ASCII)
COOKIE = re.compile(
    r"""\\{0,3}["'\]]*\s{0,3}[:=]\s{0,3}\\{0,3}["']?(?P<secret>[\w.!#$%&*+^`|~-]{1,64}=[^\r\n"'\\]{4,8192})""", re.ASCII
)


def authorization(text: str, low: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The credentials of an Authorization header."""
    match = AUTHORIZATION.match(text, end)
    if match and _opaque(match["secret"]):
        yield *match.span("secret"), "secret:authorization"


def bearer(text: str, low: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """A bearer token without its header's name (RFC 6750)."""
    match = BEARER.match(text, end)
    if match and _opaque(match["secret"]):
        yield *match.span("secret"), "secret:bearer-token"


def cookie(text: str, low: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """All cookies of a header."""
    if match := COOKIE.match(text, end):
        yield *match.span("secret"), "secret:cookie"


def _opaque(value: str) -> bool:
    """Not a word of prose or a name in code."""
    if REFERENCE.fullmatch(value) or CODE.fullmatch(value):
        return False
    return any(c.isdigit() for c in value) or (len(value) >= 16 and not value.isalpha()) or len(value) >= 24
