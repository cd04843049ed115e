"""The one door to pickle: values become bytes and bytes become values here and nowhere else.

What a store does is said by its `Codec`: as pickles, as pickles that may look up only what is on a list, or as JSON
(`json_values`, where nothing is unpickled at all).

A plain value is pickled with protocol 5. The items of a bucket are pickled with protocol 3: its memo
numbers are written out, so the opcodes of many items can follow each other in one pickle (from
protocol 4 on a memo number is counted, and would mean another item's object).
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from psync.engine.contract.values import Format
from psync.store.allowed import Allowed

_LENGTH = struct.Struct("<I")
_NO_COPY = frozenset({int, str, bytes, float, bool, type(None), complex})
"""Types whose instances can't be changed: they need no copy to be the caller's own."""
DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error,
)  # fmt: skip
"""What unpickling damaged bytes raises. A missing class (AttributeError, ImportError) is not damage."""

loads = pickle.loads

_TEXTS = {0x8C: 1, 0x58: 4, 0x8D: 8}
"""Opcodes of a str, and how many bytes its length has."""


def first_of(payload: bytes) -> str | None:
    """The first member of a tuple that `dumps` made, a str or None; nothing is unpickled. ValueError for any other."""
    at = 2 + 9 * (payload[2:3] == b"\x95")  # behind PROTO, and FRAME, which small pickles do without
    if payload[at : at + 1] == b"N":
        return None
    size = _TEXTS.get(payload[at]) if at < len(payload) else None
    if size is None:
        raise ValueError("it is no tuple that begins with a str or None")
    begin = at + 1 + size
    return payload[begin : begin + int.from_bytes(payload[at + 1 : begin], "little")].decode("utf-8", "surrogatepass")


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
MANY = 500
"""Members of a container from which on it is pickled by a pickler that is kept."""
LARGEST = 4 << 20
"""Bytes: who made a larger pickle is not kept, for it holds about as much memory."""
LARGEST_TEXT = 1 << 30
"""Characters; as UTF-8 it takes less than 4 GiB."""
pack = functools.partial(pickle.dumps, protocol=5)
"""`dumps` of a few values in a tuple."""
_kept: list[tuple[pickle.Pickler, io.BytesIO]] = []  # taken and given back by single calls, so threads need no lock


def dumps(value: Any) -> bytes:
    if type(value) in _CONTAINERS and len(value) >= MANY:
        return _dumps_many(value)
    return pickle.dumps(value, 5)


def _dumps_many(value: Any) -> bytes:
    """The same bytes, a megabyte of rows in less than half the time: a pickler that is new each time has a new memo
    table, and that is memory which the kernel gives and takes back page by page."""
    try:
        pickler, buffer = _kept.pop()
    except IndexError:
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, 5)
    pickler.dump(value)  # if it raises, the pickler is dropped
    data = buffer.getvalue()
    if len(data) <= LARGEST:
        pickler.clear_memo()  # at once: it keeps what was pickled alive
        buffer.seek(0)
        buffer.truncate()
        _kept.append((pickler, buffer))
    return data


def dumps_whole(value: Any) -> bytes:
    """`dumps`, but what can't be found by its name elsewhere (a lambda, what is defined in ``__main__``) travels whole,
    if `cloudpickle` is installed. Raises what pickling raises."""
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
    """`dumps`, but all of it that can't be found by its name elsewhere travels whole. Needs `cloudpickle`."""
    import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return cloudpickle.dumps(value, 5)  # type: ignore[no-any-return, unused-ignore]


@functools.cache
def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return None
    return cloudpickle


def own(value: Any) -> Any:
    """`value`, or a copy that nobody else has if it can be changed."""
    return value if type(value) in _NO_COPY else pickle.loads(pickle.dumps(value, 5))


def item(key: Any, value: Any) -> bytes:
    """Opcodes that set one item of the dict below them on the stack."""
    return _opcodes(key) + _opcodes(value) + b"s"


