"""Tells the agent what the team's memory holds: an index of paths, titles and ages. The texts are read from the files."""

from __future__ import annotations

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.sandbox import Sandbox

LENGTH = 4_000
INDEX = r"""cd /workspace && find memory investigations -name '*.md' -type f -printf '%TY-%Tm-%Td %p\n' | sort -k2 | head -200 |
while read -r day path; do
printf '%s (%s): %s\n' "$path" "$day" "$(grep -m1 -v '^ *$' "$path" | tr -d '#\n' | cut -c1-100)"
done"""


class KnowledgeMap(Hook):
    """The index of memory/ and investigations/."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    async def start(self, context: Context) -> str:
        result = await self.sandbox.run(INDEX, timeout=30)
        index = result.stdout.decode("utf-8", "replace").strip()
        if len(index) > LENGTH:
            index = index[:LENGTH].rsplit("\n", 1)[0] + "\n(more: `find memory investigations`)"
        return f"## Memory (begin with memory/overview.md)\n\n{index or 'Nothing yet.'}"
