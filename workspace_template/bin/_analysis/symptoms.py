"""Puts together what is wrong: anomalies of logs, metrics and spans with their onsets, the services and words they speak of.

An onset is where the data changes, never the alert's time. It names no cause.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from _analysis import concepts, logs, metrics, runtimes, traces, words
from _analysis.anomalies import Anomaly, of_logs, of_metrics, of_spans, standing
from _analysis.clock import span
from _analysis.desk import Desk, service_key
from _analysis.stacktraces import Frame

QUOTED = re.compile(r"[\"'`‘“]([A-Za-z_][\w.:-]{2,60})[\"'`’”]|\b([A-Za-z_]\w*(?:\.\w+)+)\(\)")
ABSENT = re.compile(
    r"(?i)unexpected keyword|cannot import|no attribute|not defined|not found|no such|unknown|undefined|missing|not registered"
    r"|keyerror|no longer|removed|unrecognized|not a member|does not exist|has no field|no method|unresolved|unexpected argument"
)
FAILURES = re.compile(r"(?i)[45]xx|fail|error|refus|reject|timeout|turned_away")
SPENT = re.compile(r"(?i)memory|_rss|heap|cpu|latency|duration|_ms\b|seconds|5xx|error|fail|timeout|fds|lag\b|backlog")
"""What there is less of is no trouble."""
UNITS = re.compile(r"(?i)_(?:per_(?:min(?:ute)?|sec(?:ond)?|s|hour|day)|percent|pct|ms|mb|gb)\b")
PIECE = re.compile(r"[A-Za-z_]{2,}")
ANOTHER_TYPE = re.compile(
    r"'(?:str|bytes|bytearray|int|float|list|dict|tuple|set|bool|function|coroutine|generator)' object has no attribute"
)
"""Something gave a value of another type than before: the attribute is not gone from any code."""
HOLDER = re.compile(
    r"module '([\w.]+)' has no attribute '(\w+)'|cannot import name '(\w+)' from (?:partially initialized module )?'([\w.]+)'|"
    r"No module named '([\w.]+)\.(\w+)'"
)
PLAIN = 0.6
SILENT = ("wrong", "missing", "refused", "parse")
"""Below PLAIN no kind of trouble is told; then it may be one of SILENT: something is not as it was, and nobody says what."""
HINTED = 0.8
"""How much a word counts that no symptom has, but that code behind such a symptom is likely to have."""
VOLUME = re.compile(
    r"(?i)(requests?|rps|qps|calls|messages|events|records|connections|traffic|"
    r"ingest|lines|jobs|orders|sessions|users)(_|\b).*(per|rate|total|count|sec|min)|rps|qps|throughput|requests?_total"
)


EARLY = 600
"""Seconds: metrics may be a few minutes apart."""


@dataclass(kw_only=True)
class Symptoms:
    """All that is wrong. `services` and `facets` have weights 0 to 1, `words` any; `onset` is where most of it begins, `until`
    the last moment of which the metrics tell, or, without any, the logs and traces: a quiet log says nothing for long.

    named: identifiers that error messages put in quotes or call, and whether the message says that it is not there (any more).
    holders: for some of them the module that should have them. others: names whose values were not what the code took them for.
    """

    anomalies: list[Anomaly] = field(default_factory=list)
    services: dict[str, float] = field(default_factory=dict)
    facets: dict[str, float] = field(default_factory=dict)
    words: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    named: dict[str, bool] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    calls: dict[str, set[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    onset: float | None = None
    shifts: list[metrics.Shift] = field(default_factory=list)
    series: int = 0
    spans: traces.Summary = field(default_factory=traces.Summary)
    scan: logs.Scan = field(default_factory=logs.Scan)
    notes: list[str] = field(default_factory=list)
    before: str = ""
    until: float | None = None

    def ends_early(self, desk: Desk) -> bool:
        """Whether all that is known ends so long before the alert that the trouble may have begun after it."""
        return self.until is not None and desk.at is not None and self.until < desk.at - EARLY


def gather(desk: Desk) -> Symptoms:
    """The symptoms of this desk's incident."""
    made = Symptoms()
    made.shifts, notes, made.series = metrics.shifts(desk)
    made.spans = traces.summary(desk)
    made.scan = logs.scan(desk)
    seen = [moment for moment in (made.scan.end, *(one.start for one in made.spans.spans)) if moment is not None]
    made.until = metrics.latest(desk) or max(seen, default=None)
    made.notes = [*made.scan.notes, *notes, *made.spans.notes]
    if made.ends_early(desk):
        made.notes.insert(
            0, f"the telemetry ends {span((desk.at or 0) - (made.until or 0))} before the alert: nothing later is known"
        )
    made.anomalies = [*of_logs(made.scan, desk), *of_metrics(made.shifts, desk), *of_spans(made.spans)]
    made.anomalies += standing(made.scan, desk, made.anomalies)
    made.anomalies.sort(key=lambda a: (-a.weight, a.onset, a.text))
    made.onset = onset(made.anomalies) or desk.at
    _services(made, desk)
    made.before = "\n".join(
        t.sample for t in made.scan.templates if t.first is not None and made.onset is not None and t.first < made.onset - 60
    )[:500_000]
    _words(made, desk)
    _hints(made, desk)
    _named(made)
    made.frames = [f for f in made.scan.frames if f.first is None or made.onset is None or f.first >= made.onset - 900]
    made.others = runtimes.taken_for_another(made.frames)
    return made


