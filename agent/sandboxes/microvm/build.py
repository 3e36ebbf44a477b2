"""Builds what a machine boots: kernel, initramfs and a read-only system image, from Debian packages or an OCI archive.

An image is a folder named by the hash of its inputs (package list, suite, mirror, agent, filter, this recipe), so that building
again what is there costs nothing and machines of an older image go on with theirs. It needs root, and a Debian mirror once. Where
only the agent or the filter is another one, kernel and system are taken from an image that has the same ones.

    vmlinux       the kernel as an ELF file, which boots through PVH
    modules/      those of its modules that the agent loads
    initrd.cpio   the agent as /init, the modules, the system-call filter
    base.ext4     the system
    image.json    what it was made from
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from agent.core.data import Data
from agent.core.errors import BadInput, NotFound, SandboxError, SandboxUnavailable
from agent.sandboxes import seccomp
from agent.sandboxes.command import ENVIRONMENT
from agent.sandboxes.microvm import cpio, oci
from agent.sandboxes.system import write_apt

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"

USER = 1000
"""Who commands run as, inside; the agent's source says so too."""

IMAGES = Path("/var/cache/sre-agent/microvm")
"""Where images are kept for the whole host: they are the same for everybody on it."""

_RECIPE = 5
"""Counted up when this file makes something else of the same inputs."""

_TOOLS = ("binutils", "gcc", "libc6-dev", "lz4")
"""Packages that the build itself uses, inside the new system: the host needs no compiler."""

_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console", "overlay")
"""In the order in which they are loaded."""

_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "bwrap": "bubblewrap",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
}
HOST_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

Progress = Callable[[float, str], None]


class Image(Data):
    """A built image."""

    key: str
    folder: Path
    packages: tuple[str, ...]
    kernel: str
    built: str
    seconds: float
    origin: str = f"Debian {SUITE}"
    system: str = ""
    """The name of what is the same in every image with this kernel and this system."""

    @property
    def kernel_file(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.cpio"

    @property
    def base(self) -> Path:
        return self.folder / "base.ext4"


def check_programs(names: Sequence[str] = tuple(_PROGRAMS)) -> None:
    """Raises SandboxUnavailable that names what is to be installed."""
    packages = sorted({_PROGRAMS[name] for name in names if shutil.which(name, path=HOST_PATH) is None})
    if packages:
        raise SandboxUnavailable(
            f"programs are missing from {', '.join(packages)}", f"Install it: apt-get install {' '.join(packages)}"
        )


def packages(extra: Sequence[Path] = ()) -> tuple[str, ...]:
    """The packages of the shipped list and of files in the same form. Raises BadInput for a line that is no package's name."""
    texts = [("packages.txt", (resources.files(__package__) / "guest" / "packages.txt").read_text("utf-8"))]
    try:
        texts += [(str(file), file.read_text("utf-8")) for file in extra]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the list of packages cannot be read: {error}") from error
    found = set()
    for name, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            package = line.partition("#")[0].strip()
            if package and not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package):
                raise BadInput(f"{name}:{number}: {package!r} is not the name of a package", "Write one Debian package a line.")
            found.update([package] if package else [])
    return tuple(sorted(found))


def system_of(wanted: Sequence[str], mirror: str) -> str:
    """The name of the kernel and the system of these inputs."""
    return hashlib.sha256(f"{_RECIPE}\n{SUITE}\n{mirror}\n{' '.join(wanted)}\n".encode()).hexdigest()[:16]


def key_of(wanted: Sequence[str], mirror: str) -> str:
    """The name of the image of these inputs."""
    digest = hashlib.sha256(system_of(wanted, mirror).encode())
    for part in (*_agent().values(), seccomp.program("x86_64")):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def current(images: Path = IMAGES) -> Image:
    """The image that new machines use. Raises NotFound if none was built."""
    try:
        return Image.model_validate_json((images / "current" / "image.json").read_bytes())
    except (OSError, ValueError):
        raise NotFound(f"no image of a machine has been built in {images}", "Build it: sre-agent sandbox build") from None


