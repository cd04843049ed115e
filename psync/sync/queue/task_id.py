"""Task ids: a task that was given no id is named after the place of its record.

An id that begins with ``#`` holds its priority and position; any other id is the caller's own and is looked up in the
task index. Nothing is kept on disk by this module.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from psync.store.key_hash import gethashfile

POSITION_STEP_BYTES = 32
"""A log that counts in bytes gives out positions that are multiples of this."""
BUCKET_SHIFT_BYTES, BUCKET_SHIFT_RECORDS = 11, 5
"""The results of tasks whose positions agree above these bits share a bucket: 2**11 bytes of a log that counts in
bytes, or mostly 2**5 records of a log that counts one by one."""
_given_id = re.compile(r"#(?:p(-?\d+)\.)?([0-9a-f]+)").fullmatch


class TaskLocation(NamedTuple):
    """Where the record of a task stands."""

    priority: int
    position: int

    @property
    def id(self) -> str:
        """The id of a task that was given none."""
        return f"#p{self.priority}.{self.position:x}" if self.priority else f"#{self.position:x}"


def location_of(id: str) -> TaskLocation | None:
    """Parse an id that was made from a location; None for any other id."""
    found = _given_id(id)
    return None if found is None else TaskLocation(int(found[1] or 0), int(found[2], 16))


def bucket_of_result(id: Any) -> str:
    """The bucket for the result of a task: two hex digits.

    Tasks that were put in a row share a bucket, because one process mostly works on them and their results are read
    together.
    """
    if type(id) is str and id[:1] == "#":
        try:
            position = int(id[id.find(".") + 1 or 1 :], 16)
            shift = BUCKET_SHIFT_RECORDS if position % POSITION_STEP_BYTES else BUCKET_SHIFT_BYTES
            return f"{position >> shift & 0xFF:02x}"
        except ValueError:
            pass  # no task was ever given such an id
    return gethashfile(id)
