"""Pickle split: divides a pickled dict into its items, without building an object and without importing anything.

The walk follows the opcodes with a stack that holds, in place of objects, the range of bytes that makes each. A SETITEM
on the object at the bottom of the stack gives the ranges of a key and a value. An item may refer to what stands before
it, by the memo of the pickler: then the bytes that make that object are put in front, and their memo entries get new
numbers. Names that Python 2 wrote get those of Python 3. So each piece can be unpickled, or stored in another bucket,
by itself, below any PROTO.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from psync.engine.encoding.pickle_scan import opcode_table

_SETITEM, _SETITEMS, _DICT, _EMPTY_DICT = b"sud}"
_REDUCE, _NEWOBJ, _MEMOIZE, _PUT, _GET, _PROTO = b"R\x81\x94pg\x80"
_GLOBALS = b"ci"
_EMPTY_TUPLES = b")", b"(t"
_CHANGES = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "ADDITEMS"}
"""They change the object below their operands and make none."""
LAST_PROTOCOL_OF_PYTHON_2, PROTOCOL_OF_BUCKETS = 2, 5


class Piece(NamedTuple):
    """An item of a dict."""

    key: bytes
    """The opcodes that push it."""
    value: bytes
    start: int
    end: int
    """Without [start, end), `data` makes a dict without this item (if no other item refers to this one)."""


class Unsplittable(ValueError):
    """The bytes are not laid out like a pickled dict."""


class _Range:
    """The bytes that make one object: [start, end)."""

    __slots__ = ("end", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end


class _Event(NamedTuple):
    """An opcode that another place needs in another form."""

    at: int
    end: int
    put: int | None = None
    """The number of the PUT, or of the one that the GET refers to; None for other opcodes."""
    gets: bool = False
    other_form: bytes = b""
    """What stands for it elsewhere, if it is no PUT or GET."""


def split(data: bytes, *, whole: bool) -> list[Piece]:
    """Return the items in their order, those that later ones replace included.

    `data` is one complete pickle of a dict if it is `whole`, else opcodes that set items on a dict below them. Raises
    `Unsplittable`.
    """
    walk = _Walk(data, whole)
    if walk.items is None or (walk.is_called and not walk.items):
        raise Unsplittable("it is no dict whose items stand one after the other")
    piece = walk.piece
    return [
        Piece(piece(key.start, key.end), piece(value.start, value.end), key.start, end)
        for key, value, end in walk.items
    ]


def is_well_formed(data: bytes) -> bool:
    """Tell whether the opcodes of `data` make exactly one object, as far as that shows without making it."""
    try:
        _Walk(data, True)
    except Unsplittable:
        return False
    return True


class _Walk:
    """One pass over the opcodes, and what it found."""

    def __init__(self, data: bytes, whole: bool) -> None:
        self.data = data
        self.items: list[tuple[_Range, _Range, int]] | None = None if whole else []
        """The items, and where each ends, of the object at the bottom; None if it is not made of items alone."""
        self.is_called = False
        """Whether the object at the bottom is made by a call without arguments, so that it may be anything."""
        self._whole = whole
        self._stack: list[_Range] = [] if whole else [_Range(0, 0)]
        self._marks: list[tuple[int, int]] = []
        """Where each MARK stands, and how many objects are below it."""
        self._floor = 0
        """How many objects are below the last MARK."""
        self._memo: dict[int, int] = {}
        """Which PUT wrote each entry last."""
        self._puts: list[_Range] = []
        """The object that each PUT stored."""
        self._protocol = 0 if whole else PROTOCOL_OF_BUCKETS
        self._events: list[_Event] = []
        self._starts: list[int] = []
        """Where each event begins."""
        self._stopped = False
        try:
            self._go()
        except (IndexError, KeyError, ValueError) as error:
            raise Unsplittable(f"its opcodes don't fit together: {error!r}") from error

    def _go(self) -> None:
        data, stack, effects, table = self.data, self._stack, _effects(), opcode_table()
        push = _Walk._push
        at, size = 0, len(data)
        while at < size and not self._stopped:
            begin, code = at, data[at]
            kind, width = table[code]
            at = begin + 1 + width if kind == "fixed" else _end_of(data, begin, kind, width)
            effect, operands = effects[code]
            if effect is push and stack:
                stack.append(_Range(begin, at))
            else:
                effect(self, code, begin, at, operands)
        self._need(at == size and self._stopped is self._whole and len(stack) == 1 and not self._marks)

    def _need(self, right: bool) -> None:
        if not right:
            raise ValueError("something is missing")

    # -- the effects of opcodes --------------------------------------------------------------------------

    def _push(self, code: int, begin: int, end: int, operands: int) -> None:
        if not self._stack:
            self.is_called = False
            self.items = [] if code == _EMPTY_DICT else None
        self._stack.append(_Range(begin, end))

    def _make(self, code: int, begin: int, end: int, operands: int) -> None:
        """Make an object of the last ones."""
        stack = self._stack
        low = len(stack) - operands
        self._need(low >= self._floor)
        if code in _GLOBALS:
            self._rename(begin, end)
        if not low:  # an OrderedDict, for one, is made by a call without arguments, and its items follow
            self.is_called = code in (_REDUCE, _NEWOBJ) and self.data.startswith(_EMPTY_TUPLES, stack[-1].start)
            self.items = [] if self.is_called else None
        start = stack[low].start if operands else begin
        del stack[low:]
        stack.append(_Range(start, end))

    def _make_from_mark(self, code: int, begin: int, end: int, operands: int) -> None:
        """Make an object of all above the last MARK."""
        stack = self._stack
        if code in _GLOBALS:
            self._rename(begin, end)
        start, low = self._pop_last_mark()
        if not low:
            self.is_called = False
            self.items = [] if code == _DICT else None
            self._set(_SETITEMS, end, stack)
        del stack[low:]
        stack.append(_Range(start, end))

    def _change(self, code: int, begin: int, end: int, operands: int) -> None:
        """Change the object below the last ones."""
        self._changed(code, end, len(self._stack) - operands)

    def _change_from_mark(self, code: int, begin: int, end: int, operands: int) -> None:
        """Change the object below the last MARK."""
        self._changed(code, end, self._pop_last_mark()[1])

    def _changed(self, code: int, end: int, low: int) -> None:
        self._need(low > self._floor)
        self._stack[low - 1].end = end
        if low == 1:
            self._set(code, end, self._stack[1:])
        del self._stack[low:]

    def _set(self, code: int, end: int, operands: list[_Range]) -> None:
        """The object at the bottom was changed."""
        if code not in (_SETITEM, _SETITEMS) or len(operands) % 2:
            self.items = None
        elif self.items is not None:
            pairs = zip(operands[::2], operands[1::2], strict=True)
            self.items += [(key, value, end if code == _SETITEM else value.end) for key, value in pairs]

    def _mark(self, code: int, begin: int, end: int, operands: int) -> None:
        self._floor = len(self._stack)
        self._marks.append((begin, self._floor))

    def _pop_last_mark(self) -> tuple[int, int]:
        last = self._marks.pop()
        self._floor = self._marks[-1][1] if self._marks else 0
        return last

    def _pop(self, code: int, begin: int, end: int, operands: int) -> None:
        if self._marks and self._floor == len(self._stack):
            self._pop_last_mark()
        else:
            self._stack.pop()

    def _pop_mark(self, code: int, begin: int, end: int, operands: int) -> None:
        del self._stack[self._pop_last_mark()[1] :]

    def _put(self, code: int, begin: int, end: int, operands: int) -> None:
        self._need(len(self._stack) > self._floor)
        top, put = self._stack[-1], len(self._puts)
        self._memo[len(self._memo) if code == _MEMOIZE else self._number(code == _PUT, begin, end)] = put
        self._note(_Event(begin, end, put))
        self._puts.append(top)
        top.end = end

    def _get(self, code: int, begin: int, end: int, operands: int) -> None:
        self._note(_Event(begin, end, self._memo[self._number(code == _GET, begin, end)], gets=True))
        self._push(code, begin, end, operands)

    def _number(self, decimal: bool, begin: int, end: int) -> int:
        argument = self.data[begin + 1 : end]
        return int(argument) if decimal else int.from_bytes(argument, "little")

    def _frame(self, code: int, begin: int, end: int, operands: int) -> None:
        """PROTO and FRAME are left out of a piece."""
        if code == _PROTO:
            self._protocol = self.data[begin + 1]
        self._note(_Event(begin, end))

    def _rename(self, begin: int, end: int) -> None:
        """A name that Python 2 wrote is another one in a piece."""
        if self._protocol > LAST_PROTOCOL_OF_PYTHON_2:
            return
        module, name = self.data[begin + 1 : end - 1].decode().split("\n")
        if (now := renamed(module, name)) != (module, name):
            opcode = self.data[begin : begin + 1]
            self._note(_Event(begin, end, other_form=opcode + "\n".join((*now, "")).encode()))

    def _stop(self, code: int, begin: int, end: int, operands: int) -> None:
        self._stopped = True

    def _refuse(self, code: int, begin: int, end: int, operands: int) -> None:
        raise ValueError(f"the opcode 0x{code:02x}")

    def _note(self, event: _Event) -> None:
        self._starts.append(event.at)
        self._events.append(event)

    # -- pieces ------------------------------------------------------------------------------------------

    def piece(self, start: int, end: int) -> bytes:
        """Return opcodes that make the object in [start, end) wherever they stand. Raises `Unsplittable`."""
        if all(self._can_stay(event, start) for event in self._within(start, end)):
            return self.data[start:end]
        before = self._needed_before(start, end)
        parts = []
        reached = 0
        for begin in sorted(before):
            if before[begin] > reached:  # else it is within the one before
                reached = before[begin]
                parts += [self._renumbered(begin, reached), b"0"]
        return b"".join((*parts, self._renumbered(start, end)))

    def _within(self, start: int, end: int) -> list[_Event]:
        return self._events[bisect_left(self._starts, start) : bisect_left(self._starts, end)]

    def _can_stay(self, event: _Event, start: int) -> bool:
        """Tell whether an event can stay as it is in a piece from `start` on: its number is its own, and set there."""
        if event.put is None:
            return False
        return self._put_at[event.put] >= start if event.gets else self.data[event.at] != _MEMOIZE

    @functools.cached_property
    def _put_at(self) -> list[int]:
        """Where each PUT stands."""
        return [event.at for event in self._events if event.put is not None and not event.gets]

    def _needed_before(self, start: int, end: int) -> dict[int, int]:
        """Return the ranges, ends by starts, of all objects outside of [start, end) that it refers to, and they do."""
        before: dict[int, int] = {}
        todo = [(start, end)]
        while todo:
            low, high = todo.pop()
            for event in self._within(low, high):
                if event.put is None or not event.gets or self._put_at[event.put] >= low:
                    continue
                there = self._puts[event.put]
                if there.start <= start and there.end >= end:
                    raise Unsplittable("an item refers to what contains it")
                if before.get(there.start, 0) < there.end:
                    before[there.start] = there.end
                    todo.append((there.start, there.end))
        return before

    def _renumbered(self, start: int, end: int) -> bytes:
        """Return [start, end) with the numbers of PUTs as those of memo entries, each of which is used once."""
        parts = []
        for event in self._within(start, end):
            parts.append(self.data[start : event.at])
            if event.put is None:
                parts.append(event.other_form)
            else:
                parts.append((b"j" if event.gets else b"r") + event.put.to_bytes(4, "little"))
            start = event.end
        return b"".join((*parts, self.data[start:end]))


Effect = Callable[[_Walk, int, int, int, int], None]
"""Called with the opcode, where it begins and ends, and how many operands it takes from the stack."""
_SPECIAL: dict[str, Effect] = {
    "MARK": _Walk._mark, "POP": _Walk._pop, "POP_MARK": _Walk._pop_mark, "STOP": _Walk._stop,
    "PROTO": _Walk._frame, "FRAME": _Walk._frame, "GLOBAL": _Walk._make,
    "PUT": _Walk._put, "BINPUT": _Walk._put, "LONG_BINPUT": _Walk._put, "MEMOIZE": _Walk._put,
    "GET": _Walk._get, "BINGET": _Walk._get, "LONG_BINGET": _Walk._get,
    "DUP": _Walk._refuse, "NEXT_BUFFER": _Walk._refuse,  # no pickler writes the one; no loads() reads the other
}  # fmt: skip


@functools.cache
def _effects() -> list[tuple[Effect, int]]:
    """For each opcode, by its byte: its effect, and how many operands it takes from the stack, if that is fixed."""
    import pickletools  # here, as only what can't be loaded as a whole is split

    effects: list[tuple[Effect, int]] = [(_Walk._refuse, 0)] * 256
    for op in pickletools.opcodes:
        before = [each.name for each in op.stack_before]
        operands = len(before)
        if op.name in _SPECIAL:
            effect = _SPECIAL[op.name]
        elif op.name in _CHANGES:
            effect, operands = (_Walk._change_from_mark if "mark" in before else _Walk._change), operands - 1
        elif "mark" in before:
            effect = _Walk._make_from_mark
        else:
            effect = _Walk._make if before else _Walk._push
        effects[ord(op.code)] = effect, operands
    return effects


def renamed(module: str, name: str) -> tuple[str, str]:
    """Return what a name in a pickle of Python 2 is called in Python 3, as the unpickler does."""
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def _end_of(data: bytes, at: int, kind: str, width: int) -> int:
    """Return where the opcode at `at` ends, with its argument. Raises ValueError."""
    at += 1
    if kind == "counted":
        return at + width + int.from_bytes(data[at : at + width], "little")
    if kind == "line":
        for _ in range(width):
            at = data.index(b"\n", at) + 1
        return at
    if kind == "frame":
        return at + width
    raise ValueError("no opcode")
