"""Unpacking an OCI image archive (`podman save --format oci-archive`, `skopeo copy ... oci-archive:`) into a folder.

Layers are applied in order, with their whiteouts (image-spec, layer.md). Nothing of the image's configuration is used.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

from agent.core.errors import BadInput


def unpack(archive: Path, scratch: Path, root: Path) -> None:
    """Unpacks the first image of the archive. `scratch` is for its blobs. Raises BadInput."""
    try:
        with tarfile.open(archive) as file:
            file.extractall(scratch, filter="data")
        manifest = _blob(scratch, json.loads((scratch / "index.json").read_bytes())["manifests"][0])
        while "layers" not in manifest:  # an index of several platforms
            manifest = _blob(scratch, manifest["manifests"][0])
        for layer in manifest["layers"]:
            _apply(_place(scratch, layer), root)
    except (tarfile.TarError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BadInput(f"{archive} is no OCI image archive: {error}", "Make one: podman save --format oci-archive") from error


def _place(scratch: Path, descriptor: Any) -> Path:
    kind, _, digest = descriptor["digest"].partition(":")
    if not (kind.isalnum() and digest.isalnum()):
        raise ValueError(f"{descriptor['digest']!r} is no digest")
    return scratch / "blobs" / str(kind) / str(digest)


def _blob(scratch: Path, descriptor: Any) -> Any:
    return json.loads(_place(scratch, descriptor).read_bytes())


def _apply(layer: Path, root: Path) -> None:
    with tarfile.open(layer) as file:
        for member in file:
            parent, name = os.path.split(member.name)
            if name == ".wh..wh..opq":
                _empty(_inside(root, parent))
            elif name.startswith(".wh."):
                _remove(_inside(root, parent) / name[4:])
            elif member.isfile() or member.isdir() or member.issym() or member.islnk():
                file.extract(member, root, filter="tar")


def _inside(root: Path, path: str) -> Path:
    """A folder of the new system. Raises ValueError if a link leads out of it."""
    found = (root / path.lstrip("/")).resolve()
    if not found.is_relative_to(root.resolve()):
        raise ValueError(f"{path!r} leads out of the image")
    return found


def _empty(folder: Path) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
