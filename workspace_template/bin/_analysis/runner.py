"""Loads a service's file with a package's code from a folder, and calls its functions; what each did goes to standard output.

It runs by itself, told by a job on standard input. What the service imports and is not there gives way to stand-ins.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

LOADING = 5.0
STUBS = 20
stubs: list[str] = []


class Stub(types.ModuleType):
    """Stands in for a module and for all that it holds."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__[name] = made = Stub(f"{self.__name__}.{name}")
        return made

    def __call__(self, *given: Any, **named: Any) -> Any:
        decorates = len(given) == 1 and isinstance(given[0], (types.FunctionType, type)) and not named
        return given[0] if decorates else self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Finder:
    """Finds stand-ins for what is missing."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        known = name.partition(".")[0] in stubs
        return importlib.machinery.ModuleSpec(name, Finder, is_package=True) if known else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: importlib.machinery.ModuleSpec) -> Stub:
        return Stub(spec.name)

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        return None


def late(*_: object) -> None:
    raise TimeoutError("no answer")


def load(path: str, tops: list[str]) -> types.ModuleType:
    """The service's module; each module that is missing, but not the package's own, gets a stand-in."""
    known = set(sys.modules)
    while True:
        try:
            spec = importlib.util.spec_from_file_location("service", path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            signal.setitimer(signal.ITIMER_REAL, LOADING)
            spec.loader.exec_module(module)
            return module
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if not name or name in stubs or name in tops or len(stubs) > STUBS:
                raise
            stubs.append(name)
            for other in set(sys.modules) - known:
                del sys.modules[other]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def tried(function: Callable[..., Any], arguments: list[Any], each: float) -> list[Any]:
    """What a call raised, what it gave, and how long it took."""
    raised, gave, began = "", "", time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, each)
        gave = re.sub("0x[0-9a-f]+", "", repr(function(*arguments)))[:160]
    except SystemExit as error:
        raised = f"SystemExit: {error}"
    except BaseException as error:  # noqa: BLE001 - whatever the code raises is the answer
        raised = f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return [raised, "" if raised else gave, time.monotonic() - began]


def answer(job: dict[str, Any]) -> dict[str, Any]:
    sys.path[:1] = [*(os.path.join(job["lib"], part) for part in ("src", "lib", "")), os.path.dirname(job["file"]), job["root"]]
    sys.meta_path.append(Finder)
    signal.signal(signal.SIGALRM, late)
    told: dict[str, list[Any]] = {}
    try:
        module = load(job["file"], job["tops"])
        end = time.monotonic() + job["seconds"]
        for one in job["functions"]:
            function = getattr(module, one["name"], None)
            rows = told[one["name"]] = []
            for arguments in one["calls"]:
                if function is not None and time.monotonic() < end:
                    rows.append(tried(function, json.loads(json.dumps(arguments)), job["each"]))
    except BaseException as error:  # noqa: BLE001 - whatever the code raises is the answer
        return {"broken": f"{type(error).__name__}: {error}"}
    return {"told": told, "stubs": stubs}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the service prints is no answer
    out.write("\n" + json.dumps(answer(given)))
    out.flush()
    os._exit(0)
