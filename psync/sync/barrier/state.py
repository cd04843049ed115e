"""One round of a barrier: the state that its parties share, and what can be said of it. Nothing here is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Owners = tuple[int, ...]
Break = tuple[str, tuple[str, ...], Owners]
"""Why a round is broken, who is gone, for people, and all whom it concerned."""


class Round(NamedTuple):
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
    seated: bool = False
    """Those of `before` may arrive by their seats, in this round and those that follow, until that is closed: see
    `seating`. Nobody has arrived otherwise."""
    came: tuple[tuple[int, int, int], ...] = ()
    """When that was closed: of each, the last round in which it had arrived by its seat, and its place there."""


def is_open(now: Round, number: int) -> bool:
    return now.number == number and now.broken is None


def fate(now: Round, number: int) -> Break | None:
    """Why round `number` was broken; None if all went on."""
    if now.number == number:
        return now.broken
    return next((why for failed, why, _ in now.failed if failed == number), None)


def following(now: Round, arrived: Owners, *, seated: bool) -> Round:
    """All of `arrived` go on."""
    return Round(now.number + 1, now.parties, (), arrived, None, False, now.failed, seated, now.came)


def told(now: Round, number: int, me: int) -> Round:
    """`me` knows that round `number` was broken."""
    if now.number == number:
        return now._replace(arrived=less(now.arrived, me))
    left = ((failed, why, less(untold, me) if failed == number else untold) for failed, why, untold in now.failed)
    return now._replace(failed=tuple(one for one in left if one[2]))


def less(owners: Owners, me: int) -> Owners:
    """`owners`, one of `me` less."""
    if me not in owners:
        return owners
    at = owners.index(me)
    return owners[:at] + owners[at + 1 :]


# -- the words in seats ----------------------------------------------------------------------------------

LAST = (1 << 32) - 1
"""The largest number of a round from which on one arrives by seats."""
OFTEN = (1 << 24) - 1
"""So many times."""


def word_of(number: int, times: int) -> int:
    """Who puts this has arrived so many times since all are seated, which they are from round `number` on. The larger
    one is the later one; the last byte is a check."""
    word = number << 32 | times << 8
    folded = word ^ word >> 32
    folded ^= folded >> 16
    return word | (folded >> 8 ^ folded) & 0xFF


def times_of(word: int, number: int) -> int:
    """How often who put this has arrived since round `number`; -1 if it was damaged."""
    since, times = word >> 32, word >> 8 & OFTEN
    if word != word_of(since, times):
        return -1
    return times if since == number else 0


def come_on(now: Round, words: Mapping[int, int]) -> Round:
    """How it stands, as the owners have arrived by seats since: to be closed, so that no more do. Broken, if a word is
    damaged, or not there."""
    times = [times_of(words.get(owner, -1), now.number) for owner in now.before]
    over, most = min(times), max(times)
    damaged = over < 0 or most > over + 1
    if damaged:
        over = max(most - 1, 0)
    arrived = tuple(owner for owner, count in zip(now.before, times, strict=True) if count > over)
    came = {one[0]: one for one in now.came}
    for owner, count in zip(now.before, times, strict=True):
        if count > 0:
            came[owner] = owner, now.number + count - 1, (arrived if count > over else now.before).index(owner)
    broken = ("what was written in one of its seats is damaged", (), now.before) if damaged else None
    return now._replace(
        number=now.number + over, arrived=arrived, broken=broken, seated=False, came=tuple(came.values())
    )