def _opcodes(value: Any) -> bytes:
    """Those that push it. Text and bytes go without a memo, which nothing could refer to."""
    kind = type(value)
    if kind is str and len(value) < LARGEST_TEXT:
        text: bytes = value.encode("utf-8", "surrogatepass")
        return b"X" + _LENGTH.pack(len(text)) + text
    return pickle.dumps(value, 3)[2 : -3 if kind is bytes else -1]


def items(mapping: dict[Any, Any]) -> bytes:
    """Opcodes that set all items of `mapping`. What is plain goes without a memo: smaller, and faster to load."""
    if _NO_COPY.issuperset(map(type, mapping)) and _NO_COPY.issuperset(map(type, mapping.values())):
        return _plain(mapping)
    plain = {key: value for key, value in mapping.items() if type(key) in _NO_COPY and type(value) in _NO_COPY}
    return _plain(plain) + b"".join([item(key, value) for key, value in mapping.items() if key not in plain])


def _plain(mapping: dict[Any, Any]) -> bytes:
    """As a pickler writes a dict, less PROTO, EMPTY_DICT and STOP."""
    if not mapping:
        return b""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 3)
    pickler.fast = True  # no memo; nothing in here can be shared or recursive in a way that matters
    pickler.dump(mapping)
    return buffer.getvalue()[3:-1]


def load_items(ops: bytes) -> dict[Any, Any]:
    """The dict that `ops` make of an empty one."""
    made: dict[Any, Any] = pickle.loads(b"".join((b"\x80\x03}", ops, b".")))
    return made


class Codec(NamedTuple):
    """How the values of one store become bytes, and bytes values: a table of functions."""

    dumps: Callable[[Any], bytes]
    """A value as what a cell holds."""
    loads: Callable[[bytes], Any]
    """The value again. Raises what unpickling raises; `damage` for damaged bytes."""
    own: Callable[[Any], Any]
    """A value that was read, or a copy that nobody else has if it can be changed."""
    item: Callable[[Any, Any], bytes]
    """Opcodes that set one item of the dict below them."""
    items: Callable[[dict[Any, Any]], bytes]
    load_items: Callable[[bytes], dict[Any, Any]]
    """The dict that opcodes make of an empty one."""
    pack: Callable[[tuple[Any, ...]], bytes]
    """Values, as one record of a log."""
    unpack: Callable[[bytes], Any]
    """The values that `pack` was given, in a row."""
    record: Callable[[tuple[Any, ...]], bytes]
    """The state of a primitive, as what a register holds: numbers and texts in tuples and dicts, and users' values."""
    recalled: Callable[[bytes], Any]
    """The state again."""
    nested: Callable[[bytes], Any]
    """What `pack` made, as a value that can be a part of another."""
    unnested: Callable[[Any], bytes]
    """What `nested` was given."""
    objects: bool = True
    """Whether values may be objects of any class, and so calls."""
    doubted: bool = False
    """Whether it has to be asked what an error of `loads` means, though the checksum fits."""
    damage: tuple[type[Exception], ...] = DAMAGE


def _as_it_is(payload: Any) -> Any:
    return payload


PICKLES = Codec(dumps, loads, own, item, items, load_items, pack, loads, pack, loads, _as_it_is, _as_it_is)


class _Unpickler(pickle.Unpickler):
    """Looks up nothing that is not on a list."""

    def __init__(self, data: bytes, allowed: Allowed) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        return self._allowed.find(module, name, super().find_class)


def _allowing(allowed: Allowed) -> Codec:
    """Pickles that may look up only what is allowed (but `own`: those bytes this process has just made)."""

    def loads(data: bytes) -> Any:
        return _Unpickler(data, allowed).load()

    def load_items(ops: bytes) -> dict[Any, Any]:
        made: dict[Any, Any] = loads(b"".join((b"\x80\x03}", ops, b".")))
        return made

    return PICKLES._replace(loads=loads, load_items=load_items, unpack=loads, recalled=loads, doubted=True)


@functools.lru_cache(64)
def codec_of(format: Format | None) -> Codec:
    """The codec for what an engine keeps as its `format`."""
    if format is None or format == Format():
        return PICKLES
    if format.allowed is not None:
        return _allowing(Allowed(format.allowed))
    from psync.store.json_values import JSON  # only who asks for it pays for it

    return JSON
