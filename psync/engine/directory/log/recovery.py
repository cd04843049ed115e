"""Crash recovery: after a restart of the host, ``tail`` and ``front`` are rebuilt from records and statuses, once.

A power cut may have kept any pages and lost others. ``tail``, ``front`` and the position files change far too often to
be written to the disk each time. So the first process that uses a log of another boot puts it in order:

* The log ends behind the last record that was appended whole, with all that were appended with it. Bytes behind that
  are removed: a status there would be taken for that of a later record.
* Positions, and with them the ids of tasks, are not used again, though the records that had them be lost: a result or
  another log may still refer to them. One record that is DEAD takes their room, which is a lost range from now on.
* The head cursor lies behind every record that a claimer ever passed. Those of them that are WAITING or DELAYED are
  entered into the position files.

The fact that decides: `Tail.boot` is written last. After a kill in the middle the next process begins anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from psync.engine.contract.log import WAITING, Mark, State
from psync.engine.directory.log.fields import Front, Tail
from psync.engine.directory.log.record_format import HEAD_BYTES
from psync.engine.directory.log.requeue import REQUEUE_ROOM_ENTRIES
from psync.engine.directory.log.segment_recovery import SegmentRecovery
from psync.engine.directory.log.state import LogState
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import boot_time

LOST_MARGIN_BYTES = 1 << 26
"""Bytes that may have been appended, and lost, since the kernel last wrote ``tail`` to the disk."""


class CrashRecovery:
    """The check of one log that comes before its first verb in a process."""

    def __init__(self, state: LogState) -> None:
        self._state = state
        self.segments = SegmentRecovery(state.claiming, state.fs)

    def check(self) -> None:
        """Put the log in order if the host was restarted since the last check by any process."""
        state, now = self._state, boot_time.number()
        if state.local:  # on a network file system the boot that counts is the server's
            tail, damaged = state.tail.enter_damaged()
            try:
                if damaged is not None and any(damaged):  # a power cut leaves zeros, which are no damage
                    raise Unreadable("its numbers do not fit their checksum")
                if tail.boot != now:
                    bases = state.claiming.bases()
                    if bases or tail.end:
                        self._recover(tail, bases)
                    tail.prepared_end = tail.prepared_count = tail.status_end = 0
                    tail.boot = now
                    state.tail.save()
            finally:
                state.tail.leave()
        else:
            state.tail.make()  # or each look of a waiting claimer would ask the server for a file that is not there
        state.checked = True

    def _recover(self, tail: Tail, bases: list[int]) -> None:
        state = self._state
        front, _ = state.front.enter_damaged()
        try:
            tail.end, more = self.segments.follow(max([tail.end, *bases[:1]]), bases)
            tail.appended += more
            tail.base = self.segments.drop_behind(tail.end, bases)
            self._fill(tail)
            self.rebuild_front(tail, front, bases[0] if bases else tail.end)
            state.front.save()
        except BaseException:
            state.spoil()
            raise
        finally:
            state.front.leave()

    def _fill(self, tail: Tail) -> None:
        """Give the positions that lost records may have had to one record that is DEAD."""
        end, base = tail.end, tail.base
        payload = bytes(LOST_MARGIN_BYTES - HEAD_BYTES)
        self._state.lost.add(end, end + LOST_MARGIN_BYTES)
        self.segments.fill(payload, end, base)
        self._state.claiming.write_status(end, base, Mark(State.DEAD, 1))
        tail.end += LOST_MARGIN_BYTES
        tail.appended += 1

    def rebuild_front(self, tail: Tail, front: Front, low: int) -> None:
        """Set all cursors of ``front`` by the statuses of the records from `low` on, and write the position files."""
        files, end, base = self._state.claiming, tail.end, tail.base
        head, unpassed = low, 0
        for position, state, size in files.scan(low, end, base):
            unpassed += 1
            if state is not State.WAITING:
                head, unpassed = position + size, 0
        waiting, delayed = [], []
        for position, state, _ in files.scan(low, head, base):
            if state is State.WAITING:
                waiting.append(position)
            elif state is State.DELAYED:
                delayed.append(position)
        for position in waiting:  # every record before the head cursor has a status, so that damage to it is noticed
            files.write_status(position, base, files.status(position, base) or WAITING)
        if waiting:
            self._state.requeued.put(REQUEUE_ROOM_ENTRIES, waiting)
        if delayed:
            self._state.delayed.put(0, delayed)
        front.head, front.low, front.passed = head, low, tail.appended - unpassed
        front.requeue_head, front.requeue_end = REQUEUE_ROOM_ENTRIES, REQUEUE_ROOM_ENTRIES + len(waiting)
        front.delayed_count = len(delayed)
        front.skipped, front.delayed_passed = 0, tail.appended_delayed

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold every lock of the log, ``sync``, ``tail`` and ``front`` in this order, with no group commit pending."""
        state = self._state
        with contextlib.ExitStack() as entered:
            try:
                if not state.checked:
                    self.check()
                if state.commit is not None:
                    entered.enter_context(state.commit.alone())
                    entered.enter_context(state.commit.admitting())
                for header in (state.tail, state.front):
                    header.enter()
                    entered.callback(header.leave)
                if state.commit is not None:
                    state.commit.all()
                for header in (state.tail, state.front):  # the block calls verbs, but its handlers interrupt none
                    entered.enter_context(header.admitting())
            except (OSError, Unreadable) as error:
                raise state.translate(error) from error
            yield
