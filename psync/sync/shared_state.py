"""Shared state: a small value that the parties of one primitive share; one process changes it at a time.

The value is a named tuple in a register (see `psync.engine.contract`). A change happens whole or not at all, also under
kill -9, and every read sees all changes that were made before it began.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from psync.engine.contract.engine import Engine
from psync.engine.contract.register import Slots
from psync.errors import CorruptValue
from psync.store.codec import codec_of
from psync.store.codec_type import Codec, fails_again
from psync.store.unreadable import raise_unreadable
from psync.sync.state_shape import fits

S = TypeVar("S", bound=tuple[Any, ...])


def load_state(codec: Codec, where: str, payload: bytes, make: Callable[[Any], S]) -> S:
    """Decode `payload` and pass it to `make`, which raises ValueError if that is not a state of this primitive.

    Raises `CorruptValue` if it is not, and `UnreadableValue` for a user's value in it that can't be unpickled here.
    """
    try:
        state = codec.load_state(payload)
    except BaseException as error:
        if not fails_again(codec.load_state, payload, error):
            raise
        if codec.objects and codec.diagnose(payload) is not None:
            raise_unreadable(f"the state of {where!r}", error, payload, codec, key=where)
        raise _wrong_state(where, error) from error
    try:
        return make(state)
    except ValueError as error:
        raise _wrong_state(where, error) from error


def _wrong_state(where: str, error: BaseException) -> CorruptValue:
    return CorruptValue(
        f"the state of {where!r} was not written by psync ({error}), and left as it is. If nobody uses that name any "
        "more, remove its file",
        key=where,
        reason=str(error),
    )


class SharedState(Generic[S]):
    """The value of one name, at first `empty`. Values are never changed in place."""

    def __init__(self, engine: Engine, where: str, empty: S) -> None:
        self._register = engine.register(where)
        self._codec = codec_of(engine.format)
        self._where = where
        self._kind = type(empty)
        self._seen: tuple[bytes | None, S] = None, empty
        """The bytes read or written last, and their value. One tuple, because threads share it."""
        self._empty = empty

    @property
    def slots(self) -> Slots | None:
        """The slots of the register."""
        return self._register.slots

    @property
    def last(self) -> S:
        """The value that this handle read or wrote last."""
        return self._seen[1]

    def look(self) -> S:
        """Return the value. One `Register.read`."""
        return self._meaning(self._register.read())

    def _meaning(self, payload: bytes | None) -> S:
        known, state = self._seen
        if payload == known:
            return state
        state = self._empty if payload is None else load_state(self._codec, self._where, payload, self._made)
        self._seen = payload, state
        return state

    def _made(self, fields: Any) -> S:
        if not fits(fields, self._kind):
            names: tuple[str, ...] = self._kind._fields  # type: ignore[attr-defined]
            raise ValueError(f"it is not made of {', '.join(names)}")
        return self._kind(*fields)

    def change(self, function: Callable[[S], S]) -> S:
        """Replace the value by ``function(value)`` and return it; no other process changes it in between.

        If `function` returns the very value it was given, or raises, the value stays. One `Register.update`.
        """
        after: Any = None

        def update(payload: bytes | None) -> bytes | None:
            nonlocal after
            before = self._meaning(payload)
            after = function(before)
            return payload if after is before else self._codec.dump_state(tuple(after))

        payload = self._register.update(update)
        self._seen = payload, after
        return after  # type: ignore[no-any-return]
