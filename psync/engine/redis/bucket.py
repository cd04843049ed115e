"""Buckets on the server: a string that grows by APPEND; a reader gets what came behind its position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from psync.engine.contract.bucket import Bucket, ForeignBucket, HeldBucket, Position, Tail
from psync.engine.redis import encoding, lua
from psync.engine.redis.store import RedisStore

NOTHING_KNOWN = Position((0,), 0, 0)
WHOLE = 2
"""The server's answer for a bucket that it returns whole, as it is new to the reader, or was replaced."""


class RedisBucket(Bucket):
    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._name = name
        self.key = name.encode()

    def __repr__(self) -> str:
        return f"<RedisBucket {self._name!r}>"

    def tail(self, since: Position | None = None) -> Tail | None:
        ((_, found),) = tails(self._store, {self._name: since})
        return found

    def is_foreign(self) -> bool:
        """One round trip."""
        server = self._store.server
        kind = server.ask("GETRANGE", server.prefix + b"n:" + self.key, 0, 0)
        return bool(kind) and kind != encoding.BUCKET

    def look_first(self) -> None:
        """Read the bucket before the first append of this process: items appended to damaged bytes would be lost."""
        if self.key not in self._store.sound:
            self.tail()

    def append(self, ops: bytes) -> int:
        """One round trip; the first append of a process reads first."""
        self.look_first()
        return self._store.append([(self.key, ops)], self._name)

    @contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        what = b"n:" + self.key
        with self._store.locks.held(what, what) as lock:
            if lock.value is not None:
                held = _Held(self, self._name, self._store, lock.proof)
                try:
                    yield held
                finally:
                    held.over = True
                return
        yield None


class _Held(HeldBucket):
    def __init__(self, bucket: RedisBucket, name: str, store: RedisStore, proof: bytes) -> None:
        self._bucket = bucket
        self._store = store
        self._proof = proof
        self._key = bucket.key
        self._name = name
        self.over = False

    def _check(self) -> None:
        if self.over:
            raise RuntimeError(f"the bucket {self._name!r} is not held any more")

    def tail(self, since: Position | None = None) -> Tail:
        self._check()
        tail = self._bucket.tail(since)
        if tail is None:
            raise RuntimeError(f"the bucket {self._name!r} is not held any more: it was dropped")
        return tail

    def append(self, ops: bytes) -> Position:
        self._check()
        size = self._store.append([(self._key, ops)], self._name, self._proof)
        if not size:
            raise ForeignBucket(self._name)

        server = self._store.server
        head = server.ask("GETRANGE", server.prefix + b"n:" + self._key, 1, 8)
        return Position((int.from_bytes(head, "little"), server.era), size, 0)

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        self._check()
        data = encoding.bucket_head(flags) + encoding.chunk(ops)
        self._store.put(lua.WRITE, self._key, data, self._proof)

    def secure(self) -> None:
        """Do nothing: the server writes commands to its disk in their order, so no later one outlives this."""

    def drop(self) -> None:
        self._check()
        self._store.put(lua.REMOVE, self._key, self._proof, b"")


def tails(store: RedisStore, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
    """See `Engine.tails`."""
    if not since:
        return
    server = store.server
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
            raise store.damaged(name, str(error)) from error
        if found is not None:
            store.sound.add(name.encode())
        yield name, found


def _tail(head: bytes, size: int, data: bytes, era: int, *, whole: bool) -> Tail:
    if whole and head[:1] == encoding.CELL:
        payload, version = encoding.uncell(data)
        return Tail(payload, Position((*version[:1], era), size, 0), True, foreign=True)
    identity, flags = encoding.head(head)
    ops = b"".join(encoding.chunks(data[encoding.BUCKET_HEAD :] if whole else data))
    return Tail(ops, Position((identity, era), size, 0), whole, flags)
