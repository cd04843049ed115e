"""Whether a store is sealed, and with which keys: that stands in ``.psync/seal``, and is known before all else is read.

The cell holds the store's id, which goes into every tag, and for each key that ever opened the store a tag of the id.
"""

from __future__ import annotations

import os

from psync.engine.contract.engine import Engine
from psync.engine.encoding.framing import as_pickle
from psync.engine.signed.engine import MARKER, SignedEngine
from psync.engine.signed.keys import TAG, Keys
from psync.errors import UnsafeStore

_MARK = b"psync seal 1\n"
_ID = 16
_PLUMBING = {"tmp", "owners", "guards", "locks", "wake", "pending", "quarantine", "format", "seal", "serializer"}
"""Of psync's own folders those that may hold something before anything was stored."""


def opened(engine: Engine, keys: Keys | None) -> Engine:
    """`engine`, sealed with `keys`. A store without anything in it becomes a sealed one.

    Raises `UnsafeStore`, with nothing changed, if the store is sealed with other keys, or is and there are no keys, or
    is not and there are.
    """
    if isinstance(engine, SignedEngine):
        if keys is not None and keys != engine.keys:
            raise ValueError("this engine is sealed with other keys")
        return engine
    marker = _marker(engine)
    if keys is None:
        if marker is not None:
            remedy = "give it with key=..., or in the file that PSYNC_KEY_FILE names"
            raise wrong(engine, "is sealed, and no key was given", remedy)
        return engine
    if marker is None:
        if not is_empty(engine):
            raise wrong(
                engine,
                "was made without a key, so nobody knows who wrote what is in it",
                "open it without one, or, if you trust it, copy what is in it to a new one: psync dump, psync load",
            )
        store = os.urandom(_ID)
        engine.create(MARKER, as_pickle(_MARK + store + _entry(keys, store, keys.names[0])))
        marker = _marker(engine) or b""
    return SignedEngine(engine, keys, _store_id(engine, keys, marker))


def _marker(engine: Engine) -> bytes | None:
    cell = engine.read(MARKER)
    return None if cell is None else cell.payload


def _entry(keys: Keys, store: bytes, name: bytes) -> bytes:
    """What shows that a store was made, or opened, by who has the key of that name."""
    import hmac

    key = keys.named(name)
    assert key is not None
    return name + hmac.digest(key, b"psync: the store " + store, "sha256")


def _store_id(engine: Engine, keys: Keys, marker: bytes) -> bytes:
    """The store's id. Those of `keys` that its marker does not know yet are put there, if it knows another one."""
    import hmac

    data = marker[7:-1]
    store, entries = data[len(_MARK) : len(_MARK) + _ID], data[len(_MARK) + _ID :]
    size = 4 + TAG
    if not data.startswith(_MARK) or len(store) != _ID or not entries or len(entries) % size:
        raise wrong(engine, f"has a damaged {MARKER}", "restore that file from a backup")
    known = {entries[at : at + 4]: entries[at : at + size] for at in range(0, len(entries), size)}
    ours = {name: _entry(keys, store, name) for name in keys.names}
    if not any(hmac.compare_digest(known.get(name, b""), entry) for name, entry in ours.items()):
        names = ", ".join(name.hex() for name in known)
        raise wrong(engine, f"is sealed with another key ({names}), not with {keys}", "give that one")
    if not set(ours) <= set(known):
        merged = b"".join({**known, **ours}.values())
        engine.update(MARKER, lambda old: old if old is None else as_pickle(_MARK + store + merged))
    return store


def is_empty(engine: Engine) -> bool:
    """Whether nothing was ever stored."""
    for name in engine.list(hidden=True):
        own, _, rest = name.partition("/")
        if own != ".psync" or rest.partition("/")[0] not in _PLUMBING:
            return False
    return True


def wrong(engine: Engine, reason: str, remedy: str) -> UnsafeStore:
    """What to raise for a store that can't be opened in the way it was asked for."""
    place = getattr(engine, "root", None)
    text = f"{place or engine!r} {reason}. Nothing was changed. Remedy: {remedy}"
    return UnsafeStore(text, path=place, reason=reason)
