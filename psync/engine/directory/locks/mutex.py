"""A mutex is `flock` on a file of its own, kept open; it ends with the last process that holds it.

The fact that decides: who has the `flock`. The file is never removed while anybody may want it. It holds two numbers,
the next token (times `STEP`) and the holder (0: free), which only who has the lock writes: where the file system is
this host's alone they are mapped into memory, so that a token costs no system call.

acquire of a free mutex: flock. release: flock. On a network file system: LOCK, READ, WRITE; WRITE, LOCKU. (Waiting in
the kernel was no slower there than trying again and again: two NFS clients had it 310 times a second either way, median
wait 1 ms, longest 0.15 s.)
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock

from psync.engine.contract.engine import Mutex, Watch
from psync.engine.contract.values import Alive
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.fs.syscalls import CHANGE, READ, let_go
from psync.engine.system import clock, fork_hooks

LOOK_FOR_DEAD = 0.1
"""Seconds between two tries of who waits for a limited time: the kernel frees a dead holder's lock and tells nobody."""
TRIES = 8
"""How often who finds it taken tries again before it sleeps, giving way in between: mostly it is let go of sooner than
a process has fallen asleep and been woken."""
AT_ONCE = LOCK_EX | LOCK_NB
LOOKING = 0.05
"""Seconds, at most, for which somebody who only looks (see `holder`) may keep others out."""
_HEAD = b"\x80\x05C\x10"  # pickled bytes, so that every pickle reader can open what rests here
_NUMBERS = struct.Struct("@QQ")
_TOKEN, _HOLDER = len(_HEAD), len(_HEAD) + 8
_NUMBER = struct.Struct("@Q")


STEP = 65537
"""The next token is kept so many times over: 0, and what is no multiple of this, was damaged. One store changes it, and
with it its check."""
LAST = (1 << 64) // STEP - 1
_BLANK = _HEAD + _NUMBERS.pack(STEP, 0) + b"."


def verified(word: int) -> int:
    """The next token, which is kept as `word`. Of a damaged one, one that is larger than all before, as far as can be
    told: the milliseconds since 1970; a RuntimeWarning says so."""
    token, wrong = divmod(word, STEP)
    if not wrong and 0 < token < LAST:
        return token
    text = f"the token of a lock was damaged ({word}); tokens go on from the milliseconds since 1970"
    warnings.warn(text, RuntimeWarning, stacklevel=5)
    return _milliseconds()


def _milliseconds() -> int:
    return clock.wall_ns() // 1_000_000


class Numbers:
    """The token and the holder of one mutex, in its open file."""

    def __init__(self, fd: int, *, mapped: bool) -> None:
        self._fd = fd
        self._next, self._token = -1, 0
        """What the next token will be kept as, if nobody else has the mutex meanwhile, and that token."""
        self._words: memoryview | None = None
        """The two, as they are in memory: each is stored by one instruction, which no kill can tear."""
        if mapped:
            self._words = memoryview(mmap.mmap(fd, len(_BLANK)))[_TOKEN : _TOKEN + _NUMBERS.size].cast("Q")

    def take(self, holder: int) -> int:
        """While locked: the next token, which is `holder`'s."""
        words = self._words
        word: int = words[0] if words is not None else _NUMBER.unpack(os.pread(self._fd, _NUMBER.size, _TOKEN))[0]
        if word != self._next:  # somebody else had it meanwhile
            self._token = verified(word)
            word = self._token * STEP
        token = self._token
        self._token = token + 1
        self._next = word = word + STEP
        if words is not None:
            words[0] = word
            words[1] = holder
        else:
            os.pwrite(self._fd, _NUMBERS.pack(word, holder), _TOKEN)
        return token

    def holder(self) -> int:
        if self._words is not None:
            return self._words[1]
        return int(_NUMBER.unpack(os.pread(self._fd, _NUMBER.size, _HOLDER))[0])

    def give_back(self) -> None:
        if self._words is not None:
            self._words[1] = 0
        else:
            os.pwrite(self._fd, bytes(_NUMBER.size), _HOLDER)

    def close(self) -> None:
        if self._words is not None:
            self._words.release()  # and with it, for nothing else refers to it, the map


