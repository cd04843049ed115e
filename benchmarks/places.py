"""Where the stores stand while they are measured: memory, the disk, a journalled ext4 image made for the run, NFS."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

MEMORY = Path("/dev/shm")
DISK = Path("/var/tmp")
IMAGE_BYTES = 4 << 30
"""Size of the ext4 image; it is sparse, and what is written to it stays well under half."""


class Place(NamedTuple):
    name: str
    path: str
    kind: str
    """The type of its file system."""


class Missing(Exception):
    """This place can't be had here; the text says why."""


@contextmanager
def opened(names: Sequence[str]) -> Iterator[tuple[list[Place], list[str]]]:
    """The places that can be had, and a sentence for each that can't. All are gone afterwards."""
    places: list[Place] = []
    left_out = []
    with ExitStack() as stack:
        for name in names:
            try:
                path = stack.enter_context(_opened(name))
            except Missing as reason:
                left_out.append(f"{name} is left out: {reason}")
                continue
            kind = file_system(path)
            called = kind if os.sep in name else name  # where somebody's folder is, is nobody's business
            twins = sum(place.name.partition(" ")[0] == called for place in places)
            places.append(Place(f"{called} {twins + 1}" if twins else called, path, kind))
        yield places, left_out


def file_system(path: str) -> str:
    """Its type, from the last mount that `path` is below."""
    found, path = (Path("/"), "unknown"), os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            point = Path(before.split()[4].encode().decode("unicode_escape"))
            if Path(path).is_relative_to(point) and len(point.parts) >= len(found[0].parts):
                found = point, after.split()[0]
    return found[1]


def _opened(name: str) -> AbstractContextManager[str]:
    if name == "ext4":
        return _image()
    return _scratch({"tmpfs": MEMORY, "disk": DISK}.get(name) or Path(name))


@contextmanager
def _scratch(parent: Path) -> Iterator[str]:
    if not parent.is_dir():
        raise Missing(f"there is no directory {parent}")
    with tempfile.TemporaryDirectory(prefix="psync-bench-", dir=parent, ignore_cleanup_errors=True) as path:
        yield path


@contextmanager
def _image() -> Iterator[str]:
    if os.geteuid():
        raise Missing("mounting an image needs root")
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="psync-bench-") as home:
        image, point = os.path.join(home, "image"), os.path.join(home, "mounted")
        os.mkdir(point)
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-i", "8192", image)
        # noinit_itable: or a kernel thread fills the inode tables while we measure
        _run("mount", "-o", "loop,noinit_itable", image, point)
        try:
            os.chmod(point, 0o700)
            yield point
        finally:
            _run("umount", point)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{command[0]} said: {done.stderr.strip()}")
