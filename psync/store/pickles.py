"""Pickle codec: turns values into pickles, and back. No other module imports `pickle`.

`PICKLES` unpickles anything; `restricted` makes a codec that looks up only the names it is allowed to.

A plain value is pickled with protocol 5. The items of a bucket are pickled with protocol 3: it writes the numbers of
memo entries out, so the opcodes of many items can follow each other in one pickle. From protocol 4 on the unpickler
counts memo entries, so a number would mean another item's object.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

from psync.store.codec_type import PASSING, Codec, Failure, Items, Unread, UnreadKey, fails_again

_LENGTH = struct.Struct("<I")
_HEAD = b"\x80\x05"
_IMMUTABLE = frozenset({int, str, bytes, float, bool, type(None), complex})
"""Types whose instances can't be changed: callers may share them."""
DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error,
)  # fmt: skip
"""The exceptions that unpickling damaged bytes raises. A missing class (AttributeError, ImportError) is no damage."""

Find = Callable[[str, str, Callable[[str, str], Any]], Any]
"""Look up a module's name for a pickle; the third argument is the ordinary way to do it."""

loads = pickle.loads

_TEXTS = {0x8C: 1, 0x58: 4, 0x8D: 8}
"""Opcodes that push a str, and how many bytes its length takes."""


def first_of(payload: bytes) -> str | None:
    """Return the first member of a pickled tuple, a str or None, without unpickling. Else ValueError."""
    at = 2 + 9 * (payload[2:3] == b"\x95")  # after PROTO, and after FRAME, which small pickles do not have
    if payload[at : at + 1] == b"N":
        return None
    size = _TEXTS.get(payload[at]) if at < len(payload) else None
    if size is None:
        raise ValueError("it is not a tuple that begins with a str or None")
    begin = at + 1 + size
    return payload[begin : begin + int.from_bytes(payload[at + 1 : begin], "little")].decode("utf-8", "surrogatepass")


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
REUSE_FROM_MEMBERS = 500
"""A container with at least as many members is pickled by a pickler that is used again."""
MAX_REUSED_BYTES = 4 << 20
"""A pickler that made a larger pickle is dropped: it holds about as much memory as the pickle."""
MAX_TEXT_CHARACTERS = 1 << 30
"""A shorter str takes less than 4 GiB as UTF-8, so its length fits into the four bytes of BINUNICODE."""
pack = functools.partial(pickle.dumps, protocol=5)
"""Pickle a few values in a tuple."""
_idle: list[tuple[pickle.Pickler, io.BytesIO]] = []
"""Picklers to use again. One call takes or returns one, so threads need no lock."""


def dumps(value: Any) -> bytes:
    if type(value) in _CONTAINERS and len(value) >= REUSE_FROM_MEMBERS:
        return _dumps_many(value)
    return pickle.dumps(value, 5)


def _dumps_many(value: Any) -> bytes:
    """Pickle with a pickler that is used again: the same bytes, a megabyte of rows in less than half the time.

    A new pickler has a new memo table, and the kernel gives and takes that memory back page by page.
    """
    try:
        pickler, buffer = _idle.pop()
    except IndexError:
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, 5)
    pickler.dump(value)  # if this raises, the pickler is not used again
    data = buffer.getvalue()
    if len(data) <= MAX_REUSED_BYTES:
        pickler.clear_memo()  # at once: the memo keeps the pickled objects alive
        buffer.seek(0)
        buffer.truncate()
        _idle.append((pickler, buffer))
    return data


def dumps_whole(value: Any) -> bytes:
    """Pickle by value the functions and classes that another process can't import (lambdas, those of ``__main__``).

    That needs `cloudpickle`; without it this is `dumps`. Passes on the errors of pickling.
    """
    from_main = False
    if isinstance(value, tuple):
        from_main = any(getattr(part, "__module__", None) == "__main__" for part in value)
    if not from_main:
        try:
            return pickle.dumps(value, 5)
        except Exception:
            if (whole := _cloudpickle()) is None:
                raise
            return whole.dumps(value, 5)  # type: ignore[no-any-return]
    whole = _cloudpickle()
    return pickle.dumps(value, 5) if whole is None else whole.dumps(value, 5)


def dumps_by_value(value: Any) -> bytes:
    """Pickle by value all functions and classes in `value` that another process can't import. Needs `cloudpickle`."""
    import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return cloudpickle.dumps(value, 5)  # type: ignore[no-any-return, unused-ignore]


@functools.cache
def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return None
    return cloudpickle


def copy(value: Any) -> Any:
    """Return `value`, or a copy of it if it can be changed."""
    return value if type(value) in _IMMUTABLE else pickle.loads(pickle.dumps(value, 5))


def item(key: Any, value: Any) -> bytes:
    """Return opcodes that set one item of the dict below them on the stack."""
    return _opcodes(key) + _opcodes(value) + b"s"


def _opcodes(value: Any) -> bytes:
    """Return opcodes that push `value`. Texts and bytes need no memo entry: nothing in the item could refer to it."""
    kind = type(value)
    if kind is str and len(value) < MAX_TEXT_CHARACTERS:
        text: bytes = value.encode("utf-8", "surrogatepass")
        return b"X" + _LENGTH.pack(len(text)) + text
    return pickle.dumps(value, 3)[2 : -3 if kind is bytes else -1]


