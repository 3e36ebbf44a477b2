"""Block images, all ext4: layers, read-only, cached by their key and shared by all machines; a machine's own disk; and its seed,
a layer of its own with what /workspace begins with.

mke2fs fills an image from a folder without mounting anything. The owner of a layer's files is made the machine's user on the way:
mke2fs sees the folder from a user namespace in which the two are exchanged.

What a layer holds lies below its folder `content`, so that all that a kernel remembers of a mounted one, the superblock, where
groups begin and the root's own inode, is the same for every layer of one outline: a machine that has one mounted may be given
another in its place, as long as nothing below the root was looked at.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import secrets
import shutil
import stat
import struct
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
from agent.sandboxes.microvm.channel import CONTENT
from agent.sandboxes.microvm.qemu import SLOTS

LAYERS = SLOTS - 2
"""Layers that get a disk, beside the machine's own and its seed."""

FORM = 2
"""Counted up when images or disks are laid out otherwise: those that an older version has cached are not taken for ours."""

KEPT = 14 * 86400.0
"""Seconds that a layer's image is kept after it was last used."""

_PLAIN = "^metadata_csum,^64bit,^resize_inode"
"""A disk is a file of the host: its checksums would be computed by emulation, and it does not grow."""

_SAME = "cba4f1c2-0e6b-4a5e-9f43-8f2f0c6d7a10"
"""What stands where ext4 has random numbers: in every image's own name, and as the seed of its folders' hashes."""

_FEATURES = f"assume_storage_prezeroed=1,lazy_itable_init=1,nodiscard,hash_seed={_SAME}"

USUAL = 4 << 30
"""Bytes that a layer's image has room for, if that is enough; the outline that machines have mounted in advance."""

_FILES = 1 << 18
"""Files that such an image has room for."""

