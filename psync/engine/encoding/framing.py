"""Framing: a stored pickle carries its length and its checksum, and is a plain pickle to every other reader.

Opcodes that push a number and pop it again change nothing for an unpickler, so the length and the CRC-32 stand in
the pickle itself, as such numbers. There are three kinds:

* A **frame** around a value: ``PROTO 5, crc POP, length POP``, and then the pickle (whose own PROTO says nothing new).
  The head has a fixed length. So one ``pwrite`` replaces a value in place, and what a longer value left behind the end
  is ignored.
* A **bucket** is one pickled dict that grows: ``PROTO 5, EMPTY_DICT, flags POP, items..., crc POP, STOP``. An append
  writes ``items, crc POP, STOP`` behind the old STOP, and then changes that one byte, the old STOP, to the first byte
  of the items. That byte decides. Each checksum covers all bytes before it, so a tail whose writer was killed before
  that byte does not fit. Not promised: that damage is noticed which makes a STOP of just that byte; then the append was
  never made.
* A **text frame** is no pickle: a text of psync's own, and a last line with its length and checksum.

A file that is none of these may be somebody else's plain pickle (`psync.engine.encoding.pickle_scan`).
"""

# annotations are evaluated here: `NamedTuple` would compile each one that is a string, at every start
import struct
from typing import NamedTuple
from zlib import crc32

CELL = struct.Struct("<3sI3sQc")
"""``\\x80\\x05J`` crc ``0\\x8a\\x08`` length ``0``: PROTO, BININT, POP, LONG1, POP."""
CELL_HEAD = CELL.size
_pack, _unpack = CELL.pack, CELL.unpack_from
_CELL_MARKS = tuple(zip((0, 1, 2, 7, 8, 9, 18), b"\x80\x05J0\x8a\x080", strict=True))

BUCKET_HEAD = 6
_BUCKET_MARKS = tuple(zip((0, 1, 2, 3, 5), b"\x80\x05}K0", strict=True))
_EMPTIED_BUCKET = b"\x80\x05}."
"""What a bucket without its middle would leave; a pickler memoizes its empty dict."""
_TRAILER = struct.Struct("<cI2s")
TRAILER = _TRAILER.size


MIN_MARKS = 4
"""Bytes of the head of a frame, or of a bucket, that must be right: with fewer, the bytes are taken for foreign."""


