"""The command line. Each command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent import __version__

EXIT = {"root_cause_found": 0, "likely": 0, "inconclusive": 3, "alert_unsound": 4}
FOLDER = click.Path(path_type=Path)


class Program(click.Group):
    """Turns our errors into messages: 2 for bad input, 1 for any other failure."""

    def invoke(self, context: click.Context) -> object:
        from agent.core.errors import AgentError, BadInput

        try:
            return super().invoke(context)
        except BadInput as error:
            click.echo(f"sre-agent: {error}", err=True)
            sys.exit(2)
        except AgentError as error:
            click.echo(f"sre-agent: {error}", err=True)
            sys.exit(1)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="sre-agent")
@click.option("--home", type=FOLDER, help="The folder with sre-agent.yaml. [default: $SRE_AGENT_HOME or .]")
@click.option("--data", type=FOLDER, help="Where everything is kept. [default: .sre-agent in the home]")
@click.pass_context
def main(context: click.Context, home: Path | None, data: Path | None) -> None:
    """A self-investigating SRE agent: an alert comes in, a checked root-cause report and a proposed change come out."""
    context.obj = (home, data)


def _run_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options of everything that runs one investigation."""
    options = (
        click.option("--model", help="statistical, anthropic[:NAME], openai[:NAME]. [default: by the key that is there]"),
        click.option("--sandbox", type=click.Choice(["auto", "bubblewrap"]), help="Where commands run."),
        click.option("--out", type=FOLDER, help="Write report.json, report.md and transcript.jsonl there."),
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        click.option("--max-turns", type=click.IntRange(min=1), help="Budget: replies of the model."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Budget: tokens, sent and received."),
        click.option("--max-usd", type=click.FloatRange(min=0), help="Budget: US dollars."),
        click.option("--max-seconds", type=click.FloatRange(min=1), help="Budget: wall time."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("folder", type=FOLDER)
@_run_options
@click.option(
    "--dry-run", is_flag=True, help="Set up the desk, show what the model would see and what it may cost; ask no model."
)
@click.pass_obj
def investigate(where: tuple[Path | None, Path | None], /, folder: Path, dry_run: bool, **options: object) -> None:
    """Investigate an incident folder.

    Exit codes: 0 cause found or likely, 3 inconclusive, 4 alert unsound, 2 bad input, 1 failure.
    """
    from agent.commands.investigate import RunOptions, dry, investigate_folder

    chosen = RunOptions.model_validate(options)
    if dry_run:
        dry(*where, folder, chosen)
    else:
        sys.exit(EXIT.get(investigate_folder(*where, folder, chosen), 1))


@main.command()
@_run_options
@click.pass_obj
def demo(where: tuple[Path | None, Path | None], /, **options: object) -> None:
    """Investigate a bundled incident, from the alert to a proposed change."""
    from agent.commands.demo import run_demo
    from agent.commands.investigate import RunOptions

    sys.exit(EXIT.get(run_demo(*where, RunOptions.model_validate(options)), 1))


@main.command()
@click.option("--host", help="Address to bind. [default: server.host in the settings]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to bind. [default: server.port in the settings]")
@click.pass_obj
def serve(where: tuple[Path | None, Path | None], host: str | None, port: int | None) -> None:
    """Serve the HTTP API: alerts come in, investigations run, reports can be read."""
    from agent.commands.serve import run_server

    run_server(*where, host=host, port=port)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def doctor(where: tuple[Path | None, Path | None], as_json: bool) -> None:
    """Say what is configured, what works, and how to mend what does not."""
    from agent.commands.doctor import examine

    sys.exit(examine(*where, as_json=as_json))


@main.command()
@click.argument("folder", type=FOLDER)
def init(folder: Path) -> None:
    """Make a home for a team: sre-agent.yaml, memory/, plans/, skills/, hooks/."""
    from agent.commands.init import make_home

    make_home(folder)


if __name__ == "__main__":
    main()
