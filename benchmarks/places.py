"""Where the stores stand while they are measured: memory, a journalled ext4 image made for the run, any directory."""

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
IMAGE_BYTES = 4 << 30
"""Size of the ext4 image; it is sparse, and what is written to it stays well under half."""


class Place(NamedTuple):
    name: str
    path: str


class Missing(Exception):
    """This place can't be had here; the text says why."""


@contextmanager
def opened(names: Sequence[str]) -> Iterator[tuple[list[Place], list[str]]]:
    """The places that can be had, and a sentence for each that can't. All are gone afterwards."""
    places, left_out = [], []
    with ExitStack() as stack:
        for name in names:
            try:
                places.append(Place(name, stack.enter_context(_opened(name))))
            except Missing as reason:
                left_out.append(f"{name} is left out: {reason}")
        yield places, left_out


def _opened(name: str) -> AbstractContextManager[str]:
    if name == "ext4":
        return _image()
    parent = MEMORY if name == "tmpfs" else Path(name)
    return _scratch(parent)


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
