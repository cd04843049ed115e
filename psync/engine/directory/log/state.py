"""What one log of a directory has open, how it is locked, and how its failures are worded. The verbs are in `logs`."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from psync.engine.contract.log import Log, Mark
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.layout import Layout
from psync.engine.directory.liveness.registry import Owners
from psync.engine.directory.log.group_commit import Commit
from psync.engine.directory.log.header import Front, LockedHeader, Sync, Tail
from psync.engine.directory.log.lost_ranges import LostRanges
from psync.engine.directory.log.nfs_segments import NetworkSegments
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.segment_recovery import Salvage
from psync.engine.encoding.framing import Unreadable
from psync.errors import CorruptValue, PsyncError

ROOM = 512
"""So many entries can be put before those of `returned`: what was taken and never used goes back to its place."""
_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def in_words(verb: _Verb) -> _Verb:
    """A verb whose failures become psync's errors, after everything is unlocked."""

    @functools.wraps(verb)
    def worded(self: LogFiles, *args: Any) -> Any:
        try:
            if not self._examined:
                self._examine()
            return verb(self, *args)
        except BaseException as error:
            if self._repair(error):
                return worded(self, *args)
            if (told := self.failed(error)) is error:
                raise
            raise told from error

    return cast(_Verb, worded)


class LogFiles(Log):
    """The files of one log. Threads may share it; a forked child opens the files anew."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        *,
        fs: AtomicFiles,
        owners: Owners,
        changed: Callable[[int], None],
        finished: Callable[[], None],
        kept: DescriptorCache,
    ) -> None:
        self._name = name
        self._layout = layout
        self._fs = fs
        self._owners = owners
        self._changed = changed
        """To be told how many records can be taken since."""
        self._finished = finished
        opened = functools.partial(kept.opened, self)
        self._tail = LockedHeader(layout.log(name, "tail"), Tail, fs, opened, blank=False)
        self._front = LockedHeader(layout.log(name, "front"), Front, fs, opened, blank=False)
        # appending and taking go on beside each other, so each has descriptors of its own
        segments = Salvage if fs.shared is None else NetworkSegments
        self._written = segments(layout, name, fs)
        self._taken = segments(layout, name, fs)
        self._settling = threading.Lock()
        self._own = segments(layout, name, fs)
        self._commit: Commit | None = None
        """None if records and marks need not be on the disk."""
        if fs.sync_file:
            sync = LockedHeader(layout.log(name, "sync"), Sync, fs, opened)
            self._commit = Commit(sync, self._tail, segments(layout, name, fs))
        self._fails = 0
        self._examined = False
        self._returned = PositionFile(layout.log(name, "returned"), fs)
        self._later = PositionFile(layout.log(name, "delayed"), fs)
        self._holes = LostRanges(layout, name, fs)
        self._mapped = fs.shared is None
        self._claimed: dict[int, Mark] = {}
        """The marks without a lease that this process made and has not changed since, by position: as long as it lives
        nobody else touches them, and so they need not be read. Kept only where no server can lose our locks."""
        self._passed = 0
        """All records before this position have been marked, as far as that was noted here."""
        self._reach = 0, 0, 0
        """End, base and `appended_delayed` when a taker last looked. One tuple: threads share it."""

    def failed(self, error: BaseException) -> BaseException:
        """What to raise for it, after everything is unlocked."""
        self.spoil()
        if isinstance(error, PsyncError) or not isinstance(error, OSError | Unreadable):
            return error
        return self._words(error)

    def _words(self, error: OSError | Unreadable) -> PsyncError:
        path = os.path.dirname(self._tail.path)
        if isinstance(error, OSError):
            return translate_os_error(error, self._name, path)
        return CorruptValue(
            f"the log {self._name!r} is damaged ({error}); it is still at {path}",
            key=self._name,
            path=path,
            reason=str(error),
        )

    def spoil(self) -> None:
        self._tail.spoil()
        self._front.spoil()
        if self._commit is not None:
            self._commit.spoil()

    def _examine(self) -> None:
        """See `mending`."""

    def _repair(self, error: BaseException) -> bool:
        """See `repair`."""
        return False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with contextlib.ExitStack() as entered:
            try:
                if not self._examined:
                    self._examine()
                if self._commit is not None:
                    entered.enter_context(self._commit.alone())
            except (OSError, Unreadable) as error:
                raise self._words(error) from error
            for block in (self._tail, self._front):
                try:
                    block.enter()
                except (OSError, Unreadable) as error:
                    raise self._words(error) from error
                entered.callback(block.leave)
            if self._commit is not None:
                try:
                    self._commit.all()
                except OSError as error:
                    raise self._words(error) from error
            yield

    def _look(self) -> tuple[int, int, int]:
        """End, base and `appended_delayed`; what was appended before this call is counted in."""
        tail = self._tail.peek()
        self._reach = reach = tail.end, tail.base, tail.appended_delayed
        self.sealed = bool(tail.sealed)
        return reach

    def _reaching(self, position: int) -> tuple[int, int, int]:
        """The same, if it has to be looked up because `position` lies beyond what is known."""
        reach = self._reach
        return reach if position < reach[0] else self._look()

    def close_if_idle(self) -> bool:
        if not self._tail.close_if_idle():
            return False
        if self._commit is not None and not self._commit.close_if_idle():
            return False
        if not self._front.close_if_idle() or not self._settling.acquire(blocking=False):
            return False
        try:
            self._close()
        finally:
            self._settling.release()
        return True

    def _close(self) -> None:
        self._claimed.clear()
        for files in (self._returned, self._later, self._written, self._taken, self._own):
            files.close()

    def after_fork(self) -> None:
        """In a child: what is open shares its locks with the parent, so it is given up."""
        self._tail.after_fork()
        self._front.after_fork()
        if self._commit is not None:
            self._commit.after_fork()
        self._settling = threading.Lock()
        self._close()
