"""A mutex excludes by `flock` on a file of its own, which stays open; it ends with the last process that holds it.

The fact that decides: whose `flock` was granted. The file is never removed while anybody may want it. It holds two
numbers, the next token (times `TOKEN_STEP`) and the holder (0: free), which only the holder of the lock writes. On a
local file system they are mapped into memory, so that a token costs no system call.

acquire of a free mutex: flock. release: flock. On a network file system: LOCK, READ, WRITE; WRITE, LOCKU. (Waiting in
the kernel was no slower there than polling: two NFS clients got the lock 310 times a second either way, median wait
1 ms, longest 0.15 s.)
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from typing import TYPE_CHECKING

from psync.engine.contract.engine import Mutex
from psync.engine.contract.values import Alive
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache, make_room, with_room
from psync.engine.directory.fs.presence import Inode, inode_of
from psync.engine.directory.fs.syscalls import CHANGE, READ, let_go
from psync.engine.directory.layout import slot_of
from psync.engine.directory.liveness.registry import OwnerRegistry
from psync.engine.directory.notify.wakeup import FIRST_FLAG, Wakeup
from psync.engine.system import clock, fork_hooks, reentry
from psync.engine.system.clock import monotonic
from psync.errors import DirectoryGone

if TYPE_CHECKING:
    from psync.engine.directory.notify.nfs_poll import ChangeToken

DEAD_HOLDER_POLL_S = 0.1
"""Seconds between two tries of a waiter with a timeout: the kernel frees a dead holder's lock and tells nobody."""
SPINS = 8
"""Tries before a waiter sleeps, yielding in between: most holders release sooner than a sleep and a wake-up take."""
THREAD_LOOK_S = 1.0
"""Seconds between two looks at the directory of a thread that waits for another one of its process."""
NO_WAIT = LOCK_EX | LOCK_NB
MAX_PROBE_S = 0.05
"""Seconds, at most, for which a probe of the lock (see `holder`) may keep others out."""
_HEAD = b"\x80\x05C\x10"  # pickled bytes, so that every pickle reader can open what rests here
_NUMBERS = struct.Struct("@QQ")
_TOKEN, _HOLDER = len(_HEAD), len(_HEAD) + 8
_NUMBER = struct.Struct("@Q")


TOKEN_STEP = 65537
"""The next token is stored multiplied by this: 0, or a number that is no multiple, is damage. So one store changes the
token and its check together."""
MAX_TOKEN = (1 << 64) // TOKEN_STEP - 1
_BLANK = _HEAD + _NUMBERS.pack(TOKEN_STEP, 0) + b"."


def verified(word: int) -> int:
    """The next token, which is stored as `word`.

    A damaged word gives a RuntimeWarning and the milliseconds since 1970, a token larger than all before, as far as can
    be told.
    """
    token, wrong = divmod(word, TOKEN_STEP)
    if not wrong and 0 < token < MAX_TOKEN:
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
        self.next, self.token = -1, 0
        """The next token as a word and as a number, unless another process gets the mutex meanwhile."""
        self.words: memoryview | None = None
        """The two numbers in memory: each is stored by one instruction, which no kill can tear."""
        if mapped:
            self.words = memoryview(mmap.mmap(fd, len(_BLANK)))[_TOKEN : _TOKEN + _NUMBERS.size].cast("Q")

    def take(self, holder: int) -> int:
        """While locked: take the next token, and write `holder` beside it."""
        words = self.words
        word: int = words[0] if words is not None else _NUMBER.unpack(os.pread(self._fd, _NUMBER.size, _TOKEN))[0]
        if word != self.next:  # another process had the mutex meanwhile
            self.token = verified(word)
            word = self.token * TOKEN_STEP
        token = self.token
        self.token = token + 1
        self.next = word = word + TOKEN_STEP
        if words is not None:
            words[0] = word
            words[1] = holder
        else:
            os.pwrite(self._fd, _NUMBERS.pack(word, holder), _TOKEN)
        return token

    def holder(self) -> int:
        if self.words is not None:
            return self.words[1]
        return int(_NUMBER.unpack(os.pread(self._fd, _NUMBER.size, _HOLDER))[0])

    def give_back(self) -> None:
        if self.words is not None:
            self.words[1] = 0
        else:
            os.pwrite(self._fd, bytes(_NUMBER.size), _HOLDER)

    def last(self) -> int:
        """The token that this process will take next, unless another one gets the mutex meanwhile."""
        return self.token

    def descriptors(self) -> int:
        return int(self.words is not None)

    def close(self) -> None:
        if self.words is not None:
            self.words.release()  # and with it, for nothing else refers to it, the map


