"""State: keeps what all owners of one memory share, and the one lock that makes each verb atomic."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Protocol

from psync.engine.contract.register import Slot
from psync.engine.contract.report import Shape
from psync.engine.memory.clock import Clock
from psync.engine.memory.namespace import Entry, Namespace
from psync.engine.memory.records import Records
from psync.errors import CorruptValue


class Died(SystemExit):
    """Raised by every verb of an owner that has died: like a killed process, its code goes no further.

    No caller should handle it, so it is no `Exception`; a thread that ends with it ends silently.
    """


@dataclass(slots=True, eq=False)
class ThreadLock:
    """A lock on a name for the length of a block. It belongs to one thread of one owner."""

    owner: int
    thread: int = field(default_factory=threading.get_ident)
    depth: int = 1


class OwnerFacts(NamedTuple):
    pid: int
    since: float
    alive: bool = True


Key = tuple[str, str]
"""Kind and name of a lock: cells and buckets share their names, logs and guards have their own."""


class Waiter(Protocol):
    """A watch that is to be told of changes."""

    fired: bool
    """Set, with the turn, as soon as a watched name has changed."""


class State:
    """One memory. Only its clock may be used without the turn, which is the lock of `condition`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.condition = threading.Condition(threading.RLock())
        """Held for the length of each step; notified after each change that an owner may wait for."""
        self.namespace = Namespace()
        self.logs: dict[str, Records] = {}
        self.registers: set[str] = set()
        """Names that were used as registers; their values are cells here."""
        self.slots: dict[str, tuple[Slot, ...]] = {}
        """The slots of registers, by name, once one of them was taken."""
        self.locks: dict[Key, ThreadLock] = {}
        self.mutexes: dict[str, int] = {}
        """The owners of held mutexes."""
        self.tokens: dict[str, int] = {}
        """The last fencing token of each mutex."""
        self.watching: dict[str, set[Waiter]] = {}
        self.owners: dict[int, OwnerFacts] = {}
        self.versions = count(1)

    # -- values: call these only with the turn -------------------------------------------------------

    def put(self, name: str, payload: bytes) -> None:
        self.namespace.put(name, Entry(next(self.versions), payload))
        self.announce(name)

    def shape(self, name: str) -> Shape:
        """Return the shape of the value at `name`."""
        if name in self.registers:
            return Shape.REGISTER
        entry = self.namespace.get(name)
        return Shape.CELL if entry is None or entry.ops is None else Shape.BUCKET

    def put_bucket(self, name: str, ops: bytes, flags: int) -> None:
        version = next(self.versions)
        self.namespace.put(name, Entry(version, ops=bytearray(ops), flags=flags, identity=version))
        self.announce(name)

    def extend(self, name: str, ops: bytes) -> None:
        """Append `ops` to the bucket at `name`, which is created if there is none."""
        entry = self.namespace.get(name)
        if entry is None:
            self.put_bucket(name, ops, 0)
            return
        assert entry.ops is not None
        entry.ops += ops
        entry.version = next(self.versions)
        self.announce(name)

    def remove(self, name: str) -> Entry | None:
        entry = self.namespace.remove(name)
        if entry is not None:
            self.announce(name)
        return entry

    def check_whole(self, name: str, entry: Entry | None) -> None:
        """Move `entry`, which was read at `name`, to quarantine if it is damaged. Raises `CorruptValue` then."""
        if entry is not None and entry.damage is not None:
            reason = entry.damage
            refuge = self.quarantine(name, entry, reason)
            text = f"the value of {name!r} is damaged ({reason}); its bytes are kept at {refuge}. Set the key again"
            raise CorruptValue(text, key=name, path=name, quarantine=refuge, reason=reason)

    def quarantine(self, name: str, entry: Entry, reason: str) -> str:
        """Move `entry` from `name` to quarantine; returns its name there."""
        refuge = f".psync/quarantine/{next(self.versions)}-{name.replace('/', '%2F')}"
        self.remove(name)
        entry.damage = reason
        self.namespace.put(refuge, entry)
        return refuge

    def announce(self, name: str) -> None:
        """Wake every watch of `name`, which has changed."""
        watches = self.watching.get(name)
        if watches:
            for watch in watches:
                watch.fired = True
            self.condition.notify_all()

    # -- owners -------------------------------------------------------------------------------------

    def new_owner(self, pid: int) -> int:
        number = len(self.owners) + 1  # 0 is nobody
        self.owners[number] = OwnerFacts(pid, self.clock.now())
        return number

    def retire(self, owner: int) -> None:
        """End `owner`, and wake every watch."""
        self.owners[owner] = self.owners[owner]._replace(alive=False)
        for watches in self.watching.values():  # many waiters wait for a death
            for watch in watches:
                watch.fired = True
        self.condition.notify_all()

    def free_all_of(self, owner: int) -> None:
        """End `owner`, which was killed, and free its mutexes and locks."""
        self.mutexes = {name: holder for name, holder in self.mutexes.items() if holder != owner}
        self.locks = {key: lock for key, lock in self.locks.items() if lock.owner != owner}
        self.retire(owner)
