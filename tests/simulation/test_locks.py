"""Locks: one inside at a time, or many readers; nobody waits who could go in; what the dead held is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from psync.engine import MemoryEngine
from psync.sync import Lock, ReadWriteLock, RLock
from tests.simulation.actor import Stuck
from tests.simulation.explore import explore, first_failure
from tests.simulation.occupancy import Occupancy
from tests.simulation.planted_bugs import look_before_watching, read_then_write
from tests.simulation.schedule import Schedule


def one_at_a_time(schedule: Schedule, kind: Callable[..., Any]) -> None:
    room = Occupancy(schedule)
    tokens: list[int] = []

    def work(engine: MemoryEngine) -> None:
        lock = kind(engine, "door")
        for _ in range(3):
            with lock, room.entered(engine):
                assert len(room) == 1
                tokens.append(lock.token)

    for _ in range(3):
        schedule.actor(work)
    schedule.run()
    assert tokens == sorted(set(tokens)), "each token is larger than all before"
    assert not kind(schedule.engine, "door").locked()


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_one_at_a_time_is_inside_with_a_growing_token_and_nobody_waits_for_the_dead(kind: type[Lock]) -> None:
    explore(lambda schedule: one_at_a_time(schedule, kind), 2000, kills=2, turns=40)


def test_a_lock_is_not_given_to_who_gave_up_and_its_timeouts_are_kept() -> None:
    def scenario(schedule: Schedule) -> None:
        room = Occupancy(schedule)
        refused = []

        def work(engine: MemoryEngine) -> None:
            lock = Lock(engine, "door")
            for seconds in (0.03, 0.0, 0.1):
                begun = engine.now()
                if lock.acquire(timeout=seconds):
                    with room.entered(engine):
                        assert len(room) == 1
                    lock.release()
                else:
                    refused.append(seconds)
                    assert engine.now() >= begun + seconds
            assert not lock.token

        for _ in range(3):
            schedule.actor(work)
        schedule.run()
        assert not Lock(schedule.engine, "door").locked()

    explore(scenario, 1000, kills=1, pace=0.01, limit=2.0, turns=30)


def test_any_thread_of_a_process_may_release_its_lock_and_no_other_process() -> None:
    def scenario(schedule: Schedule) -> None:
        taken: list[int] = []

        def take(engine: MemoryEngine) -> None:
            Lock(engine, "door").acquire()
            taken.append(1)
            engine.write("taken", b"N.")

        def give(engine: MemoryEngine) -> None:
            with engine.watch(["taken"]) as watch:
                while engine.read("taken") is None:
                    watch.pause(None)
            Lock(engine, "door").release()

        def wait(engine: MemoryEngine) -> None:
            lock = Lock(engine, "door")
            if not taken:
                with pytest.raises(RuntimeError):
                    lock.release()
            with lock:
                taken.append(2)

        first = schedule.actor(take)
        schedule.actor(give, beside=first)
        schedule.actor(wait)
        schedule.run()
        assert sorted(taken) == [1, 2]

    explore(scenario, 500, turns=10)


def test_a_thread_takes_its_own_rlock_again_and_the_other_threads_of_its_process_wait() -> None:
    def scenario(schedule: Schedule) -> None:
        inside: list[int] = []

        def work(engine: MemoryEngine, lock: RLock, number: int) -> None:
            for _ in range(2):
                with lock:
                    inside.append(number)
                    with lock:
                        engine.read("elsewhere")
                    engine.read("elsewhere")
                    assert inside == [number]
                    inside.clear()

        first = schedule.actor(lambda engine: work(engine, shared, 0))
        shared = RLock(first.engine, "door")
        schedule.actor(lambda engine: work(engine, shared, 1), beside=first)
        schedule.actor(lambda engine: work(engine, RLock(engine, "door"), 2))
        schedule.run()

    explore(scenario, 1000, turns=30)


def readers_and_writers(schedule: Schedule) -> None:
    readers, writers = Occupancy(schedule), Occupancy(schedule)
    together = 0

    def read(engine: MemoryEngine) -> None:
        nonlocal together
        lock = ReadWriteLock(engine, "book")
        for _ in range(2):
            with lock.reader, readers.entered(engine):
                assert not len(writers)
                together = max(together, len(readers))

    def write(engine: MemoryEngine) -> None:
        lock = ReadWriteLock(engine, "book")
        for _ in range(2):
            with lock.writer, writers.entered(engine):
                assert len(writers) == 1 and not len(readers)

    for job in (read, write, read, write):
        schedule.actor(job)
    schedule.run()
    lock = ReadWriteLock(schedule.engine, "book")
    assert lock.writer.acquire(timeout=0)


def test_one_writer_or_many_readers_are_inside_and_nobody_waits_for_the_dead() -> None:
    explore(readers_and_writers, 2000, kills=2, turns=60)


def test_readers_go_in_together() -> None:
    def scenario(schedule: Schedule) -> None:
        readers = Occupancy(schedule)
        most = 0

        def read(engine: MemoryEngine) -> None:
            nonlocal most
            with ReadWriteLock(engine, "book").reader, readers.entered(engine):
                most = max(most, len(readers))

        for _ in range(3):
            schedule.actor(read)
        schedule.run()
        assert most < 3

    assert isinstance(first_failure(scenario)[1], AssertionError)


def test_no_reader_that_comes_later_goes_in_before_a_writer_that_waits() -> None:
    def scenario(schedule: Schedule) -> None:
        written = 0

        def read(engine: MemoryEngine) -> None:
            lock = ReadWriteLock(engine, "book")
            for _ in range(3):
                before, waits = written, writer.sleeping and writer.pending[0] == "pause"
                with lock.reader:
                    assert written > before or not waits

        def write(engine: MemoryEngine) -> None:
            nonlocal written
            for _ in range(2):
                with ReadWriteLock(engine, "book").writer:
                    written += 1

        schedule.actor(read)
        writer = schedule.actor(write)
        schedule.actor(read)
        schedule.run()

    explore(scenario, 500)


def test_a_writer_that_gives_up_lets_the_readers_in() -> None:
    def scenario(schedule: Schedule) -> None:
        readers, writers = Occupancy(schedule), Occupancy(schedule)

        def read(engine: MemoryEngine) -> None:
            for _ in range(2):
                with ReadWriteLock(engine, "book").reader, readers.entered(engine):
                    assert not len(writers)

        def write(engine: MemoryEngine) -> None:
            lock = ReadWriteLock(engine, "book")
            for seconds in (0.02, 0.05):
                if lock.writer.acquire(timeout=seconds):
                    with writers.entered(engine):
                        assert len(writers) == 1 and not len(readers)
                    lock.writer.release()

        for job in (read, write, read, write):
            schedule.actor(job)
        schedule.run()

    explore(scenario, 500, kills=1, pace=0.01, limit=2.0, turns=60)


# -- what was planted is found -----------------------------------------------------------------------


class LeakyLock(Lock):
    """Looks whether it is free, and takes it, in two verbs."""

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        while self._engine.read("holder") is not None:
            pass
        self._engine.write("holder", b"N.")
        return True

    def release(self) -> None:
        self._engine.delete("holder")


def test_a_lock_that_looks_before_it_takes_is_found() -> None:
    seed, error = first_failure(lambda schedule: one_at_a_time(schedule, LeakyLock))
    assert not isinstance(error, Stuck), seed


def test_a_read_write_lock_that_reads_then_writes_its_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read_then_write(monkeypatch)
    first_failure(readers_and_writers)


def test_a_read_write_lock_that_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    look_before_watching(monkeypatch)
    seed, error = first_failure(readers_and_writers)
    assert isinstance(error, Stuck), seed
