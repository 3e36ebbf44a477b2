"""Explanations without a guilty commit: a provider, a certificate, bad data, traffic, a node, growth, or an alert that is wrong.

Each gets a score in log-odds from what the telemetry shows, and says why. General signs only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from _analysis import clock, metrics, mixture, words
from _analysis.anomalies import Anomaly, begins_late
from _analysis.desk import Desk, service_key
from _analysis.symptoms import VOLUME, Symptoms

DIRECT, PRESENT = 1.0, 2.5
"""An explanation whose direct signs reach DIRECT gets PRESENT: it begins at the onset, where a commit has to earn its timing."""

MIXED = 3.0
"""What traffic loses where it only changed the mixture of a ratio: more came, but nothing had too little capacity."""

UNHURT = 4.5
"""What traffic loses where nothing suffers from it."""

ELSEWHERE = 2.5
"""What traffic loses where it grew elsewhere than where it hurts, and where each request does more than before."""

HOST = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:com|net|org|io|cloud|dev|app|ai|co|gov|edu)\b")
PARTY = re.compile(r"\b(?:\w+ )?(?:provider|third[- ]party|vendor|partner|supplier|carrier|bank)\b")
ANSWERED = re.compile(
    r"(?i)\b50[0234]\b|unavailable|slow ?down|internal ?error|throttl|too many "
    r"requests|connection (?:refused|reset|timed out)|bad gateway|rate exceeded|service error|status[ =:]5\d\d|"
    r"timed? ?out"
)
EXPIRED = re.compile(
    r"(?i)(certificate|cert|token|secret|credential|key|license|licence|password)s?\b.{0,"
    r"60}\b(has )?expired|expired .{0,30}(certificate|token|secret|credential|license|key)|not yet valid|notafter|"
    r"x509: certificate"
)
EXPIRY_METRIC = re.compile(r"(?i)expir|not_?after|valid_(?:for|until)|remaining|days_left|until")
TROUBLE = re.compile(r"(?i)degrad|outage|disrupt|incident|impair|elevated|increased error|unavailable|partial|major|down\b")
HEALTHY = re.compile(r"(?i)operating normally|operational|resolved|healthy|informational|maintenance scheduled|completed")
IDENTITY = re.compile(
    r"(?i)(^|_|\.)(record|message|msg|event|row|doc|document|object|item|file|"
    r"offset|order|user|account|tenant|batch|customer|device|payload|entity|line)(_?(id|key|no|num|number|"
    r"name|uuid))?$"
)
INVALID = re.compile(
    r"(?i)out of range|invalid|malformed|corrupt|cannot parse|failed to parse|"
    r"unexpected (?:value|token|type)|bad (?:record|data|row)|schema|validation|decode|deserial|unmarshal|"
    r"illegal|poison|not a number|nan\b"
)
PER_REQUEST = re.compile(
    r"(?i)(?:query|queries|calls?|fetch(?:es)?|reads?|statements?|lookups?)\w*_per_(?:request|call|order|job|message)"
)
AGAIN = re.compile(
    r"(?i)redeliver|poison|dead.?letter|same (?:offset|record|message)|retrying "
    r"(?:record|message)|skip(?:ping)? record|commit blocked|stuck"
)
NETWORK = re.compile(
    r"(?i)lookup \S+ (?:on|:)|no such host|name resolution|nxdomain|server misbehaving|"
    r"network is unreachable|no route to host|coredns|dns"
)
NODE = re.compile(
    r"(?i)\bnode[_ -]|noisy|neighbou?r|steal|iowait|io_wait|cfs_throttl|host_|"
    r"hypervisor|kernel|oom-?kill|evicting|evicted pod|preempt|notready|disk_io|memory_pressure|ec2|spot|throttled_periods|"
    r"bandwidth|packet loss|ecc|hardware|\bnic\b|load1\b"
)
GROWTH = re.compile(r"(?i)used|usage|size|bytes|count|depth|utili[sz]ation|fill|rows|inodes|backlog|pct|percent")
BUSY = re.compile(
    r"(?i)saturat|queue|cpu|pool|latency|duration|p9\d|throttl|overload|capacity|rejected|shed|5xx|error|timeout|429|memory|utili"
)


@dataclass(kw_only=True)
class Explanation:
    """One explanation. `score` is in log-odds against a commit; `why` are the signs; `shown` the anomalies that show it.

    away: what commits lose because this already accounts for the symptom, unless their diff has one of `words` or they were
    deployed
    at one of `entries` (keys of services).
    """

    category: str
    statement: str
    score: float = 0.0
    why: list[str] = field(default_factory=list)
    shown: list[Anomaly] = field(default_factory=list)
    service: str = ""
    away: float = 0.0
    words: set[str] = field(default_factory=set)
    entries: set[str] = field(default_factory=set)

    def add(self, score: float, why: str, shown: Anomaly | None = None) -> None:
        self.score += score
        self.why.append(why)
        if shown and shown not in self.shown:
            self.shown.append(shown)


def explain(desk: Desk, symptoms: Symptoms) -> list[Explanation]:
    """All explanations that have any sign, best first."""
    found = [
        _external(desk, symptoms),
        _expired(desk, symptoms),
        _data(symptoms),
        _traffic(desk, symptoms),
        _node(symptoms),
        _growth(desk, symptoms),
        _unsound(desk, symptoms),
    ]
    unsound = found[-1]
    if unsound.away:
        for explanation in found[:-1]:
            explanation.score -= MIXED if explanation.category == "capacity" else 0.0
    for explanation in found:
        if explanation.score >= DIRECT:
            explanation.score += PRESENT
    return sorted((e for e in found if e.why), key=lambda e: -e.score)


def aligned(desk: Desk, symptoms: Symptoms, within: float = 900.0) -> bool:
    """Whether a deployment of an affected service lies shortly before the onset."""
    when = symptoms.onset
    return when is not None and any(
        -60 <= when - d.at <= within and symptoms.services.get(service_key(d.service), 0) > 0.05 for d in desk.deployments
    )


def _external(desk: Desk, symptoms: Symptoms) -> Explanation:
    made = Explanation(category="external", statement="a system outside of what we deploy fails")
    onset = symptoms.onset
    for change in desk.changes:
        if change.kind != "provider_status" or onset is None or not -1800 <= onset - change.at <= 3600:
            continue
        text = f"{change.name} {change.new}"
        if not TROUBLE.search(text) or (HEALTHY.search(text) and not re.search(r"(?i)degrad|outage|impair", text)):
            continue
        common = {w for w in words.words(text) if symptoms.words.get(w, 0) > 0.3}
        if common:
            near = 1.0 if abs(onset - change.at) <= 300 else 0.5
            named = [a for a in symptoms.anomalies if a.kind == "log" and a.level >= 2 and common & set(words.words(a.quote))]
            made.add(
                2.0 + near,
                f"provider status at {clock.iso(change.at)}: {text[:120]} (shares {', '.join(sorted(common)[:4])})",
                max(named, key=lambda a: (a.fresh, a.weight), default=None),
            )
    ours = set(symptoms.names)
    peers: dict[str, set[str]] = {}
    for anomaly in symptoms.anomalies:
        if anomaly.kind == "span" and anomaly.detail and anomaly.level >= 3:
            key = service_key(anomaly.detail.split()[0])
            host = HOST.search(anomaly.detail)
            if key not in ours and (host or "." in anomaly.detail.split()[0]):
                peers.setdefault(anomaly.detail, set()).add(anomaly.service)
                made.add(
                    1.2 if len(peers) == 1 else 0.1,
                    f"the failing call at the bottom of the trace goes to {anomaly.detail[:80]}, which is none of our services",
                    anomaly,
                )
    errors = _first_hand([a for a in symptoms.anomalies if a.kind == "log" and a.level >= 2 and a.fresh], symptoms)
    total = sum(a.weight for a in errors)
    named = [a for a in errors if _outside(a.quote) and ANSWERED.search(a.quote) and not _own_host(a.quote, ours)]
    share = sum(a.weight for a in named) / total if total else 0.0
    if share > 0.2 and named:
        made.add(
            2.0 * share + (0.4 if HOST.search(named[0].quote.lower()) else -0.4),
            f"{share:.0%} of the new errors come as answers of {_outside(named[0].quote)}",
            named[0],
        )
        made.shown += [a for a in named[1:3] if a not in made.shown]
        made.away = 2.5 * share
        made.words = {w for a in named for h in HOST.findall(a.quote.lower()) for w in words.words(h)} - {
            "com",
            "api",
            "www",
            "net",
        }
        if len({a.service for a in named}) > 1:
            made.add(0.8, f"it hits {len({a.service for a in named})} services at once", None)
    if made.why and not aligned(desk, symptoms):
        made.add(0.5, "no deployment of an affected service lies shortly before the onset")
    return made


def _first_hand(errors: list[Anomaly], symptoms: Symptoms) -> list[Anomaly]:
    """Errors that do not just pass on what another of our services answered."""
    passed = re.compile(r"(?i)upstream|downstream|returned|propagat|call failed|unavailable|from ")
    names = [name.lower() for name in symptoms.names.values() if len(name) > 3]
    own = [
        a
        for a in errors
        if not (passed.search(a.text) and any(n in a.text.lower() and service_key(n) != service_key(a.service) for n in names))
    ]
    return own or errors


def _outside(text: str) -> str:
    """The host, or else the kind of other party, that a message names."""
    found = HOST.search(text.lower()) or PARTY.search(text.lower())
    return found[0] if found else ""


def _own_host(text: str, ours: set[str]) -> bool:
    host = HOST.search(text.lower())
    return bool(host) and any(service_key(part) in ours for part in (host[0].split(".") if host else ()))


def _expired(desk: Desk, symptoms: Symptoms) -> Explanation:
    made = Explanation(category="infrastructure", statement="a certificate or credential expired")
    errors = _first_hand([a for a in symptoms.anomalies if a.kind in ("log", "span") and a.level >= 2 and a.fresh], symptoms)
    total = sum(a.weight for a in errors) or 1.0
    named = [a for a in errors if EXPIRED.search(a.quote)]
    share = sum(a.weight for a in named) / total
    if named:
        made.add(1.5 + 2.0 * min(1.0, 2 * share), f"{share:.0%} of the new errors say that something expired", named[0])
        made.away, made.words = (
            2.0 * share,
            {"cert", "certificate", "tls", "ssl", "x509", "expiry", "token", "credential", "secret"},
        )
    elif EXPIRED.search(desk.text):
        made.add(1.5, "the alert says that something expired")
    for shift in symptoms.shifts:
        if (
            shift.crossing is not None
            and EXPIRY_METRIC.search(shift.metric)
            and symptoms.onset
            and abs(shift.crossing - symptoms.onset) < 900
        ):
            made.service = shift.service
            shown = Anomaly(
                kind="metric",
                service=shift.service,
                text=f"{shift.metric} falls through zero",
                onset=shift.crossing,
                weight=1.0,
                file=shift.file,
            )
            made.add(
                2.5, f"{shift.metric} of {shift.service} went through zero at {clock.iso(shift.crossing)}, at the onset", shown
            )
    if made.why and symptoms.onset:
        for text in [desk.text, *(a.quote for a in named)]:
            for match in re.finditer(
                r"(?i)(?:not\s?after|valid until|expire[sd]?(?: at| on)?)\W{0,6}(?:is )?(\d{4}-\d\d-\d\d[T "
                r"]\d\d:\d\d(?::\d\d)?Z?)",
                text,
            ):
                found = clock.find(match[1])
                if found and abs(found[0] - symptoms.onset) < 600:
                    made.add(2.0, f"its end of validity, {match[1]}, is the onset")
                    return made
    return made


def _data(symptoms: Symptoms) -> Explanation:
    made = Explanation(category="data", statement="one bad input is refused over and over")
    errors = [a for a in symptoms.anomalies if a.kind == "log" and a.level >= 2 and a.fresh and a.count >= 4]
    total = sum(a.weight for a in errors) or 1.0
    for anomaly in errors:
        for name, values in sorted(anomaly.values.items()):
            number = sum(values.values())
            if IDENTITY.search(name) and len(values) == 1 and number >= 4 and anomaly.weight / total > 0.25:
                value = next(iter(values))
                if not re.search(r"\d", value):
                    continue
                made.add(3.2 if not made.why else 0.6, f"all {number} failures name the same {name}={value}", anomaly)
        if INVALID.search(anomaly.quote) and anomaly.weight / total > 0.25:
            made.add(0.8, "the errors refuse a value as invalid", anomaly)
        if AGAIN.search(anomaly.quote):
            made.add(0.6, "the same input is delivered again and again", anomaly)
    if not any("same" in why for why in made.why):
        made.score -= 1.5
    made.score = min(made.score, 7.0)
    return made


def _traffic(desk: Desk, symptoms: Symptoms) -> Explanation:
    made = Explanation(category="capacity", statement="more traffic came than there is capacity for")
    volumes = [
        s
        for s in symptoms.shifts
        if (VOLUME.search(s.metric) or re.search(r"_per_(?:min|minute|s|sec|second)$", s.metric))
        and not re.search(r"(?i)per_(?:request|call|order|job|message)|upstream|outgoing|egress|client_|calls_to", s.metric)
        and not re.search(r"(?i)error|fail|5xx|timeout|retr|miss|throttl|reject|cancel|query|queries|db_", s.metric)
    ]
    risen = [s for s in volumes if s.up and s.after >= 1.4 * max(s.before, 1e-9) and s.before > 0]
    counted = metrics.requested(desk)
    risen = [s for s in risen if s.service not in counted or metrics.REQUESTED.search(s.metric)]
    if not risen:
        return made
    callees = {service_key(c) for called in symptoms.calls.values() for c in called}
    entries = [s for s in risen if service_key(s.service) not in callees]
    first = min(risen, key=lambda s: s.onset)
    troubles = [a for a in symptoms.anomalies if a.weight >= 0.3 and not VOLUME.search(a.text) and BUSY.search(a.text)]
    earliest = _began(troubles, first.onset)
    shown = next(
        (a for a in symptoms.anomalies if a.kind == "metric" and a.service == first.service and a.text.startswith(first.metric)),
        None,
    )
    if first.onset <= earliest + 90 and entries:
        made.add(
            3.4 if max(s.after / s.before for s in entries) >= 2.5 else 2.2,
            f"{first.metric} of {first.service} grew {first.after / first.before:.1f}x "
            f"from {clock.iso(first.onset)}, before anything failed",
            shown,
        )
        made.service, made.away, made.entries = first.service, 1.5, {service_key(s.service) for s in entries}
        if not troubles:
            made.add(-UNHURT, "but nothing ran short of capacity: no delay, queue, refusal or error was seen")
        if len({service_key(s.service) for s in risen}) > 1:
            made.add(1.2, f"traffic grew at {len({service_key(s.service) for s in risen})} services at once")
        if not aligned(desk, symptoms, 600):
            made.add(0.8, "no deployment of an affected service lies shortly before the onset")
        else:
            made.add(-0.5, "but a deployment of an affected service does")
        if (
            not symptoms.calls
            and len({service_key(s.service) for s in risen}) == 1
            and len({s.service for s in symptoms.shifts}) > 1
        ):
            made.add(-1.0, "only one service sees more calls: a caller of it may make them")
        _weigh_elsewhere(made, symptoms, {service_key(s.service) for s in risen}, troubles)
    return made


def _began(troubles: list[Anomaly], default: float) -> float:
    """When a fifth of the trouble, by weight, had begun: what came first alone may be something else, a restart's refusals."""
    weight = 0.0
    for onset, one in sorted((a.onset + max(0.0, a.slack - 90), a.weight) for a in troubles):
        weight += one
        if weight >= 0.2 * sum(a.weight for a in troubles):
            return onset
    return default


