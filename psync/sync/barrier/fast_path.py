"""Fast path of a barrier: the parties arrive without a lock, each by one word in a register slot of its own (a slot).

The fast path opens after a round to which each party came from another process, and not for the first time. From then
on the shared state stays as it is. A party arrives by writing into its slot how often it has arrived since, and goes on
once all parties have arrived as often.

Everything else than one more arrival closes the fast path first: a party without a slot, a party that waited too long
or ended, `abort`, `reset`, `leave`. The facts that decide, as in Dekker's algorithm: a closer locks the state, writes
that the slots are closed, and then reads all words; an arrival writes its word, and then reads whether the slots are
closed. So at least one of the two sees the other. No party goes on after it has seen the slots closed; if a party went
on before, all words of that round were written, and the closer counts them. A party that finds the slots closed right
after its write reads the state, where the closer has recorded how far each party had come.

A slot goes to another owner only after its owner has ended, so a late word harms nobody. The exception is a host that
was declared dead and comes back to the network to write, when all slots were given away meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psync.engine.contract.engine import Engine
from psync.engine.contract.register import Slot, Slots
from psync.engine.system.reentry import Section
from psync.sync.barrier.state import MAX_ROUND, MAX_TIMES, Owners, Round, advanced, times_of, word_of
from psync.sync.shared_state import SharedState
from psync.sync.wait import dead_of


class Arrival(NamedTuple):
    """One arrival on the fast path."""

    owner: int
    round: int
    """The round in which it arrived."""
    since: int
    """The round from which on the fast path is open."""
    owners: Owners
    """All parties."""
    slots: Sequence[int]
    """The slot of each of `owners`."""
    word: int
    """The word of this arrival; a party whose word is not smaller has arrived in this round too."""
    last: bool
    """Whether all other parties had arrived."""
    place: int


@dataclass(slots=True)
class _Mine:
    """The slot of this process. All its handles of one barrier share this object, and its threads take turns."""

    owner: int
    came: bool = False
    """Whether it came to an earlier round: a party that comes only once needs no slot."""
    slot: int = -1
    word: int = 0
    """The last word that was written there."""
    since: int = 0
    """The round from which on the fast path is open, as far as this process knows; 0 if it is closed. (Round 0 is
    always on the slow path.)"""
    owners: Owners = ()
    slots: Sequence[int] = ()
    """The slot of each of `owners`; empty until they are looked up."""
    over: int = 0
    """How many rounds have ended since."""


class FastPath:
    """The fast path of one barrier. `lock` is held while a party of this process arrives, on either path."""

    def __init__(self, engine: Engine, shared: SharedState[Round], slots: Slots) -> None:
        self._engine = engine
        self._shared = shared
        self._slots = slots

    @property
    def section(self) -> Section:
        return self._slots.section

    def _mine(self) -> _Mine:
        mine: _Mine | None = self._slots.known
        me = self._engine.owner()
        if mine is None or mine.owner != me:
            mine = self._slots.known = _Mine(me)
        return mine

    # -- arriving ----------------------------------------------------------------------------------------

    def arrive(self, parties: int) -> Arrival | None:
        """Arrive, with `lock` held: write a word, then read all. None if the party must take the slow path."""
        mine = self._mine()
        since, times = mine.since, mine.over + 1
        if not since or len(mine.owners) != parties or times > MAX_TIMES:
            return None
        word = word_of(since, times)
        if word <= mine.word or not self._find(mine):
            return None  # another thread of this process has arrived and waits; or a slot is damaged
        mine.word = word
        # The word first, then the look whether the slots are closed: a closer does the two in the other order, so one
        # of both sees the other.
        self._slots.put(mine.slot, word)
        place = mine.owners.index(mine.owner)
        found = self.look(mine.slots, since, word)
        arrival = Arrival(mine.owner, since + times - 1, since, mine.owners, mine.slots, word, found is True, place)
        return self.closed(arrival) if found is None else arrival

    def _find(self, mine: _Mine) -> bool:
        if not mine.slots:
            at = _places(self._slots.look().slots)
            if at.get(mine.owner) != mine.slot or not at.keys() >= set(mine.owners):
                return False
            mine.slots = [at[owner] for owner in mine.owners]
        return True

    def look(self, slots: Sequence[int], since: int, word: int) -> bool | None:
        """Whether all of `slots` have arrived as often as `word` says, since the round `since`; None if the slots are
        closed, or have to be because a word is damaged."""
        words, closed = self._slots.words(slots)
        if closed >= since:
            return None
        if min(words) < word:
            return False
        later = word_of(since, (word >> 8 & MAX_TIMES) + 1)
        return True if all(other in (word, later) for other in words) else None

    def closed(self, arrival: Arrival) -> Arrival | None:
        """Close the slots if nobody has, and return the arrival with the place that the closer recorded for it. None if
        its word came too late to count."""
        mine = self._mine()
        if mine.since == arrival.since:
            mine.since = 0
        now = self.change(lambda now: now)
        round_, place = next((came[1:] for came in now.came if came[0] == arrival.owner), (-1, 0))
        if round_ == arrival.round:
            return arrival._replace(place=place)
        return arrival if round_ > arrival.round else None

    def went_on(self, arrival: Arrival) -> None:
        """Note that the round of this arrival has ended."""
        mine = self._mine()
        if mine.since == arrival.since:
            mine.over = max(mine.over, arrival.round - arrival.since + 1)

    def is_lost(self, arrival: Arrival) -> bool:
        """Whether waiting on the fast path has become useless: an owner has ended, or (which should never be) a word is
        damaged, or the state changed although the slots are open."""
        now = self._shared.look()
        if not now.seated or now.number != arrival.since or dead_of(self._engine, arrival.owners):
            return True
        words, _ = self._slots.words(arrival.slots)
        return min(times_of(word, arrival.since) for word in words) < 0

    # -- opening -----------------------------------------------------------------------------------------

    def take(self, now: Round) -> None:
        """Take a slot for this party if it has none and has come before. Call it within a change, before an arrival.
        The parties in `now` keep their slots."""
        mine = self._mine()
        if mine.slot >= 0 or not mine.came:
            mine.came = True
            return
        slots = self._slots.look().slots
        at = _places(slots)
        if mine.owner in at:
            mine.slot = at[mine.owner]
            mine.word = slots[mine.slot].word
            return
        free = next((number for number, slot in enumerate(slots) if not slot.owner), -1)
        if free < 0:
            others = (owner for owner in at if owner not in now.before and owner not in now.arrived)
            free = next((at[owner] for owner in others if dead_of(self._engine, [owner])), -1)
        if free >= 0:
            self._slots.give(free, mine.owner)
            mine.slot = free

    def is_ready_for(self, owners: Owners) -> bool:
        """Whether each of `owners` is another process and has a slot. Call it within a change, as one of them."""
        different = set(owners)
        if self._mine().slot < 0 or len(different) < len(owners):
            return False
        return _places(self._slots.look().slots).keys() >= different

    def remember(self, now: Round) -> None:
        """Note the state after a round: the fast path may be open now."""
        mine = self._mine()
        if now.seated and mine.since < now.number <= MAX_ROUND and mine.owner in now.before and mine.slot >= 0:
            mine.owners, mine.slots, mine.over = now.before, (), 0
            mine.since = now.number

    # -- closing -----------------------------------------------------------------------------------------

    def change(self, function: Callable[[Round], Round]) -> Round:
        """`SharedState.change` of a state in which the fast path is closed."""
        return self._shared.change(lambda now: function(self._closed(now)))

    def _closed(self, now: Round) -> Round:
        if not now.seated:
            return now
        # Closed first, then all words are read: an arrival that is not among them will find the slots closed. Killed in
        # between, the closer leaves closed slots under an open state, and the next closer does the same again.
        self._slots.close(now.number)
        others = {owner for owner, _, _ in now.came}.difference(now.before)
        gone = dead_of(self._engine, others)
        now = now._replace(came=tuple(one for one in now.came if one[0] not in gone))  # the dead never ask
        return advanced(now, dict(self._slots.look().slots))

    def seen(self) -> Round:
        """`SharedState.look`, advanced by the arrivals on the fast path. Changes nothing."""
        before = None
        while (now := self._shared.look()).seated:
            looked = self._slots.look()
            # the same state twice: the closer was killed before it changed the state
            if looked.closed < now.number or now == before:
                return advanced(now, dict(looked.slots))
            before = now
        return now


def _places(slots: Sequence[Slot]) -> dict[int, int]:
    """The number of the slot of each owner."""
    return {slot.owner: number for number, slot in enumerate(slots) if slot.owner}
