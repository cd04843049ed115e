"""How values become bytes: chosen when a store is opened, kept with its engine, known to all who use that.

The engine itself does not care. It keeps the choice so that the primitives made from it, the other levels of
durability, and who gets it sent in another process read and write alike.

A store that was begun with JSON says so in ``.psync/serializer``. That is against mistakes, not against attackers: who
can write to the store can remove it. Who does not trust the writers says ``serializer="json"`` each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from psync.engine.contract.values import Format, Serializer

if TYPE_CHECKING:
    from psync.engine.contract.engine import Engine

Allow = Iterable["type | str"]
SERIALIZER, ALLOW = "PSYNC_SERIALIZER", "PSYNC_ALLOW"
"""The variables that say for every store that is opened what its opener does not."""
MARKER = ".psync/serializer"
_MARK = b"psync serializer 1\n"


def agree(engine: Engine, serializer: Serializer | None, allow: Allow | None) -> None:
    """Give `engine` its format: what is asked for, else what the environment asks for, else what the store was begun
    with. An engine that has one keeps it.

    Raises ValueError for what can't be asked for; `UnsafeStore`, with nothing changed, if the store was begun with
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
    """What `Format.allowed` says of these. Raises TypeError."""
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


def check_environment() -> None:
    """Raises ValueError or TypeError for a variable that says what can't be asked for."""
    _from_environment()
    _allowed_by_environment()


def _begun_with(engine: Engine) -> Serializer:
    return "pickle" if engine.read(MARKER) is None else "json"


def _begin(engine: Engine, wanted: Serializer, begun: Serializer) -> None:
    from psync.engine.encoding.framing import as_pickle
    from psync.engine.store_marker import is_empty, wrong

    if begun == "json":
        raise wrong(engine, "was begun with serializer='json'", "open it without a serializer, or with that one")
    if not is_empty(engine):
        raise wrong(
            engine,
            "was not begun with serializer='json', so what is in it are pickles",
            "if you trust it, copy what is in it to a new directory: psync dump OLD > FILE, then, with "
            f"{SERIALIZER}={wanted}, psync load NEW < FILE",
        )
    engine.create(MARKER, as_pickle(_MARK + wanted.encode()))
