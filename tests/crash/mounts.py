"""Small file systems of a test's own, to be filled up or made read-only; they vanish with the test."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_READ_ONLY, _REMOUNT, _DETACH = 1, 32, 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs at `place`, or the test is skipped with the reason."""
    place.mkdir()
    try:
        _mount(place, 0, f"mode=700,{options}")
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted here (uid {os.geteuid()}): {error}")
    try:
        yield place
    finally:
        if _libc.umount2(os.fsencode(place), 0) != 0 and _retry_umount(place) != 0:
            _libc.umount2(os.fsencode(place), _DETACH)
            pytest.fail(f"{place} was still in use when the test ended")


def read_only(place: Path, options: str) -> None:
    try:
        _mount(place, _REMOUNT | _READ_ONLY, options)
    except OSError:
        gc.collect()  # see `_retry_umount`
        _mount(place, _REMOUNT | _READ_ONLY, options)


def writable(place: Path, options: str) -> None:
    _mount(place, _REMOUNT, options)


def _retry_umount(place: Path) -> int:
    """What a store's handles still map or hold in a cycle of references is gone after a collection."""
    gc.collect()
    return int(_libc.umount2(os.fsencode(place), 0))


def _mount(place: Path, flags: int, options: str) -> None:
    if _libc.mount(b"psync-test", os.fsencode(place), b"tmpfs", flags, options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(place))


def fill(place: Path, room: int = 0) -> None:
    """No byte is free but for `room`."""
    with open(place / "filler", "ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - room))


def use_up_inodes(place: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(1 << 30):
            (place / f"filler{number}").touch()


def empty(place: Path) -> None:
    """What `fill` and `use_up_inodes` made is gone."""
    for file in place.glob("filler*"):
        file.unlink()
