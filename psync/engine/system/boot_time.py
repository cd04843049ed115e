"""Boot time: encodes a moment as a number that all processes of one boot of one host can compare.

24 bits identify the boot (by its id and the time namespace); 40 bits count milliseconds since it began, on the clock
that runs through a suspend. The wall clock has no part in it.
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
    """Return this boot in 24 bits. Where the kernel tells no id, each process counts as a boot of its own."""
    try:
        namespace = os.stat("/proc/self/ns/time").st_ino
    except OSError:
        namespace = 0
    which = boot_id()
    return crc32(f"{which} {namespace}".encode() if which else os.urandom(8)) >> 8


def number() -> int:
    """Return this boot as a number that is not 0."""
    return _boot() or 1


def due(seconds: float) -> int:
    """Return the moment in `seconds`, at most 30 years from now."""
    moment = math.ceil((clock.since_boot() + min(seconds, 1e9)) * 1000)
    return _boot() << _BITS | moment


def until(due: int) -> float | None:
    """Return the seconds until the moment `due`; None if it is of another boot."""
    if due >> _BITS != _boot():
        return None
    return (due & (1 << _BITS) - 1) / 1000 - clock.since_boot()
