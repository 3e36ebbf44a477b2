"""`python -m bench NAME`: runs one benchmark, prints its rows as a table and writes them to bench/NAME.json.

A benchmark is a module with `main(arguments) -> list[Row]`. A row is a flat mapping from column to value; the run fails where
`measured` is above `at_most`.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 1 where a figure was not reached."""
    known = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    if not arguments or arguments[0] not in known:
        print(f"usage: python -m bench NAME; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    name = arguments[0]
    rows: list[Row] = importlib.import_module(f"bench.{name}").main(arguments[1:])
    missed = [row for row in rows if "at_most" in row and row["measured"] > row["at_most"]]
    print(table(rows))
    print(f"\n{len(missed)} of {len(rows)} figures were not reached." if missed else f"\nAll {len(rows)} figures were reached.")
    record = {"benchmark": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "host": host(), "rows": rows}
    (HERE / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 1 if missed else 0


def table(rows: Sequence[Row]) -> str:
    """The rows in columns as wide as they need."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([_text(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def host() -> dict[str, Any]:
    """What the figures depend on."""
    return {"python": platform.python_version(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
