"""Watches what a check exercises: which functions of the repositories its Python programs enter, what they raise, how long they
take. The same check with the suspect and without it then says what the suspect makes happen, whatever the check itself prints.

A program of ours is put in front of the Python path on the desk; a command that takes it away, or another language, is simply
not watched. It decides nothing.
"""

from __future__ import annotations

from agent.core.data import Data
from agent.core.errors import SandboxError, ToolError
from agent.core.sandbox import Sandbox

FOLDER = ".watch"
LIMIT = 8_000_000
TRACER = f"{FOLDER}/sitecustomize.py"
PROGRAM = """
import atexit, json, os, re, sys, threading, time
HERE = os.path.dirname(os.path.abspath(__file__))
REPOS = os.path.join(os.path.dirname(HERE), "repos") + os.sep
NAMES, CALLS, RAISED, GAVE, OPEN = {}, {}, {}, {}, {}
BLOCKS = sys.getallocatedblocks()
def place(code):
    name = NAMES.get(code)
    if name is None:
        path = "" if code.co_filename.startswith("<") else os.path.abspath(code.co_filename)
        name = NAMES[code] = path[len(REPOS):] + ":" + code.co_name if path.startswith(REPOS) else ""
    return name
def shown(value):
    try:
        return re.sub("0x[0-9a-f]+", "", value if isinstance(value, str) else repr(value))[:200]
    except Exception:
        return ""
def gave(name, value):
    if isinstance(value, dict):
        for key in list(value)[:40]:
            if isinstance(key, str):
                gave(name + "." + key, value[key])
    else:
        values = GAVE.setdefault(name, []) if len(GAVE) < 2000 else []
        if len(values) < 20:
            values.append(shown(value))
def inner(frame, event, argument):
    name = place(frame.f_code)
    if event == "exception":
        if len(RAISED) < 500:
            try:
                text = str(argument[1])
            except Exception:
                text = ""
            RAISED.setdefault(argument[0].__name__ + ": " + shown(text), name)
    elif event == "return":
        began = OPEN.pop(id(frame), None)
        if began is not None:
            CALLS[name][1] += time.perf_counter() - began
        gave(name, argument)
    return inner
def outer(frame, event, argument):
    name = place(frame.f_code)
    if not name or name.endswith(":<module>"):
        return None
    CALLS.setdefault(name, [0, 0.0])[0] += 1
    OPEN[id(frame)] = time.perf_counter()
    frame.f_trace_lines = False
    return inner
def done():
    sys.settrace(None)
    blocks = sys.getallocatedblocks() - BLOCKS
    with open(os.path.join(HERE, "seen-%d.json" % os.getpid()), "w") as file:
        json.dump({"calls": CALLS, "raised": RAISED, "gave": GAVE, "blocks": blocks}, file)
atexit.register(done)
threading.settrace(outer)
sys.settrace(outer)
"""
SLOWER, SECONDS = 3.0, 0.02
"""How many times as long, and by how much longer, a function takes that is slower."""
BLOCKS, TIMES = 400, 1.1
"""How many more blocks of memory a program keeps that keeps more, and how many times as many."""


class Exercise(Data):
    """What one run did in the repositories. calls: by `repo/path:function`, how often and how long. raised: what, and where.

    gave: by function, or `function.key` where it gave a mapping, the first values. blocks: of memory that its programs kept.
    """

    calls: dict[str, tuple[int, float]] = {}
    raised: dict[str, str] = {}
    gave: dict[str, tuple[str, ...]] = {}
    blocks: int = 0


class Effect(Data):
    """What a check makes happen with the suspect and not without it.

    ran: functions that were entered with it. raised: errors, each with the function that raised it. slower: functions that take
    several times as long. gave: functions, and keys of what they give, whose values are others. larger: it keeps more memory.
    """

    ran: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    gave: tuple[str, ...] = ()
    larger: bool = False


async def prepare(sandbox: Sandbox) -> dict[str, str]:
    """Puts the watching program on a desk; the environment that it needs."""
    await sandbox.write(TRACER, PROGRAM.encode())
    return {"PYTHONPATH": f"/workspace/{FOLDER}", "PYTHONDONTWRITEBYTECODE": "1"}


async def collect(sandbox: Sandbox) -> Exercise:
    """What the Python programs of the last command did; nothing where there were none."""
    found = []
    try:
        files = [file.path for file in await sandbox.list(FOLDER) if file.path.endswith(".json")]
    except (ToolError, SandboxError):
        return Exercise()
    for path in files[:50]:
        try:
            found.append(Exercise.model_validate_json(await sandbox.read(path, limit=LIMIT)))
        except (ToolError, SandboxError, ValueError):
            continue  # what runs on the desk may write there too: it only loses by it
    calls: dict[str, tuple[int, float]] = {}
    for name, (number, seconds) in (item for one in found for item in one.calls.items()):
        before = calls.get(name, (0, 0.0))
        calls[name] = (before[0] + number, before[1] + seconds)
    return Exercise(
        calls=calls,
        raised={text: where for one in found for text, where in one.raised.items()},
        gave={name: values for one in found for name, values in one.gave.items()},
        blocks=sum(one.blocks for one in found),
    )


def effect(with_: Exercise, without: Exercise, again: Exercise) -> Effect:
    """What only the side with the suspect did. again: the side without it once more; what differs there differs by itself."""
    slower = [
        name
        for name, (_, seconds) in with_.calls.items()
        if seconds > SECONDS + (usual := max(side.calls.get(name, (0, 0.0))[1] for side in (without, again)))
        and seconds > SLOWER * usual
    ]
    steady = {name for name, values in without.gave.items() if again.gave.get(name) == values}
    kept = max(without.blocks, again.blocks)
    return Effect(
        ran=tuple(sorted(with_.calls)),
        raised=tuple(
            f"{text} in {where}" for text, where in with_.raised.items() if text not in {**without.raised, **again.raised}
        ),
        slower=tuple(slower),
        gave=tuple(name for name, values in with_.gave.items() if name in steady and values != without.gave[name]),
        larger=with_.blocks > kept + BLOCKS and with_.blocks > TIMES * kept,
    )
