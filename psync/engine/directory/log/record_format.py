"""How the record of a log lies in its segment, and how it is told from what is damaged. Pure: nothing is read here.

A head of 16 bytes (length, checksum, how many more were appended with it, and a check of the head itself), the payload,
and filling up to a multiple of 32.
"""

from __future__ import annotations

import struct
from zlib import crc32

from psync.engine.encoding.framing import Unreadable

_HEAD = struct.Struct("<IIII")
_ALL = 0xFFFFFFFF
HEAD = _HEAD.size
ALIGN = 32
"""Records begin at multiples of this, so half of their offsets are multiples of a mark's 16 bytes."""
_FILLING = tuple(bytes(size) for size in range(ALIGN))
head_at = _HEAD.unpack_from
"""Length, checksum, how many more were appended with it, and the check, of the head at an offset of some bytes."""


def encode(payload: bytes, position: int, more: int = 0) -> bytes:
    """A record as it lies in the file. Its checksum covers the position: neither bytes of elsewhere nor zeros fit."""
    length = len(payload)
    check = _ALL ^ length ^ (more << 8 & _ALL if more else 0)
    head = _HEAD.pack(length, crc32(payload, position + 1 & _ALL), more, check)
    return head + payload + _FILLING[-(HEAD + length) % ALIGN]


def size_of(length: int) -> int:
    """How many bytes a record with a payload of `length` takes."""
    return (HEAD + length + ALIGN - 1) & -ALIGN


def fits(payload: bytes, checksum: int, position: int) -> bool:
    """Whether the payload is that of the record at `position`, as far as its checksum can tell."""
    return crc32(payload, position + 1 & _ALL) == checksum


def length_at(data: bytes, at: int, position: int) -> int:
    """The length of the record whose head is at an offset of `data`. Raises `Unreadable`."""
    length, _, more, check = head_at(data, at)
    if check != _ALL ^ length ^ more << 8 & _ALL:
        raise Unreadable(f"the head of the record at {position} does not fit its check")
    return int(length)
