"""Child group: starts many programs at a time, keeps their output, and kills them all when this process ends.

All are in one process group. Its first member is a shell that waits for the end of a pipe whose other end only this
process has: when this process ends, in whatever way, that shell kills the group. A program prints to files in memory
without names. So a program that leaves something running in the background counts as ended when it ends itself.

Signals that should stop this process are blocked while there is a `Children`; `Children.told` counts them.

start: memfd_create twice, posix_spawn. ended: rt_sigtimedwait, wait4, pread and close twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from psync.engine.system import clock

STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
KILL_DELAY_S = 2.0
"""A program whose time is over is told to end (SIGTERM), and killed after this time."""
NOT_FOUND, NOT_ALLOWED, TIMED_OUT = 127, 126, 124
"""Exit codes, as the shell and `timeout` give them."""
_WARDEN = "trap '' INT TERM HUP; read -r _; kill -9 0"
_READ_BYTES = 1 << 20


class Ended(NamedTuple):
    """A program that has ended."""

    key: int
    """The key that the caller gave to `Children.start`."""
    code: int
    """Its exit code; 128 plus the signal's number if a signal ended it, as in the shell."""
    out: bytes
    err: bytes
    seconds: float
    """Seconds that it ran."""


class _Running(NamedTuple):
    key: int
    out: int
    err: int
    begun: float


def find_program(name: str) -> str | None:
    """Find a program in PATH; None if there is none. As `shutil.which`, without the import of `shutil`."""
    for folder in ("",) if "/" in name else os.get_exec_path():
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Children:
    """The programs, from `start` to `ended`. Each may run `limit` seconds (None: for ever). For one thread only."""

    def __init__(self, limit: float | None = None) -> None:
        self.told = 0
        """The number of signals so far that should stop this process."""
        self._limit = limit
        self._running: dict[int, _Running] = {}
        self._over: dict[int, float] = {}
        """The time at which each program that was told to end will be killed."""
        self._failed: list[Ended] = []
        self._paths: dict[str, str] = {}
        self._environment = dict(os.environb)
        # a signal that `nohup`, or a shell for a background job, made this process ignore stops nobody
        self._held_back = {signal.SIGCHLD, *(each for each in STOPPING if signal.getsignal(each) != signal.SIG_IGN)}
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._held_back)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._warden, self._leash = self._engage()

    def _engage(self) -> tuple[int, int]:
        theirs, ours = os.pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs, 0),
            (os.POSIX_SPAWN_DUP2, self._null, 1),
            (os.POSIX_SPAWN_DUP2, self._null, 2),
        ]
        try:
            warden = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", _WARDEN],
                self._environment,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
            )
        finally:
            os.close(theirs)
        return warden, ours

    def __len__(self) -> int:
        return len(self._running) + len(self._failed)

    def start(self, argv: Sequence[str], key: int) -> None:
        """Start a program with an empty standard input. One that can't be started has ended at once, as in a shell."""
        begun = clock.monotonic()
        out = os.memfd_create("out", os.MFD_CLOEXEC)
        err = os.memfd_create("err", os.MFD_CLOEXEC)
        try:
            pid = os.posix_spawn(
                self._found(argv[0]),
                [*argv],
                self._environment,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, self._null, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ),
                setpgroup=self._warden,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE,),  # Python ignores it, and a child would inherit that
            )
        except OSError as error:
            os.close(out)
            os.close(err)
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_ALLOWED
            said = f"{argv[0]}: {error.strerror}\n".encode(errors="surrogateescape")
            self._failed.append(Ended(key, code, b"", said, 0.0))
        else:
            self._running[pid] = _Running(key, out, err, begun)

    def _found(self, name: str) -> str:
        """Find a program, once for each name, because a look into each folder of PATH costs."""
        path = self._paths.get(name)
        if path is None:
            path = find_program(name)
            if path is None:
                if not os.path.exists(name):
                    raise FileNotFoundError(errno.ENOENT, "no such command")
                path = name  # the kernel will refuse it, and say why
            self._paths[name] = path
        return path

    def ended(self, timeout: float) -> list[Ended]:
        """Wait up to `timeout` seconds, or until a signal comes, and return the programs that ended since the last
        call."""
        found, self._failed = self._failed, []
        if found or self._reap(found):
            return found
        if self._limit is not None:
            timeout = min(timeout, self._enforce(self._limit))
        came = signal.sigtimedwait(self._held_back, max(timeout, 0.0))
        while came is not None and came.si_signo in STOPPING:
            self.told += 1
            came = signal.sigtimedwait(self._held_back, 0)
        self._reap(found)
        return found

    def _reap(self, found: list[Ended]) -> bool:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            running = self._running.pop(pid, None)
            if running is not None:
                found.append(self._told_of(running, pid, os.waitstatus_to_exitcode(status)))
        return bool(found)

    def _told_of(self, running: _Running, pid: int, code: int) -> Ended:
        out, err = _content(running.out), _content(running.err)
        seconds = clock.monotonic() - running.begun
        if self._over.pop(pid, None) is not None:
            code = TIMED_OUT
            err += f"ended after {self._limit:g} seconds: its time was over\n".encode()
        return Ended(running.key, code if code >= 0 else 128 - code, out, err, seconds)

    # -- ending them -------------------------------------------------------------------------------------

    def _enforce(self, limit: float) -> float:
        """End programs that are past their limit (SIGTERM, later SIGKILL); returns the seconds until the next limit."""
        now = clock.monotonic()
        nearest = limit
        for pid, running in self._running.items():
            kill_at = self._over.get(pid)
            end = running.begun + limit if kill_at is None else kill_at
            if end <= now:
                _signal_tree(pid, signal.SIGTERM if kill_at is None else signal.SIGKILL)
                self._over[pid] = end = now + KILL_DELAY_S
            nearest = min(nearest, end - now)
        return nearest

    def tell(self) -> None:
        """Tell all programs and their descendants to end (SIGTERM)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._warden, signal.SIGTERM)

    def close(self) -> None:
        """Kill the programs that still run, unblock the signals, and close everything. Background processes of programs
        that have ended go on."""
        with contextlib.suppress(ProcessLookupError):
            if self._running:
                os.killpg(self._warden, signal.SIGKILL)
            else:
                os.kill(self._warden, signal.SIGKILL)
        for pid, running in self._running.items():
            os.waitpid(pid, 0)
            os.close(running.out)
            os.close(running.err)
        self._running.clear()
        with contextlib.suppress(ChildProcessError):  # somebody killed the shell, and it was reaped with the others
            os.waitpid(self._warden, 0)
        os.close(self._leash)
        os.close(self._null)
        while signal.sigtimedwait({signal.SIGCHLD}, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def _content(fd: int) -> bytes:
    """Read all bytes of a file from its beginning."""
    try:
        data = os.pread(fd, _READ_BYTES, 0)
        if len(data) < _READ_BYTES:
            return data
        parts, have = [data], len(data)
        while part := os.pread(fd, _READ_BYTES, have):
            parts.append(part)
            have += len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _signal_tree(pid: int, number: signal.Signals) -> None:
    """Signal a child, which is not reaped yet, and all its descendants: a shell before the command that it waits for,
    or the shell would go on to its next command."""
    for each in (pid, *_descendants(pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, number)


def _descendants(pid: int) -> list[int]:
    """Return the descendants of a process, as far as the kernel tells."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(each) for each in file.read().split()]
    except OSError:
        return []
    return [deeper for child in children for deeper in (child, *_descendants(child))]
