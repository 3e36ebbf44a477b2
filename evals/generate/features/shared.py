"""What every repository sees, and how a commit of the pool is written. It belongs to no service."""

# ruff: noqa: E501 - the lines of other programs are quoted here

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

from agent.evals.generate.edits import Change, Edit, append, replace, together

Chains = list[list[Edit]]


def one(subject: str, change: Change, body: str = "") -> list[Edit]:
    """A chain of a single edit."""
    return [Edit(subject=subject, change=change, body=body)]


def helper(
    service: str, module: str, name: str, summary: str, source: str, cases: Sequence[str], later: Sequence[str] = ()
) -> list[Edit]:
    """A function that arrives with a test, gets a second case, and is documented."""
    path, test = f"{service}/{module}.py", f"tests/test_{module}_{name}.py"
    title = "".join(part.title() for part in name.split("_"))
    head = f"import unittest\n\nfrom {service} import {module}\n\n\nclass {title}Test(unittest.TestCase):\n"
    bodies = [f"    def test_{number}(self):\n        {case}\n" for number, case in enumerate(cases, 1)]
    edits = [
        Edit(
            subject=f"{summary[0].upper()}{summary[1:]}",
            change=together(append(path, f"\n\n{source}\n"), append(test, head + bodies[0])),
        )
    ]
    edits += [
        Edit(
            subject=(f"Test {name} at its edges", f"One more case for {name}", f"Cover {name}")[len(name) % 3],
            change=append(test, "\n" + body),
        )
        for body in bodies[1:]
    ]
    edits += [Edit(subject=f"Mention {name} in the README", change=append("README.md", f"\n{line}\n")) for line in later]
    return edits


def shared(service: str, rng: Random) -> Chains:
    """What every repository sees: tools move on, notes grow, docstrings come."""
    chains: Chains = []
    for tool, versions in {
        "ruff": ["0.3.0", "0.3.2", "0.3.5", "0.4.1", "0.4.4", "0.5.0", "0.5.2"],
        "coverage": ["7.4.1", "7.4.3", "7.4.4", "7.5.0", "7.5.1"],
    }.items():
        steps = itertools.pairwise(versions)
        chains.append(
            [
                Edit(subject=f"Move {tool} to {new}", change=replace("requirements-dev.txt", f"{tool}=={old}", f"{tool}=={new}"))
                for old, new in steps
            ]
        )
    notes = (
        "## Running it locally\n\nSet $PORT and start it; there is no database.",
        "## On call\n\nLook at the error ratio first, then at the log of the service that it calls.",
        "## Releases\n\nA release is a tag on main. It is rolled out without downtime.",
        "## Metrics\n\n`http_requests_total` by route and status, `http_request_duration_seconds` as a histogram.",
        "## Log lines\n\nOne line an event; a traceback follows the line that it belongs to.",
        "## Style\n\nStandard library only. Small functions.",
    )
    order = rng.sample(notes, k=len(notes))
    chains.append(
        [Edit(subject=f"README: {note.splitlines()[0][3:].lower()}", change=append("README.md", f"\n{note}\n")) for note in order]
    )
    chains.append(
        [
            Edit(
                subject="Say when a request is not JSON",
                change=replace(
                    f"{service}/http.py",
                    '            body = json.loads(self.rfile.read(length) or b"{}")\n',
                    '            raw = self.rfile.read(length)\n            try:\n                body = json.loads(raw or b"{}")\n'
                    '            except ValueError:\n                return self._answer(400, b\'{"error": "not JSON"}\')\n',
                ),
            ),
            Edit(
                subject="Limit the size of request bodies",
                change=together(
                    replace(
                        f"{service}/http.py",
                        "            raw = self.rfile.read(length)\n",
                        '            if length > MOST_BYTES:\n                return self._answer(413, b\'{"error": "too large"}\')\n'
                        "            raw = self.rfile.read(length)\n",
                    ),
                    replace(f"{service}/http.py", "\n\nclass Refused", "\nMOST_BYTES = 1000000\n\n\nclass Refused"),
                ),
            ),
        ]
    )
    chains.append(
        one("Name the span buckets", replace(f"{service}/telemetry.py", "BUCKETS = (", "# upper bounds in seconds\nBUCKETS = ("))
    )
    chains.append(one("Add slower buckets", replace(f"{service}/telemetry.py", "1.0, 2.5)", "1.0, 2.5, 5.0, 10.0)")))
    chains.append(
        one(
            "Describe count()",
            replace(
                f"{service}/telemetry.py",
                "def count(name, amount=1, **labels):\n",
                'def count(name, amount=1, **labels):\n    """Adds to a counter."""\n',
            ),
        )
    )
    chains.append(
        one(
            "Describe observe()",
            replace(
                f"{service}/telemetry.py",
                "def observe(name, seconds, **labels):\n",
                'def observe(name, seconds, **labels):\n    """Adds a duration to a histogram."""\n',
            ),
        )
    )
    chains.append(
        one(
            "Describe context()",
            replace(
                f"{service}/telemetry.py",
                "def context():\n",
                'def context():\n    """The running span as the value of a header."""\n',
            ),
        )
    )
    return chains
