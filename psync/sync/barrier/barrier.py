"""So many parties come, none goes on before all are there, and then all do; again and again.

A round is open while parties arrive. The fact that decides: the change of the shared value by which the last arrival
begins the next round (with an `action`: the change after the action). Who waits sees that its round is over. The
parties of one round arrive in those that follow by words of their own, mostly, without a change: see `seating`.

Who took part in the round before is expected in this one. Whoever waits looks now and then for parties that ended: if
those who are left can't fill the round, the barrier is broken, and says who is gone. Who has left (`leave`) is not
expected, and may end; somebody else may come in its place. What only processes left behind
that have all ended (an earlier run) counts for nothing: whoever arrives then begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from psync.errors import BrokenBarrierError
from psync.store.sentinels import NOT_YET
from psync.sync.barrier.fast_path import Arrival, Seating
from psync.sync.barrier.state import Break, Owners, Round, fate, following, is_open, less, told
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import Shared
from psync.sync.wait import Waiter, dead_of, names_of, some_seconds


class BarrierStatistics(NamedTuple):
    """What `Barrier.statistics` saw."""

    round: int
    parties: int
    waiting: tuple[str, ...]
    """Who has arrived."""
    missing: tuple[str, ...]
    """Who took part in the round before, and has not arrived in this one."""
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
        self._shared = Shared(self._engine, self._where, Round(0, parties))
        seats = self._shared.seats
        self._seating = None if seats is None else Seating(self._engine, self._shared, seats)
        self._opened = self._where + "/opened"
        self._waiter = Waiter(self._engine, self._opened)
        self._met: set[int] = set()
        """Owners that lived when they were seen here first: what they left is not an earlier run's."""

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self._parties, self._action, self._timeout

    # -- arriving, waiting and going on ------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> int:
        """Return once all parties have arrived: the place in the order of arrival, from 0.

        Raises `BrokenBarrierError` if the barrier is broken, or gets broken meanwhile: by `timeout` seconds without the
        others, an action that raises, `abort`, `reset`, or a party that ended (it is named). All who wait raise then.
        ValueError if the parties that are at work here want another number of parties.

        5 system calls for who is woken (flock pwrite flock read poll); the last to arrive calls utime instead of
        waiting. On NFS LOCK, READ, WRITE, LOCKU, and a READ for each look. When the same processes came to the two
        rounds before, a thread of each, and there is no action, it is the last two or utime, or none if the wait was
        short; on NFS a WRITE, and the READs. The places are all different then, but not the order of arrival. (Not so
        on a sealed store, on other file systems than tmpfs, ext4 and NFS, and on other processors than x86, but for
        NFS.)
        """
        timeout = self._timeout if timeout is None else timeout
        me = self._engine.owner()
        self._met.add(me)
        begun = self._engine.now()
        while True:
            if isinstance(came := self._arrive(me), Arrival):
                if (counted := self._wait_seated(came, timeout)) is None:
                    continue
                number, place, over = counted
            else:
                number, place = came
                if over := place == self._parties - 1:
                    self._go_on(number, me)
            if over or self._wait(number, me, timeout, begun, counted=place >= 0):
                return place

    def _arrive(self, me: int) -> Arrival | tuple[int, int]:
        if self._seating is None:
            return self._arrive_in_turn(me)
        with self._seating.lock:
            came = self._seating.arrive(self._parties) if self._action is None else None
            return came or self._arrive_in_turn(me)

    def _arrive_in_turn(self, me: int) -> tuple[int, int]:
        """The round, and the place in it: -1 if all are there, and the action runs. Raises if it is broken."""
        number = place = -1

        def arrive(now: Round) -> Round:
            nonlocal number, place
            if self._seating is not None and self._action is None:
                self._seating.take(now)
            now = self._looked_over(now, me)
            number, place = now.number, -1
            if now.broken is not None or now.acting:
                return now
            place = len(now.arrived)
            arrived = (*now.arrived, me)
            if place < self._parties - 1 or self._action is not None:
                return now._replace(arrived=arrived, acting=place == self._parties - 1)
            seating = None if self._action is not None else self._seating
            return following(now, arrived, seated=seating is not None and seating.can_seat(arrived))

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
            self._change(lambda now: told(now, number, me))
        raise self._error(number, broken)

    def _is_over(self, now: Round, number: int) -> None:
        if self._seating is not None and now.number == number + 1:
            self._seating.remember(now)

    def _wait_seated(self, came: Arrival, timeout: float | None) -> tuple[int, int, bool] | None:
        """The round, the place, and whether it is over: else it has to be waited for in the other way from now on. None
        if the arrival does not count (as never should be once it was found to)."""
        seating = self._seating
        assert seating is not None
        lost = False

        def look() -> Any:
            found = None if lost else seating.look(came)
            return NOT_YET if found is False else found

        def look_for_dead() -> None:
            nonlocal lost
            lost = seating.is_lost(came)

        found = came.last or self._waiter.until(look, timeout, look_for_dead)
        if found is True:
            seating.went_on(came)
            if came.last:
                self._engine.announce(self._opened)
            return came.round, came.place, True
        counted = seating.closed(came)
        self._engine.announce(self._opened)  # it may have been the last to come, and closed who would have seen that
        if lost:
            self._look_for_dead(came.round, came.owner)
        return None if counted is None else (counted.round, counted.place, False)

    def _how_many(self, me: int) -> str:
        """What somebody who waited too long can tell of the others."""
        now = self._look()
        if now.acting or now.broken is not None:
            return ""
        missing = Counter(now.before if me in now.before else ()) - Counter(now.arrived)
        names = "; ".join(names_of(self._engine, missing))
        return f", when only {len(now.arrived)} of {now.parties} had come{names and f', and not {names}'}"

    def leave(self) -> None:
        """This party has gone on from its last round: it may end, and is not missed in the next one, to which anybody
        may come in its place. Does nothing if it took no part in the last round. flock, fstat, pread, pwrite."""
        me = self._engine.owner()
        self._change(lambda now: now._replace(before=less(now.before, me)) if me in now.before else now)

    def _go_on(self, number: int, me: int) -> None:
        """The last one is here: run the action, if there is one, and let everybody go on."""
        if self._action is not None:
            try:
                self._action()
            except BaseException as error:
                self._break(number, f"its action raised {error!r}")
                self._change(lambda now: told(now, number, me))
                raise
            now = self._change(lambda now: following(now, now.arrived, seated=False) if is_open(now, number) else now)
            if (broken := fate(now, number)) is not None:
                self._change(lambda now: told(now, number, me))
                raise self._error(number, broken)
        self._engine.announce(self._opened)

    def _change(self, function: Callable[[Round], Round]) -> Round:
        return (self._shared if self._seating is None else self._seating).change(function)

    def _look(self) -> Round:
        return self._shared.look() if self._seating is None else self._seating.seen()

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

    def abort(self) -> None:
        """Break the barrier: who waits, and who arrives until it is `reset`, gets a `BrokenBarrierError`."""
        self._break(None, f"it was aborted by {self._engine.describe(self._engine.owner())}")

    def reset(self) -> None:
        """An empty barrier again, whether or not it was broken; who waits gets a `BrokenBarrierError`."""

        def reset(now: Round) -> Round:
            failed = now.failed
            if now.arrived:
                failed = (*failed, (now.number, now.broken or ("it was reset", (), ()), now.arrived))
            return Round(now.number + 1, self._parties, failed=self._to_tell(failed), came=now.came)

        self._change(reset)
        self._engine.announce(self._opened)

    def _to_tell(self, failed: tuple[tuple[int, Break, Owners], ...]) -> tuple[tuple[int, Break, Owners], ...]:
        """Without those who will never ask."""
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

    def _looked_over(self, now: Round, me: int) -> Round:
        """What is here when `me` arrives: nothing, if all who left it have ended. Costs nothing for who was met before.

        Raises ValueError if those who live want another number of parties.
        """
        concerned = now.arrived + now.before + (now.broken[2] if now.broken else ())
        if self._met.issuperset(concerned) and now.parties == self._parties:
            return now
        gone = dead_of(self._engine, set(concerned) - self._met)
        self._met.update(set(concerned).difference(gone))
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
        """Break the round if it can't be filled any more, or if one of those who wait in it has ended."""
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
