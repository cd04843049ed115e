"""Disks of a test's own whose power can be cut: file systems in an image, shut down with nothing more written back."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}
"""Bytes; the files are sparse. mkfs.xfs refuses less than 300 MB."""
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN
_NO_LOG_FLUSH = 2
_NEW_NAMESPACE, _PRIVATE = 0x20000, 0x44000  # CLONE_NEWNS; MS_REC and MS_PRIVATE
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """One file system, mounted at `place`."""

    def __init__(self, kind: str, image: Path, place: Path) -> None:
        self.image = image
        self.place = place
        self.kind = kind

    def mount(self) -> None:
        command = ["mount", "-t", self.kind, "-o", "loop", self.image, self.place]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode:
            raise OSError(f"{self.kind} can't be mounted here: {said.stderr.strip()}")

    def unmount(self) -> None:
        for _ in range(100):
            if not subprocess.run(["umount", self.place], capture_output=True, check=False).returncode:
                return
            time.sleep(0.02)  # who was killed on it is not quite gone
        raise OSError(f"{self.place} stays in use")

    def cut(self) -> None:
        """From this moment on nothing reaches the disk. What the kernel knows of it is lost with the next `unmount`."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def come_back(self) -> None:
        self.unmount()
        self.mount()

    def write_back(self) -> None:
        """All that the kernel knows by now."""
        descriptor = os.open(self.place, os.O_RDONLY)
        _libc.syncfs(descriptor)
        os.close(descriptor)

    def write_back_in_part(self, file: Path) -> None:
        """The bytes of one file, but not what the file system has to say of them."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(file, os.O_RDONLY)
            _libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), 7)
            os.close(descriptor)


def _alone() -> None:
    """From now on mounts of this process are its own. Else whoever makes himself a view of all mounts meanwhile has the
    disk too, and it is not gone when it is unmounted here: it comes back as it is, shut down."""
    if not _libc.unshare(_NEW_NAMESPACE):
        _libc.mount(b"none", b"/", None, _PRIVATE, None)


@contextlib.contextmanager
def disk(kind: str, folder: Path) -> Iterator[Disk]:
    """A new one, or the test is skipped with the reason."""
    if os.geteuid():
        pytest.skip(f"only root can mount a disk (uid {os.geteuid()})")
    for program in (f"mkfs.{kind}", "mount", "umount"):
        if shutil.which(program) is None and not os.path.exists(f"/usr/sbin/{program}"):
            pytest.skip(f"there is no {program} (apt-get install e2fsprogs xfsprogs mount)")
    _alone()
    made = Disk(kind, folder / f"{kind}.image", folder / kind)
    made.place.mkdir()
    with open(made.image, "wb") as file:
        file.truncate(SIZES[kind])
    program = shutil.which(f"mkfs.{kind}") or f"/usr/sbin/mkfs.{kind}"
    subprocess.run([program, "-q", made.image], check=True, capture_output=True)
    try:
        made.mount()
    except OSError as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.unmount()
