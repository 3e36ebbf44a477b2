"""Lines of a diff as code: comments left out, and what was only moved or reformatted known as such."""

from __future__ import annotations

import re
from collections import Counter

from _analysis import words
from _analysis.commits import Commit, FileDiff
from _analysis.kinds import IDLE, kind_of

DEFINED = re.compile(r"^\s*(?:async\s+)?(?:pub\s+)?(?:def|func|function|fn|class)\s+(?:\([^)]*\)\s*)?([A-Za-z_]\w*)")

TYPE = r"[A-Za-z_\"'][\w.|\"' ]*+(?:\[[^=()]*\](?: ?\| ?[A-Za-z_][\w.]*(?:\[[^=()\[\]]*\])?)*+)?"
TYPED = re.compile(rf"^(?!(?:else|try|finally)\b)(\*{{0,2}}[A-Za-z_][\w.]*)\s*:\s*{TYPE}(\s*=(?!=).*|,)$")
TYPED_PARAMETER = re.compile(rf"([(,]\s*\*{{0,2}}[A-Za-z_]\w*)\s*:\s*{TYPE}(?=\s*[,=)])")
RETURNED = re.compile(r"\)\s*->\s*[^:]+:$")


def changed_names(commit: Commit) -> tuple[Counter[str], Counter[str]]:
    """Identifiers and literals in lines that were removed and in lines that were added, moved lines left out."""
    moved = Moved([file for file in commit.files if kind_of(file.path) not in IDLE])
    return moved.removed_words, moved.added_words


class Moved:
    """Lines of a commit that appear on both sides, and the words of each side."""

    def __init__(self, files: list[FileDiff]) -> None:
        removed: Counter[str] = Counter()
        added: Counter[str] = Counter()
        texts: dict[str, str] = {}
        for file in files:
            for hunk in file.hunks:
                for line in hunk.lines:
                    text = code(line.text, file.path)
                    if text:
                        texts[squash(text)] = text
                    if text and line.tag == "-":
                        removed[squash(text)] += 1
                    elif text and line.tag == "+":
                        added[squash(text)] += 1
        both = removed & added
        self._both = {"-": Counter(both), "+": Counter(both)}
        self.removed_words = _names(removed - both, texts)
        self.added_words = _names(added - both, texts)
        self.added_pieces = {piece for word in self.added_words for piece in words.pieces(word)}
        self.added_text = "\n".join(texts[line] for line in added - both)
        self.removed_text = "\n".join(texts[line] for line in removed - both)
        self.all_added = "\n".join(texts[line] for line in added)

    def take(self, tag: str, text: str) -> bool:
        """Whether this line stands on the other side too."""
        left = self._both[tag]
        if left.get(squash(text), 0) > 0:
            left[squash(text)] -= 1
            return True
        return False


def squash(text: str) -> str:
    """A line without blanks, trailing commas and braces: what remains the same when it is moved or reformatted."""
    return re.sub(r"\s+", "", text).rstrip(",;{")


def code(text: str, path: str) -> str:
    """A line without comments; "" if there is nothing else."""
    stripped = text.strip()
    c_like = re.search(r"\.(c|cc|cpp|h|hpp|cs|go|java|js|jsx|ts|tsx|rs|swift|kt|scala|php|m|proto)$", path)
    if stripped.startswith(("//", "/*", "<!--", '"""', "'''")) or (
        stripped.startswith(("#", "*")) and not (c_like and stripped.startswith("#"))
    ):
        return ""
    if path.endswith(".sql") and stripped.startswith("--"):
        return ""
    stripped = re.sub(r"\s//\s.*$", "", stripped) if c_like else re.sub(r"\s#\s.*$", "", stripped)
    if ":" in stripped and path.endswith(".py"):
        stripped = unannotated(stripped)
    return "" if stripped in ("{", "}", "})", ");", ")", "(", "},", "];", "]", "end", "else:", "} else {", "pass") else stripped


def unannotated(text: str) -> str:
    """A line of Python without types: they change nothing that is done."""
    text = RETURNED.sub("):", text)
    if TYPED.match(text):
        text = TYPED.sub(r"\1\2", text)
    elif text.startswith(("def ", "async def ")):
        text = TYPED_PARAMETER.sub(r"\1", text)
    return text


def _names(lines: Counter[str], texts: dict[str, str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for line, number in lines.items():
        for name in re.findall(r"[A-Za-z_$][\w$]*|\d[\d.]*", texts[line]):
            counted[name] += number
    return counted


def bare(text: str) -> str:
    """A text without what a formatter moves about: blanks, ends of lines, the kind of quotes, a comma before a bracket closes."""
    return re.sub(r",(?=[)\]}])", "", re.sub(r"\s+|\\$", "", text).replace("'", '"'))


def squash_words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(",;{ ")


def closing(text: str, begin: int, within: int = 2000) -> int:
    """Where the bracket closes that was opened before `begin`; 0 where it does not, or only further on."""
    depth = 1
    for place in range(begin, min(len(text), begin + within)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if not depth:
            return place
    return 0
