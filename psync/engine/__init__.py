"""Floor 0: bytes under names. The only floor that touches disk, locks, clock and process table.

Here live the contract (`contract`), what stored bytes look like (`seal`, `foreign`), who is alive
(`owner`), and the engines that keep the contract: `directory` (the product) and `memory` (tests,
simulation). Nothing here unpickles, and nothing here knows what a queue is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psync.engine.contract.engine import Engine
from psync.engine.directory import DirectoryEngine
from psync.engine.factory import (
    Allow,
    Durability,
    Root,
    Serializer,
    Sharing,
    Wakeups,
    is_address,
    open_engine,
    private_directory,
    rejoined,
    remove_directory,
    shared_engine,
)
from psync.engine.signed.keys import Key

__all__ = [
    "Allow",
    "DirectoryEngine",
    "Durability",
    "Engine",
    "Key",
    "MemoryEngine",
    "Root",
    "Serializer",
    "Sharing",
    "Wakeups",
    "is_address",
    "open_engine",
    "private_directory",
    "rejoined",
    "remove_directory",
    "shared_engine",
]

if TYPE_CHECKING:
    from psync.engine.memory import MemoryEngine


def __getattr__(name: str) -> Any:
    if name != "MemoryEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from psync.engine.memory import MemoryEngine  # only who asks for it pays for it

    return MemoryEngine
