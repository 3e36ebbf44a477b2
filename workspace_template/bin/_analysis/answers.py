"""What each command answers, as plain data for --json and as text for people. The commands themselves only parse arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from _analysis import history, logs, metrics, owners, passages, reproduce, suspects, symptoms, traces, words
from _analysis.clock import iso, span
from _analysis.desk import Deployment, Desk, cache, describe, service_key
from _analysis.output import table

QUOTE = 300


def where(desk: Desk, anomaly: symptoms.Anomaly) -> str:
    """path:line of the line that shows a log anomaly."""
    return f"{anomaly.file}:{logs.line_number(desk.root / anomaly.file, anomaly.offset)}" if anomaly.file else ""


def log_templates(desk: Desk, moment: float | None, service: str, limit: int) -> dict[str, Any]:
    """Templates before and after a moment: new ones first, then by G, the likelihood ratio of its two rates."""
    scan = logs.scan(desk)
    cut = moment or symptoms.gather(desk).onset or desk.at
    answer: dict[str, Any] = {
        "moment": iso(cut),
        "lines": scan.lines,
        "templates": len(scan.templates),
        "from": iso(scan.start),
        "to": iso(scan.end),
    }
    rows = []
    for template in scan.templates:
        if service and service_key(template.service) != service_key(service):
            continue
        before, after, score = significance(template, scan, cut)
        rows.append((before == 0 and after > 0, score, before, after, template))
    rows.sort(key=lambda row: (not (row[0] and row[4].level >= 2), not row[0], -abs(row[1]), row[4].text))
    answer["rows"] = [
        {
            "new": new,
            "g": round(score, 1),
            "before": before,
            "after": after,
            "service": t.service,
            "level": t.level,
            "first": iso(t.first),
            "where": _place(desk, t),
            "text": t.text[:200],
        }
        for new, score, before, after, t in rows[:limit]
        if score or new
    ]
    answer["notes"] = scan.notes
    return answer


def _place(desk: Desk, template: logs.Template) -> str:
    return f"{template.file}:{logs.line_number(desk.root / template.file, template.offset)}"


def significance(template: logs.Template, scan: logs.Scan, cut: float | None) -> tuple[int, int, float]:
    """Counts before and after, and the signed G-test of their rates."""
    import math

    if cut is None or scan.start is None or scan.end is None:
        return 0, template.count, 0.0
    edge = int(cut // logs.BUCKET)
    before = sum(n for bucket, n in template.buckets.items() if bucket < edge)
    after = sum(n for bucket, n in template.buckets.items() if bucket >= edge)
    left, right = max(cut - scan.start, 1.0), max(scan.end - cut, 1.0)
    total = before + after
    expected = (total * left / (left + right), total * right / (left + right))
    g = 2 * sum(o * math.log(o / e) for o, e in zip((before, after), expected, strict=True) if o > 0 and e > 0)
    return before, after, g if after > expected[1] else -g


def log_templates_text(answer: dict[str, Any]) -> str:
    lines = [f"{answer['lines']} lines, {answer['templates']} templates; before and after {answer['moment']}"]
    rows = [
        (
            "new" if r["new"] else f"{r['g']:+.0f}",
            r["before"],
            r["after"],
            r["service"],
            r["first"][11:19],
            r["where"],
            r["text"][:160],
        )
        for r in answer["rows"]
    ]
    return "\n".join([*lines, table(rows, ("g", "before", "after", "service", "first", "where", "template")), *notes(answer)])


def metric_shifts(desk: Desk, service: str, limit: int) -> dict[str, Any]:
    """Series that changed for good, strongest first."""
    found, told, number = metrics.shifts(desk)
    rows = [s for s in found if not service or service_key(s.service) == service_key(service)]
    return {
        "series": number,
        "shifted": len(rows),
        "rows": [
            {
                "score": s.score,
                "explained": s.explained,
                "onset": iso(s.onset),
                "shape": s.shape,
                "service": s.service,
                "metric": s.metric,
                "labels": s.labels[:80],
                "before": round(s.before, 4),
                "after": round(s.after, 4),
                **({"through_zero": iso(s.crossing)} if s.crossing else {}),
            }
            for s in rows[:limit]
        ],
        "notes": told,
    }


def metric_shifts_text(answer: dict[str, Any]) -> str:
    rows = [
        (
            r["score"],
            r["explained"],
            r["onset"],
            r["shape"],
            r["service"],
            r["metric"],
            r["labels"][:40],
            f"{r['before']:g}",
            f"{r['after']:g}",
        )
        for r in answer["rows"]
    ]
    head = f"{answer['shifted']} of {answer['series']} series changed (score: shift in widths of the noise; explained: 0 to 1)"
    return "\n".join(
        [head, table(rows, ("score", "expl", "onset", "shape", "service", "metric", "labels", "before", "after")), *notes(answer)]
    )


def spans(desk: Desk, limit: int) -> dict[str, Any]:
    """Failing and slow spans by service, and the deepest that are guilty."""
    made = traces.summary(desk)
    return {
        "spans": len(made.spans),
        "services": [
            {"service": name, **{k: int(v) for k, v in counts.items()}}
            for name, counts in sorted(made.by_service.items(), key=lambda s: -(s[1]["failed"] + s[1]["slow"]))[:limit]
        ],
        "deepest": [
            {"service": s, "operation": n, "what": w[:160], "times": c, "first": iso(sp.start), "peer": sp.peer[:80]}
            for s, n, w, c, sp in made.guilty[:limit]
        ],
        "calls": [f"{a} -> {', '.join(sorted(b))}" for a, b in sorted(made.calls.items())][:limit],
        "repeated": [{"caller": a, "callee": b, "times_at_most": int(m), "median": n} for a, b, m, n in made.fan[:limit]],
        "notes": made.notes,
    }


def spans_text(answer: dict[str, Any]) -> str:
    parts = [f"{answer['spans']} spans"]
    if answer["services"]:
        parts.append(
            table(
                [(s["service"], s["spans"], s["failed"], s["slow"]) for s in answer["services"]],
                ("service", "spans", "failed", "slow"),
            )
        )
    parts += [
        f"deepest: {d['service']} {d['operation']}: {d['what']} ({d['times']}x, "
        f"first {d['first']}{', calls ' + d['peer'] if d['peer'] else ''})"
        for d in answer["deepest"]
    ]
    parts += [f"calls: {c}" for c in answer["calls"]]
    parts += [
        f"repeated: {r['caller']} calls {r['callee']} up to {r['times_at_most']} times in one go" for r in answer["repeated"]
    ]
    return "\n".join([*parts, *notes(answer)])


def changes(desk: Desk, verdict: suspects.Verdict | None) -> dict[str, Any]:
    """Deployments and other changes against the onset, nearest before it first."""
    onset = verdict.symptoms.onset if verdict else symptoms.gather(desk).onset
    rows = [
        {"at": iso(d.at), "kind": "deployment", "service": d.service, "what": _what(d), "gap": _gap(onset, d.at)}
        for d in desk.deployments
    ]
    rows += [
        {
            "at": iso(c.at),
            "kind": c.kind,
            "service": c.service,
            "what": f"{c.name}: {c.old} -> {c.new}"[:240],
            "gap": _gap(onset, c.at),
        }
        for c in desk.changes
    ]
    times = {id(r): t for r, t in zip(rows, [*(d.at for d in desk.deployments), *(c.at for c in desk.changes)], strict=True)}
    rows.sort(key=lambda r: (onset is not None and times[id(r)] > onset, abs((onset or 0) - times[id(r)])))
    return {
        "onset": iso(onset),
        "alert": iso(desk.at),
        "rows": rows,
        "notes": [n for n in desk.notes if "deployments" in n or "changes" in n],
    }


def _what(d: Deployment) -> str:
    packages = ", ".join(f"{p} {a} -> {b}" for p, a, b in d.packages)
    return " ".join(x for x in (d.version, d.commit[:12], d.change, packages) if x)


def _gap(onset: float | None, at: float) -> str:
    return "" if onset is None else f"{span(onset - at)} {'before' if at <= onset else 'after'} the onset"


def changes_text(answer: dict[str, Any]) -> str:
    head = f"onset {answer['onset']}, alert {answer['alert']}"
    return "\n".join(
        [
            head,
            table(
                [(r["at"], r["kind"], r["service"], r["gap"], r["what"]) for r in answer["rows"]],
                ("at", "kind", "service", "against the onset", "what"),
            ),
            *notes(answer),
        ]
    )


def suspects_answer(desk: Desk, verdict: suspects.Verdict, limit: int) -> dict[str, Any]:
    """The ranking, with what an investigation needs to go on: exact lines, places, times."""
    made = verdict.symptoms
    return {
        "onset": iso(made.onset),
        "alert": iso(desk.at),
        "service": desk.service,
        "unknown": round(verdict.unknown, 3),
        "seen": verdict.history.seen,
        "suspects": [_suspect(s, n) for n, s in enumerate(verdict.suspects[:limit])],
        "explanations": [
            {
                "category": e.category,
                "statement": e.statement,
                "p": round(p, 3),
                "service": e.service,
                "why": [w[:140] for w in dict.fromkeys(e.why)][:5],
                "show": [_shown(desk, a) for a in e.shown[:2]],
            }
            for e, p in verdict.explanations
            if p > 0.02
        ][:3],
        "flips": [
            {
                "kind": f.change.kind,
                "name": f.change.name,
                "service": f.change.service,
                "at": iso(f.change.at),
                "from": f.change.old,
                "to": f.change.new,
                "p": round(f.p, 3),
                "why": f.why,
            }
            for f in verdict.flips[:3]
            if f.p > 0.01
        ],
        "symptoms": _symptoms(desk, made),
        "notes": [*desk.notes, *made.notes, *verdict.history.notes][:12],
    }


def _suspect(s: suspects.Suspect, n: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "repo": s.commit.repo,
        "commit": s.commit.sha,
        "p": round(s.p, 3),
        "score": round(s.score, 2),
        "subject": s.commit.subject[:100],
        "why": s.why[:4],
    }
    if s.deployment:
        answer |= {"service": s.deployment.service, "live": iso(s.deployment.at), "version": s.deployment.version}
    else:
        answer |= {"live": iso(s.commit.at)}
    if s.commit.package:
        answer |= {"package": s.commit.package}
    if s.through:
        answer |= {"through": s.through.commit.sha}
    if n == 0:
        answer |= {"direct": s.direct, "among": s.among}
    if n < 2 and s.best:
        best = s.best
        answer |= {
            "kind": best.kind,
            "what": best.what[:120],
            "path": best.path,
            "side": best.side,
            "line": best.number,
            "text": best.text[:QUOTE],
            "parent": s.commit.parent,
            "author": s.commit.author,
        }
        answer |= {"within": best.within[:80]} if best.within else {}
    if n < 2:
        answer["quotes"] = [asdict(p) for p in passages.of(s.commit, s.best)[: 2 - n]]
    if n >= 1:
        answer["why"] = [w[:120] for w in s.why[:2]]
    return answer


def _symptoms(desk: Desk, made: symptoms.Symptoms) -> list[dict[str, Any]]:
    """The strongest anomalies, the first two of each kind before the rest."""
    first = [a for kind in ("log", "metric") for a in [b for b in made.anomalies if b.kind == kind][:2]]
    return [_shown(desk, a) for a in [*first, *(a for a in made.anomalies if not any(a is b for b in first))][:6]]


def _shown(desk: Desk, a: symptoms.Anomaly) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": a.kind,
        "service": a.service,
        "text": a.text[:140],
        "onset": iso(a.onset),
        "weight": round(a.weight, 2),
    }
    if a.kind == "log":
        shown |= {"where": where(desk, a), "count": a.count, "quote": a.quote[:QUOTE]}
    elif a.kind == "metric":
        shape = "slope" if "(slope" in a.detail else "step"
        metric = a.text.rsplit(" ", 1)[0]
        shown |= {"detail": a.detail, "where": a.file, "row": f"{iso(a.onset)} {shape} {a.service} {metric}".replace("  ", " ")}
    else:
        shown |= {"where": a.file, "quote": a.quote[:160]}
    return shown


def suspects_text(answer: dict[str, Any]) -> str:
    lines = [
        f"onset {answer['onset']}, alert {answer['alert']}; {answer['seen']} commits "
        f"looked at; {answer['unknown']:.0%} for something unknown"
    ]
    for s in answer["suspects"]:
        lines.append(f"{s['p']:5.0%}  {s['repo']} {s['commit'][:12]}  {s['subject']}")
        lines += [f"         {why}" for why in s["why"]]
        if s.get("text"):
            lines.append(f"         {s['path']}:{s['line']}  {s['side']}{s['text']}")
    for e in answer["explanations"]:
        lines.append(f"{e['p']:5.0%}  no commit: {e['statement']} ({e['category']})")
        lines += [f"         {why}" for why in e["why"]]
    for f in answer["flips"]:
        lines.append(f"{f['p']:5.0%}  {f['kind']} {'; '.join(f['why'])}")
    return "\n".join([*lines, *notes(answer)])


def dependency_diff(desk: Desk, package: str, old: str, new: str, verdict: suspects.Verdict | None, limit: int) -> dict[str, Any]:
    """What the commits between two versions of a package changed, from its own history."""
    known = [*desk.deployments, *(verdict.history.moved if verdict else ())]
    moves = [(p, a, b) for d in known for p, a, b in d.packages if not package or p == package]
    if package and old and new:
        moves = [(package, old, new)]
    rows, told = [], []
    for name, a, b in dict.fromkeys(moves):
        home = next((r for r in desk.repos if history.is_package(desk.repos[r], r, name)), "")
        if not home:
            told.append(f"{name} {a} -> {b}: its repository is not on the desk ({', '.join(desk.repos) or 'none is'})")
            continue
        ends = history.versions(desk.repos[home], name, (a, b))
        if a not in ends or b not in ends:
            told.append(f"{name}: no tag for {a if a not in ends else b} in repos/{home}")
            continue
        number = history.git(desk.repos[home], "rev-list", "--count", "--no-merges", f"{ends[a]}..{ends[b]}").strip()
        rows.append(
            {
                "package": name,
                "from": a,
                "to": b,
                "repo": home,
                "commits": int(number or 0),
                "range": f"{ends[a][:12]}..{ends[b][:12]}",
            }
        )
    picked = (
        [s for s in verdict.suspects if s.commit.package and (not package or s.commit.package == package)][:limit]
        if verdict
        else []
    )
    return {"upgrades": rows, "suspects": [_suspect(s, 1) for s in picked], "notes": told}


def dependency_diff_text(answer: dict[str, Any]) -> str:
    lines = [
        f"{u['package']} {u['from']} -> {u['to']}: {u['commits']} commits, git -C repos/{u['repo']} log {u['range']}"
        for u in answer["upgrades"]
    ]
    lines += [f"{s['p']:5.0%}  {s['commit'][:12]}  {s['subject']}\n         {'; '.join(s['why'])}" for s in answer["suspects"]]
    return "\n".join([*(lines or ["no upgrade whose package's repository is on the desk"]), *notes(answer)])


def brief(desk: Desk, verdict: suspects.Verdict) -> dict[str, Any]:
    """A dozen lines for a phone."""
    answer = suspects_answer(desk, verdict, 3)
    return {
        "title": desk.title[:160],
        "affected": affected(desk, verdict),
        "onset": answer["onset"],
        "alert": answer["alert"],
        "changed": _changed(desk, verdict),
        "likely": _likely(verdict),
        "owner": owners.of(desk, verdict),
        "seen": seen(desk, verdict),
        "next": _next(desk, verdict),
        "notes": answer["notes"][:4],
    }


def affected(desk: Desk, verdict: suspects.Verdict) -> list[str]:
    names = verdict.symptoms.names
    return [names.get(key, key) for key, weight in verdict.symptoms.services.items() if weight >= 0.1][:6] or [
        desk.service or "unknown"
    ]


def _changed(desk: Desk, verdict: suspects.Verdict) -> list[str]:
    lines = []
    for s in verdict.suspects[:3]:
        lines.append(f"{s.p:.0%} {s.commit.repo}@{s.commit.sha[:10]} {s.commit.subject[:60]} - {s.why[0] if s.why else ''}")
    lines += [f"{f.p:.0%} {f.why[0]}" for f in verdict.flips[:1] if f.p > 0.03]
    return lines or ["nothing is known to have changed"]


def _likely(verdict: suspects.Verdict) -> str:
    options = [(s.p, f"commit {s.commit.sha[:10]} of {s.commit.repo}: {_does(s)}") for s in verdict.suspects[:1]]
    options += [(p, f"no commit: {e.statement} ({e.why[0]})") for e, p in verdict.explanations[:1]]
    options += [(f.p, f"{f.change.kind} {f.change.name}") for f in verdict.flips[:1]]
    options.append((verdict.unknown, "nothing that is on the desk"))
    p, text = max(options, key=lambda o: o[0])
    return f"{p:.0%} {text}"[:240]


def _does(s: suspects.Suspect) -> str:
    """What a suspect does, in a few words."""
    return f"{s.best.kind}: {s.best.what[:90]} ({s.best.path})" if s.best else s.commit.subject[:90]


def seen(desk: Desk, verdict: suspects.Verdict) -> list[str]:
    """Earlier investigations and memory that speak of the same: by shared words of the symptoms."""
    wanted = dict(sorted(verdict.symptoms.words.items(), key=lambda w: (-w[1], w[0]))[:40])
    found = []
    for folder in ("investigations", "memory"):
        base = desk.root / folder
        for path in sorted(base.rglob("*.md"))[:500] if base.is_dir() else ():
            text = path.read_text("utf-8", errors="replace")[:60_000]
            present = set(words.words(text))
            score = sum(n for w, n in wanted.items() if w in present) / (sum(wanted.values()) or 1.0)
            if score > 0.45:
                title = next((line.strip("# ") for line in text.splitlines() if line.startswith("#")), path.stem)
                found.append((score, f"{desk.shown(path)}: {title[:80]}"))
    return [text for _, text in sorted(found, reverse=True)[:3]]


def _next(desk: Desk, verdict: suspects.Verdict) -> str:
    top = verdict.suspects[0] if verdict.suspects else None
    external = verdict.explanations[0] if verdict.explanations else None
    if external and (top is None or external[1] > top.p):
        return f"confirm: {external[0].why[0]}"[:200]
    if top and top.p > 0.15:
        return f"git -C repos/{top.commit.repo} show {top.commit.sha[:12]}" + (f" -- {top.best.path}" if top.best else "")
    return "no suspect stands out: query metrics and logs of " + ", ".join(affected(desk, verdict)[:3])


def brief_text(answer: dict[str, Any]) -> str:
    lines = [
        answer["title"],
        f"affected: {', '.join(answer['affected'])}",
        f"began {answer['onset']} in the data; alert {answer['alert']}",
        f"most likely: {answer['likely']}",
        "changed lately:",
    ]
    lines += [f"- {line}" for line in answer["changed"]]
    lines.append(f"owner: {answer['owner']}")
    lines.append("seen before: " + ("; ".join(answer["seen"]) if answer["seen"] else "no"))
    lines.append(f"next: {answer['next']}")
    return "\n".join([*(line for line in lines if line), *notes(answer)])


def notes(answer: dict[str, Any]) -> Iterator[str]:
    for note in answer.get("notes") or ():
        yield f"note: {note}"


def summary(desk: Desk) -> str:
    """One line on the desk, as JSON text."""
    return json.dumps(describe(desk))


def holds(
    desk: Desk,
    window: tuple[float, float],
    *,
    text: str,
    metric: str,
    service: str,
    least: int,
    above: float | None,
    below: float | None,
) -> dict[str, Any]:
    """Whether a symptom is there in a window; None where there is no data in it."""
    start, end = window
    if text:
        scan = logs.scan(desk)
        wanted = logs.mask(text)
        found = 0
        for template in scan.templates:
            if (not service or service_key(template.service) == service_key(service)) and (
                wanted in template.text or text in template.sample
            ):
                found += sum(n for bucket, n in template.buckets.items() if start <= (bucket + 0.5) * logs.BUCKET < end)
        data = scan.start is not None and scan.end is not None and scan.start < end and scan.end > start
        return {
            "holds": found >= least if data else None,
            "lines": found,
            "told": f"{found} lines between {iso(start)} and {iso(end)}",
        }
    series, _ = metrics.read(desk, metrics.files(desk))
    values = [
        v
        for s in series
        if s.metric == metric and (not service or service_key(s.service) == service_key(service))
        for t, v in s.points
        if start <= t < end
    ]
    if not values:
        return {"holds": None, "told": f"no point of {metric} between {iso(start)} and {iso(end)}"}
    middle = sorted(values)[len(values) // 2]
    good = (above is None or middle > above) and (below is None or middle < below)
    return {"holds": good, "median": middle, "told": f"median of {metric} is {middle:g} between {iso(start)} and {iso(end)}"}


def recall(desk: Desk, asked: str, limit: int) -> dict[str, Any]:
    """Paragraphs that speak of what is asked, by BM25."""
    import math

    wanted = set(words.words(asked))
    paragraphs: list[tuple[str, int, str, dict[str, int]]] = []
    places = [desk.root / name for name in ("memory", "investigations", "incident")]
    files = [p for place in places if place.is_dir() for p in sorted(place.rglob("*.md"))]
    for repo in desk.repos.values():
        files += [p for pattern in ("*.md", "docs/**/*.md", "runbooks/**/*.md") for p in sorted(repo.glob(pattern))][:200]
    for path in files[:1000]:
        line = 1
        for paragraph in path.read_text("utf-8", errors="replace")[:200_000].split("\n\n"):
            counted: dict[str, int] = {}
            for word in words.words(paragraph + " " + path.stem):
                counted[word] = counted.get(word, 0) + 1
            if wanted & set(counted):
                paragraphs.append((desk.shown(path), line, paragraph.strip(), counted))
            line += paragraph.count("\n") + 2
    number = len(paragraphs) or 1
    rarity = {w: math.log(1 + number / (1 + sum(w in p[3] for p in paragraphs))) for w in wanted}
    scored = sorted(
        ((sum(rarity[w] * p[3][w] * 2.2 / (p[3][w] + 1.2) for w in wanted if w in p[3]), p) for p in paragraphs),
        key=lambda s: (-s[0], s[1][0], s[1][1]),
    )
    rows = [{"where": f"{p[0]}:{p[1]}", "score": round(score, 2), "text": p[2][:500]} for score, p in scored[:limit]]
    return {"asked": asked[:200], "searched": len(files), "rows": rows}


def recall_text(answer: dict[str, Any]) -> str:
    if not answer["rows"]:
        return f"nothing in {answer['searched']} documents speaks of this"
    return "\n\n".join(f"{row['where']}\n{row['text']}" for row in answer["rows"])


def judged(desk: Desk) -> dict[str, Any]:
    """The ranking, the brief and the upgrades, from the cache where nothing changed: every command that judges shares one
    judgement."""
    files = [p for p in (desk.root / "incident", desk.root / "memory", desk.root / "investigations") if p.is_dir()]
    inputs = [p for base in files for p in sorted(base.rglob("*")) if p.is_file()]
    inputs += logs.files(desk) + metrics.files(desk) + traces.files(desk)
    refs = [history.git(repo, "for-each-ref") + history.git(repo, "rev-parse", "HEAD") for repo in desk.repos.values()]
    kept = cache(desk, "judged", inputs, refs)
    if kept.exists():
        return dict(json.loads(kept.read_text("utf-8")))
    verdict = suspects.judge(desk)
    if desk.left:
        desk.notes.insert(0, f"not all was looked at in time: {', '.join(desk.left)}; the investigation does it")
    answer = {
        "suspects": suspects_answer(desk, verdict, 30),
        "brief": brief(desk, verdict),
        "dependencies": dependency_diff(desk, "", "", "", verdict, 30),
    }
    if not desk.left:
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(answer), "utf-8")
        partial.replace(kept)
    return answer


def reproduced(desk: Desk, repo: str, commit: str) -> dict[str, Any]:
    """A command that fails with a suspect and not without it; of the first suspects where none is named."""
    made = symptoms.gather(desk)
    tried = []
    if commit:
        where_ = repo or next(
            (r for r in desk.repos if history.git(desk.repos[r], "cat-file", "-t", commit).strip() == "commit"), ""
        )
        suspected = [(where_, commit)] if where_ in desk.repos else []
    else:
        rows = judged(desk)["suspects"]["suspects"]
        suspected = [(s["repo"], s["commit"]) for s in rows[:3] if s["p"] > 0.02 and (not repo or s["repo"] == repo)]
    for name, sha in suspected:
        parent = history.git(desk.repos[name], "rev-parse", "--verify", "-q", f"{sha}^").strip()
        if not parent or not made.frames:
            continue
        tried.append(f"{name}@{sha[:12]}")
        found = reproduce.search(made, desk.repos[name], sha, parent, reproduce.values_of(made))
        if found:
            call = f"{found.name}({', '.join(repr(a) for a in found.arguments)})"
            told = f"{call} raises {found.raised} with {sha[:12]} and not without it"
            return {
                "repo": name,
                "commit": sha,
                "parent": parent,
                "command": found.command(name),
                "raised": found.raised,
                "call": call,
                "told": told,
            }
    return {"command": "", "told": f"no call was found that tells {', '.join(tried) or 'the suspects'} from the parent commit"}
