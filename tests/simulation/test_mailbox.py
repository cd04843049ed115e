"""Mailboxes: a letter never changes, one wins, and nobody waits for what is there."""

from __future__ import annotations

from typing import Any

import pytest

from psync.engine import MemoryEngine
from psync.sync import Mailbox
from tests.simulation.actor import Stuck
from tests.simulation.explore import explore, first_failure
from tests.simulation.planted_bugs import look_before_watching
from tests.simulation.schedule import Schedule


def correspondence(schedule: Schedule) -> None:
    """Two write to each address, one of them surely; others read, collect and compact."""
    won: dict[str, int] = {}
    seen: list[tuple[str, Any]] = []

    def post(engine: MemoryEngine, addresses: str) -> None:
        box = Mailbox(engine)
        for address in addresses:
            if box.post(address, engine.owner()):
                assert address not in won
                won[address] = engine.owner()

    def get(engine: MemoryEngine) -> None:
        box = Mailbox(engine)
        seen.extend([("a", box.get("a")), ("a", box.get("a"))])

    def collect(engine: MemoryEngine) -> None:
        found = list(Mailbox(engine).collect("ab"))
        assert sorted(address for address, _ in found) == ["a", "b"]
        seen.extend(found)

    def compact(engine: MemoryEngine) -> None:
        Mailbox(engine).compact()

    schedule.actor(lambda engine: post(engine, "ab"))
    schedule.actor(get, mortal=False)
    schedule.actor(lambda engine: post(engine, "ba"), mortal=False)
    schedule.actor(collect, mortal=False)
    schedule.actor(compact)
    schedule.run()
    box = Mailbox(schedule.engine)
    letters = {address: box.get(address, timeout=0) for address in "ab"}
    assert all(letters[address] == letter for address, letter in seen), "a letter never changes"
    assert letters.items() >= won.items()
    if not any(actor.dead for actor in schedule.actors):
        assert letters == won


def test_a_letter_once_posted_never_changes_and_whoever_waits_gets_it() -> None:
    explore(correspondence, 2000, kills=2)


def test_of_those_who_take_a_letter_one_gets_it() -> None:
    def scenario(schedule: Schedule) -> None:
        Mailbox(schedule.engine).post("a", 1)
        got: list[Any] = []

        def take(engine: MemoryEngine) -> None:
            try:
                got.append(Mailbox(engine).take("a"))
            except KeyError:
                pass

        for job in (take, take, lambda engine: Mailbox(engine).compact(), take):
            schedule.actor(job)
        schedule.run()
        assert got == [1] and "a" not in Mailbox(schedule.engine)

    explore(scenario, 1000)


# -- what was planted is found -----------------------------------------------------------------------


def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(correspondence)[1], Stuck)


def test_a_letter_that_is_looked_for_before_it_is_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(self: Mailbox, address: Any, value: Any) -> bool:
        if address in self:
            return False
        self._messages.set(address, value)
        return True

    monkeypatch.setattr(Mailbox, "post", post)
    assert not isinstance(first_failure(correspondence)[1], Stuck)


def test_letters_that_are_looked_for_among_the_compacted_first_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: Mailbox, address: Any) -> Any:
        compressed = self._messages._items("xx")
        if compressed is not None and address in compressed.items:
            return compressed.items[address]
        seen = self._messages._items(self._messages.bucket_name(address)[-2:])
        return seen.items[address] if seen is not None and address in seen.items else self._without_message(address)

    monkeypatch.setattr(Mailbox, "_look", look)

    def reads_twice(schedule: Schedule) -> None:
        Mailbox(schedule.engine).post("a", 1)

        def read(engine: MemoryEngine) -> None:
            assert Mailbox(engine).wait("a", timeout=0) == 1

        schedule.actor(read)
        schedule.actor(lambda engine: Mailbox(engine).compact())
        schedule.run()

    assert not isinstance(first_failure(reads_twice)[1], Stuck)
