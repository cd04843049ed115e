"""sqlitedict, which commits each value by itself: one SQLite file, and a thread that owns it."""

from __future__ import annotations

import os

import sqlitedict


class Store:
    def __init__(self, folder: str) -> None:
        self.db = sqlitedict.SqliteDict(os.path.join(folder, "store.sqlite"), autocommit=True)
        self.set = self.db.__setitem__
        self.get = self.db.__getitem__
        self.close = self.db.close

    def keys(self) -> list[str]:
        return list(self.db)

    def clear(self) -> None:
        self.db.clear()

    def forget(self) -> None: ...
