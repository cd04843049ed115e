"""JSON values: serialize values for stores with untrusted writers. No stored byte is ever unpickled.

A value comes back equal and of the same types, or is refused before anything is written: what JSON has no form for
(bytes, sets, objects), and what would come back as something else (a tuple as a list, the key 1 as "1", NaN as an error
elsewhere). Keys of categories, and addresses of letters, are texts, numbers, True, False and None.

A cell holds the opcodes that push a text (JSON) and nothing else, so that a reader of pickles gets that text; a bucket
one such text for each key and each value. Records of logs and registers are JSON as it is. psync's own states have
tuples and tables of numbers in them: a tuple is an array there, a list ``{"list": [...]}``, and a dict
``{"dict": [[key, value], ...]}``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

from psync.engine.encoding.framing import BUCKET_HEAD, is_bucket
from psync.errors import NotSerializable
from psync.store.codec_type import Codec

MAX_NESTING_LEVELS = 100
"""Levels of nesting that every reader supports."""
_HEAD = b"\x80\x05"
_PUSH = b"\x8d"  # BINUNICODE8
_TEXT = struct.Struct("<cQ")
"""`_PUSH`, and the length."""
_SET_ITEM = b"s"
_ATOMS = frozenset({str, int, float, bool, type(None)})
_TEXTS = frozenset({str})
_INSTEAD: dict[type, str] = {
    tuple: "would come back as a list: give a list",
    set: "has no form there: give a sorted list",
    frozenset: "has no form there: give a sorted list",
    bytes: "has no form there: give a text, .decode() or base64",
    bytearray: "has no form there: give a text, .decode() or base64",
}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


# -- values ----------------------------------------------------------------------------------------------


def dumps(value: Any) -> bytes:
    text = _written(value)
    return b"".join((_HEAD, _TEXT.pack(_PUSH, len(text)), text, b"."))


def loads(payload: bytes) -> Any:
    """Load a value, or the dict of a bucket. Raises ValueError for bytes that psync can't have made."""
    if is_bucket(payload):
        return load_items(payload[BUCKET_HEAD:-1])
    if payload[:2] != _HEAD or payload[-1:] != b".":
        raise ValueError("it is no JSON of psync's")
    text, end = _text(payload, 2)
    if end != len(payload) - 1:
        raise ValueError("something follows the JSON")
    return _read(text)


def copy(value: Any) -> Any:
    return value if type(value) in _ATOMS else _decode(_encode(value))


def item(key: Any, value: Any) -> bytes:
    if type(key) not in _ATOMS:
        raise _refused(key, "the key of an item, or the address of a letter,", "", "would not be one there: give a str")
    name, text = _written(key), _written(value)
    return b"".join((_TEXT.pack(_PUSH, len(name)), name, _TEXT.pack(_PUSH, len(text)), text, _SET_ITEM))


def items(mapping: dict[Any, Any]) -> bytes:
    return b"".join([item(key, value) for key, value in mapping.items()])


def load_items(ops: bytes) -> dict[Any, Any]:
    made = {}
    for name, text in _items(ops):
        key = _read(name)
        if type(key) not in _ATOMS:
            raise ValueError("the key of an item is no text, and no number")
        made[key] = _read(text)
    return made


def _pack(parts: tuple[Any, ...]) -> bytes:
    return b"[" + b",".join(map(_written, parts)) + b"]"


def _unpack(payload: bytes) -> Any:
    parts = _read(payload)
    if type(parts) is not list:
        raise ValueError("it is no record")
    return parts


def _embed(payload: bytes) -> Any:
    return payload.decode("latin-1")  # it may be anything


def _extract(part: Any) -> bytes:
    if type(part) is not str:
        raise ValueError("there is no record in it")
    return part.encode("latin-1")


# -- reading ---------------------------------------------------------------------------------------------


def _number(text: str) -> float:
    """Return the number. Raises ValueError for NaN, Infinity, and numbers that no float holds."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that could be written")
    return value


_decode = json.JSONDecoder(parse_constant=_number, parse_float=_number).decode


def _read(data: bytes) -> Any:
    text = data.decode()
    try:
        return _decode(text)
    except RecursionError:
        if _depth(text) <= MAX_NESTING_LEVELS:
            raise  # it is the caller who is deep
        raise ValueError(f"it is nested more than {MAX_NESTING_LEVELS} levels deep") from None


def _depth(text: str) -> int:
    """Return how deep the brackets of `text` are nested; brackets within texts count, too, so it may be too much."""
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the text that is pushed at `at`, and the offset behind it."""
    if len(data) < at + _TEXT.size:
        raise ValueError("it ends too early")
    code, length = _TEXT.unpack_from(data, at)
    begin = at + _TEXT.size
    if code != _PUSH or length > len(data) - begin:
        raise ValueError("no text stands there")
    return data[begin : begin + length], begin + length


