"""Unread items: what stands in place of an item that can't be unpickled here, so that it is carried along as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn


class Unread:
    """The pickle of a value that was not unpickled."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __reduce__(self) -> NoReturn:
        raise TypeError("an unread value is no value: it can't be copied as one")


class UnreadKey:
    """The pickle of a key that can't be unpickled: it equals the same bytes."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnreadKey) and self.payload == other.payload

    def __hash__(self) -> int:
        return hash(self.payload)


class Items(dict[Any, Any]):
    """Items of which some may be `Unread`: a dict of another type has none of them, so it need not be searched."""

    ranges: Sequence[tuple[Any, int, int]] = ()
    """Of a dict that was just split: the key of each item, and where its bytes begin and end, overwritten ones, too."""
