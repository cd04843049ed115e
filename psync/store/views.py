"""Views: `items()` and `values()` of a store that other processes change meanwhile; they pass over a vanished key.

They pass over a value that can't be unpickled here, too, with a warning, so that one such value hides no others.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Any

from psync.errors import UnreadableValue
from psync.store.sentinels import MISSING
from psync.store.unreadable import warn_unreadable

Find = Callable[[str], Any]
"""Returns the value of a key, or MISSING."""


class Items(ItemsView[str, Any]):
    """Pairs of key and value; they are read one after the other."""

    def __init__(self, mapping: Mapping[str, Any], find: Find) -> None:
        super().__init__(mapping)
        self._keys = mapping
        self._find = find

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return _pairs(self._keys, self._find, stacklevel=2)


class Values(ValuesView[Any]):
    """Values; they are read one after the other."""

    def __init__(self, mapping: Mapping[str, Any], find: Find) -> None:
        super().__init__(mapping)
        self._keys = mapping
        self._find = find

    def __iter__(self) -> Iterator[Any]:
        for _, value in _pairs(self._keys, self._find, stacklevel=3):
            yield value


def _pairs(keys: Iterable[str], find: Find, stacklevel: int) -> Iterator[tuple[str, Any]]:
    """Yield each key that has a value. `stacklevel`: of the caller's caller that the warnings are about."""
    for key in keys:
        try:
            value = find(key)
        except UnreadableValue as error:
            warn_unreadable(error, stacklevel)
            value = MISSING if error.rest is None else error.rest
        if value is not MISSING:
            yield key, value
