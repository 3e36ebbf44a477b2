"""Who takes part, and the virtual environment of each, made once in a cache folder from the package index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """own: it runs in this project's environment. finish: how it is told that all is done."""

    name: str
    driver: str
    python: str = sys.executable
    version: str = ""
    own: bool = False
    finish: str = "text"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A harness of the package index. packages: what is installed; the first one's version is reported."""

    packages: tuple[str, ...]
    finish: str = "text"


OURS = Contestant(name="sre-agent", driver="ours", own=True)
FLOOR = Contestant(name="floor (SDK and bytes)", driver="floor", own=True)
PEERS = {
    "deepagents": Peer(packages=("deepagents", "langchain-anthropic", "langchain-openai")),
    "mini-swe-agent": Peer(packages=("mini-swe-agent", "mcp"), finish="call"),
    "openai-agents": Peer(packages=("openai-agents[litellm]",)),
    "pydantic-ai": Peer(packages=("pydantic-ai-slim[anthropic,openai]",)),
}


def cache() -> Path:
    """Where the environments are."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sre-agent" / "bench"


def prepare(name: str) -> Contestant:
    """The peer, installed. Raises subprocess.CalledProcessError where that cannot be done."""
    peer = PEERS[name]
    folder = cache() / name
    python = folder / "bin/python"
    installed, wanted = folder / ".installed", " ".join(peer.packages)
    if not installed.exists() or installed.read_text() != wanted:
        print(f"Installing {name} in {folder}", file=sys.stderr)
        uv = _uv()
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *peer.packages], check=True)
        installed.write_text(wanted)
    package = peer.packages[0].partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    driver = name.replace("-", "_")
    return Contestant(name=name, driver=driver, python=str(python), version=version, finish=peer.finish)


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else "uv"
