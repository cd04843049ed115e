"""The judge is judged: good histories pass, every kind of wrong answer is found."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.concurrency.history import FOR_EVER, MISSING, Operation, identity_of, never_raced, value_of
from tests.concurrency.linearizable import ANYTHING, SAME, SOMETHING, effect_of, find_violation
from tests.support import scaled

Row = tuple[int, int, int, str, Any, Any]  # process, start, end, verb, argument, result


def history(*rows: Row, key: str = "k") -> list[Operation]:
    return [
        Operation(process, key, verb, argument, result, start, end)
        for process, start, end, verb, argument, result in rows
    ]


GOOD: dict[str, list[Operation]] = {
    "nothing at all": [],
    "set, then read": history((0, 0, 1, "set", 7, None), (1, 2, 3, "get", None, 7)),
    "a read beside a set may give the old value": history(
        (0, 0, 1, "set", 7, None), (0, 2, 9, "set", 8, None), (1, 3, 4, "get", None, 7), (1, 5, 6, "get", None, 8)
    ),
    "a read that starts when the set ends is beside it": history(
        (0, 0, 5, "set", 7, None), (1, 5, 6, "get", None, MISSING)
    ),
    "the later of two sets that overlap may lose": history(
        (0, 0, 9, "set", 1, None), (1, 2, 4, "set", 2, None), (2, 10, 11, "get", None, 1)
    ),
    "a modify sees what it replaced": history(
        (0, 0, 1, "set", 1, None), (1, 2, 5, "modify", 1, 2), (2, 3, 6, "modify", 2, 3)
    ),
    "a modify makes a missing key": history((0, 0, 1, "modify", MISSING, 5), (0, 2, 3, "get", None, 5)),
    "one of two adds wins": history((0, 0, 9, "add", 1, False), (1, 0, 9, "add", 2, True), (2, 10, 11, "get", None, 2)),
    "one of two deletes wins": history(
        (0, 0, 1, "set", 1, None), (0, 2, 9, "del", None, True), (1, 2, 9, "del", None, False)
    ),
    "setdefault takes what is there": history((0, 0, 5, "setdefault", 1, 1), (1, 1, 6, "setdefault", 2, 1)),
    "pop takes it away": history(
        (0, 0, 1, "set", 1, None),
        (1, 2, 3, "pop", None, 1),
        (1, 4, 5, "get", None, MISSING),
        (1, 6, 7, "pop", None, MISSING),
    ),
    "a killed set may have happened": history((0, 0, FOR_EVER, "set", 1, None), (1, 5, 6, "get", None, 1)),
    "a killed set may never have happened": history((0, 0, FOR_EVER, "set", 1, None), (1, 5, 6, "get", None, MISSING)),
    "a killed set may happen between two reads": history(
        (0, 0, FOR_EVER, "set", 1, None), (1, 5, 6, "get", None, MISSING), (1, 7, 8, "get", None, 1)
    ),
    "keys are independent": history((0, 0, 1, "set", 1, None)) + history((0, 2, 3, "get", None, MISSING), key="other"),
}

BAD: dict[str, list[Operation]] = {
    "a value nobody wrote": history((0, 0, 1, "get", None, 7)),
    "a stale read": history((0, 0, 1, "set", 1, None), (0, 2, 3, "set", 2, None), (1, 4, 5, "get", None, 1)),
    "missing while it exists": history(
        (0, 0, 1, "set", 1, None), (0, 2, 9, "set", 2, None), (1, 4, 5, "get", None, MISSING)
    ),
    "new, then old": history(
        (0, 0, 1, "set", 1, None), (0, 2, 9, "set", 2, None), (1, 3, 4, "get", None, 2), (2, 5, 6, "get", None, 1)
    ),
    "a lost update": history((0, 0, 1, "set", 1, None), (1, 2, 5, "modify", 1, 2), (2, 3, 6, "modify", 1, 3)),
    "an overwritten set comes back": history(
        (0, 0, 1, "set", 1, None), (1, 2, 3, "set", 2, None), (2, 4, 5, "get", None, 2), (2, 6, 7, "get", None, 1)
    ),
    "a set that vanished": history((0, 0, 1, "set", 1, None), (1, 2, 9, "set", 2, None), (2, 10, 11, "get", None, 1)),
    "a torn value": history((0, 0, 9, "set", 1, None), (1, 1, 2, "get", None, "torn: (1, b'')")),
    "a resurrected value": history((0, 0, 1, "set", 1, None), (0, 2, 3, "del", None, True), (1, 4, 5, "get", None, 1)),
    "two deletes win": history((0, 0, 1, "set", 1, None), (0, 2, 9, "del", None, True), (1, 2, 9, "del", None, True)),
    "a delete finds nothing": history((0, 0, 1, "set", 1, None), (1, 2, 9, "del", None, False)),
    "two adds win": history((0, 0, 9, "add", 1, True), (1, 0, 9, "add", 2, True)),
    "no add wins": history((0, 0, 9, "add", 1, False), (1, 0, 9, "add", 2, False)),
    "two pops get it": history((0, 0, 1, "set", 1, None), (1, 2, 9, "pop", None, 1), (2, 2, 9, "pop", None, 1)),
    "a pop that loses a set": history(
        (0, 0, 1, "set", 1, None),
        (0, 2, 3, "set", 2, None),
        (1, 2, 9, "pop", None, 1),
        (2, 10, 11, "get", None, MISSING),
    ),
    "two setdefaults differ": history((0, 0, 9, "setdefault", 1, 1), (1, 0, 9, "setdefault", 2, 2)),
    "a modify loses the key": history((0, 0, 1, "set", 1, None), (1, 2, 3, "modify", MISSING, 2)),
    "a modify without default misses the key": history(
        (0, 0, 1, "set", 1, None), (0, 2, 9, "set", 2, None), (1, 3, 4, "modify", MISSING, MISSING)
    ),
    "a killed set that happened twice": history(
        (0, 0, FOR_EVER, "set", 1, None),
        (1, 5, 6, "get", None, 1),
        (1, 7, 8, "pop", None, 1),
        (1, 9, 10, "get", None, MISSING),
        (1, 11, 12, "get", None, 1),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_some_order_explains_passes(name: str) -> None:
    assert find_violation(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_no_order_explains_is_found(name: str) -> None:
    assert find_violation(BAD[name]) is not None


def test_what_stood_there_before_may_be_told() -> None:
    read = history((0, 0, 1, "get", None, 9))
    assert find_violation(read, {"k": 9}) is None
    assert find_violation(read, {"other": 9}) is not None


def test_a_violation_names_the_operation_and_what_was_possible() -> None:
    violation = find_violation(BAD["a stale read"])
    assert violation is not None
    assert violation.operation.result == 1 and violation.possible == [2]
    assert "process 1: get 'k'" in str(violation) and "set 'k' argument 2" in str(violation)


def test_a_value_tells_its_write_and_whether_it_is_whole() -> None:
    assert [identity_of(value_of(number)) for number in range(1_000)] == list(range(1_000))
    sizes = {len(value_of(number)[1]) for number in range(1_000)}
    assert min(sizes) < 100 and max(sizes) > 4_096
    number = next(one for one in range(1_000) if len(value_of(one)[1]) > 100)
    _, ballast = value_of(number)
    flipped = ballast[:50] + b"\0" + ballast[51:]
    for damaged in (None, (number,), (number, ballast[:-1]), (number + 1, ballast), (number, flipped)):
        assert str(identity_of(damaged)).startswith("torn")


def test_a_history_without_any_overlap_is_told_from_one_with() -> None:
    assert never_raced(history((0, 0, 1, "set", 1, None), (1, 2, 3, "get", None, 1)))
    assert not never_raced(history((0, 0, 2, "set", 1, None), (1, 1, 3, "get", None, 1)))


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    """Up to six calls by three processes with answers drawn at random: about half of them can be explained."""
    operations: list[Operation] = []
    clock = [0, 0, 0]
    for number in range(draw(st.integers(1, 6))):
        process = draw(st.integers(0, 2))
        start = clock[process] + draw(st.integers(1, 4))
        end = start + draw(st.integers(0, 5))
        clock[process] = end
        verb = draw(st.sampled_from(["set", "get", "del", "add", "setdefault", "pop", "modify"]))
        seen = draw(st.sampled_from([MISSING, *range(number)]))
        won = draw(st.booleans())
        argument: Any = {"get": None, "del": None, "pop": None, "modify": seen}.get(verb, number)
        result: Any = {"set": None, "del": won, "add": won, "modify": number}.get(verb, seen)
        if verb == "setdefault" and result == MISSING:
            result = number
        killed = draw(st.integers(0, 9)) == 9
        operations.append(Operation(process, "k", verb, argument, result, start, FOR_EVER if killed else end))
    return operations


def explained_by_trying_every_order(operations: list[Operation]) -> bool:
    """The definition, word for word: some of the calls that never ended, and all others, in some order."""
    ended = [one for one in operations if one.end < FOR_EVER]
    open_ones = [one for one in operations if one.end == FOR_EVER]
    chosen = (some for count in range(len(open_ones) + 1) for some in itertools.combinations(open_ones, count))
    return any(_plays(order) for some in chosen for order in itertools.permutations([*ended, *some]))


def _plays(order: tuple[Operation, ...]) -> bool:
    value: Any = MISSING
    for place, operation in enumerate(order):
        if any(later.end < operation.start for later in order[place + 1 :]):
            return False
        needs, leaves = effect_of(operation)
        if needs is SOMETHING and value == MISSING:
            return False
        if needs is not SOMETHING and needs is not ANYTHING and needs != value:
            return False
        value = value if leaves is SAME else leaves
    return True


@settings(max_examples=scaled(400), deadline=None)
@given(small_histories())
def test_the_search_agrees_with_trying_every_order(operations: list[Operation]) -> None:
    assert (find_violation(operations) is None) == explained_by_trying_every_order(operations)


def recorded_from_a_perfect_store(count: int, seed: int) -> list[Operation]:
    """What eight processes would record of a store that never errs: a call happens at some instant between its ends."""
    chance = random.Random(seed)
    calls = []
    for process in range(8):
        now = chance.randrange(50)
        for number in range(count // 8):
            start = now + chance.randrange(1, 60)
            now = start + chance.randrange(1, 200)
            verb = chance.choice(["get", "get", "get", "set", "set", "pop", "modify", "add"])
            happens = chance.randint(start, now)
            calls.append((happens, process, start, now, verb, process * 1_000_000 + number, chance.choice("abcd")))
    state: dict[str, int] = {}
    operations = []
    for _, process, start, end, verb, number, key in sorted(calls):
        before: Any = state.get(key, MISSING)
        argument: Any = {"get": None, "pop": None, "modify": before}.get(verb, number)
        result: Any = {"set": None, "modify": number, "add": before == MISSING}.get(verb, before)
        if verb in ("set", "modify") or (verb == "add" and result):
            state[key] = number
        elif verb == "pop":
            state.pop(key, None)
        operations.append(Operation(process, key, verb, argument, result, start, end))
    return operations


def test_a_hundred_thousand_operations_are_judged_in_seconds() -> None:
    operations = recorded_from_a_perfect_store(100_000, seed=1)
    began = time.monotonic()
    assert find_violation(operations) is None
    assert time.monotonic() - began < 40


@pytest.mark.parametrize("seed", range(5))
def test_one_wrong_answer_among_thousands_is_found(seed: int) -> None:
    operations = recorded_from_a_perfect_store(8_000, seed)
    chance = random.Random(seed)
    place = chance.choice([at for at, one in enumerate(operations) if one.verb == "get" and at > 4_000])
    stale = next(one.argument for one in operations if one.verb == "set" and one.key == operations[place].key)
    operations[place] = operations[place]._replace(result=stale)
    violation = find_violation(operations)
    assert violation is not None
    assert violation.operation.key == operations[place].key
