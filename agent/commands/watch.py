"""Shows a running investigation in a terminal: one line a step with the seconds since the start. It decides nothing."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.panel import Panel

from agent.core.report import Report
from agent.markdown import VERDICTS, details, render, visible

COLOURS = {"root_cause_found": "green", "likely": "yellow", "inconclusive": "magenta", "alert_unsound": "cyan"}


class Watch:
    """Prints to standard error, so that standard output is the report alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.started = time.monotonic()

    def announce(self, investigation: str, text: str) -> None:
        """One step. A text of several lines gets a box."""
        first, _, rest = visible(text).partition("\n")
        self.console.print(f"[dim]{time.monotonic() - self.started:5.1f} s[/dim]  {escape(first)}", soft_wrap=True)
        if rest:
            self.console.print(Panel(escape(rest), border_style="dim", expand=False))


def show(report: Report) -> None:
    """Prints a report to standard output: formatted in a terminal, plain markdown in a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        print(render(report), end="")
        return
    colour = COLOURS[report.verdict]
    head = f"[bold {colour}]{VERDICTS[report.verdict]}: {escape(visible(report.title))}[/]"
    console.print(Panel(f"{head}\n\n{escape(visible(report.summary))}", border_style=colour))
    console.print(Markdown(details(report)))