def build(
    wanted: Sequence[str], *, images: Path = IMAGES, mirror: str = MIRROR, progress: Progress = lambda done, what: None
) -> Image:
    """The image with these packages: as it was built before, or built now, which then is the current one.

    Two processes that build at once wait for each other. Raises SandboxUnavailable, SandboxError; leaves nothing half made.
    """
    check_programs()
    if os.geteuid() != 0:
        raise SandboxUnavailable("building an image needs root", "Run it with sudo.")
    images.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = key_of(wanted, mirror)
    place = images / key
    with (images / "lock").open("w") as lock:
        progress(0.0, "waiting for another build")
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in images.glob(".build-*"):
            _remove(left)
        if not (place / "image.json").exists():
            work = images / f".build-{secrets.token_hex(4)}"
            try:
                work.mkdir(mode=0o700)
                _build(work, key, place, wanted, mirror, progress)
                _remove(place)
                work.rename(place)
            except OSError as error:
                raise SandboxError(f"the image cannot be built: {error}", f"Is there room on the disk of {images}?") from error
            finally:
                _remove(work)
        use(place, images)
    progress(1.0, "done")
    return current(images)


def build_from_archive(archive: Path, image: Image, *, progress: Progress = lambda done, what: None) -> Image:
    """An image whose system is an OCI image archive's; kernel and agent are those of `image`. Raises BadInput, SandboxError."""
    images = image.folder.parent
    try:
        with archive.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"the archive cannot be read: {error}") from error
    key = hashlib.sha256(f"{image.key}{content}".encode()).hexdigest()[:16]
    place = images / key
    with (images / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "image.json").exists():
            work = images / f".build-{secrets.token_hex(4)}"
            try:
                _build_from(archive, work, image, progress)
                made = image.model_copy(
                    update={"key": key, "folder": place, "packages": (), "origin": archive.name, "system": ""}
                )
                (work / "image.json").write_text(made.model_dump_json(indent=1))
                _remove(place)
                work.rename(place)
            except OSError as error:
                raise SandboxError(f"the image cannot be built: {error}", f"Is there room on the disk of {images}?") from error
            finally:
                _remove(work)
        use(place, images)
    return current(images)


def _build_from(archive: Path, work: Path, image: Image, progress: Progress) -> None:
    root = work / "root"
    root.mkdir(parents=True)
    progress(0.3, "unpacking the archive")
    oci.unpack(archive, work / "oci", root)
    if not os.path.lexists(root / "usr/bin/bash") and not os.path.lexists(root / "bin/bash"):
        raise BadInput(f"{archive} holds no /bin/bash", "Commands are run by it: add it to the image.")
    progress(0.7, "system image")
    furnish(root)
    write_system(root, work / "base.ext4")
    _remove(root)
    _remove(work / "oci")
    for name in ("vmlinux", "initrd.cpio"):
        os.link(image.folder / name, work / name)


def use(place: Path, images: Path) -> None:
    """Makes an image the current one."""
    link = images / f".current-{secrets.token_hex(4)}"
    link.symlink_to(place.name)
    link.rename(images / "current")


def _build(work: Path, key: str, place: Path, wanted: Sequence[str], mirror: str, progress: Progress) -> None:
    began = time.monotonic()
    system = system_of(wanted, mirror)
    like = _with_system(place.parent, system)
    if like is not None:
        progress(0.3, "agent")
        release = _build_agent(work, like)
    else:
        release = _build_all(work, wanted, mirror, progress)
    image = Image(
        key=key,
        folder=place,
        packages=tuple(wanted),
        kernel=release,
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 1),
        system=system,
    )
    (work / "image.json").write_text(image.model_dump_json(indent=1))


def _with_system(images: Path, system: str) -> Image | None:
    """An image that has the same kernel and system."""
    for file in sorted(images.glob("*/image.json")):
        with suppress(OSError, ValueError):
            found = Image.model_validate_json(file.read_bytes())
            if found.system == system and not file.parent.is_symlink() and not file.parent.name.startswith("."):
                return found.model_copy(update={"folder": file.parent})
    return None


