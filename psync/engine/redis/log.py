"""Logs on the server: keep payloads and marks in two hashes, and the order of claiming in a sorted set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.log import WAITING, Change, Counts, Log, Mark, Record, Sealed, State, check_change
from psync.engine.redis import encoding, lua
from psync.engine.redis.bucket import RedisBucket
from psync.engine.redis.lua import Script
from psync.engine.redis.store import RedisStore

MAX_RECORDS_PER_PASS = 500
"""Records in one answer where all are read."""


READ_FIRST = -2
"""The server's answer for a bucket that exists, and that this process has not read yet."""
STATES = tuple(State)
NO_BUCKET = b"", b"", b"", 0
"""The arguments for a change that comes without an answer."""


class RedisLog(Log):
    """A log that removes a record as soon as it is final: no reader needs more than that."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._name = name
        self._key = name.encode()
        self._what = b"l:" + self._key

    def __repr__(self) -> str:
        return f"<RedisLog {self._name!r}>"

    def _change(self, script: Script, *arguments: Any) -> list[Any]:
        store = self._store
        proof = store.locks.proof(self._what)
        answer = store.server.run(script, self._key, proof, *arguments)
        if answer[0] == lua.BUSY:
            run = store.server.run
            answer = store.locks.until_free(self._what, lambda: run(script, self._key, proof, *arguments))
        return self._checked(answer, self._what) if answer[0] else answer

    def _checked(self, answer: list[Any], what: bytes) -> list[Any]:
        if answer[0] == lua.SEALED:
            raise Sealed(self._name)
        if answer[0] == lua.LOST:
            raise self._store.locks.lost(self._what)
        return self._store.checked(what, answer)

    def _look(self, script: Script, *arguments: Any) -> list[Any]:
        return self._store.server.run(script, self._key, *arguments)[1:]

    # -- the verbs -----------------------------------------------------------------------------------

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        if not payloads:
            return []
        line = b"lw:" if mark.state is State.WAITING else b"ld:"
        text = b"" if mark == WAITING else text_of(mark)
        first = int(self._change(lua.LOG_APPEND, text, line, *map(bytes, payloads))[1])
        return list(range(first, first + len(payloads)))

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        if not owner:
            raise ValueError("owner 0 is nobody; take with Engine.owner()")
        if limit <= 0:
            return []
        server = self._store.server
        era = server.era
        answer = self._change(lua.LOG_TAKE, limit, f"{owner} {beat} {lease!r}")
        if era != server.era:
            return []  # `owner` is nobody any more, so what it took goes back
        self.noted, self.sealed = int(answer[1]), bool(answer[2])
        return records_of(answer[3:])

    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        check_change(held, new)
        change = position, text_of(held), text_of(new)
        if before is None:
            return bool(self._change(lua.LOG_SETTLE, *change)[1])
        with self.held():
            record = self.read(position)
            if record is None or record.mark != held:
                return False
            before()
            return bool(self._change(lua.LOG_SETTLE, *change)[1])

    def answer(self, position: int, held: Mark, new: Mark, bucket: Bucket, ops: bytes) -> int | None:
        """See `settle_all`."""
        return self.settle_all([Change(position, held, new, bucket, ops)])[0]

    def settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        """One round trip, and one instant; two more if another process created a bucket, as this one has to check first
        that it is sound."""
        for change in changes:
            check_change(change.held, change.new)
        found: dict[int, int] = {}
        left = list(changes)
        while left:
            sizes = self._settle(left)
            found.update({change.position: size for change, size in zip(left, sizes, strict=True)})
            left = [change for change in left if found[change.position] == READ_FIRST]
            for bucket in dict.fromkeys(change.bucket for change in left):
                assert bucket is not None
                bucket.tail()
        return [None if not (size := found[change.position]) else max(size, 0) for change in changes]

    def _settle(self, changes: Sequence[Change]) -> list[int]:
        """Return the script's answer for each change."""
        store = self._store
        buckets = dict.fromkeys(_key(change) for change in changes if change.bucket is not None)
        script = lua.LOG_ANSWER if buckets else lua.LOG_SETTLE
        arguments: list[Any] = []
        for change in changes:
            arguments += change.position, text_of(change.held), text_of(change.new)
            if change.bucket is not None:
                key = _key(change)
                arguments += key, encoding.bucket_head(), encoding.chunk(change.ops), int(key in store.sound)
            elif buckets:
                arguments += NO_BUCKET
        whats = self._what, *(b"n:" + key for key in buckets)
        while True:
            proof = store.locks.proof(self._what)
            answer = store.server.run(script, self._key, proof, *arguments)
            if answer[0] != lua.BUSY:
                what = b"n:" + answer[2] if answer[0] == lua.NO_PLACE else self._what
                sizes = [int(size) for size in self._checked(answer, what)[1:]]
                store.sound.update(
                    _key(change)
                    for change, size in zip(changes, sizes, strict=True)
                    if change.bucket is not None and size > 0
                )
                return sizes
            for what in whats:
                store.until_let_go(what, proof)

    def read(self, position: int) -> Record | None:
        found = records_of(self._look(lua.LOG_READ, position))
        return found[0] if found else None

    def claims(self) -> list[Record]:
        return records_of(self._look(lua.LOG_CLAIMS))

    def delayed(self) -> list[tuple[int, Mark]]:
        return [(record.position, record.mark) for record in records_of(self._look(lua.LOG_DELAYED))]

    def unfinished(self) -> Iterator[Record]:
        """Yield the claimed records, then the waiting and the delayed ones, each in their order."""
        yield from self.claims()
        for line in (b"lw:", b"ld:"):
            after = "-inf"
            while True:
                after, *found = self._look(lua.LOG_PART, line, after, MAX_RECORDS_PER_PASS)
                if not found:
                    break
                yield from records_of(found)

    def finished(self) -> bool:
        return not self._look(lua.LOG_COUNTS)[1]

    def counts(self) -> Counts:
        waiting, _, end, is_sealed, noted, unused = self._look(lua.LOG_COUNTS)
        self.noted, self.sealed = int(noted), bool(is_sealed)
        return Counts(waiting, int(end) - int(unused), int(end), self.sealed)

    def begin(self, at: int, appended: int) -> bool:
        return bool(self._change(lua.LOG_BEGIN, at, appended)[1])

    def seal(self, sealed: bool = True) -> None:
        self._change(lua.LOG_SET, b"s", b"1" if sealed else b"")

    def note(self, change: Callable[[int], int]) -> None:
        with self.held():
            noted = int(self._look(lua.LOG_COUNTS)[4])
            self._change(lua.LOG_SET, b"n", change(noted))

    def held(self) -> AbstractContextManager[None]:
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._store.locks.held(self._what):
            yield


def _key(change: Change) -> bytes:
    """Return the key of the change's bucket."""
    assert isinstance(change.bucket, RedisBucket)
    return change.bucket.key


def text_of(mark: Mark) -> str:
    """Encode a mark. Equal marks give equal texts, because the server compares them."""
    state, attempt, owner, beat, lease = mark
    return "%d %d %d %d %r" % (state, attempt, owner, beat, float(lease))  # noqa: UP031 (it is done for each request)


def mark_of(text: bytes) -> Mark:
    state, attempt, owner, beat, lease = text.split()
    return Mark(STATES[int(state)], int(attempt), int(owner), int(beat), float(lease))


def records_of(answer: Sequence[Any]) -> list[Record]:
    """Decode a script's answer: position, mark and payload of each record."""
    return [Record(int(answer[at]), mark_of(answer[at + 1]), answer[at + 2]) for at in range(0, len(answer), 3)]
