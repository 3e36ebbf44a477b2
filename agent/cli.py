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
        click.option("--sandbox", type=click.Choice(["auto", "bubblewrap", "microvm"]), help="Where commands run."),
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


class Evals(click.Group):
    """A group whose name alone, with folders or options, runs."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Anything but a command of the group, or a wish for help, is of `run`."""
        known = args and (args[0] in self.commands or args[0] in ("-h", "--help"))
        return super().parse_args(context, args if known else ["run", *args])


@main.group("eval", cls=Evals)
def evals() -> None:
    """Measure a model on incidents whose cause is known: `eval [FOLDER...]` is `eval run [FOLDER...]`."""


def _eval_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options of everything that runs incidents and scores them."""
    options = (
        click.option("--model", help="statistical, anthropic[:NAME], openai[:NAME]. [default: by the key that is there]"),
        click.option("--sandbox", type=click.Choice(["auto", "bubblewrap", "microvm"]), help="Where commands run."),
        click.option("--trials", type=click.IntRange(min=1), default=1, help="Runs of each incident. [default: 1]"),
        click.option("--jobs", type=click.IntRange(min=1), default=2, help="Runs at the same time. [default: 2]"),
        click.option("--limit", type=click.IntRange(min=1), help="Only so many incidents."),
        click.option("--out", type=FOLDER, help="Keep results there; given again, what is missing is run."),
        click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
        click.option("--without-analysis", is_flag=True, help="Take the analysis commands away from a language model."),
        click.option("--max-turns", type=click.IntRange(min=1), help="Budget of each run: replies of the model."),
        click.option("--max-usd", type=click.FloatRange(min=0), help="Budget of each run: US dollars."),
        click.option("--max-seconds", type=click.FloatRange(min=1), help="Budget of each run: wall time."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@evals.command("run")
@click.argument("folders", type=FOLDER, nargs=-1)
@_eval_options
@click.pass_obj
def eval_run(where: tuple[Path | None, Path | None], /, folders: tuple[Path, ...], **options: object) -> None:
    """Investigate the incidents of these folders (those that ship, without one) and print how well."""
    from agent.commands.eval import EvalOptions, run_evals

    run_evals(*where, folders, EvalOptions.model_validate(options))


@evals.command("compare")
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def eval_compare(first: Path, second: Path, as_json: bool) -> None:
    """Compare two runs (their --out): paired differences with 95 % intervals."""
    from agent.commands.eval import compare_runs

    compare_runs(first, second, as_json=as_json)


@evals.group("import")
def eval_import() -> None:
    """Make incident folders of other layouts."""


@eval_import.command("rootcausebench")
@click.argument("path", type=FOLDER)
@click.argument("out", type=FOLDER)
def import_rootcausebench(path: Path, out: Path) -> None:
    """Import a case of RootCauseBench, or a folder of them."""
    from agent.commands.eval import import_cases

    import_cases(path, out)


@eval_import.command("export")
@click.argument("path", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--name", default="", help="Of the incident folder; neutral, because whoever investigates reads it.")
@click.option("--alert", type=FOLDER, help="The alert as its source sent it. [default: PATH/alert.json if there]")
@click.option("--source", default="generic", help="What sent the alert. [default: generic]")
@click.option("--at", default="", help="When it began, RFC 3339. [default: the alert's time]")
@click.option("--service", default="", help="The service that is alerted. [default: the alert's]")
@click.option("--title", default="", help="What is wrong, in a few words. [default: the alert's]")
@click.option("--git", multiple=True, help="A repository: [NAME=]URL-OR-PATH[@REF].")
@click.option("--guilty", multiple=True, help="The right answer: REPO@COMMIT.")
@click.option("--none", is_flag=True, help="No commit is guilty.")
@click.option("--kind", default="", help="What it is counted under.")
@click.option("--system", default="", help="Which system it is of.")
def import_export(path: Path, out: Path, **options: object) -> None:
    """Import a folder of exported logs, metrics and traces."""
    from agent.commands.eval import import_plain

    import_plain(path, out, options)


@main.command()
@click.argument("ids", nargs=-1)
@_eval_options
@click.option("--unjudged", is_flag=True, help="Also what no engineer judged, with what was found then as the truth.")
@click.pass_obj
def backtest(where: tuple[Path | None, Path | None], /, ids: tuple[str, ...], unjudged: bool, **options: object) -> None:
    """Run this service's own past incidents again, with any model, and score them by the engineers' verdicts.

    The store is only read, no connector is asked, nothing is published.
    """
    from agent.commands.eval import EvalOptions, run_backtest

    run_backtest(*where, ids, EvalOptions.model_validate(options), unjudged=unjudged)


@main.group()
def sandbox() -> None:
    """Build the image of the machines, and look after the sandboxes of this data folder."""


@sandbox.command("build")
@click.option("--packages", type=FOLDER, multiple=True, help="A file with more Debian packages, one a line.")
@click.option("--mirror", help="The Debian mirror to install from.")
@click.option("--root", type=FOLDER, help="An OCI image archive that becomes the system, instead of Debian packages.")
@click.option("--tier", "tiers", type=click.Choice(["XS", "S", "M", "L"]), multiple=True, help="Warm these tiers. [default: all]")
def sandbox_build(packages: tuple[Path, ...], mirror: str | None, root: Path | None, tiers: tuple[str, ...]) -> None:
    """Build what a microVM boots, once for each list of packages, and its warm templates."""
    from agent.commands.sandbox import build_image

    build_image(packages, mirror, root, tiers)


@sandbox.command("list")
@click.pass_obj
def sandbox_list(where: tuple[Path | None, Path | None]) -> None:
    """List the sandboxes: id, kind, state, last use, room on the disk."""
    from agent.commands.sandbox import list_all

    list_all(*where)


@sandbox.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("id")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def sandbox_exec(where: tuple[Path | None, Path | None], /, id: str, command: tuple[str, ...]) -> None:
    """Run a command in a sandbox, with this process's standard input and output. Exits as it does."""
    from agent.commands.sandbox import execute

    sys.exit(execute(*where, id, command))


