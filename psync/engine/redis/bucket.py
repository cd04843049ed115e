"""A bucket on the server: a string that grows by APPEND; who follows it reads what came behind where it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psync.engine.contract import Bucket, HeldBucket, Position, Tail
from psync.engine.redis import scripts, stored

if TYPE_CHECKING:
    from psync.engine.redis.engine import RedisEngine


class RedisBucket(Bucket):
    def __init__(self, engine: RedisEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._key = name.encode()

    def __repr__(self) -> str:
        return f"<RedisBucket {self._name!r}>"

    def tail(self, since: Position | None = None) -> Tail | None:
        server = self._engine.server
        while True:
            era = server.era
            if since is not None and since.identity[1] != era:
                since = None  # the server may have forgotten some of what we read, and taken other items instead
            identity, end = (since.identity[0].to_bytes(8, "little"), since.end) if since is not None else (b"", 0)
            answer = server.run(scripts.TAIL, self._key, identity, end)
            if era == server.era:
                break
        if not answer[1]:
            return None
        head, size, data = answer[2:]
        try:
            found = _tail(head, size, data, era, whole=answer[1] == 2)
        except stored.Unreadable as error:
            raise self._engine.damaged(self._name, str(error)) from error
        self._engine.sound.add(self._key)
        return found

    def append(self, ops: bytes) -> int:
        """One APPEND; the first of a process looks first whether what it extends is sound."""
        if self._key not in self._engine.sound:
            self.tail()
        return self._engine.append([(self._key, ops)], self._name)

    @contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        what = b"n:" + self._key
        with self._engine.holds.held(what, what) as hold:
            if hold.value is not None:
                held = _Held(self, self._engine, hold.proof)
                try:
                    yield held
                finally:
                    held.over = True
                return
        yield None


class _Held(HeldBucket):
    def __init__(self, bucket: RedisBucket, engine: RedisEngine, proof: bytes) -> None:
        self._bucket = bucket
        self._engine = engine
        self._proof = proof
        self._name = bucket._key
        self.over = False

    def _check(self) -> None:
        if self.over:
            raise RuntimeError(f"the bucket {self._bucket._name!r} is not held any more")

    def tail(self, since: Position | None = None) -> Tail:
        self._check()
        tail = self._bucket.tail(since)
        if tail is None:
            raise RuntimeError(f"the bucket {self._bucket._name!r} is not held any more: it was dropped")
        return tail

    def append(self, ops: bytes) -> Position:
        self._check()
        size = self._engine.append([(self._name, ops)], self._bucket._name, self._proof)
        if not size:
            raise ValueError(f"{self._bucket._name!r} is one pickle of something else's; replace it first")

        server = self._engine.server
        head = server.ask("GETRANGE", server.prefix + b"n:" + self._name, 1, 8)
        return Position((int.from_bytes(head, "little"), server.era), size, 0)

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        self._check()
        data = stored.bucket_head(flags) + stored.chunk(ops)
        self._engine.put(scripts.WRITE, self._name, data, self._proof)

    def secure(self) -> None:
        """Nothing: the server writes its commands to its disk in their order, so what follows never outlives this."""

    def drop(self) -> None:
        self._check()
        self._engine.put(scripts.REMOVE, self._name, self._proof, b"")


def _tail(head: bytes, size: int, data: bytes, era: int, *, whole: bool) -> Tail:
    if whole and head[:1] == stored.CELL:
        payload, version = stored.uncell(data)
        return Tail(payload, Position((*version[:1], era), size, 0), True, foreign=True)
    identity, flags = stored.head(head)
    ops = b"".join(stored.chunks(data[stored.BUCKET_HEAD :] if whole else data))
    return Tail(ops, Position((identity, era), size, 0), whole, flags)
