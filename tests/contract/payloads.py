"""What the contract tests store: pickles of a wanted size, items for buckets, and a reader that follows a bucket."""

from __future__ import annotations

import pickle
import random
from typing import Any

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.contract.engine import Engine

AROUND_A_PAGE = [*range(4060, 4090, 7), 4095, 4096, 4097]
SIZES = [4, 8, 9, 100, 1000, *AROUND_A_PAGE, 8191, 8192, 8193, 65_535, 65_536, 300_000, 1 << 20]
"""Bytes of a cell's payload: the smallest pickle, both sides of a page, and far beyond."""


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, 5)


def loaded(payload: bytes) -> Any:
    return pickle.loads(payload)


def pickle_of(size: int, seed: int = 0) -> bytes:
    """A pickle of exactly `size` bytes (4, or at least 8), another one for each `seed` as far as it has room."""
    if size == 4:
        return b"\x80\x05" + (b"N", b"]", b"}", b")")[seed % 4] + b"."
    room = size - 8
    return b"\x80\x05B" + room.to_bytes(4, "little") + random.Random(seed).randbytes(room) + b"."


def item(key: Any, value: Any) -> bytes:
    """The opcodes that set one item on the dict below them. Those of protocol 3 can stand in a row in one pickle."""
    return pickle.dumps(key, 3)[2:-1] + pickle.dumps(value, 3)[2:-1] + b"s"


def items(pairs: dict[Any, Any]) -> bytes:
    return b"".join(item(key, value) for key, value in pairs.items())


def dict_of(tail: Tail | None) -> dict[Any, Any] | None:
    """The dict that a tail from the start holds."""
    if tail is None:
        return None
    assert tail.whole
    found = loaded(tail.ops if tail.foreign else b"\x80\x05}" + tail.ops + b".")
    assert isinstance(found, dict)
    return found


def bucket_dict(engine: Engine, name: str) -> dict[Any, Any] | None:
    return dict_of(engine.bucket(name).tail())


def loaded_items(tail: Tail) -> Any:
    """What a tail adds: an engine may put opcodes between the items that change nothing."""
    return loaded(b"\x80\x05}" + tail.ops + b".")


def held_tail(held: HeldBucket | None) -> dict[Any, Any] | None:
    assert held is not None
    return dict_of(held.tail())


class Follower:
    """Keeps a dict up to date with a bucket, as the store's cache does: whole tails replace it, others extend it."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.position: Position | None = None
        self.items: dict[Any, Any] | None = None
        self.wholes = 0

    def look(self) -> dict[Any, Any] | None:
        tail = self.bucket.tail(self.position)
        if tail is None:
            self.position = self.items = None
        elif not tail.whole and not tail.ops:
            self.position = tail.position
        elif tail.whole:
            self.wholes += 1
            self.position, self.items = tail.position, dict_of(tail)
        else:
            assert self.items is not None and not tail.foreign
            self.position = tail.position
            self.items.update(loaded(b"\x80\x05}" + tail.ops + b"."))
        return self.items
