"""A file system of the test's own, which can fail like a server: it answers an error, late, or not what it did.

It speaks the kernel's protocol over /dev/fuse (version 7.31), and shows what is in a folder of the local disk. What it
is to do wrong is said by a `Trouble`, in memory that the test and the server share. It serves one request at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_IN = struct.Struct("<IIQQIIII")  # length, opcode, request, node, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_DETACH = 2
ROOT = 1
OPCODES = {
    1: "lookup", 3: "getattr", 4: "setattr", 6: "symlink", 9: "mkdir", 10: "unlink", 11: "rmdir", 12: "rename",
    13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release", 20: "fsync", 25: "flush",
    26: "init", 27: "opendir", 28: "readdir", 29: "releasedir", 30: "fsyncdir", 35: "create", 45: "rename2",
}  # fmt: skip
_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY = 2, 42, 36, 38
ERROR, LOST, LATE, AGAIN = 1, 2, 3, 4
ALL = -1


class Trouble:
    """What goes wrong, and when: at the `n`-th request from now on. Shared with the server, by a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("a+b") as file:
            file.truncate(32)
            self._memory = mmap.mmap(file.fileno(), 32)
        self._words = memoryview(self._memory).cast("q")

    def at(self, n: int, kind: int, code: int = errno.EIO, among: int = ALL) -> None:
        """ERROR: it is not done, and says so; LOST: it is done, and says that it is not; LATE: it is done later; AGAIN:
        the first reply was lost, so it is done twice, and what is heard of is the second time. `among`: requests of
        other kinds are not counted (see `kinds`)."""
        self._words[1], self._words[2], self._words[3], self._words[0] = kind, code, among, n

    def never(self) -> None:
        self._words[0] = 0

    @property
    def left(self) -> int:
        """Requests that are still to come before that; 0 when it has happened."""
        return max(self._words[0], 0)

    def now(self, opcode: int) -> tuple[int, int]:
        """For the server, at each request: what to do wrong with it."""
        left = self._words[0]
        if left <= 0 or not self._words[3] >> opcode & 1:
            return 0, 0
        self._words[0] = left - 1 or -1
        return (self._words[1], self._words[2]) if left == 1 else (0, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return Trouble, (self._path,)

    def close(self) -> None:
        self._words.release()
        self._memory.close()


def kinds(*verbs: str) -> int:
    return sum(1 << opcode for opcode, verb in OPCODES.items() if verb in verbs)


@contextlib.contextmanager
def served(place: Path, shown: Path) -> Iterator[Trouble]:
    """`place` shows what is in `shown`; the test is skipped with the reason where that can't be."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    place.mkdir()
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if _libc.mount(b"psync-test", os.fsencode(place), b"fuse.psync-test", 0, options.encode()):
        code = ctypes.get_errno()
        os.close(device)
        pytest.skip(f"no FUSE can be mounted here (uid {os.geteuid()}): {os.strerror(code)}")
    trouble = Trouble(place.with_name(f"{place.name}-trouble"))
    server = os.fork()
    if not server:
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _Server(device, str(shown), trouble).serve()
        finally:
            os._exit(0)
    os.close(device)
    try:
        yield trouble
    finally:
        trouble.never()
        _libc.umount2(os.fsencode(place), _DETACH)
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        trouble.close()


class _Server:
    def __init__(self, device: int, shown: str, trouble: Trouble) -> None:
        self._device = device
        self._trouble = trouble
        self._paths = {ROOT: shown}
        self._nodes = {shown: ROOT}
        self._next = ROOT

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 18)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # unmounted
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                raise
            _, opcode, number, node, *_ = _IN.unpack_from(request)
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue  # no answer is wanted
            if opcode == _DESTROY:
                self._answer(number, 0, b"")
                continue
            self._serve(number, opcode, node, request[_IN.size :])

    def _serve(self, number: int, opcode: int, node: int, rest: bytes) -> None:
        verb = OPCODES.get(opcode, "")
        kind, code = (0, 0) if verb in ("init", "release", "releasedir", "") else self._trouble.now(opcode)
        if kind == ERROR:
            return self._answer(number, code, b"")
        if kind == LATE:
            time.sleep(0.3)
        try:
            data = getattr(self, f"_{verb}")(node, rest) if verb else None
            if kind == AGAIN:
                data = getattr(self, f"_{verb}")(node, rest)
        except OSError as error:
            return self._answer(number, error.errno or errno.EIO, b"")
        if data is None:
            return self._answer(number, errno.ENOSYS, b"")
        if kind == LOST:
            return self._answer(number, code, b"")
        return self._answer(number, 0, data)

    def _answer(self, number: int, code: int, data: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # whoever asked was killed
            os.write(self._device, _OUT.pack(_OUT.size + len(data), -code, number) + data)

    # -- names and what they lead to -----------------------------------------------------------------

    def _path(self, node: int, name: bytes) -> str:
        return os.path.join(self._paths[node], os.fsdecode(name.rstrip(b"\0")))

    def _entry(self, path: str) -> bytes:
        status = os.lstat(path)
        node = self._nodes.get(path)
        if node is None:
            self._next += 1
            node = self._nodes[path] = self._next
            self._paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self._attributes(status)

    def _moved(self, old: str, new: str) -> None:
        """A node keeps its file, whatever that is called now; what was at `new` has no name any more."""
        gone = self._nodes.pop(new, None)
        if gone is not None:
            self._paths[gone] = f"{new} (gone)"
        for path, node in list(self._nodes.items()):
            if path == old or path.startswith(old + "/"):
                del self._nodes[path]
                self._nodes[new + path[len(old) :]] = node
                self._paths[node] = new + path[len(old) :]

    def _gone(self, path: str) -> None:
        node = self._nodes.pop(path, None)
        if node is not None:
            self._paths[node] = f"{path} (gone)"

    @staticmethod
    def _attributes(status: os.stat_result) -> bytes:
        times = [status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns]
        seconds, rest = [each // 10**9 for each in times], [each % 10**9 for each in times]
        blocks = getattr(status, "st_blocks", 0)
        return _ATTR.pack(
            status.st_ino, status.st_size, blocks, *seconds, *rest, status.st_mode, status.st_nlink,
            status.st_uid, status.st_gid, 0, 4096, 0,
        )  # fmt: skip

    # -- the requests --------------------------------------------------------------------------------

    def _init(self, node: int, rest: bytes) -> bytes:
        major, _, ahead, _ = struct.unpack_from("<IIII", rest)
        return struct.pack("<IIIIHHIIHH7I", major, 31, ahead, 0, 16, 12, 1 << 17, 1, 0, 0, *[0] * 7)

    def _lookup(self, node: int, rest: bytes) -> bytes:
        return self._entry(self._path(node, rest))

    def _getattr(self, node: int, rest: bytes) -> bytes:
        flags, _, handle = struct.unpack_from("<IIQ", rest)
        status = os.fstat(handle) if flags & 1 else os.lstat(self._paths[node])
        return struct.pack("<QII", 0, 0, 0) + self._attributes(status)

    def _setattr(self, node: int, rest: bytes) -> bytes:
        valid, _, handle, size, _, atime, mtime, _, ans, mns, _, mode = struct.unpack_from("<IIQQQQQQIIII", rest)
        where: Any = handle if valid & 64 else self._paths[node]
        if valid & 8:
            os.truncate(where, size)
        if valid & 1:
            os.chmod(where, stat.S_IMODE(mode))
        if valid & (16 | 32 | 128 | 256):
            now = time.time_ns()
            times = (now if valid & 128 else atime * 10**9 + ans, now if valid & 256 else mtime * 10**9 + mns)
            os.utime(where, ns=times)
        status = os.fstat(where) if isinstance(where, int) else os.lstat(where)
        return struct.pack("<QII", 0, 0, 0) + self._attributes(status)

    def _mkdir(self, node: int, rest: bytes) -> bytes:
        path = self._path(node, rest[8:])
        os.mkdir(path, struct.unpack_from("<I", rest)[0])
        return self._entry(path)

    def _unlink(self, node: int, rest: bytes) -> bytes:
        path = self._path(node, rest)
        os.unlink(path)
        self._gone(path)
        return b""

    def _rmdir(self, node: int, rest: bytes) -> bytes:
        path = self._path(node, rest)
        os.rmdir(path)
        self._gone(path)
        return b""

    def _rename(self, node: int, rest: bytes) -> bytes:
        return self._renamed(node, struct.unpack_from("<Q", rest)[0], rest[8:], 0)

    def _rename2(self, node: int, rest: bytes) -> bytes:
        there, flags, _ = struct.unpack_from("<QII", rest)
        return self._renamed(node, there, rest[16:], flags)

    def _renamed(self, node: int, there: int, names: bytes, flags: int) -> bytes:
        old, new, _ = names.split(b"\0", 2)
        source, target = self._path(node, old), self._path(there, new)
        if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._moved(source, target)
        return b""

    def _link(self, node: int, rest: bytes) -> bytes:
        path = self._path(node, rest[8:])
        os.link(self._paths[struct.unpack_from("<Q", rest)[0]], path)
        return self._entry(path)

    def _open(self, node: int, rest: bytes) -> bytes:
        flags = struct.unpack_from("<I", rest)[0] & ~(os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL)
        return self._opened(os.open(self._paths[node], flags | os.O_CLOEXEC))

    def _create(self, node: int, rest: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", rest)
        path = self._path(node, rest[16:])
        handle = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, mode)
        return self._entry(path) + self._opened(handle)

    def _opened(self, handle: int) -> bytes:
        return struct.pack("<QII", handle, 1, 0)  # 1: the kernel keeps no pages of it

    def _read(self, node: int, rest: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", rest)
        return os.pread(handle, size, offset)

    def _write(self, node: int, rest: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", rest)
        return struct.pack("<II", os.pwrite(handle, rest[40 : 40 + size], offset), 0)

    def _statfs(self, node: int, rest: bytes) -> bytes:
        found = os.statvfs(self._paths[ROOT])
        sizes = found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree
        return struct.pack("<5Q4I6I", *sizes, found.f_bsize, 255, found.f_frsize, 0, *[0] * 6)

    def _release(self, node: int, rest: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", rest)[0])
        return b""

    def _flush(self, node: int, rest: bytes) -> bytes:
        return b""

    def _fsync(self, node: int, rest: bytes) -> bytes:
        return b""

    def _opendir(self, node: int, rest: bytes) -> bytes:
        return self._opened(os.open(self._paths[node], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    _releasedir, _fsyncdir = _release, _fsync

    def _readdir(self, node: int, rest: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", rest)
        found = b""
        for number, entry in enumerate(sorted(os.scandir(self._paths[node]), key=lambda entry: entry.name), 1):
            if number > offset:
                name = os.fsencode(entry.name)
                kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) >> 12
                one = struct.pack("<QQII", entry.inode(), number, len(name), kind) + name
                one += bytes(-len(one) % 8)
                if len(found) + len(one) > size:
                    break
                found += one
        return found