def _weigh_elsewhere(made: Explanation, symptoms: Symptoms, risen: set[str], troubles: list[Anomaly]) -> None:
    """Calls also grow where a caller makes more of them for each of its own: then it is the caller that suffers."""
    reached, ahead = set(risen), list(risen)
    calls = {service_key(caller): {service_key(callee) for callee in called} for caller, called in symptoms.calls.items()}
    while ahead:
        ahead += (new := calls.get(ahead.pop(), set()) - reached)
        reached |= new
    worst = max(troubles, key=lambda trouble: trouble.weight, default=None)
    if worst is not None and service_key(worst.service) not in reached:
        made.add(-ELSEWHERE, f"but {worst.service} suffers most, and nothing shows that more came there")
    work = next((s for s in symptoms.shifts if s.up and PER_REQUEST.search(s.metric) and s.after >= 2 * s.before), None)
    if work is not None:
        made.add(-ELSEWHERE, f"but each request of {work.service} makes more work: {work.metric} grew too")


def _node(symptoms: Symptoms) -> Explanation:
    made = Explanation(category="infrastructure", statement="a machine or a neighbour on it is in trouble")
    strong = [a for a in symptoms.anomalies if a.weight >= 0.15]
    total = sum(a.weight for a in strong) or 1.0
    named = [a for a in strong if NODE.search(f"{a.text} {a.service}")]
    share = sum(a.weight for a in named) / total
    if named and share > 0.1:
        made.add(1.0 + 1.5 * min(1.0, 2 * share), f"{', '.join(sorted({a.text[:60] for a in named})[:3])}", named[0])
        if symptoms.onset and min(a.onset for a in named) <= symptoms.onset + 60:
            made.add(0.8, "the machine's trouble is the first to begin", named[0])
    errors = [a for a in symptoms.anomalies if a.kind in ("log", "span") and a.level >= 2 and a.fresh]
    network = [a for a in errors if NETWORK.search(a.quote)]
    share = sum(a.weight for a in network) / (sum(a.weight for a in errors) or 1.0)
    if network and share > 0.25:
        made.statement = "names do not resolve or the network does not carry" if not named else made.statement
        made.add(1.2 + 1.5 * share, f"{share:.0%} of the new errors are of names or routes", network[0])
        if len({a.service for a in network}) > 1:
            made.add(1.0, f"at {len({a.service for a in network})} services at once")
    hosts = _one_instance(symptoms)
    if hosts:
        made.add(1.5, hosts)
    return made


