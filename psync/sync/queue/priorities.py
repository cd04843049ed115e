"""A queue's tasks lie in one log for each priority that was ever used, and are taken from the highest that has any.

Priority 0 is the main log, at the queue's own name; the others are at ``<queue>/p/<priority>``. Which there are stands
in the register ``<queue>/levels``. As long as there are none, a taker learns of the first from the note that the
main log hands out with each take, so it costs nothing; after that, each take looks into the register first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.engine import Engine
from psync.engine.contract.log import FINAL, WAITING, Change, Log, Mark, Record, State
from psync.store.codec import codec_of
from psync.store.key_hash import gethashfile
from psync.sync.shared_state import load_state

LOWEST, HIGHEST = -100, 100
"""Priorities, because every take looks at each that was ever used."""
BOUNDED, LEASED, LEVELS = 1, 2, 4
"""What a main log's note says: somebody waits for room now and then; some claims have leases; so many other levels."""
STEP, TOGETHER, FEW = 32, 11, 5
"""Tasks whose records lie in the same 2**11 bytes have their answers in one bucket, where a log counts in bytes, in
STEPs; where it counts one by one, 2**5 of them, mostly."""
_given = re.compile(r"#(?:p(-?\d+)\.)?([0-9a-f]+)").fullmatch


class Location(NamedTuple):
    """Where a task's record stands."""

    priority: int
    position: int

    @property
    def id(self) -> str:
        """The id of a task that was given none."""
        return f"#p{self.priority}.{self.position:x}" if self.priority else f"#{self.position:x}"


def location_of(id: str) -> Location | None:
    """Where the task of an id that says so was put; None for any other id."""
    found = _given(id)
    return None if found is None else Location(int(found[1] or 0), int(found[2], 16))


def place_of_answer(id: Any) -> str:
    """The bucket for the answer to a task: two hex digits. Tasks that were put in a row have theirs in one: they are
    mostly worked on by one process, and read together."""
    if type(id) is str and id[:1] == "#":
        try:
            position = int(id[id.find(".") + 1 or 1 :], 16)
            return f"{position >> (FEW if position % STEP else TOGETHER) & 0xFF:02x}"
        except ValueError:
            pass  # nobody was ever given that one
    return gethashfile(id)


def _priorities(used: Sequence[int]) -> tuple[int, ...]:
    """Raises TypeError for what are none: they become names of files."""
    if not all(type(each) is int and LOWEST <= each <= HIGHEST for each in used):
        raise TypeError("there are no priorities in it")
    return tuple(used)


class Level:
    """The tasks of one priority."""

    __slots__ = ("answer", "append", "ids", "log", "priority", "settle", "settle_all")

    def __init__(self, priority: int, log: Log) -> None:
        self.ids = f"#p{priority}." if priority else "#"
        """What the ids that tasks are given begin with."""
        self.priority = priority
        self.log = log
        self.append = log.append
        self.settle = log.settle
        self.settle_all = log.settle_all
        self.answer = log.answer


class HighLevel(Level):
    """One beside the main log: who watches that is told what happens here, too."""

    __slots__ = ("_announce",)

    def __init__(self, priority: int, log: Log, announce: Callable[[str], None]) -> None:
        super().__init__(priority, log)
        self._announce = announce
        self.append = self._append
        self.settle = self._settle
        self.settle_all = self._settle_all
        self.answer = self._answer

    def _append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        positions = self.log.append(payloads, mark)
        self._announce("")
        return positions

    def _settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        settled = self.log.settle(position, held, new, before)
        if settled and new.state is not State.CLAIMED:
            self._announce("/final" if new.state in FINAL else "")
        return settled

    def _settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        done = self.log.settle_all(changes)
        states = {change.new.state for change, size in zip(changes, done, strict=True) if size}
        if states.intersection(FINAL):
            self._announce("/final")
        if states.difference(FINAL, (State.CLAIMED,)):
            self._announce("")
        return done

    def _answer(self, position: int, held: Mark, new: Mark, bucket: Bucket, ops: bytes) -> int | None:
        size = self.log.answer(position, held, new, bucket, ops)
        if size:
            self._announce("/final")
        return size


class Levels:
    """All levels of one queue."""

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._where = where
        self._codec = codec_of(engine.format)
        self.main = Level(0, engine.log(where))
        self._register = engine.register(where + "/levels")
        self._raw: bytes | None = None
        self._all: tuple[Level, ...] = (self.main,)
        """From the highest to the lowest, as far as they are known here."""

    def all(self) -> tuple[Level, ...]:
        """From the highest to the lowest. One `Register.read`."""
        raw = self._register.read()
        if raw != self._raw:
            known = {level.priority: level for level in self._all}
            priorities = {0, *self._used(raw)}
            self._all = tuple(known.get(each) or self._level(each) for each in sorted(priorities, reverse=True))
            self._raw = raw
        return self._all

    def _used(self, raw: bytes | None) -> tuple[int, ...]:
        """The priorities that stand in the register."""
        return () if raw is None else load_state(self._codec, self._where + "/levels", raw, _priorities)

    def _level(self, priority: int) -> Level:
        log = self._engine.log(f"{self._where}/p/{priority}")
        return HighLevel(priority, log, lambda what: self._engine.announce(self._where + what))

    def find(self, priority: int) -> Level | None:
        """The level of a priority, if it was used before."""
        return next((level for level in self.all() if level.priority == priority), None)

    def level(self, priority: int) -> Level:
        """The level of a priority that was used before, or else is from now on. Raises ValueError."""
        if not priority:
            return self.main
        for level in self._all:
            if level.priority == priority:
                return level
        if not isinstance(priority, int) or not LOWEST <= priority <= HIGHEST:
            raise ValueError(f"a priority is an int from {LOWEST} to {HIGHEST}, not {priority!r}")
        self._begin(priority)
        return next(level for level in self.all() if level.priority == priority)

    def _begin(self, priority: int) -> None:
        count = 0

        def add(raw: bytes | None) -> bytes:
            nonlocal count
            priorities = {*self._used(raw), priority}
            count = len(priorities)
            return self._codec.dump_state(tuple(sorted(priorities)))

        self._register.update(add)
        # before anything is put there, even if it was begun before: whoever did may have been killed here
        self.main.log.note(lambda note: max(note, count * LEVELS + note % LEVELS))

    def take(self, owner: int, limit: int, beat: int, lease: float) -> tuple[Level, list[Record]]:
        """`Log.take` from the highest level that has any."""
        if len(self._all) == 1:
            main = self.main
            log = main.log
            taken = log.take(owner, limit, beat, lease)
            if log.noted < LEVELS:
                return main, taken
            self.all()
            if taken and self._all[0] is main:
                return main, taken
            for record in taken:  # there is a higher level since
                main.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt - 1))
        for level in self.all():
            taken = level.log.take(owner, limit, beat, lease)
            if taken:
                return level, taken
        return self.main, []

    def waiting(self) -> int:
        """How many tasks `take` would give, now."""
        if len(self._all) == 1:
            log = self.main.log
            waiting = log.counts().waiting
            if log.noted < LEVELS:
                return waiting
        return sum(level.log.counts().waiting for level in self.all())

    def finished(self) -> bool:
        """True if all that was put in before the call is done or dead."""
        return all(level.log.finished() for level in self.all())
