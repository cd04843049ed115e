"""Floor 0: bytes under names. The only floor that touches disk, locks, clock and process table.

Here are the contract (`contract`), the framing of stored bytes (`encoding`), clocks and process identities (`system`),
and the four engines that keep the contract: `directory`, `memory` (one process), `redis` (a server) and `signed`, which
goes around any other. `factory` opens them. Nothing here unpickles, and nothing here knows what a queue is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psync.engine.address import is_address
from psync.engine.contract.engine import Engine
from psync.engine.directory import DirectoryEngine
from psync.engine.factory import (
    Allow,
    Durability,
    Root,
    Serializer,
    Sharing,
    Wakeups,
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
    from psync.engine.signed.keys import Key


def __getattr__(name: str) -> Any:
    """Import what few callers need when it is first used."""
    if name == "MemoryEngine":
        from psync.engine.memory import MemoryEngine

        return MemoryEngine
    if name == "Key":
        from psync.engine.signed.keys import Key

        return Key
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
