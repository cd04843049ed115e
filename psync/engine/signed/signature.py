"""What a seal looks like: a head and a tag before the payload, all of it one `bytes` object for every pickle reader.

The tag is HMAC-SHA256 over the store's id, the shape and the name that it was made for, the generation, and the
payload. It is checked before anybody gets to see the payload. The fact that decides: whether the tag fits.

In a bucket each append is one sealed piece that is pushed and popped again: who unpickles the file gets an empty dict.
The generation counts the changes of a register, so that one that was put back to an earlier state is noticed by whoever
has seen a later one. For cells, pieces and records it is 0: an earlier value that somebody puts back under its own name
goes unnoticed (see SECURITY.md).
"""

from __future__ import annotations

import struct

from psync.engine.signed.keys import TAG, Keys
from psync.errors import UnsafeStore

_HEAD = struct.Struct(f"<3sQ4s4sQ{TAG}s")
"""PROTO 5 and BINBYTES8; its length; magic, name of the key, generation, tag."""
HEAD = _HEAD.size
_OPEN, _MAGIC = b"\x80\x05\x8e", b"psq\x01"
_BYTES = HEAD - 11
"""Of the head, those that are part of the bytes object."""
_COMMIT = 6
"""Bytes of what stands between two appends to a bucket: a number that is pushed and popped."""
_DICTS = b"\x80\x05}", b"\x80\x03}"
"""How a bucket begins, where it is read as a cell; a number that is pushed and popped may follow."""
LARGE = 1 << 16
CELL, PIECE, RECORD, REGISTER = b"cblr"
_GENERATION = struct.Struct("<Q")


class Broken(Exception):
    """The seal does not fit. Internal: becomes `CorruptValue` where the name is known."""


class Signer:
    """Seals and opens payloads of one store. What each shape needs beside that is in the classes below."""

    def __init__(self, keys: Keys, store: bytes) -> None:
        import hmac  # here, as wherever a key is used: with it comes OpenSSL, which only who has a key should pay for

        self.keys = keys
        self._store = store
        self._hmac = hmac

    def seal(self, shape: int, name: bytes, payload: bytes, generation: int = 0) -> bytes:
        tag = self._tag(self.keys.seal_with, shape, name, generation, payload)
        size = _BYTES + len(payload)
        head = _HEAD.pack(_OPEN, size, _MAGIC, self.keys.seal_name, generation, tag)
        return b"".join((head, payload, b"."))  # one copy

    def open(self, shape: int, name: bytes, data: bytes) -> tuple[bytes, int]:
        """The payload, and its generation. Raises `Broken`; `UnsafeStore` if it needs a key that was not given."""
        if len(data) <= HEAD:
            raise Broken("it carries no seal")
        begin, size, magic, key_name, generation, tag = _HEAD.unpack_from(data)
        if begin != _OPEN or magic != _MAGIC:
            raise Broken("it carries no seal")
        if size != len(data) - HEAD + _BYTES - 1:
            raise Broken("the seal is for something of another length")
        payload = data[HEAD:-1]
        key = self._key(key_name, name)
        if not self._hmac.compare_digest(self._tag(key, shape, name, generation, payload), tag):
            raise Broken("the seal does not fit: it was changed, or sealed for another name or store")
        return payload, generation

    def open_cell(self, name: bytes, data: bytes) -> bytes:
        """The payload of a cell; of a bucket that is read as one, the dict in it."""
        ops = items_of(data)
        if ops is None:
            return self.open(CELL, name, data)[0]
        return b"".join((_DICTS[0], self.pieces(name, ops), b"."))

    def _key(self, key_name: bytes, name: bytes) -> bytes:
        key = self.keys.named(key_name)
        if key is None:
            text = name.decode("utf-8", "backslashreplace")
            raise UnsafeStore(
                f"{text!r} was sealed with the key {key_name.hex()}, and this is opened with {self.keys}; it was left "
                "as it is. Give that key, too: key=[the new one, the old one]",
                path=None,
                reason="it was sealed with another key",
            )
        return key

    def _tag(self, key: bytes, shape: int, name: bytes, generation: int, payload: bytes) -> bytes:
        # fixed lengths but for name and payload, and the name's length is there: no two things make the same message
        about = b"".join(
            (self._store, bytes((shape,)), len(name).to_bytes(4, "little"), name, _GENERATION.pack(generation))
        )
        if len(payload) < LARGE:
            return self._hmac.digest(key, about + payload, "sha256")
        made = self._hmac.new(key, about, "sha256")
        made.update(payload)
        return made.digest()

    # -- the pieces of a bucket ---------------------------------------------------------------------------

    def piece(self, name: bytes, ops: bytes) -> bytes:
        """`ops`, sealed, as opcodes that change nothing. No opcodes stay none: that is how a bucket is made."""
        return self.seal(PIECE, name, ops)[2:-1] + b"0" if ops else b""

    def pieces(self, name: bytes, ops: bytes) -> bytes:
        """The opcodes that were sealed in all pieces of `ops`. Raises `Broken`."""
        found = []
        at, end = 0, len(ops)
        while at < end:
            if ops[at] == 0x4A and ops[at + 5 : at + _COMMIT] == b"0":
                at += _COMMIT
                continue
            size = int.from_bytes(ops[at + 1 : at + 9], "little")
            stop = at + 9 + size
            if ops[at] != 0x8E or size <= _BYTES or ops[stop : stop + 1] != b"0":
                raise Broken("it holds something that carries no seal")
            found.append(self.open(PIECE, name, b"".join((b"\x80\x05", ops[at:stop], b".")))[0])
            at = stop + 1
        return b"".join(found) if len(found) != 1 else found[0]


def items_of(data: bytes) -> bytes | None:
    """The opcodes that set the items of a bucket, which was read as a cell; None if it is none."""
    if not data.startswith(_DICTS):
        return None
    at = len(_DICTS[0])
    at += 3 if data[at : at + 1] == b"K" and data[at + 2 : at + 3] == b"0" else 0
    return data[at:-1]


def encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
