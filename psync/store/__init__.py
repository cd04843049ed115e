"""Floor 1: the store, a mapping that does all that PickleShare does.

Here are the mapping (`db`), its hashed categories (`category`), waiting (`waiting`), links (`link`), the rules for keys
(`keys`, `key_hash`, `glob`), and the codecs (`codec`, `pickles`, `json_values`). Only `pickles` may import `pickle`.
The store calls the engine's verbs only: it knows no path, no lock and no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psync.store.db import PickleShareDB

if TYPE_CHECKING:
    from psync.store.key_hash import gethashfile
    from psync.store.link import PickleShareLink

__all__ = ["PickleShareDB", "PickleShareLink", "gethashfile"]


def __getattr__(name: str) -> Any:
    """Import what opening a store does not need when it is first used."""
    if name == "PickleShareLink":
        from psync.store.link import PickleShareLink

        return PickleShareLink
    if name == "gethashfile":
        from psync.store.key_hash import gethashfile

        return gethashfile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
