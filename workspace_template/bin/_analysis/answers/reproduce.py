"""A command that fails with a suspect and not without it."""

from __future__ import annotations

from typing import Any

from _analysis import reproduce, symptoms
from _analysis.answers import judged
from _analysis.desk import Desk
from _analysis.git import git
from _analysis.packages import resolve


def of(desk: Desk, repo: str, commit: str) -> dict[str, Any]:
    """A command that fails with a suspect and not without it; of the first suspects where none is named."""
    made = symptoms.gather(desk)
    tried = []
    if commit:
        found_in = {name: full for name, folder in desk.repos.items() if (full := resolve(folder, [commit]).get(commit))}
        suspected = [(name, full) for name, full in found_in.items() if name == (repo or name)][:1]
        if not suspected:
            return {
                "command": "",
                "told": f"no repository on the desk has a commit {commit}: {repo or ', '.join(desk.repos) or 'there is none'}",
            }
    else:
        rows = judged.of(desk)["suspects"]["suspects"]
        suspected = [(s["repo"], s["commit"]) for s in rows[:3] if s["p"] > 0.02 and (not repo or s["repo"] == repo)]
    for name, sha in suspected:
        parent = git(desk.repos[name], "rev-parse", "--verify", "-q", f"{sha}^").strip()
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
    if not made.frames:
        return {"command": "", "told": "no stack trace in the logs names a function that could be called"}
    return {"command": "", "told": f"no call was found that tells {', '.join(tried) or 'any suspect'} from the parent commit"}
