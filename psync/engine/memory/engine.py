"""Memory engine: does each verb as one step, before which a scheduler is called; composes the parts of the memory."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.engine import Engine, Mutex
from psync.engine.contract.log import Log
from psync.engine.contract.register import Register
from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive, Cell, Update, Version
from psync.engine.memory.bucket import MemoryBucket
from psync.engine.memory.clock import Clock, MonotonicClock
from psync.engine.memory.locks import MemoryMutex, MemoryWatch
from psync.engine.memory.log import MemoryLog
from psync.engine.memory.namespace import Entry
from psync.engine.memory.register import MemoryRegister, MemorySlots
from psync.engine.memory.state import State
from psync.engine.memory.turns import Turns
from psync.engine.system import exit_hooks
from psync.engine.system.reentry import takes_effect


class MemoryEngine(Engine):
    """All of the contract in one process's memory; `clock` is the real one unless a test passes its own.

    >>> engine = MemoryEngine()
    >>> engine.create("greeting", b"\\x80\\x05N."), engine.create("greeting", b"\\x80\\x05N.")
    (True, False)
    """

    spin = 0.0
    grace = 60.0
    """Every change is announced in one memory, even a death; a pause returns all the same, as the contract says."""
    slots = 0
    """The number of slots of each register: none, as they save nothing here. Tests set it."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.turns = Turns(State(clock or MonotonicClock()))
        self.helpers = clock is None
        self._farewells = exit_hooks.CloseCallbacks()
        self._slots: dict[str, MemorySlots] = {}

    def __repr__(self) -> str:
        return f"<MemoryEngine at {id(self.turns.state):#x}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a MemoryEngine can't travel to another process; use a directory for that")

    # -- cells --------------------------------------------------------------------------------------

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        with self.turns.turn("read", name) as state:
            return self._cell(name, state.namespace.get(name), known)

    def _cell(self, name: str, entry: Entry | None, known: Cell | None = None) -> Cell | None:
        if entry is None:
            return None
        self.turns.state.check_whole(name, entry)
        if known is not None and known.version == (entry.version,):
            return known
        return Cell(entry.pickle(), (entry.version,))

    def write(self, name: str, payload: bytes) -> None:
        with self.turns.changing("write", name) as state:
            state.put(name, bytes(payload))

    def create(self, name: str, payload: bytes) -> bool:
        with self.turns.changing("create", name) as state:
            if state.namespace.get(name) is not None:
                return False
            state.put(name, bytes(payload))
            return True

    def delete(self, name: str) -> bool:
        with self.turns.changing("delete", name) as state:
            return state.remove(name) is not None

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        with self.turns.changing("pop", name) as state:
            cell = self._cell(name, state.namespace.get(name))
            if cell is not None and before is not None:
                before(cell)
            state.remove(name)
            return cell

    def move(self, name: str, new: str) -> bool:
        with self.turns.changing("move", name) as state:
            self.turns.until(lambda: self.turns.is_free(("name", name)) and self.turns.is_free(("name", new)))
            entry = state.namespace.get(name)
            if entry is None or state.namespace.get(new) is not None:
                return False
            state.namespace.check(new)
            state.remove(name)
            state.namespace.put(new, entry)
            state.announce(new)
            return True

    def update(self, name: str, function: Update) -> bytes | None:
        self.turns.step("update", name)
        with self.turns.holding(("name", name)):
            with self.turns.alone():
                self.turns.check_alive()
                cell = self._cell(name, self.turns.state.namespace.get(name))
                if cell is None:
                    self.turns.state.namespace.check(name)
            old = cell.payload if cell else None
            new = function(old)  # without the turn: it may be slow, and look at other names
            if new is None or new is old:
                return old
            with self.turns.alone():
                self.turns.check_alive()
                self.turns.state.put(name, bytes(new))
            return new

    def entries(self, folder: str = "") -> tuple[builtins.list[str], builtins.list[str]]:
        with self.turns.turn("entries", folder) as state:
            found = state.namespace.folder(folder)
            names = [name for name, inner in found.items() if isinstance(inner, Entry)]
            return names, [name for name, inner in found.items() if not isinstance(inner, Entry)]

    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        with self.turns.turn("list", folder) as state:
            return iter(tuple(state.namespace.names(folder, hidden=hidden)))

    # -- the other shapes, waiting and time ---------------------------------------------------------

    def bucket(self, name: str) -> Bucket:
        return MemoryBucket(self.turns, name)

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        with self.turns.turn("append_all", " ".join(sorted(ops))) as state:
            self.turns.until(lambda: all(self.turns.is_free(("name", name)) for name in ops))
            for name in ops:
                entry = state.namespace.get(name)
                state.check_whole(name, entry)
                if entry is None:
                    state.namespace.check(name)
                elif entry.ops is None:
                    raise ValueError(f"{name!r} is one pickle of something else's; replace it first")
            for name, more in ops.items():
                state.extend(name, more)

    def log(self, name: str) -> Log:
        return MemoryLog(self.turns, name)

    def register(self, name: str) -> Register:
        self.turns.state.registers.add(name)
        slots = self._slots.get(name)
        if slots is None and self.slots:
            slots = self._slots.setdefault(name, MemorySlots(self.turns, name, self.slots))
        return MemoryRegister(name, self.read, self.update, slots)

    def mutex(self, name: str) -> Mutex:
        return MemoryMutex(self.turns, name)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        self.turns.step("guard", name)
        with self.turns.holding(("guard", name)):
            yield

    def watch(self, names: Sequence[str], taking: str | None = None) -> MemoryWatch:
        return MemoryWatch(self.turns, names if taking is None else [*names, taking], self.grace)

    @takes_effect
    def announce(self, name: str) -> None:
        with self.turns.turn("announce", name) as state:
            state.announce(name)

    def give_way(self) -> None:
        """Do nothing: every waiter here sleeps."""

    def now(self) -> float:
        return self.turns.state.clock.now()

    def due(self, seconds: float) -> int:
        return math.ceil((self.now() + seconds) * 1000)

    def until(self, due: int) -> float | None:
        return due / 1000 - self.now()

    # -- owners -------------------------------------------------------------------------------------

    def owner(self) -> int:
        return self.turns.owner()

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._farewells.add(farewell)

    def alive(self, owner: int) -> Alive:
        with self.turns.turn("alive", str(owner)) as state:
            facts = state.owners.get(owner)
            if facts is None:
                return Alive.UNKNOWN
            return Alive.YES if facts.alive else Alive.NO

    def describe(self, owner: int) -> str:
        with self.turns.turn("describe", str(owner)) as state:
            facts = state.owners.get(owner)
        if facts is None:
            return f"owner {owner}, of whom nothing is known"
        return f"owner {owner} in pid {facts.pid} since {facts.since:.3f}{'' if facts.alive else ', dead'}"

    def as_owner(self) -> MemoryEngine:
        """Return an engine of another owner of the same memory, as a second process is one of a directory."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.turns = self.turns.as_owner()
        other._farewells = exit_hooks.CloseCallbacks()
        other._slots = {}
        return other

    def die(self) -> None:
        """End this owner like a killed process: it is proved dead, and its mutexes are free.

        Its further verbs, and those that wait already, raise `Died`.
        """
        self.turns.die()

    # -- looking at the whole -----------------------------------------------------------------------

    def is_used(self) -> bool:
        with self.turns.turn("is_used", "") as state:
            return bool(state.namespace.root or state.logs or state.owners)

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        with self.turns.turn("walk", folder) as state:
            below = f"{folder}/" if folder else ""
            names = state.namespace.names(folder, hidden=True)
            found = [(state.shape(name), name) for name in names]
            found += [(Shape.LOG, name) for name in state.logs if name.startswith(below)]
        return (each for each in found if not each[1].startswith(".psync/quarantine/"))

    def facts(self, name: str) -> Facts | None:
        with self.turns.turn("facts", name) as state:
            entry = state.namespace.get(name)
            return None if entry is None else Facts(len(entry.pickle()), None)

    def mutexes(self) -> Sequence[str]:
        with self.turns.turn("mutexes", "") as state:
            return [*state.mutexes]

    def processes(self) -> Sequence[Process]:
        with self.turns.turn("processes", "") as state:
            return [Process(number, None, Alive.YES, None) for number, facts in state.owners.items() if facts.alive]

    # -- housekeeping -------------------------------------------------------------------------------

    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        with self.turns.changing("set_aside", name) as state:
            entry = state.namespace.get(name)
            if entry is None or (entry.damage is None if seen is None else seen not in ((), (entry.version,))):
                return None  # () is whatever stands there
            return state.quarantine(name, entry, reason)

    def spoil(self, name: str, reason: str = "damaged by a test") -> None:
        """Damage the value at `name`, as a broken disk would: from now on it fails its check."""
        with self.turns.changing("spoil", name) as state:
            entry = state.namespace.get(name)
            if entry is None:
                raise KeyError(name)
            entry.damage = reason
            entry.version = next(state.versions)
            state.announce(name)

    def sweep(self) -> int:
        with self.turns.turn("sweep", ""):
            return 0  # verbs are steps here, so the dead leave nothing half done

    def close(self) -> None:
        """End the owner; a later verb is done as another one. A held mutex stays held."""
        self._farewells.run()
        self.turns.leave()
