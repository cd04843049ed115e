"""Memory engine: keeps the contract in the memory of one process, with no disk under it.

It is for tests, doctests and seeded simulation. Threads share a memory, and so do several *owners*:
`MemoryEngine.as_owner` gives another owner of the same memory, which can `die`. Processes can't share one. Nothing
here touches files, and time comes from a clock that tests may own (`ManualClock`).

``state`` is all that the owners of one memory share, with ``namespace`` (the values by name) and ``records`` (those
of the logs). ``turns`` makes each verb of an owner one step, and lets it wait for locks. ``bucket``, ``log``,
``register`` and ``locks`` (mutexes and watches) are the verbs, made of turns; ``engine`` composes them.
"""

from __future__ import annotations

from psync.engine.memory.clock import ManualClock
from psync.engine.memory.engine import MemoryEngine
from psync.engine.memory.state import Died

__all__ = ["Died", "ManualClock", "MemoryEngine"]
