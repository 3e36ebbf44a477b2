"""Which files of telemetry lie on the desk: logs, metrics and traces, by where they lie and how they are named; which are none.

A compressed file (.gz, .bz2, .xz) is unpacked beside the cache and read like any other, under its own name.
"""

from __future__ import annotations

import bz2
import codecs
import hashlib
import lzma
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _analysis import kept
from _analysis.desk import Desk

LOGS = (".log", ".txt", ".ndjson", ".jsonl", ".out", ".err")
TABLES = (".csv", ".tsv")
NO_LOGS = (
    ".md",
    ".zip",
    ".tar",
    ".tgz",
    ".zst",
    ".lz4",
    ".7z",
    ".bin",
    ".db",
    ".parquet",
    ".pcap",
    ".png",
    ".jpg",
    ".svg",
    ".pdf",
    ".html",
)
METRICS = (*TABLES, ".json", ".ndjson", ".jsonl", ".prom", ".om", ".txt")
TRACES = (".json", ".ndjson", ".jsonl")
LINES = ("msg", "message", "body", "log", "event", "text", "line", "short_message", "content", "raw")
VALUES = ("value", "val", "v", "_value", "sum", "avg", "mean")
UNPACK = 0.25
"""The part of a limited time after which no more is unpacked; what is left of it is shared out among the rest."""
BLOCK = 1 << 20
MOST = 2 << 30
"""Bytes of an unpacked file that are read."""
SHOWN = 5


def logs(desk: Desk) -> list[Path]:
    """The log files: wherever they lie, but with metrics and traces."""
    return _sorted(desk)["logs"]


def metrics(desk: Desk) -> list[Path]:
    """The metric files: tables anywhere, and whatever lies with metrics."""
    return _sorted(desk)["metrics"]


def traces(desk: Desk) -> list[Path]:
    """The trace files."""
    return _sorted(desk)["traces"]


def unread(desk: Desk) -> list[str]:
    """What lies under telemetry/ and is read by none of these, and what of compressed files could not be had, in words."""
    names = [desk.shown(path) for path in _sorted(desk)["other"]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    left = [f"{', '.join(names[:SHOWN])}{more}: neither logs nor metrics nor traces by name; not read"] if names else []
    return [*desk.unpacking, *left]


def _sorted(desk: Desk) -> dict[str, list[Path]]:
    """All files by what they are, looked at once."""
    if desk.telemetry_files is None:
        desk.telemetry_files = {"logs": [], "metrics": [], "traces": [], "other": []}
        queries = []
        for path in sorted(desk.telemetry.rglob("*")) if desk.telemetry.is_dir() else ():
            if not path.is_file():
                continue
            parts = path.relative_to(desk.telemetry).parts
            if parts[0] == "queries":
                queries.append(path)
            elif (kind := _kind(parts)) and (plain := _plain(desk, path)):
                desk.telemetry_files[kind].append(plain)
            elif not kind and parts[-1] not in ("README.md", ".gitkeep", ".keep", "about.json"):
                desk.telemetry_files["other"].append(path)
        if desk.originals:
            desk.begun = time.monotonic()
        for path in queries:
            for kind in _queried(path):
                desk.telemetry_files[kind].append(path)
    return desk.telemetry_files


def _kind(parts: tuple[str, ...]) -> str:
    """What a file is by its folder and name; "" where that tells nothing."""
    suffixes = [s.lower() for s in Path(parts[-1]).suffixes]
    if suffixes and suffixes[-1] in PACKINGS:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    suffix = suffixes[-2] if re.fullmatch(r"\.\d+", suffix) and len(suffixes) > 1 else suffix  # app.log.1, rotated
    if parts[0] == "traces" or parts[-1].startswith("traces.json"):
        return "traces" if suffix in TRACES else ""
    if suffix in TABLES or (parts[0] == "metrics" and suffix in METRICS):
        return "metrics"
    if parts[0] == "metrics":
        return ""
    return "logs" if suffix in LOGS or (parts[0] == "logs" and suffix not in NO_LOGS) else ""


def _queried(path: Path) -> Iterator[str]:
    """What a query's result holds: metrics where a column is of numbers, log lines where one is of texts and none of numbers."""
    if path.suffix != ".json":
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(65536)
    except OSError:
        return
    columns = re.search(r'"columns"\s*:\s*\[([^\]]*)\]', head)
    names = {c.strip(' "\n').lower() for c in columns[1].split(",")} if columns else set()
    if names & set(VALUES):
        yield "metrics"
    if names & set(LINES) and "value" not in names:
        yield "logs"


def _plain(desk: Desk, path: Path) -> Path | None:
    """The file itself, or what it unpacks to; None where that could not be had."""
    packing = _packing(path)
    if packing is None:
        return path
    about = path.stat()
    stamp = hashlib.sha256(repr((str(path), about.st_size, about.st_mtime_ns)).encode("utf-8", "surrogateescape")).hexdigest()
    name = path.stem if path.suffix.lower() in PACKINGS else path.name
    target = kept.folder() / f"unpacked-{stamp[:24]}" / name
    told = target.with_name("problem")
    try:
        if not told.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            told.write_text(_unpack(desk, packing(path), target), "utf-8")
        problem = told.read_text("utf-8")
    except _Late:
        desk.left.append(f"{desk.shown(path)}: not unpacked")
        return None
    except OSError as error:
        problem = f"cannot be unpacked: {error.strerror or error}"
    if problem:
        desk.unpacking.append(f"{desk.shown(path)}: {problem}")
    if not target.exists():
        return None
    desk.originals[target] = path
    return target


class _Late(Exception):
    """The time is over."""


def _unpack(desk: Desk, blocks: Iterator[bytes], target: Path) -> str:
    """Unpacks, and says what went wrong; what came before that stays."""
    size, problem = 0, ""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as out:
            try:
                for block in blocks:
                    size += out.write(block)
                    if desk.late(UNPACK):
                        raise _Late
                    if size >= MOST:
                        problem = f"only the first {MOST / 1e9:.0f} GB of it were unpacked"
                        break
            except (EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                problem = f"is broken or cut off ({error}): " + ("only what comes before that was read" if size else "not read")
        if size:
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return problem


def _packing(path: Path) -> Callable[[Path], Iterator[bytes]] | None:
    """How a file is turned into plain UTF-8; None where it is that, or might be."""
    if path.suffix.lower() in PACKINGS:
        return PACKINGS[path.suffix.lower()]
    with path.open("rb") as file:
        return _utf16 if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None


def _utf16(path: Path) -> Iterator[bytes]:
    with path.open(encoding="utf-16", errors="replace", newline="") as file:
        while text := file.read(BLOCK):
            yield text.encode("utf-8", "replace")


def _unpacked(machine: Callable[[], Any], piece: int) -> Callable[[Path], Iterator[bytes]]:
    """Pieces so small that none of them unpacks to more than the memory holds."""

    def blocks(path: Path) -> Iterator[bytes]:
        made = machine()
        with path.open("rb") as file:
            while data := file.read(piece):
                while data:
                    made = machine() if made.eof else made  # several, one after the other, are one file
                    try:
                        yield made.decompress(data)
                    except OSError as error:
                        raise ValueError(str(error)) from None
                    data = made.unused_data if made.eof else b""
        if not made.eof:
            raise EOFError("it ends in the middle")

    return blocks


PACKINGS = {
    ".gz": _unpacked(lambda: zlib.decompressobj(31), 16_384),
    ".bz2": _unpacked(bz2.BZ2Decompressor, 2_048),
    ".xz": _unpacked(lzma.LZMADecompressor, 2_048),
}
