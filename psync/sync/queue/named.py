"""Many tasks with ids of their own, put in at once: each exists once, however often and by whomever it is put.

The fact that decides, as with one (see `ledger`): the record is there first, then its id is known. Killed in between,
whoever takes the record makes the id known; should the task have been put again by then, one of the two is worked on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psync.engine.contract.log import Sealed
from psync.errors import QueueClosed
from psync.sync.queue.priorities import Location
from psync.sync.queue.work_queue import WorkQueue


def put_named(queue: WorkQueue, values: Mapping[str, Any]) -> list[str]:
    """Put the tasks of `values` (id: value) in that nobody put before; returns their ids. Raises `QueueClosed`.

    One append for all, and one for each bucket that ids fall into, at most 256.
    """
    ledger, log, pack = queue._ledger, queue._log, queue._codec.pack
    payloads = {id: pack((id, value)) for id, value in values.items()}
    try:
        with log.held():
            new = [id for id in payloads if not ledger.is_known(id)] if ledger.knows_any() else [*payloads]
            positions = log.append([payloads[id] for id in new])
            locations = {id: Location(0, position) for id, position in zip(new, positions, strict=True)}
            ledger.set_locations(locations, at_once=False)
    except Sealed:
        raise QueueClosed(
            f"the queue {queue.name!r} was closed: it takes no more tasks; reopen() lets it take some again",
            queue=queue.name,
        ) from None
    return new