class DirectoryMutex(Mutex):
    """One mutex of a directory, for threads and processes."""

    def __init__(
        self,
        path: str,
        *,
        fs: AtomicFiles,
        me: Callable[[], int],
        alive: Callable[[int], Alive],
        watch: Callable[[], AbstractContextManager[Watch]],
        changed: Callable[[], None],
        kept: DescriptorCache,
    ) -> None:
        self._path = path
        self._fs = fs
        self._mapped = fs.local
        self._tries = TRIES if self._mapped else 0  # where a server is asked each time, once is enough
        self._me = me
        self._alive = alive
        self._watch = watch
        self._changed = changed
        self._kept = kept
        self.token = 0
        self._threads = threading.Lock()
        self._fd = -1
        self._numbers: Numbers | None = None

    def acquire(self, timeout: float | None = None) -> bool:
        """flock when it is free."""
        deadline = None
        if timeout is None:
            self._threads.acquire()
        else:
            deadline = clock.monotonic() + timeout
            if not self._threads.acquire(timeout=max(timeout, 0)):
                return False
        had = True
        try:
            numbers = self._numbers or self._open()
            try:
                flock(self._fd, AT_ONCE)
            except BlockingIOError:
                had = self._wait(numbers, deadline)
            if had:
                self.token = numbers.take(self._me())
        except BaseException as error:
            # The handler of a signal may have raised when the lock was ours already, and the file said so.
            self.token = 0
            if self._fd >= 0:
                if self._numbers is not None and self._try():
                    self._numbers.give_back()
                flock(self._fd, LOCK_UN)
            self._threads.release()
            if isinstance(error, OSError):
                raise translate_os_error(error, os.path.basename(self._path), self._path) from error
            raise
        if not had:
            self._threads.release()
        return had

    def _open(self) -> Numbers:
        with fork_hooks.put_off:
            while True:
                try:
                    fd = self._fs.open(self._path, CHANGE)
                except FileNotFoundError:
                    self._fs.make(self._path, _BLANK)
                    continue
                self._fs.trust.kept(fd, self._path)
                try:
                    raw = os.pread(fd, len(_BLANK) + 1, 0)
                    if len(raw) != len(_BLANK) or raw[:_TOKEN] != _HEAD:  # a power cut, a full disk, or damage
                        os.pwrite(fd, _HEAD + _NUMBERS.pack(_milliseconds() * STEP, 0) + b".", 0)
                        os.ftruncate(fd, len(_BLANK))
                    self._numbers = Numbers(fd, mapped=self._mapped)
                except BaseException:
                    os.close(fd)
                    raise
                self._fd = fd
                self._kept.opened(self)
                return self._numbers

    def _wait(self, numbers: Numbers, deadline: float | None) -> bool:
        for _ in range(self._tries if deadline is None or deadline > clock.monotonic() else 0):
            os.sched_yield()
            if self._try():
                return True
        if deadline is None:
            flock(self._fd, LOCK_EX)
            return True
        with self._watch() as watch:
            while not self._try():
                left = deadline - clock.monotonic()
                if left <= 0:
                    holder = numbers.holder()
                    if left <= -LOOKING or (holder and self._alive(holder) is not Alive.NO):
                        return False
                    left = 0.001  # nobody alive holds it: whoever has the lock only looks, or is about to let go
                watch.pause(min(left, LOOK_FOR_DEAD))
        return True

    def _try(self) -> bool:
        try:
            flock(self._fd, AT_ONCE)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if not self.token or self._numbers is None:
            raise RuntimeError("a mutex that is not held can't be released")
        failure: BaseException | None = None
        try:
            self._numbers.give_back()
        except OSError as error:  # who holds it is written for those who look; it is free all the same
            failure = translate_os_error(error, os.path.basename(self._path), self._path)
        except BaseException as error:  # a signal's handler raised, before that was written or after it
            failure = error
            with contextlib.suppress(OSError):
                self._numbers.give_back()
        self.token = 0
        try:  # though a signal's handler may raise: by single calls, which it can come into only through an audit hook
            flock(self._fd, LOCK_UN)
        except OSError:
            self._close()  # which unlocks it too
        except BaseException:
            flock(self._fd, LOCK_UN)
            raise
        finally:
            self._threads.release()
        self._changed()
        if failure is not None:
            raise failure

    def holder(self) -> int:
        """open, pread, close; for who holds it, whether that one lives."""
        try:
            return self._holder()
        except OSError as error:
            raise translate_os_error(error, os.path.basename(self._path), self._path) from error

    def _holder(self) -> int:
        try:
            fd = self._fs.open(self._path, READ)
        except FileNotFoundError:
            return 0
        try:
            raw = os.pread(fd, _NUMBER.size, _HOLDER)
            holder = int(_NUMBER.unpack(raw)[0]) if len(raw) == _NUMBER.size else 0
            if holder and self._alive(holder) is Alive.NO:
                # killed, or its engine was closed while it held the mutex: only the lock knows
                try:
                    flock(fd, LOCK_SH | LOCK_NB)
                except BlockingIOError:
                    return holder
                return 0
            return holder
        finally:
            let_go(fd)

    def close_if_idle(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        self._close()
        self._threads.release()
        return True

    def _close(self) -> None:
        if self._numbers is not None:
            self._numbers.close()
            self._numbers = None
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # before it is closed, so that nobody closes another file of this number
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            self._close()  # held or not: nobody is left who could release it

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._threads = threading.Lock()
        self.token = 0
        self._close()