_CHANGING = ((0x0C, 8), (0x2C, 10), (0x40, 4), (0x78, 80), (0x108, 4), (0x158, 4), (0x178, 8), (0x274, 16), (0x3FC, 4))
"""Offsets and lengths of what may differ between superblocks of one outline: counts of what is free, times, labels, checksum."""


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
    name = hashlib.sha256(f"{FORM}\0{layer.key}\0{layer.source}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache / f"{name}.ext4"


def sweep(cache: Path, used: Sequence[Path]) -> None:
    """Removes images that nobody has used for long, and what killed makers left."""
    for file in cache.glob("*") if cache.is_dir() else ():
        with suppress(FileNotFoundError):
            age = time.time() - file.stat().st_mtime
            if file not in used and age > (3600.0 if ".new-" in file.name else KEPT):
                shutil.rmtree(file) if file.is_dir() else file.unlink()


def make_layer(source: Path, image: Path) -> None:
    """A read-only image of a folder. Raises SandboxError."""
    size, count = _measure(source)
    about = source.stat()
    new = image.with_name(f"{image.name}.new-{secrets.token_hex(4)}")
    stage = new.with_name(f"{new.name}.stage")
    try:
        (stage / CONTENT).mkdir(parents=True)
        room, files = outline(size, count)
        allocate(new, room)
        namespace = syscalls.swapping_namespace((about.st_uid, about.st_gid), (USER, USER)) if about.st_uid != USER else -1
        try:
            enter = ["nsenter", f"--user=/proc/self/fd/{namespace}"] if namespace >= 0 else []
            new.chmod(0o666)
            _run([*_BOUND, str(source), str(stage / CONTENT), *enter, *_layer(stage, files)], new, namespace)
            if about.st_mode & 0o700 != 0o700:  # its owner may always look into it
                mode = f"sif {CONTENT} mode 0{about.st_mode | 0o700:o}"
                _run(["debugfs", "-w", "-R", mode, "/proc/self/fd/0"], new, -1)
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
        shutil.rmtree(stage, ignore_errors=True)


_BOUND = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"]
"""Runs a command to which a folder lies at another place too."""


def outline(size: int, count: int) -> tuple[int, int]:
    """Bytes and files of an image for that much: the usual ones, if they are enough."""
    room, files = (size * 21 // 20 + count * 640 + (8 << 20)) & ~0xFFF, 2 * count + 512
    return (USUAL, _FILES) if room <= USUAL * 7 // 8 and count <= _FILES * 7 // 8 else (room, files)


def _layer(folder: Path, files: int) -> list[str]:
    """What makes a layer's image, its standard input, of a folder."""
    options = [
        "-b",
        "4096",
        "-m",
        "0",
        "-O",
        f"{_PLAIN},^has_journal,uninit_bg",
        "-N",
        str(files),
        "-U",
        _SAME,
        "-L",
        secrets.token_hex(8),
    ]
    return ["mke2fs", "-q", "-F", "-t", "ext4", *options, "-E", _FEATURES, "-d", str(folder), "/proc/self/fd/0"]


def remembered(image: int) -> str:
    """A digest of what a kernel remembers of a layer's image while it has it mounted: those with the same are exchangeable."""
    block, groups = os.pread(image, 1024, 1024), os.pread(image, 4096, 4096)
    changing = bytearray(block)
    for at, length in _CHANGING:
        changing[at : at + length] = bytes(length)
    (table,) = struct.unpack_from("<I", groups, 8)
    root = os.pread(image, 256, table * 4096 + 256)
    places = b"".join(groups[at : at + 12] for at in range(0, len(groups), 32))
    return hashlib.sha256(bytes(changing) + places + root[:2] + root[4:8] + root[0x20:0x64]).hexdigest()


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


@functools.cache
def version() -> str:
    """Which mke2fs makes the images here."""
    return subprocess.run(["mke2fs", "-V"], capture_output=True, text=True, check=True).stderr


def identity(image: int) -> str:
    """What tells an open image from one that was made anew: the label that it was given (ext4's superblock, s_volume_name)."""
    return os.pread(image, 16, 1024 + 0x78).decode("ascii", "replace")


def slots(spec: SandboxSpec) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers that get a disk of their own, parents first, and those for which there is no slot: they are copied."""
    ordered = sorted(spec.layers, key=lambda layer: (layer.target.count("/"), layer.target))
    above = [layer for layer in ordered if not any(_below(other, layer) for other in ordered[:LAYERS])]
    extra = tuple(layer for layer in above if layer in ordered[LAYERS:])
    return tuple(ordered[:LAYERS]), extra if len(ordered) > LAYERS else ()


def _below(upper: Layer, lower: Layer) -> bool:
    return lower.target.startswith(upper.target + "/")


def allocate(image: Path, size: int) -> None:
    """The sparse file that an image will be in. QEMU may open it already."""
    with image.open("xb") as file:
        file.truncate(size)


def make_disk(image: Path) -> None:
    """The disk of a machine, in the allocated file: /tmp, and room for what is written over each layer. Raises SandboxError."""
    if (size := image.stat().st_size) < SMALLEST:
        raise SandboxError(f"a disk of {size} bytes is too small", f"Set limits.disk to {SMALLEST} or more.")
    stage = image.with_suffix(".stage")
    _owned(stage / "tmp", 0o1777)
    for number in range(LAYERS + 1):
        for name in ("upper", "work"):
            (stage / "layers" / str(number) / name).mkdir(parents=True)
    options = ["-m", "0", "-O", _PLAIN, "-i", "8192", "-J", "size=4", "-E", _FEATURES]
    _run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(stage), "/proc/self/fd/0"], image, -1)
    shutil.rmtree(stage)


def make_seed(image: Path, spec: SandboxSpec) -> None:
    """What /workspace begins with, in the allocated file: the seed, and where layers come. Raises SandboxError."""
    mounted, copied = slots(spec)
    if len(mounted) + len(copied) < len(spec.layers):
        raise SandboxError(f"{len(spec.layers)} layers are too many", f"At most {LAYERS} may lie in each other.")
    stage = image.with_suffix(".stage")
    workspace = _owned(stage / CONTENT, 0o755)
    if spec.seed is not None:
        copy_tree(spec.seed, workspace, USER)
    for layer in copied:
        copy_tree(layer.source, _way(workspace, inside_workspace(layer.target)), USER)
    for layer in mounted:
        _way(workspace, inside_workspace(layer.target))
    _run(_layer(stage, _FILES), image, -1)
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