def onset(anomalies: list[Anomaly]) -> float | None:
    """Where it begins: the earliest moment that begins a tenth of the strong anomalies' weight, so that one stray does not
    decide."""
    strong = sorted((a.onset, a.weight) for a in anomalies if a.weight >= 0.3 and a.kind != "span")
    strong = strong or sorted((a.onset, a.weight) for a in anomalies)
    total = sum(w for _, w in strong)
    reached = 0.0
    for when, weight in strong:
        reached += weight
        if reached >= 0.12 * total:
            return when
    return None


def _services(made: Symptoms, desk: Desk) -> None:
    weights: dict[str, float] = defaultdict(float)
    names = (
        {d.service for d in desk.deployments} | {a.service for a in made.anomalies} | {desk.service} | set(made.spans.by_service)
    )
    names |= {t.service for t in made.scan.templates}
    made.names = {service_key(name): name for name in sorted(names) if name}
    for anomaly in made.anomalies:
        weights[service_key(anomaly.service)] += anomaly.weight
    if desk.service:
        weights[service_key(desk.service)] += 1.0
    weights.pop("", None)
    top = max(weights.values(), default=1.0)
    made.services = {name: round(weight / top, 3) for name, weight in sorted(weights.items(), key=lambda w: (-w[1], w[0]))}
    made.calls = defaultdict(set, {caller: set(callees) for caller, callees in made.spans.calls.items()})
    for anomaly in made.anomalies:
        if anomaly.kind == "log" and anomaly.level >= 2:
            text = anomaly.quote.lower()
            for name in made.names.values():
                if name and name != anomaly.service and len(name) > 3 and name.lower() in text:
                    made.calls[anomaly.service].add(name)


def _named(made: Symptoms) -> None:
    """Identifiers that the new errors name, and the modules that these are missed in."""
    texts = [a.text for a in made.anomalies if a.kind in ("log", "span") and a.fresh and a.level >= 3][:20]
    texts += [f.raised for f in made.scan.frames[:60] if f.raised]
    for text in [f.raised for f in made.scan.frames[:60]]:
        if match := re.search(r"KeyError: (\d{1,6})$", text.strip()):
            made.named[match[1]] = True
    for text in dict.fromkeys(texts):
        absent = bool(ABSENT.search(text)) and not ANOTHER_TYPE.search(text)
        for held in HOLDER.finditer(text):
            module, name = held[1] or held[4] or held[5], held[2] or held[3] or held[6]
            made.holders[name] = module
        for quoted, called in QUOTED.findall(text):
            name = (quoted or called).rsplit(".", 1)[-1] if "." in (quoted or called) and "/" not in quoted else quoted
            if name and name not in ("__init__", "none", "null", "true", "false"):
                holds = any(name == module.rsplit(".", 1)[-1] for module in made.holders.values())
                made.named[name] = made.named.get(name, False) or (absent and bool(quoted) and not holds)


