"""What a line of a log carries around its message: colours, who printed it, a priority, and how a request was answered."""

from __future__ import annotations

import re
from typing import Any

from _analysis.records import pick

COLOURS = re.compile(r"\x1b\[[0-9;]*[mK]")
COMPOSED = re.compile(r"([A-Za-z][\w.-]*?)[-_]\d+\s+\| ?")
POD = re.compile(r"\[pod/[^/\]\s]+/([^/\]\s]+)\] ")
PRIORITY = re.compile(r"<(\d{1,3})>(?:1 (?=\d{4}-))?")
PROGRAM = re.compile(r"\s?[\w.-]+ ([A-Za-z][\w./-]{0,60}?)(?:\[\d+\])?: ")
"""What follows the time of a line of syslog: the host and the program."""
COLLECTED = frozenset(("syslog", "messages", "journal", "journald", "all", "system", "user", "daemon"))
"""Files of a host's programs, and of none in particular."""
ANSWERED = re.compile(
    r'"[A-Z]{3,10} \S{1,2000} HTTP/[\d.]+" ([1-5]\d\d)\b|'  # nginx, Apache, Envoy
    r"(?: -?\d+(?:/-?\d+){3}/\+?\d+) ([1-5]\d\d) |"  # HAProxy
    r' ([1-5]\d\d) (?:-|\d{3}) \d+ \d+ "[A-Z]{3,10} \S{1,2000} HTTP/'  # load balancers of AWS
)
STATUS = ("status", "status_code", "statusCode", "http.status_code", "http.response.status_code", "httpStatus", "response_status",
          "response.status_code")  # fmt: skip
WITHIN = ("http", "res", "response", "httpRequest")
SYSLOG = ("FATAL", "FATAL", "FATAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")


def unwrap(text: str) -> tuple[str, str, str]:
    """The line that a program wrote, the program if the wrapping names one, and the level if it has one."""
    if "\x1b" in text:
        text = COLOURS.sub("", text)
    named = (COMPOSED.match(text) if " | " in text[:80] else None) or (POD.match(text) if text[:5] == "[pod/" else None)
    if named:
        return text[named.end() :], named[1], ""
    level = PRIORITY.match(text) if text[:1] == "<" else None
    if level:
        return text[level.end() :], "", SYSLOG[int(level[1]) % 8]
    return text, "", ""


def program(rest: str) -> str:
    """The program that a line of syslog names after its time, or ""."""
    found = PROGRAM.match(rest)
    return found[1].rpartition("/")[2] if found else ""


def answered(text: str) -> int:
    """The status of an answer that a line of an access log tells of, or 0."""
    found = ANSWERED.search(text) if "HTTP/" in text else None
    return int(found[1] or found[2] or found[3]) if found else 0


def status(record: dict[str, Any]) -> int:
    """The status of an answer that a record tells of, or 0."""
    value = pick(record, STATUS)
    if value is None:
        inner: dict[str, Any] = next((record[name] for name in WITHIN if isinstance(record.get(name), dict)), {})
        value = pick(inner, STATUS)
        value = value.get("status_code") if isinstance(value, dict) else value
    text = str(value)
    return int(text) if len(text) == 3 and text.isdigit() and "100" <= text <= "599" else 0