def _build_agent(work: Path, like: Image) -> str:
    """A new agent for the kernel and the system of another image, in which there is a compiler. The kernel's release."""
    for name in ("vmlinux", "base.ext4"):
        os.link(like.folder / name, work / name)
    shutil.copytree(like.folder / "modules", work / "modules")
    root = work / "root"
    root.mkdir()
    _run(["mount", "-o", "loop,ro,noload", str(like.base), str(root)])
    try:
        _run(["mount", "-t", "tmpfs", "tmpfs", str(root / "tmp")])
        _write_initrd(work / "modules", root, work / "initrd.cpio")
    finally:
        _remove(root)
    return like.kernel


def _build_all(work: Path, wanted: Sequence[str], mirror: str, progress: Progress) -> str:
    """Kernel, agent and system. The kernel's release."""
    root, boot = work / "root", work / "boot"
    boot.mkdir()
    progress(0.02, "packages")
    _install(root, boot, sorted({*wanted, *_TOOLS}), mirror, progress)
    progress(0.75, "kernel and agent")
    deb = next(boot.glob("linux-image-*.deb"))
    _run(["dpkg-deb", "-x", str(deb), str(boot)])
    release = next((boot / "lib" / "modules").iterdir()).name
    _write_kernel(boot / "boot" / f"vmlinuz-{release}", root, work / "vmlinux")
    _write_modules(boot / "lib" / "modules" / release, root, work / "modules")
    _write_initrd(work / "modules", root, work / "initrd.cpio")
    progress(0.85, "system image")
    furnish(root)
    write_system(root, work / "base.ext4")
    _remove(root)
    _remove(boot)
    return release


def _install(root: Path, boot: Path, names: Sequence[str], mirror: str, progress: Progress) -> None:
    """A Debian system in a folder, and the kernel's package, which is only unpacked, beside it."""
    newest = "apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \\(linux-image-[0-9].*\\)/\\1/p' | head -n 1"
    fetch = f'chroot "$1" sh -c "cd /tmp && apt-get -q download \\$({newest})" && mv "$1"/tmp/linux-image-*.deb {boot}'
    fast = [
        f"--dpkgopt={option}"
        for option in ("force-unsafe-io", *(f"path-exclude=/usr/share/{n}/*" for n in ("doc", "man", "locale")))
    ]
    sources = [f"deb {mirror} {SUITE} main", f"deb {mirror} {SUITE}-updates main"]
    if mirror == MIRROR:
        sources.append(f"deb {SECURITY} {SUITE}-security main")
    command = ["mmdebstrap", "--variant=apt", "--mode=root", f"--include={','.join(names)}", *fast, f"--customize-hook={fetch}"]
    process = subprocess.Popen(
        [*command, SUITE, str(root), *sources], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment()
    )
    said = []
    assert process.stderr
    steps = {
        "downloading packages": 0.1,
        "extracting": 0.2,
        "installing essential": 0.25,
        "installing remaining": 0.4,
        "running --customize": 0.7,
    }
    with process:
        for line in process.stderr:
            said.append(line.strip())
            progress(next((at for words, at in steps.items() if words in line), 0.02), "packages")
    if process.returncode != 0:
        raise why_not_installed(said, mirror)


def why_not_installed(said: Sequence[str], mirror: str) -> BadInput | SandboxError:
    """The error behind what the installation printed."""
    missing = re.findall(r"Unable to locate package (\S+)", "\n".join(said))
    if missing:
        return BadInput(f"there is no package {', '.join(sorted(set(missing)))} in Debian {SUITE}", "Mend the list of packages.")
    errors = [line for line in said if line.startswith("E:")] or said
    hint = f"Is the mirror {mirror} reachable, and is there room on the disk?"
    return SandboxError(f"the system cannot be installed: {'; '.join(errors[-4:])}", hint)


