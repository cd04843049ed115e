"""Nobody is inside beside another: threads, forked and spawned processes; and tokens grow with every holding."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from psync import Election, Lock, ReadWriteLock, RLock, Semaphore
from tests.concurrency.simultaneous import in_threads, together
from tests.support import scaled
from tests.sync.kinds import EXCLUSIVE, EXCLUSIVE_BY_NAME, Exclusive, each_exclusive
from tests.sync.other_process import Channel, OtherProcess, eventually, other_process, others

TIMES = scaled(25)


def add_up(kind: Exclusive, handle: Any, notes: Path, times: int = TIMES) -> None:
    """Read, let others run, write: loses counts unless something keeps the others out."""
    for turn in range(times):
        assert kind.take(handle, timeout=60) if turn % 2 else kind.take(handle)
        number = int(notes.read_text() or 0) if notes.exists() else 0
        time.sleep(0)
        notes.write_text(str(number + 1))
        kind.give(handle)


@pytest.mark.parametrize("kind", [kind for kind in EXCLUSIVE if kind.name != "Election"], ids=lambda kind: kind.name)
@pytest.mark.parametrize("handles", ["one handle", "a handle each"])
def test_threads_keep_each_other_out(kind: Exclusive, handles: str, root: Path, tmp_path: Path) -> None:
    """But for an election: a process leads, with all its threads."""
    shared = kind.make(root)

    def work() -> None:
        add_up(kind, shared if handles == "one handle" else kind.make(root), tmp_path / "count")

    in_threads([work] * 4)
    assert (tmp_path / "count").read_text() == str(4 * TIMES)


@each_exclusive
def test_forked_processes_keep_each_other_out(kind: Exclusive, root: Path, tmp_path: Path) -> None:
    made_before = kind.make(root)

    def work(me: int) -> None:
        add_up(kind, kind.make(root) if me % 2 else made_before, tmp_path / "count")

    together([lambda me=me: work(me) for me in range(4)])
    assert (tmp_path / "count").read_text() == str(4 * TIMES)


def add_up_all(handles: dict[str, Any], notes: Path, talk: Connection) -> None:
    talk.send("here")
    talk.recv()
    for name, handle in handles.items():
        add_up(EXCLUSIVE_BY_NAME[name], handle, notes / name)


def test_spawned_processes_keep_each_other_out(root: Path, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    handles = {kind.name: kind.make(root) for kind in EXCLUSIVE}
    pipes = [spawn.Pipe() for _ in range(2)]
    processes = [spawn.Process(target=add_up_all, args=(handles, tmp_path, theirs)) for _, theirs in pipes]
    for process in processes:
        process.start()
    for mine, _ in pipes:
        assert mine.poll(60) and mine.recv() == "here"
    for mine, _ in pipes:
        mine.send("go")
    for process, ends in zip(processes, pipes, strict=True):
        process.join(60)
        assert process.exitcode == 0
        process.close()
        for end in ends:
            end.close()
    assert {name: (tmp_path / name).read_text() for name in handles} == dict.fromkeys(handles, str(2 * TIMES))


def test_readers_never_see_a_writer_at_work(root: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.write_text("0 0")
    times = scaled(30)

    def write() -> int:
        lock = ReadWriteLock(root, "book")
        for _ in range(times):
            with lock.writer:
                number = int(book.read_text().split()[0]) + 1
                with open(book, "w", encoding="ascii") as file:
                    file.write(f"{number} ")
                    file.flush()
                    file.write(str(number))
        return 0

    def read() -> int:
        lock, last = ReadWriteLock(root, "book"), 0
        while last < 2 * times:
            with lock.reader:
                first, second = map(int, book.read_text().split())
                assert first == second >= last
                last = first
        return last

    assert together([write, write, read, read]) == [0, 0, 2 * times, 2 * times]


def test_readers_are_inside_together_and_a_waiting_writer_comes_before_new_ones(root: Path) -> None:
    lock = ReadWriteLock(root, "book")

    def read(talk: Channel) -> None:
        talk.say(ReadWriteLock(root, "book").reader.acquire(timeout=0.05))
        talk.hear()
        ReadWriteLock(root, "book").reader.release()
        talk.say("out")

    def write(talk: Channel) -> None:
        talk.say(ReadWriteLock(root, "book").writer.acquire())
        talk.hear()

    with others(read, read) as readers:
        assert [reader.hear() for reader in readers] == [True, True]
        with other_process(write) as writer:
            eventually(lambda: lock.statistics().waiting_writers)
            assert len(lock.statistics().readers) == 2
            with other_process(read) as late:
                assert late.hear() is False
            for reader in readers:
                assert writer.is_silent(0)
                reader.tell()
                reader.hear()
            assert writer.hear() is True
            assert lock.writer.locked() and not lock.reader.locked()


# -- whose it is -----------------------------------------------------------------------------------


@each_exclusive
def test_who_is_kept_out_gets_in_when_the_other_lets_go(kind: Exclusive, root: Path) -> None:
    def hold(talk: Channel) -> None:
        handle = kind.make(root)
        assert kind.take(handle)
        talk.say("held")
        talk.hear()
        kind.give(handle)
        talk.hear()

    mine = kind.make(root)
    with other_process(hold) as other:
        other.hear()
        assert not kind.take(mine, timeout=0)
        assert not kind.take(mine, timeout=0.02)
        other.tell()
        begun = time.monotonic()
        assert kind.take(mine, timeout=30)
        assert time.monotonic() - begun < 3
        kind.give(mine)


@pytest.mark.parametrize("kind", [Lock, ReadWriteLock], ids=["Lock", "writer"])
def test_any_thread_of_the_process_may_release_it_and_no_other_process(kind: Any, root: Path) -> None:
    def view() -> Any:
        return kind(root, "x") if kind is Lock else kind(root, "x").writer

    kept = kind(root, "x")  # a process in which nobody has a handle any more is nobody there
    assert view().acquire()

    def refused(talk: Channel) -> None:
        with pytest.raises(RuntimeError):
            view().release()
        talk.say(view().acquire(blocking=False))

    with other_process(refused) as other:
        assert other.hear() is False
    in_threads([lambda: view().release()])
    assert view().acquire(blocking=False)
    view().release()
    assert not (kept if kind is Lock else kept.writer).locked()


def test_an_rlock_belongs_to_its_thread_and_is_free_when_each_acquire_had_its_release(root: Path) -> None:
    lock = RLock(root, "x")
    with lock, lock:
        token = lock.token
        assert in_threads([lambda: lock.acquire(blocking=False)]) == [False]
        with pytest.raises(RuntimeError, match="this thread does not hold it"):
            in_threads([lock.release])
        assert lock.token == token
    assert in_threads([lambda: lock.acquire(blocking=False) and (lock.release(), True)[1]]) == [True]
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_semaphore_lets_in_as_many_as_it_has_permits(root: Path) -> None:
    slots = Semaphore(root, "x", 3)

    def sit(talk: Channel) -> None:
        talk.say(Semaphore(root, "x", 3).acquire(timeout=0.05))
        talk.hear()

    def sitting(other: OtherProcess) -> bool:
        return bool(other.hear())

    with other_process(sit) as first, other_process(sit) as second:
        assert sitting(first) and sitting(second)
        assert slots.acquire() and slots.get_value() == 0 and slots.locked()
        with other_process(sit) as late:
            assert not sitting(late)
        slots.release(1)
        with other_process(sit) as late:
            assert sitting(late)


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Lock, RLock, Election], ids=lambda kind: kind.__name__)
def test_tokens_grow_with_every_holding_across_processes_and_deaths(make: Any, root: Path, tmp_path: Path) -> None:
    kind = EXCLUSIVE_BY_NAME[make.__name__]
    notes = tmp_path / "tokens"

    def work(lives: int) -> None:
        handle = kind.make(root)
        for _ in range(lives):
            assert kind.take(handle)
            with open(notes, "ab", buffering=0) as file:
                file.write(b"%d\n" % handle.token)
            kind.give(handle)
            assert handle.token == 0

    def hold_to_the_end(talk: Channel) -> None:
        handle = kind.make(root)
        work(1)
        assert kind.take(handle)
        with open(notes, "ab", buffering=0) as file:
            file.write(b"%d\n" % handle.token)
        talk.say("held")
        talk.hear()

    for _ in range(3):
        together([lambda: work(TIMES)] * 3)
        with other_process(hold_to_the_end) as other:
            other.hear()
            other.kill()
        work(2)
    tokens = list(map(int, notes.read_text().split()))
    assert len(tokens) == 3 * (3 * TIMES + 4)
    assert tokens == sorted(set(tokens))


def test_hold_gives_the_token_and_nobody_else_has_one(root: Path) -> None:
    lock = Lock(root, "x")
    with lock.hold(1.0) as first:
        assert first == lock.token > 0
        assert together([lambda: Lock(root, "x").token]) == [0]
    with lock.hold(1.0) as second:
        assert second > first
    assert lock.token == 0
