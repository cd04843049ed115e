"""Signed buckets, logs and registers sign bytes before they are stored, and verify them when they are read."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.contract.log import WAITING, Change, Log, Mark, Record, State
from psync.engine.contract.register import Register
from psync.engine.contract.values import Update, Version
from psync.engine.signed.forwarding import forwarded
from psync.engine.signed.signature import RECORD, REGISTER, BadSignature, Signer, encoded
from psync.engine.system import clock
from psync.errors import CorruptValue

Keep = Callable[[str, bytes, str], str | None]
"""Puts bytes that were found at a name into quarantine: see `Engine.keep`."""


class Damaged(Protocol):
    """Moves the value at `name` to quarantine; returns the error to raise."""

    def __call__(self, name: str, reason: str, seen: Version = ()) -> CorruptValue: ...


class SignedBucket(Bucket):
    def __init__(self, name: str, inner: Bucket, signer: Signer, damaged: Damaged) -> None:
        self._name = name
        self._inner = inner
        self._signer = signer
        self._damaged = damaged
        self._encoded = encoded(name)

    def verified(self, tail: Tail) -> Tail:
        """Return `tail` without the signatures. Raises `BadSignature`."""
        if not tail.ops:
            return tail
        verify = self._signer.verify_cell if tail.foreign else self._signer.pieces
        return tail._replace(ops=verify(self._encoded, tail.ops))

    def tail(self, since: Position | None = None) -> Tail | None:
        return self.checked(self._inner.tail(since))

    def checked(self, tail: Tail | None) -> Tail | None:
        """Verify `tail`; move a bucket that can't be trusted to quarantine. Raises `CorruptValue`."""
        try:
            return None if tail is None else self.verified(tail)
        except BadSignature as error:
            raise self._damaged(self._name, str(error)) from error

    def is_foreign(self) -> bool:
        return self._inner.is_foreign()

    def signed(self, ops: bytes) -> bytes:
        return self._signer.piece(self._encoded, ops)

    def append(self, ops: bytes) -> int:
        return self._inner.append(self._signer.piece(self._encoded, ops))

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        try:
            with self._inner.held() as held:
                yield None if held is None else _SignedHeld(self, held)
        except _BadHeld as error:
            if error.bucket is not self:
                raise  # it belongs to another bucket that is held, too
            raise self._damaged(self._name, str(error)) from error


class _BadHeld(Exception):
    """A held bucket can't be trusted. It is reported once it is released, because setting it aside takes its lock."""

    def __init__(self, bucket: SignedBucket, reason: str) -> None:
        super().__init__(reason)
        self.bucket = bucket


class _SignedHeld(HeldBucket):
    def __init__(self, bucket: SignedBucket, inner: HeldBucket) -> None:
        self._bucket = bucket
        self._inner = inner

    def tail(self, since: Position | None = None) -> Tail:
        try:
            return self._bucket.verified(self._inner.tail(since))
        except BadSignature as error:
            raise _BadHeld(self._bucket, str(error)) from error

    def append(self, ops: bytes) -> Position:
        return self._inner.append(self._bucket.signed(ops))

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        self._inner.replace(self._bucket.signed(ops), flags=flags, durable=durable)

    def secure(self) -> None:
        self._inner.secure()

    def drop(self) -> None:
        self._inner.drop()


