"""Store markers: cells that say how a store was begun, and what they share. A marker comes before all that is stored.

A marker is created only in a store in which nothing was ever stored, and read whenever the store is opened.
"""

from __future__ import annotations

from psync.engine.contract.engine import Engine
from psync.errors import CorruptValue, UnsafeStore

SIGNATURE_MARKER = ".psync/seal"
"""The marker of a signed store."""
SERIALIZER_MARKER = ".psync/serializer"
"""The marker of a store whose values are not pickles."""
FORMAT_MARKER = ".psync/format"
"""States the version of the format; a directory has it before anything is stored."""
MARKERS = SIGNATURE_MARKER, SERIALIZER_MARKER, FORMAT_MARKER


def is_empty(engine: Engine) -> bool:
    """Whether nothing was ever stored. The engine's own folders do not count, and neither does a marker, nor a file
    that psync did not write."""
    own = tuple(f".psync/{folder}/" for folder in engine.own_folders)
    names = (name for name in engine.list(hidden=True) if name not in MARKERS and not name.startswith(own))
    return all(_is_foreign(engine, name) for name in names)


def _is_foreign(engine: Engine, name: str) -> bool:
    if name.startswith(".psync/"):
        return False
    try:
        return engine.read(name) is None
    except CorruptValue as error:
        return bool(error.foreign)


def check_unsigned(engine: Engine) -> None:
    """Raise `UnsafeStore` if the store is signed: there is no key to open it with."""
    if engine.read(SIGNATURE_MARKER) is not None:
        remedy = "give it with key=..., or in the file that PSYNC_KEY_FILE names"
        raise wrong(engine, "is sealed, and no key was given", remedy)


def wrong(engine: Engine, reason: str, remedy: str) -> UnsafeStore:
    """Return the error for a store that can't be opened with the given options."""
    place = getattr(engine, "root", None)
    text = f"{place or engine!r} {reason}. Nothing was changed. Remedy: {remedy}"
    return UnsafeStore(text, path=place, reason=reason)
