"""Eight processes set, read, delete and compress one hashed category: nothing is lost and nothing comes back."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from psync import PickleShareDB, gethashfile
from tests.concurrency.category import CategoryRecorder
from tests.concurrency.history import Operation, never_raced
from tests.concurrency.linearizable import assert_linearizable
from tests.concurrency.simultaneous import Finish, SharedNumbers, together
from tests.support import everywhere, scaled

KEYS = [f"item {number}" for number in range(24)]

VERBS: dict[str, tuple[Callable[[CategoryRecorder, str], None], int]] = {
    "hset": (CategoryRecorder.set, 35),
    "hget": (CategoryRecorder.get, 30),
    "hdel": (CategoryRecorder.delete, 10),
    "hadd": (CategoryRecorder.add, 15),
    "hpop": (CategoryRecorder.pop, 8),
    "hupdate": (lambda recorder, key: recorder.update({key, *KEYS[::5]}), 2),
}
"""Each verb with its share of the calls in per cent."""


# -- one order of events explains all answers --------------------------------------------------


@everywhere
def test_a_category_is_linearizable_key_by_key_while_it_is_compressed(root: Path) -> None:
    finish = Finish(workers=5, watchers=3)
    callers = [partial(call_at_random, root, process, scaled(1_200), finish) for process in range(5)]
    lookers = [partial(look_all_the_time, root, process, finish) for process in (5, 6)]
    parts = together([*callers, *lookers, partial(compress_all_the_time, root, finish)])
    operations = [operation for part in parts[:-1] for operation in part]
    assert parts[-1] > 1, "it was hardly compressed meanwhile"
    assert not never_raced(operations)
    assert_linearizable(operations + what_is_there_in_the_end(root))


def call_at_random(root: Path, process: int, calls: int, finish: Finish) -> list[Operation]:
    chance = random.Random(process)
    with finish.one(), PickleShareDB(root) as db:
        recorder = CategoryRecorder(db, "category", process)
        for verb in chance.choices(list(VERBS), [share for _, share in VERBS.values()], k=calls):
            VERBS[verb][0](recorder, chance.choice(KEYS))
    return recorder.operations


def look_all_the_time(root: Path, process: int, finish: Finish) -> list[Operation]:
    with PickleShareDB(root) as db:
        recorder = CategoryRecorder(db, "category", process)
        while finish.ahead():
            recorder.look_at_all(KEYS)
            time.sleep(0.001)  # so that the record stays small
    return recorder.operations


def compress_all_the_time(root: Path, finish: Finish, hashroot: str = "category") -> int:
    """How many times it was done."""
    times = 0
    with PickleShareDB(root) as db:
        while finish.ahead():
            db.hcompress(hashroot)
            times += 1
            time.sleep(0.001)
    return times


def what_is_there_in_the_end(root: Path) -> list[Operation]:
    """Read by somebody who was not there before: as a whole, one by one, and once more after a last compression."""
    with PickleShareDB(root) as db:
        recorder = CategoryRecorder(db, "category", 99)
        recorder.look_at_all(KEYS)
        for key in KEYS:
            recorder.get(key)
        recorder.compress()
        recorder.look_at_all(KEYS)
    return recorder.operations


# -- the same without a judge: counters that only grow -----------------------------------------

OWNERS = 4
COUNTERS = 6  # that each owner has


def test_a_counter_is_never_missing_never_goes_back_and_a_deleted_item_stays_away(root: Path) -> None:
    finish = Finish(OWNERS, watchers=4)
    written, deleted = SharedNumbers(OWNERS * COUNTERS), SharedNumbers(OWNERS)
    owners = [partial(count_and_delete, root, owner, scaled(600), written, deleted, finish) for owner in range(OWNERS)]
    watchers = [partial(watch_counters, root, written, deleted, finish) for _ in range(3)]
    *_, one, two, three, compressed = together([*owners, *watchers, partial(compress_all_the_time, root, finish)])
    assert min(one, two, three, compressed) > 1, "nobody looked"
    with PickleShareDB(root) as db:
        assert db.hdict("category") == {("counter", place): number for place, number in enumerate(written.copy())}


def count_and_delete(
    root: Path, owner: int, rounds: int, written: SharedNumbers, deleted: SharedNumbers, finish: Finish
) -> None:
    """Each round counts one of the owner's counters up, and sets and deletes an item that never comes again."""
    with finish.one(), PickleShareDB(root) as db:
        for number in range(1, rounds + 1):
            place = owner * COUNTERS + number % COUNTERS
            db.hset("category", ("counter", place), number)
            written[place] = number
            db.hset("category", ("brief", owner, number), b"x" * (number % 300))
            db.hdel("category", ("brief", owner, number))
            deleted[owner] = number


