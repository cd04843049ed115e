"""Floor 0: bytes under names. The only floor that touches disk, locks, clock and process table.

``contract`` is what every engine promises. The engines: ``directory`` (the product), ``redis`` (a server), ``memory``
(tests and simulation), and ``signed``, which goes around another one and authenticates what it stores. ``factory``
opens them, ``serialization`` and ``store_marker`` know how a store was begun, and ``admin`` is for those who look at a
store from outside. ``encoding`` is what stored bytes look like, ``system`` asks the host for time and processes.

Nothing here unpickles, and nothing here knows what a queue is. An engine other than ``directory`` is loaded when it is
first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psync.engine.contract.engine import Engine
from psync.engine.contract.values import Key
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
    from psync.engine.memory import MemoryEngine

    return MemoryEngine
