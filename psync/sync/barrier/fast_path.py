"""How the parties of a barrier arrive without a lock: each by a word of its own.

After a round to which each party came from another process, and not for the first time, those are *seated*: the shared
state stays as it is, and who arrives in one of the next rounds puts into its seat how often it has arrived since. It
goes on once all have arrived as often.

Whatever is not just one more arrival (a party that is not seated, one that waited too long or ended, `abort`, `reset`,
`leave`) closes the seats first. The facts that decide: who closes, with the state locked, first writes that they are
closed and then reads all words; who arrives first puts its word and then reads whether they are closed. So of the two
at least one sees the other (Dekker's way), and nobody goes on by what it sees once they are closed: if anybody went on
before, all words for that were there, and are counted. Who finds them closed right after its word was put asks the
state, in which whoever closed them has written how far each had come. An owner's seat is never another's before that
owner has ended, so a word that comes late harms nobody. (But for a host that was taken for dead, is back on the
network, and writes on, when all seats had been taken meanwhile.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psync.engine.contract.engine import Engine
from psync.engine.contract.register import Seat, Seats
from psync.sync.barrier.state import LAST, OFTEN, Owners, Round, come_on, times_of, word_of
from psync.sync.shared_state import SharedState
from psync.sync.wait import dead_of


class Arrival(NamedTuple):
    """Somebody has arrived by its seat, and counts."""

    owner: int
    round: int
    """In which it has arrived."""
    since: int
    """Since which round all are seated,"""
    owners: Owners
    """who, and"""
    seats: Sequence[int]
    """where."""
    word: int
    """What those have put, at least, who have arrived in this round too."""
    last: bool
    """All the others were there."""
    place: int


@dataclass(slots=True)
class _Mine:
    """What this process knows of its seat. All its handles of one barrier share it, and its threads, in turn."""

    owner: int
    came: bool = False
    """Before: who comes once only needs no seat."""
    seat: int = -1
    word: int = 0
    """The last that was put there."""
    since: int = 0
    """From which round on all are seated, as far as it knows; 0 if they are not, as they never are in round 0."""
    owners: Owners = ()
    seats: Sequence[int] = ()
    """Of those; empty as long as they were not looked for."""
    over: int = 0
    """How many rounds are over since."""


class Seating:
    """The seats of one barrier. `lock` is held while a party of this process arrives, by its seat or not."""

    def __init__(self, engine: Engine, shared: SharedState[Round], seats: Seats) -> None:
        self._engine = engine
        self._shared = shared
        self._seats = seats

    @property
    def lock(self) -> threading.Lock:
        return self._seats.lock

    def _mine(self) -> _Mine:
        mine: _Mine | None = self._seats.known
        me = self._engine.owner()
        if mine is None or mine.owner != me:
            mine = self._seats.known = _Mine(me)
        return mine

    # -- arriving ----------------------------------------------------------------------------------------

    def arrive(self, parties: int) -> Arrival | None:
        """With `lock`. None if it has to be done the other way. A word is put, and all are looked at."""
        mine = self._mine()
        since, times = mine.since, mine.over + 1
        if not since or len(mine.owners) != parties or times > OFTEN:
            return None
        word = word_of(since, times)
        if word <= mine.word or not self._find(mine):
            return None  # another thread has arrived, and waits; or somebody's seat is damaged
        mine.word = word
        self._seats.put(mine.seat, word)
        place = mine.owners.index(mine.owner)
        arrival = Arrival(mine.owner, since + times - 1, since, mine.owners, mine.seats, word, False, place)
        found = self.look(arrival)
        return self.closed(arrival) if found is None else arrival._replace(last=found)

    def _find(self, mine: _Mine) -> bool:
        if not mine.seats:
            at = _places(self._seats.look().seats)
            if at.get(mine.owner) != mine.seat or not at.keys() >= set(mine.owners):
                return False
            mine.seats = [at[owner] for owner in mine.owners]
        return True

    def look(self, arrival: Arrival) -> bool | None:
        """Whether all have arrived as often; None if the seats are closed, or are to be, as a word is damaged."""
        words, closed = self._seats.words(arrival.seats)
        if closed >= arrival.since:
            return None
        if min(words) < arrival.word:
            return False
        later = word_of(arrival.since, (arrival.word >> 8 & OFTEN) + 1)
        return True if all(word in (arrival.word, later) for word in words) else None

    def closed(self, arrival: Arrival) -> Arrival | None:
        """The seats are closed, or are to be: what becomes of an arrival, with the place that it has then. None if its
        word came too late to count."""
        mine = self._mine()
        if mine.since == arrival.since:
            mine.since = 0
        now = self.change(lambda now: now)
        round_, place = next((came[1:] for came in now.came if came[0] == arrival.owner), (-1, 0))
        if round_ == arrival.round:
            return arrival._replace(place=place)
        return arrival if round_ > arrival.round else None

    def went_on(self, arrival: Arrival) -> None:
        """The round is over."""
        mine = self._mine()
        if mine.since == arrival.since:
            mine.over = max(mine.over, arrival.round - arrival.since + 1)

    def is_lost(self, arrival: Arrival) -> bool:
        """Whether the round can't be waited for in this way any more: one of the owners has ended, or (as never should
        be) a word is damaged, or the state is another, and the seats are not closed."""
        now = self._shared.look()
        if not now.seated or now.number != arrival.since or dead_of(self._engine, arrival.owners):
            return True
        words, _ = self._seats.words(arrival.seats)
        return min(times_of(word, arrival.since) for word in words) < 0

    # -- being seated ------------------------------------------------------------------------------------

    def take(self, now: Round) -> None:
        """Within a change, before an arrival: a seat for this party, if it has none, and has come before. Who is in
        `now` keeps its own."""
        mine = self._mine()
        if mine.seat >= 0 or not mine.came:
            mine.came = True
            return
        seats = self._seats.look().seats
        at = _places(seats)
        if mine.owner in at:
            mine.seat = at[mine.owner]
            mine.word = seats[mine.seat].word
            return
        free = next((number for number, seat in enumerate(seats) if not seat.owner), -1)
        if free < 0:
            others = (owner for owner in at if owner not in now.before and owner not in now.arrived)
            free = next((at[owner] for owner in others if dead_of(self._engine, [owner])), -1)
        if free >= 0:
            self._seats.give(free, mine.owner)
            mine.seat = free

    def can_seat(self, owners: Owners) -> bool:
        """Within a change, for one of them."""
        different = set(owners)
        if self._mine().seat < 0 or len(different) < len(owners):
            return False
        return _places(self._seats.look().seats).keys() >= different

    def remember(self, now: Round) -> None:
        """A round has ended so: this party may be seated now."""
        mine = self._mine()
        if now.seated and mine.since < now.number <= LAST and mine.owner in now.before and mine.seat >= 0:
            mine.owners, mine.seats, mine.over = now.before, (), 0
            mine.since = now.number

    # -- closing -----------------------------------------------------------------------------------------

    def change(self, function: Callable[[Round], Round]) -> Round:
        """`SharedState.change`, of a state in which the seats are closed."""
        return self._shared.change(lambda now: function(self._closed(now)))

    def _closed(self, now: Round) -> Round:
        if not now.seated:
            return now
        self._seats.close(now.number)
        others = {owner for owner, _, _ in now.came}.difference(now.before)
        gone = dead_of(self._engine, others)
        now = now._replace(came=tuple(one for one in now.came if one[0] not in gone))  # they never ask
        return come_on(now, dict(self._seats.look().seats))

    def seen(self) -> Round:
        """`SharedState.look`, and how far they have come by their seats."""
        before = None
        while (now := self._shared.look()).seated:
            looked = self._seats.look()
            if looked.closed < now.number or now == before:  # the same again: whoever closed them was killed then
                return come_on(now, dict(looked.seats))
            before = now
        return now


def _places(seats: Sequence[Seat]) -> dict[int, int]:
    """By owner."""
    return {seat.owner: number for number, seat in enumerate(seats) if seat.owner}