def furnish(root: Path) -> None:
    """Makes of an installed system one in which commands find their user and their workspace, and nothing that is not theirs."""
    for name, text in {
        "passwd": f"root:x:0:0::/root:/usr/sbin/nologin\nagent:x:{USER}:{USER}::/tmp:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{USER}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
        "hostname": "sandbox\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }.items():
        (root / "etc").mkdir(exist_ok=True)
        _fresh(root / "etc" / name).write_text(text)
    folders = ("workspace", "tmp", "proc", "dev", "sys", "run", "boot", "var/tmp", "home", "root", "srv", "opt", "mnt", "media")
    for name in folders:
        _fresh(root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "var" / "tmp").rmdir()
    (root / "var" / "tmp").symlink_to("/tmp")
    installed = root / "var" / "lib" / "dpkg" / "status"
    write_apt(root / "etc", installed.read_bytes() if installed.is_file() else b"")
    for name in ("var/lib", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(0o700)
    shutil.rmtree(root / "var" / "cache", ignore_errors=True)


def write_system(root: Path, image: Path) -> None:
    """The read-only ext4 image of a system's folder."""
    used = sum(max(path.lstat().st_size, 1024) for path in root.rglob("*"))
    with image.open("xb") as file:
        file.truncate((used * 5 // 4 + (96 << 20)) & ~0xFFFFF)
    _run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d", str(root), str(image)])
    image.chmod(0o644)


def _fresh(path: Path) -> Path:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    return path


def _write_kernel(compressed: Path, root: Path, target: Path) -> None:
    """The ELF kernel in a bzImage (Documentation/x86/boot.rst: payload_offset and payload_length)."""
    data = compressed.read_bytes()
    sectors, offset, length = (
        data[0x1F1],
        int.from_bytes(data[0x248:0x24C], "little"),
        int.from_bytes(data[0x24C:0x250], "little"),
    )
    begin = (sectors + 1) * 512 + offset
    payload = data[begin : begin + length - 4]  # the last four bytes are the size of what comes out
    if payload[:4] != b"\x02\x21\x4c\x18":
        raise SandboxError(f"the kernel {compressed.name} is not compressed with LZ4", "Its package has changed: report this.")
    unpacked = subprocess.run(["chroot", str(root), "lz4", "-d", "-c"], input=payload, capture_output=True, env=_environment())
    if unpacked.stdout[:4] != b"\x7fELF":
        raise SandboxError(f"the kernel cannot be unpacked: {unpacked.stderr.decode('utf-8', 'replace').strip()}")
    target.write_bytes(unpacked.stdout)


def _agent() -> dict[str, bytes]:
    """The sources of the agent, by name."""
    guest = resources.files(__package__) / "guest"
    return {name: (guest / name).read_bytes() for name in ("agent.c", "egress.c", "egress.h")}


def _write_modules(modules: Path, root: Path, target: Path) -> None:
    """The modules that the agent loads, without what is for debuggers, named in the order in which they are loaded."""
    target.mkdir()
    for number, name in enumerate(_MODULES):
        shutil.copyfile(next((modules / "kernel").rglob(f"{name}.ko")), root / "tmp" / "module.ko")
        _run(["chroot", str(root), "strip", "--strip-debug", "/tmp/module.ko"])
        shutil.copyfile(root / "tmp" / "module.ko", target / f"{number:02}-{name}.ko")


def _write_initrd(modules: Path, root: Path, target: Path) -> None:
    for name, text in _agent().items():
        (root / "tmp" / name).write_bytes(text)
    _run(["chroot", str(root), "gcc", "-static", "-Os", "-s", "-o", "/tmp/agent", "/tmp/agent.c", "/tmp/egress.c"])
    folders = ("dev", "proc", "sys", "cg", "disk", "layers", "sysroot", "modules")
    files: dict[str, bytes | None] = dict.fromkeys(folders)
    files["init"] = (root / "tmp" / "agent").read_bytes()
    files["filter.bpf"] = seccomp.program("x86_64")
    files |= {f"modules/{file.name}": file.read_bytes() for file in sorted(modules.iterdir())}
    target.write_bytes(cpio.archive(files))


def _environment() -> dict[str, str]:
    return {"PATH": HOST_PATH, "LC_ALL": "C", "HOME": ENVIRONMENT["HOME"], "DEBIAN_FRONTEND": "noninteractive"}


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if done.returncode != 0:
        raise SandboxError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}", "Is there room on the host's disk?")


def _remove(folder: Path) -> None:
    """Removes a tree, after whatever is mounted on it or in it."""
    if folder.is_dir() and not folder.is_symlink():
        mounted = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in sorted((place for place in mounted if f"{place}/".startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", "-l", place], check=True, env=_environment())
        shutil.rmtree(folder)