def _one_instance(symptoms: Symptoms) -> str:
    """Whether all new errors name one machine."""
    for name in ("node", "host", "hostname", "instance", "pod", "node_name", "zone", "az"):
        counted: dict[str, int] = {}
        for anomaly in symptoms.anomalies:
            if anomaly.kind == "log" and anomaly.level >= 2 and anomaly.fresh:
                match = re.search(rf"(?<![\w.])\"?{name}\"?\s*[=:]\s*\"?([\w.-]+)", anomaly.quote)
                if match and not HOST.fullmatch(match[1].lower()):
                    counted[match[1]] = counted.get(match[1], 0) + anomaly.count
        if len(counted) == 1 and sum(counted.values()) >= 5:
            return f"all failures name the one {name} {next(iter(counted))}"
    return ""


def _growth(desk: Desk, symptoms: Symptoms) -> Explanation:
    made = Explanation(category="capacity", statement="something filled up slowly, since before any change that is known")
    for shift in symptoms.shifts:
        watched = desk.metric and shift.metric in desk.metric and shift.shape == "slope" and GROWTH.search(shift.metric)
        if watched and not any(-120 <= shift.onset - d.at <= 1800 for d in desk.deployments):
            made.add(1.2, f"{shift.metric} climbs steadily since {clock.iso(shift.onset)}, where nothing was deployed")
    return made


def _unsound(desk: Desk, symptoms: Symptoms) -> Explanation:
    made = Explanation(category="alert", statement="the alert fired though nothing changed")
    strong = [a for a in symptoms.anomalies if a.weight >= 0.3]
    mix = mixture.found(desk, symptoms.shifts, symptoms.onset)
    if mix:
        made.statement = "the alert counts what can never meet it: the mixture changed, not what it is meant to measure"
        made.service, made.away = mix.shift.service, 2.5
        shown = next((a for a in symptoms.anomalies if a.kind == "metric" and a.text.startswith(mix.shift.metric)), None)
        made.add(3.5, mix.told, shown)
        return made
    if desk.kind != "alert" or symptoms.series + len(symptoms.scan.templates) < 3 or begins_late(symptoms.scan, desk):
        return made
    if symptoms.ends_early(desk):  # what nobody wrote down is no sign that nothing happened
        return made
    if desk.metric and symptoms.series and not any(s.metric in desk.metric for s in symptoms.shifts):
        if not strong:
            made.add(1.2, f"{desk.metric} did not change, and neither did anything else")
    elif not strong and symptoms.series >= 3:
        made.add(1.0, "no metric, log or span changed")
    return made
