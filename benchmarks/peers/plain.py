"""The floor: the system calls psync can't do without, from plain Python: no check, no recovery, nobody to wake."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import multiprocessing
import os
import pickle
import select
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

IMPORT = READY = "import fcntl, pickle"
LENGTH = struct.Struct("<I")
SLOT = 128
"""Bytes of a queue record: its length and its payload."""
MOST = 1 << 22
"""Records of a queue."""


class Store:
    """A file per value, overwritten in place under its lock; a new one is linked in when it is whole."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.cache: dict[str, tuple[tuple[int, int, int], bytes]] = {}

    def set(self, key: str, value: object) -> None:
        payload = pickle.dumps(value, protocol=5)
        path = f"{self.folder}/{key}"
        try:
            fd = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            return self._create(path, payload)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.fstat(fd)
            os.pwrite(fd, payload, 0)
        finally:
            os.close(fd)

    def _create(self, path: str, payload: bytes) -> None:
        fd = os.open(self.folder, os.O_WRONLY | os.O_TMPFILE, 0o600)
        try:
            os.write(fd, payload)
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)  # else it links the link
        finally:
            os.close(fd)

    def get(self, key: str) -> object:
        path = f"{self.folder}/{key}"
        known = self.cache.get(key)
        if known:
            now = os.stat(path)
            if known[0] == (now.st_mtime_ns, now.st_size, now.st_ino):
                return pickle.loads(known[1])
        fd = os.open(path, os.O_RDONLY)
        try:
            now = os.fstat(fd)
            payload = os.read(fd, now.st_size)
        finally:
            os.close(fd)
        self.cache[key] = (now.st_mtime_ns, now.st_size, now.st_ino), payload
        return pickle.loads(payload)

    def incr(self, key: str) -> None:
        fd = os.open(f"{self.folder}/{key}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            payload = os.pread(fd, os.fstat(fd).st_size, 0)
            os.pwrite(fd, pickle.dumps(pickle.loads(payload) + 1 if payload else 1, protocol=5), 0)
        finally:
            os.close(fd)

    def keys(self, glob: str = "*") -> list[str]:
        """All names, or those of one folder: what has to be listed for a glob that begins with its name."""
        folder, _, rest = glob.rpartition("/")
        return list(_names(f"{self.folder}/{folder}", f"{folder}/")) if rest and folder else list(_names(self.folder))

    def clear(self) -> None:
        for name in self.keys():
            os.unlink(f"{self.folder}/{name}")

    def forget(self) -> None:
        self.cache.clear()

    def close(self) -> None: ...


def _names(path: str, prefix: str = "") -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _names(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


class Category:
    """256 files whose descriptors are kept, and in each a row of pickles: one write puts another behind the last."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files: dict[int, int] = {}

    def fill(self, root: str, items: dict[str, object]) -> None:
        for key, value in items.items():
            self.hset(root, key, value)

    def hset(self, root: str, key: str, value: object) -> None:
        number = zlib.crc32(key.encode()) & 255
        fd = self.files.get(number)
        if fd is None:
            fd = self.files[number] = os.open(f"{self.folder}/{root}{number:02x}", os.O_RDWR | os.O_CREAT, 0o600)
        item = pickle.dumps((key, value), protocol=5)
        fcntl.flock(fd, fcntl.LOCK_EX)
        end = os.fstat(fd).st_size
        os.pwrite(fd, item, end)
        fcntl.flock(fd, fcntl.LOCK_UN)

    def hdict(self, root: str) -> dict[str, object]:
        """From one file, if `hcompress` made it; else from all."""
        try:
            with open(f"{self.folder}/{root}xx", "rb") as file:
                found: dict[str, object] = pickle.load(file)
                return found
        except FileNotFoundError:
            return dict(self._items(root))

    def _items(self, root: str) -> Iterator[tuple[str, object]]:
        for number in range(256):
            with suppress(FileNotFoundError, EOFError), open(f"{self.folder}/{root}{number:02x}", "rb") as file:
                while True:
                    yield pickle.load(file)

    def hcompress(self, root: str) -> None:
        with open(f"{self.folder}/{root}xx", "wb") as file:
            pickle.dump(dict(self._items(root)), file, protocol=5)

    def close(self) -> None:
        for fd in self.files.values():
            os.close(fd)


class Signal:
    """The waiter has the kernel say when a name appears in the folder, and then looks for the one it waits for."""

    def __init__(self, folder: str) -> None:
        self.store = Store(folder)

    def open(self) -> None:
        libc = ctypes.CDLL(None)
        self.events = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self.events, os.fsencode(self.store.folder), 0x100)  # IN_CREATE
        self.ready = select.poll()
        self.ready.register(self.events, select.POLLIN)

    def wait(self, turn: int, timeout: float) -> float | None:
        deadline = time.perf_counter() + timeout
        while (left := deadline - time.perf_counter()) > 0:
            try:
                return self.store.get(f"turn{turn}")  # type: ignore[return-value]
            except FileNotFoundError:
                if self.ready.poll(1e3 * left):
                    os.read(self.events, 4096)
        return None

    def send(self, turn: int) -> None:
        self.store.set(f"turn{turn}", time.perf_counter())

    def send_elsewhere(self, turn: int) -> None:
        self.store.set(f"other{turn}", time.perf_counter())


class _Bell:
    """Sleeps until a file is written."""

    def __init__(self, path: str) -> None:
        libc = ctypes.CDLL(None)
        self.events = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self.events, os.fsencode(path), 0x2)  # IN_MODIFY
        self.ready = select.poll()
        self.ready.register(self.events, select.POLLIN)

    def wait(self, there: Callable[[], bool]) -> None:
        while not there():
            self.ready.poll()
            if not there():  # it rang for something earlier
                os.read(self.events, 4096)


class Flag:
    """A byte in a file that both have mapped; the waiter has the kernel say when it was written."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/flag"
        self.sent = multiprocessing.RawValue("d")

    def open(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self.fd, b"0", 0)
        self.seen = mmap.mmap(self.fd, 1)
        self.bell = _Bell(self.path)

    def wait(self, turn: int, timeout: float) -> float:
        self.bell.wait(lambda: self.seen[0] == ord("1"))
        return float(self.sent.value)

    def lower(self) -> None:
        self._write(b"0")

    def send(self, turn: int) -> None:
        self.sent.value = time.perf_counter()
        self._write(b"1")

    def _write(self, flag: bytes) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        os.pwrite(self.fd, flag, 0)
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def send_elsewhere(self, turn: int) -> None:
        os.utime(self.fd)


class Queue:
    """Records in a row in one file; in another, which all have mapped, where they end and where the first one begins
    that was not taken; in a third a byte for each, which is who took it's, says that it is done."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.records, self.numbers, self.done = (
            self._file("records", 0),
            self._file("numbers", 16),
            self._file("done", MOST),
        )
        self.ends = memoryview(mmap.mmap(self.numbers, 16)).cast("Q")
        self.marks = mmap.mmap(self.done, MOST)

    def _file(self, name: str, size: int) -> int:
        fd = os.open(f"{self.folder}/{name}", os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        return fd

    def put(self, item: bytes) -> None:
        record = (LENGTH.pack(len(item)) + item).ljust(SLOT, b"\0")
        fcntl.flock(self.records, fcntl.LOCK_EX)
        end = self.ends[0]
        os.pwrite(self.records, record, end)
        self.ends[0] = end + SLOT
        fcntl.flock(self.records, fcntl.LOCK_UN)

    def take(self) -> bytes:
        fcntl.flock(self.numbers, fcntl.LOCK_EX)
        at = self.ends[1]
        record = os.pread(self.records, SLOT, at)
        self.ends[1] = at + SLOT
        fcntl.flock(self.numbers, fcntl.LOCK_UN)
        (length,) = LENGTH.unpack_from(record)
        self.marks[at // SLOT] = 1
        return record[4 : 4 + length]

    def fill(self, items: list[bytes]) -> None:
        for item in items:
            self.put(item)

    def close(self) -> None:
        for fd in (self.records, self.numbers, self.done):
            os.close(fd)


class Lock:
    """A descriptor that is kept."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        fd = self.fd = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.acquire = lambda: fcntl.flock(fd, fcntl.LOCK_EX)
        self.release = lambda: fcntl.flock(fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self.fd)


class Barrier:
    """A number in a file: each adds one to it under its lock, and the last writes to another, which wakes the rest."""

    def __init__(self, folder: str, parties: int) -> None:
        self.folder = folder
        self.parties = parties
        self.round = 0

    def open(self) -> None:
        self.count = os.open(f"{self.folder}/count", os.O_RDWR | os.O_CREAT, 0o600)
        self.string = os.open(f"{self.folder}/bell", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.count, 8)
        os.ftruncate(self.string, 8)
        self.arrived = mmap.mmap(self.count, 8)
        self.begun = mmap.mmap(self.string, 8)
        self.bell = _Bell(f"{self.folder}/bell")

    def wait(self) -> None:
        self.round += 1
        fcntl.flock(self.count, fcntl.LOCK_EX)
        arrived = int.from_bytes(self.arrived, "little") + 1
        os.pwrite(self.count, arrived.to_bytes(8, "little"), 0)
        fcntl.flock(self.count, fcntl.LOCK_UN)
        if arrived == self.round * self.parties:
            os.pwrite(self.string, self.round.to_bytes(8, "little"), 0)
        else:
            self.bell.wait(lambda: int.from_bytes(self.begun, "little") >= self.round)

    def close(self) -> None:
        for fd in (self.count, self.string, self.bell.events):
            os.close(fd)
