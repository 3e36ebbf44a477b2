"""What decides and computes: operators, clauses of queries, guards, patterns, what is returned, expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from _analysis import regexes
from _analysis.calls import CALL, SAYS, only_says
from _analysis.commits import FileDiff, Hunk, Line
from _analysis.delta import Delta, Rows, made
from _analysis.rows import closing, squash, squash_words
from _analysis.values import CALLED_WITH, SETTING, VALUE, _same_text, quantity

COMPARED = re.compile(r"[\w.()\]]\s*(?:<=|>=|<|>|==|!=)\s*-?\d[\w.]*|-?\b\d[\w.]*\s*(?:<=|>=|<|>|==|!=)\s*[\w.(]")
NUMBER = re.compile(r"\b\d[\w.]*")
REGEX = re.compile(
    r"(?:re\.(?:compile|match|search|sub|fullmatch|split|findall)|regexp\.\w+|RegExp|Pattern\.compile|Regex::new|\br?[\"'/]\^|[=(:,!&|?]\s*/[^/*\s])"
)

LITERAL_REGEX = re.compile(REGEX.pattern + r".*[\"'`/]|(?i:regex|pattern|_re)\w*\s*[:=].*[\"'`]")
PLACE = re.compile(r"\{[A-Za-z_]*\d?\}|%[sd]|%\(\w+\)s")
KEYWORD = re.compile(r"\b([A-Za-z_]\w*)\s*=(?!=)")
CLAUSE = re.compile(
    r"\b(LIMIT|WHERE|INDEX|DISTINCT|ORDER BY|GROUP BY|JOIN|ON CONFLICT|FOR UPDATE|"
    r"SKIP LOCKED|NOLOCK|RETURNING|UNIQUE|NOT NULL|CASCADE|DROP|ALTER|RENAME|CREATE INDEX|LOCK|SELECT|INSERT|"
    r"UPDATE|DELETE|TRUNCATE)\b"
)


def operators(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Lines that are the same but for an operator, a bound or a negation."""
    left = {
        re.sub(r"<=|>=|==|!=|&&|\|\||[<>!]|\bnot\b|\bis\b|\band\b|\bor\b|[+\-*/%]", "~", squash_words(text)): text
        for _, text in removed
    }
    for line, text in added:
        key = re.sub(r"<=|>=|==|!=|&&|\|\||[<>!]|\bnot\b|\bis\b|\band\b|\bor\b|[+\-*/%]", "~", squash_words(text))
        old = left.get(key)
        if old and squash(old) != squash(text) and not text.startswith(("import", "from")):
            yield made(
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


def clauses(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Clauses of a query that are gone or new."""
    before, after = _clause_words(removed), _clause_words(added)
    for clause in before:
        if before[clause][0] > after.get(clause, (0, None))[0]:
            causes = (
                ("query", "latency", "cpu", "memory")
                if clause in ("LIMIT", "WHERE", "INDEX", "CREATE INDEX", "DISTINCT", "JOIN")
                else ("query", "wrong", "lock")
            )
            yield made("removed clause", clause, file, hunk, before[clause][1], 0.9, causes, ())
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
            yield made(
                "added clause", clause, file, hunk, after[clause][1], 0.7 if harsh else 0.15 if index else 0.5, brings, eases
            )


def _clause_words(rows: Rows) -> dict[str, tuple[int, Line]]:
    found: dict[str, tuple[int, Line]] = {}
    for line, text in rows:
        for clause in CLAUSE.findall(text):
            number, first = found.get(clause, (0, line))
            found[clause] = (number + 1, first)
    return found


def patterns(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Regular expressions, names of fields and addresses that became others."""
    known = {e for _, text in removed for e in regexes.expressions(text)}
    places = {PLACE.sub("{}", e) for e in known if PLACE.search(e)}
    worst = max((regexes.danger(e) for e in known), default=0.0)
    for line, text in added:
        fresh = [e for e in regexes.expressions(text) if e not in known and PLACE.sub("{}", e) not in places]
        danger = max((regexes.danger(e) for e in fresh), default=0.0)
        used = bool(REGEX.search(text) or LITERAL_REGEX.search(text) or known)
        if danger > worst and fresh:
            causes: tuple[str, ...] = ("cpu", "latency", "timeout")
            yield made("pattern that can backtrack", max(fresh, key=len)[:120], file, hunk, line, 0.5 + 0.7 * danger, causes, ())
        elif fresh and used:
            slow = danger or any(regexes.rescans(e) for e in fresh)
            causes = ("parse", "wrong", "missing", "refused", *(("cpu", "latency", "timeout") if slow else ()))
            yield made(
                "changed pattern",
                max(fresh, key=len)[:120],
                file,
                hunk,
                line,
                0.75 if known else 0.65 if slow else 0.5,
                causes,
                (),
            )
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
                yield made(
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


def limits(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Comparisons with another number than before."""
    left = {NUMBER.sub("~", squash_words(text)): text for _, text in removed}
    for line, text in added:
        old = left.get(NUMBER.sub("~", squash_words(text)))
        if old and COMPARED.search(text) and NUMBER.findall(old) != NUMBER.findall(text):
            causes = ("wrong", "bounds", "error", "refused", "payload", "memory", "parse")
            yield made("changed limit", f"{old} -> {text}", file, hunk, line, 0.8, causes, (), old=old, new=text)


def returned(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """Another constant returned."""
    form = re.compile(rf"return\s+(?P<value>{VALUE})\s*;?$")
    before = [m["value"] for _, text in removed if (m := form.match(text))]
    after = [(m["value"], line) for line, text in added if (m := form.match(text))]
    for old, (new, line) in zip(before, after, strict=False):
        if old != new and not _same_text(old, new):
            causes = ("wrong", "error", "bounds", "missing", "refused", "memory")
            yield made("changed value", f"return {old} -> {new}", file, hunk, line, 0.6, causes, (), old=old, new=new)
    gone = [text for _, text in removed if text.startswith("return ")]
    for line, text in added:
        if text.startswith("return ") and gone and text not in gone and not form.match(text):
            causes = ("wrong", "error", "missing", "nil", "parse", "type")
            yield made("other result", f"{gone[0]} -> {text}", file, hunk, line, 0.55, causes, (), old=gone[0], new=text)
            return


def expressions(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
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
                causes: tuple[str, ...] = ("wrong", "error", "missing", "bounds", "parse")
                yield made("changed expression", f"{old} -> {text}", file, hunk, line, 0.5, causes, (), old=old, new=text)
                return
            if squash(old) != squash(text) and not any(SETTING.search(side) or CALLED_WITH.search(side) for side in (old, text)):
                causes = ("wrong", "bounds", "memory", "queue", "pool", "lock", "error")
                yield made("changed value", f"{old} -> {text}", file, hunk, line, 0.6, causes, (), old=old, new=text)
                return


def arguments(file: FileDiff, hunk: Hunk, removed: Rows, added: Rows) -> Iterator[Delta]:
    """The same call with other arguments, also where it is written over several lines."""
    before, after = _calls(removed), _calls(added)
    for name in before.keys() & after.keys():
        (old, _), (new, line) = before[name], after[name]
        if squash(old) != squash(new) and not SAYS.match(name) and not name.endswith(("Error", "Exception", "Warning", "warn")):
            fresh = {m[1] for m in KEYWORD.finditer(new)} ^ {m[1] for m in KEYWORD.finditer(old)}
            causes = ("wrong", "parse", "error", "missing", "refused", "type")
            what = f"{name}({old[:50]}) -> {name}({new[:80]})"
            yield made("other arguments", what, file, hunk, line, 0.7 if fresh else 0.5, causes, (), old=old, new=new)


def _calls(rows: Rows) -> dict[str, tuple[str, Line]]:
    """Calls that are made once in these lines, with their arguments."""
    text, ends = "", []
    for line, part in rows:
        text += part + " "
        ends.append((len(text), line))
    found: dict[str, tuple[str, Line]] = {}
    twice: set[str] = set()
    for match in CALL.finditer(text):
        name, begin = match[1], match.end()
        if re.search(r"\b(?:def|class|func|function)\s+$", text[: match.start()]) or name in ("if", "while", "for", "return"):
            continue
        end = closing(text, begin)
        if name in found or not end:
            twice.add(name)
        found[name] = (text[begin:end], next(line for place, line in ends if place > match.start()))
    return {name: call for name, call in found.items() if name not in twice}


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
