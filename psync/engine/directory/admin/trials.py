"""Capability trials: try out in a fresh folder of a directory what psync needs of its file system.

Some trials take two processes. Each gives one finding, for people (`psync doctor`); the engine itself relies on
`probe_capabilities`.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import shutil
import signal
import statistics
import struct
from collections.abc import Callable, Iterator

from psync.engine.contract.report import NOTE, OK, WRONG, Finding
from psync.engine.directory.fs.permissions import PRIVATE
from psync.engine.directory.fs.refusals import REFUSED, refusal_of
from psync.engine.directory.fs.syscalls import link, link_unnamed
from psync.engine.directory.layout import OWN, OWN_FOLDERS
from psync.engine.directory.notify.inotify import Inotify
from psync.engine.system import clock

WAKE_COUNT = 20


def run_trials(root: str) -> Iterator[Finding]:
    """Run all trials; one finding each."""
    own = f"{root}/{OWN}/tmp"
    folder = f"{own if os.path.isdir(own) else root}/psync-doctor-{os.urandom(6).hex()}"
    try:
        for needed in (root, *own_folders(root)):
            if not os.access(needed, os.W_OK | os.X_OK, effective_ids=True):
                code = errno.EROFS if os.statvfs(needed).f_flag & os.ST_RDONLY else errno.EACCES
                raise OSError(code, os.strerror(code), needed)
        os.mkdir(folder, PRIVATE.folder)
    except OSError as error:
        refusal = refusal_of(str(error.filename or root)) if error.errno in REFUSED else None
        if error.errno == errno.EROFS:
            remedy = "mount it for writing"
        else:
            remedy = "check owner, mode and free space" if refusal is None else refusal.remedy()
        says = f"nothing can be changed: {error.strerror}"
        yield Finding("writing", WRONG, says if refusal is None else f"{says}: {refusal}", remedy)
        return
    trials: list[tuple[str, Callable[[str], Finding]]] = [
        ("rename", _rename),
        ("hard links", _hard_links),
        ("unnamed files", _unnamed),
        ("locks", _locks),
        ("locks of the dead", _dead_locks),
        ("shared memory", _shared_memory),
        ("time stamps", _time_stamps),
        ("wake-ups", _wake_ups),
    ]
    try:
        for what, trial in trials:
            try:
                yield trial(folder)
            except OSError as error:
                yield Finding(what, WRONG, f"fails: {error.strerror}", "psync needs this: choose another directory")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_folders(root: str) -> Iterator[str]:
    """Psync's own folders in `root`, as far as they are there and this user can see them."""
    own = f"{root}/{OWN}"
    for folder in (own, *(f"{own}/{name}" for name in OWN_FOLDERS)):
        if os.path.isdir(folder):
            yield folder


def _file(path: str, data: bytes = b"x") -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE.file)
    os.pwrite(fd, data, 0)
    return fd


def _rename(folder: str) -> Finding:
    for name in ("old", "new"):
        os.close(_file(f"{folder}/{name}", name.encode()))
    os.rename(f"{folder}/new", f"{folder}/old")
    with open(f"{folder}/old", "rb") as file:
        right = file.read() == b"new" and not os.path.exists(f"{folder}/new")
    return _verdict("rename", right, "replaces a file at one moment")


def _hard_links(folder: str) -> Finding:
    os.close(_file(f"{folder}/one"))
    right = link(f"{folder}/one", f"{folder}/two") and not link(f"{folder}/one", f"{folder}/two")
    return _verdict("hard links", right, "of several who make a name, one wins")


def _unnamed(folder: str) -> Finding:
    try:
        link_unnamed(f"{folder}/unnamed", b"x", sync=False)
    except OSError as error:
        return Finding("unnamed files", NOTE, f"not here ({error.strerror}): killed writers leave litter to be swept")
    return Finding("unnamed files", OK, "killed writers leave nothing behind")


