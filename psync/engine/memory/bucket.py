"""Buckets in memory: each append extends one string of items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.memory.namespace import Entry
from psync.engine.memory.turns import Turns


class MemoryBucket(Bucket):
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name

    def __repr__(self) -> str:
        return f"<MemoryBucket {self._name!r}>"

    def tail(self, since: Position | None = None) -> Tail | None:
        with self._turns.turn("tail", self._name) as state:
            entry = state.namespace.get(self._name)
            state.check_whole(self._name, entry)
            return None if entry is None else _tail(entry, since)

    def append(self, ops: bytes) -> int:
        with self._turns.changing("append", self._name) as state:
            entry = state.namespace.get(self._name)
            state.check_whole(self._name, entry)
            if entry is not None and entry.ops is None:
                return 0
            state.extend(self._name, ops)
            return 1 + len(ops) + (len(entry.ops) if entry is not None and entry.ops is not None else 0)

    @contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        self._turns.step("held", self._name)
        with self._turns.holding(("name", self._name)):
            with self._turns.alone():
                there = self._turns.state.namespace.get(self._name) is not None
            if there:
                held = _Held(self._turns, self._name)
                try:
                    yield held
                finally:
                    held.over = True
                return
        yield None


class _Held(HeldBucket):
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name
        self.over = False

    def _entry(self) -> Entry:
        """Return the held value. Call this with the turn."""
        entry = self._turns.state.namespace.get(self._name)
        if self.over or entry is None:
            raise RuntimeError(f"the bucket {self._name!r} is not held any more")
        self._turns.state.check_whole(self._name, entry)
        return entry

    def tail(self, since: Position | None = None) -> Tail:
        with self._turns.turn("tail", self._name):
            return _tail(self._entry(), since)

    def append(self, ops: bytes) -> Position:
        with self._turns.turn("append", self._name) as state:
            entry = self._entry()
            if entry.ops is None:
                raise ValueError(f"{self._name!r} is one pickle of something else's; replace it first")
            state.extend(self._name, ops)
            return _tail(self._entry(), None).position

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        with self._turns.turn("replace", self._name) as state:
            self._entry()
            state.put_bucket(self._name, ops, flags)

    def secure(self) -> None:
        """Do nothing: no memory outlives a power cut."""

    def drop(self) -> None:
        with self._turns.turn("drop", self._name) as state:
            self._entry()
            state.remove(self._name)


def _tail(entry: Entry, since: Position | None) -> Tail:
    if entry.ops is None:
        position = Position((entry.version,), len(entry.payload), 0)
        new = since != position
        return Tail(entry.payload if new else b"", position, new, foreign=True)
    identity = (entry.identity,)
    new = since is None or since.identity != identity
    start = 0 if since is None or new else since.end
    return Tail(bytes(entry.ops[start:]), Position(identity, len(entry.ops), 0), new, entry.flags)
