"""What all looks at one memory share: names, logs, mutexes, owners, and the one lock that makes a verb one step."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from psync.engine.contract.register import Seat
from psync.engine.contract.report import Shape
from psync.engine.memory.clock import Clock
from psync.engine.memory.namespace import Slot, Tree

if TYPE_CHECKING:
    from psync.engine.memory.locks import MemoryWatch
    from psync.engine.memory.log import Records


class Died(SystemExit):
    """A verb was called for an owner that has died: like a killed process, its code goes no further.

    No error that a caller could handle, hence no `Exception`; a thread that ends with it ends silently.
    """


@dataclass(slots=True, eq=False)
class Hold:
    """Somebody keeps the others out of a name for the length of a block. Belongs to a thread of an owner."""

    owner: int
    thread: int = field(default_factory=threading.get_ident)
    depth: int = 1


class OwnerFacts(NamedTuple):
    pid: int
    since: float
    alive: bool = True


Key = tuple[str, str]
"""Shape and name of what is held: cells and buckets share their names, logs and mutexes have their own."""


class Space:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.turn = threading.Condition(threading.RLock())
        """Held for the length of each step; notified when something that somebody may wait for has changed."""
        self.tree = Tree()
        self.logs: dict[str, Records] = {}
        self.registers: set[str] = set()
        """Names that were used as registers, whose values are cells here,"""
        self.seats: dict[str, tuple[Seat, ...]] = {}
        """and the seats of those that were ever taken."""
        self.holds: dict[Key, Hold] = {}
        self.mutexes: dict[str, int] = {}
        self.tokens: dict[str, int] = {}
        self.watching: dict[str, set[MemoryWatch]] = {}
        self.owners: dict[int, OwnerFacts] = {}
        self.versions = count(1)

    # -- what stands at a name: call these only while `turn` is held --------------------------------

    def put(self, name: str, payload: bytes) -> None:
        self.tree.put(name, Slot(next(self.versions), payload))
        self.announce(name)

    def shape(self, name: str) -> Shape:
        """Of what stands at `name`."""
        if name in self.registers:
            return Shape.REGISTER
        slot = self.tree.get(name)
        return Shape.CELL if slot is None or slot.ops is None else Shape.BUCKET

    def put_bucket(self, name: str, ops: bytes, flags: int) -> None:
        version = next(self.versions)
        self.tree.put(name, Slot(version, ops=bytearray(ops), flags=flags, identity=version))
        self.announce(name)

    def extend(self, name: str, ops: bytes) -> None:
        """The bucket at `name` grows by `ops`; it begins if there is none."""
        slot = self.tree.get(name)
        if slot is None:
            self.put_bucket(name, ops, 0)
            return
        assert slot.ops is not None
        slot.ops += ops
        slot.version = next(self.versions)
        self.announce(name)

    def remove(self, name: str) -> Slot | None:
        slot = self.tree.remove(name)
        if slot is not None:
            self.announce(name)
        return slot

    def announce(self, name: str) -> None:
        """`name` has changed: whoever watches it looks again."""
        watches = self.watching.get(name)
        if watches:
            for watch in watches:
                watch.fired = True
            self.turn.notify_all()

    # -- owners -------------------------------------------------------------------------------------

    def new_owner(self, pid: int) -> int:
        number = len(self.owners) + 1  # 0 is nobody
        self.owners[number] = OwnerFacts(pid, self.clock.now())
        return number

    def retire(self, owner: int) -> None:
        """`owner` is nobody any more."""
        self.owners[owner] = self.owners[owner]._replace(alive=False)
        for watches in self.watching.values():  # a death is what many a waiter waits for
            for watch in watches:
                watch.fired = True
        self.turn.notify_all()

    def bury(self, owner: int) -> None:
        """`owner` was killed: what it kept others out of is free again."""
        self.mutexes = {name: holder for name, holder in self.mutexes.items() if holder != owner}
        self.holds = {key: hold for key, hold in self.holds.items() if hold.owner != owner}
        self.retire(owner)
