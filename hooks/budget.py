"""Watches the limits of a run. Reaching one asks for the report; if none comes within the turns of grace, the run ends."""

from __future__ import annotations

from agent.core.context import Context
from agent.core.errors import BudgetReached
from agent.core.hook import Hook, Note

KEY = "budget:reached:"


class Budget(Hook):
    """Turns, tokens, dollars and seconds of context.budget."""

    async def before_turn(self, context: Context) -> list[Note]:
        reached = [key for key in context.keys if key.startswith(KEY)]
        if reached:
            first = min(int(key.removeprefix(KEY)) for key in reached)
            if context.turn >= first + context.budget.grace:
                raise BudgetReached(f"the budget is used up: {self.used_up(context)}", "Raise it under `budget:`.")
            return []
        if limit := self.used_up(context):
            text = (
                f"The budget is used up ({limit}). Call `report` now with what you know; you have {context.budget.grace} turns."
            )
            return [Note(key=f"{KEY}{context.turn}", text=text)]
        return []

    def used_up(self, context: Context) -> str:
        """The limit that is reached, in words; empty if none is."""
        budget = context.budget
        tokens = context.usage.prompt_tokens + context.usage.output_tokens
        limits = (
            (budget.turns, context.turn, "{:.0f} of {:.0f} turns"),
            (budget.tokens, tokens, "{:.0f} of {:.0f} tokens"),
            (budget.usd, context.spent, "{:.2f} of {:.2f} USD"),
            (budget.seconds, context.seconds, "{:.0f} of {:.0f} seconds"),
        )
        return next((words.format(used, limit) for limit, used, words in limits if limit is not None and used >= limit), "")
