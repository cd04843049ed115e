"""A log is a row of records in segment files; a record's mark is overwritten in place as the record comes along.

On disk, in ``<name>/log/``: ``tail`` (where the log ends), ``front`` (how far it was taken), segments of records with
their marks (see `segments`), and ``returned`` (positions that became WAITING again, as hints).

Who appends locks ``tail``, who takes locks ``front``, so they don't wait for each other. The facts that decide: a
record exists once ``tail`` says that the log ends behind it; it is whose its mark says. What ``front`` says is a hint
that a killed taker leaves behind the marks: the next one steps over what is marked already.

A record that is mine I settle without a lock: anybody else may touch it only with a proof that I am dead.

append: flock, pread, pwrite, pwrite, unlock. take: flock, pread, pread, pread, pwrite, pwrite, unlock; one more pread
when all that was known of is taken. settle of one's own: pread, pwrite. Inodes are made and freed once in a segment.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from psync.engine.contract import Counts, Log, Mark, Record, State
from psync.engine.directory.block import Block
from psync.engine.directory.files import CHANGE, refused, with_folder
from psync.engine.directory.kept import Kept
from psync.engine.directory.names import MODE, Layout
from psync.engine.directory.segments import SEGMENT, Segments, encode
from psync.engine.directory.whole import Whole
from psync.engine.seal import Unreadable
from psync.errors import CorruptValue, PsyncError

END, BASE, APPENDED = range(3)
"""In ``tail``: where the log ends, where its last segment begins, how many records were ever appended."""
FRONT, LOW, TAKEN, RETURNED, RETAKEN, SKIPPED = range(6)
"""In ``front``: the first record never taken, the first that may be unfinished, how many were passed; how many entries
`returned` has, and how many of them were used; how many records were settled untaken and are still to be passed."""

_ENTRY = struct.Struct("<Q")
_WAITING, _CLAIMED, _DONE = State.WAITING, State.CLAIMED, State.DONE
_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def _in_words(verb: _Verb) -> _Verb:
    """A verb whose failures become psync's errors, after everything is unlocked."""

    @functools.wraps(verb)
    def worded(self: DirectoryLog, *args: Any) -> Any:
        try:
            return verb(self, *args)
        except (OSError, Unreadable) as error:
            self.spoil()
            if isinstance(error, PsyncError):
                raise
            raise self._words(error) from error
        except BaseException:
            self.spoil()
            raise

    return cast(_Verb, worded)


