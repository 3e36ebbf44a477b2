"""Tells the agent at the start what happened, what is asked of it, and what the embedded investigator saw at first sight."""

from __future__ import annotations

from agent.core.context import Context
from agent.core.hook import Hook
from agent.core.investigation import Case
from agent.core.workspace import incident_text

TASKS = {
    "alert": "An alert fired. Find the root cause, or show that the alert is unsound, and report.",
    "schedule": "A scheduled task is due. Do what it asks and report.",
    "chat": "An engineer asks. Find out and report; `summary` is the answer that the engineer reads.",
    "api": "You are asked to investigate. Find the root cause and report.",
}
LENGTH = 12_000


class Orient(Hook):
    """The first section: the task, the incident, the brief."""

    def __init__(self, case: Case, brief: str) -> None:
        self.case = case
        self.brief = brief

    async def start(self, context: Context) -> str:
        text = f"{TASKS[self.case.trigger.kind]}\n\n{incident_text(self.case)[:LENGTH]}"
        if self.brief:
            text += f"\n## First sight (statistics, no model; it may be wrong)\n\n{self.brief}\n"
        return text
