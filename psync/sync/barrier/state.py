"""State of a barrier: one round as an immutable value, and pure functions of it. Nothing here reads or writes a
store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Owners = tuple[int, ...]
Break = tuple[str, tuple[str, ...], Owners]
"""Why a round is broken, which parties are gone (as texts), and all owners that it concerned."""


class Round(NamedTuple):
    number: int
    parties: int
    arrived: Owners = ()
    """In the order of arrival: a process with several threads here stands in it several times."""
    before: Owners = ()
    """The parties of the round before this."""
    broken: Break | None = None
    acting: bool = False
    """Whether all have arrived and the last one runs the action."""
    failed: tuple[tuple[int, Break, Owners], ...] = ()
    """Earlier rounds that were broken: number, why, and the parties that have not raised the error yet."""
    seated: bool = False
    """Whether the fast path is open: those of `before` arrive by their slots, in this round and those that follow,
    until it is closed (see `fast_path`). Nobody has arrived on the slow path then."""
    came: tuple[tuple[int, int, int], ...] = ()
    """Recorded when the fast path is closed: each party, the last round in which it arrived by its slot, and its
    place."""


def is_open(now: Round, number: int) -> bool:
    return now.number == number and now.broken is None


def fate(now: Round, number: int) -> Break | None:
    """Why round `number` was broken; None if all went on."""
    if now.number == number:
        return now.broken
    return next((why for failed, why, _ in now.failed if failed == number), None)


def following(now: Round, arrived: Owners, *, seated: bool) -> Round:
    """The next round, which begins when all of `arrived` go on."""
    return Round(now.number + 1, now.parties, (), arrived, None, False, now.failed, seated, now.came)


def with_told(now: Round, number: int, me: int) -> Round:
    """The state after `me` has raised the error of the broken round `number`."""
    if now.number == number:
        return now._replace(arrived=without_one(now.arrived, me))
    left = (
        (failed, why, without_one(untold, me) if failed == number else untold) for failed, why, untold in now.failed
    )
    return now._replace(failed=tuple(one for one in left if one[2]))


def without_one(owners: Owners, me: int) -> Owners:
    """`owners` with one occurrence of `me` removed."""
    if me not in owners:
        return owners
    at = owners.index(me)
    return owners[:at] + owners[at + 1 :]


# -- the words in slots ----------------------------------------------------------------------------------

MAX_ROUND = (1 << 32) - 1
"""The largest number of a round that can open the fast path: a word has 32 bits for it."""
MAX_TIMES = (1 << 24) - 1
"""The largest number of arrivals while the fast path is open: a word has 24 bits for it."""


def word_of(number: int, times: int) -> int:
    """The word of a party that has arrived `times` times since round `number` opened the fast path. A later word is
    larger; the last byte is a checksum."""
    word = number << 32 | times << 8
    folded = word ^ word >> 32
    folded ^= folded >> 16
    return word | (folded >> 8 ^ folded) & 0xFF


def times_of(word: int, number: int) -> int:
    """How often the writer of this word has arrived since round `number`; -1 if the word is damaged."""
    since, times = word >> 32, word >> 8 & MAX_TIMES
    if word != word_of(since, times):
        return -1
    return times if since == number else 0


def advanced(now: Round, words: Mapping[int, int]) -> Round:
    """The state with all arrivals on the fast path counted, and the fast path closed. Broken if a word is damaged or
    missing."""
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
    broken = ("what was written in one of its slots is damaged", (), now.before) if damaged else None
    return now._replace(
        number=now.number + over, arrived=arrived, broken=broken, seated=False, came=tuple(came.values())
    )