def _locks(folder: str) -> Finding:
    path = f"{folder}/lock"
    one, two = _file(path), _file(path)
    try:
        fcntl.flock(one, fcntl.LOCK_EX)
        within = not _can_lock(two)
        across = not _in_child(lambda: _can_lock(os.open(path, os.O_RDWR | os.O_CLOEXEC)))
    finally:
        os.close(one)
        os.close(two)
    return _verdict("locks", within and across, "hold within a process and among processes of this host")


def _dead_locks(folder: str) -> Finding:
    path = f"{folder}/dead"
    os.close(_file(path))

    def lock_and_die() -> bool:
        fcntl.flock(os.open(path, os.O_RDWR | os.O_CLOEXEC), fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    _in_child(lock_and_die)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _verdict("locks of the dead", _can_lock(fd), "are free at once: a death is known without waiting")
    finally:
        os.close(fd)


def _shared_memory(folder: str) -> Finding:
    fd = _file(f"{folder}/map", b"\0")
    try:
        with mmap.mmap(fd, 1) as shared:

            def write() -> bool:
                shared[0] = 7
                return True

            _in_child(write)
            return _verdict(
                "shared memory", shared[0] == 7 and os.pread(fd, 1, 0) == b"\x07", "is one for all who map it"
            )
    finally:
        os.close(fd)


def _time_stamps(folder: str) -> Finding:
    fd = _file(f"{folder}/stamps")
    try:
        stamps, until = [], clock.monotonic() + 0.05
        while clock.monotonic() < until:
            os.pwrite(fd, b"y", 0)
            stamps.append(os.fstat(fd).st_mtime_ns)
    finally:
        os.close(fd)
    steps = [later - earlier for earlier, later in itertools.pairwise(stamps) if later != earlier]
    if not steps:
        return Finding("time stamps", NOTE, "move in steps of more than 50 ms")
    return Finding("time stamps", OK, f"move in steps of {statistics.median(steps) / 1e6:.3g} ms")


def _listening(path: str) -> Inotify:
    """An instance that watches a file. Raises OSError."""
    instance = Inotify()
    try:
        instance.watch(path, None)
    except BaseException:
        instance.close()
        raise
    return instance


def _wake_ups(folder: str) -> Finding:
    """Measure the time from one process's change to the end of another's pause."""
    fd = _file(f"{folder}/flag", bytes(8))
    try:
        instance = _listening(f"{folder}/flag")
    except OSError as error:
        os.close(fd)
        return Finding(
            "wake-ups",
            WRONG,
            f"there is no inotify ({error.strerror}): a waiter looks every 50 ms instead",
            "raise fs.inotify.max_user_instances and max_user_watches, or end what uses them",
        )
    try:
        taken: list[float] = []

        def touch() -> bool:
            for _ in range(WAKE_COUNT):
                clock.sleep(0.002)
                os.pwrite(fd, struct.pack("d", clock.monotonic()), 0)
                os.utime(f"{folder}/flag")
            return True

        def listen() -> None:
            until = clock.monotonic() + 2.0
            seen = 0.0
            while len(taken) < WAKE_COUNT and clock.monotonic() < until:
                if not instance.wait(0.1):
                    continue  # nothing was heard: what is seen now is no wake-up
                instance.drain()
                stamp = struct.unpack("d", os.pread(fd, 8, 0))[0]
                if stamp != seen:
                    seen = stamp
                    taken.append(clock.monotonic() - stamp)

        _in_child(touch, meanwhile=listen)
    finally:
        instance.close()
        os.close(fd)
    if not taken:
        return Finding("wake-ups", NOTE, "the kernel reports no changes: a waiter looks every 50 ms")
    return Finding("wake-ups", OK, f"come after {1e6 * statistics.median(taken):.0f} µs")


def _verdict(what: str, right: bool, says: str) -> Finding:
    if right:
        return Finding(what, OK, says)
    return Finding(what, WRONG, f"not here that they would: {says}", "psync needs this: choose another directory")


def _can_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_child(function: Callable[[], bool], meanwhile: Callable[[], None] | None = None) -> bool:
    """The result of `function` in a forked process; False if that is killed."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = 0 if function() else 1
        finally:
            os._exit(code)
    if meanwhile is not None:
        meanwhile()
    return os.waitpid(pid, 0)[1] == 0