def _usual(made: Symptoms) -> set[str]:
    """Words of lines that were written before the onset too, and go on being written: they speak of nothing new."""
    counted: Counter[str] = Counter()
    fresh = {(a.service, a.text) for a in made.anomalies if a.kind == "log" and a.fresh}
    for template in made.scan.templates:
        early = template.first is not None and made.onset is not None and template.first < made.onset - 60
        if early and template.count >= 3 and (template.service, template.text[:400]) not in fresh:
            counted.update({word.lower(): 1 for word in PIECE.findall(template.text)})
    return set(counted)


def _words(made: Symptoms, desk: Desk) -> None:
    facets: dict[str, float] = defaultdict(float)

    def tell(text: str, weight: float) -> None:
        for facet in runtimes.facets(_nameless(made, text)):
            if facet != "volume" or not FAILURES.search(text):
                facets[facet] += weight
        for word in set(words.words(runtimes.plain(text))):
            made.words[word] += weight

    tell(f"{desk.text} {desk.metric}"[:4000], 1.0)
    usual = _usual(made)
    for anomaly in _telling(made):
        tell(_said(anomaly, usual), anomaly.weight * (1.0 if anomaly.level >= 2 else 0.6))
    for caller, callee, most, _ in made.spans.fan[:5]:
        tell(f"query volume requests_per calls_total {caller} {callee}", min(1.0, most / 20))
    if made.spans.words:
        for word, number in Counter(words.words(made.spans.words)).items():
            made.words[word] += min(0.6, 0.1 * number)
    for frame in made.scan.frames[:40]:
        tell(f"{frame.raised}", 0.3)
        for word in words.words(f"{frame.name} {frame.file.rsplit('/', 1)[-1]} {frame.code}"):
            made.words[word] += 0.3
    for name in words.words(next(iter(desk.repos))) if len(desk.repos) == 1 else ():
        made.words.pop(name, None)
    made.facets = _kinds(facets)


def _said(anomaly: Anomaly, usual: set[str]) -> str:
    """What an anomaly says that is not always said: without the words of routine lines, and without units."""
    if anomaly.kind == "log":
        return PIECE.sub(lambda found: "" if found[0].lower() in usual else found[0], anomaly.text.replace("<*>", " "))
    return UNITS.sub("", anomaly.text) if anomaly.kind == "metric" else anomaly.text


def _telling(made: Symptoms) -> list[Anomaly]:
    """The anomalies whose words speak of trouble: not lines that are written less, nor metrics of what is merely spent less."""
    return [a for a in made.anomalies if a.up or (a.kind == "metric" and not SPENT.search(a.text))][:60]


def _nameless(made: Symptoms, text: str) -> str:
    """A text without the names of services: that one is called token-issuer says nothing of what is wrong with it."""
    for name in made.names.values():
        text = text.replace(name, " ") if len(name) > 3 else text
    return text


def _kinds(facets: dict[str, float]) -> dict[str, float]:
    """The kinds of trouble with weights 0 to 1, the plainest first."""
    if max(facets.values(), default=0.0) < PLAIN:
        for facet in SILENT:
            facets[facet] = facets.get(facet, 0.0) + 0.4 * PLAIN
    top = max(PLAIN, *facets.values())
    return {name: round(min(1.0, (weight / top) ** 0.5), 3) for name, weight in sorted(facets.items(), key=lambda f: -f[1])}


def _hints(made: Symptoms, desk: Desk) -> None:
    """Words that no symptom has, but that the code behind such symptoms is likely to have."""
    told = [(f"{desk.text} {desk.metric}"[:4000], 1.0)]
    told += [
        (f"{anomaly.quote} {anomaly.text}"[-1200:], min(1.0, anomaly.weight))
        for anomaly in _telling(made)
        if anomaly.kind == "metric" or anomaly.fresh
    ]
    for text, weight in told:
        for word in {word for name in concepts.related(text) for word in words.words(name)}:
            made.words[word] = max(made.words[word], HINTED * weight)
