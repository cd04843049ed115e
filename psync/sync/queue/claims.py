"""Claims: which process holds which task, how a claim ends, and how the claims of dead processes are given back.

On disk: a worker is registered by its owner number in ``<queue>/holders/``. Any process that finds a holder dead (by
proof) gives its tasks back. A claim with a lease is also given back when a process has seen it unchanged for the length
of the lease, on that process's own clock. Either way the task has used an attempt if it was begun.

The facts that decide: a task is mine while its mark names me, it is begun when the mark's beat is not 0, and its claim
ends by the change of exactly that mark. A result is written while the mark is certain to be mine and before the mark
becomes DONE. After a crash in between, `recover` finds the result and completes the change.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from psync.engine.contract.log import Change, Mark, Record, State
from psync.engine.contract.values import Alive
from psync.engine.system.reentry import finish_later
from psync.errors import PsyncError, ReentrantCall, StaleClaim
from psync.sync.queue.delays import SCAN_PAUSE_RATIO, delayed_mark
from psync.sync.queue.priorities import NOTE_BOUNDED, NOTE_LEASED, NOTE_PRIORITY, Priorities, Priority
from psync.sync.queue.task_id import TaskLocation
from psync.sync.queue.task_index import WITH_RESULT, Attempt, TaskIndex
from psync.sync.wait import PROBE_INTERVAL_S, until_next_look

MAX_RECOVERY_PAUSE_S = 3 * PROBE_INTERVAL_S
"""The longest pause between two recoveries that take long. A process that was stopped during one must not conclude that
recovery is slow."""
MAX_HOLDERS_PROBED = 16
"""Holders that one recovery probes on a remote engine."""
MIN_SIGHTINGS = 2
"""A claim whose lease ran out must have been seen unchanged at least this often before."""
_mark = functools.partial(tuple.__new__, Mark)
_record = functools.partial(tuple.__new__, Record)
_DONE, _WAITING = State.DONE, State.WAITING


class Ack(NamedTuple):
    """An acknowledgement: the good end of a claim, to be recorded by `Claims.finish_all`."""

    priority: Priority
    record: Record
    id: str
    ops: bytes | None
    """The result as it is appended to its bucket; None for a task that is done without a result."""


class _EndedAlready(Exception):
    """There is a result or a dead letter, though the mark says that the task is claimed."""


def owners_in(names: Iterable[str]) -> Iterator[int]:
    """The owner numbers in a listing of ``holders``; other entries are passed over."""
    return (int(name, 16) for name in names if len(name) == 16 and not set(name) - set("0123456789abcdef"))


class Claims:
    """The claims on one queue's tasks: makes, ends and recovers them for this process."""

    def __init__(
        self, queue_name: str, priorities: Priorities, index: TaskIndex, *, lease: float, max_attempts: int
    ) -> None:
        self.queue_name = queue_name
        self.lease = lease
        self.max_attempts = max_attempts
        self.workers = 1
        """How many processes took tasks and have not left, as the last recovery saw it."""
        self.pack_result = priorities.codec.item
        """`Codec.item`: a task's id and result, as `finish` appends them to a bucket."""
        self._engine = engine = priorities.engine
        self._holders = priorities.where + "/holders"
        self._priorities = priorities
        self._main = priorities.main.log
        self._index = index
        self._results = index.results
        self._owner_now = engine.owner
        self._registered = 0
        """The owner number that this process last registered; a forked child has another one."""
        self.ancestors: set[int] = set()
        """The owner numbers of the processes from which this one was forked: only they can answer what they claimed."""
        self.next_look = engine.now() + until_next_look(engine, 0.0)
        self.looked = False
        """Whether this process has recovered once."""
        self._seen: dict[tuple[int, int, Mark], tuple[float, int]] = {}
        """For each claim with a lease: since when this process has seen it unchanged, and how many times."""

    def listed(self) -> Iterator[tuple[str, int, bool, int]]:
        """Yield every claim of any process: task id, attempt, whether it is begun (or only prefetched), and owner."""
        for priority in self._priorities.all():
            for record in priority.log.claims():
                id, tried = self._index.id_in(record.payload, priority, record.position)
                yield id, tried + record.mark.attempt, record.mark.beat > 0, record.mark.owner

    # -- making claims ---------------------------------------------------------------------------------

    def take(self, limit: int, beat: int) -> tuple[Priority, list[Record]]:
        """Claim up to `limit` tasks of one priority; they are begun if `beat` is not 0."""
        owner = self._owner_now()
        if owner != self._registered:
            self._register(owner)
        main, priority = self._main, self._priorities.main
        if len(self._priorities.known) == 1:
            records = main.take(owner, limit, beat, self.lease)
            if main.noted >= NOTE_PRIORITY and not (self._priorities.all()[0] is priority and records):
                # a higher priority came into use since: the tasks wait again, and the first is given back last
                for record in reversed(records):
                    self.give_up(priority, record)
                priority, records = self._take_highest(owner, limit, beat)
        else:
            priority, records = self._take_highest(owner, limit, beat)
        if main.noted & NOTE_BOUNDED and records:
            self._engine.announce(self._priorities.where + "/room")
        return priority, records

    def _take_highest(self, owner: int, limit: int, beat: int) -> tuple[Priority, list[Record]]:
        """`Log.take` from the highest priority that has waiting tasks."""
        for priority in self._priorities.all():
            if records := priority.log.take(owner, limit, beat, self.lease):
                return priority, records
        return self._priorities.main, []

    def _register(self, owner: int) -> None:
        """List this process as a holder before its first claim: after a crash in between there is a holder without
        tasks, never a claim that no recovery would find."""
        self._engine.create(f"{self._holders}/{owner:016x}", self._priorities.codec.dumps(None))
        if self.lease:
            self._main.note(lambda note: note | NOTE_LEASED)
        self._registered = owner

    def after_fork(self) -> None:
        """Called in a forked child."""
        self.ancestors.add(self._registered)

    def check_own(self, record: Record, id: str) -> None:
        """Raise `StaleClaim` for a claim of the process from which this one was forked."""
        if record.mark.owner in self.ancestors:
            taker = self._engine.describe(record.mark.owner)
            raise StaleClaim(
                f"task {id!r} of queue {self.queue_name!r} was taken by {taker}, which alone can answer; this is "
                "a forked child of that one, and nothing was changed. Let the child hand its result to its parent, or "
                "take tasks of its own",
                task=id,
                token=record.mark.attempt,
            )

    def begin(self, priority: Priority, records: list[Record]) -> list[Record]:
        """Begin the first attempts among `records` in one request; returns all records as they are now.

        If this process dies, each of them has used an attempt, as if it had been worked on. Later attempts are begun
        one by one, so a task that kills its worker costs each other task one attempt at most. With a lease nothing is
        begun here, because the lease would start to run.
        """
        if self.lease:
            return records
        fresh = [record for record in records if record.mark.attempt == 1]
        begun = [record._replace(mark=record.mark._replace(beat=1)) for record in fresh]
        changes = [Change(old.position, old.mark, new.mark) for old, new in zip(fresh, begun, strict=True)]
        try:
            done = priority.settle_all(changes)
        except BaseException:
            # some may be begun and some not: give back either form, since the caller gets an error and no tasks
            for record in (*reversed(begun), *reversed(records)):
                self.give_up_quietly(priority, record)
            raise
        known = {record.position: record for record, size in zip(begun, done, strict=True) if size}
        return [known.get(record.position, record) for record in records]

    def beat(self, priority: Priority, record: Record) -> Record | None:
        """Begin the task, or show that work goes on; None if the claim was given away. With a lease, under a lock."""
        position, mark, payload = record
        state, attempt, owner, beat, lease = mark
        on: Mark = _mark((state, attempt, owner, beat % 255 + 1, lease))
        return _record((position, on, payload)) if priority.settle(position, mark, on) else None

    # -- ending claims ---------------------------------------------------------------------------------

    def finish(self, priority: Priority, record: Record, id: str, ops: bytes | None) -> bool:
        """End the claim well; `ops` is what `pack_result` made of the result, None if there is none. False if the claim
        was given away: then nothing was changed. So with all verbs that end claims."""
        position, mark, _ = record
        if ops is None:
            return priority.settle(position, mark, _mark((_DONE, mark[1], 0, 0, 0.0)))
        results = self._results
        new: Mark = _mark((_DONE, mark[1], 0, WITH_RESULT, 0.0))
        # The result before the status, and only while the mark is certain to be ours: after a crash in between,
        # `recover` finds the result and completes the change.
        while not (size := priority.answer(position, mark, new, results.growing(id), ops)):
            if size is None:
                return False
            results.gather()  # the bucket holds a pickle of another writer: it is moved away
        results.grown(id, size)
        return True

    def finish_all(self, acks: Sequence[Ack]) -> None:
        """`finish` for each. If it raises, any of them may have been recorded: repeat the call with all of them."""
        by_priority: dict[Priority, list[Ack]] = {}
        for ack in acks:
            by_priority.setdefault(ack.priority, []).append(ack)
        for priority, its in by_priority.items():
            sizes = priority.settle_all([self._change(ack) for ack in its])
            for ack, size in zip(its, sizes, strict=True):
                if ack.ops is not None and size is not None:
                    if size:
                        self._results.grown(ack.id, size)
                    else:  # the bucket holds a pickle of another writer: this result has to be merged into it
                        self.finish(*ack)

    def _change(self, ack: Ack) -> Change:
        _, (position, mark, _), id, ops = ack
        if ops is None:
            return Change(position, mark, Mark(_DONE, mark.attempt))
        return Change(position, mark, Mark(_DONE, mark.attempt, beat=WITH_RESULT), self._results.growing(id), ops)

    def set_back(
        self,
        priority: Priority,
        record: Record,
        id: str,
        tried: int,
        why: str,
        *,
        delay: float = 0.0,
        fatal: bool = False,
        check: Callable[[], object] | None = None,
    ) -> bool:
        """Give a claimed task back, perhaps for later; make it dead if that is `fatal` or its attempts are used up.

        `check` is called while the claim can't change; if it raises, nothing is done.
        """
        position, mark, payload = record
        if fatal or mark.attempt >= self.max_attempts:
            new = Mark(State.DEAD, mark.attempt)
        elif delay:
            new = delayed_mark(self._engine, delay, mark.attempt)
        else:
            new = Mark(State.WAITING, mark.attempt)

        def write_first() -> None:
            # History and dead letter before the mark, both idempotent: after a crash in between the claim still
            # stands, and the recovery that gives it back writes them again.
            if check is not None:
                check()
            self._index.add_attempt(id, Attempt(tried + mark.attempt, self._engine.describe(mark.owner), why))
            if new.state is State.DEAD:
                self._index.add_dead_letter(id, TaskLocation(priority.number, position), payload)

        return priority.settle(position, mark, new, write_first)

    def give_up(self, priority: Priority, record: Record) -> bool:
        """Give back a task that was claimed and not begun: it waits as if it had never been claimed."""
        return priority.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt - 1))

    def give_up_quietly(self, priority: Priority, record: Record) -> None:
        try:
            self.give_up(priority, record)
        except ReentrantCall:
            finish_later(functools.partial(self.give_up_quietly, priority, record))
        except PsyncError:
            pass  # the task comes back when this process ends

    def stale_error(self, record: Record, id: str, *, answered: bool) -> StaleClaim:
        """The error of every verb that comes after the claim was given away, or was `answered` here."""
        task = f"task {id!r} of queue {self.queue_name!r}"
        return StaleClaim(
            f"{task} was answered here before, in attempt {record.mark.attempt}; this answer was not recorded"
            if answered
            else f"{task} was given to somebody else after attempt {record.mark.attempt} began; this answer came too "
            "late and was not recorded",
            task=id,
            token=record.mark.attempt,
        )

    # -- recovering the claims of dead and of slow workers ---------------------------------------------

    def recover(self) -> int:
        """Give back the tasks of workers that are dead, and those whose lease ran out; returns how many."""
        begun = self._engine.now()
        holders = self._engine.entries(self._holders)[0]
        dead = {owner for owner in self._to_probe(holders) if self._engine.alive(owner) is Alive.NO}
        if self._engine.read_only:
            dead.clear()  # others give their tasks back
        self.workers = max(1, len(holders) - len(dead))
        self._main.counts()  # refreshes the note
        returned = 0
        if dead or (self._main.noted & NOTE_LEASED and not self._engine.read_only):
            returned = self._give_back(dead, begun)
        for owner in dead:
            # after its tasks: a crash before this line leaves the holder listed, and the next recovery repeats the scan
            self._engine.delete(f"{self._holders}/{owner:016x}")
        self.looked = True
        now = self._engine.now()
        # on a remote engine each of many workers recovers the less often the more they are
        pause = until_next_look(self._engine, (now - begun) * max(1.0, self.workers / MAX_HOLDERS_PROBED))
        self.next_look = now + max(pause, min(SCAN_PAUSE_RATIO * (now - begun), MAX_RECOVERY_PAUSE_S))
        return returned

    def _to_probe(self, holders: list[str]) -> list[int]:
        """Return all holders; on a remote engine a random sample of many, since the other workers sample others."""
        owners = list(owners_in(holders))
        sampled = self._engine.remote and len(owners) > MAX_HOLDERS_PROBED
        return random.sample(owners, MAX_HOLDERS_PROBED) if sampled else owners

    def _give_back(self, dead: set[int], now: float) -> int:
        """Return every claim of a dead owner and every claim whose lease ran out; returns how many can be claimed."""
        seen = {}
        returned = 0
        for priority in self._priorities.all():
            claims = priority.log.claims()
            read = self._engine.now()
            # Begun claims first, then unbegun ones in reverse: the task that is returned last is claimed first, so they
            # keep their order at the head of the queue.
            for record in sorted(claims, key=lambda claim: (claim.mark.beat == 0, -claim.position)):
                mark = record.mark
                if mark.owner in dead:
                    returned += self._return(priority, record, "its worker died")
                elif mark.lease:
                    key = priority.number, record.position, mark
                    since, times = self._seen.get(key, (read, 0))
                    seen[key] = since, times + 1
                    # more than one sighting, because the beat wraps around once in a while
                    if now - since >= mark.lease and times >= MIN_SIGHTINGS:
                        returned += self._return(priority, record, f"its lease of {mark.lease:g} seconds ran out")
        self._seen = seen
        return returned

    def _return(self, priority: Priority, record: Record, why: str) -> bool:
        """Complete what the holder of a claim can't end any more; True if the task can be claimed again."""
        position, mark, payload = record
        id, tried = self._index.id_in(payload, priority, position)
        location = TaskLocation(priority.number, position)

        def check() -> None:
            # under the lock of the mark: until then the holder may still have been about to end the claim
            if self._index.has_result(id) or self._index.is_dead_at(id, location):
                raise _EndedAlready

        try:
            if not mark.beat:
                return priority.settle(position, mark, Mark(State.WAITING, mark.attempt - 1), check)
            return self.set_back(priority, record, id, tried, why, check=check)
        except _EndedAlready:  # the holder died between writing the result or dead letter and changing the mark
            final = State.DEAD if self._index.is_dead_at(id, location) else State.DONE
            priority.settle(position, mark, Mark(final, mark.attempt, beat=WITH_RESULT if final is _DONE else 0))
            return False