class DirectoryLog(Log):
    """One log of a directory. Threads may share it; a forked child opens the files anew."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        *,
        whole: Whole,
        mine: Callable[[], int],
        changed: Callable[[], None],
        finished: Callable[[], None],
        kept: Kept,
    ) -> None:
        self._name = name
        self._layout = layout
        self._mine = mine
        self._changed = changed
        self._finished = finished
        opened = functools.partial(kept.opened, self)
        self._tail = Block(layout.log(name, "tail"), 3, whole.make, opened)
        self._front = Block(layout.log(name, "front"), 6, whole.make, opened)
        # appending and taking go on beside each other, so each has descriptors of its own
        self._written = Segments(layout, name)
        self._taken = Segments(layout, name)
        self._settling = threading.Lock()
        self._own = Segments(layout, name)
        self._returned_fd = -1
        self._reach = 0, 0
        """Where the log ended and its last segment began when a taker last looked. One tuple: threads share it."""

    def _words(self, error: OSError | Unreadable) -> PsyncError:
        path = os.path.dirname(self._tail.path)
        if isinstance(error, OSError):
            return refused(error, self._name, path)
        return CorruptValue(
            f"the log {self._name!r} is damaged ({error}); it is still at {path}",
            key=self._name,
            path=path,
            reason=str(error),
        )

    def spoil(self) -> None:
        self._tail.spoil()
        self._front.spoil()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with contextlib.ExitStack() as entered:
            for block in (self._tail, self._front):
                try:
                    block.enter()
                except (OSError, Unreadable) as error:
                    raise self._words(error) from error
                entered.callback(block.leave)
            yield

    # -- appending -----------------------------------------------------------------------------------

    @_in_words
    def append(self, payloads: Sequence[bytes]) -> list[int]:
        if not payloads:
            return []
        tail = self._tail.enter()
        try:
            end, base = tail[END], tail[BASE]
            if end - base >= SEGMENT:
                base = end
            positions = []
            records = []
            for payload in payloads:
                positions.append(end)
                record = encode(payload, end)
                records.append(record)
                end += len(record)
            self._written.write(records[0] if len(records) == 1 else b"".join(records), tail[END], base)
            tail[END], tail[BASE], tail[APPENDED] = end, base, tail[APPENDED] + len(records)
            self._tail.save()
        finally:
            self._tail.leave()
        self._changed()
        return positions

    def _look(self) -> tuple[int, int]:
        """Where the log ends and its last segment begins; what was appended before this call is in it."""
        tail = self._tail.peek()
        self._reach = reach = tail[END], tail[BASE]
        return reach

    def _reaching(self, position: int) -> tuple[int, int]:
        """The same, if it has to be looked up because `position` lies beyond what is known."""
        reach = self._reach
        return reach if position < reach[0] else self._look()

    # -- taking --------------------------------------------------------------------------------------

    @_in_words
    def take(self, owner: int, limit: int = 1) -> list[Record]:
        front = self._front.enter()
        try:
            taken: list[Record] = []
            try:
                if self._advance(front, owner, limit, taken):
                    self._front.save()
            except BaseException:
                self._untake(taken)
                raise
            return taken
        finally:
            self._front.leave()

    def _advance(self, front: list[int], owner: int, limit: int, taken: list[Record]) -> bool:
        """Claim records into `taken`; True if any was looked at, so that `front` has changed."""
        begun = front[FRONT]
        looked = False
        while len(taken) < limit and (position := self._next(front)) is not None:
            looked = True
            record, size = self._taken.claim(position, self._reaching(position)[1], owner)
            if record is not None:
                taken.append(record)
            elif front[SKIPPED]:
                front[SKIPPED] -= 1
            if position == front[FRONT]:
                front[FRONT] += size
                front[TAKEN] += 1
        if begun // SEGMENT != front[FRONT] // SEGMENT:
            self._raise_low(front, self._look(), front[FRONT])
        return looked

    def _untake(self, taken: list[Record]) -> None:
        """Something failed, and nobody will hear of these: they wait again, with the attempts they had."""
        with contextlib.suppress(OSError, Unreadable):
            for position, mark, _ in taken:
                before = Mark(_WAITING, mark.attempt - 1)
                self._taken.exchange_mark(position, self._reach[1], mark, before, None)

    def _next(self, front: list[int]) -> int | None:
        """The position to look at next: first what was given back, then the front."""
        if front[RETAKEN] < front[RETURNED]:
            raw = os.pread(self._returned(), _ENTRY.size, front[RETAKEN] * _ENTRY.size)
            front[RETAKEN] += 1
            if front[RETAKEN] == front[RETURNED]:
                front[RETAKEN] = front[RETURNED] = 0
            position = int(_ENTRY.unpack(raw)[0])
            if position != front[FRONT]:
                return position
        position = front[FRONT]
        return position if position < self._reaching(position)[0] else None

    def _returned(self) -> int:
        if self._returned_fd < 0:
            path = self._layout.log(self._name, "returned")
            self._returned_fd = with_folder(path, lambda: os.open(path, CHANGE | os.O_CREAT, MODE))
        return self._returned_fd

    # -- settling ------------------------------------------------------------------------------------

    @_in_words
    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        if held.state >= _DONE or position < 0:
            return False
        if held.state is _CLAIMED and new.state >= _DONE and held.owner == self._mine():
            settled = self._settle_own(position, held, new, before)
        else:
            settled = self._settle_locked(position, held, new, before)
        if settled:
            (self._changed if new.state is _WAITING else self._finished)()
        return settled

    def _settle_own(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        """Only this process may touch the record, as long as it lives; so only its threads are kept out."""
        with self._settling:
            end, base = self._reaching(position)
            return position < end and self._own.exchange_mark(position, base, held, new, before)

    def _settle_locked(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        front = self._front.enter()
        try:
            if new.state is _WAITING:
                before = functools.partial(self._hint, front, position, before)
            with self._settling:
                end, base = self._reaching(position)
                if position >= end or not self._taken.exchange_mark(position, base, held, new, before):
                    return False
            if held.state is _WAITING and new.state is not _WAITING:
                front[SKIPPED] += 1
                self._front.save()
            return True
        finally:
            self._front.leave()

    def _hint(self, front: list[int], position: int, before: Callable[[], object] | None) -> None:
        """Say that the record can be taken again before it is so: else nobody would come past it any more."""
        if before is not None:
            before()
        os.pwrite(self._returned(), _ENTRY.pack(position), front[RETURNED] * _ENTRY.size)
        front[RETURNED] += 1
        self._front.save()

    # -- looking -------------------------------------------------------------------------------------

    @_in_words
    def read(self, position: int) -> Record | None:
        self._front.enter()
        try:
            end, base = self._look()
            return self._taken.read(position, base) if 0 <= position < end else None
        finally:
            self._front.leave()

    @_in_words
    def claims(self) -> list[Record]:
        front = self._front.enter()
        try:
            end, base = self._look()
            found = []
            for position, state, _ in self._taken.scan(front[LOW], end, base):
                if state is _CLAIMED:
                    record = self._taken.read(position, base)
                    if record is not None:
                        found.append(record)
                elif state is _WAITING and position >= front[FRONT]:
                    break  # nobody was ever further than this
            return found
        finally:
            self._front.leave()

    @_in_words
    def finished(self) -> bool:
        front = self._front.enter()
        try:
            reach = self._look()
            if self._raise_low(front, reach, reach[0]):
                self._front.save()
            return front[LOW] == reach[0]
        finally:
            self._front.leave()

    def _raise_low(self, front: list[int], reach: tuple[int, int], limit: int) -> bool:
        """Step over what is final, up to `limit`, and remove segments that hold nothing else; True if it was a step."""
        low = front[LOW]
        for _, state, size in self._taken.scan(low, limit, reach[1]):
            if state < _DONE:
                break
            front[LOW] += size
        if low // SEGMENT != front[LOW] // SEGMENT:
            self._taken.clear(front[LOW], reach[1])
        return low != front[LOW]

    @_in_words
    def counts(self) -> Counts:
        front = self._front.enter()
        try:
            tail = self._tail.peek()
            waiting = tail[APPENDED] - front[TAKEN] + front[RETURNED] - front[RETAKEN] - front[SKIPPED]
            return Counts(waiting, tail[APPENDED], tail[END])
        finally:
            self._front.leave()

    # -- descriptors ---------------------------------------------------------------------------------

    def close_if_idle(self) -> bool:
        if not self._tail.close_if_idle():
            return False
        if not self._front.close_if_idle() or not self._settling.acquire(blocking=False):
            return False
        try:
            self._close()
        finally:
            self._settling.release()
        return True

    def _close(self) -> None:
        if self._returned_fd >= 0:
            os.close(self._returned_fd)
            self._returned_fd = -1
        for segments in (self._written, self._taken, self._own):
            segments.close()

    def after_fork(self) -> None:
        """In a child: what is open shares its locks with the parent, so it is given up."""
        self._tail.after_fork()
        self._front.after_fork()
        self._settling = threading.Lock()
        self._close()
