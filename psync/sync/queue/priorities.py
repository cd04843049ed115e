"""Priorities: a queue keeps one log for each priority that was ever used, and claims from the highest that has tasks.

On disk: priority 0 is the main log, at the queue's own name; priority n is the log ``<queue>/p/<n>``. The register
``<queue>/levels`` lists the priorities in use. While only priority 0 is in use, a consumer learns of the first other
one from the note that the main log returns with every claim, so priorities cost nothing until they are used; from then
on each claim reads the register first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.engine import Engine
from psync.engine.contract.log import FINAL, WAITING, Change, Log, Mark, State
from psync.store.codec import codec_of
from psync.sync.shared_state import load_state

LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
"""Bounded, because every claim looks at each priority that was ever used."""
NOTE_BOUNDED, NOTE_LEASED, NOTE_PRIORITY = 1, 2, 4
"""The note of a main log: bit 0, some producers wait for room; bit 1, some claims have leases; the bits above, how many
other priorities were in use when the last one began."""


def _checked(used: Sequence[int]) -> tuple[int, ...]:
    """Raises ValueError for anything but priorities, because they become names of files."""
    allowed = range(LOWEST_PRIORITY, HIGHEST_PRIORITY + 1)
    if not isinstance(used, tuple | list) or not all(type(each) is int and each in allowed for each in used):
        raise ValueError("there are no priorities in it")
    return tuple(used)


class Priority:
    """The tasks of one priority: its number, its log, and the verbs of that log that change tasks."""

    __slots__ = ("answer", "append", "id_prefix", "log", "number", "settle", "settle_all")

    def __init__(self, number: int, log: Log) -> None:
        self.id_prefix = f"#p{number}." if number else "#"
        """The beginning of every id that is made from a position in this log."""
        self.number = number
        self.log = log
        # bound here, so that a hot call is one attribute look-up away from the log
        self.append = log.append
        self.settle = log.settle
        self.settle_all = log.settle_all
        self.answer = log.answer


class OtherPriority(Priority):
    """A priority other than 0: each change is announced at the main log's name too, because waiters watch that one."""

    __slots__ = ("_announce",)

    def __init__(self, number: int, log: Log, announce: Callable[[str], None]) -> None:
        super().__init__(number, log)
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


class Priorities:
    """All priorities of one queue."""

    def __init__(self, engine: Engine, where: str) -> None:
        self.engine = engine
        self.where = where
        self.final = where + "/final"
        """The name that is announced when a task ends."""
        self.codec = codec_of(engine.format)
        self.main = Priority(0, engine.log(where))
        self._register = engine.register(where + "/levels")
        self._raw: bytes | None = None
        self.known: tuple[Priority, ...] = (self.main,)
        """From the highest to the lowest, as the register last said."""

    def all(self) -> tuple[Priority, ...]:
        """From the highest to the lowest. One `Register.read`."""
        raw = self._register.read()
        if raw != self._raw:
            known = {priority.number: priority for priority in self.known}
            numbers = {0, *self._numbers_in(raw)}
            self.known = tuple(known.get(each) or self._other(each) for each in sorted(numbers, reverse=True))
            self._raw = raw
        return self.known

    def _numbers_in(self, raw: bytes | None) -> tuple[int, ...]:
        """The numbers in the register."""
        return () if raw is None else load_state(self.codec, self.where + "/levels", raw, _checked)

    def _other(self, number: int) -> Priority:
        log = self.engine.log(f"{self.where}/p/{number}")
        return OtherPriority(number, log, lambda name: self.engine.announce(self.where + name))

    def find(self, number: int) -> Priority | None:
        """The priority of this number, if it was used before."""
        return next((priority for priority in self.all() if priority.number == number), None)

    def use(self, number: int) -> Priority:
        """The priority of this number, which counts as used from now on. Raises ValueError."""
        if not number:
            return self.main
        for priority in self.known:
            if priority.number == number:
                return priority
        if not isinstance(number, int) or not LOWEST_PRIORITY <= number <= HIGHEST_PRIORITY:
            raise ValueError(f"a priority is an int from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, not {number!r}")
        self._begin(number)
        return next(priority for priority in self.all() if priority.number == number)

    def _begin(self, number: int) -> None:
        count = 0

        def add(raw: bytes | None) -> bytes:
            nonlocal count
            numbers = {*self._numbers_in(raw), number}
            count = len(numbers)
            return self.codec.dump_state(tuple(sorted(numbers)))

        self._register.update(add)
        # The note comes before any task of this priority, and is written even if the register had the number already:
        # the process that added it may have been killed at this line, and then no consumer would look at the log.
        self.main.log.note(lambda note: max(note, count * NOTE_PRIORITY + note % NOTE_PRIORITY))

    def waiting(self) -> int:
        """How many tasks `take` could claim now."""
        if len(self.known) == 1:
            log = self.main.log
            waiting = log.counts().waiting
            if log.noted < NOTE_PRIORITY:
                return waiting
        return sum(priority.log.counts().waiting for priority in self.all())

    def finished(self) -> bool:
        """True if every task that was put before the call is done or dead."""
        return all(priority.log.finished() for priority in self.all())
