"""Renews docs/demo.svg: runs the demo in a terminal of its own and draws what a person would see. Not part of the program."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
WIDTH, LINES = 118, 62


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outside, inside = pty.openpty()
        command = [Path(sys.executable).parent / "sre-agent", "--data", f"{folder}/data", "demo"]
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": "80"}
        process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environment, cwd=folder)
        os.close(inside)
        output = b""
        while chunk := _read(outside):
            output += chunk
        process.wait()
    text = output.decode("utf-8", "replace").replace("\r\n", "\n").replace(folder, "…")
    shown = "\n".join(["$ ./dev demo", *text.split("\n")[:LINES], "…"])
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(re.sub(r"\x1b\[\?\d+[hl]", "", shown)))
    (HERE / "demo.svg").write_text(console.export_svg(title="./dev demo", unique_id="demo"), "utf-8")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed
        return b""


if __name__ == "__main__":
    main()