class DirectoryMutex(Mutex):
    """One mutex of a directory, for threads and processes."""

    def __init__(
        self,
        path: str,
        *,
        fs: AtomicFiles,
        owners: OwnerRegistry,
        wake: Wakeup,
        watched: str,
        descriptors: DescriptorCache,
        abandoned: Callable[[DirectoryMutex], bool],
    ) -> None:
        """`watched`: the name that waiters watch.

        `abandoned` is told when nobody refers to it though it is held: whether it keeps it so."""
        self._path = path
        self._fs = fs
        self._presence = fs.presence
        self._inode: Inode | None = None
        """Which file it opened last."""
        self._mapped = fs.local
        self._spins = SPINS if self._mapped else 0  # each try asks the server there, and the kernel's queue is as fast
        self._owners = owners
        self._alive = owners.alive
        self._wake = wake
        self._watched = watched
        self._slot = slot_of(watched)
        self._flag = FIRST_FLAG + self._slot
        self._descriptors = descriptors
        self._abandoned = abandoned
        self._token_seen = 0
        """The token when `was_used` was called last."""
        self.token = 0
        self._threads = threading.Lock()
        self._fd = -1
        self._numbers: Numbers | None = None
        self._gone = 0
        """The last owner that was found dead, and without the lock."""

    @reentry.holds_lock
    def acquire(self, timeout: float | None = None) -> bool:
        """flock when it is free."""
        deadline = None if timeout is None else clock.monotonic() + timeout
        if not self._threads.acquire(False):
            self._refuse_own_wait()
            if not self._wait_for_thread(timeout):
                return False
        had = True
        try:
            numbers = self._numbers or self._open()
            try:
                flock(self._fd, NO_WAIT)
            except BlockingIOError:
                had = self._wait(numbers, deadline)
            if had:
                if monotonic() > self._presence.due:
                    self._presence.look_at(self._path, self._inode)
                holder, words = self._owners.number or self._owners.owner(), numbers.words
                if words is not None and (word := words[0]) == numbers.next:  # `take` written out
                    self.token = token = numbers.token
                    numbers.token = token + 1
                    words[0] = numbers.next = word + TOKEN_STEP
                    words[1] = holder
                else:
                    self.token = numbers.take(holder)
        except BaseException as error:
            # A signal's handler may have raised after the lock was granted and the holder written: undo both.
            self.token = 0
            if self._fd >= 0:
                if self._numbers is not None and self._try():
                    self._numbers.give_back()
                flock(self._fd, LOCK_UN)
                if isinstance(error, DirectoryGone):
                    self._begin_anew()
            self._threads.release()
            if isinstance(error, OSError):
                raise translate_os_error(error, os.path.basename(self._path), self._path) from error
            raise
        if not had:
            self._threads.release()
        return had

    def _wait_for_thread(self, timeout: float | None) -> bool:
        """Wait until no other thread of this process holds it, or waits for it."""
        deadline = math.inf if timeout is None else clock.monotonic() + timeout
        while not self._threads.acquire(timeout=max(0.0, min(deadline - clock.monotonic(), THREAD_LOOK_S))):
            if clock.monotonic() >= deadline:
                return False
            self._presence.look()
        return True

    def _refuse_own_wait(self) -> None:
        """Raise `ReentrantCall` if this thread is acquiring or releasing this very mutex: it would wait for itself."""
        calls = [frame for frame in reentry.marked_frames() if getattr(frame.get("self"), "_path", None) == self._path]
        if len(calls) > 1:  # the innermost is this one
            raise reentry.reentrant(self._path)

    def _open(self) -> Numbers:
        self._presence.check()
        known, self._inode = self._inode, None
        with fork_hooks.put_off:
            while True:
                try:
                    fd = self._fs.open(self._path, CHANGE)
                except FileNotFoundError:
                    if known is not None:
                        raise self._presence.file_gone(self._path) from None
                    self._fs.make(self._path, _BLANK)
                    continue
                except OSError as error:
                    if make_room(error):
                        continue
                    raise
                self._fs.trust.checked(fd, self._path)
                try:
                    inode = inode_of(os.fstat(fd))
                    if known not in (None, inode):
                        raise self._presence.file_gone(self._path)
                    raw = os.pread(fd, len(_BLANK) + 1, 0)
                    if len(raw) != len(_BLANK) or raw[:_TOKEN] != _HEAD:  # a power cut, a full disk, or damage
                        os.pwrite(fd, _HEAD + _NUMBERS.pack(_milliseconds() * TOKEN_STEP, 0) + b".", 0)
                        os.ftruncate(fd, len(_BLANK))
                    self._numbers = Numbers(fd, mapped=self._mapped)
                except BaseException as error:
                    os.close(fd)
                    if isinstance(error, OSError) and make_room(error):
                        continue
                    raise
                self._fd, self._inode = fd, inode
                self._descriptors.opened(self)
                return self._numbers

    def _wait(self, numbers: Numbers, deadline: float | None) -> bool:
        for _ in range(self._spins if deadline is None or deadline > clock.monotonic() else 0):
            os.sched_yield()
            if self._try():
                return True
        if deadline is None:
            self._refuse_own_wait()  # by another handle
            flock(self._fd, LOCK_EX)
            return True
        with self._wake.watch([self._watched], None, _no_tokens) as watch:
            while not self._try():
                left = deadline - clock.monotonic()
                if left <= 0:
                    holder = numbers.holder()
                    if left <= -MAX_PROBE_S or (holder and self._alive(holder) is not Alive.NO):
                        return False
                    # no living holder: a probe has the lock, or a releasing process has written 0 and unlocks next
                    left = 0.001
                watch.pause(min(left, DEAD_HOLDER_POLL_S))
                if monotonic() > self._presence.due:
                    self._presence.look_at(self._path, self._inode)
        return True

    def _try(self) -> bool:
        try:
            flock(self._fd, NO_WAIT)
        except BlockingIOError:
            return False
        return True

    @reentry.holds_lock
    def release(self) -> None:
        token, numbers = 0, self._numbers
        failure: BaseException | None = None
        try:
            # without a call in between, so no handler can come in between, and release the mutex, too
            token, self.token = self.token, 0
            if token and numbers is not None:
                if (words := numbers.words) is not None:  # `give_back` written out: this is the hot path
                    words[1] = 0
                else:
                    numbers.give_back()
        except OSError as error:  # the holder is written for probes only; the mutex is free all the same
            failure = translate_os_error(error, os.path.basename(self._path), self._path)
        except BaseException as error:  # a signal's handler raised, before that was written or after it
            failure = error
            with contextlib.suppress(OSError):
                if token and numbers is not None:
                    numbers.give_back()
        if not token:
            raise failure or RuntimeError("a mutex that is not held can't be released")
        try:  # a signal's handler may raise between any two calls, so the unlock is one call, and is made again below
            flock(self._fd, LOCK_UN)
        except OSError:
            self._close()  # which unlocks it too
        except BaseException:
            flock(self._fd, LOCK_UN)
            raise
        finally:
            self._threads.release()
        flags = self._wake.mapped
        if flags is None or flags[self._flag]:  # `notify_slot` written out
            self._wake.notify_slot(self._slot)
        if monotonic() > self._presence.due and failure is None:
            self._look()
        if failure is not None:
            raise failure

    def check(self) -> None:
        """lstat if it is held."""
        if self.token:
            self._presence.look_at(self._path, self._inode)

    def _look(self) -> None:
        """Raise `DirectoryGone` unless the file is where it was opened. The next holder begins anew."""
        try:
            self._presence.look_at(self._path, self._inode)
        except DirectoryGone:
            if self._threads.acquire(blocking=False):
                self._begin_anew()
                self._threads.release()
            raise

    def _begin_anew(self) -> None:
        """While no thread is in it."""
        self._close()
        self._inode = None

    def holder(self) -> int:
        """open, pread, close; if there is a holder, also the probe whether it lives."""
        try:
            return self._holder()
        except OSError as error:
            raise translate_os_error(error, os.path.basename(self._path), self._path) from error

    def _holder(self) -> int:
        try:
            fd = with_room(lambda: self._fs.open(self._path, READ))
        except FileNotFoundError:
            self._presence.look()
            return 0
        try:
            raw = os.pread(fd, _NUMBER.size, _HOLDER)
            holder = int(_NUMBER.unpack(raw)[0]) if len(raw) == _NUMBER.size else 0
            if holder and holder == self._gone:
                return 0
            if holder and self._alive(holder) is Alive.NO:
                # the holder was killed, or its engine was closed while it held the mutex: only the lock tells
                try:
                    flock(fd, LOCK_SH | LOCK_NB)
                except BlockingIOError:
                    return holder
                # once is enough: an owner that is dead takes nothing any more, and a reader that tries the lock again
                # and again would keep it from a process that wants it
                self._gone = holder
                return 0
            return holder
        finally:
            let_go(fd)

    def descriptors(self) -> int:
        return int(self._fd >= 0) + (self._numbers.descriptors() if self._numbers is not None else 0)

    def was_used(self) -> bool:
        numbers, before = self._numbers, self._token_seen
        if numbers is not None:
            self._token_seen = numbers.last()
        return self._token_seen != before

    def close_if_idle(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        self._close()
        self._threads.release()
        return True

    def close(self) -> None:
        """Close its descriptors, which releases it if it is held. No thread may be using it."""
        self._close()

    def _close(self) -> None:
        if self._numbers is not None:
            self._numbers.close()
            self._numbers = None
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # before it is closed, so that nobody closes another file of this number
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            if not self.token or not self._abandoned(self):
                self._close()

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._threads = threading.Lock()
        self.token = 0
        self._close()


def _no_tokens(name: str) -> Iterator[ChangeToken]:
    """A mutex shows its state only to a locker."""
    return iter(())
