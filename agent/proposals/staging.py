"""Takes a change out of the sandbox as the bytes of a patch. git runs inside, where the agent worked; its output is not trusted.

The patch is everything that differs from the deployed commit, committed there or not, new files included; where the agent worked
on top of the main branch, everything that differs from that. What builds and test runs leave behind is left out.
"""

from __future__ import annotations

import shlex

from agent.core.data import Data
from agent.core.errors import ToolError
from agent.core.journal import Journal
from agent.core.sandbox import WORKSPACE, Sandbox
from agent.git import COMMIT_ID
from agent.patch import LIMIT

LEFTOVERS = (
    "**/__pycache__/**", "**/*.pyc", "**/.pytest_cache/**", "**/.mypy_cache/**", "**/.ruff_cache/**", "**/node_modules/**",
    "**/.venv/**", "**/*.egg-info/**", "**/.coverage", "**/.tox/**", "**/*.orig", "**/*.rej", "**/.DS_Store",
)  # fmt: skip
SCRIPT = """\
set -eu
cd -- "$1"
base=$2
main=$(git rev-parse --quiet --verify 'refs/remotes/origin/HEAD^{commit}' || true)
if [ -n "$main" ] && git merge-base --is-ancestor "$base" "$main" && git merge-base --is-ancestor "$main" HEAD; then
    base=$main
fi
GIT_INDEX_FILE=$(mktemp)
export GIT_INDEX_FILE
trap 'rm -f "$GIT_INDEX_FILE"' EXIT
cp -p .git/index "$GIT_INDEX_FILE"  # with its time: it says which files git must read to know whether they changed
git add --update .
git add --all . LEFTOVERS 2>/dev/null
git diff --cached --binary --full-index --no-renames --no-color --no-ext-diff --no-textconv "$base"
""".replace("LEFTOVERS", " ".join(shlex.quote(f":(exclude,glob){pattern}") for pattern in LEFTOVERS))


class Staged(Data):
    """A change as the propose tool left it in the journal. `patch` is the name of a blob, `body` the agent's reasons."""

    repo: str
    title: str
    body: str
    patch: str


async def stage(journal: Journal, sandbox: Sandbox, *, repo: str, commit: str, title: str, body: str) -> Staged:
    """Takes what the agent changed in repos/`repo` since the deployed `commit`, and journals it.

    Raises ToolError for the agent: nothing changed, too much changed, or git failed inside.
    """
    if not COMMIT_ID.fullmatch(commit):
        raise ToolError(f"propose: {commit[:80]!r} is no commit id")
    folder = f"{WORKSPACE}/repos/{repo}"
    done = await sandbox.run(["sh", "-c", SCRIPT, "sh", folder, commit], timeout=120, output_limit=LIMIT + 1)
    if done.exit_code:
        reason = done.stderr.decode("utf-8", "replace").strip()[-1000:]
        raise ToolError(f"propose: the change in repos/{repo} could not be read: {reason}", "Is its .git folder intact?")
    if done.truncated or len(done.stdout) > LIMIT:
        raise ToolError(
            f"propose: what differs in repos/{repo} is larger than {LIMIT >> 20} MB",
            "See `git status` for files that were generated; remove them or add them to .gitignore.",
        )
    if not done.stdout.strip():
        raise ToolError(f"propose: nothing is changed in repos/{repo}", "Edit the files there first; then call propose.")
    staged = Staged(repo=repo, title=" ".join(title.split())[:200], body=body, patch=await journal.put(done.stdout))
    await journal.append("proposal", staged.model_dump())
    return staged


async def staged_changes(journal: Journal) -> tuple[Staged, ...]:
    """What was staged, in order: for each repository the newest, which holds what the earlier ones had."""
    newest: dict[str, Staged] = {}
    for entry in await journal.entries():
        if entry.kind == "proposal":
            change = Staged.model_validate({name: entry.data[name] for name in Staged.model_fields})
            newest[change.repo] = change
    return tuple(newest.values())
