"""Signatures: put a head with an HMAC before a payload; for every reader of pickles, head and payload are one `bytes`.

The tag is HMAC-SHA256 over the store's id, the shape and the name that it was made for, the generation, and the
payload. It is verified before any caller gets the payload. The fact that decides: whether the tag fits.

In a bucket, each append is one signed piece that is pushed and popped again: a program that unpickles the file gets an
empty dict. The generation counts the changes of a register, so that a process that has seen a later state notices when
an earlier one is put back. For cells, pieces and records it is 0: an earlier value that is put back under its own name
goes unnoticed (see SECURITY.md).
"""

from __future__ import annotations

import struct

from psync.engine.signed.keys import TAG_BYTES, Keys
from psync.errors import UnsafeStore

_HEAD = struct.Struct(f"<3sQ4s4sQ{TAG_BYTES}s")
"""PROTO 5 and BINBYTES8; its length; magic, name of the key, generation, tag."""
HEAD = _HEAD.size
_OPEN, _MAGIC = b"\x80\x05\x8e", b"psq\x01"
_BYTES = HEAD - 11
"""The bytes of the head that are part of the `bytes` object."""
_COMMIT_BYTES = 6
"""Between two appends to a bucket stands a number of this size that is pushed and popped."""
_DICTS = b"\x80\x05}", b"\x80\x03}"
"""The first bytes of a bucket that is read as a cell; a number that is pushed and popped may follow."""
COPY_MAX_BYTES = 1 << 16
"""A larger payload is hashed where it is; a smaller one is copied, which takes one call less."""
CELL, PIECE, RECORD, REGISTER = b"cblr"
_GENERATION = struct.Struct("<Q")


class BadSignature(Exception):
    """A signature is missing or does not fit. Internal: becomes `CorruptValue` where the name is known."""


class Signer:
    """Signs and verifies the payloads of one store."""

    def __init__(self, keys: Keys, store: bytes) -> None:
        import hmac  # here, as wherever a key is used: it loads OpenSSL, for which only stores with a key should pay

        self.keys = keys
        self._store = store
        self._hmac = hmac

    def sign(self, shape: int, name: bytes, payload: bytes, generation: int = 0) -> bytes:
        tag = self._tag(self.keys.signing_key, shape, name, generation, payload)
        size = _BYTES + len(payload)
        head = _HEAD.pack(_OPEN, size, _MAGIC, self.keys.signing_name, generation, tag)
        return b"".join((head, payload, b"."))  # one copy

    def verify(self, shape: int, name: bytes, data: bytes) -> tuple[bytes, int]:
        """Return the payload and its generation. Raises `BadSignature`; `UnsafeStore` if the key was not given."""
        if len(data) <= HEAD:
            raise BadSignature("it carries no seal")
        begin, size, magic, key_name, generation, tag = _HEAD.unpack_from(data)
        if begin != _OPEN or magic != _MAGIC:
            raise BadSignature("it carries no seal")
        if size != len(data) - HEAD + _BYTES - 1:
            raise BadSignature("the seal is for something of another length")
        payload = data[HEAD:-1]
        key = self._key(key_name, name)
        if not self._hmac.compare_digest(self._tag(key, shape, name, generation, payload), tag):
            raise BadSignature("the seal does not fit: it was changed, or sealed for another name or store")
        return payload, generation

    def verify_cell(self, name: bytes, data: bytes) -> bytes:
        """Return the payload of a cell; for a bucket that is read as one, the dict in it."""
        ops = items_of(data)
        if ops is None:
            return self.verify(CELL, name, data)[0]
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
        if len(payload) < COPY_MAX_BYTES:
            return self._hmac.digest(key, about + payload, "sha256")
        made = self._hmac.new(key, about, "sha256")
        made.update(payload)
        return made.digest()

    # -- the pieces of a bucket ---------------------------------------------------------------------------

    def piece(self, name: bytes, ops: bytes) -> bytes:
        """Return `ops`, signed, as opcodes that change nothing. No opcodes stay none: that is how a bucket is made."""
        return self.sign(PIECE, name, ops)[2:-1] + b"0" if ops else b""

    def pieces(self, name: bytes, ops: bytes) -> bytes:
        """Return the opcodes that were signed in all pieces of `ops`. Raises `BadSignature`."""
        found = []
        at, end = 0, len(ops)
        while at < end:
            if ops[at] == 0x4A and ops[at + 5 : at + _COMMIT_BYTES] == b"0":
                at += _COMMIT_BYTES
                continue
            size = int.from_bytes(ops[at + 1 : at + 9], "little")
            stop = at + 9 + size
            if ops[at] != 0x8E or size <= _BYTES or ops[stop : stop + 1] != b"0":
                raise BadSignature("it holds something that carries no seal")
            found.append(self.verify(PIECE, name, b"".join((b"\x80\x05", ops[at:stop], b".")))[0])
            at = stop + 1
        return b"".join(found) if len(found) != 1 else found[0]


def items_of(data: bytes) -> bytes | None:
    """Return the opcodes that set the items of a bucket that was read as a cell; None if `data` is no bucket."""
    if not data.startswith(_DICTS):
        return None
    at = len(_DICTS[0])
    at += 3 if data[at : at + 1] == b"K" and data[at + 2 : at + 3] == b"0" else 0
    return data[at:-1]


def encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
