"""Buckets, logs and registers of a sealed store."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.contract.log import WAITING, Change, Counts, Log, Mark, Record, State
from psync.engine.contract.register import Register
from psync.engine.contract.values import Update
from psync.engine.signed.signature import RECORD, REGISTER, Broken, encoded
from psync.engine.system import clock
from psync.errors import CorruptValue

if TYPE_CHECKING:
    from psync.engine.signed.engine import SignedEngine


class SignedBucket(Bucket):
    def __init__(self, engine: SignedEngine, name: str, inner: Bucket) -> None:
        self._engine = engine
        self._name = name
        self._inner = inner
        self._encoded = encoded(name)

    def _opened(self, tail: Tail) -> Tail:
        """Raises `Broken`."""
        if not tail.ops:
            return tail
        opened = self._engine._sealer.open_cell if tail.foreign else self._engine._sealer.pieces
        return tail._replace(ops=opened(self._encoded, tail.ops))

    def tail(self, since: Position | None = None) -> Tail | None:
        return self.checked(self._inner.tail(since))

    def checked(self, tail: Tail | None) -> Tail | None:
        """What `tail` says to who has the key."""
        try:
            return None if tail is None else self._opened(tail)
        except Broken as error:
            raise self._engine._damaged(self._name, str(error)) from error

    def append(self, ops: bytes) -> int:
        return self._inner.append(self._engine._sealer.piece(self._encoded, ops))

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        try:
            with self._inner.held() as held:
                yield None if held is None else _SealedHeld(self, held)
        except _HeldBroken as error:
            if error.bucket is not self:
                raise  # another one that is held, too
            raise self._engine._damaged(self._name, str(error)) from error


class _HeldBroken(Exception):
    """A held bucket can't be trusted; reported when it is let go, because setting it aside takes its lock."""

    def __init__(self, bucket: SignedBucket, reason: str) -> None:
        super().__init__(reason)
        self.bucket = bucket


class _SealedHeld(HeldBucket):
    def __init__(self, bucket: SignedBucket, inner: HeldBucket) -> None:
        self._bucket = bucket
        self._inner = inner

    def tail(self, since: Position | None = None) -> Tail:
        try:
            return self._bucket._opened(self._inner.tail(since))
        except Broken as error:
            raise _HeldBroken(self._bucket, str(error)) from error

    def append(self, ops: bytes) -> Position:
        return self._inner.append(self._bucket._engine._sealer.piece(self._bucket._encoded, ops))

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        piece = self._bucket._engine._sealer.piece(self._bucket._encoded, ops)
        self._inner.replace(piece, flags=flags, durable=durable)

    def secure(self) -> None:
        self._inner.secure()

    def drop(self) -> None:
        self._inner.drop()


