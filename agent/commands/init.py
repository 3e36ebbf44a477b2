"""`sre-agent init`: makes a home for a team."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from agent.config import FILE
from agent.core.errors import BadInput
from agent.paths import shipped

SETTINGS = """\
# The settings of this home. Every one has a default; an unknown one is an error. ${NAME} is taken from the environment.

# server:
#   host: 0.0.0.0                 # other than loopback needs a token
#   port: 8484
#   tokens: ["${SRE_AGENT_TOKEN}"]

# model:
#   name: auto                    # anthropic, openai or statistical; auto: by the key that is in the environment

services: {}
#   orders:
#     repository: {url: "https://git.example.org/shop/orders.git", path: ""}
#     owner: team-orders
#     telemetry: {job: orders}
#     depends_on: [payments]
#     runbook: https://wiki.example.org/orders

connectors: {}
#   prometheus: {kind: prometheus, url: "http://127.0.0.1:9090"}
#   app-logs: {kind: logs, paths: ["/var/log/app/*.log"]}

# policy:                # what sandboxes may reach over HTTP(S): nothing, unless a rule allows it
#   egress: {rules: [{hosts: [packages.example.org]}]}
#   redact: {customer: "CUST-[0-9]{6}"}
"""


def make_home(folder: Path) -> None:
    """Writes the home. Raises BadInput if there is one already."""
    if (folder / FILE).exists():
        raise BadInput(f"{folder / FILE} exists already", "Edit it, or choose another folder.")
    for name in ("memory", "plans", "skills", "hooks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(SETTINGS, "utf-8")
    for page in shipped("memory").glob("*.md"):
        target = folder / "memory" / page.name
        if not target.exists():
            shutil.copyfile(page, target)
    click.echo(f"Made {folder / FILE} and memory/, plans/, skills/, hooks/ beside it.")
    click.echo(f"Next: name your services in it, then `sre-agent --home {folder} doctor` and `sre-agent --home {folder} serve`.")
