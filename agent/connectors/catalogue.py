"""What a source of metrics has, as bounded text: alerts, jobs and metric families, the service's own before those of runtimes.

It asks nobody; it is given what prometheus.py was told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RUNTIME = ("go", "process", "python", "prometheus", "promhttp", "scrape", "node", "net", "jvm", "nodejs", "kube", "alertmanager")

RESOURCES = ("process_resident_memory_bytes", "process_cpu_seconds_total", "container_memory_working_set_bytes")
QUESTIONS = 24


def firing(alerts: Any) -> str:
    alarms = [alert for alert in alerts or () if alert.get("state") == "firing"]
    lines = []
    for alert in alarms[:15]:
        has = dict(alert.get("labels", {}))
        title = _line(has.pop("alertname", "?"), 80)
        labels = _line(", ".join(f"{key}={value}" for key, value in sorted(has.items())), 160)
        lines.append(f"- {title} since {alert.get('activeAt', '?')} ({labels})")
    more = f"\n- and {len(alarms) - 15} more: `instant: ALERTS`" if len(alarms) > 15 else ""
    return "Alerts firing now:\n" + "\n".join(lines) + more if lines else ""


def jobs(up: Sequence[tuple[dict[str, str], list[Any]]]) -> str:
    found: dict[str, list[bool]] = {}
    for metric, samples in up:
        found.setdefault(metric.get("job", ""), []).append(bool(samples) and samples[-1][1] == "1")
    told = [f"{job} ({sum(alive)} of {len(alive)} up)" for job, alive in sorted(found.items())]
    return f"Jobs: {some(told, 900)}" if told else "No job is scraped now (`up` is empty)."


def metrics(names: Sequence[str], metadata: Mapping[str, Any]) -> list[str]:
    """Metric families, grouped by their first word, the service's own before those of runtimes."""
    groups: dict[str, dict[str, str]] = {}
    known = frozenset(names)
    for name in names:
        family, about = _family(name, metadata, known)
        groups.setdefault(family.split("_", 1)[0].split(":", 1)[0], {})[family] = about
    own = {group: families for group, families in groups.items() if group not in RUNTIME and group not in ("up", "ALERTS")}
    rest = {group: families for group, families in groups.items() if group not in own}
    sections = [f"Metrics: {len(names)} names in {sum(map(len, groups.values()))} families."]
    share = 4_000 // max(1, len(own))
    for group, families in sorted(own.items(), key=lambda item: (-len(item[1]), item[0])):
        lines = [f"- `{family}`{about}" for family, about in sorted(families.items())]
        sections.append(f"{group}_* ({len(families)}):\n" + _lines(lines, max(share, 90)))
    if rest:
        told = [f"{group}_* ({len(families)})" for group, families in sorted(rest.items())]
        sections.append(f"Of runtimes and exporters: {some(told, 500)}")
    return sections


def questions(names: Sequence[str], metadata: Mapping[str, Any], selector: str) -> list[str]:
    """PromQL for the families of these metrics, less those of runtimes but memory and processor time: at most QUESTIONS."""
    known = frozenset(names)
    families = dict(_family(name, metadata, known) for name in names)
    own = [name for name in families if re.split("[_:]", name)[0] not in (*RUNTIME, "up", "ALERTS") or name in RESOURCES]
    where = selector if selector != "{}" else ""
    asked = []
    for family in sorted(own, key=lambda name: (name in RESOURCES, name)):
        about = families[family]
        if "_bucket" in about:
            rate = f"sum without (instance, pod) (rate({family}_bucket{where}[2m]))"
            asked += [f"step=60s: histogram_quantile(0.95, {rate})", f"step=60s: rate({family}_count{where}[2m])"]
        elif family.endswith("_total") or about.startswith((" counter", " summary")):
            asked.append(f"step=60s: rate({family}{'_count' * about.startswith(' summary')}{where}[2m])")
        else:
            asked.append(f"step=60s: {family}{where}")
    return asked[:QUESTIONS]


def _family(name: str, metadata: Mapping[str, Any], names: frozenset[str]) -> tuple[str, str]:
    """The family a name belongs to and its type and help: a histogram's three names are one family.

    Where the server keeps no metadata, the names themselves tell histograms and counters.
    """
    base = re.sub(r"_(bucket|sum|count|total|created)$", "", name)
    for family in (name, base):
        if entries := metadata.get(family):
            kind, help_text = str(entries[0].get("type", "")), _line(str(entries[0].get("help", "")), 90)
            whole = family if kind in ("histogram", "summary") else name
            parts = " (_bucket, _sum, _count)" if kind == "histogram" else ""
            return whole, f"{parts} {kind}: {help_text}" if help_text else f"{parts} {kind}"
    if {f"{base}_bucket", f"{base}_sum", f"{base}_count"} <= names:
        return base, " (_bucket, _sum, _count) histogram"
    return name, " counter" if name.endswith("_total") else ""


def _line(text: str, limit: int) -> str:
    """One line, at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def some(values: Iterable[str], limit: int) -> str:
    """Values joined by commas, cut at about `limit` characters, with the number left out."""
    told: list[str] = []
    values = list(values)
    size = 0
    for value in values:
        size += len(value) + 2
        if size > limit:
            return ", ".join(told) + f" … and {len(values) - len(told)} more"
        told.append(_line(value, 120))
    return ", ".join(told)


def _lines(lines: Sequence[str], limit: int) -> str:
    size = 0
    for index, line in enumerate(lines):
        size += len(line) + 1
        if size > limit and index:
            return "\n".join(lines[:index]) + f"\n- … and {len(lines) - index} more"
    return "\n".join(lines)


def bounded(sections: Sequence[str], limit: int) -> str:
    """The sections that fit, in their order; what does not fit is counted."""
    text = ""
    for index, section in enumerate(sections):
        if len((text + section).encode()) + 80 > limit:
            return (
                f'{text}\n… {len(sections) - index} more groups left out; `instant: count by (__name__) ({{job="..."}})` lists\n'
            )
        text += f"\n{section}\n"
    return text
