"""Link: shows the keys in one folder of a store as attributes of an object."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any


class PickleShareLink:
    """Gets, sets and deletes ``db[folder + "/" + name]`` as ``link.name``. `PickleShareDB.getlink` makes one.

    A missing key raises AttributeError, so that `getattr` with a default and `hasattr` work.
    """

    db: Any
    """The store, a `PickleShareDB`."""
    keydir: str
    """The folder."""

    def __init__(self, db: MutableMapping[str, Any], keydir: str) -> None:
        self.__dict__.update(db=db, keydir=keydir)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # Python looks for these itself; they are not keys
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
    """The key is missing. An AttributeError, as the caller read an attribute; a KeyError, as PickleShare raises one."""
