"""Views: `items()` and `values()` of a store that other processes change meanwhile; they pass over a vanished key.

They pass over a value that can't be unpickled here, too, with a warning, so that one such value hides no others.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
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
        for key in self._keys:
            try:
                value = self._find(key)
            except UnreadableValue as error:
                warn_unreadable(error, stacklevel=2)
                value = MISSING if error.rest is None else error.rest
            if value is not MISSING:
                yield key, value


class Values(ValuesView[Any]):
    """Values; they are read one after the other."""

    def __init__(self, mapping: Mapping[str, Any], find: Find) -> None:
        super().__init__(mapping)
        self._items = Items(mapping, find)

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._items)
