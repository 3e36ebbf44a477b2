"""Runs a repository's tests before and after a change, each time in a sandbox that nobody worked in."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from agent.core.data import Data
from agent.core.errors import NotFound
from agent.core.report import TestRun
from agent.core.sandbox import WORKSPACE, Limits, Sandbox, Sandboxes, SandboxSpec
from agent.proposals.runners import Candidate
from agent.repos import Checkout

OUTPUT = 4000
PATCH = f"{WORKSPACE}/change.patch"


class Trial(Data):
    """One run with the names of its tests. `problem` says why it is no run of the tests at all, or is ""."""

    run: TestRun
    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    problem: str = ""


class Comparison(Data):
    """What the tests say of a change.

    before, after: None where they could not be run; `problem` says why then. broken: what passed, or was not there, before and
    fails after. gone: what passed before and is not there after. reproducers: tests of the change that fail without its rest.
    """

    command: str = ""
    before: TestRun | None = None
    after: TestRun | None = None
    broken: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    reproducers: tuple[str, ...] = ()
    problem: str = ""


class Trials:
    """Compares the tests before and after a change. `seconds` bounds one run."""

    def __init__(self, sandboxes: Sandboxes, limits: Limits = Limits(), *, seconds: float = 600.0) -> None:
        self.sandboxes = sandboxes
        self.limits = limits
        self.seconds = seconds

    async def compare(
        self, id: str, checkout: Checkout, patch: bytes, candidates: Sequence[Candidate], *, tests_only: bytes = b""
    ) -> Comparison:
        """Runs the first candidate that works here on the checkout, and again with the patch applied.

        id: the beginning of the sandboxes' ids. tests_only: the part of the patch that is tests, if there is another part.
        """
        async with self._pristine(f"{id}-before", checkout) as before:
            candidate, base, problem = await self._first_that_works(before, checkout, candidates)
            if candidate is None or base is None or not base.passed:
                command = candidate.command if candidate else candidates[0].command if candidates else ""
                return Comparison(command=command, before=base.run if base else None, problem=problem)
            without = await self._with(before, checkout, candidate, tests_only) if tests_only else None
        async with self._pristine(f"{id}-after", checkout) as sandbox:
            changed = await self._with(sandbox, checkout, candidate, patch)
        broken = _broken(base, changed)
        if broken:  # a test that fails now and then is nobody's fault: once more, both
            broken = await self._still_broken(id, checkout, candidate, patch, base, broken)
        return Comparison(
            command=candidate.command,
            before=base.run,
            after=changed.run,
            broken=tuple(sorted(broken)),
            gone=tuple(sorted(base.passed - changed.passed - changed.failed)),
            reproducers=_reproducers(base, without, changed),
        )

    async def _first_that_works(
        self, sandbox: Sandbox, checkout: Checkout, candidates: Sequence[Candidate]
    ) -> tuple[Candidate | None, Trial | None, str]:
        """The first candidate with a test that passes, and its run; else the first that ran at all, and why it is of no use."""
        missing = []
        tried: tuple[Candidate, Trial] | None = None
        for candidate in candidates:
            probe = await sandbox.run(f"({candidate.runner.needs}) >/dev/null 2>&1", cwd=_folder(checkout, candidate), timeout=60)
            if probe.exit_code:
                missing.append(candidate.runner.name)
                continue
            trial = await self._run(sandbox, checkout, candidate)
            if trial.passed:
                return candidate, trial, ""
            tried = tried or (candidate, trial)
        lacking = f"the sandbox has no {' and no '.join(missing)}" if missing else ""
        if tried:
            return *tried, "; ".join(filter(None, (lacking, tried[1].problem)))
        return None, None, lacking

    async def _with(self, sandbox: Sandbox, checkout: Checkout, candidate: Candidate, patch: bytes) -> Trial:
        """The tests with a patch applied."""
        await sandbox.write(PATCH, patch)
        applied = await sandbox.run(
            ["git", "apply", "--binary", "--whitespace=nowarn", PATCH], cwd=f"{WORKSPACE}/repos/{checkout.name}", timeout=60
        )
        if applied.exit_code:
            reason = applied.stderr.decode("utf-8", "replace").strip()
            run = TestRun(command=candidate.command, exit_code=applied.exit_code, output=reason[-OUTPUT:])
            return Trial(run=run, problem=f"the patch does not apply in the sandbox: {reason[-300:]}")
        return await self._run(sandbox, checkout, candidate)

    async def _run(self, sandbox: Sandbox, checkout: Checkout, candidate: Candidate) -> Trial:
        done = await sandbox.run(
            f"{candidate.command} 2>&1", cwd=_folder(checkout, candidate), timeout=self.seconds,
            env={"PYTHONDONTWRITEBYTECODE": "1", "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
        output = done.stdout.decode("utf-8", "replace")
        passed, failed = candidate.runner.parse(output)
        if not passed and not failed and candidate.runner.name in ("configured", "make test"):
            passed, failed = (
                (frozenset({"(the command)"}), failed) if done.exit_code == 0 else (passed, frozenset({"(the command)"}))
            )
        run = TestRun(
            command=candidate.command, passed=len(passed), failed=len(failed), exit_code=done.exit_code, output=output[-OUTPUT:]
        )
        return Trial(run=run, passed=passed, failed=failed, problem=self._problem(run, timed_out=done.timed_out))

    def _problem(self, run: TestRun, *, timed_out: bool) -> str:
        if timed_out:
            return f"the tests did not end within {self.seconds:.0f} s"
        lines = [line.strip() for line in run.output.splitlines() if "Error" in line or "error:" in line]
        reason = lines[-1][:300] if lines else f"exit code {run.exit_code}"
        if not run.passed and not run.failed:
            return f"no test ran: {reason}"
        return f"no test passes: {reason}" if not run.passed else ""

    async def _still_broken(
        self, id: str, checkout: Checkout, candidate: Candidate, patch: bytes, base: Trial, broken: frozenset[str]
    ) -> frozenset[str]:
        async with self._pristine(f"{id}-before", checkout) as sandbox:
            again = await self._run(sandbox, checkout, candidate)
        async with self._pristine(f"{id}-after", checkout) as sandbox:
            changed = await self._with(sandbox, checkout, candidate, patch)
        return broken & _broken(base, changed) & _broken(again, changed)

    @asynccontextmanager
    async def _pristine(self, id: str, checkout: Checkout) -> AsyncIterator[Sandbox]:
        """A sandbox with only the checkout, gone at the end. One that a killed process left under this id is removed first."""
        async with AsyncExitStack() as stack:
            with suppress(NotFound):
                await (await self.sandboxes.open(id)).delete()
            sandbox = await self.sandboxes.create(id, SandboxSpec(layers=(checkout.layer,), limits=self.limits))
            stack.push_async_callback(sandbox.delete)
            yield sandbox


def _folder(checkout: Checkout, candidate: Candidate) -> str:
    return f"{WORKSPACE}/repos/{checkout.name}/{candidate.folder}".rstrip("/")


def _broken(before: Trial, after: Trial) -> frozenset[str]:
    """What fails after and did not before; where nothing can be said of the tests any more, all that passed before."""
    if not after.passed and before.passed:
        return after.failed - before.failed or frozenset({after.problem or "(the whole run)"})
    return after.failed - before.failed


def _reproducers(base: Trial, without: Trial | None, changed: Trial) -> tuple[str, ...]:
    """Tests that the change brings or alters, that fail on the old code and pass on the new."""
    if without is None:
        return ()
    modules = {name for name in without.failed - base.failed if "::" not in name}
    new = changed.passed - base.passed
    return tuple(
        sorted(
            name
            for name in changed.passed
            if name in without.failed - base.failed or (name in new and name.partition("::")[0] in modules)
        )
    )


def sandbox_id(investigation: str, key: str) -> str:
    """The beginning of an id for the sandboxes of one proposal."""
    return f"tests-{hashlib.sha256(f'{investigation} {key}'.encode()).hexdigest()[:16]}"
