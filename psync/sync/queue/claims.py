"""Who holds which task, how a claim ends, and what becomes of the claims of those who can't end them any more.

A worker is known by its owner number, in ``<queue>/holders/``. Whoever comes by and finds a holder dead (by proof)
gives its tasks back. What has a lease is given back, too, when it was seen unchanged for so long, by whoever looks, on
its own clock. Either way an attempt is used up, if it was begun.

The facts that decide: a task is mine when its mark names me, begun when its mark's beat is not 0, and ended by the
change of just that mark. A result is written while the mark is certain to be mine, before it goes to DONE; a crash in
between is found by looking for the letter.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import Change, Mark, Record, State
from psync.engine.contract.values import Alive
from psync.errors import PsyncError, StaleClaim
from psync.store.codec import codec_of
from psync.store.sentinels import MISSING
from psync.sync.queue.delays import SPARINGLY, until_later
from psync.sync.queue.priorities import BOUNDED, LEASED, Level, Levels, Location
from psync.sync.queue.results import Results
from psync.sync.queue.task import NOTHING, Attempt
from psync.sync.queue.task_index import Ledger
from psync.sync.wait import LOOK_FOR_DEAD, until_next_look

SELDOM = 3 * LOOK_FOR_DEAD
"""Seconds between two looks that take long; a process that was stopped in one is not to take it for slow."""
MANY = 16
"""Processes that are looked at one by one, where a server is asked."""
OFTEN_SEEN = 2
"""So many looks before must have found a claim unchanged whose lease ran out."""
_mark = functools.partial(tuple.__new__, Mark)
_record = functools.partial(tuple.__new__, Record)
ANSWERED = 1
"""The beat of a record that is DONE and has a letter: should that be missing, a power cut took it."""
_DONE, _WAITING = State.DONE, State.WAITING


class Answer(NamedTuple):
    """How a claim ends well."""

    level: Level
    record: Record
    id: str
    ops: bytes | None
    """The letter, as it is appended to its bucket; None for a task that is done without a result."""


class _Ended(Exception):
    """There is an answer, or a grave, though the mark says that somebody is at work."""


def owners_in(names: Iterable[str]) -> Iterator[int]:
    """The owners after whom these entries of ``holders`` are named; what else lies there is passed over."""
    return (int(name, 16) for name in names if len(name) == 16 and not set(name) - set("0123456789abcdef"))


class Claims:
    """The claims on one queue's tasks, and those of this process among them."""

    def __init__(
        self,
        engine: Engine,
        where: str,
        levels: Levels,
        ledger: Ledger,
        results: Results,
        *,
        lease: float,
        max_attempts: int,
    ) -> None:
        self.lease = lease
        self.max_attempts = max_attempts
        self.workers = 1
        """How many processes took tasks and have not left, when that was last looked up."""
        self._engine = engine
        self._codec = codec_of(engine.format)
        self._where = where
        self._holders = where + "/holders"
        self._levels = levels
        self._main = levels.main.log
        self._ledger = ledger
        self._results = results
        self._who = engine.owner
        self._take = levels.take
        self._owner = 0
        self.next_look = engine.now() + until_next_look(engine, 0.0)
        self.looked = False
        self._seen: dict[tuple[int, int, Mark], tuple[float, int]] = {}
        """Since when each claim with a lease stands unchanged, as far as is known here, and how often it was seen."""

    # -- making claims ---------------------------------------------------------------------------------

    def take(self, limit: int, beat: int) -> tuple[Level, list[Record]]:
        """Claim up to `limit` tasks of one priority; begun, if `beat` is not 0."""
        owner = self._who()
        if owner != self._owner:
            self._register(owner)
        level, records = self._take(owner, limit, beat, self.lease)
        if self._main.noted & BOUNDED and records:
            self._engine.announce(self._where + "/room")
        return level, records

    def _register(self, owner: int) -> None:
        """Leave word that this process may hold tasks, before it does."""
        self._engine.create(f"{self._holders}/{owner:016x}", self._codec.dumps(None))
        if self.lease:
            self._levels.main.log.note(lambda note: note | LEASED)
        self._owner = owner

    def begin(self, level: Level, records: list[Record]) -> list[Record]:
        """Of records claimed together, those that nobody has begun before are begun, which is dear one by one.

        Should this process die, it costs each of them an attempt, as if it had been at it. After that each is begun
        alone, so a task that kills who works on it costs others one attempt at most. Not where a lease would begin.
        """
        if self.lease:
            return records
        fresh = [record for record in records if record.mark.attempt == 1]
        begun = [record._replace(mark=record.mark._replace(beat=1)) for record in fresh]
        changes = [Change(old.position, old.mark, new.mark) for old, new in zip(fresh, begun, strict=True)]
        try:
            done = level.settle_all(changes)
        except BaseException:
            for record in (*reversed(begun), *reversed(records)):  # whoever asked for them hears of an error instead
                self.give_up_quietly(level, record)
            raise
        known = {record.position: record for record, size in zip(begun, done, strict=True) if size}
        return [known.get(record.position, record) for record in records]

    def beat(self, level: Level, record: Record) -> Record | None:
        """The claim goes on, and shows it; None if it was given away. With a lease under a lock."""
        position, mark, payload = record
        state, attempt, owner, beat, lease = mark
        on: Mark = _mark((state, attempt, owner, beat % 255 + 1, lease))
        return _record((position, on, payload)) if level.settle(position, mark, on) else None

    # -- ending claims ---------------------------------------------------------------------------------

    def finish(self, level: Level, record: Record, id: str, result: Any) -> bool:
        """False if the claim was given away: then nothing was changed. So with the others here."""
        position, mark, _ = record
        if result is NOTHING:
            return level.settle(position, mark, _mark((_DONE, mark[1], 0, 0, 0.0)))
        return self._write(level, record, id, self._codec.item(id, result))

    def _write(self, level: Level, record: Record, id: str, ops: bytes) -> bool:
        position, mark, _ = record
        new: Mark = _mark((_DONE, mark[1], 0, ANSWERED, 0.0))
        return self._results.write(id, ops, lambda bucket, ops: level.answer(position, mark, new, bucket, ops))

    def answer(self, level: Level, record: Record, id: str, result: Any) -> Answer:
        """For `finish_all`. Raises what pickling raises."""
        return Answer(level, record, id, None if result is NOTHING else self._codec.item(id, result))

    def finish_all(self, answers: Sequence[Answer]) -> None:
        """`finish` for each. If it raises, any of them may have been recorded: then all of them again."""
        by_level: dict[Level, list[Answer]] = {}
        for answer in answers:
            by_level.setdefault(answer.level, []).append(answer)
        for level, its in by_level.items():
            sizes = level.settle_all([self._change(answer) for answer in its])
            for answer, size in zip(its, sizes, strict=True):
                if answer.ops is not None and size is not None:
                    if size:
                        self._results.grown(answer.id, size)
                    else:  # something else's pickle is there
                        self._write(*answer[:3], answer.ops)

    def _change(self, answer: Answer) -> Change:
        _, (position, mark, _), id, ops = answer
        if ops is None:
            return Change(position, mark, Mark(_DONE, mark.attempt))
        return Change(position, mark, Mark(_DONE, mark.attempt, beat=ANSWERED), self._results.growing(id), ops)

    def set_back(
        self,
        level: Level,
        record: Record,
        id: str,
        tried: int,
        why: str,
        *,
        delay: float = 0.0,
        for_good: bool = False,
        check: Callable[[], object] | None = None,
    ) -> bool:
        """Give a claimed task back, perhaps for later, or bury it if its attempts are used up.

        `check` is called while the claim can't change; if it raises, nothing is done.
        """
        position, mark, payload = record
        if for_good or mark.attempt >= self.max_attempts:
            new = Mark(State.DEAD, mark.attempt)
        elif delay:
            new = until_later(self._engine, delay, mark.attempt)
        else:
            new = Mark(State.WAITING, mark.attempt)

        def remember() -> None:
            if check is not None:
                check()
            self._ledger.remember(id, Attempt(tried + mark.attempt, self._engine.describe(mark.owner), why))
            if new.state is State.DEAD:
                self._ledger.bury(id, Location(level.priority, position), payload)

        return level.settle(position, mark, new, remember)

    def give_up(self, level: Level, record: Record) -> bool:
        """It was claimed, and never begun: it waits as if it had not been."""
        return level.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt - 1))

    def give_up_quietly(self, level: Level, record: Record) -> None:
        with contextlib.suppress(PsyncError):  # or it comes back when this process ends
            self.give_up(level, record)

    def stale(self, record: Record, id: str, queue: str) -> StaleClaim:
        return StaleClaim(
            f"task {id!r} of queue {queue!r} was given to somebody else after attempt {record.mark.attempt} began; "
            "this answer came too late and was not recorded",
            task=id,
            token=record.mark.attempt,
        )

    # -- the dead, and those who are too slow ----------------------------------------------------------

    def recover(self) -> int:
        """Give back the tasks of workers that are dead, and those whose lease ran out; returns how many."""
        begun = self._engine.now()
        holders = self._engine.entries(self._holders)[0]
        dead = {owner for owner in self._to_look_at(holders) if self._engine.alive(owner) is Alive.NO}
        self.workers = max(1, len(holders) - len(dead))
        self._levels.main.log.counts()  # learns of the note
        returned = 0
        if dead or self._levels.main.log.noted & LEASED:
            returned = self._look_through(dead, begun)
        for owner in dead:
            self._engine.delete(f"{self._holders}/{owner:016x}")
        self.looked = True
        now = self._engine.now()
        # where a server is asked, of many each looks the less often the more they are
        pause = until_next_look(self._engine, (now - begun) * max(1.0, self.workers / MANY))
        self.next_look = now + max(pause, min(SPARINGLY * (now - begun), SELDOM))
        return returned

    def _to_look_at(self, holders: list[str]) -> list[int]:
        """All of them; of many of whom a server is asked, some: others look at others."""
        owners = list(owners_in(holders))
        return random.sample(owners, MANY) if self._engine.remote and len(owners) > MANY else owners

    def _look_through(self, dead: set[int], now: float) -> int:
        seen = {}
        returned = 0
        for level in self._levels.all():
            claims = level.log.claims()
            read = self._engine.now()
            # what was begun first, then the others from the last to the first, as each is the first to be taken again
            for record in sorted(claims, key=lambda claim: (claim.mark.beat == 0, -claim.position)):
                mark = record.mark
                if mark.owner in dead:
                    returned += self._return(level, record, "its worker died")
                elif mark.lease:
                    key = level.priority, record.position, mark
                    since, times = self._seen.get(key, (read, 0))
                    seen[key] = since, times + 1
                    # more than twice: once in a while the beat has just gone round
                    if now - since >= mark.lease and times >= OFTEN_SEEN:
                        returned += self._return(level, record, f"its lease of {mark.lease:g} seconds ran out")
        self._seen = seen
        return returned

    def _return(self, level: Level, record: Record, why: str) -> bool:
        """What somebody can't end any more goes where it would have gone; True if it can be taken again."""
        position, mark, payload = record
        id, tried = self._ledger.id_in(payload, level, position)
        location = Location(level.priority, position)

        def check() -> None:
            # only now: till here it may have been about to end
            if self._results.letter(id) is not MISSING or self._ledger.is_dead_at(id, location):
                raise _Ended

        try:
            if not mark.beat:
                return level.settle(position, mark, Mark(State.WAITING, mark.attempt - 1), check)
            return self.set_back(level, record, id, tried, why, check=check)
        except _Ended:  # between its answer and its mark
            final = State.DEAD if self._ledger.is_dead_at(id, location) else State.DONE
            level.settle(position, mark, Mark(final, mark.attempt, beat=ANSWERED if final is _DONE else 0))
            return False
