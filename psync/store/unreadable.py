"""Unreadable values: the errors for a value that is whole, and can't be unpickled in this process."""

from __future__ import annotations

import warnings
from typing import Any, NoReturn

from psync.errors import ClassRefused, UnreadableAttribute, UnreadableImport, UnreadableModule, UnreadableValue
from psync.store.codec_type import PASSING, Codec, Failure, Unread, UnreadKey

MAX_REASON_CHARACTERS = 500
_KINDS: dict[type[Exception], type[UnreadableValue]] = {
    ModuleNotFoundError: UnreadableModule,
    ImportError: UnreadableImport,
    AttributeError: UnreadableAttribute,
}
"""By what unpickling raised; a subclass stands before its base."""


def raise_unreadable(
    what: str, error: BaseException, payload: bytes, codec: Codec, *, key: Any, category: str | None = None
) -> NoReturn:
    """Raise the `UnreadableValue` for an `error` of ``codec.loads(payload)``; `what` names the value for people.

    Raises `error` itself if it says nothing of the value: a second attempt succeeds (a signal's handler had raised it,
    for one), or memory is short.
    """
    if isinstance(error, ClassRefused):
        raise ClassRefused(f"{what}: {error}", name=error.name, key=key, category=category, reason=str(error)) from None
    failure = None if isinstance(error, PASSING) else codec.diagnose(payload)
    if failure is None or not (codec.objects or isinstance(error, codec.damage)):
        raise error
    kind = next((ours for raised, ours in _KINDS.items() if isinstance(error, raised)), UnreadableValue)
    reason = _said(error)
    raise kind(
        f"{what} can't be unpickled here: {reason}. {_remedy(failure)} It was left as it is",
        key=key,
        category=category,
        module=failure.module,
        class_name=failure.name,
        reason=reason,
    ) from error


def _said(error: BaseException) -> str:
    """The type and the text of an error, on one line."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:  # a stranger's __str__ may raise anything
        return name
    return f"{name}: {text if len(text) <= MAX_REASON_CHARACTERS else text[:MAX_REASON_CHARACTERS] + '...'}"


def _remedy(failure: Failure) -> str:
    if failure.name is None:
        return "Read it where it can be read, or set or remove it."
    name = f"{failure.module}.{failure.name}"
    if failure.module in ("__main__", "__mp_main__"):
        return f"It needs {name} of the program that wrote it: define that in a module which both can import."
    if isinstance(failure.error, ImportError | AttributeError):
        return f"It needs {name}: make that importable here (an alias, if it has moved), or set or remove the value."
    return f"It needs {name}, which refused it: mend that, or set or remove the value."


def may_be_damage(error: BaseException, payload: bytes, codec: Codec) -> bool:
    """Tell whether an error of loading what bears no checksum may come of the bytes, not of a class's own code."""
    if not isinstance(error, codec.damage):
        return False
    failure = codec.diagnose(payload) if codec.is_well_formed(payload) else None
    return failure is None or failure.name is None


def load_each(items: dict[Any, Any], codec: Codec) -> bool:
    """Load the unread values of `items` that can be loaded; True if nothing in it is unread any more."""
    is_all = True
    for key, value in items.items():
        try:
            items[key] = codec.loads(value.payload)
        except PASSING:
            raise
        except BaseException:
            if codec.diagnose(value.payload) is None:
                raise  # it is not in the bytes: a signal's handler raised it, for one
            is_all = False
    return is_all and not any(type(key) is UnreadKey for key in items)


def part_of_bucket(payload: bytes, codec: Codec) -> tuple[dict[Any, Any] | None, bool]:
    """Return the items that can be loaded of a bucket that can't as a whole, and whether these are all; None if it is
    no dict."""
    try:
        items = codec.split(payload, True)
    except ValueError:
        return None, False
    is_all = load_each(items, codec)
    return {
        key: value for key, value in items.items() if type(key) is not UnreadKey and type(value) is not Unread
    }, is_all


def warn_unreadable(error: Exception, stacklevel: int) -> None:
    """Tell of a value that a listing passes over."""
    warnings.warn(f"{error}; it is passed over", RuntimeWarning, stacklevel=stacklevel + 1)
