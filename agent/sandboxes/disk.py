"""A sandbox's disk: an ext4 image of bounded size, loop-mounted, with the layers as overlays on it. This form needs root.

In the sandbox's folder on the host (all of it root's alone):

    disk.img            the image, sparse
    disk/               where it is mounted
      view/workspace    what the sandbox has as /workspace, layers mounted in it
      view/tmp          what it has as /tmp
      etc               what it has as /etc, see system.py
      layers/N          upper and work folder of layer N
    attached            says in which boot and mount namespace all of it is mounted; absent while it is not, or only half

A layer's source is never written: it is the lower folder of an overlay, seen through an id-mapped mount in which its owner's
files are the sandbox user's. On hosts that cannot map (an old kernel, some file systems) the owners are changed on the overlay.
The agent writes into view/, so no path in there is ever followed through a symlink here.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from agent.core.errors import SandboxError, SandboxUnavailable
from agent.core.sandbox import WORKSPACE, Layer, SandboxSpec
from agent.sandboxes import syscalls
from agent.sandboxes.system import write_etc

SMALLEST = 32 << 20
"""Bytes; below it ext4 and its journal leave no room."""

_BYTES_PER_INODE = 8192
_SAFE = syscalls.MS_NOSUID | syscalls.MS_NODEV


class LoopDisk:
    """The disk of one sandbox in `folder`, whose files belong to the host user `uid`."""

    def __init__(self, folder: Path, spec: SandboxSpec, uid: int) -> None:
        self.folder, self.spec, self.uid = folder, spec, uid
        self.image, self.mounted, self.mark = folder / "disk.img", folder / "disk", folder / "attached"
        self.view, self.etc = self.mounted / "view", self.mounted / "etc"

    def make(self, lock: int) -> None:
        """Makes the image, attaches it and copies the seed; `lock` is what keeps others away, also from what we start.

        Raises SandboxError, SandboxUnavailable.
        """
        make_image(self.image, self.spec.limits.disk, lock)
        self.mounted.mkdir()
        self._mount_image()
        self.view.mkdir()
        self.view.chmod(0o755)  # whatever our umask is
        for name, mode in (("workspace", 0o755), ("tmp", 0o1777)):
            self._own_folder(self.view / name, mode)
        if self.spec.seed is not None:
            copy_tree(self.spec.seed, self.view / "workspace", self.uid)
        (self.mounted / "layers").mkdir(mode=0o755)
        for number, layer in enumerate(self.spec.layers):
            for name in ("lower", "upper", "work"):
                (self.mounted / "layers" / str(number) / name).mkdir(parents=True, mode=0o755)
            self._prepare_upper(number, layer)
        self._finish()

    def _finish(self) -> None:
        shutil.rmtree(self.etc, ignore_errors=True)
        write_etc(self.etc, self.uid)
        self._mount_layers()
        self.mark.write_text(_here())

    def attach(self) -> None:
        """Mounts what is not mounted. Nothing happens if all of it is."""
        if self.attached():
            return
        self.detach()
        if not self.image.exists():
            raise SandboxError(
                f"{self.folder.name}: the disk image {self.image} is gone", "Delete the sandbox and make a new one."
            )
        self._mount_image()
        self._finish()

    def attached(self) -> bool:
        try:
            return self.mark.read_text() == _here() and self._is_mounted()
        except FileNotFoundError:
            return False

    def detach(self) -> None:
        """Unmounts everything; the loop device frees itself with the last mount."""
        self.mark.unlink(missing_ok=True)
        while self._is_mounted():
            syscalls.unmount_tree(str(self.mounted))

    def _is_mounted(self) -> bool:
        try:
            return self.mounted.lstat().st_dev != self.folder.lstat().st_dev
        except FileNotFoundError:
            return False

    def _mount_image(self) -> None:
        """Within this process, so that nothing goes on mounting after its death."""
        try:
            device = syscalls.loop_device(str(self.image))
            try:
                source = os.readlink(f"/proc/self/fd/{device}")
                syscalls.mount(source, str(self.mounted), "ext4", _SAFE | syscalls.MS_NOATIME, "discard,errors=remount-ro")
            finally:
                os.close(device)
            syscalls.mount("", str(self.mounted), "", syscalls.MS_PRIVATE)  # what is mounted in it is mounted once
        except OSError as error:
            hint = "It needs root with CAP_SYS_ADMIN, the loop driver (modprobe loop) and a free /dev/loopN."
            raise SandboxUnavailable(f"{self.folder.name}: the disk image cannot be mounted: {error}", hint) from error

    def _own_folder(self, folder: Path, mode: int) -> None:
        folder.mkdir()
        os.chown(folder, self.uid, self.uid)
        folder.chmod(mode)

    def _prepare_upper(self, number: int, layer: Layer) -> None:
        """The upper folder is what the layer's top looks like: the sandbox user's, with the source's permissions."""
        upper = self.mounted / "layers" / str(number) / "upper"
        os.chown(upper, self.uid, self.uid)
        upper.chmod(stat.S_IMODE(_source(layer).st_mode) | 0o700)

    def _mount_layers(self) -> None:
        top = os.open(self.view / "workspace", os.O_PATH | os.O_DIRECTORY)
        try:
            held: set[str] = set()
            for number, layer in sorted(enumerate(self.spec.layers), key=lambda item: item[1].target.count("/")):
                target = inside_workspace(layer.target)
                for parent in reversed(PurePosixPath(target).parents[:-1]):
                    if str(parent) not in held:
                        self._hold(top, str(parent))
                        held.add(str(parent))
                self._overlay(number, layer, top, target)
                held.add(target)
        finally:
            os.close(top)

    def _hold(self, top: int, path: str) -> None:
        """Makes a folder above a layer a mount point of itself: the agent cannot move or replace it, so the way stays ours."""
        folder = self._folder(top, path)
        try:
            here = f"/proc/self/fd/{folder}"
            syscalls.mount(here, here, "", syscalls.MS_BIND)
        finally:
            os.close(folder)

    def _folder(self, top: int, path: str) -> int:
        """A folder below /workspace, made if absent; symlinks are refused."""
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            return syscalls.openat2(top, path, flags, resolve=syscalls.RESOLVE_BENEATH_PLAINLY)
        except FileNotFoundError:
            parent = PurePosixPath(path).parent
            above = self._folder(top, str(parent)) if str(parent) != "." else os.dup(top)
            try:
                os.mkdir(PurePosixPath(path).name, dir_fd=above)
            finally:
                os.close(above)
            made = syscalls.openat2(top, path, flags, resolve=syscalls.RESOLVE_BENEATH_PLAINLY)
            os.chmod(f"/proc/self/fd/{made}", 0o755)
            os.chown(f"/proc/self/fd/{made}", self.uid, self.uid)
            return made

    def _overlay(self, number: int, layer: Layer, top: int, path: str) -> None:
        place = self.mounted / "layers" / str(number)
        by_hand = place / "by-hand"
        target = self._folder(top, path)
        try:
            mapped = not by_hand.exists() and self._overlay_mapped(place, layer, target)
        finally:
            os.close(target)
        if mapped:
            return
        target = self._folder(top, path)
        try:
            overlay(str(layer.source), place, target, "metacopy=on,redirect_dir=on")
        finally:
            os.close(target)
        if not by_hand.exists():
            merged = self._folder(top, path)
            try:
                own_tree(merged, self.uid)
            finally:
                os.close(merged)
            by_hand.touch()

    def _overlay_mapped(self, place: Path, layer: Layer, target: int) -> bool:
        """Overlays the id-mapped source; False where this host cannot."""
        owner = _source(layer)
        lower = os.open(place / "lower", os.O_PATH | os.O_DIRECTORY)
        try:
            syscalls.mount_owned(str(layer.source), lower, (owner.st_uid, owner.st_gid), (self.uid, self.uid))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            return False
        finally:
            os.close(lower)
        try:
            overlay(str(place / "lower"), place, target, "metacopy=off,redirect_dir=off")
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 5.19 an overlay refuses an id-mapped lower folder
                raise
            return False
        finally:
            syscalls.unmount_tree(str(place / "lower"))  # the overlay keeps its own hold on it
        return True


