"""Is there one order of events that explains every answer?

A history is linearizable when each operation can be given an instant between its start and its end so
that a plain dict, asked in the order of these instants, gives the same answers. Keys are independent, so
each is judged alone (Herlihy and Wing call this locality).

The search is the just-in-time one of Lowe, "Testing for linearizability" (2017): walk through starts and
ends in the order of time, and keep every *world* that is possible so far: the value of the key, and which of
the calls that are still open have happened already. At the end of a call, worlds in which it has not
happened yet must let it (and perhaps other open calls before it) happen now; a world that can't is given
up. When no world is left, no order explains the history. Its cost depends on how many calls are open at a time
and not on the length of the history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tests.concurrency.history import FOR_EVER, MISSING, Operation

ANYTHING = "anything"  # needs: whatever stands there
SOMETHING = "something"  # needs: the key exists
SAME = "same"  # leaves: what stood there


class Effect(NamedTuple):
    """An operation as one step of a dict: the value it `needs` to find and the value it `leaves`."""

    needs: Any
    leaves: Any


World = tuple[int, Any]
"""(the slots of open operations that have happened, as bits; the value)."""


def effect_of(operation: Operation) -> Effect:
    """What must have stood at the key, and what stands there afterwards, for this answer to be right."""
    argument, result = operation.argument, operation.result
    match operation.verb:
        case "set":
            return Effect(ANYTHING, argument)
        case "get":
            return Effect(result, SAME)
        case "del":
            return Effect(SOMETHING, MISSING) if result else Effect(MISSING, SAME)
        case "add":
            return Effect(MISSING, argument) if result else Effect(SOMETHING, SAME)
        case "setdefault":
            return Effect(MISSING, argument) if result == argument else Effect(result, SAME)
        case "pop":
            return Effect(MISSING, SAME) if result == MISSING else Effect(result, MISSING)
        case "modify":
            return Effect(MISSING, SAME) if result == MISSING else Effect(argument, result)
    raise ValueError(f"no such verb: {operation.verb!r}")


class Violation(NamedTuple):
    """The first end of an operation that no order of events explains."""

    operation: Operation
    possible: list[Any]
    """The values that the key could have had when the operation ended."""
    around: list[Operation]
    """Operations on the same key just before and during it."""

    def __str__(self) -> str:
        lines = [
            f"no order of events explains {describe(self.operation)}; possible values: {self.possible}",
            "around it:",
        ]
        return "\n  ".join(lines + [describe(one) for one in self.around])


def describe(operation: Operation) -> str:
    process, key, verb, argument, result, start, end = operation
    return f"process {process}: {verb} {key!r} argument {argument} -> {result} [{start} .. {end}]"


def find_violation(operations: Iterable[Operation], initial: Mapping[str, Any] | None = None) -> Violation | None:
    """The first operation that can't be explained, or None when the history is linearizable.

    `initial` tells the ids of keys that existed before; all others were missing. An operation with the end
    `FOR_EVER` may have happened or not.
    """
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    for key, history in by_key.items():
        if violation := _judge_key(history, (initial or {}).get(key, MISSING)):
            return violation
    return None


def assert_linearizable(operations: Iterable[Operation], initial: Mapping[str, Any] | None = None) -> None:
    violation = find_violation(operations, initial)
    assert violation is None, str(violation)


def _judge_key(history: list[Operation], value: Any) -> Violation | None:
    worlds: set[World] = {(0, value)}
    open_effects: dict[int, Effect] = {}  # by bit
    bits: dict[int, int] = {}  # by place in the history
    free: list[int] = []
    for _, ending, place in _events(history):
        if not ending:
            bit = free.pop() if free else 1 << len(open_effects)
            bits[place], open_effects[bit] = bit, effect_of(history[place])
            worlds = {_with_readers(world, open_effects) for world in worlds}
            continue
        bit = bits.pop(place)
        after = _after_end(worlds, open_effects, bit)
        if not after:
            return _violation(history, place, worlds)
        worlds = after
        del open_effects[bit]
        free.append(bit)
    return None


def _events(history: list[Operation]) -> list[tuple[int, bool, int]]:
    """(time, is it an end, place) in order; at equal times starts come first, as the calls may have overlapped."""
    events = [(operation.start, False, place) for place, operation in enumerate(history)]
    events += [(operation.end, True, place) for place, operation in enumerate(history) if operation.end < FOR_EVER]
    return sorted(events)


def _after_end(worlds: set[World], effects: dict[int, Effect], bit: int) -> set[World]:
    """Every world in which the operation `bit` has happened by now; its bit is cleared for the next to use."""
    after: set[World] = set()
    seen = set(worlds)
    waiting = list(worlds)
    while waiting:
        world = waiting.pop()
        happened, value = world
        if happened & bit:
            after.add((happened & ~bit, value))
            continue
        for other, effect in effects.items():
            if happened & other or not _allows(value, effect.needs):
                continue
            next_value = value if effect.leaves is SAME else effect.leaves
            successor = _with_readers((happened | other, next_value), effects)
            if successor not in seen:
                seen.add(successor)
                waiting.append(successor)
    return after


def _with_readers(world: World, effects: dict[int, Effect]) -> World:
    """Let all open calls happen that this value satisfies and that change nothing: waiting can't help them."""
    happened, value = world
    for bit, effect in effects.items():
        if effect.leaves is SAME and not happened & bit and _allows(value, effect.needs):
            happened |= bit
    return happened, value


def _allows(value: Any, needs: Any) -> bool:
    return needs is ANYTHING or (value != MISSING if needs is SOMETHING else value == needs)


def _violation(history: list[Operation], place: int, worlds: set[World]) -> Violation:
    wrong = history[place]
    before = sorted((one for one in history if one.end < wrong.start), key=lambda one: one.end)[-6:]
    during = [one for one in history if one.end >= wrong.start and one.start <= wrong.end and one is not wrong]
    during.sort(key=lambda one: one.start)
    possible = sorted({value for _, value in worlds}, key=str)
    return Violation(wrong, possible, before + during[:20])