class Unreadable(Exception):
    """The bytes fail their check. Internal: becomes `CorruptValue` once it is sure that no writer is at work.

    `foreign`: they bear no checksum of psync's, and are no whole pickle, so psync has not written them.
    """

    def __init__(self, reason: str, *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.foreign = foreign


def frame(payload: bytes) -> bytes:
    """The bytes to store for one complete pickle: a frame around it."""
    return _pack(b"\x80\x05J", crc32(payload), b"0\x8a\x08", len(payload), b"0") + payload


DICT_HEAD = 12
"""Bytes of a pickle that tell whether it is a dict's: PROTO, perhaps FRAME, EMPTY_DICT."""


def is_dict(payload: bytes) -> bool:
    """Tell whether a pickle begins as one of a plain dict does. One of a subclass of dict does not."""
    at = 11 if payload[2:3] == b"\x95" else 2
    return payload[at : at + 1] == b"}"


Parts = tuple[bytes, bytes]


def frame_parts(payload: bytes) -> Parts:
    """The frame in two parts, without a copy of the pickle: for large values."""
    return _pack(b"\x80\x05J", crc32(payload), b"0\x8a\x08", len(payload), b"0"), payload


class FrameHeader(NamedTuple):
    """The length and the checksum of a framed pickle."""

    length: int
    crc: int

    def fits(self, payload: bytes) -> bool:
        return len(payload) == self.length and crc32(payload) == self.crc


def header_of(head: bytes) -> FrameHeader | None:
    """The header of the frame that begins with these bytes; None if none does."""
    if len(head) < CELL_HEAD:
        return None
    proto, crc, middle, length, end = _unpack(head)
    return FrameHeader(length, crc) if proto == b"\x80\x05J" and middle == b"0\x8a\x08" and end == b"0" else None


def unframe(data: bytes) -> bytes | None:
    """The pickle in a frame; None if `data` is no frame. Raises `Unreadable` if it is a damaged one, or
    can be no pickle of another program's."""
    if len(data) > CELL_HEAD:
        proto, crc, middle, length, end = _unpack(data)
        if proto == b"\x80\x05J" and middle == b"0\x8a\x08" and end == b"0":
            if length > len(data) - CELL_HEAD:
                raise Unreadable(f"{length} bytes were written and {len(data) - CELL_HEAD} are there")
            payload = data[CELL_HEAD : CELL_HEAD + length]
            if crc32(payload) != crc:
                raise Unreadable("the checksum does not fit the bytes")
            return payload
    if is_bucket(data):
        return data[: committed(data).end]
    if data[:2] == b"\x80\x05" and ((6 <= len(data) <= 65536 and data[2] != 0x95) or data[2:3] == b"J"):
        # From protocol 4 on a pickler puts all that is longer than 3 bytes and shorter than 64 KB into frames.
        raise Unreadable("the head of the frame is damaged", foreign=not bears_frame(data))
    if data == _EMPTIED_BUCKET:
        raise Unreadable("the items are cut out of it")
    for marks in (_CELL_MARKS, _BUCKET_MARKS):
        hits = sum(1 for at, byte in marks if at < len(data) and data[at] == byte)
        if hits >= 4 or (hits == len(data) and hits):
            raise Unreadable("the head of the frame is damaged", foreign=not bears_frame(data))
    return None


def bears_frame(data: bytes) -> bool:
    """Tell whether psync wrote what begins so, damaged or not: the head of a frame or of a bucket is there."""
    if data[:3] == b"\x80\x05J" or data == _EMPTIED_BUCKET:
        return True
    return any(
        sum(1 for at, byte in marks if at < len(data) and data[at] == byte) >= MIN_MARKS
        for marks in (_CELL_MARKS, _BUCKET_MARKS)
    )


def as_pickle(data: bytes) -> bytes:
    """A pickle of a `bytes` object: for what rests in a store and means something to psync alone."""
    return b"\x80\x05B" + len(data).to_bytes(4, "little") + data + b"."


def frame_text(text: bytes) -> bytes:
    """The bytes to store for a small text of psync's own: the text, and a line with its length and checksum."""
    return b"%b\n%d %08x\n" % (text, len(text), crc32(text))


def unframe_text(data: bytes) -> bytes:
    """The text in a text frame. Raises `Unreadable`."""
    text, _, last = data[:-1].rpartition(b"\n")
    if data[-1:] != b"\n" or last != b"%d %08x" % (len(text), crc32(text)):
        raise Unreadable("the checksum does not fit the text")
    return text


# -- buckets -----------------------------------------------------------------------------------------


class End(NamedTuple):
    """The end of a bucket: the offset behind its STOP, and the checksum of all bytes before that STOP."""

    end: int
    check: int


def is_bucket(data: bytes) -> bool:
    return data[:4] == b"\x80\x05}K" and data[5:6] == b"0"


def flags_of(data: bytes) -> int:
    return data[4]


def whole_bucket(ops: bytes, flags: int) -> tuple[bytes, End]:
    """The bytes of a new bucket that holds `ops`."""
    head = b"\x80\x05}K" + bytes((flags,)) + b"0"
    tail, end = extension(ops, End(len(head) + 1, crc32(head)))
    return head + tail, end


def extension(ops: bytes, at: End) -> tuple[bytes, End]:
    """The bytes that go to ``at.end - 1``, over the old STOP, to append `ops`; and where the bucket ends then."""
    crc = crc32(ops, at.check)
    tail = _TRAILER.pack(b"J", crc, b"0.")
    return ops + tail, End(at.end + len(ops) + TRAILER - 1, crc32(tail[:-1], crc))


def follow(chunk: bytes, at: End, begin: int = 0) -> tuple[bytes, End]:
    """The opcodes that were appended, and where the bucket ends then. From its byte `begin` on, `chunk` holds all bytes
    of the bucket from ``at.end - 1`` on. Raises `Unreadable` if the end does not fit."""
    if len(chunk) - begin == 1 and chunk[begin:] == b"." and at.end > BUCKET_HEAD + 1:
        return b"", at  # (a bucket never ends behind its head: even an empty one has a checksum)
    if len(chunk) - begin < TRAILER:
        raise Unreadable("the bucket ends too early")
    j, crc, stop = _TRAILER.unpack_from(chunk, len(chunk) - TRAILER)
    ops = chunk[begin:-TRAILER]
    if j != b"J" or stop != b"0." or crc32(ops, at.check) != crc:
        raise Unreadable("the checksum does not fit the items")
    return ops, End(at.end + len(chunk) - begin - 1, crc32(chunk[-TRAILER:-1], crc))


def start(data: bytes) -> End:
    """The end that an empty bucket with this head would have, to `follow` from."""
    return End(BUCKET_HEAD + 1, crc32(data[:BUCKET_HEAD]))


def committed(data: bytes) -> End:
    """Where the bucket in `data` really ends: behind it may stand a tail whose writer was killed before the flip."""
    first = start(data)
    stop = len(data)
    while stop >= BUCKET_HEAD + TRAILER:
        try:
            return follow(data[BUCKET_HEAD:stop], first)[1]
        except Unreadable:
            stop = data.rfind(b"0.", 0, stop - 1) + 2
            while stop > 1 and data[stop - TRAILER : stop - TRAILER + 1] != b"J":
                stop = data.rfind(b"0.", 0, stop - 1) + 2
    raise Unreadable("no checksum in the bucket fits")