def items(mapping: dict[Any, Any]) -> bytes:
    """Return opcodes that set all items of `mapping`. Plain items go without a memo: smaller, and faster to load."""
    if _IMMUTABLE.issuperset(map(type, mapping)) and _IMMUTABLE.issuperset(map(type, mapping.values())):
        return _plain(mapping)
    plain = {key: value for key, value in mapping.items() if type(key) in _IMMUTABLE and type(value) in _IMMUTABLE}
    return _plain(plain) + b"".join([_carried(key, value) for key, value in mapping.items() if key not in plain])


def _carried(key: Any, value: Any) -> bytes:
    """`item`, where both may be unread."""
    name = key.payload[2:-1] if type(key) is UnreadKey else _opcodes(key)
    return name + (value.payload[2:-1] if type(value) is Unread else _opcodes(value)) + b"s"


def _plain(mapping: dict[Any, Any]) -> bytes:
    """Return the opcodes that a pickler writes for a dict, without PROTO, EMPTY_DICT and STOP."""
    if not mapping:
        return b""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 3)
    pickler.fast = True  # no memo: plain values contain nothing, so none can contain itself
    pickler.dump(mapping)
    return buffer.getvalue()[3:-1]


def load_items(ops: bytes) -> dict[Any, Any]:
    """Return the dict that `ops` make of an empty one."""
    made: dict[Any, Any] = pickle.loads(b"".join((b"\x80\x03}", ops, b".")))
    return made


class _Unpickler(pickle.Unpickler):
    """An unpickler that asks `find` to look names up."""

    def __init__(self, data: bytes, find: Find) -> None:
        super().__init__(io.BytesIO(data))
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return self._find(module, name, super().find_class)


def _find_plainly(module: str, name: str, find_class: Callable[[str, str], Any]) -> Any:
    return find_class(module, name)


def _split(data: bytes, whole: bool, loads: Callable[[bytes], Any] = loads) -> Items:
    """Return all items of a dict, `Unread`; see `Codec.split`."""
    from psync.engine.encoding.pickle_split import split

    made = Items()
    ranges = []
    for piece in split(data, whole=whole):
        name = b"".join((_HEAD, piece.key, b"."))
        unread = Unread(b"".join((_HEAD, piece.value, b".")))
        key: Any
        try:
            key = loads(name)
            made[key] = unread
        except BaseException as error:  # its class is missing, for one, or its __hash__ raises
            if not fails_again(lambda name: hash(loads(name)), name, error):
                raise
            key = UnreadKey(name)
            made[key] = unread
        ranges.append((key, piece.start, piece.end))
    made.ranges = ranges
    return made


def _is_well_formed(payload: bytes) -> bool:
    from psync.engine.encoding.pickle_split import is_well_formed

    return is_well_formed(payload)


def _diagnose(payload: bytes, find: Find = _find_plainly) -> Failure | None:
    """Unpickle once more, and return what fails; see `Codec.diagnose`."""
    looked_up: list[tuple[str, str, Any]] = []

    def note(module: str, name: str, find_class: Callable[[str, str], Any]) -> Any:
        looked_up.append((module, name, None))
        found = find(module, name, find_class)
        looked_up[-1] = module, name, found
        return found

    try:
        _Unpickler(payload, note).load()
    except PASSING:
        raise
    except BaseException as error:  # a module may end the program when it is imported
        return Failure(error, *_at_fault(looked_up, error))
    return None


def _at_fault(looked_up: list[tuple[str, str, Any]], error: BaseException) -> tuple[str | None, str | None]:
    """Return the module and the name of the class or function that can't be found, or whose code raised `error`."""
    if looked_up and looked_up[-1][2] is None:
        return looked_up[-1][:2]
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        first = frame.f_locals.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
        for module, name, found in looked_up:
            if found in (first, type(first)) or getattr(found, "__code__", None) is frame.f_code:
                return module, name
    classes = [each for each in looked_up if isinstance(each[2], type)] or looked_up
    return classes[-1][:2] if classes else (None, None)


def _unchanged(record: Any) -> Any:
    return record


PICKLES = Codec(
    dumps, loads, copy, item, items, load_items, pack, loads, pack, loads, _unchanged, _unchanged, damage=DAMAGE,
    split=_split, is_well_formed=_is_well_formed, diagnose=_diagnose,
)  # fmt: skip


def restricted(find: Find) -> Codec:
    """Return a codec whose pickles look names up through `find`, which may raise to refuse one.

    `copy` does not ask it: it unpickles bytes that this process has just made.
    """

    def loads(data: bytes) -> Any:
        return _Unpickler(data, find).load()

    def load_items(ops: bytes) -> dict[Any, Any]:
        made: dict[Any, Any] = loads(b"".join((b"\x80\x03}", ops, b".")))
        return made

    return PICKLES._replace(
        loads=loads,
        load_items=load_items,
        unpack=loads,
        load_state=loads,
        untrusted=True,
        split=functools.partial(_split, loads=loads),
        diagnose=functools.partial(_diagnose, find=find),
    )