def overlay(source: str, place: Path, target: int, options: str) -> None:
    """Mounts an overlay of `source` at the folder descriptor `target`, with upper and work folder in `place`.

    Folders go by descriptor: names may hold colons and commas, and the sandbox can read its mount options.
    """
    lower = os.open(source, os.O_PATH | os.O_DIRECTORY)
    upper = os.open(place / "upper", os.O_PATH | os.O_DIRECTORY)
    work = os.open(place / "work", os.O_PATH | os.O_DIRECTORY)
    try:
        folders = f"lowerdir=/proc/self/fd/{lower},upperdir=/proc/self/fd/{upper},workdir=/proc/self/fd/{work}"
        syscalls.mount("overlay", f"/proc/self/fd/{target}", "overlay", _SAFE, f"{folders},index=off,{options}")
    finally:
        for descriptor in (lower, upper, work):
            os.close(descriptor)


def own_tree(top: int, uid: int) -> None:
    """Gives everything in a tree to `uid`, following no symlink."""
    for _, folders, files, folder in os.fwalk(".", dir_fd=top, follow_symlinks=False):
        os.chown(folder, uid, uid)
        for name in [*folders, *files]:
            os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)


def make_image(image: Path, size: int, lock: int) -> None:
    """A sparse file with an empty ext4 file system: no reserved blocks, a small journal.

    mke2fs holds the lock too: should we be killed, whoever cleans up waits until it is done.
    """
    if size < SMALLEST:
        raise SandboxError(f"a disk of {size} bytes is too small", f"Set limits.disk to {SMALLEST} or more.")
    tool = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is None:
        raise SandboxUnavailable("there is no mke2fs", "Install it: apt-get install e2fsprogs")
    with image.open("xb") as file:
        file.truncate(size)
    options = ["-q", "-F", "-t", "ext4", "-m", "0", "-i", str(_BYTES_PER_INODE), "-J", "size=4", "-E", "lazy_itable_init=1"]
    done = subprocess.run([tool, *options, str(image)], capture_output=True, text=True, pass_fds=(lock,))
    if done.returncode != 0:
        raise SandboxError(f"the disk image cannot be made: {done.stderr.strip()}", "Is the host's disk full?")


