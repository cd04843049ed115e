"""Sentinels: two objects that no caller can store, for "no such key" and for "not yet"."""

from __future__ import annotations

from typing import Any

MISSING: Any = object()
"""There is no such key."""
NOT_YET: Any = object()
"""The condition that a waiter waits for does not hold yet."""
