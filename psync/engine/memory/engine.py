"""The engine in memory: cells, owners and housekeeping; every verb is one step that a scheduler can see coming."""

from __future__ import annotations

import builtins
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

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
from psync.engine.memory.namespace import Slot
from psync.engine.memory.register import MemoryRegister, MemorySeats
from psync.engine.memory.state import Died, Hold, Key, Space
from psync.engine.system import exit_hooks
from psync.errors import CorruptValue


class MemoryEngine(Engine):
    """All of the contract in one process's memory; `clock` is the real one unless a test brings its own.

    >>> engine = MemoryEngine()
    >>> engine.create("greeting", b"\\x80\\x05N."), engine.create("greeting", b"\\x80\\x05N.")
    (True, False)
    """

    spin = 0.0
    grace = 60.0
    """Nothing goes unannounced in one memory, not even a death; a pause returns all the same, as the contract says."""
    seats = 0
    """Of each register: none, as a change of it costs no more here. Tests want some."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._space = Space(clock or MonotonicClock())
        self.helpers = clock is None
        self._me = self._pid = 0
        self._farewells = exit_hooks.CloseCallbacks()
        self._seats: dict[str, MemorySeats] = {}

    def __repr__(self) -> str:
        return f"<MemoryEngine at {id(self._space):#x}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a MemoryEngine can't travel to another process; use a directory for that")

    # -- steps --------------------------------------------------------------------------------------

    def _step(self, verb: str, name: str) -> None:
        """Called before each verb, with no lock held. A scheduler overrides this: it may block, raise, or kill."""

    @contextmanager
    def _turn(self, verb: str, name: str, key: Key | None = None) -> Iterator[Space]:
        """One step, alone in the memory. With a `key`: once nobody else holds that."""
        self._step(verb, name)
        with self._space.turn:
            if key is not None:
                self._until(lambda: self._is_free(key))
            self._check_alive()
            yield self._space

    def _changing(self, verb: str, name: str) -> AbstractContextManager[Space]:
        return self._turn(verb, name, ("name", name))

    def _is_free(self, key: Key) -> bool:
        hold = self._space.holds.get(key)
        if hold is None:
            return True
        if hold.thread != threading.get_ident():
            return False
        if key[0] == "log" and hold.owner == self.owner():
            return True
        raise RuntimeError(f"{key[1]!r} is held by this very thread, which would wait for itself for ever")

    def _until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, giving up the turn, until `ready()`; False if that is not so after `timeout` seconds."""
        clock = self._space.clock
        until = None if timeout is None else clock.now() + timeout
        while not ready():
            if until is not None and clock.now() >= until:
                return False
            clock.wait(self._space.turn, until)
            self._check_alive()
        return True

    @contextmanager
    def _holding(self, key: Key) -> Iterator[None]:
        """Nobody else holds or changes `key` during the block. Begin it with the turn, let the block run without."""
        space = self._space
        with space.turn:
            self._until(lambda: self._is_free(key))
            hold = space.holds.setdefault(key, Hold(self.owner(), depth=0))
            hold.depth += 1
        try:
            yield
        finally:
            with space.turn:
                hold.depth -= 1
                if not hold.depth and space.holds.get(key) is hold:
                    del space.holds[key]
                    space.turn.notify_all()

    # -- cells --------------------------------------------------------------------------------------

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        with self._turn("read", name) as space:
            return self._cell(name, space.tree.get(name), known)

    def _cell(self, name: str, slot: Slot | None, known: Cell | None = None) -> Cell | None:
        if slot is None:
            return None
        self._check_whole(name, slot)
        if known is not None and known.version == (slot.version,):
            return known
        return Cell(slot.pickle(), (slot.version,))

    def _check_whole(self, name: str, slot: Slot | None) -> None:
        """What fails its check goes to quarantine; raises `CorruptValue` then. Call it with the turn."""
        if slot is not None and slot.spoilt is not None:
            reason = slot.spoilt
            refuge = self._quarantine(name, slot, reason)
            text = f"the value of {name!r} is damaged ({reason}); its bytes are kept at {refuge}. Set the key again"
            raise CorruptValue(text, key=name, path=name, quarantine=refuge, reason=reason)

    def _quarantine(self, name: str, slot: Slot, reason: str) -> str:
        space = self._space
        refuge = f".psync/quarantine/{next(space.versions)}-{name.replace('/', '%2F')}"
        space.remove(name)
        slot.spoilt = reason
        space.tree.put(refuge, slot)
        return refuge

    def write(self, name: str, payload: bytes) -> None:
        with self._changing("write", name) as space:
            space.put(name, bytes(payload))

    def create(self, name: str, payload: bytes) -> bool:
        with self._changing("create", name) as space:
            if space.tree.get(name) is not None:
                return False
            space.put(name, bytes(payload))
            return True

    def delete(self, name: str) -> bool:
        with self._changing("delete", name) as space:
            return space.remove(name) is not None

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        with self._changing("pop", name) as space:
            cell = self._cell(name, space.tree.get(name))
            if cell is not None and before is not None:
                before(cell)
            space.remove(name)
            return cell

    def move(self, name: str, new: str) -> bool:
        with self._changing("move", name) as space:
            self._until(lambda: self._is_free(("name", name)) and self._is_free(("name", new)))
            slot = space.tree.get(name)
            if slot is None or space.tree.get(new) is not None:
                return False
            space.tree.check(new)
            space.remove(name)
            space.tree.put(new, slot)
            space.announce(new)
            return True

    def update(self, name: str, function: Update) -> bytes | None:
        self._step("update", name)
        with self._holding(("name", name)):
            with self._space.turn:
                self._check_alive()
                cell = self._cell(name, self._space.tree.get(name))
                if cell is None:
                    self._space.tree.check(name)
            old = cell.payload if cell else None
            new = function(old)  # without the turn: it may be slow, and look at other names
            if new is None or new is old:
                return old
            with self._space.turn:
                self._check_alive()
                self._space.put(name, bytes(new))
            return new

    def entries(self, folder: str = "") -> tuple[builtins.list[str], builtins.list[str]]:
        with self._turn("entries", folder) as space:
            found = space.tree.folder(folder)
            names = [name for name, inner in found.items() if isinstance(inner, Slot)]
            return names, [name for name, inner in found.items() if not isinstance(inner, Slot)]

    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        with self._turn("list", folder) as space:
            return iter(tuple(space.tree.names(folder, hidden=hidden)))

    # -- the other shapes, waiting and time ---------------------------------------------------------

    def bucket(self, name: str) -> Bucket:
        return MemoryBucket(self, name)

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        with self._turn("append_all", " ".join(sorted(ops))) as space:
            self._until(lambda: all(self._is_free(("name", name)) for name in ops))
            for name in ops:
                slot = space.tree.get(name)
                self._check_whole(name, slot)
                if slot is None:
                    space.tree.check(name)
                elif slot.ops is None:
                    raise ValueError(f"{name!r} is one pickle of something else's; replace it first")
            for name, more in ops.items():
                space.extend(name, more)

    def log(self, name: str) -> Log:
        return MemoryLog(self, name)

    def register(self, name: str) -> Register:
        self._space.registers.add(name)
        seats = self._seats.get(name)
        if seats is None and self.seats:
            seats = self._seats.setdefault(name, MemorySeats(self, name, self.seats))
        return MemoryRegister(self, name, seats)

    def mutex(self, name: str) -> Mutex:
        return MemoryMutex(self, name)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        self._step("guard", name)
        with self._holding(("guard", name)):
            yield

    def watch(self, names: Sequence[str], taking: str | None = None) -> MemoryWatch:
        return MemoryWatch(self, names if taking is None else [*names, taking])

    def announce(self, name: str) -> None:
        with self._turn("announce", name) as space:
            space.announce(name)

    def give_way(self) -> None:
        """Nothing: who waits here sleeps."""

    def now(self) -> float:
        return self._space.clock.now()

    def due(self, seconds: float) -> int:
        return math.ceil((self.now() + seconds) * 1000)

    def until(self, due: int) -> float | None:
        return due / 1000 - self.now()

    # -- owners -------------------------------------------------------------------------------------

    def owner(self) -> int:
        with self._space.turn:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._me = self._space.new_owner(self._pid)
            return self._me

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._farewells.add(farewell)

    def alive(self, owner: int) -> Alive:
        with self._turn("alive", str(owner)) as space:
            facts = space.owners.get(owner)
            if facts is None:
                return Alive.UNKNOWN
            return Alive.YES if facts.alive else Alive.NO

    def describe(self, owner: int) -> str:
        with self._turn("describe", str(owner)) as space:
            facts = space.owners.get(owner)
        if facts is None:
            return f"owner {owner}, of whom nothing is known"
        return f"owner {owner} in pid {facts.pid} since {facts.since:.3f}{'' if facts.alive else ', dead'}"

    def as_owner(self) -> MemoryEngine:
        """The same memory as another owner sees it: what a second process would be to a directory."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._me = other._pid = 0
        other._farewells = exit_hooks.CloseCallbacks()
        other._seats = {}
        return other

    def die(self) -> None:
        """This owner ends like a killed process: proved dead, its mutexes free.

        Its further verbs, and those that wait already, raise `Died`.
        """
        with self._space.turn:
            self._space.bury(self.owner())

    def _check_alive(self) -> None:
        if self._me and not self._space.owners[self._me].alive:
            raise Died(f"owner {self._me} has died")

    # -- looking at the whole -----------------------------------------------------------------------

    def is_used(self) -> bool:
        with self._turn("is_used", "") as space:
            return bool(space.tree.root or space.logs or space.owners)

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        with self._turn("walk", folder) as space:
            below = f"{folder}/" if folder else ""
            names = space.tree.names(folder, hidden=True)
            found = [(space.shape(name), name) for name in names]
            found += [(Shape.LOG, name) for name in space.logs if name.startswith(below)]
        return (each for each in found if not each[1].startswith(".psync/quarantine/"))

    def facts(self, name: str) -> Facts | None:
        with self._turn("facts", name) as space:
            slot = space.tree.get(name)
            return None if slot is None else Facts(len(slot.pickle()), None)

    def mutexes(self) -> Sequence[str]:
        with self._turn("mutexes", "") as space:
            return [*space.mutexes]

    def processes(self) -> Sequence[Process]:
        with self._turn("processes", "") as space:
            return [Process(number, None, Alive.YES, None) for number, facts in space.owners.items() if facts.alive]

    # -- housekeeping -------------------------------------------------------------------------------

    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        with self._changing("set_aside", name) as space:
            slot = space.tree.get(name)
            if slot is None or (slot.spoilt is None if seen is None else seen not in ((), (slot.version,))):
                return None  # () is whatever stands there
            return self._quarantine(name, slot, reason)

    def spoil(self, name: str, reason: str = "damaged by a test") -> None:
        """Damage what stands at `name`, as a broken disk would: from now on it fails its check."""
        with self._changing("spoil", name) as space:
            slot = space.tree.get(name)
            if slot is None:
                raise KeyError(name)
            slot.spoilt = reason
            slot.version = next(space.versions)
            space.announce(name)

    def sweep(self) -> int:
        with self._turn("sweep", ""):
            return 0  # verbs are steps here, so the dead leave nothing half done

    def close(self) -> None:
        """Nothing to give back but the owner: used again, this is another one. A mutex that is held stays so."""
        self._farewells.say()
        with self._space.turn:
            if self._me and self._pid == os.getpid():
                self._space.retire(self._me)
            self._me = self._pid = 0
