"""A hashed category called and recorded like a dict: `hdict` and `hupdate` count as one operation a key."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from tests.concurrency.history import MISSING, Recorder, identity_of, value_of


class Category:
    """A hashed category under the names of a dict, so that a `Recorder` can call it."""

    def __init__(self, db: Any, hashroot: str) -> None:
        self.db = db
        self.hashroot = hashroot

    def __getitem__(self, key: str) -> Any:
        return self.db.hget(self.hashroot, key, fast_only=False)

    def __setitem__(self, key: str, value: Any) -> None:
        self.db.hset(self.hashroot, key, value)

    def __delitem__(self, key: str) -> None:
        self.db.hdel(self.hashroot, key)

    def add(self, key: str, value: Any) -> bool:
        won: bool = self.db.hadd(self.hashroot, key, value)
        return won

    def pop(self, key: str, default: Any) -> Any:
        return self.db.hpop(self.hashroot, key, default)


class CategoryRecorder(Recorder):
    """A `Recorder` of one hashed category, with the verbs that touch many keys: each is kept as one operation a key."""

    def __init__(self, db: Any, hashroot: str, process: int) -> None:
        super().__init__(Category(db, hashroot), process)
        self.category = self.db

    def update(self, keys: Iterable[str]) -> None:
        """`hupdate` of all `keys`."""
        identities = {key: self.new_id() for key in keys}
        values = {key: value_of(identity) for key, identity in identities.items()}
        start = time.monotonic_ns()
        self.category.db.hupdate(self.category.hashroot, values)
        end = time.monotonic_ns()
        for key, identity in identities.items():
            self.keep(key, "set", identity, None, start, end)

    def look_at_all(self, keys: Iterable[str]) -> None:
        """`hdict`, kept as one `get` for each of `keys`."""
        start = time.monotonic_ns()
        found = self.category.db.hdict(self.category.hashroot)
        end = time.monotonic_ns()
        for key in keys:
            self.keep(key, "get", None, identity_of(found[key]) if key in found else MISSING, start, end)

    def compress(self) -> None:
        """`hcompress`: changes nothing that anybody may notice, so nothing is kept."""
        self.category.db.hcompress(self.category.hashroot)
