"""Clock: tells the time in seconds that never go back. The one door to the clock."""

from __future__ import annotations

import functools
import time

monotonic = time.monotonic
"""Seconds on this host's own clock since some moment; no decision compares clocks of two hosts."""
since_boot = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since this host was booted, with those in which it slept; alike in all its processes."""
sleep = time.sleep
wall_ns = time.time_ns
"""Nanoseconds of wall-clock time: for people, and to tell whether a time stamp is fresh; never for deadlines."""
