"""Re-runs checks: a command that must exit 0 with the suspect and exactly 1 without it, twice, on new desks, and under controls.

The controls find checks that would pass for any suspect: a command that only looks at $START, one that reads the change itself
instead of running it, one whose sides differ by more than the suspect, one that holds before the incident too. No verdict here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from agent.core.data import Data
from agent.core.investigation import Case
from agent.core.report import Cause, Check, Side
from agent.core.sandbox import Result
from agent.evidence.contracts import UNANSWERED, Objects, Redactor, aware
from agent.evidence.decoys import plant
from agent.evidence.diffs import Changed, parse
from agent.evidence.exercise import Effect, Exercise, effect
from agent.evidence.runs import Bench, ended
from agent.evidence.whereabouts import places

SLACK = timedelta(minutes=10)
EMPTY = (
    'find /workspace/telemetry -type f -exec sh -c \'for f; do rm -f "$f"; : > "$f"; done\' sh {} + ; '
    "rm -rf /workspace/incident/*"
)
BROKEN = re.compile(
    r"^(?:\S*(?:ModuleNotFoundError|ImportError|SyntaxError|IndentationError|NameError|FileNotFoundError)\b"
    r"|.*(?:No such file or directory|command not found|can't open file))",
    re.MULTILINE,
)
TEXT_TOOLS = frozenset(
    re.findall(
        r"\S+",
        """grep egrep fgrep rg ag ack sed awk gawk test [ [[ cat tac cmp diff head tail wc jq yq find ls sort uniq cut tr stat
        file echo printf true false xargs cd tee nl od xxd basename dirname comm paste expr exit set""",
    )
)
KEYWORDS = frozenset(
    ("!", "if", "then", "else", "elif", "fi", "while", "do", "done", "for", "time", "not", "env", "command", "&&")
)

REPEATED = "; the same when repeated"

Kind = Literal["commit", "window", "instance"]


class Outcome(Data):
    """What came of a check. problem: why it does not tell the suspect from its absence, or "".

    executes: it runs the code of a commit instead of reading the change. calls: it calls functions, and does not only load them.
    output: what it printed with the suspect where there was no telemetry to read it from; other: the same without the suspect.
    effect: what its programs did with the suspect only. reproduces: that is what was observed of the incident; set by who knows
    the symptom. quietly: it has that in common only with what is also written when all is well. start, until: for checks by
    time, where the side with the suspect begins and the one without it ends.
    """

    kind: Kind = "instance"
    text: str = ""
    problem: str = ""
    executes: bool = False
    calls: bool = False
    output: bytes = b""
    other: bytes = b""
    effect: Effect = Effect()
    reproduces: bool = False
    quietly: bool = False
    start: datetime | None = None
    until: datetime | None = None


class _Sides(Data):
    """The two sides of a check as they are run."""

    kind: Kind
    repo: str | None
    with_ref: str | None
    without_ref: str | None
    pair: tuple[Side, Side]

    def refs(self, with_: bool) -> dict[str, str]:
        ref = self.with_ref if with_ else self.without_ref
        return {self.repo: ref} if self.repo and ref else {}


class Experiments:
    """Runs the checks of one investigation. deployed: by repository, the commit that was live when the incident began."""

    def __init__(self, *, case: Case, objects: Objects, bench: Bench, deployed: dict[str, str], redactor: Redactor) -> None:
        self._case = case
        self._objects = objects
        self._bench = bench
        self._deployed = deployed
        self._redactor = redactor

    async def run(self, check: Check, cause: Cause | None) -> Outcome:
        """Runs a check for the cause it is to support. Never raises for what the check itself does."""
        command = self._redactor.restore(check.command)
        try:
            sides = await self._sides(check, cause, command)
            return await self._run(sides, command, cause)
        except _Unfit as unfit:
            return Outcome(problem=str(unfit))
        except UNANSWERED as error:
            return Outcome(problem=f"it could not be run: {error.problem}")

    async def _sides(self, check: Check, cause: Cause | None, command: str) -> _Sides:
        """The sides, made sense of. Raises _Unfit."""
        if not command.strip() or "\0" in command:
            raise _Unfit("it has no command" if not command.strip() else "its command holds a NUL character")
        repo = check.repo or (cause.repo if cause else None)
        refs = [await self._ref(repo, side.ref) for side in (check.with_, check.without)]
        pair = (_in_utc(check.with_), _in_utc(check.without))
        if refs[0] != refs[1]:
            assert repo
            await self._fits_commits(repo, refs, cause, command)
            return _Sides(kind="commit", repo=repo, with_ref=refs[0], without_ref=refs[1], pair=pair)
        if _window(pair[0]) != _window(pair[1]):
            self._fits_windows(pair)
            return _Sides(kind="window", repo=repo, with_ref=refs[0], without_ref=refs[1], pair=pair)
        if pair[0].label == pair[1].label:
            raise _Unfit("its two sides are the same; give them different refs, windows ($START, $END) or labels ($LABEL)")
        return _Sides(kind="instance", repo=repo, with_ref=refs[0], without_ref=refs[1], pair=pair)

    async def _ref(self, repo: str | None, ref: str | None) -> str | None:
        if ref is None:
            return self._deployed.get(repo) if repo else None
        if repo is None:
            raise _Unfit("it has a ref and no repo; say which repository is put at that commit")
        match = re.fullmatch(r"(.*?)(\^|~1?)?", ref)
        assert match
        commit = await self._objects.resolve(repo, match[1])
        return await self.parent(repo, commit) if match[2] else commit

    async def parent(self, repo: str, commit: str) -> str | None:
        """The first parent of a commit, or None."""
        commits = await self._objects.commits(repo, commit, limit=1)
        return commits[0].parents[0] if commits and commits[0].parents else None

    async def _fits_commits(self, repo: str, refs: Sequence[str | None], cause: Cause | None, command: str) -> None:
        named = [id for id in re.findall(r"[0-9a-f]{7,64}", command) if any(ref and ref.startswith(id) for ref in refs)]
        if named:
            raise _Unfit(f"its command names the commit {named[0]}, so it can tell the sides apart without looking at the code")
        if re.search(r"\bgit\b|\.git\b|/proc\b|\bmountinfo\b", command):
            raise _Unfit("its command asks git or /proc; the sides have no .git, the check must look at what the code does")
        if cause is None or cause.commit is None or cause.repo != repo:
            if cause is not None and cause.commit is not None:
                raise _Unfit(f"it is about repository {repo!r}, and the cause is in {cause.repo!r}")
            return
        suspect = await self._objects.resolve(repo, cause.commit)
        held = [bool(ref) and await self._objects.is_ancestor(repo, suspect, ref or "") for ref in refs]
        if held != [True, False]:
            has = "has it" if held[1] else "lacks it too"
            raise _Unfit(
                f"the side with the suspect must contain commit {suspect[:12]} and the other must not; "
                + (f"the other {has}" if held[0] == held[1] else "they are the wrong way round")
            )

    def _fits_windows(self, pair: tuple[Side, Side]) -> None:
        (start, end), (before, until) = _window(pair[0]), _window(pair[1])
        if not (start and end and before and until):
            raise _Unfit("it needs start and end on both sides")
        if end <= start or until <= before:
            raise _Unfit("a window ends before it begins")
        if until > start:
            raise _Unfit("its windows overlap or are the wrong way round: the one without the suspect lies before the onset")
        if until > self._case.trigger.at + SLACK:
            at = self._case.trigger.at.isoformat()
            raise _Unfit(f"its windows do not straddle the onset: both lie after the incident was reported ({at})")

    async def _run(self, sides: _Sides, command: str, cause: Cause | None) -> Outcome:
        first = await self._pair(sides, command)
        outcome = Outcome(kind=sides.kind, text=_told(*first), start=sides.pair[0].start, until=sides.pair[1].end)
        if problem := _wrong(*first):
            return outcome.model_copy(update={"problem": problem})
        if sides.kind == "commit" and sides.repo and cause and cause.commit and not reads_only(command):
            return await self._commit_controls(sides, command, cause.commit, outcome)
        outcome = await self._repeat(sides, command, outcome)
        if outcome.problem:
            return outcome
        if sides.kind == "commit":
            if cause and cause.commit:
                return outcome  # it reads the change; whether another one did it, it cannot say
            return outcome.model_copy(update={"executes": not reads_only(command)})
        return await self._data_controls(sides, command, outcome)

    async def _repeat(self, sides: _Sides, command: str, outcome: Outcome) -> Outcome:
        second = await self._pair(sides, command)
        if (second[0].exit_code, second[1].exit_code) != (0, 1):
            return outcome.model_copy(update={"problem": f"it is not repeatable: {_told(*second)} the second time"})
        return outcome.model_copy(update={"text": outcome.text + REPEATED})

    async def _pair(self, sides: _Sides, command: str, before: str = "") -> tuple[Result, Result]:
        return await asyncio.gather(self._side(sides, command, True, before), self._side(sides, command, False, before))

    async def _side(self, sides: _Sides, command: str, with_: bool, before: str = "") -> Result:
        side = sides.pair[0 if with_ else 1]
        steps = [_strip(sides.repo)] if sides.kind == "commit" and sides.repo else []
        return await self._bench.run(
            command, sides.refs(with_), env=_environment(side), before="; ".join([*steps, *([before] if before else [])])
        )

    async def _data_controls(self, sides: _Sides, command: str, outcome: Outcome) -> Outcome:
        """It must look at the incident's data, and the same must not hold in the window before."""
        empty = await self._pair(sides, command, before=EMPTY)
        if (empty[0].exit_code, empty[1].exit_code) == (0, 1):
            return outcome.model_copy(
                update={"problem": "it tells its sides apart without any telemetry: it does not look at data"}
            )
        before, until = _window(sides.pair[1])
        if sides.kind == "window" and before and until and empty[1].exit_code != 0:
            earlier = Side(start=before - (until - before), end=before)
            control = await self._side(sides.model_copy(update={"pair": (earlier, earlier)}), command, True)
            if control.exit_code == 0:
                span = f"{_moment(earlier.start)} to {_moment(before)}"
                return outcome.model_copy(update={"problem": f"it also holds long before the onset ({span})"})
        return outcome

    async def _commit_controls(self, sides: _Sides, command: str, suspect: str, outcome: Outcome) -> Outcome:
        """The suspect alone must make the difference, again, and the check must run the code."""
        assert sides.repo
        suspect = await self._objects.resolve(sides.repo, suspect)
        exact = sides.model_copy(update={"with_ref": suspect, "without_ref": await self.parent(sides.repo, suspect)})
        if exact.without_ref is None:
            return outcome.model_copy(update={"problem": f"commit {suspect[:12]} has no parent to compare with"})
        if (exact.with_ref, exact.without_ref) != (sides.with_ref, sides.without_ref):
            pair = await self._pair(exact, command)
            if _wrong(*pair):
                problem = (
                    f"between commit {suspect[:12]} and its parent it makes no difference ({_told(*pair)}): another one did it"
                )
                return outcome.model_copy(update={"problem": problem})
        for place in await places(self._case, self._objects, sides.repo, suspect):
            there = await self._side(exact.model_copy(update={"with_ref": place.commit}), command, True)
            if there.exit_code == place.wrong and not there.timed_out:
                return outcome.model_copy(update={"problem": place.problem})
        files = parse(await self._objects.show(sides.repo, suspect))
        outcome, sees = await asyncio.gather(self._watch(exact, command, outcome), self._sees_through(exact, command, files))
        executes = bool(outcome.effect.ran) if sees is None else sees
        watched = bool(re.search(r"python|pytest|unittest", command))  # other languages nobody watches
        return outcome.model_copy(update={"executes": executes, "calls": executes and (bool(outcome.effect.ran) or not watched)})

    async def _watch(self, exact: _Sides, command: str, outcome: Outcome) -> Outcome:
        """What it prints where no telemetry and no alert can be read, and what its programs do with the suspect only.

        That is its repetition too; a check that cannot do without telemetry is repeated with it.
        """
        (with_, done), (without, other), (again, usual) = await self._watched(exact, command, EMPTY)
        if (with_.exit_code, without.exit_code, again.exit_code) == (0, 1, 1):
            told = {"output": _said(with_), "other": _said(without), "text": outcome.text + REPEATED}
            return outcome.model_copy(update={"effect": effect(done, other, usual), **told})
        outcome = await self._repeat(exact, command, outcome)
        if outcome.problem:
            return outcome
        (with_, done), (without, other), (again, usual) = await self._watched(exact, command, "")
        same = (with_.exit_code, without.exit_code, again.exit_code) == (0, 1, 1)
        return outcome.model_copy(update={"effect": effect(done, other, usual)}) if same else outcome

    async def _watched(self, exact: _Sides, command: str, before: str) -> tuple[tuple[Result, Exercise], ...]:
        """With the suspect, without it, and without it again."""
        assert exact.repo
        steps = "; ".join([_strip(exact.repo), *([before] if before else [])])
        runs = (
            self._bench.watched(command, exact.refs(with_), env=_environment(exact.pair[0 if with_ else 1]), before=steps)
            for with_ in (True, False, False)
        )
        return tuple(await asyncio.gather(*runs))

    async def _sees_through(self, exact: _Sides, command: str, files: Sequence[Changed]) -> bool | None:
        """Whether the check is not taken in by the change's text in comments; None where its files have no comments."""

        async def side(with_: bool) -> bool | None:
            assert exact.repo
            async with self._bench.desk(exact.refs(with_)) as sandbox:
                await sandbox.run(_strip(exact.repo), timeout=120)
                if not await plant(sandbox, exact.repo, files, removed=with_):
                    return None
                result = await self._bench.command(sandbox, command, _environment(exact.pair[0 if with_ else 1]))
                return result.exit_code != (1 if with_ else 0)

        seen = await asyncio.gather(side(True), side(False))
        return None if all(one is None for one in seen) else False not in seen


def _said(result: Result) -> bytes:
    return result.stdout + b"\n" + result.stderr


class _Unfit(Exception):
    """A check that is not worth running, and why."""


def reads_only(command: str) -> bool:
    """Whether a command consists of tools that look at text and run nothing."""
    words = []
    for part in re.split(r"\$\(|&&|\|\||[|;&\n(){}`]", re.sub(r"'[^']*'|\"[^\"]*\"", "x", command)):
        rest = [word for word in part.split() if word not in KEYWORDS and not re.fullmatch(r"\w+=\S*|[<>\d]\S*", word)]
        words += rest[:1]
    return all(word.rsplit("/", 1)[-1] in TEXT_TOOLS for word in words)


def _in_utc(side: Side) -> Side:
    return side.model_copy(update={"start": side.start and aware(side.start), "end": side.end and aware(side.end)})


def _strip(repo: str) -> str:
    return f"rm -rf '/workspace/repos/{repo}/.git'"


def _window(side: Side) -> tuple[datetime | None, datetime | None]:
    return side.start, side.end


def _moment(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else ""


def _environment(side: Side) -> dict[str, str]:
    return {"START": _moment(side.start), "END": _moment(side.end), "LABEL": side.label}


def _how(result: Result) -> str:
    return ended(result) or f"exits {result.exit_code}"


def _told(with_: Result, without: Result) -> str:
    return f"with the suspect it {_how(with_)}, without it {_how(without)}"


def _wrong(with_: Result, without: Result) -> str:
    """Why a pair of results does not discriminate, or ""."""
    if (with_.exit_code, without.exit_code) != (0, 1) or with_.timed_out or without.timed_out:
        said = next(
            (r.stderr.decode("utf-8", "replace").strip()[-200:] for r in (with_, without) if r.exit_code not in (0, 1)), ""
        )
        return f"{_told(with_, without)}; it must exit 0 with the suspect and exactly 1 without it" + (
            f". It says: {said}" if said else ""
        )
    if broken := BROKEN.search(without.stderr.decode("utf-8", "replace")):
        return f"without the suspect it breaks instead of answering no: {broken[0][:200]}"
    return ""
