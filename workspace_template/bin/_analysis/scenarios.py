"""What of a service's own code calls a package, and with which arguments that could be: its functions with values from the logs
and from the code. Python by its syntax tree, JavaScript by its text. Nothing is run here.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from _analysis import regexes, uses
from _analysis.callgraph import contents
from _analysis.git import git
from _analysis.kinds import IDLE, kind_of
from _analysis.symptoms import Symptoms

FILES, FUNCTIONS, CALLS, VALUES = 6, 8, 600, 40
AROUND = 15
LONGEST = 300
QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|'([^'\n]{1,200})'|[‘“`]([^’”`\n]{1,200})[’”`]")
TOKENS = re.compile(r"(?<![\w/.-])(?:[\w.+-]+://\S+|[\w.+@/:-]*[\d@/:.][\w.+@/:-]*)")
GIVEN = re.compile(r"(?<![\w-])([A-Za-z_][\w.]*)=(\"[^\"]*\"|\S+)")
HEAD = re.compile(
    r"^(?:export\s+)?(?:default\s+)?(?:(?:async\s+)?function\s+(\w+)\s*\(([^()]{0,200})\)|"
    r"(?:const|let|var)\s+(\w+)\s*=\s*(?:async\s*)?(?:function\s*)?\(?([\w ,={}\[\]:'\"]{0,200}?)\)?[ \t]*(?:=>|\{))",
    re.MULTILINE,
)
TEXTS = re.compile(r"'((?:[^'\\\n]|\\.){1,200})'|\"((?:[^\"\\\n]|\\.){1,200})\"|`([^`$\\]{1,200})`")
SEVERAL = ["*"]
UNITS = (" ", "a", "0", "(", "[", "<", ",", "%c3", "\\r\\n", "\n", "a ", "-", ".", "&", "=")
TIMES = (24, 300, 12_000)
"""How often something is repeated that an expression may read for long: enough where it is exponential, and where it is not."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function to call. told: how many of its calls, the first ones, have arguments that the telemetry names."""

    name: str
    calls: list[list[Any]]
    told: int


@dataclass(frozen=True, kw_only=True)
class Script:
    """A file of a service that uses a package."""

    path: str
    functions: list[Function] = field(default_factory=list)

    @property
    def python(self) -> bool:
        return self.path.endswith(".py")


def scripts(repo: Path, package: str, home: Path, symptoms: Symptoms, slow: Sequence[str]) -> list[Script]:
    """The files of a repository that use a package whose own repository is `home`. slow: texts that may take long."""
    told = values(symptoms)
    found = []
    for path, text in _using(repo, package, home).items():
        functions = _python(text, package, home, told, slow) if path.endswith(".py") else _script(text, package, told, slow)
        if functions:
            found.append(Script(path=path, functions=functions[:FUNCTIONS]))
    return found[:FILES]


def values(symptoms: Symptoms) -> list[str]:
    """Texts that the failing lines name, what they quote first."""
    found: dict[str, None] = {}
    texts = [a.quote for a in symptoms.anomalies[:20] if a.kind == "log" and (a.fresh or a.level >= 2)]
    texts += [f.raised for f in symptoms.frames[:20] if f.raised]
    for text in dict.fromkeys(texts):
        for parts in QUOTED.findall(text):
            found.update(dict.fromkeys(part for part in parts if part))
        found.update(dict.fromkeys(value.strip('"') for _, value in GIVEN.findall(text)))
        found.update(dict.fromkeys(token.rstrip(".,:") for token in TOKENS.findall(text)))
    return [value for value in found if 0 < len(value) <= LONGEST][:VALUES]


def slow(repo: Path, old: str, new: str) -> list[str]:
    """Texts that expressions which came between two commits may read for long."""
    rows = git(repo, "diff", "--no-color", "--no-ext-diff", "-U0", old, new, "--", "*.py", "*.js", "*.mjs", "*.cjs", "*.ts")
    fresh = [row[1:] for row in rows[:4_000_000].splitlines() if row.startswith("+") and len(row) < 2000]
    patterns = dict.fromkeys(e for row in fresh for e in regexes.expressions(row) if regexes.danger(e) or regexes.rescans(e))
    texts: dict[str, None] = {}
    for pattern in list(patterns)[:10]:
        pattern = re.sub(r"\(\?P?<\w+>|\(\?[:=!]", "(", pattern)
        begin = re.match(r"\^?((?:[\w: -])*)", pattern)
        prefix = begin[1] if begin else ""
        letters = list(dict.fromkeys(re.sub(r"\\.|[\w\s]|[\^$.*+?()\[\]{}|]", "", pattern)))[:3]
        for unit in (*letters, *(a + b for a in letters for b in letters if a != b), *("\r\n", " ", "a")):
            texts.update(dict.fromkeys(f"{prefix}{unit * number}\n!" for number in TIMES))
    texts.update(dict.fromkeys(unit * number + "!" for unit in UNITS for number in TIMES))
    return list(texts)


def _using(repo: Path, package: str, home: Path) -> dict[str, str]:
    """The text of the files that import it."""
    tops = uses.tops(package, home)
    script = (home / "package.json").is_file()
    plain = re.escape(package)
    pattern = (
        rf"(require\(|from )['\"]{plain}['\"/]"
        if script
        else rf"^[[:space:]]*(from|import)[[:space:]](.*[ ,])?({'|'.join(re.escape(top) for top in sorted(tops))})([. ,]|$)"
    )
    kinds = ["*.js", "*.mjs", "*.cjs"] if script else ["*.py"]
    rows = git(repo, "grep", "-lIE", "-e", pattern, "HEAD", "--", *kinds).splitlines() if tops or script else []
    paths = [path for row in rows if kind_of(path := row.removeprefix("HEAD:")) not in IDLE]
    return contents(repo, "HEAD", paths[: 3 * FILES])


