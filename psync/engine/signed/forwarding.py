"""Forwarding: lets attributes of an object be those of the one that it wraps, without a Python call in between."""

from __future__ import annotations

from operator import attrgetter
from typing import Any


def forwarded(path: str) -> Any:
    """An attribute, or method, that stands at `path` from the object: ``delete = forwarded("inner.delete")``."""
    return property(attrgetter(path))
