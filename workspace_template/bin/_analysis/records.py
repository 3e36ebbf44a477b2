"""What the fields of a structured log record mean, and the level of any line."""

from __future__ import annotations

import re
from typing import Any

from _analysis.stacktraces import raises

LEVEL = re.compile(r"\b(FATAL|CRITICAL|PANIC|EMERG|ALERT|ERROR|ERR|SEVERE|WARNING|WARN|NOTICE|INFO|DEBUG|TRACE)\b", re.IGNORECASE)
RANK = {"TRACE": 0, "DEBUG": 0, "INFO": 1, "NOTICE": 1, "WARN": 2, "WARNING": 2, "ERROR": 3, "ERR": 3, "SEVERE": 3}
TIMES = ("timestamp", "@timestamp", "time", "ts", "datetime", "date", "eventTime", "event_time", "asctime", "t", "timeUnixNano",
         "observedTimeUnixNano", "Timestamp", "@t", "__REALTIME_TIMESTAMP", "_time", "TimeGenerated")  # fmt: skip
TEXTS = ("msg", "message", "body", "log", "event", "text", "line", "short_message", "textPayload", "Message", "MESSAGE", "@m",
         "@mt", "RenderedMessage", "MessageTemplate", "_raw", "LogMessage")  # fmt: skip
LEVELS = ("level", "severity_text", "severity", "levelname", "lvl", "log.level", "loglevel", "severityText", "Level", "LogLevel",
          "@l")  # fmt: skip
SERVICES = (
    "service",
    "service.name",
    "service_name",
    "serviceName",
    "app",
    "application",
    "svc",
    "app_name",
    "appName",
    "Application",
    "_service",
    "SYSLOG_IDENTIFIER",
    "_SYSTEMD_UNIT",
    "AppRoleName",
    "ContainerName",
    "component",
    "container",
    "job",
    "logger",
)
DOTNET = {"crit:": "FATAL", "fail:": "ERROR", "warn:": "WARN"}
DETAILS = ("error", "err", "exception", "exc_info", "stack", "stacktrace", "stack_trace", "error.message", "error.stack_trace",
           "exception.message", "exception.stacktrace", "Exception", "@x")  # fmt: skip


def pick(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these fields that says anything."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    return None


def service_within(record: dict[str, Any]) -> str:
    """The service that a nested part of a record names, or ""."""
    for outer in ("labels", "resource", "kubernetes", "attributes", "fields"):
        inner = record.get(outer)
        if isinstance(inner, dict):
            found = pick(inner, (*SERVICES, "container_name", "pod")) or service_within(inner)
            if isinstance(found, str) and found:
                return found
    return ""


def rank(level: str, message: str) -> int:
    """The level of a line from 0 (debug) to 4 (fatal), by its name or by what the line says."""
    name = level.upper()
    if not name:
        match = LEVEL.search(message, 0, 80)
        name = match[1].upper() if match else DOTNET.get(message[:5], "")
        if not name:
            return 3 if raises(message) or message.startswith("panic:") else 1
    if re.fullmatch(r"[0-9]{1,6}", name):
        return 3 if int(name) >= 40 or int(name) in (17, 18, 19, 20) else 2 if int(name) >= 30 else 1
    return RANK.get(name, 4 if name in ("FATAL", "CRITICAL", "PANIC", "EMERG", "ALERT") else 1)