def _python(text: str, package: str, home: Path, told: Sequence[str], slow: Sequence[str]) -> list[Function]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    tops = uses.tops(package, home)
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound |= {a.asname or a.name.partition(".")[0] for a in node.names if a.name.partition(".")[0] in tops}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in tops:
            bound |= {a.asname or a.name for a in node.names}
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    for _ in range(4):
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and _names(statement.value) & bound:
                bound |= {t.id for t in statement.targets if isinstance(t, ast.Name)}
            elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and _names(statement) & bound:
                bound.add(statement.name)
    own = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) <= LONGEST
    ]
    found = []
    for function in (f for f in functions if f.name in bound):
        parameters = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        needed = parameters[: len(parameters) - len(function.args.defaults)]
        if len(needed) <= 2 and not function.args.kwonlyargs and not function.args.vararg:
            keys = [_keys(function, name) for name in needed]
            calls = [_calls(keys, pool) for pool in (told, [*dict.fromkeys(own)][:VALUES], _around(own, slow))]
            found.append(Function(name=function.name, calls=[c for part in calls for c in part], told=len(calls[0])))
    return found


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _keys(function: ast.FunctionDef, name: str) -> list[str]:
    """The keys that a function takes from a parameter, which is a mapping then; SEVERAL where it goes through it."""
    found: dict[str, None] = {}
    for node in ast.walk(function):
        if isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.iter, ast.Name) and node.iter.id == name:
            return SEVERAL
        key: Any = None
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == name:
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            key = node.args[0] if isinstance(node.func.value, ast.Name) and node.func.value.id == name else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found[key.value] = None
    return list(found)[:6]


def _script(text: str, package: str, told: Sequence[str], slow: Sequence[str]) -> list[Function]:
    bound = set(
        re.findall(rf"(?:const|let|var|import)\s+(?:\*\s+as\s+)?(\w+)\s*(?:=\s*require\(|from\s*)['\"]{re.escape(package)}", text)
    )
    for inner in re.findall(rf"\{{([^{{}}]{{0,500}})\}}\s*(?:=\s*require\(|from\s*)['\"]{re.escape(package)}", text):
        bound |= {re.split(r"\s+as\s+|:", part)[-1].strip() for part in inner.split(",")}
    bodies = {(m[1] or m[3]): ((m[2] if m[1] else m[4]) or "", _body(text, m.start())) for m in HEAD.finditer(text)}
    for statement in re.findall(r"^(?:const|let|var)\s+(\w+)\s*=\s*([^\n]*)", text, re.MULTILINE):
        if set(re.findall(r"\w+", statement[1])) & bound:
            bound.add(statement[0])
    for _ in range(3):
        bound |= {name for name, (_, body) in bodies.items() if set(re.findall(r"\w+", body)) & bound}
    own = [part for parts in TEXTS.findall(text) for part in parts if part]
    found = []
    for name, (given, body) in bodies.items():
        needed = [part.strip() for part in given.split(",") if part.strip()]
        if name in bound and len(needed) <= 2 and all(re.fullmatch(r"\w+", part) for part in needed):
            keys = [_fields(body, part) for part in needed]
            calls = [_calls(keys, pool) for pool in (told, [*dict.fromkeys(own)][:VALUES], _around(own, slow))]
            found.append(Function(name=name, calls=[c for part in calls for c in part], told=len(calls[0])))
    return found


def _fields(body: str, name: str) -> list[str]:
    """The fields that a function takes from a parameter; SEVERAL where it goes through it."""
    if re.search(rf"\bof\s+{name}\b|\b{name}\.(?:map|forEach|filter|reduce|some|every)\(", body):
        return SEVERAL
    return [key for key in dict.fromkeys(re.findall(rf"\b{name}\.(\w+)\b(?!\()", body)) if key != "length"][:6]


def _body(text: str, start: int) -> str:
    """From where a function begins to the brace that ends it at the beginning of a line."""
    end = re.compile(r"^\}|\n\n(?=\S)", re.MULTILINE).search(text, start + 1)
    return text[start : end.end() if end else len(text)]


def _around(own: Sequence[str], slow: Sequence[str]) -> list[str]:
    """The texts that may take long, alone, after what the code itself writes, and between two such texts."""
    long = sorted(set(own), key=lambda text: (-len(text), text))[:4] if slow else []
    after = [f"{text}{one.rstrip('!')}" for text in long for one in slow]
    between = [f"{a}{one.rstrip('!')}{b}" for one in slow[:AROUND] for a in long for b in long]
    return [text for three in zip_longest(slow, after, between) for text in three if text]


def _calls(keys: Sequence[list[str]], pool: Iterable[str]) -> list[list[Any]]:
    """Arguments for parameters that are texts, or mappings with these keys."""
    options = list(dict.fromkeys(pool))
    made: dict[str, list[Any]] = {}
    for call in _options(keys, options):
        made.setdefault(json.dumps(call), call)
        if len(made) >= CALLS:
            break
    return list(made.values())


def _options(keys: Sequence[list[str]], pool: Sequence[str]) -> Iterator[list[Any]]:
    if not keys:
        yield []
        return
    for value in pool:
        forms: list[Any] = [value]
        if re.fullmatch(r"-?\d{1,15}(?:\.\d+)?", value):
            forms.append(float(value) if "." in value else int(value))
        for form in forms:
            for place in range(len(keys)):
                call = [_shaped(names, pool[0]) for names in keys]
                call[place] = _shaped(keys[place], form)
                yield call


def _shaped(keys: list[str], value: Any) -> Any:
    return [value] if keys is SEVERAL else dict.fromkeys(keys, value) if keys else value
