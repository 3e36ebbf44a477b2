"""The functions of a repository and what each of them names: enough to say how far a change lies from code that fails.

Python is parsed; other languages are read by indentation and keywords. Calls are resolved by name alone, so a name that many
functions have counts for less. It knows no commits.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from _analysis import kept, syntax
from _analysis.desk import Desk
from _analysis.git import git, raw
from _analysis.kinds import IDLE, kind_of

BYTES = 6_000_000
FILES = 2500
SOURCE = re.compile(r"\.(py|pyi|go|java|kt|js|jsx|mjs|ts|tsx|rb|rs|php|cs|scala|c|cc|cpp|h|hpp|swift|ex|exs)$")
HEAD = re.compile(
    r"^\s*(?:export\s+|default\s+|async\s+|public\s+|private\s+|protected\s+|internal\s+|static\s+|final\s+|override\s+|pub\s+|"
    r"abstract\s+|synchronized\s+|virtual\s+|suspend\s+)*(?:(?:func|function|fn|def|fun|class|interface|struct|impl|trait)\s+"
    r"(?:\([^)]*\)\s*)?\*?\s*(?P<a>[A-Za-z_$][\w$]*)|(?:const|let|var)\s+(?P<b>[A-Za-z_$][\w$]*)\s*="
    r"\s*(?:async\s*)?(?:\(|function|\w+\s*=>)|"
    r"(?:[\w<>\[\],.?]+\s+)+(?P<c>[A-Za-z_]\w*)\s*\([^;]*\)\s*(?:throws [\w., ]+)?\{?\s*$|"
    r"(?P<d>[A-Za-z_$][\w$]*)\s*\([^;()]*\)\s*\{\s*$)"
)
WORD = re.compile(r"[A-Za-z_$][\w$]*")
EVERYWHERE = (
    "if for while switch return catch else new self this super None True False null nil true false and or not in is len str "
    "int list dict set tuple isinstance getattr range print append get items keys values join format split strip type bool "
    "float error string func var let const import from class def try except raise with as yield await async lambda "
)
NOT_NAMES = frozenset(EVERYWHERE.split())


@dataclass(kw_only=True)
class Function:
    """A function or a class: its name, its class ("" outside of one), where it stands, and the names in it."""

    name: str
    owner: str
    file: str
    start: int
    end: int
    names: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Graph:
    """All functions of a repository by their names."""

    functions: list[Function] = field(default_factory=list)
    by_name: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    by_file: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, function: Function) -> None:
        self.by_name[function.name].append(len(self.functions))
        self.by_file[function.file].append(len(self.functions))
        self.functions.append(function)

    def at(self, file: str, line: int, name: str) -> int | None:
        """The function of that name in a file nearest to a line, else the innermost around the line."""
        places = self.by_file.get(file, [])
        last = re.split(r"[.:$#]", name)[-1].strip("<>") if name else ""
        named = [i for i in places if self.functions[i].name == last]
        if named:
            return min(named, key=lambda i: abs(self.functions[i].start - line))
        around = [i for i in places if self.functions[i].start <= line <= self.functions[i].end]
        return min(around, key=lambda i: self.functions[i].end - self.functions[i].start, default=None)

    def _initializer(self, function: Function) -> list[int]:
        """What sets up the object that a method works on, or that a class makes."""
        near = [i for i in self.by_file[function.file] if self.functions[i].name == "__init__"]
        return [i for i in near if self.functions[i].owner in (function.owner, function.name)]

    def distances(self, roots: dict[int, float], most: float = 6.0) -> dict[int, float]:
        """How many calls each function is away from the nearest root; a name that n functions have is log2(n) further away."""
        import heapq
        import math

        best = dict(roots)
        heap = [(distance, index) for index, distance in roots.items()]
        heapq.heapify(heap)
        while heap:
            distance, index = heapq.heappop(heap)
            if distance > best.get(index, math.inf):
                continue
            function = self.functions[index]
            names = {*function.names, "__init__"} if function.owner else function.names
            for name in names:
                places = self.by_name.get(name, ()) if name != "__init__" else self._initializer(function)
                if not places or len(places) > 40:
                    continue
                own = [i for i in places if self.functions[i].file == function.file]
                for other in own or places:
                    far = distance + 1.0 + 0.5 * math.log2(len(own or places))
                    if far <= most and far < best.get(other, math.inf):
                        best[other] = far
                        heapq.heappush(heap, (far, other))
        return best


def graph(desk: Desk, name: str) -> Graph:
    """The graph of a repository on the desk as it is checked out, from the cache where it did not change."""
    repo = desk.repos[name]
    head = git(repo, "rev-parse", "--verify", "-q", "HEAD").strip()
    place = kept.place(desk, "calls", [], str(repo), head)
    known = kept.load(place)
    if known is not None:
        made = Graph()
        for row in known:
            made.add(Function(name=row[0], owner=row[1], file=row[2], start=row[3], end=row[4], names=set(row[5])))
        return made
    made = _read(repo)
    kept.keep(place, [[f.name, f.owner, f.file, f.start, f.end, sorted(f.names)] for f in made.functions])
    return made


def _read(repo: Path) -> Graph:
    made = Graph()
    paths = [p for p in git(repo, "ls-tree", "-r", "--name-only", "HEAD").splitlines() if SOURCE.search(p)]
    paths = [p for p in paths if kind_of(p) not in IDLE][:FILES]
    taken = 0
    for path, text in contents(repo, "HEAD", paths).items():
        taken += len(text)
        if taken > BYTES:
            break
        functions = _python(path, text) if path.endswith((".py", ".pyi")) else _other(path, text)
        for function in functions:
            made.add(function)
    return made


def contents(repo: Path, ref: str, paths: list[str]) -> dict[str, str]:
    """The text of files at a commit, at most BYTES of them."""
    found: dict[str, str] = {}
    answer = raw(repo, "cat-file", "--batch", stdin="".join(f"{ref}:{p}\n" for p in paths), limit=BYTES * 2)
    place = 0
    for path in paths:
        end = answer.find(b"\n", place)
        if end < 0:
            break
        head = answer[place:end].split()
        if len(head) < 3 or not head[-1].isdigit():
            place = end + 1
            continue
        size = int(head[-1])
        found[path] = answer[end + 1 : end + 1 + size].decode("utf-8", "replace")
        place = end + 2 + size
    return found


def _python(path: str, text: str) -> list[Function]:
    tree = syntax.parse(text)
    try:
        return _defined(path, text, tree) if tree else _other(path, text)
    except RecursionError:
        return _other(path, text)


def _defined(path: str, text: str, tree: ast.Module) -> list[Function]:
    found: list[Function] = []
    module = Function(name=Path(path).stem, owner="", file=path, start=1, end=text.count("\n") + 1)

    def visit(node: ast.AST, owner: str, inside: Function) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                made = Function(name=child.name, owner=owner, file=path, start=child.lineno, end=child.end_lineno or child.lineno)
                found.append(made)
                if isinstance(child, ast.ClassDef):
                    for base in child.bases:
                        made.names |= set(WORD.findall(syntax.written(base))) - NOT_NAMES
                    made.names |= {"__init__", "__call__", "__new__"} & {
                        n.name for n in child.body if isinstance(n, ast.FunctionDef)
                    }
                    visit(child, child.name, made)
                else:
                    visit(child, owner, made)
                    inside.names.add(child.name) if isinstance(inside, Function) and inside is not module else None
            else:
                if isinstance(child, ast.Name) and child.id not in NOT_NAMES:
                    inside.names.add(child.id)
                elif isinstance(child, ast.Attribute) and child.attr not in NOT_NAMES:
                    inside.names.add(child.attr)
                visit(child, owner, inside)

    visit(tree, "", module)
    return [module, *found]


def _other(path: str, text: str) -> list[Function]:
    """Functions by a line that begins one and the indentation that ends it."""
    lines = text.splitlines()
    found: list[Function] = []
    open_: list[tuple[int, Function]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        while open_ and depth <= open_[-1][0] and line.strip()[0] not in ")}]":
            open_.pop()[1].end = number - 1
        match = HEAD.match(line)
        name = next((m for m in match.groups() if m), "") if match else ""
        if name and name not in NOT_NAMES:
            made = Function(name=name, owner=open_[-1][1].name if open_ else "", file=path, start=number, end=len(lines))
            found.append(made)
            open_.append((depth, made))
        elif open_:
            open_[-1][1].names |= {word for word in WORD.findall(line) if word not in NOT_NAMES}
    return found
