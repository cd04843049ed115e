"""Encoding: frames the server's strings with a kind, a version and a checksum.

* A **cell**: ``C``, 8 random bytes (its version), the CRC-32 of the pickle, the pickle.
* A **bucket**: ``B``, 8 random bytes (drawn when it was begun or replaced), its flags, and then chunks: length and
  CRC-32 of some items, and the items. The server appends a chunk at the end; nothing before it ever changes.
* A **register**: as a cell; its payload is any bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from zlib import crc32

CELL, BUCKET = b"C", b"B"
CELL_HEAD, BUCKET_HEAD = 13, 10
VERSION = 9
"""Length of kind and version: these bytes differ after every write."""
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<II")


class Unreadable(Exception):
    """The bytes fail their check. Becomes `CorruptValue` once they are kept elsewhere."""


def fresh() -> bytes:
    """Draw eight random bytes, a new version."""
    return os.urandom(8)


def cell(payload: bytes) -> bytes:
    return b"".join((CELL, fresh(), _CRC.pack(crc32(payload)), payload))


def uncell(data: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Decode payload and version of the value at a name, be it a cell or a bucket. Raises `Unreadable`."""
    if data[:1] == CELL and len(data) >= CELL_HEAD:
        payload = data[CELL_HEAD:]
        if crc32(payload) != _CRC.unpack_from(data, 9)[0]:
            raise Unreadable("the checksum does not fit the bytes")
        return payload, (int.from_bytes(data[1:9], "little"),)
    identity, _ = head(data)
    ops = b"".join(chunks(data[BUCKET_HEAD:]))
    return b"\x80\x05}" + ops + b".", (identity, len(data))


def bucket_head(flags: int = 0) -> bytes:
    return BUCKET + fresh() + bytes((flags,))


def head(data: bytes) -> tuple[int, int]:
    """Decode identity and flags of a bucket. Raises `Unreadable`."""
    if data[:1] != BUCKET or len(data) < BUCKET_HEAD:
        raise Unreadable("it is neither a cell nor a bucket")
    return int.from_bytes(data[1:9], "little"), data[9]


def chunk(ops: bytes) -> bytes:
    return _CHUNK.pack(len(ops), crc32(ops)) + ops if ops else b""


def chunks(data: bytes) -> Iterator[bytes]:
    """Yield the appended items, append by append. Raises `Unreadable`."""
    at = 0
    while at < len(data):
        if at + _CHUNK.size > len(data):
            raise Unreadable("a chunk has no whole head")
        length, check = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        ops = data[at : at + length]
        if len(ops) != length or crc32(ops) != check:
            raise Unreadable("the checksum does not fit the items")
        yield ops
        at += length
