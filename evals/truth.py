"""What is true of an incident, read from a file beside its folder (docs/evals.md), never from within it. It scores nothing."""

from __future__ import annotations

import difflib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, ValidationError

from agent.core.data import Data
from agent.core.errors import BadInput
from agent.core.report import Category, Verdict
from agent.evals.untrusted import value

FOLDER = "truth"
ENDINGS = (".json", ".yaml", ".yml")


CommitId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{7,64}$", to_lower=True)]
"""A commit's id or the first seven digits or more of it: fewer would be those of others too."""


class Named(Data):
    """A commit that the truth names, with words about it for people. also: other ids that it goes by."""

    repo: str
    commit: CommitId
    also: tuple[Annotated[str, StringConstraints(min_length=7, to_lower=True)], ...] = ()
    service: str = ""
    subject: str = ""


class Truth(Data):
    """What is true of one incident.

    guilty: commits any of which is a right answer; none where no commit is guilty. culprits: names of guilty records of
    changes.json. decoys: commits that only look guilty. eligible: by repository, the commits that can be blamed, or how many they
    are; empty where the deployments say it. relevant: texts one of which a good piece of evidence holds.
    seed, reproducer: how the incident was made, and a program that fails with the guilty commit; nobody is scored by them.
    """

    id: str = ""
    system: str = ""
    kind: str = ""
    verdict: Verdict | None = None
    category: Category | None = None
    mechanism: str = ""
    guilty: tuple[Named, ...] = ()
    decoys: tuple[Named, ...] = ()
    culprits: tuple[str, ...] = ()
    onset: datetime | None = None
    eligible: dict[str, Annotated[int, Field(ge=0)] | tuple[str, ...]] = {}
    relevant: tuple[str, ...] = ()
    seed: int | None = Field(default=None, exclude=True)
    reproducer: str = Field(default="", exclude=True)


class Incident(Data):
    """An incident that can be scored: its folder, and what is true of it."""

    name: str
    folder: Path
    truth: Truth


def incidents(folder: Path) -> list[Incident]:
    """The incident that this folder is, or those that it holds, by name. Raises BadInput."""
    folder = folder.absolute()
    if (folder / "incident.yaml").is_file():
        return [Incident(name=folder.name, folder=folder, truth=_beside(folder))]
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder", "Give an incident folder, or a folder of them.")
    found = sorted(manifest.parent for manifest in folder.glob("*/incident.yaml"))
    if not found:
        raise BadInput(
            f"{folder} holds no incident: neither incident.yaml nor a folder with one",
            "`sre-agent eval import` makes incident folders of other layouts; docs/incident-folder.md has the format.",
        )
    return [Incident(name=one.name, folder=one, truth=_beside(one)) for one in found]


def _beside(folder: Path) -> Truth:
    places = [folder.parent / FOLDER / f"{folder.name}{ending}" for ending in ENDINGS]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise BadInput(f"{folder}: nobody says what is true of it: {places[0]} does not exist", "Its format: docs/evals.md")
    truth = read_truth(file)
    return truth.model_copy(update={"id": truth.id or folder.name, "system": truth.system or folder.parent.name})


def read_truth(file: Path) -> Truth:
    """The truth in a file. Raises BadInput, naming file and line."""
    try:
        text = file.read_text("utf-8")
        values = value(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"{file}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise BadInput(f"{file}:{mark.line + 1 if mark else 1}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError:
        raise BadInput(f"{file}: is nested too deeply to be read", "Its format: docs/evals.md") from None
    if not isinstance(values, dict):
        raise BadInput(f"{file}:1: expected an object, found {type(values).__name__}", "Its format: docs/evals.md")
    try:
        return Truth.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise BadInput("\n".join(_told(file, text, wrong) for wrong in error.errors()), "Its format: docs/evals.md") from None


def _told(file: Path, text: str, wrong: Any) -> str:
    at = tuple(wrong["loc"])
    place = f"{file}:{_line(text, at)}"
    name = ".".join(str(part) for part in at)
    if wrong["type"] == "string_pattern_mismatch":
        return f"{place}: {name}: {wrong['input']!r} is no commit id of seven hexadecimal digits or more"
    if wrong["type"] != "extra_forbidden":
        return f"{place}: {name}: {wrong['msg']}"
    known = list((Truth if len(at) == 1 else Named).model_fields)
    near = difflib.get_close_matches(str(at[-1]), known, n=1, cutoff=0.5)
    return f"{place}: there is no field {name!r}" + (
        f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
    )


def _line(text: str, at: tuple[Any, ...]) -> int:
    """The line of a value; of what holds it where it is missing."""
    node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    line = node.start_mark.line + 1 if node else 1
    for part in at:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
