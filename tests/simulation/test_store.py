"""Waits for values, and categories that are set, compressed and read at once: nothing is missed, nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest

from psync.engine import MemoryEngine
from psync.store import PickleShareDB, codec
from psync.store.category import Category
from tests.simulation.actor import Stuck
from tests.simulation.explore import explore, first_failure
from tests.simulation.planted_bugs import look_before_watching
from tests.simulation.schedule import Schedule

# -- waits -----------------------------------------------------------------------------------------


def to_and_fro(schedule: Schedule) -> None:
    """Each waits for what the other does: set, take away, set an item."""

    def first(engine: MemoryEngine) -> None:
        db = PickleShareDB(engine)
        for number in range(2):
            db["place"] = number
            db.waitgone("place", None)
            assert db.hwait("items", number, None) == -number

    def second(engine: MemoryEngine) -> None:
        db = PickleShareDB(engine)
        for number in range(2):
            assert db.waitany(["other", "place"], None) == ("place", number)
            del db["place"]
            db.hset("items", number, -number)

    schedule.actor(first)
    schedule.actor(second)
    schedule.actor(lambda engine: PickleShareDB(engine).hwait("items", 0, None), mortal=False)
    schedule.run()
    db = PickleShareDB(schedule.engine)
    assert db.hdict("items") == {0: 0, 1: -1} and "place" not in db


def test_who_waits_for_a_value_an_item_or_an_end_is_woken_by_it() -> None:
    explore(to_and_fro, 2000)


def test_all_who_wait_for_a_value_get_it_whoever_else_is_killed() -> None:
    def scenario(schedule: Schedule) -> None:
        def wait(engine: MemoryEngine) -> None:
            assert PickleShareDB(engine).waitget("answer", None) == 42

        def add(engine: MemoryEngine) -> None:
            PickleShareDB(engine).add("answer", 42)

        for job in (wait, add, wait, add):
            schedule.actor(job)
        schedule.actor(add, mortal=False)
        schedule.run()

    explore(scenario, 500, kills=2, turns=15)


def test_of_those_who_take_a_value_one_gets_it() -> None:
    def scenario(schedule: Schedule) -> None:
        got: list[Any] = []
        put = 0

        def give(engine: MemoryEngine) -> None:
            nonlocal put
            for value in engine.owner(), -engine.owner():
                added = PickleShareDB(engine).add("thing", value)
                put += added

        def take(engine: MemoryEngine) -> None:
            got.append(PickleShareDB(engine).pop("thing", None))

        for job in (give, take, give, take):
            schedule.actor(job)
        schedule.run()
        there = [value for value in got if value is not None]
        assert len(set(there)) == len(there) == put - ("thing" in PickleShareDB(schedule.engine))

    explore(scenario, 500)


# -- categories ------------------------------------------------------------------------------------


def set_beside_compress(schedule: Schedule) -> None:
    """Values grow; a look between two times gives no less than what was set before, no more than what was begun."""
    begun: dict[str, int] = dict.fromkeys("ab", 0)
    done: dict[str, int] = dict.fromkeys("ab", 0)

    def write(engine: MemoryEngine, key: str) -> None:
        db = PickleShareDB(engine)
        for number in 1, 2:
            begun[key] = number
            db.hset("cat", key, number)
            done[key] = number

    def compress(engine: MemoryEngine) -> None:
        PickleShareDB(engine).hcompress("cat")

    def read(engine: MemoryEngine) -> None:
        db = PickleShareDB(engine)
        for _ in range(2):
            before = dict(done)
            found = db.hdict("cat")
            for key in "ab":
                assert before[key] <= found.get(key, 0) <= begun[key]
            assert before["a"] <= db.hget("cat", "a", 0, fast_only=False) <= begun["a"]

    schedule.actor(lambda engine: write(engine, "a"))
    schedule.actor(read, mortal=False)
    schedule.actor(compress)
    schedule.actor(lambda engine: write(engine, "b"))
    schedule.run()
    read(schedule.engine)


def test_a_category_loses_nothing_that_is_set_while_it_is_compressed_and_read() -> None:
    explore(set_beside_compress, 2000, kills=2)


def test_an_update_of_many_items_is_seen_whole_or_not_at_all() -> None:
    def scenario(schedule: Schedule) -> None:
        begun = done = 0

        def update(engine: MemoryEngine) -> None:
            nonlocal begun, done
            for number in 1, 2:
                begun = number
                PickleShareDB(engine).hupdate("cat", {"x": number, "y": number})
                done = number

        def compress(engine: MemoryEngine) -> None:
            PickleShareDB(engine).hcompress("cat")

        def read(engine: MemoryEngine) -> None:
            before = done
            found = PickleShareDB(engine).hdict("cat")
            assert found.get("x") == found.get("y")
            assert before <= found.get("x", 0) <= begun

        for job in (update, compress, read, read):
            schedule.actor(job, mortal=job is not read)
        schedule.run()
        read(schedule.engine)

    explore(scenario, 500, kills=1)


def test_an_item_is_added_once_and_taken_once_whatever_is_compressed_meanwhile() -> None:
    def scenario(schedule: Schedule) -> None:
        added: list[int] = []
        taken: list[int] = []

        def add(engine: MemoryEngine, number: int) -> None:
            if PickleShareDB(engine).hadd("cat", "k", number):
                added.append(number)

        def take(engine: MemoryEngine) -> None:
            value = PickleShareDB(engine).hpop("cat", "k", None)
            if value is not None:
                taken.append(value)

        def compress(engine: MemoryEngine) -> None:
            PickleShareDB(engine).hcompress("cat")

        for number in 1, 2:
            schedule.actor(lambda engine, number=number: add(engine, number))
        for job in (take, compress, take):
            schedule.actor(job)
        schedule.run()
        left = PickleShareDB(schedule.engine).hdict("cat")
        assert sorted(added) == sorted([*taken, *left.values()]) and len(added) >= 1

    explore(scenario, 500)


# -- what was planted is found -----------------------------------------------------------------------


def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(to_and_fro)[1], Stuck)


def test_a_compression_that_holds_nobody_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def compress(self: Category, *, flags: int = 0) -> None:
        items = self.everything(lambda error: None)
        with self._frozen() as held:
            held.pop("xx").replace(b"".join(map(_item, items.items())), flags=flags, durable=True)
            for each in held.values():
                each.drop()

    monkeypatch.setattr(Category, "compress", compress)
    assert not isinstance(first_failure(set_beside_compress)[1], Stuck)


def test_a_compression_that_drops_before_it_has_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def compress(self: Category, *, flags: int = 0) -> None:
        with self._frozen() as held:
            merged = self._merge({bucket: each.tail() for bucket, each in held.items()}, lambda error: None)
            compressed = held.pop("xx")
            for each in held.values():
                each.drop()
            compressed.replace(b"".join(map(_item, merged.items())), flags=flags, durable=True)

    monkeypatch.setattr(Category, "compress", compress)
    assert not isinstance(first_failure(set_beside_compress, kills=1)[1], Stuck)


def _item(pair: tuple[Any, Any]) -> bytes:
    return codec.item(*pair)