class SignedLog(Log):
    """A record that can't be trusted is never taken: it is DEAD, its bytes are kept, and a RuntimeWarning says so."""

    def __init__(self, engine: SignedEngine, name: str, inner: Log) -> None:
        self._engine = engine
        self._name = name
        self._inner = inner
        self._sealer = engine._sealer
        self._encoded = encoded(name)
        self.settle = inner.settle  # type: ignore[method-assign]

    def answer(self, position: int, held: Mark, new: Mark, bucket: Bucket, ops: bytes) -> int | None:
        assert isinstance(bucket, SignedBucket)
        return self._inner.answer(position, held, new, bucket._inner, self._sealer.piece(bucket._encoded, ops))

    def settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        return self._inner.settle_all([self._sealed(change) for change in changes])

    def _sealed(self, change: Change) -> Change:
        bucket = change.bucket
        if bucket is None:
            return change
        assert isinstance(bucket, SignedBucket)
        return change._replace(bucket=bucket._inner, ops=self._sealer.piece(bucket._encoded, change.ops))

    def _opened(self, record: Record) -> Record:
        """Raises `Broken`."""
        return record._replace(payload=self._sealer.open(RECORD, self._encoded, record.payload)[0])

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        seal, name = self._sealer.seal, self._encoded
        return self._inner.append([seal(RECORD, name, payload) for payload in payloads], mark)

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        while True:
            taken = self._inner.take(owner, limit, beat, lease)
            self.noted, self.sealed = self._inner.noted, self._inner.sealed
            opened = []
            for number, record in enumerate(taken):
                try:
                    opened.append(self._opened(record))
                except Broken as error:
                    self._retire(record, str(error))
                except BaseException:
                    self._give_back([*opened, *taken[number:]])
                    raise
            if opened or not taken:
                return opened

    def _give_back(self, records: Sequence[Record]) -> None:
        for record in reversed(records):
            self._inner.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt - 1))

    def _retire(self, record: Record, reason: str) -> None:
        where = f"{self._name}#{record.position:x}"
        refuge = self._engine.inner.keep(where, record.payload, reason)
        if self._inner.settle(record.position, record.mark, Mark(State.DEAD, record.mark.attempt)):
            text = f"the record {where!r} can't be trusted: {reason}. It was not unpickled; it is kept at {refuge}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)

    def settle(  # what a record holds plays no part, so in every handle it is the inner log's
        self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None
    ) -> bool:
        return self._inner.settle(position, held, new, before)

    def read(self, position: int) -> Record | None:
        record = self._inner.read(position)
        if record is None:
            return None
        try:
            return self._opened(record)
        except Broken as error:
            where = f"{self._name}#{position:x}"
            raise CorruptValue(
                f"the record {where!r} can't be trusted: {error}. It was not unpickled", key=where, reason=str(error)
            ) from error

    def lost(self, position: int) -> bool:
        return self._inner.lost(position)

    def claims(self) -> list[Record]:
        opened = []
        for record in self._inner.claims():
            try:
                opened.append(self._opened(record))
            except Broken as error:
                self._retire(record, str(error))
        return opened

    def unfinished(self) -> Iterator[Record]:
        """What can't be trusted is passed over, with a RuntimeWarning; nothing is done about it."""
        for record in self._inner.unfinished():
            try:
                yield self._opened(record)
            except Broken as error:
                where = f"{self._name}#{record.position:x}"
                text = f"the record {where!r} can't be trusted: {error}. It was not unpickled, and passed over"
                warnings.warn(text, RuntimeWarning, stacklevel=2)

    def delayed(self) -> list[tuple[int, Mark]]:
        return self._inner.delayed()

    def finished(self) -> bool:
        return self._inner.finished()

    def counts(self) -> Counts:
        counts = self._inner.counts()
        self.noted, self.sealed = self._inner.noted, self._inner.sealed
        return counts

    def begin(self, at: int, appended: int) -> bool:
        return self._inner.begin(at, appended)

    def seal(self, sealed: bool = True) -> None:
        self._inner.seal(sealed)

    def note(self, change: Callable[[int], int]) -> None:
        self._inner.note(change)

    def held(self) -> AbstractContextManager[None]:
        return self._inner.held()


class SignedRegister(Register):
    """Its generation grows with each change. One register a name in an engine: all handles know the last one."""

    def __init__(self, engine: SignedEngine, name: str, inner: Register) -> None:
        self._name = name
        self._inner = inner
        self._sealer = engine._sealer
        self._encoded = encoded(name)
        self._seen: tuple[bytes | None, bytes | None, int] = None, None, 0
        """What was read last, its payload, its generation. One tuple: threads share it."""

    def read(self) -> bytes | None:
        known = self._seen
        data = self._inner.read()
        return known[1] if data == known[0] else self._opened(data, known[2])[1]

    def _opened(self, data: bytes | None, least: int = 0) -> tuple[bytes | None, bytes | None, int]:
        """`least`: the generation that was the last one before `data` was read."""
        seen = self._seen
        if data == seen[0]:
            return seen
        if data is None:
            seen = None, None, 0
        else:
            try:
                payload, generation = self._sealer.open(REGISTER, self._encoded, data)
                if generation < least:
                    raise Broken(f"it was put back from its change number {least} to {generation}")
            except Broken as error:
                raise CorruptValue(
                    f"the register {self._name!r} can't be trusted: {error}. It was not unpickled, and left as it is. "
                    "Remove it when nobody uses it, and begin anew",
                    key=self._name,
                    reason=str(error),
                ) from error
            seen = data, payload, generation
        self._seen = seen
        return seen

    def update(self, function: Update) -> bytes | None:
        known = latest = self._seen

        def change(data: bytes | None) -> bytes | None:
            nonlocal latest
            latest = _, old, generation = self._opened(data, known[2])
            new = function(old)
            if new is None or new is old:
                return data
            # begun anew, perhaps, after damage: then it must not look as if it was put back
            generation = generation + 1 if data is not None else clock.wall_ns()
            sealed = self._sealer.seal(REGISTER, self._encoded, new, generation)
            latest = sealed, new, generation
            return sealed

        self._inner.update(change)
        self._seen = latest
        return latest[1]
