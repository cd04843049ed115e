"""Signed engine: signs what it hands down to another engine, verifies what comes up, and forwards all other verbs.

A signed store has a marker, ``.psync/seal``. It holds the store's id, which goes into every signature, and for each key
that ever opened the store a tag of that id. The fact that decides: whether the marker is there, and whether it has the
tag of a key that was given. It is read before all else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from psync.engine.contract.bucket import Position, Tail
from psync.engine.contract.engine import Engine
from psync.engine.contract.report import Shape
from psync.engine.contract.values import Cell, Durability, Format, Update, Version
from psync.engine.encoding.framing import as_pickle
from psync.engine.signed.forwarding import forwarded
from psync.engine.signed.keys import TAG_BYTES, Keys
from psync.engine.signed.shapes import SignedBucket, SignedLog, SignedRegister
from psync.engine.signed.signature import CELL, BadSignature, Signer, encoded, items_of
from psync.engine.store_marker import SIGNATURE_MARKER, check_unsigned, is_empty, wrong
from psync.errors import CorruptValue

_MAGIC = b"psync seal 1\n"
_ID_BYTES = 16


class SignedEngine(Engine):
    """`engine`, with everything in it signed with `keys`. Made by `opened`, which finds out the store's id."""

    signed = True

    def __init__(self, engine: Engine, keys: Keys, store: bytes) -> None:
        self.inner = engine
        self.keys = keys
        self.store = store
        self.spin, self.grace, self.helpers = engine.spin, engine.grace, engine.helpers
        self.remote, self.read_only = engine.remote, engine.read_only
        self._signer = Signer(keys, store)
        self._spares: Callable[[], bool] = bool
        self._registers: dict[str, SignedRegister] = {}

    def __repr__(self) -> str:
        return f"<SignedEngine {self.keys.signing_name.hex()} around {self.inner!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return opened, (self.inner, self.keys)

    @property
    def root(self) -> str | None:
        """The directory, if there is one."""
        return getattr(self.inner, "root", None)

    @property
    def opened_with(self) -> tuple[Any, ...] | None:
        """As the inner engine's, with the names of the keys."""
        inner: tuple[Any, ...] | None = getattr(self.inner, "opened_with", None)
        return None if inner is None else (inner, self.keys.names)

    durability: Durability = forwarded("inner.durability")
    own_folders: Collection[str] = forwarded("inner.own_folders")

    def is_gone(self) -> bool:
        return self.inner.is_gone()

    @property
    def format(self) -> Format | None:
        return self.inner.format

    @format.setter
    def format(self, format: Format | None) -> None:
        self.inner.format = format

    def at(self, durability: Durability | None) -> SignedEngine:
        inner = self.inner.at(durability)
        return self if inner is self.inner else SignedEngine(inner, self.keys, self.store)

    def spare_damaged(self, when: Callable[[], bool]) -> None:
        self._spares = when
        self.inner.spare_damaged(when)

    # -- cells -----------------------------------------------------------------------------------------

    def _verified(self, name: str, cell: Cell) -> Cell:
        try:
            return Cell(self._signer.verify_cell(encoded(name), cell.payload), cell.version)
        except BadSignature as error:
            raise self._damaged(name, str(error), cell.version, foreign=not cell.sealed) from error

    def _damaged(self, name: str, reason: str, seen: Version = (), *, foreign: bool = False) -> CorruptValue:
        refuge = None if self._spares() else self.set_aside(name, reason, seen)
        kept = f"its bytes are kept at {refuge}" if refuge else "it was left as it is"
        return CorruptValue(
            f"{name!r} can't be trusted: {reason}. It was not unpickled; {kept}. Set it again, or restore it from a "
            "backup",
            key=name,
            quarantine=refuge,
            reason=reason,
            foreign=foreign or None,
        )

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        cell = self.inner.read(name, known)
        return cell if cell is None or cell is known else self._verified(name, cell)

    def write(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> None:
        self.inner.write(name, self._signer.sign(CELL, encoded(name), payload), spare_bucket=spare_bucket)

    def create(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> bool:
        return self.inner.create(name, self._signer.sign(CELL, encoded(name), payload), spare_bucket=spare_bucket)

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        seen: list[Cell] = []

        def look(cell: Cell) -> None:
            payload = self._signer.verify_cell(encoded(name), cell.payload)
            seen.append(Cell(payload, cell.version))
            if before is not None:
                before(seen[0])

        try:
            popped = self.inner.pop(name, look)
        except BadSignature as error:
            raise self._damaged(name, str(error)) from error
        return None if popped is None else seen[0]

    def move(self, name: str, new: str) -> bool:
        """Sign the value anew, as a signature is for one name. A crash in the middle leaves it under both names."""
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

    def update(self, name: str, function: Update, *, spare_bucket: Callable[[], bool] | None = None) -> bytes | None:
        result: bytes | None = None

        def change(data: bytes | None) -> bytes | None:
            nonlocal result
            old = None if data is None else self._signer.verify_cell(encoded(name), data)
            new = function(old)
            if new is None or new is old:
                result = old
                return data
            result = new
            return self._signer.sign(CELL, encoded(name), new)

        try:
            self.inner.update(name, change, spare_bucket=spare_bucket)
        except BadSignature as error:
            raise self._damaged(name, str(error)) from error
        return result

    # -- the other shapes ------------------------------------------------------------------------------

    def bucket(self, name: str) -> SignedBucket:
        return SignedBucket(name, self.inner.bucket(name), self._signer, self._damaged)

    def tails(self, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
        for name, tail in self.inner.tails(since):
            yield name, self.bucket(name).checked(tail)

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        self.inner.append_all({name: self._signer.piece(encoded(name), each) for name, each in ops.items()})

    def log(self, name: str) -> SignedLog:
        return SignedLog(name, self.inner.log(name), self._signer, self.inner.keep)

    def register(self, name: str) -> SignedRegister:
        register = self._registers.get(name)
        if register is None:
            made = SignedRegister(name, self.inner.register(name), self._signer)
            register = self._registers.setdefault(name, made)
        return register

    # -- all else is the inner engine's ----------------------------------------------------------------

    delete = forwarded("inner.delete")
    entries = forwarded("inner.entries")
    list = forwarded("inner.list")
    mutex = forwarded("inner.mutex")
    guard = forwarded("inner.guard")
    watch = forwarded("inner.watch")
    announce = forwarded("inner.announce")
    give_way = forwarded("inner.give_way")
    now = forwarded("inner.now")
    due = forwarded("inner.due")
    until = forwarded("inner.until")
    owner = forwarded("inner.owner")
    at_leaving = forwarded("inner.at_leaving")
    alive = forwarded("inner.alive")
    describe = forwarded("inner.describe")
    is_used = forwarded("inner.is_used")
    facts = forwarded("inner.facts")
    mutexes = forwarded("inner.mutexes")
    processes = forwarded("inner.processes")
    set_aside = forwarded("inner.set_aside")
    sweep = forwarded("inner.sweep")
    close = forwarded("inner.close")
    keep = forwarded("inner.keep")

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        """Leaves out the marker of the store: the other names are told as in a store that is not signed."""
        return (each for each in self.inner.walk(folder) if each[1] != SIGNATURE_MARKER)


class _Taken(Exception):
    """The new name is taken, so nothing is moved."""


def opened(engine: Engine, keys: Keys | None) -> Engine:
    """Wrap `engine` so that all in it is signed with `keys`. A store in which nothing was ever stored becomes signed.

    Raises `UnsafeStore`, with nothing changed, if the store is sealed with other keys, or is and there are no keys, or
    is not and there are.
    """
    if isinstance(engine, SignedEngine):
        if keys is not None and keys != engine.keys:
            raise ValueError("this engine is sealed with other keys")
        return engine
    if keys is None:
        check_unsigned(engine)
        return engine
    marker = _marker(engine)
    if marker is None:
        if not is_empty(engine):
            raise wrong(
                engine,
                "was made without a key, so nobody knows who wrote what is in it",
                "open it without one, or, if you trust it, copy what is in it to a new one: psync dump, psync load",
            )
        store = os.urandom(_ID_BYTES)
        marker = as_pickle(_MAGIC + store + _entry(keys, store, keys.names[0]))
        if not engine.read_only:  # else there is nothing to read, whatever its id is
            engine.create(SIGNATURE_MARKER, marker)
            marker = _marker(engine) or b""
    return SignedEngine(engine, keys, _store_id(engine, keys, marker))


def _marker(engine: Engine) -> bytes | None:
    cell = engine.read(SIGNATURE_MARKER)
    return None if cell is None else cell.payload


def _entry(keys: Keys, store: bytes, name: bytes) -> bytes:
    """Return the tag of a store's id, which shows that the holder of the key of that name opened the store."""
    import hmac

    key = keys.named(name)
    assert key is not None
    return name + hmac.digest(key, b"psync: the store " + store, "sha256")


def _store_id(engine: Engine, keys: Keys, marker: bytes) -> bytes:
    """Return the store's id. If the marker knows one of `keys`, those that it does not know are added to it."""
    import hmac

    data = marker[7:-1]
    store, entries = data[len(_MAGIC) : len(_MAGIC) + _ID_BYTES], data[len(_MAGIC) + _ID_BYTES :]
    size = 4 + TAG_BYTES
    if not data.startswith(_MAGIC) or len(store) != _ID_BYTES or not entries or len(entries) % size:
        raise wrong(engine, f"has a damaged {SIGNATURE_MARKER}", "restore that file from a backup")
    known = {entries[at : at + 4]: entries[at : at + size] for at in range(0, len(entries), size)}
    ours = {name: _entry(keys, store, name) for name in keys.names}
    if not any(hmac.compare_digest(known.get(name, b""), entry) for name, entry in ours.items()):
        names = ", ".join(name.hex() for name in known)
        raise wrong(engine, f"is sealed with another key ({names}), not with {keys}", "give that one")
    if not set(ours) <= set(known):
        merged = b"".join({**known, **ours}.values())
        engine.update(SIGNATURE_MARKER, lambda old: old if old is None else as_pickle(_MAGIC + store + merged))
    return store
