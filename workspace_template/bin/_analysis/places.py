"""Says where a commit acts against where the failure is: in the stack trace, some calls away, or in what writes the error.

Weights of calls and frames fall with distance. It knows nothing of times.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from _analysis import uses, words
from _analysis.callgraph import NOT_NAMES, WORD, Graph, contents, graph
from _analysis.commits import Commit, FileDiff, Hunk, Line
from _analysis.desk import Desk
from _analysis.git import git
from _analysis.kinds import IDLE, kind_of
from _analysis.rows import DEFINED, bare, changed_names, code
from _analysis.symptoms import Symptoms

FRAMES, QUOTES = 60, 3
QUOTED = 0.6
OTHER = 0.65
BESIDE = 3
WRITTEN = 0.8
RENAMED = 0.2
"""What a line is worth that a commit brings, where all that is new in it are names."""
REWORDED = 0.5
"""What a line that raises is worth, where its function raised the same error before."""
RAISES = re.compile(r"(?:raise|throw new|throw)\s+([\w.]+)")
TOKEN = re.compile(r"\w+|[^\w\s]")
IMPORTED = 1.5
SPOKEN = 2.0
FAR = 6.0
ASSIGNED = re.compile(r"^\s*(?:export\s+|const\s+|let\s+|var\s+|final\s+|static\s+)*([A-Za-z_]\w{2,})\s*(?::[^=]+)?:?=(?!=)")
TEXT = re.compile(r"[\"'`]([^\"'`\s]{5,60})[\"'`]")
TELLING = re.compile(r"[A-Za-z].*[-/_.:]|[-/_.:].*[A-Za-z]|[A-Za-z]\w{7}")
INNER = re.compile(r"[)}\]#@/*]|(?:import|from|func|public|private|protected|static|export|async)\b")


@dataclass(kw_only=True)
class Map:
    """How far everything in the repositories is from the failure. `functions`: distance in calls by repository and index;
    `names`: by repository and name; `emitters`: files that write the new errors, with the words they write.
    """

    graphs: dict[str, Graph] = field(default_factory=dict)
    functions: dict[str, dict[int, float]] = field(default_factory=dict)
    names: dict[str, dict[str, float]] = field(default_factory=dict)
    emitters: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    stretches: list[str] = field(default_factory=list)


def chart(desk: Desk, symptoms: Symptoms) -> Map:
    """The map of this desk for these symptoms."""
    made = Map(stretches=_stretches(symptoms))
    written = _emitters(desk, made)
    for name in desk.repos:
        calls = graph(desk, name)
        roots = _roots(desk, symptoms, name, calls)
        for repository, path, line in written:
            index = calls.at(path, line, "") if repository == name else None
            if index is not None:
                roots[index] = min(WRITTEN, roots.get(index, math.inf))
        if roots:
            made.graphs[name] = calls
            made.functions[name] = calls.distances(roots, FAR)
            made.names[name] = _names(calls, made.functions[name])
            for word, distance in _quoted(symptoms, calls).items():
                made.names[name][word] = min(distance, made.names[name].get(word, math.inf))
    return made


def quote(desk: Desk, symptoms: Symptoms) -> None:
    """Gives frames whose trace quotes no code the line that stands there: where it raised, or where it calls the frame below."""
    wanted = [(n, f) for n, f in enumerate(symptoms.frames[:FRAMES]) if not f.code and f.depth <= QUOTES and f.line > 0]
    for repo in desk.repos.values() if wanted else ():
        paths = git(repo, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
        inside = {n: path for n, f in wanted if (path := next((p for p in paths if same_file(f.file, p)), ""))}
        texts = contents(repo, "HEAD", sorted(set(inside.values())))
        for n, frame in wanted:
            rows = texts.get(inside.get(n, ""), "").splitlines()
            row = rows[frame.line - 1].strip()[:200] if frame.line <= len(rows) else ""
            below = next((f.name for f in symptoms.frames[:n][::-1] if f.depth == frame.depth - 1), "")
            if row and (not frame.depth or (below and re.split(r"[.:$#]", below)[-1] in row)):
                frame.code = row


class _Roots:
    """Functions at which the failure shows, with the distance they begin with."""

    def __init__(self, calls: Graph) -> None:
        self.calls = calls
        self.found: dict[int, float] = {}

    def add(self, index: int | None, distance: float) -> None:
        if index is not None:
            self.found[index] = min(distance, self.found.get(index, math.inf))

    def named(self, text: str, distance: float) -> None:
        """Functions that a text names, unless many have that name."""
        for word in set(WORD.findall(text)) - NOT_NAMES:
            if len(word) > 3:
                self.name(word, distance)

    def name(self, word: str, distance: float) -> None:
        """Functions of this name, unless many have it."""
        places = self.calls.by_name.get(word, ())
        for index in places if len(places) <= 4 else ():
            self.add(index, distance + 0.5 * math.log2(len(places)))


def _roots(desk: Desk, symptoms: Symptoms, name: str, calls: Graph) -> dict[int, float]:
    """From frames, from the lines that frames outside of the repository quote, from imports and from names in messages."""
    roots = _Roots(calls)
    frames = symptoms.frames[:FRAMES]
    inside = [next((p for p in calls.by_file if same_file(f.file, p)), "") for f in frames]
    least = min((f.depth for f, path in zip(frames, inside, strict=True) if path), default=0)
    for frame, path in zip(frames, inside, strict=True):
        if path:
            roots.add(calls.at(path, frame.line, frame.name), 0.35 * (frame.depth - least))
        elif frame.code and frame.depth <= least + 8:
            roots.named(frame.code, QUOTED + 0.35 * frame.depth)
    for other in desk.repos:
        if other != name:
            for word in uses.names(desk.repos[other], name, desk.repos[name]):
                roots.name(word, IMPORTED)
    for text in _spoken(symptoms):
        roots.named(text, SPOKEN)
    return roots.found


def _spoken(symptoms: Symptoms) -> list[str]:
    """Names that spans and anomalies speak of and that look like code: with an underscore, a dot or a hump, or followed by (."""
    texts = [a.text for a in symptoms.anomalies[:20] if a.weight >= 0.2 and a.kind != "metric"]
    texts += [f"{operation} {what}" for _, operation, what, _, _ in symptoms.spans.guilty[:20]]
    form = re.compile(r"\b(?:[A-Za-z]\w*(?:\.[A-Za-z_]\w*)+|[a-z]+_\w+|[A-Z][a-z0-9]+[A-Z]\w*|[A-Za-z_]\w*(?=\())")
    return [match for text in dict.fromkeys(texts) for match in form.findall(text)][:80]


def _quoted(symptoms: Symptoms, calls: Graph) -> dict[str, float]:
    """Names in the lines of this repository that the stack traces quote, nearest where it was raised."""
    found: dict[str, float] = {}
    for frame in symptoms.frames[:FRAMES]:
        if frame.code and frame.depth <= 2 and any(same_file(frame.file, path) for path in calls.by_file):
            for word in set(WORD.findall(frame.code)) - NOT_NAMES:
                found[word] = min(0.3 + 0.5 * frame.depth, found.get(word, math.inf))
    return found


def _names(calls: Graph, distances: dict[int, float]) -> dict[str, float]:
    """How far each name is that a reached function speaks of."""
    found: dict[str, float] = {}
    for index, distance in distances.items():
        for name in calls.functions[index].names:
            if distance + 1.0 < found.get(name, math.inf):
                found[name] = distance + 1.0
    return found


def reached(made: Map, commit: Commit) -> tuple[float, str]:
    """0 to 1, how near to the failure the nearest thing is that a commit changes, and what it is."""
    best, what = math.inf, ""
    if commit.repo not in made.functions:
        return 0.0, ""
    for file in commit.files:
        if kind_of(file.path) in IDLE:
            continue
        for name, inside in {place for _, place in touched(file)}:
            far = _far(made, commit.repo, file.path, name, inside)
            if far < best:
                best, what = far, name
    return (math.exp(-0.35 * best), what) if what else (0.0, "")


def nearness(made: Map, commit: Commit) -> dict[tuple[str, str, int], float]:
    """The same for each changed line, by path, side and number, where the failure's surroundings are known."""
    found: dict[tuple[str, str, int], float] = {}
    known: dict[tuple[str, str, bool], float] = {}
    for file in commit.files if commit.repo in made.functions else ():
        if kind_of(file.path) in IDLE:
            continue
        for line, (name, inside) in touched(file):
            key = (file.path, name, inside)
            if key not in known:
                known[key] = math.exp(-0.35 * _far(made, commit.repo, *key))
            found[file.path, line.tag, line.number] = max(known[key], found.get((file.path, line.tag, line.number), 0.0))
    return found


def _far(made: Map, repo: str, path: str, name: str, inside: bool) -> float:
    """How many calls away what has this name is: a function that lines changed in, or a name that is assigned outside of one."""
    if not inside:
        return made.names[repo].get(name, math.inf)
    calls, distances = made.graphs[repo], made.functions[repo]
    here = [i for i in calls.by_file.get(path, ()) if calls.functions[i].name == name]
    named = calls.by_name.get(name, ())
    return min((distances.get(i, math.inf) for i in here or (named if len(named) <= 3 else ())), default=math.inf)


def touched(file: FileDiff) -> Iterator[tuple[Line, tuple[str, bool]]]:
    """The changed lines with the functions in which they stand; outside of functions with the names that they assign."""
    for hunk in file.hunks:
        head = DEFINED.match(hunk.within) or re.search(r"([A-Za-z_]\w*)\s*\(", hunk.within)
        current, body = (head[1], hunk.within.lstrip().startswith("class ")) if head else ("", False)
        for line in hunk.lines:
            match = DEFINED.match(line.text)
            if match:
                current, body = match[1], line.text.lstrip().startswith("class ")
            elif line.text[:1].strip() and not INNER.match(line.text):
                current = ""
            if line.tag == " " or not code(line.text, file.path):
                continue
            assigned = ASSIGNED.match(line.text)
            if current and not (body and assigned):
                yield line, (current, True)
            elif assigned:
                yield line, (assigned[1], False)
            elif re.match(r"\s*(?:from\s.*\simport|import)\b", line.text):
                yield from ((line, (word, False)) for word in re.findall(r"\w+", line.text))


def in_trace(symptoms: Symptoms, commit: Commit) -> tuple[float, float, str]:
    """Whether it changes a function, and whether it changes a file, of the stack traces: 0 to 1 each, and what it is."""
    near_function, near_file, why = 0.0, 0.0, ""
    for file in commit.files:
        if kind_of(file.path) in IDLE:
            continue
        for frame in symptoms.frames[:FRAMES]:
            if not same_file(frame.file, file.path):
                continue
            near = 1.0 / (1 + 0.3 * frame.depth)
            near_file = max(near_file, near)
            if near > near_function and _touches(file, frame.name, frame.line):
                near_function, why = near, f"it changes {frame.name or file.path} of the stack trace"
            why = why or f"it changes {file.path}, which is in the stack trace"
    return near_function, near_file, why


def failing_line(symptoms: Symptoms, commit: Commit) -> float:
    """Whether it brings a line that the stack traces quote, or changes one next to it: 1 for the one that raised, less for its
    callers.
    """
    best = 0.0
    quoted = {frame.code: frame for frame in symptoms.frames[:FRAMES][::-1] if len(frame.code) >= 12}
    for file in commit.files if quoted else ():
        if kind_of(file.path) in IDLE:
            continue
        texts = [(row.tag, row.text.strip()) for hunk in file.hunks for row in hunk.lines]
        stands = [name for hunk in file.hunks for name in _functions(hunk)]
        gone = bare("".join(text for tag, text in texts if tag == "-"))
        for place, (tag, text) in enumerate(texts):
            if tag == "-" or text not in quoted or not same_file(quoted[text].file, file.path):
                continue
            if stands[place] and quoted[text].name.isidentifier() and quoted[text].name != stands[place]:
                continue
            depth = quoted[text].depth
            if tag == "+" and bare(text) not in gone:
                worth = RENAMED if renamed(text, texts) else REWORDED if _raised_before(text, texts, stands, place) else 1.0
                best = max(best, worth / (1 + 0.25 * depth))
            elif any(other != " " for other, _ in texts[max(0, place - BESIDE) : place + BESIDE + 1]):
                best = max(best, 0.6 / (1 + 0.5 * depth))
    return best


def _functions(hunk: Hunk) -> Iterator[str]:
    """The function in which each line of a hunk stands, "" where that is not seen."""
    head = DEFINED.match(hunk.within)
    current = head[1] if head and not hunk.within.lstrip().startswith("class ") else ""
    for line in hunk.lines:
        if match := DEFINED.match(line.text):
            current = "" if line.text.lstrip().startswith("class ") else match[1]
        elif line.text[:1].strip() and not INNER.match(line.text):
            current = ""
        yield current


def renamed(text: str, texts: list[tuple[str, str]]) -> bool:
    """Whether a new line is an old one in which names got other names, as they did in the whole file: it did the same before."""
    new = TOKEN.findall(text)
    for tag, other in texts:
        old = TOKEN.findall(other) if tag == "-" else []
        pairs = {(a, b) for a, b in zip(old, new, strict=False) if a != b}
        if len(old) == len(new) and 0 < len(pairs) <= 2 and all(_everywhere(a, b, texts) for a, b in pairs):
            return True
    return False


def _raised_before(text: str, texts: list[tuple[str, str]], stands: list[str], place: int) -> bool:
    """Whether a new line raises what the same function raised before, in other words: then it failed before too."""
    kind = RAISES.match(text)
    return kind is not None and any(
        tag == "-" and stands[other] == stands[place] and (old := RAISES.match(line)) is not None and old[1] == kind[1]
        for other, (tag, line) in enumerate(texts)
    )


def _everywhere(old: str, new: str, texts: list[tuple[str, str]]) -> bool:
    """Whether a name gave way to a new one wherever it stood: in two more lines at least, and the new one is nowhere old."""
    if not (old.isidentifier() and new.isidentifier()):
        return False
    told = [(tag, old in names, new in names) for tag, text in texts if (names := set(TOKEN.findall(text)))]
    gone = sum(tag == "-" and was for tag, was, _ in told)
    return (
        gone >= 3 and sum(tag == "+" and is_ for tag, _, is_ in told) >= 3 and not any(tag == "-" and is_ for tag, _, is_ in told)
    )


def writes(made: Map, commit: Commit) -> tuple[float, str]:
    """Whether it brings the text of a new error (1), or changes a file that writes one (0.3)."""
    best, why = 0.0, ""
    for file in commit.files:
        if kind_of(file.path) in IDLE:
            continue
        added = [line.text for hunk in file.hunks for line in hunk.lines if line.tag == "+"]
        for stretch in made.stretches:
            if any(stretch in text for text in added):
                gone = any(stretch in line.text for hunk in file.hunks for line in hunk.lines if line.tag == "-")
                if not gone:
                    return 1.0, f"it brings the text “{stretch[:60]}”"
        if (commit.repo, file.path) in made.emitters and best < 0.3:
            best, why = 0.3, f"{file.path} writes “{made.emitters[commit.repo, file.path][0][:60]}”"
    return best, why


def values(symptoms: Symptoms, commit: Commit) -> tuple[float, str]:
    """Whether a literal that it brings stands in the new lines of the logs and in no line from before."""
    best, why = 0.0, ""
    fresh = "\n".join(a.quote for a in symptoms.anomalies[:20] if a.kind == "log" and a.fresh and a.up)
    if not fresh:
        return best, why
    usual = symptoms.before
    for file in commit.files:
        if kind_of(file.path) in IDLE:
            continue
        rows = [row for hunk in file.hunks for row in hunk.lines]
        gone = {text for row in rows if row.tag == "-" for text in TEXT.findall(row.text)}
        for row in rows:
            for text in set(TEXT.findall(row.text)) - gone if row.tag == "+" else ():
                if text in fresh and text not in usual and TELLING.search(text):
                    replaced = any(old in usual and old not in fresh for old in gone)
                    worth = 1.0 if replaced else 0.6
                    best, why = max((best, why), (worth, f"it brings “{text[:40]}”, which stands in the new lines"))
    return best, why


def _stretches(symptoms: Symptoms) -> list[str]:
    """The literal parts of the new errors."""
    texts = [a.text for a in symptoms.anomalies if a.kind in ("log", "span") and a.fresh and a.level >= 2][:8]
    texts += [f.raised.partition(":")[2] for f in symptoms.frames[:20] if f.raised]
    found: dict[str, None] = {}
    for text in texts:
        parts = re.split(r"<\*>|[\"'{}|=`]|\w+(?:\.\w+)+: |(?<=\w): ", text)
        for part in sorted(parts, key=len, reverse=True)[:2]:
            stretch = part.strip(" :,.;()[]")
            if len(stretch) >= 10 and " " in stretch:
                found[stretch] = None
    return list(found)[:16]


def _emitters(desk: Desk, made: Map) -> list[tuple[str, str, int]]:
    """Files that write the new errors, searched with git grep; and the places, by repository, path and line."""
    found: list[tuple[str, str, int]] = []
    for stretch in made.stretches[:8]:
        for name, repo in desk.repos.items():
            for row in _grep(repo, stretch):
                parts = row.split(":", 3)
                if len(parts) == 4 and parts[2].isdigit() and kind_of(parts[1]) not in IDLE:
                    made.emitters.setdefault((name, parts[1]), []).append(stretch)
                    found.append((name, parts[1], int(parts[2])))
    return found


def _grep(repo: Path, stretch: str) -> list[str]:
    """Where a text stands in a repository; its beginning where it stands nowhere whole, for it may be written over two lines."""
    parts = stretch.split(" ")
    for count in dict.fromkeys((len(parts), 5, 4)):
        text = " ".join(parts[:count])
        rows = git(repo, "grep", "-nIF", "-e", text, "HEAD", "--").splitlines() if count <= len(parts) and len(text) >= 10 else []
        if rows and (count == len(parts) or len(rows) <= 3):
            return rows[:10]
    return []


def same_file(frame: str, path: str) -> bool:
    """Whether a frame's path and a repository's path end alike: two parts, or all of the shorter one."""
    a, b = re.split(r"[/\\]", frame), path.split("/")
    same = 0
    while same < min(len(a), len(b)) and a[-1 - same] == b[-1 - same]:
        same += 1
    return same >= 2 or (same == 1 and min(len(a), len(b)) == 1)


def _touches(file: FileDiff, name: str, line: int) -> bool:
    last = re.split(r"[.:$#]", name)[-1].strip("<>") if name else ""
    for hunk in file.hunks:
        changed = [row for row in hunk.lines if row.tag != " "]
        if (
            last
            and len(last) > 2
            and (
                re.search(rf"\b{re.escape(last)}\b", hunk.within)
                or any(re.search(rf"\b(?:def|func|function|fn)\b[^(]*\b{re.escape(last)}\b", row.text) for row in hunk.lines)
            )
        ):
            return True
        if not last and changed and min(abs(row.number - line) for row in changed) <= 8:
            return True
    return False


def named(symptoms: Symptoms, commit: Commit) -> tuple[float, str]:
    """Whether it takes away (1), or changes (0.3), a name that the new errors put in quotes."""
    if not symptoms.named and not symptoms.others:
        return 0.0, ""
    other = _other_value(symptoms, commit)
    if not symptoms.named:
        return other
    removed, added = changed_names(commit)
    texts = " ".join(
        [a.quote for a in symptoms.anomalies[:12] if a.kind == "log" and a.fresh] + [f.file for f in symptoms.frames[:8]]
    )
    best = other
    for name, absent in symptoms.named.items():
        less = removed.get(name, 0) - added.get(name, 0)
        if absent and less > 0:
            worth = 0.7 if removed[name] > 1 or added.get(name, 0) == 0 else 0.4
            files = [f.path for f in commit.files if any(name in row.text for h in f.hunks for row in h.lines if row.tag == "-")]
            worth += 0.3 * any(same_file(path, f) for path in re.findall(r"[\w./-]+\.\w+", texts) for f in files)
            worth -= 0.3 * all(kind_of(f) in IDLE for f in files)
            if holder := symptoms.holders.get(name):
                worth = 1.0 if any(_is_module(f, holder) for f in files) else 0.4 * worth
            if name.isdigit() and not any(same_file(frame.file, f) for frame in symptoms.frames[:8] for f in files):
                continue
            best = max(best, (worth, f"it takes “{name}” away, which the errors miss"))
        elif less != 0:
            best = max(best, (0.3, f"it changes “{name}”, which the errors name"))
    return best


def _other_value(symptoms: Symptoms, commit: Commit) -> tuple[float, str]:
    """Whether it assigns or defines anew what the failing line found to be another thing."""
    rows = [
        (r, f.path) for f in commit.files if kind_of(f.path) not in IDLE for hunk in f.hunks for r in hunk.lines if r.tag != " "
    ]
    for name in symptoms.others:
        form = re.compile(
            rf"(?<!\w){re.escape(name)}[\"']?\s*(?:=(?!=)|:\s*[\w.]+[,}}]?$)|\b(?:def|function)\s+{re.escape(name)}\("
        )
        tags = {row.tag for row, path in rows if form.search(code(row.text, path))}
        if "+" in tags:
            return (OTHER if "-" in tags else 0.6 * OTHER), f"it gives “{name}” another value, which the failing line uses"
    return 0.0, ""


def _is_module(path: str, module: str) -> bool:
    """Whether a file is this module, or the package of that name."""
    place = module.replace(".", "/")
    return re.sub(r"(?:/__init__)?\.\w+$", "", f"/{path}").endswith(f"/{place}")


def elsewhere(symptoms: Symptoms, made: Map, commit: Commit) -> bool:
    """Whether the stack traces run through this repository, and the commit touches none of the files that they run through."""
    calls = made.graphs.get(commit.repo)
    frames = [f for f in symptoms.frames[:FRAMES] if f.depth <= 3 and calls and any(same_file(f.file, p) for p in calls.by_file)]
    return bool(frames) and not any(same_file(frame.file, file.path) for frame in frames for file in commit.files)


def shared(symptoms: Symptoms, text: str) -> float:
    """0 to 1: how much of the symptom's distinctive words this line has."""
    common = sorted((symptoms.words[w] for w in set(words.words(text)) if w in symptoms.words), reverse=True)
    return min(1.0, sum(common[:4]) / 4.0)
