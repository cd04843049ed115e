"""Barrier: no party goes on before all parties have arrived; then all go on, round after round.

On disk: one register that holds the current round. A round is open while parties arrive. The fact that decides: the
change of the register by which the last arrival begins the next round (with an `action`: the change after the action).
A waiting party sees the new round number and goes on. On the fast path parties arrive without a change: see
`fast_path`.

The parties of one round are expected in the next one. A waiting party probes now and then for parties that ended: if
those that are left can't fill the round, the barrier is broken, and its error names who is gone. A party that has left
(`leave`) is not expected: it may end, and another one may come in its place. When all processes in the state have ended
(an earlier run), the next arrival begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from psync.engine.system.reentry import catch_up, postponed, reentrant, takes_effect
from psync.errors import BrokenBarrierError
from psync.store.sentinels import NOT_YET
from psync.sync.barrier.fast_path import Arrival, FastPath
from psync.sync.barrier.state import Break, Owners, Round, fate, following, is_open, with_told, without_one
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, names_of, some_seconds


class BarrierStatistics(NamedTuple):
    """What `Barrier.statistics` saw."""

    round: int
    parties: int
    waiting: tuple[str, ...]
    """The parties that have arrived."""
    missing: tuple[str, ...]
    """The parties of the round before that have not arrived in this one."""
    broken: str | None
    """Why it is broken."""


class Barrier(Primitive):
    """`threading.Barrier` among processes, threads and hosts.

    `action` is called by the last to arrive, before anybody goes on; `timeout` (seconds) is the default of `wait`.

    >>> import tempfile
    >>> barrier = Barrier(tempfile.mkdtemp(), "epoch", parties=1)
    >>> barrier.wait(), barrier.n_waiting, barrier.broken
    (0, 0, False)

    Not promised: that somebody who has not taken part yet is missed when it ends; only the timeout tells then.
    """

    _kind = "barrier"

    def __init__(
        self,
        db: Place,
        name: str,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(parties, int) or parties < 1:
            raise ValueError(f"a barrier is for 1 party or more, not {parties!r}")
        super().__init__(db, name)
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._shared = SharedState(self._engine, self._where, Round(0, parties))
        slots = self._shared.slots
        self._fast_path = None if slots is None else FastPath(self._engine, self._shared, slots)
        self._change = self._shared.change if self._fast_path is None else self._fast_path.change
        self._look = self._shared.look if self._fast_path is None else self._fast_path.seen
        self._opened = self._where + "/opened"
        self._waiter = Waiter(self._engine, self._opened)
        self._known_owners: set[int] = set()
        """Owners that lived when this handle first saw them: their part of the state is not an earlier run's."""

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self._parties, self._action, self._timeout

    # -- arriving, waiting and going on ------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> int:
        """Return once all parties have arrived: the place in the order of arrival, from 0.

        Raises `BrokenBarrierError` if the barrier is broken, or gets broken meanwhile: by `timeout` seconds without the
        others, an action that raises, `abort`, `reset`, or a party that ended (it is named). All who wait raise then.
        ValueError if the parties that are at work here want another number of parties.

        Costs 8 system calls for a waiter that is woken (stat flock pwrite flock read stat poll stat) on the slow path,
        and fewer on the fast path:

        ====================  ===================================  =============================================
        cost                  slow path                            fast path
        ====================  ===================================  =============================================
        a party that waits    flock pwrite flock read poll         read poll; none if the wait is short
        the last to arrive    flock pwrite flock utime             utime
        on NFS                LOCK READ WRITE LOCKU, then a READ   WRITE, then a READ for each look
                              for each look
        places                the order of arrival                 all different, in no order
        ====================  ===================================  =============================================

        The fast path is taken when the same processes came to the two rounds before, one thread of each, and the
        barrier has no `action`. It needs a store that is not sealed, and either NFS, or tmpfs or ext4 on an x86
        processor. Everything else takes the slow path, without a difference but in cost.
        """
        timeout = self._timeout if timeout is None else timeout
        me = self._engine.owner()
        self._known_owners.add(me)
        begun = self._engine.now()
        while True:
            if isinstance(came := self._arrive(me), Arrival):
                if (counted := self._wait_on_fast_path(came, timeout)) is None:
                    continue
                number, place, over = counted
            else:
                number, place = came
                if over := place == self._parties - 1:
                    self._go_on(number, me)
            if over or self._wait(number, me, timeout, begun, counted=place >= 0):
                return place

    def _arrive(self, me: int) -> Arrival | tuple[int, int]:
        if self._fast_path is None:
            return self._arrive_in_turn(me)
        section = self._fast_path.section
        if section.is_mine():  # `with section`, written out: this is a hot path
            raise reentrant(section.what)
        try:
            with section.lock:
                came = self._fast_path.arrive(self._parties) if self._action is None else None
                return came or self._arrive_in_turn(me)
        finally:
            if postponed:
                catch_up()

    def _arrive_in_turn(self, me: int) -> tuple[int, int]:
        """Arrive on the slow path: the round, and the place in it, or -1 if the round is full and its action runs.
        Raises if the round is broken."""
        number = place = -1

        def arrive(now: Round) -> Round:
            nonlocal number, place
            if self._fast_path is not None and self._action is None:
                self._fast_path.take(now)
            now = self._checked(now, me)
            number, place = now.number, -1
            if now.broken is not None or now.acting:
                return now
            place = len(now.arrived)
            arrived = (*now.arrived, me)
            if place < self._parties - 1 or self._action is not None:
                return now._replace(arrived=arrived, acting=place == self._parties - 1)
            fast_path = None if self._action is not None else self._fast_path
            return following(now, arrived, seated=fast_path is not None and fast_path.is_ready_for(arrived))

        # One register change decides: a party that is killed before it has not arrived, and one that is killed after
        # it counts in this round. The last arrival begins the next round in the same change.
        now = self._change(arrive)
        if now.broken is not None and now.number == number:
            raise self._error(number, now.broken)
        if now.number > number:
            self._is_over(now, number)
        return number, place

    def _wait(self, number: int, me: int, timeout: float | None, begun: float, *, counted: bool) -> bool:
        """True when the round is over, and this party counted in it."""

        def look() -> Any:
            now = self._shared.look()
            return NOT_YET if now.number == number and now.broken is None else now

        left = None if timeout is None else max(timeout - (self._engine.now() - begun), 0.0)
        now = self._waiter.until(look, left, lambda: self._look_for_dead(number, me))
        if now is NOT_YET:
            now = self._break(number, f"somebody waited {some_seconds(timeout)}{self._how_many(me)}")
        if (broken := fate(now, number)) is None:
            self._is_over(now, number)
            return counted
        if counted:
            self._change(lambda now: with_told(now, number, me))
        raise self._error(number, broken)

    def _is_over(self, now: Round, number: int) -> None:
        if self._fast_path is not None and now.number == number + 1:
            self._fast_path.remember(now)

    def _wait_on_fast_path(self, came: Arrival, timeout: float | None) -> tuple[int, int, bool] | None:
        """Wait on the fast path: the round, the place, and whether the round has ended; if not, the party goes on
        waiting on the slow path. None if the arrival does not count, which should never be once it was counted."""
        fast_path = self._fast_path
        assert fast_path is not None
        lost = False

        def look() -> Any:
            found = None if lost else fast_path.look(came.slots, came.since, came.word)
            return NOT_YET if found is False else found

        def look_for_dead() -> None:
            nonlocal lost
            lost = fast_path.is_lost(came)

        found = came.last or self._waiter.until(look, timeout, look_for_dead)
        if found is True:
            fast_path.went_on(came)
            if came.last:
                self._engine.announce(self._opened)
            return came.round, came.place, True
        counted = fast_path.closed(came)
        # this party may have been the last to arrive, and closed the slots before the others saw that
        self._engine.announce(self._opened)
        if lost:
            self._look_for_dead(came.round, came.owner)
        return None if counted is None else (counted.round, counted.place, False)

    def _how_many(self, me: int) -> str:
        """How many parties are missing, for the error of a party that waited too long."""
        now = self._look()
        if now.acting or now.broken is not None:
            return ""
        missing = Counter(now.before if me in now.before else ()) - Counter(now.arrived)
        names = "; ".join(names_of(self._engine, missing))
        return f", when only {len(now.arrived)} of {now.parties} had come{names and f', and not {names}'}"

    @takes_effect
    def leave(self) -> None:
        """This party has gone on from its last round: it may end, and is not missed in the next one, to which anybody
        may come in its place. Does nothing if it took no part in the last round. flock, fstat, pread, pwrite."""
        me = self._engine.owner()
        self._change(lambda now: now._replace(before=without_one(now.before, me)) if me in now.before else now)

    def _go_on(self, number: int, me: int) -> None:
        """All have arrived: run the action, if there is one, and let all parties go on."""
        if self._action is not None:
            try:
                self._action()
            except BaseException as error:
                self._break(number, f"its action raised {error!r}")
                self._change(lambda now: with_told(now, number, me))
                raise
            # The action before the change: if this party is killed in between, the others find it dead and the barrier
            # is broken; no party goes on without the action.
            now = self._change(lambda now: following(now, now.arrived, seated=False) if is_open(now, number) else now)
            if (broken := fate(now, number)) is not None:
                self._change(lambda now: with_told(now, number, me))
                raise self._error(number, broken)
        self._engine.announce(self._opened)

    # -- breaking ----------------------------------------------------------------------------------------

    def _break(self, number: int | None, why: str, gone: Owners = ()) -> Round:
        """The round (None: whichever it is now) is broken, unless it is over."""
        who = names_of(self._engine, dict.fromkeys(gone))
        me = self._engine.owner()

        def break_(now: Round) -> Round:
            if not is_open(now, now.number if number is None else number):
                return now
            concerned = tuple(dict.fromkeys((me, *now.arrived, *now.before)))
            return now._replace(broken=(why, who, concerned), acting=False)

        now = self._change(break_)
        self._engine.announce(self._opened)
        return now

    @takes_effect
    def abort(self) -> None:
        """Break the barrier: every party that waits, or arrives before a `reset`, gets a `BrokenBarrierError`."""
        self._break(None, f"it was aborted by {self._engine.describe(self._engine.owner())}")

    @takes_effect
    def reset(self) -> None:
        """Empty the barrier, whether or not it was broken; every party that waits gets a `BrokenBarrierError`."""

        def reset(now: Round) -> Round:
            failed = now.failed
            if now.arrived:
                failed = (*failed, (now.number, now.broken or ("it was reset", (), ()), now.arrived))
            return Round(now.number + 1, self._parties, failed=self._to_tell(failed), came=now.came)

        self._change(reset)
        self._engine.announce(self._opened)

    def _to_tell(self, failed: tuple[tuple[int, Break, Owners], ...]) -> tuple[tuple[int, Break, Owners], ...]:
        """Drop the dead from those that have yet to raise the error."""
        gone = set(dead_of(self._engine, {owner for _, _, untold in failed for owner in untold}))
        living = ((number, why, tuple(o for o in untold if o not in gone)) for number, why, untold in failed)
        return tuple(one for one in living if one[2])

    def _error(self, number: int, broken: Break) -> BrokenBarrierError:
        why, who, _ = broken
        gone = f": {'; '.join(who)}" if who else ""
        return BrokenBarrierError(
            f"barrier {self.name!r} was broken in round {number} because {why}{gone}. "
            "When all parties are ready to begin anew, call reset() once",
            barrier=self.name,
            who=who,
        )

    # -- the dead ----------------------------------------------------------------------------------------

    def _checked(self, now: Round, me: int) -> Round:
        """The state that `me` arrives in: an empty round, if all processes in the state have ended. Costs nothing if
        this handle has seen them alive before.

        Raises ValueError if those that live want another number of parties.
        """
        concerned = now.arrived + now.before + (now.broken[2] if now.broken else ())
        if self._known_owners.issuperset(concerned) and now.parties == self._parties:
            return now
        gone = dead_of(self._engine, set(concerned) - self._known_owners)
        self._known_owners.update(set(concerned).difference(gone))
        if not concerned:
            return now._replace(parties=self._parties)
        if len(gone) == len(set(concerned)):
            return Round(now.number + 1, self._parties, failed=self._to_tell(now.failed))
        if now.parties != self._parties:
            raise ValueError(
                f"barrier {self.name!r} is at work for {now.parties} parties, not {self._parties}: use the same "
                "number everywhere, or another name"
            )
        if now.broken is None and (lost := tuple(owner for owner in now.arrived if owner in gone)):
            who = names_of(self._engine, lost)
            return now._replace(broken=("a party ended while it waited", who, concerned), acting=False)
        return now

    def _look_for_dead(self, number: int, me: int) -> None:
        """Break the round if it can't be filled any more, or if a party that waits in it has ended."""
        now = self._look()
        if not is_open(now, number):
            return
        missing = Counter(now.before if me in now.before else ()) - Counter(now.arrived)
        gone = set(dead_of(self._engine, {*now.arrived, *missing}))
        if lost := tuple(owner for owner in now.arrived if owner in gone):
            self._break(number, "a party ended while it waited", lost)
            return
        lost = tuple(owner for owner in missing if owner in gone)
        can_come = sum(count for owner, count in missing.items() if owner not in gone)
        if lost and len(now.arrived) + can_come < self._parties:
            self._break(number, "a party ended before it came", lost)

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def parties(self) -> int:
        """How many have to arrive."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many have arrived, and wait. The dead don't."""
        now = self._look()
        if now.broken is not None:
            return 0
        dead = set(dead_of(self._engine, set(now.arrived)))
        return sum(owner not in dead for owner in now.arrived)

    @property
    def broken(self) -> bool:
        """Whether it is broken, as far as that concerns anybody who lives."""
        now = self._look()
        return now.broken is not None and len(dead_of(self._engine, now.broken[2])) < len(now.broken[2])

    def statistics(self) -> BarrierStatistics:
        """A look that changes nothing."""
        now = self._look()
        missing = Counter(now.before) - Counter(now.arrived)
        return BarrierStatistics(
            now.number,
            now.parties,
            names_of(self._engine, now.arrived),
            names_of(self._engine, missing.elements()),
            None if now.broken is None else "; ".join((now.broken[0], *now.broken[1])),
        )

    def _state(self) -> str:
        now = self._look()
        if now.broken is not None:
            return f"broken in round {now.number}: {now.broken[0]}"
        return f"round {now.number}, {self.n_waiting} of {self._parties} waiting"
