"""What goes wrong around a microVM: each fault has an error with its mend, leaks nothing, and is nobody else's."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.errors import BadInput, SandboxError, SandboxUnavailable
from agent.core.sandbox import SandboxSpec
from agent.sandboxes.microvm import MicroVM, build, qemu, template
from tests.sandboxes.machines import LIMITS, NEEDS_MACHINES, Left, created, left, remove_all, said


def machines(test: object) -> object:
    """A test that boots machines."""
    for mark in NEEDS_MACHINES:
        test = mark(test)
    return test


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@machines
async def test_a_full_host_is_the_error_of_who_fills_it_and_the_machine_goes_on(small: Path, tmp_path: Path) -> None:
    sandboxes, elsewhere = MicroVM(small / "sandboxes"), MicroVM(tmp_path / "sandboxes")
    beside = await created(elsewhere, "two")
    try:
        sandbox = await created(sandboxes, "one")
        with pytest.raises(SandboxError, match=r"what the command wrote is lost[\s\S]* MiB free"):
            await sandbox.run("head -c 80000000 /dev/urandom > big")
        with pytest.raises(SandboxError, match=r"the memory cannot be saved[\s\S]* MiB free"):
            await sandbox.suspend()
        assert (await sandbox.run("echo on")).stdout == b"on\n"
        assert await said(beside, "echo fine") == "fine\n"
        await sandbox.delete()
        assert left(sandboxes.root) == Left()
    finally:
        await remove_all(sandboxes)
        await remove_all(elsewhere)


@machines
async def test_a_kernel_that_panics_is_quoted_and_leaves_nothing(tmp_path: Path) -> None:
    image = build.current()
    copy = image.model_copy(update={"folder": tmp_path / "image"})
    copy.folder.mkdir()
    for name in ("vmlinux", "base.ext4"):
        os.link(image.folder / name, copy.folder / name)
    (copy.folder / "initrd.cpio").write_bytes(b"no archive")
    with pytest.raises(SandboxError, match="panic"):
        await template.ready(template.Kind(image=copy, tier=qemu.TIERS[0], accelerator="tcg"))
    assert [path.name for path in (copy.folder / "templates").iterdir() if not path.name.endswith(".lock")] == []


@machines
async def test_two_processes_that_need_a_template_at_once_make_one(tmp_path: Path) -> None:
    image = build.current()
    copy = image.model_copy(update={"folder": tmp_path / "image"})
    copy.folder.mkdir()
    for name in ("vmlinux", "initrd.cpio", "base.ext4"):
        os.link(image.folder / name, copy.folder / name)
    program = """
import asyncio, sys
from agent.sandboxes.microvm import qemu, template
from agent.sandboxes.microvm.build import Image
kind = template.Kind(image=Image.model_validate_json(sys.argv[1]), tier=qemu.TIERS[0], accelerator="tcg")
print(asyncio.run(template.ready(kind)).id)
"""
    arguments = [sys.executable, "-c", program, copy.model_dump_json()]
    both = [await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE) for _ in range(2)]
    told = [(await process.communicate())[0] for process in both]
    assert told[0] == told[1] != b""


@machines
async def test_two_processes_that_build_at_once_build_one_and_take_kernel_and_system_over(tmp_path: Path) -> None:
    image = build.current()
    if image.system != build.system_of(build.packages(), build.MIRROR):
        pytest.skip("the image that is built has another system than the shipped list gives")
    (tmp_path / "images" / "older").mkdir(parents=True)
    older = tmp_path / "images" / "older"
    for name in ("vmlinux", "base.ext4"):
        os.link(image.folder / name, older / name)
    shutil.copytree(image.folder / "modules", older / "modules")
    shutil.copyfile(image.folder / "image.json", older / "image.json")
    program = "import sys\nfrom pathlib import Path\nfrom agent.sandboxes.microvm import build\n"
    program += "print(build.build(build.packages(), images=Path(sys.argv[1])).model_dump_json())"
    arguments = [sys.executable, "-c", program, str(tmp_path / "images")]
    both = [await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE) for _ in range(2)]
    told = [(await process.communicate())[0] for process in both]
    made = build.current(tmp_path / "images")
    assert [build.Image.model_validate_json(said) for said in told] == [made, made]
    assert made.base.samefile(older / "base.ext4") and made.initrd.stat().st_size > 100_000
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(["current", "lock", "older", made.key])
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


async def test_without_qemu_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("without root it is root that is missing")
    monkeypatch.setattr(build, "HOST_PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"apt-get install .*qemu-system-x86"):
        await MicroVM(tmp_path / "sandboxes").create("one", SandboxSpec(limits=LIMITS))
    assert not (tmp_path / "sandboxes").exists()


def test_an_unknown_package_and_an_unreachable_mirror_are_told_apart() -> None:
    installer = ["I: running apt-get update...", "E: Unable to locate package nosuch", "E: apt-get failed"]
    unknown = build.why_not_installed(installer, build.MIRROR)
    assert isinstance(unknown, BadInput) and "nosuch" in unknown.problem
    other = build.why_not_installed(["I: running apt-get update...", "E: apt-get update failed"], "http://mirror")
    assert isinstance(other, SandboxError) and "http://mirror" in other.hint


async def test_a_machine_larger_than_the_largest_tier_is_refused() -> None:
    with pytest.raises(SandboxError, match="at most 4096 MB"):
        qemu.tier_for(5 << 30)
    assert [qemu.tier_for(size << 20).name for size in (100, 384, 385, 1024, 3000, 4096)] == ["XS", "XS", "S", "M", "L", "L"]
