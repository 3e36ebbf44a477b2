"""Block images: a layer as a read-only ext4 image, cached by its key and shared by all machines; a workspace as one of its own.

mke2fs fills an image from a folder without mounting anything. The owner of a layer's files is made the machine's user on the way:
mke2fs sees the folder from a user namespace in which the two are exchanged.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.core.errors import SandboxError
from agent.core.sandbox import Layer, SandboxSpec
from agent.sandboxes import syscalls
from agent.sandboxes.disk import SMALLEST as SMALLEST
from agent.sandboxes.disk import copy_tree, inside_workspace
from agent.sandboxes.microvm.build import HOST_PATH, USER
from agent.sandboxes.microvm.qemu import SLOTS

KEPT = 14 * 86400.0
"""Seconds that a layer's image is kept after it was last used."""

_PLAIN = "^metadata_csum,^64bit,^resize_inode"
"""A disk is a file of the host: its checksums would be computed by emulation, and it does not grow."""

_FEATURES = "assume_storage_prezeroed=1,lazy_itable_init=1,nodiscard"


def layer_image(cache: Path, layer: Layer) -> Path:
    """The image of a layer, made now if it is not there. Raises SandboxError."""
    if (found := cached(cache, layer)) is not None:
        return found
    image = _image(cache, layer)
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(image.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            make_layer(layer.source, image)
    finally:
        os.close(lock)
    return image


def cached(cache: Path, layer: Layer) -> Path | None:
    """The image of a layer if it was made before; that takes no time. Raises SandboxError."""
    if not layer.source.is_dir():
        raise SandboxError(f"the layer for {layer.target} has no folder {layer.source} on the host", "Its source must stay.")
    image = _image(cache, layer)
    try:
        os.utime(image)
    except FileNotFoundError:
        return None
    return image


def _image(cache: Path, layer: Layer) -> Path:
    name = hashlib.sha256(f"{layer.key}\0{layer.source}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache / f"{name}.ext4"


def sweep(cache: Path, used: Sequence[Path]) -> None:
    """Removes images that nobody has used for long, and what killed makers left."""
    for file in cache.glob("*") if cache.is_dir() else ():
        with suppress(FileNotFoundError):
            age = time.time() - file.stat().st_mtime
            if file not in used and age > (3600.0 if ".new-" in file.name else KEPT):
                file.unlink()


def make_layer(source: Path, image: Path) -> None:
    """A read-only image of a folder. Raises SandboxError."""
    size, count = _measure(source)
    about = source.stat()
    new = image.with_name(f"{image.name}.new-{secrets.token_hex(4)}")
    try:
        with new.open("xb") as file:
            file.truncate((size * 21 // 20 + count * 640 + (8 << 20)) & ~0xFFF)
        namespace = syscalls.swapping_namespace((about.st_uid, about.st_gid), (USER, USER)) if about.st_uid != USER else -1
        try:
            enter = ["nsenter", f"--user=/proc/self/fd/{namespace}"] if namespace >= 0 else []
            new.chmod(0o666)
            options = ["-m", "0", "-O", f"{_PLAIN},^has_journal", "-N", str(2 * count + 512), "-E", _FEATURES]
            _run([*enter, "mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(source), "/proc/self/fd/0"], new, namespace)
            _run(["debugfs", "-w", "-R", "rmdir lost+found", "/proc/self/fd/0"], new, -1)
        finally:
            if namespace >= 0:
                os.close(namespace)
        new.chmod(0o600)
        new.rename(image)
    except OSError as error:
        raise SandboxError(
            f"the image of {source} cannot be made: {error}", f"Is there room on the disk of {image.parent}?"
        ) from error
    finally:
        new.unlink(missing_ok=True)


def _measure(folder: Path) -> tuple[int, int]:
    """Bytes in whole blocks, and the number of files."""
    size, count, waiting = 0, 0, [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                about = entry.stat(follow_symlinks=False)
                count += 1
                if stat.S_ISDIR(about.st_mode):
                    size += 4096 + about.st_size
                    waiting.append(entry.path)
                else:
                    size += (about.st_size + 4095) & ~4095
    return size, count


def _run(command: Sequence[str], image: Path, namespace: int) -> None:
    with image.open("r+b") as file:
        passed = (namespace,) if namespace >= 0 else ()
        done = subprocess.run(command, stdin=file, capture_output=True, pass_fds=passed, env={"PATH": HOST_PATH, "LC_ALL": "C"})
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-800:]
        raise SandboxError(f"an image cannot be made: {reason}", "Is the host's disk full?")


def identity(image: int) -> str:
    """What tells an open image from one that was made anew: the identity that mke2fs gave it (ext4's superblock, s_uuid)."""
    return os.pread(image, 16, 1024 + 0x68).hex()


def slots(spec: SandboxSpec) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers that get a disk of their own, parents first, and those for which there is no slot: they are copied."""
    ordered = sorted(spec.layers, key=lambda layer: (layer.target.count("/"), layer.target))
    above = [layer for layer in ordered if not any(_below(other, layer) for other in ordered[: SLOTS - 1])]
    extra = tuple(layer for layer in above if layer in ordered[SLOTS - 1 :])
    return tuple(ordered[: SLOTS - 1]), extra if len(ordered) > SLOTS - 1 else ()


def _below(upper: Layer, lower: Layer) -> bool:
    return lower.target.startswith(upper.target + "/")


def allocate(image: Path, size: int) -> None:
    """The sparse file that a workspace's image will be in. QEMU may open it already. Raises SandboxError."""
    if size < SMALLEST:
        raise SandboxError(f"a disk of {size} bytes is too small", f"Set limits.disk to {SMALLEST} or more.")
    with image.open("xb") as file:
        file.truncate(size)


def make_workspace(image: Path, spec: SandboxSpec, stage: Path) -> None:
    """The disk of a new machine, in the allocated file: /workspace with the seed, /tmp, and what is written over each layer.

    Raises SandboxError.
    """
    mounted, copied = slots(spec)
    if len(mounted) + len(copied) < len(spec.layers):
        raise SandboxError(f"{len(spec.layers)} layers are too many", f"At most {SLOTS - 1} may lie in each other.")
    workspace = _owned(stage / "view" / "workspace", 0o755)
    _owned(stage / "view" / "tmp", 0o1777)
    if spec.seed is not None:
        copy_tree(spec.seed, workspace, USER)
    for layer in copied:
        copy_tree(layer.source, _way(workspace, inside_workspace(layer.target)), USER)
    for layer in mounted:
        _way(workspace, inside_workspace(layer.target))
    for number, layer in enumerate(mounted):
        _owned(stage / "layers" / str(number) / "upper", stat.S_IMODE(layer.source.stat().st_mode) | 0o700)
        (stage / "layers" / str(number) / "work").mkdir(mode=0o700)
    options = ["-m", "0", "-O", _PLAIN, "-i", "8192", "-J", "size=4", "-E", _FEATURES]
    _run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(stage), "/proc/self/fd/0"], image, -1)
    shutil.rmtree(stage)


def _way(workspace: Path, path: str) -> Path:
    """The folder of that path in a workspace that is being made, with those above it. Raises SandboxError for a link in it."""
    folder = workspace
    for part in path.split("/"):
        folder = folder / part
        if folder.is_symlink():
            raise SandboxError(f"the seed has a link at {folder.relative_to(workspace)}, where a layer goes", "Remove it.")
        if not folder.is_dir():
            _owned(folder, 0o755)
    return folder


def _owned(folder: Path, mode: int) -> Path:
    folder.mkdir(parents=True)
    os.chown(folder, USER, USER)
    folder.chmod(mode)
    return folder
