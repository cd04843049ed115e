"""The log on a network file system: claimers that find nothing must not queue for a lock to find it again.

A claimer that found nothing last time first reads ``front`` and ``tail`` without a lock: READ, READ. A take is LOCK,
READ, READ, WRITE, WRITE, LOCKU, and two READs more for records that were not read ahead; a take of many costs little
more. An append is LOCK, READ, WRITE, WRITE, LOCKU; an answer READ, WRITE, and so is a heartbeat. Many answers cost the
same as one if their records lie in a row, and an append for each bucket that gets results. `tests/nfs/test_costs.py`
counts these calls, with the FREE_STATEID that follows each LOCKU on version 4.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator

from psync.engine.contract.log import Record
from psync.engine.directory.log.claim import Claimer
from psync.engine.directory.log.repair import CorruptionRepair, wrap_errors
from psync.engine.directory.log.state import LogState
from psync.engine.directory.notify.nfs_poll import ChangeToken


class NfsClaimer:
    """`Claimer.take` on a network file system."""

    def __init__(self, state: LogState, repair: CorruptionRepair, claimer: Claimer) -> None:
        self._state = state
        self._repair = repair
        self._claim = claimer.take
        self._found_nothing = False
        """Whether the last take was in vain."""

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        if self._found_nothing and self._is_empty():
            return []
        taken = self._claim(owner, limit, beat, lease)
        self._found_nothing = not taken
        self._state.passed = self._state.front.values.head
        return taken

    @wrap_errors
    def _is_empty(self) -> bool:
        front = self._state.front.peek()
        self._state.handle.noted = front.note
        return front.head >= self._state.read_reach()[0] and front.requeue_head == front.requeue_end


class NfsChangeTokens:
    """The numbers that a waiter reads to see that a log has changed."""

    def __init__(self, state: LogState) -> None:
        self._state = state
        self._folder = os.path.dirname(state.tail.path)
        self._status_files: tuple[int, tuple[str, ...]] = -1, ()
        """The end of the log when the status files were listed, and their names."""

    def tokens(self, *, final: bool) -> Iterator[ChangeToken]:
        """One token for the headers: READ, READ. With `final` another one for records that become final.

        Only a status shows that. It costs two GETATTRs for each status file, of which there is mostly one, and a
        listing when the log has grown.
        """
        yield ChangeToken(f"{self._state.name}/log", self._headers)
        if final:
            yield ChangeToken(f"{self._state.name}/log/marks", self._statuses, exact=False)

    def _headers(self, asked: dict[str, bool]) -> Hashable:
        return self._state.front.peek().pack(0), self._state.tail.peek().pack(0)

    def _statuses(self, asked: dict[str, bool]) -> Hashable:
        lookups = self._state.fs.lookups
        assert lookups is not None
        end = self._state.tail.peek().end
        if end != self._status_files[0]:
            names = lookups.listing(self._folder)
            self._status_files = end, tuple(name for name in names if name.endswith(".marks"))
        return tuple(lookups.status(f"{self._folder}/{name}", asked) for name in self._status_files[1])
