"""A moment as a number that processes of one boot of one host can compare: which boot, and how long after it began.

24 bits tell the boot (by its id, and by the time namespace), 40 bits count milliseconds of the clock that runs through
a suspend. The wall clock has no part in it.
"""

from __future__ import annotations

import functools
import math
import os
from zlib import crc32

from psync.engine.system import clock
from psync.engine.system.process_identity import boot_id

_BITS = 40


@functools.cache
def _boot() -> int:
    """This boot in 24 bits; where the kernel tells no id, each process is one of its own."""
    try:
        namespace = os.stat("/proc/self/ns/time").st_ino
    except OSError:
        namespace = 0
    which = boot_id()
    return crc32(f"{which} {namespace}".encode() if which else os.urandom(8)) >> 8


def number() -> int:
    """This boot, as a number that is not 0."""
    return _boot() or 1


def due(seconds: float) -> int:
    """The moment in so many seconds; at most 30 years."""
    moment = math.ceil((clock.since_boot() + min(seconds, 1e9)) * 1000)
    return _boot() << _BITS | moment


def until(due: int) -> float | None:
    """Seconds until the moment `due`; None if that is another boot's."""
    if due >> _BITS != _boot():
        return None
    return (due & (1 << _BITS) - 1) / 1000 - clock.since_boot()
