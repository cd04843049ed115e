"""What time it is: seconds that never go back. The one door to the clock."""

from __future__ import annotations

import time

monotonic = time.monotonic
"""Seconds on this host's own clock since some moment; no decision compares clocks of two hosts."""
sleep = time.sleep
wall_ns = time.time_ns
"""Nanoseconds of wall-clock time: for people, and to tell whether a time stamp is fresh; never for deadlines."""