def inside_workspace(target: str) -> str:
    """A layer's target relative to /workspace. Raises SandboxError if it is not a plain path below it."""
    path = PurePosixPath(target)
    if ".." in path.parts or not path.is_relative_to(WORKSPACE) or path == PurePosixPath(WORKSPACE):
        raise SandboxError(f"a layer cannot be put at {target!r}", f"Its target must be a folder below {WORKSPACE}.")
    return str(path.relative_to(WORKSPACE))


def layer_sources(root: Path, read: Callable[[bytes], SandboxSpec]) -> frozenset[Path]:
    """The host folders of the layers of every sandbox below `root`; `read` makes a state.json a specification."""
    sources: set[Path] = set()
    for file in root.glob("*/state.json"):
        with suppress(FileNotFoundError):  # deleted meanwhile
            sources.update(layer.source for layer in read(file.read_bytes()).layers)
    return frozenset(sources)


def check_layers(layers: Sequence[Layer]) -> None:
    """Raises SandboxError if two layers have one target or a target is not below /workspace."""
    targets = [inside_workspace(layer.target) for layer in layers]
    if double := {target for target in targets if targets.count(target) > 1}:
        raise SandboxError(f"two layers have the same target: {', '.join(sorted(double))}")


def _source(layer: Layer) -> os.stat_result:
    """About the layer's source. Raises SandboxError if it is no folder (any more)."""
    with suppress(OSError):
        about = layer.source.stat()
        if stat.S_ISDIR(about.st_mode):
            return about
    raise SandboxError(f"the layer for {layer.target} has no folder {layer.source} on the host", "Its source must stay.")


def copy_tree(source: Path, target: Path, uid: int) -> None:
    """Copies folders, regular files and symlinks (as such) into an existing folder, all owned by `uid`; anything else stays."""
    for entry in _entries(source):
        copy = target / entry.name
        if entry.is_symlink():
            copy.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            copy.mkdir(exist_ok=True)
            copy_tree(Path(entry.path), copy, uid)
            copy.chmod(stat.S_IMODE(entry.stat().st_mode) | 0o700)
        elif entry.is_file():
            shutil.copyfile(entry.path, copy)
            copy.chmod(stat.S_IMODE(entry.stat().st_mode) & 0o777 | 0o600)
        else:
            continue
        os.chown(copy, uid, uid, follow_symlinks=False)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _here() -> str:
    """This boot and this mount namespace: mounts of another are not ours."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/mnt')}"
