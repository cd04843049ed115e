"""A link is a folder of the store with attributes instead of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psync.store.db import PickleShareDB


class PickleShareLink:
    """``link.name`` is ``db[folder + "/" + name]``: to get, to set, to delete. Made by `PickleShareDB.getlink`.

    A name that is not there raises AttributeError, so that `getattr` with a default and `hasattr` work.
    """

    db: PickleShareDB
    keydir: str

    def __init__(self, db: PickleShareDB, keydir: str) -> None:
        self.__dict__.update(db=db, keydir=keydir)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # protocols ask for these; they are no keys
        try:
            return self.db[f"{self.keydir}/{name}"]
        except KeyError as error:
            raise LinkError(f"{self.keydir}/{name}") from error

    def __setattr__(self, name: str, value: Any) -> None:
        self.db[f"{self.keydir}/{name}"] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self.db[f"{self.keydir}/{name}"]
        except KeyError as error:
            raise LinkError(f"{self.keydir}/{name}") from error

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self._names()]

    def _names(self) -> list[str]:
        return sorted(self.db.engine.entries(self.keydir)[0])

    def __repr__(self) -> str:
        return f"<PickleShareLink {self.keydir!r}: {';'.join(self._names())}>"


class LinkError(AttributeError, KeyError):
    """No such key; an AttributeError because it was asked for as one, a KeyError as PickleShare raised."""
