"""Record format: how a record lies in its segment, and how damage to it is found. Pure: nothing is read here.

A head of 16 bytes (length, checksum, how many more records were appended with it, and a check of the head itself), the
payload, and padding up to a multiple of 32.
"""

from __future__ import annotations

import struct
from zlib import crc32

from psync.engine.encoding.framing import Unreadable

_HEAD = struct.Struct("<IIII")
_ALL = 0xFFFFFFFF
HEAD_BYTES = _HEAD.size
ALIGN_BYTES = 32
"""Records begin at multiples of this, so half of their offsets are multiples of the 16 bytes of a status."""
_PADDING = tuple(bytes(size) for size in range(ALIGN_BYTES))
head_at = _HEAD.unpack_from
"""Length, checksum, how many more were appended with it, and the check, of the head at an offset of some bytes."""


def encode(payload: bytes, position: int, more: int = 0) -> bytes:
    """A record as it lies in the file. The checksum covers the position: neither zeros nor another record fit."""
    length = len(payload)
    check = _ALL ^ length ^ (more << 8 & _ALL if more else 0)
    head = _HEAD.pack(length, crc32(payload, position + 1 & _ALL), more, check)
    return head + payload + _PADDING[-(HEAD_BYTES + length) % ALIGN_BYTES]


def size_of(length: int) -> int:
    """Bytes of a record with a payload of `length` bytes."""
    return (HEAD_BYTES + length + ALIGN_BYTES - 1) & -ALIGN_BYTES


def fits(payload: bytes, checksum: int, position: int) -> bool:
    """Whether the payload fits the checksum of the record at `position`."""
    return crc32(payload, position + 1 & _ALL) == checksum


def length_at(data: bytes, at: int, position: int) -> int:
    """The length of the record whose head is at an offset of `data`. Raises `Unreadable`."""
    length, _, more, check = head_at(data, at)
    if check != _ALL ^ length ^ more << 8 & _ALL:
        raise Unreadable(f"the head of the record at {position} does not fit its check")
    return int(length)