def _items(ops: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(ops):
        if ops[at : at + 1] == b"J" and ops[at + 5 : at + 6] == b"0":  # the checksum at the end of an append
            at += 6
            continue
        name, at = _text(ops, at)
        text, at = _text(ops, at)
        if ops[at : at + 1] != _SET_ITEM:
            raise ValueError("it is no item")
        at += 1
        yield name, text


def _written(value: Any) -> bytes:
    """Return the JSON of `value`. Raises `NotSerializable`."""
    if not (type(value) in _ATOMS or _fits(value, MAX_NESTING_LEVELS)):
        raise _fault(value)
    try:
        return _encode(value).encode()
    except ValueError:  # NaN, a lone surrogate, an int of more digits than Python writes
        raise _fault(value) from None


# -- what fits -------------------------------------------------------------------------------------------


def _fits(value: Any, deeper: int) -> bool:
    """Tell whether JSON gives all containers in `value` back as they were; numbers and texts aside."""
    kind = type(value)
    if kind is list:
        inside = value
    elif kind is dict and _TEXTS.issuperset(map(type, value)):
        inside = value.values()
    else:
        return False
    if _ATOMS.issuperset(map(type, inside)):
        return True
    return deeper > 1 and all(type(part) in _ATOMS or _fits(part, deeper - 1) for part in inside)


def _fault(value: Any) -> NotSerializable:
    """Return the error for the first value that does not fit."""
    fault = _find_fault(value, "", MAX_NESTING_LEVELS)
    return fault if fault is not None else NotSerializable("this has no form in JSON", where="", kind="")


def _find_fault(value: Any, where: str, deeper: int) -> NotSerializable | None:
    kind = type(value)
    if kind in _ATOMS:
        reason = _unfit(value)
        return None if reason is None else _refused(value, "a value", where, reason)
    if kind not in (list, dict):
        return _refused(value, "a value", where)
    if not deeper:
        return _refused(
            value, "a value", where, f"is nested more than {MAX_NESTING_LEVELS} levels deep, or contains itself"
        )
    if kind is list:
        parts = ((f"{where}[{number}]", part) for number, part in enumerate(value))
    else:
        for key in value:
            if type(key) is not str:
                return _refused(key, "a key of a dict", where, "would come back as a str: give str keys")
            if (reason := _unfit(key)) is not None:
                return _refused(key, "a key of a dict", where, reason)
        parts = ((f"{where}[{key!r}]", part) for key, part in value.items())
    faults = (_find_fault(part, place, deeper - 1) for place, part in parts)
    return next((fault for fault in faults if fault is not None), None)


def _unfit(atom: Any) -> str | None:
    """Say why a text or number has no form in JSON; None if it has."""
    if isinstance(atom, float) and not math.isfinite(atom):
        return "is no number in JSON: give None, or a text"
    try:
        _encode(atom).encode()
    except UnicodeEncodeError:
        return "has a lone surrogate in it, which is no text: give it in another form"
    except ValueError:
        return "has more digits than Python writes: give a text, hex() for one"
    return None


def _refused(value: Any, what: str, where: str, reason: str | None = None) -> NotSerializable:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if reason is None:
        reason = _INSTEAD.get(kind, "would not come back as it was: give dicts, lists, texts, numbers")
    place = f" at {where}" if where else ""
    return NotSerializable(
        f"{what} can't be written as JSON, the serializer of this store: {name}{place} {reason}. Nothing was written",
        where=where,
        kind=name,
    )


# -- states of primitives --------------------------------------------------------------------------------


def _dump_state(state: tuple[Any, ...]) -> bytes:
    return _written(_encoded(state, MAX_NESTING_LEVELS))


def _load_state(payload: bytes) -> Any:
    try:
        return _decoded(_read(payload))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no state of a primitive: {error!r}") from None


def _encoded(state: Any, deeper: int) -> Any:
    if not deeper:
        return state  # which is too deep to be written
    if isinstance(state, tuple):
        return [_encoded(part, deeper - 1) for part in state]
    if type(state) is list:
        return {"list": [_encoded(part, deeper - 1) for part in state]}
    if type(state) is dict:
        return {"dict": [[_encoded(key, 1), _encoded(value, deeper - 1)] for key, value in state.items()]}
    return state


def _decoded(part: Any) -> Any:
    if type(part) is list:
        return tuple(map(_decoded, part))
    if type(part) is not dict:
        return part
    if type(parts := part.get("list")) is list:
        return [_decoded(each) for each in parts]
    return {_decoded(key): _decoded(value) for key, value in part["dict"]}


JSON = Codec(
    dumps, loads, copy, item, items, load_items, _pack, _unpack, _dump_state, _load_state, _embed, _extract,
    objects=False, untrusted=True, damage=(ValueError,),
)  # fmt: skip
