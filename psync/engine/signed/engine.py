"""The contract's verbs around another engine's: sealed on the way down, checked on the way up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from psync.engine.address import SIGNED_MARKER
from psync.engine.contract.bucket import Position, Tail
from psync.engine.contract.engine import Engine, Mutex, Watch
from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive, Cell, Durability, Format, Update, Version
from psync.engine.signed.keys import Keys
from psync.engine.signed.shapes import SignedBucket, SignedLog, SignedRegister
from psync.engine.signed.signature import CELL, Broken, Signer, encoded, items_of
from psync.errors import CorruptValue

MARKER = SIGNED_MARKER
"""The cell that says that a store is sealed (see `marker`)."""


class SignedEngine(Engine):
    """`engine`, with everything in it sealed with `keys`. Made by `opened`, which finds out the store's id."""

    def __init__(self, engine: Engine, keys: Keys, store: bytes) -> None:
        self.inner = engine
        self.keys = keys
        self.store = store
        self.spin, self.grace, self.helpers = engine.spin, engine.grace, engine.helpers
        self.remote = engine.remote
        self._sealer = Signer(keys, store)
        self._registers: dict[str, SignedRegister] = {}

    def __repr__(self) -> str:
        return f"<SealedEngine {self.keys.seal_name.hex()} around {self.inner!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.inner, self.keys)

    @property
    def root(self) -> str | None:
        """The directory, if there is one."""
        return getattr(self.inner, "root", None)

    @property
    def opened_with(self) -> tuple[Any, ...] | None:
        """As the inner engine's, with the names of the keys."""
        inner: tuple[Any, ...] | None = getattr(self.inner, "opened_with", None)
        return None if inner is None else (inner, self.keys.names)

    @property
    def durability(self) -> Durability:  # type: ignore[override]
        return self.inner.durability

    @property
    def format(self) -> Format | None:
        return self.inner.format

    @format.setter
    def format(self, format: Format | None) -> None:
        self.inner.format = format

    def at(self, durability: Durability | None) -> SignedEngine:
        inner = self.inner.at(durability)
        return self if inner is self.inner else SignedEngine(inner, self.keys, self.store)

    # -- cells -----------------------------------------------------------------------------------------

    def _open(self, name: str, cell: Cell) -> Cell:
        try:
            return Cell(self._sealer.open_cell(encoded(name), cell.payload), cell.version)
        except Broken as error:
            raise self._damaged(name, str(error), cell.version) from error

    def _damaged(self, name: str, reason: str, seen: Version = ()) -> CorruptValue:
        refuge = self.set_aside(name, reason, seen)
        kept = f"its bytes are kept at {refuge}" if refuge else "it was left as it is"
        return CorruptValue(
            f"{name!r} can't be trusted: {reason}. It was not unpickled; {kept}. Set it again, or restore it from a "
            "backup",
            key=name,
            quarantine=refuge,
            reason=reason,
        )

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        cell = self.inner.read(name, known)
        return cell if cell is None or cell is known else self._open(name, cell)

    def write(self, name: str, payload: bytes) -> None:
        self.inner.write(name, self._sealer.seal(CELL, encoded(name), payload))

    def create(self, name: str, payload: bytes) -> bool:
        return self.inner.create(name, self._sealer.seal(CELL, encoded(name), payload))

    def delete(self, name: str) -> bool:
        return self.inner.delete(name)

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        seen: list[Cell] = []

        def look(cell: Cell) -> None:
            payload = self._sealer.open_cell(encoded(name), cell.payload)
            seen.append(Cell(payload, cell.version))
            if before is not None:
                before(seen[0])

        try:
            popped = self.inner.pop(name, look)
        except Broken as error:
            raise self._damaged(name, str(error)) from error
        return None if popped is None else seen[0]

    def move(self, name: str, new: str) -> bool:
        """A seal is for one name, so the value is sealed anew. Killed in the middle, it stands under both names."""
        moved = False

        def copy(cell: Cell) -> None:
            nonlocal moved
            moved = self.create(new, cell.payload)
            if not moved:
                raise _Taken
            if (ops := items_of(cell.payload)) is not None:
                with self.bucket(new).held() as held:
                    if held is not None:
                        held.replace(ops)

        with contextlib.suppress(_Taken):
            self.pop(name, copy)
        return moved

    def update(self, name: str, function: Update) -> bytes | None:
        result: bytes | None = None

        def change(data: bytes | None) -> bytes | None:
            nonlocal result
            old = None if data is None else self._sealer.open_cell(encoded(name), data)
            new = function(old)
            if new is None or new is old:
                result = old
                return data
            result = new
            return self._sealer.seal(CELL, encoded(name), new)

        try:
            self.inner.update(name, change)
        except Broken as error:
            raise self._damaged(name, str(error)) from error
        return result

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        return self.inner.entries(folder)

    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        return self.inner.list(folder, hidden=hidden)

    # -- the other shapes ------------------------------------------------------------------------------

    def bucket(self, name: str) -> SignedBucket:
        return SignedBucket(self, name, self.inner.bucket(name))

    def tails(self, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
        for name, tail in self.inner.tails(since):
            yield name, self.bucket(name).checked(tail)

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        self.inner.append_all({name: self._sealer.piece(encoded(name), each) for name, each in ops.items()})

    def log(self, name: str) -> SignedLog:
        return SignedLog(self, name, self.inner.log(name))

    def register(self, name: str) -> SignedRegister:
        register = self._registers.get(name)
        if register is None:
            made = SignedRegister(self, name, self.inner.register(name))
            register = self._registers.setdefault(name, made)
        return register

    def mutex(self, name: str) -> Mutex:
        return self.inner.mutex(name)

    def guard(self, name: str) -> AbstractContextManager[None]:
        return self.inner.guard(name)

    # -- all else is the inner engine's ----------------------------------------------------------------

    def watch(self, names: Sequence[str], taking: str | None = None) -> AbstractContextManager[Watch]:
        return self.inner.watch(names, taking)

    def announce(self, name: str) -> None:
        self.inner.announce(name)

    def give_way(self) -> None:
        self.inner.give_way()

    def now(self) -> float:
        return self.inner.now()

    def due(self, seconds: float) -> int:
        return self.inner.due(seconds)

    def until(self, due: int) -> float | None:
        return self.inner.until(due)

    def owner(self) -> int:
        return self.inner.owner()

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self.inner.at_leaving(farewell)

    def alive(self, owner: int) -> Alive:
        return self.inner.alive(owner)

    def describe(self, owner: int) -> str:
        return self.inner.describe(owner)

    def is_used(self) -> bool:
        return self.inner.is_used()

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        """Without what says that the store is sealed: the values are told as what they are without their seals."""
        return (each for each in self.inner.walk(folder) if each[1] != MARKER)

    def facts(self, name: str) -> Facts | None:
        return self.inner.facts(name)

    def mutexes(self) -> Sequence[str]:
        return self.inner.mutexes()

    def processes(self) -> Sequence[Process]:
        return self.inner.processes()

    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        return self.inner.set_aside(name, reason, seen)

    def sweep(self) -> int:
        return self.inner.sweep()

    def close(self) -> None:
        self.inner.close()

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        return self.inner.keep(name, data, reason)


class _Taken(Exception):
    """The new name is taken, so nothing is moved."""


def _arrived(engine: Engine, keys: Keys) -> Engine:
    from psync.engine.store_marker import opened

    return opened(engine, keys)
