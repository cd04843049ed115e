"""Settlement: what a `Task` asks of its queue: begin it, renew its lease, acknowledge it, give it back.

A verb on a task that was settled before records the ack buffer first, so that it finds the claim ended, and raises. A
task that is not begun is taken out of what is prefetched, so that nobody gives it back meanwhile.
"""

from __future__ import annotations

from typing import Any

from psync.engine.contract.log import Record
from psync.sync.queue.claims import Claims
from psync.sync.queue.prefetch import Prefetched
from psync.sync.queue.priorities import Priority


class ClaimSettlement:
    """The `Settlement` of one queue's tasks."""

    def __init__(self, queue_name: str, claims: Claims, prefetched: Prefetched) -> None:
        self.queue_name = queue_name
        self._claims = claims
        self._prefetched = prefetched
        self._ack_buffer = prefetched.ack_buffer

    def touch(self, priority: Priority, record: Record, id: str, settled: bool) -> Record:
        if settled:
            self._ack_buffer.record()
        self._prefetched.remove(record)
        now = self._claims.beat(priority, record)
        if now is None:
            raise self._claims.stale_error(record, id, self.queue_name)
        return now

    def finish(self, priority: Priority, record: Record, id: str, result: Any, settled: bool, buffered: bool) -> None:
        claims = self._claims
        mark = record.mark
        if not mark.beat:
            self._prefetched.remove(record)
        if settled:
            self._ack_buffer.record()
        elif buffered and mark.attempt == 1 and self._ack_buffer.add(claims.ack(priority, record, id, result)):
            return
        if not claims.finish(priority, record, id, result):
            raise claims.stale_error(record, id, self.queue_name)

    def set_back(
        self,
        priority: Priority,
        record: Record,
        id: str,
        tried: int,
        why: str,
        settled: bool,
        delay: float,
        fatal: bool,
    ) -> None:
        if settled:
            self._ack_buffer.record()
        if not record.mark.beat:
            self._prefetched.remove(record)
        if not self._claims.set_back(priority, record, id, tried, why, delay=delay, fatal=fatal):
            raise self._claims.stale_error(record, id, self.queue_name)
