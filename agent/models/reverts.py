"""What the embedded investigator proposes: the guilty commit taken back."""

from __future__ import annotations

import shlex
from typing import Any

from agent.models.known import Known
from agent.models.statements import symptom

PROPOSE = 0.6


def revert(known: Known) -> str:
    """A command that takes the guilty commit back in the working tree and says REVERTED, or "" where that is not justified."""
    if not known.options or known.options[0][1] != "commit" or known.options[0][0] < PROPOSE:
        return ""
    what = known.options[0][2]
    if what.get("package") or known.kind not in ("alert", "api"):
        return ""
    folder = shlex.quote(f"repos/{what['repo']}")
    commit = shlex.quote(what["commit"])
    git, patch = f"git -C {folder}", "/tmp/guilty.patch"
    # Taken back already, as this was killed before it was heard: with the commit again, nothing differs. Else all stays as it is.
    again = f"{git} apply {patch} && {{ {git} diff --quiet HEAD || {{ {git} apply --reverse {patch}; false; }}; }}"
    return (
        f"{git} show --format= --binary {commit} > {patch} && {{ {git} diff --quiet HEAD || {{ {again}; }}; }}"
        f" && {git} apply --reverse {patch} && {git} diff --stat && echo REVERTED"
    )


def proposal(known: Known) -> dict[str, Any]:
    """The arguments of the propose tool."""
    what = known.options[0][2]
    lines = [
        f"{symptom(known)}",
        f"Since {known.answer.get('onset', '')}, after this went live at {what.get('service', 'the service')} "
        f"at {what.get('live', '')}.",
        f"This takes back {what['commit'][:12]} ({what['subject']}): {'; '.join(what['why'])}.",
    ]
    return {"repo": what["repo"], "title": f"Revert “{what['subject'][:60]}”", "body": "\n\n".join(lines)}
