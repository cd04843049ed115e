"""Pickle scan: opens a plain pickle that psync did not write only if it claims no more bytes than it has.

`pickle.loads` allocates what an opcode claims before it looks whether the bytes are there, so nine bytes can ask for
gigabytes. The scan walks the opcodes, as `pickletools` describes them. It refuses a claim that is larger than the file,
a file that does not end with its STOP, and unknown opcodes. It does not protect from hostile pickles: only a signature
does (`psync.engine.signed`).
"""

from __future__ import annotations

import functools

from psync.engine.encoding.framing import Unreadable

_LINES = {"decimalnl_short", "decimalnl_long", "floatnl", "stringnl", "stringnl_noescape", "unicodestringnl"}
_MEMO = {0x71: 1, 0x72: 4}  # BINPUT, LONG_BINPUT


@functools.cache
def opcode_table() -> list[tuple[str, int]]:
    """For each opcode, by its byte: how the length of its argument is found, and with how many bytes."""
    import pickletools  # here, as only a plain pickle needs it

    table = [("unknown", 0)] * 256
    for op in pickletools.opcodes:
        code, arg = ord(op.code), op.arg
        if arg is None:
            table[code] = ("fixed", 0)
        elif arg.name in _LINES:
            table[code] = ("line", 1)
        elif arg.name == "stringnl_noescape_pair":
            table[code] = ("line", 2)
        elif arg.n >= 0:
            table[code] = ("fixed", arg.n)
        else:  # counted: TAKEN_FROM_ARGUMENT1 = -2, 4 = -3, 4U = -4, 8U = -5
            table[code] = ("counted", {-2: 1, -3: 4, -4: 4, -5: 8}[arg.n])
    table[0x95] = ("frame", 8)
    return table


def check(data: bytes) -> None:
    """Raise `Unreadable` unless `data` is laid out like exactly one pickle that claims no more bytes than it has."""
    size = len(data)
    if size < 3 or data[0] != 0x80 or not 2 <= data[1] <= 5:
        raise Unreadable("empty" if not size else "not a pickle")
    table = opcode_table()
    at = 0
    while at < size:
        code = data[at]
        kind, width = table[code]
        at += 1
        if code == 0x2E:
            if at == size:
                return
            raise Unreadable("bytes follow the end of the pickle")
        if kind == "fixed":
            if code in _MEMO and int.from_bytes(data[at : at + width], "little") > size:
                raise Unreadable("a memo index is larger than the file")
            at += width
        elif kind == "counted":
            at += width + int.from_bytes(data[at : at + width], "little")
        elif kind == "frame":
            if at + 8 + int.from_bytes(data[at : at + 8], "little") > size:
                raise Unreadable("a frame is larger than the file")
            at += 8
        elif kind == "line":
            start = at
            for _ in range(width):
                at = data.find(b"\n", at) + 1
                if not at:
                    raise Unreadable("a line does not end")
            if code == 0x70 and not _fits(data[start : at - 1], size):  # PUT
                raise Unreadable("a memo index is larger than the file")
        else:
            raise Unreadable(f"0x{code:02x} is no pickle opcode")
    raise Unreadable("the pickle ends too early")


def _fits(digits: bytes, size: int) -> bool:
    """Whether a file of this size could need a memo index of these decimal digits."""
    return digits.isdigit() and len(digits) < 20 and int(digits) <= size
