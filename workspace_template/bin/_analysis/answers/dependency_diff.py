"""What upgrades of packages brought, from the history of the packages."""

from __future__ import annotations

from typing import Any

from _analysis import suspects
from _analysis.answers.suspects import suspect
from _analysis.desk import Desk
from _analysis.git import git
from _analysis.output import notes
from _analysis.packages import is_package, versions


def of(desk: Desk, package: str, old: str, new: str, verdict: suspects.Verdict | None, limit: int) -> dict[str, Any]:
    """What the commits between two versions of a package changed, from its own history."""
    known = [*desk.deployments, *(verdict.history.moved if verdict else ())]
    moves = [(p, a, b) for d in known for p, a, b in d.packages if not package or p == package]
    if package and old and new:
        moves = [(package, old, new)]
    rows, told = [], []
    if package and not moves:
        told.append(f"nothing on the desk moved {package}; --from and --to say its versions where no record does")
    for name, a, b in dict.fromkeys(moves):
        home = next((r for r in desk.repos if is_package(desk.repos[r], r, name)), "")
        if not home:
            told.append(f"{name} {a} -> {b}: its repository is not on the desk ({', '.join(desk.repos) or 'none is'})")
            continue
        ends = versions(desk.repos[home], name, (a, b))
        if a not in ends or b not in ends:
            told.append(f"{name}: no tag for {a if a not in ends else b} in repos/{home}")
            continue
        number = git(desk.repos[home], "rev-list", "--count", "--no-merges", f"{ends[a]}..{ends[b]}").strip()
        rows.append(
            {
                "package": name,
                "from": a,
                "to": b,
                "repo": home,
                "commits": int(number or 0),
                "range": f"{ends[a][:12]}..{ends[b][:12]}",
            }
        )
    picked = (
        [s for s in verdict.suspects if s.commit.package and (not package or s.commit.package == package)][:limit]
        if verdict
        else []
    )
    return {"upgrades": rows, "suspects": [suspect(s, 1) for s in picked], "notes": told}


def text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    lines = [
        f"{u['package']} {u['from']} -> {u['to']}: {u['commits']} commits, git -C repos/{u['repo']} log {u['range']}"
        for u in answer["upgrades"]
    ]
    lines += [f"{s['p']:5.0%}  {s['commit'][:12]}  {s['subject']}\n         {'; '.join(s['why'])}" for s in answer["suspects"]]
    return "\n".join([*(lines or ["no upgrade whose package's repository is on the desk"]), *notes(answer)])