class SignedLog(Log):
    """A record that can't be trusted is never taken: it is DEAD, its bytes are kept, and a RuntimeWarning says so."""

    def __init__(self, name: str, inner: Log, signer: Signer, keep: Keep) -> None:
        self._name = name
        self._inner = inner
        self._signer = signer
        self._keep = keep
        self._encoded = encoded(name)

    # These do not read payloads, so they are the inner log's.
    noted: int = forwarded("_inner.noted")
    sealed: bool = forwarded("_inner.sealed")
    settle = forwarded("_inner.settle")
    lost = forwarded("_inner.lost")
    delayed = forwarded("_inner.delayed")
    finished = forwarded("_inner.finished")
    counts = forwarded("_inner.counts")
    begin = forwarded("_inner.begin")
    seal = forwarded("_inner.seal")
    note = forwarded("_inner.note")
    held = forwarded("_inner.held")

    def answer(self, position: int, held: Mark, new: Mark, bucket: Bucket, ops: bytes) -> int | None:
        assert isinstance(bucket, SignedBucket)
        return self._inner.answer(position, held, new, bucket._inner, self._signer.piece(bucket._encoded, ops))

    def settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        return self._inner.settle_all([self._signed(change) for change in changes])

    def _signed(self, change: Change) -> Change:
        bucket = change.bucket
        if bucket is None:
            return change
        assert isinstance(bucket, SignedBucket)
        return change._replace(bucket=bucket._inner, ops=self._signer.piece(bucket._encoded, change.ops))

    def _verified(self, record: Record) -> Record:
        """Return the record without its signature. Raises `BadSignature`."""
        return record._replace(payload=self._signer.verify(RECORD, self._encoded, record.payload)[0])

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        sign, name = self._signer.sign, self._encoded
        return self._inner.append([sign(RECORD, name, payload) for payload in payloads], mark)

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        while True:
            taken = self._inner.take(owner, limit, beat, lease)
            verified = []
            for number, record in enumerate(taken):
                try:
                    verified.append(self._verified(record))
                except BadSignature as error:
                    self._retire(record, str(error))
                except BaseException:
                    self._give_back([*verified, *taken[number:]])
                    raise
            if verified or not taken:
                return verified

    def _give_back(self, records: Sequence[Record]) -> None:
        for record in reversed(records):
            self._inner.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt - 1))

    def _retire(self, record: Record, reason: str) -> None:
        where = f"{self._name}#{record.position:x}"
        refuge = self._keep(where, record.payload, reason)
        if self._inner.settle(record.position, record.mark, Mark(State.DEAD, record.mark.attempt)):
            text = f"the record {where!r} can't be trusted: {reason}. It was not unpickled; it is kept at {refuge}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)

    def read(self, position: int) -> Record | None:
        record = self._inner.read(position)
        if record is None:
            return None
        try:
            return self._verified(record)
        except BadSignature as error:
            where = f"{self._name}#{position:x}"
            raise CorruptValue(
                f"the record {where!r} can't be trusted: {error}. It was not unpickled", key=where, reason=str(error)
            ) from error

    def claims(self) -> list[Record]:
        verified = []
        for record in self._inner.claims():
            try:
                verified.append(self._verified(record))
            except BadSignature as error:
                self._retire(record, str(error))
        return verified

    def unfinished(self) -> Iterator[Record]:
        """Pass over records that can't be trusted, with a RuntimeWarning; they stay as they are."""
        for record in self._inner.unfinished():
            try:
                yield self._verified(record)
            except BadSignature as error:
                where = f"{self._name}#{record.position:x}"
                text = f"the record {where!r} can't be trusted: {error}. It was not unpickled, and passed over"
                warnings.warn(text, RuntimeWarning, stacklevel=2)


class SignedRegister(Register):
    """A register whose generation grows with each change. An engine has one a name, so all know the last generation."""

    def __init__(self, name: str, inner: Register, signer: Signer) -> None:
        self._name = name
        self._inner = inner
        self._signer = signer
        self._encoded = encoded(name)
        self._seen: tuple[bytes | None, bytes | None, int] = None, None, 0
        """The bytes that were read last, their payload and generation. One tuple, because threads share it."""

    def read(self) -> bytes | None:
        known = self._seen
        data = self._inner.read()
        return known[1] if data == known[0] else self._verified(data, known[2])[1]

    def _verified(self, data: bytes | None, least: int = 0) -> tuple[bytes | None, bytes | None, int]:
        """Return `data`, its payload and generation. `least`: the last generation known before the read."""
        seen = self._seen
        if data == seen[0]:
            return seen
        if data is None:
            seen = None, None, 0
        else:
            try:
                payload, generation = self._signer.verify(REGISTER, self._encoded, data)
                if generation < least:
                    raise BadSignature(f"it was put back from its change number {least} to {generation}")
            except BadSignature as error:
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
            latest = _, old, generation = self._verified(data, known[2])
            new = function(old)
            if new is None or new is old:
                return data
            # it may have begun anew after damage: then it must not look like a replay of an old generation
            generation = generation + 1 if data is not None else clock.wall_ns()
            sealed = self._signer.sign(REGISTER, self._encoded, new, generation)
            latest = sealed, new, generation
            return sealed

        self._inner.update(change)
        self._seen = latest
        return latest[1]