@sandbox.command("shell")
@click.argument("id")
@click.pass_obj
def sandbox_shell(where: tuple[Path | None, Path | None], id: str) -> None:
    """Run commands in a sandbox, one line after the other; each starts where the one before ended."""
    from agent.commands.sandbox import shell

    shell(*where, id)


@sandbox.command("files")
@click.argument("id")
@click.argument("path", default="/workspace")
@click.pass_obj
def sandbox_files(where: tuple[Path | None, Path | None], id: str, path: str) -> None:
    """List a folder of a sandbox, or print a file."""
    from agent.commands.sandbox import files

    files(*where, id, path)


@sandbox.command("snapshot")
@click.argument("id")
@click.argument("name")
@click.option("--restore", is_flag=True, help="Roll back to it instead.")
@click.pass_obj
def sandbox_snapshot(where: tuple[Path | None, Path | None], id: str, name: str, restore: bool) -> None:
    """Keep a microVM, disk and memory, under a name as it is now, or roll back to that."""
    from agent.commands.sandbox import snapshot

    snapshot(*where, id, name, restore=restore)


@sandbox.command("fork")
@click.argument("id")
@click.argument("new")
@click.pass_obj
def sandbox_fork(where: tuple[Path | None, Path | None], id: str, new: str) -> None:
    """Make another microVM like one is now, disk and memory."""
    from agent.commands.sandbox import fork

    fork(*where, id, new)


@sandbox.command("egress")
@click.argument("id")
@click.option("--allow", multiple=True, metavar="HOST[:PORT]", help="Let it reach a host, or *.HOST; before all other rules.")
@click.option("--deny", multiple=True, metavar="HOST[:PORT]", help="Keep it from a host; before all other rules.")
@click.option("--rules", type=FOLDER, help="Replace the rules by those of a YAML file, in the form of policy.egress.")
@click.option("--shut", is_flag=True, help="Take all rules away.")
@click.option("--log", is_flag=True, help="Print what its door wrote down, as lines of JSON.")
@click.pass_obj
def sandbox_egress(where: tuple[Path | None, Path | None], /, id: str, **change: object) -> None:
    """Print what a sandbox may reach, or change it while it runs."""
    from agent.commands.sandbox import EgressChange, egress

    egress(*where, id, EgressChange.model_validate(change))


def _sandbox_action(name: str, help: str) -> None:
    """A command of the group that does one thing to one sandbox."""

    @sandbox.command(name, help=help)
    @click.argument("id")
    @click.pass_obj
    def act(where: tuple[Path | None, Path | None], id: str) -> None:
        from agent.commands import sandbox as commands

        getattr(commands, name)(*where, id)


@sandbox.command("suspend")
@click.argument("id")
@click.option("--disk-only", is_flag=True, help="Keep the disk alone, not the memory of a microVM.")
@click.pass_obj
def sandbox_suspend(where: tuple[Path | None, Path | None], id: str, disk_only: bool) -> None:
    """Give the host back all of a sandbox but room on its disk."""
    from agent.commands.sandbox import suspend

    suspend(*where, id, disk_only=disk_only)


for _name, _help in (
    ("resume", "Start a sandbox and see that it answers."),
    ("delete", "Remove a sandbox and its disk."),
    ("logs", "Print what the kernel and the agent of a microVM say."),
    ("stats", "Print what a sandbox uses."),
):
    _sandbox_action(_name, _help)


if __name__ == "__main__":
    main()
