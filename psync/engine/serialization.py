"""Serializer choice: decides, when a store is opened, how values become bytes, and keeps that with the engine.

The engine itself does not use it. It keeps the choice so that all read and write alike: the primitives made from the
engine, its other levels of durability, and a process that the engine is sent to.

The marker ``.psync/serializer`` says that a store was begun with JSON. It prevents mistakes, not attacks, because every
writer of the store can remove it. A reader that does not trust the writers gives ``serializer="json"`` each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from psync.engine.contract.engine import Engine
from psync.engine.contract.values import Format, Serializer
from psync.engine.encoding.framing import as_pickle
from psync.engine.environment import ALLOW, SERIALIZER, UMASK
from psync.engine.store_marker import SERIALIZER_MARKER, is_empty, wrong

Allow = Iterable["type | str"]
_MAGIC = b"psync serializer 1\n"


def agree(engine: Engine, serializer: Serializer | None, allow: Allow | None) -> None:
    """Give `engine` its format: the given one, else that of the environment, else the one with which the store was
    begun. An engine that has one keeps it.

    Raises ValueError for a choice that is impossible; `UnsafeStore`, with nothing changed, if the store was begun with
    another serializer.
    """
    if serializer not in (None, "pickle", "json"):
        raise ValueError(f"serializer must be 'pickle' or 'json', not {serializer!r}")
    if serializer == "json" and allow is not None:
        raise ValueError("allow= is for pickles: from JSON only dicts, lists, texts and numbers are made")
    allowed = None if allow is None else names_of(allow)
    if (kept := engine.format) is not None:
        if serializer not in (None, kept.serializer) or (allow is not None and allowed != kept.allowed):
            raise ValueError(f"this engine was opened with {kept}; open the store once more for something else")
        return
    begun = _begun_with(engine)
    wanted = serializer or _from_environment() or begun
    if wanted != begun:
        _begin(engine, wanted, begun)
    if allow is None:
        allowed = _allowed_by_environment()
    engine.format = Format(wanted, allowed if wanted == "pickle" else None)


def names_of(allow: Allow) -> frozenset[str]:
    """Return `allow` as names, as `Format.allowed` has them. Raises TypeError."""
    if isinstance(allow, str):
        raise TypeError(f"allow= is a list of classes and names, so [{allow!r}], not {allow!r}")
    names = set()
    for each in allow:
        if isinstance(each, type):
            names.add(f"{each.__module__}.{each.__qualname__}")
        elif isinstance(each, str) and all(part.isidentifier() for part in each.split(".")):
            names.add(each)
        else:
            raise TypeError(f"allow= takes classes, 'module.name' or 'module', not {each!r}")
    return frozenset(names)


def _from_environment() -> Serializer | None:
    named = os.environ.get(SERIALIZER) or None
    if named not in (None, "pickle", "json"):
        raise ValueError(f"{SERIALIZER} must be 'pickle' or 'json', not {named!r}")
    return named  # type: ignore[return-value]


def _allowed_by_environment() -> frozenset[str] | None:
    named = os.environ.get(ALLOW, "")
    return names_of(named.replace(",", " ").split()) if named else None


def umask_of_environment() -> int:
    """Return the umask of what is made in a directory: PSYNC_UMASK, else 0o077. Raises ValueError."""
    named = os.environ.get(UMASK)
    if not named:
        return 0o077
    try:
        return int(named, 8)
    except ValueError:
        raise ValueError(f"{UMASK} must be an octal number as 022, not {named!r}") from None


def check_environment() -> None:
    """Raises ValueError or TypeError for an environment variable with an impossible choice."""
    _from_environment()
    _allowed_by_environment()
    umask_of_environment()


def _begun_with(engine: Engine) -> Serializer:
    return "pickle" if engine.read(SERIALIZER_MARKER) is None else "json"


def _begin(engine: Engine, wanted: Serializer, begun: Serializer) -> None:
    if begun == "json":
        raise wrong(engine, "was begun with serializer='json'", "open it without a serializer, or with that one")
    if not is_empty(engine):
        raise wrong(
            engine,
            "was not begun with serializer='json', so what is in it are pickles",
            "if you trust it, copy what is in it to a new directory: psync dump OLD > FILE, then, with "
            f"{SERIALIZER}={wanted}, psync load NEW < FILE",
        )
    if not engine.read_only:  # else there is nothing to read
        engine.create(SERIALIZER_MARKER, as_pickle(_MAGIC + wanted.encode()))
