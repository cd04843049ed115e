"""Overview: reads all that is in a store: queues, locks, barriers and the like, and the processes at them.

It changes nothing and makes no file, because it uses a read-only engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from psync.engine.admin import looking_engine
from psync.engine.contract.report import Process
from psync.engine.contract.values import Alive
from psync.errors import PsyncError
from psync.sync.barrier.barrier import Barrier, BarrierStatistics
from psync.sync.condition import Condition
from psync.sync.counter import Counter
from psync.sync.double_barrier import DoubleBarrier
from psync.sync.event import Event
from psync.sync.group import Group, GroupStatistics
from psync.sync.latch import Latch
from psync.sync.primitive import given_name, own_name
from psync.sync.queue.claims import owners_in
from psync.sync.queue.work_queue import QueueStatistics, WorkQueue, internals_of
from psync.sync.read_write_lock import ReadWriteLock
from psync.sync.semaphore import BoundedSemaphore, Semaphore, SemaphoreStatistics

OWN = ".psync"


class Claim(NamedTuple):
    """A claimed task."""

    id: str
    attempt: int
    begun: bool
    """False if the task is prefetched only."""
    who: str
    owner: int


class Queue(NamedTuple):
    name: str
    counts: QueueStatistics
    claims: tuple[Claim, ...]


class Held(NamedTuple):
    """A held lock, or an election that has a leader."""

    kind: str
    name: str
    who: str


class Named(NamedTuple):
    """A primitive of some kind, and its `statistics`."""

    kind: str
    name: str
    seen: Any


class Trouble(NamedTuple):
    """A name that can't be read, and why."""

    name: str
    why: str


class Overview(NamedTuple):
    root: str
    queues: tuple[Queue, ...]
    barriers: tuple[tuple[str, BarrierStatistics], ...]
    """Barriers by name, double barriers too."""
    held: tuple[Held, ...]
    semaphores: tuple[tuple[str, SemaphoreStatistics], ...]
    groups: tuple[tuple[str, GroupStatistics], ...]
    others: tuple[Named, ...]
    processes: tuple[Process, ...]
    troubles: tuple[Trouble, ...]


class Observer:
    """An observer reads one store, again and again."""

    def __init__(self, root: str, *, trust_group: bool = False) -> None:
        self._engine = looking_engine(root, trust_group=trust_group)
        self._root = str(getattr(self._engine, "root", root))
        self._own: dict[str, list[str]] = {}
        """The names in psync's own folder at the last look, by kind of primitive."""
        self._troubles: list[Trouble] = []

    def look(self) -> Overview:
        self._troubles = []
        self._own = self._gathered()
        return Overview(
            self._root,
            tuple(self._queues()),
            (*self._each("barrier", lambda name: Barrier(self._engine, name, 1).statistics()), *self._double()),
            tuple(self._held()),
            # With how many permits one began is not stored: so all that the dead held count as free.
            (
                *self._each("semaphore", lambda name: Semaphore(self._engine, name, sys.maxsize).statistics()),
                *self._each("bounded", lambda name: BoundedSemaphore(self._engine, name, sys.maxsize).statistics()),
            ),
            tuple(self._each("group", lambda name: Group(self._engine, name).statistics())),
            tuple(self._others()),
            tuple(self._engine.processes()),
            tuple(self._troubles),
        )

    def close(self) -> None:
        self._engine.close()

    def _gathered(self) -> dict[str, list[str]]:
        """Return the names, each once, as `own_name` made them."""
        found: dict[str, dict[str, None]] = {}
        for _, where in self._engine.walk(OWN):
            kind, _, rest = where.removeprefix(f"{OWN}/").partition("/")
            if rest:
                found.setdefault(kind, {})[rest.partition("/")[0]] = None
        return {kind: sorted(names) for kind, names in found.items()}

    def _each(self, kind: str, look: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
        """Yield name and result of `look` for all primitives of a kind whose state is a register."""
        for segment in self._own.get(kind, ()):
            name = given_name(segment)
            found = self._tried(f"{kind} {name}", lambda: look(name))  # noqa: B023
            if found is not None:
                yield name, found

    def _tried(self, what: str, look: Callable[[], Any]) -> Any:
        """Return the result of `look`; None if that fails: a damaged name must not hide the rest."""
        try:
            return look()
        except (PsyncError, OSError) as error:
            self._troubles.append(Trouble(what, str(error)))
        except Exception as error:  # unpickling runs code that may raise anything; most often a class is missing
            self._troubles.append(Trouble(what, f"can't be unpickled here: {type(error).__name__}: {error}"))
        return None

    # -- kinds -------------------------------------------------------------------------------------------

    def _double(self) -> Iterator[tuple[str, BarrierStatistics]]:
        yield from self._each("double", lambda name: DoubleBarrier(self._engine, name, 1).statistics())

    def _others(self) -> Iterator[Named]:
        kinds: dict[str, Callable[[str], Any]] = {
            "rwlock": lambda name: ReadWriteLock(self._engine, name),
            "condition": lambda name: Condition(self._engine, name),
            "event": lambda name: Event(self._engine, name),
            "latch": lambda name: Latch(self._engine, name, 0),
            "counter": lambda name: Counter(self._engine, name),
        }
        for kind, make in kinds.items():
            for name, seen in self._each(kind, lambda name: make(name).statistics()):  # noqa: B023
                yield Named(kind, name, seen)

    def _held(self) -> Iterator[Held]:
        for mutex in sorted(self._engine.mutexes()):
            kind, _, name = mutex.partition("/")
            owner = self._engine.mutex(f"{kind}/{name}").holder()
            if owner:
                yield Held(kind, name, self._engine.describe(owner))

    def _queues(self) -> Iterator[Queue]:
        for name in map(given_name, self._own.get("queue", ())):
            found = self._tried(f"queue {name}", lambda: self._queue(name))  # noqa: B023
            if found is not None:
                yield found

    def _queue(self, name: str) -> Queue:
        queue = WorkQueue(self._engine, name)
        holders = self._engine.entries(f"{own_name('queue', name)}/holders")[0]
        living = sum(self._engine.alive(owner) is not Alive.NO for owner in owners_in(holders))
        claims = []
        for id, attempt, begun, owner in internals_of(queue).claims.listed():
            who = self._engine.describe(owner) + " (dead)" * (self._engine.alive(owner) is Alive.NO)
            claims.append(Claim(id, attempt, begun, who, owner))
        return Queue(name, queue.statistics()._replace(workers=living), tuple(claims))