def watch_counters(root: Path, written: SharedNumbers, deleted: SharedNumbers, finish: Finish) -> int:
    looks = 0
    last = [0] * (OWNERS * COUNTERS)
    with PickleShareDB(root) as db:
        while finish.ahead():
            at_least, away = [max(pair) for pair in zip(written.copy(), last, strict=True)], deleted.copy()
            found = db.hdict("category")
            for place, number in enumerate(at_least):
                last[place] = found.get(("counter", place), 0)
                assert last[place] >= number, f"counter {place} was {number} and is {last[place]} now"
            for kind, *facts in found:
                assert kind == "counter" or facts[1] > away[facts[0]], f"{facts} was deleted and is back"
            place = looks % len(last)
            if at_least[place]:
                assert db.hget("category", ("counter", place), fast_only=False) >= last[place]
            looks += 1
    return looks


# -- many keys in one step ---------------------------------------------------------------------


@everywhere
def test_an_update_of_many_buckets_is_seen_whole_or_not_at_all(root: Path) -> None:
    keys = [f"key {number}" for number in range(48)]
    assert len({gethashfile(key) for key in keys}) > 16
    with PickleShareDB(root) as db:
        db.hupdate("category", dict.fromkeys(keys, "first"))
    finish = Finish(workers=3, watchers=5)
    updaters = [partial(update_many, root, keys, who, max(20, scaled(50)), finish) for who in range(3)]
    lookers = [partial(look_for_a_mixture, root, keys, finish) for _ in range(4)]
    *_, compressed = answers = together([*updaters, *lookers, partial(compress_all_the_time, root, finish)])
    seen = Counter[str]()
    for values in answers[3:7]:
        seen.update(values)
    assert compressed > 1 and len(seen) > 5, "it was hardly looked at"


def update_many(root: Path, keys: list[str], who: int, rounds: int, finish: Finish) -> None:
    with finish.one(), PickleShareDB(root) as db:
        for number in range(rounds):
            db.hupdate("category", dict.fromkeys(keys, f"{who}.{number}" + "." * (number % 7 * 50)))
            time.sleep(0.001)  # a store that is changed without a pause leaves no whole state to see for long


def look_for_a_mixture(root: Path, keys: list[str], finish: Finish) -> set[str]:
    """The values that were seen; each stood under all keys at once."""
    seen = set()
    with PickleShareDB(root) as db:
        while finish.ahead():
            found = db.hdict("category")
            values = set(found.values())
            assert found.keys() == set(keys) and len(values) == 1, f"a mixture of {sorted(values)} in {len(found)} keys"
            seen |= values
    return seen


# -- one winner --------------------------------------------------------------------------------


def test_an_item_is_added_once_and_then_popped_once_while_it_is_compressed(root: Path) -> None:
    items = max(50, scaled(150))
    added = race(root, items, add_in_any_order)
    assert sorted(item for item, _ in added) == list(range(items))
    popped = race(root, items, pop_in_any_order)
    assert sorted(popped) == sorted(added)
    with PickleShareDB(root) as db:
        assert db.hdict("category") == {}


Pairs = list[tuple[int, int]]
"""(item, who added it) of those that one process, or all, won."""


def race(root: Path, items: int, run: Callable[[Path, int, int, Finish], Pairs]) -> Pairs:
    finish = Finish(workers=7, watchers=1)
    racers = [partial(run, root, items, who, finish) for who in range(7)]
    *won, compressed = together([*racers, partial(compress_all_the_time, root, finish)])
    assert compressed >= 1, "nothing was compressed meanwhile"
    return [pair for pairs in won for pair in pairs]


def add_in_any_order(root: Path, items: int, who: int, finish: Finish) -> Pairs:
    with finish.one(), PickleShareDB(root) as db:
        order = random.Random(who % 3).sample(range(items), items)  # some race for the same item, others do not
        return [(item, who) for item in order if db.hadd("category", item, (item, who))]


def pop_in_any_order(root: Path, items: int, who: int, finish: Finish) -> Pairs:
    with finish.one(), PickleShareDB(root) as db:
        order = random.Random(who % 3).sample(range(items), items)
        found = [db.hpop("category", item, None) for item in order]
        return [pair for pair in found if pair is not None]
