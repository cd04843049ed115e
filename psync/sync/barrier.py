"""So many parties come, none goes on before all are there, and then all do; again and again.

A round is open while parties arrive. The fact that decides: the change of the shared value by which the last arrival
begins the next round (with an `action`: the change after the action). Who waits sees that its round is over.

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
from psync.store.waiting import NOT_YET
from psync.sync.place import Place, Primitive
from psync.sync.shared import Shared
from psync.sync.waiting import Waiter, dead_of, names_of, some_seconds

Owners = tuple[int, ...]
Break = tuple[str, tuple[str, ...], Owners]
"""Why a round is broken, who is gone, for people, and all whom it concerned."""


class _Round(NamedTuple):
    number: int
    parties: int
    arrived: Owners = ()
    """In the order of arrival: a process with several threads here stands in it several times."""
    before: Owners = ()
    """Who took part in the round before this."""
    broken: Break | None = None
    acting: bool = False
    """All have arrived, and the last one runs the action."""
    failed: tuple[tuple[int, Break, Owners], ...] = ()
    """Rounds that were broken and then left behind: number, why, and who has not been told yet."""


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
        self._shared = Shared(self._engine, self._where, _Round(0, parties))
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
        waiting.
        """
        timeout = self._timeout if timeout is None else timeout
        me = self._engine.owner()
        self._met.add(me)
        while True:
            number, place = self._arrive(me)
            if place == self._parties - 1:
                self._go_on(number, me)
                return place
            if self._wait(number, me, timeout, counted=place >= 0):
                return place

    def _arrive(self, me: int) -> tuple[int, int]:
        """The round, and the place in it: -1 if all are there, and the action runs. Raises if it is broken."""
        number = place = -1

        def arrive(now: _Round) -> _Round:
            nonlocal number, place
            now = self._looked_over(now, me)
            number, place = now.number, -1
            if now.broken is not None or now.acting:
                return now
            place = len(now.arrived)
            arrived = (*now.arrived, me)
            if place < self._parties - 1 or self._action is not None:
                acting = place == self._parties - 1
                return _Round(now.number, now.parties, arrived, now.before, None, acting, now.failed)
            return _Round(now.number + 1, now.parties, (), arrived, None, False, now.failed)

        now = self._shared.change(arrive)
        if now.broken is not None and now.number == number:
            raise self._error(number, now.broken)
        return number, place

    def _wait(self, number: int, me: int, timeout: float | None, *, counted: bool) -> bool:
        """True when the round is over, and this party counted in it."""

        def look() -> Any:
            now = self._shared.look()
            return NOT_YET if now.number == number and now.broken is None else now

        now = self._waiter.until(look, timeout, lambda: self._look_for_dead(number, me))
        if now is NOT_YET:
            now = self._break(number, f"somebody waited {some_seconds(timeout)}{self._how_many(me)}")
        if (broken := _fate(now, number)) is None:
            return counted
        if counted:
            self._shared.change(lambda now: _told(now, number, me))
        raise self._error(number, broken)

    def _how_many(self, me: int) -> str:
        """What somebody who waited too long can tell of the others."""
        now = self._shared.look()
        if now.acting or now.broken is not None:
            return ""
        missing = Counter(now.before if me in now.before else ()) - Counter(now.arrived)
        names = "; ".join(names_of(self._engine, missing))
        return f", when only {len(now.arrived)} of {now.parties} had come{names and f', and not {names}'}"

    def leave(self) -> None:
        """This party has gone on from its last round: it may end, and is not missed in the next one, to which anybody
        may come in its place. Does nothing if it took no part in the last round. flock, fstat, pread, pwrite."""
        me = self._engine.owner()
        self._shared.change(lambda now: now._replace(before=_less(now.before, me)) if me in now.before else now)

    def _go_on(self, number: int, me: int) -> None:
        """The last one is here: run the action, if there is one, and let everybody go on."""
        if self._action is not None:
            try:
                self._action()
            except BaseException as error:
                self._break(number, f"its action raised {error!r}")
                self._shared.change(lambda now: _told(now, number, me))
                raise
            now = self._shared.change(lambda now: _next(now) if _is_open(now, number) else now)
            if (broken := _fate(now, number)) is not None:
                self._shared.change(lambda now: _told(now, number, me))
                raise self._error(number, broken)
        self._engine.announce(self._opened)

    # -- breaking ----------------------------------------------------------------------------------------

    def _break(self, number: int | None, why: str, gone: Owners = ()) -> _Round:
        """The round (None: whichever it is now) is broken, unless it is over."""
        who = names_of(self._engine, dict.fromkeys(gone))
        me = self._engine.owner()

        def break_(now: _Round) -> _Round:
            if not _is_open(now, now.number if number is None else number):
                return now
            concerned = tuple(dict.fromkeys((me, *now.arrived, *now.before)))
            return now._replace(broken=(why, who, concerned), acting=False)

        now = self._shared.change(break_)
        self._engine.announce(self._opened)
        return now

    def abort(self) -> None:
        """Break the barrier: who waits, and who arrives until it is `reset`, gets a `BrokenBarrierError`."""
        self._break(None, f"it was aborted by {self._engine.describe(self._engine.owner())}")

    def reset(self) -> None:
        """An empty barrier again, whether or not it was broken; who waits gets a `BrokenBarrierError`."""

        def reset(now: _Round) -> _Round:
            failed = now.failed
            if now.arrived:
                failed = (*failed, (now.number, now.broken or ("it was reset", (), ()), now.arrived))
            return _Round(now.number + 1, self._parties, failed=self._to_tell(failed))

        self._shared.change(reset)
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

    def _looked_over(self, now: _Round, me: int) -> _Round:
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
            return _Round(now.number + 1, self._parties, failed=self._to_tell(now.failed))
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
        now = self._shared.look()
        if not _is_open(now, number):
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
        now = self._shared.look()
        if now.broken is not None:
            return 0
        dead = set(dead_of(self._engine, set(now.arrived)))
        return sum(owner not in dead for owner in now.arrived)

    @property
    def broken(self) -> bool:
        """Whether it is broken, as far as that concerns anybody who lives."""
        now = self._shared.look()
        return now.broken is not None and len(dead_of(self._engine, now.broken[2])) < len(now.broken[2])

    def statistics(self) -> BarrierStatistics:
        """A look that changes nothing."""
        now = self._shared.look()
        missing = Counter(now.before) - Counter(now.arrived)
        return BarrierStatistics(
            now.number,
            now.parties,
            names_of(self._engine, now.arrived),
            names_of(self._engine, missing.elements()),
            None if now.broken is None else "; ".join((now.broken[0], *now.broken[1])),
        )

    def _state(self) -> str:
        now = self._shared.look()
        if now.broken is not None:
            return f"broken in round {now.number}: {now.broken[0]}"
        return f"round {now.number}, {self.n_waiting} of {self._parties} waiting"


def _is_open(now: _Round, number: int) -> bool:
    return now.number == number and now.broken is None


def _next(now: _Round) -> _Round:
    """All of `now` go on."""
    return _Round(now.number + 1, now.parties, before=now.arrived, failed=now.failed)


def _fate(now: _Round, number: int) -> Break | None:
    """Why round `number` was broken; None if all went on."""
    if now.number == number:
        return now.broken
    return next((why for failed, why, _ in now.failed if failed == number), None)


def _told(now: _Round, number: int, me: int) -> _Round:
    """`me` knows that round `number` was broken."""
    if now.number == number:
        return now._replace(arrived=_less(now.arrived, me))
    left = ((failed, why, _less(untold, me) if failed == number else untold) for failed, why, untold in now.failed)
    return now._replace(failed=tuple(one for one in left if one[2]))


def _less(owners: Owners, me: int) -> Owners:
    """`owners`, one of `me` less."""
    if me not in owners:
        return owners
    at = owners.index(me)
    return owners[:at] + owners[at + 1 :]
