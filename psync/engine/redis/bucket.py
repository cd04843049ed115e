"""A bucket on the server: a string that grows by APPEND; who follows it reads what came behind where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.redis import encoding, lua

if TYPE_CHECKING:
    from psync.engine.redis.engine import RedisEngine


NOTHING_KNOWN = Position((0,), 0, 0)
WHOLE = 2
"""What the server says of a bucket of which it gives all: it is new to who asks, or was replaced."""


class RedisBucket(Bucket):
    def __init__(self, engine: RedisEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self.key = name.encode()

    def __repr__(self) -> str:
        return f"<RedisBucket {self._name!r}>"

    def tail(self, since: Position | None = None) -> Tail | None:
        ((_, found),) = tails(self._engine, {self._name: since})
        return found

    def look_first(self) -> None:
        """Before the first append of this process: what damaged bytes were extended by would be lost with them."""
        if self.key not in self._engine.sound:
            self.tail()

    def append(self, ops: bytes) -> int:
        """One round trip; the first of a process looks first."""
        self.look_first()
        return self._engine.append([(self.key, ops)], self._name)

    @contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        what = b"n:" + self.key
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
        self._name = bucket.key
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
        data = encoding.bucket_head(flags) + encoding.chunk(ops)
        self._engine.put(lua.WRITE, self._name, data, self._proof)

    def secure(self) -> None:
        """Nothing: the server writes its commands to its disk in their order, so what follows never outlives this."""

    def drop(self) -> None:
        self._check()
        self._engine.put(lua.REMOVE, self._name, self._proof, b"")


def tails(engine: RedisEngine, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
    """See `Engine.tails`."""
    if not since:
        return
    server = engine.server
    while True:
        era = server.era
        asked: list[object] = []
        for name, position in since.items():
            # when the server may have forgotten some of what we read, and taken other items instead, from the start
            known = position if position is not None and position.identity[1] == era else NOTHING_KNOWN
            asked += (name.encode(), known.identity[0].to_bytes(8, "little"), known.end)
        answer = server.run(lua.TAILS, *asked)
        if era == server.era:
            break
    for at, name in enumerate(since):
        kind, head, size, data = answer[1 + 4 * at : 5 + 4 * at]
        try:
            found = _tail(head, size, data, era, whole=kind == WHOLE) if kind else None
        except encoding.Unreadable as error:
            raise engine.damaged(name, str(error)) from error
        if found is not None:
            engine.sound.add(name.encode())
        yield name, found


def _tail(head: bytes, size: int, data: bytes, era: int, *, whole: bool) -> Tail:
    if whole and head[:1] == encoding.CELL:
        payload, version = encoding.uncell(data)
        return Tail(payload, Position((*version[:1], era), size, 0), True, foreign=True)
    identity, flags = encoding.head(head)
    ops = b"".join(encoding.chunks(data[encoding.BUCKET_HEAD :] if whole else data))
    return Tail(ops, Position((identity, era), size, 0), whole, flags)
