"""The engine that keeps everything in this process's memory: the contract with no disk under it.

For tests, doctests and seeded simulation. Threads share it; several *owners* can (`MemoryEngine.as_owner`
gives another look at the same memory, which can `die`); processes can't. Nothing here touches files, and
time comes from a clock that tests may own (`ManualClock`).

``space`` is what all looks at one memory share, and the one lock that makes each verb one step; ``tree``
holds the names; ``engine``, ``bucket``, ``log`` and ``waiting`` are the verbs.
"""

from __future__ import annotations

from psync.engine.memory.clock import ManualClock
from psync.engine.memory.engine import MemoryEngine
from psync.engine.memory.state import Died

__all__ = ["Died", "ManualClock", "MemoryEngine"]
