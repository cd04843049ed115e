"""Descriptors are bounded for the process as a whole, and what is used or held keeps its own."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import psync
from psync.engine.directory.fs.fd_cache import MIN_DESCRIPTORS, SHARE
from tests.crash.children import in_child
from tests.support import scaled

LIMIT = 256
MANY = scaled(200)
OTHERS = 20
"""Descriptors that a process has open beside psync's: standard streams, pytest's, this test's."""


def queue(db: psync.PickleShareDB, name: str) -> psync.WorkQueue:
    made = psync.WorkQueue(db, name)
    made.put(name)
    task = made.get()
    task.done(task.value)
    return made


def durable_queue(db: psync.PickleShareDB, name: str) -> psync.WorkQueue:
    made = psync.WorkQueue(db, name, durability="file")
    made.put(name)
    made.get().done()
    return made


def lock(db: psync.PickleShareDB, name: str) -> psync.Lock:
    made = psync.Lock(db, name)
    with made:
        assert made.token
    return made


def event(db: psync.PickleShareDB, name: str) -> psync.Event:
    made = psync.Event(db, name)
    made.set()
    assert made.is_set()
    return made


def counter(db: psync.PickleShareDB, name: str) -> psync.Counter:
    made = psync.Counter(db, name)
    made.add()
    return made


def semaphore(db: psync.PickleShareDB, name: str) -> psync.Semaphore:
    made = psync.Semaphore(db, name, 2)
    with made:
        pass
    return made


def barrier(db: psync.PickleShareDB, name: str) -> psync.Barrier:
    made = psync.Barrier(db, name, 1)
    made.wait()
    return made


def mailbox(db: psync.PickleShareDB, name: str) -> psync.Mailbox:
    made = psync.Mailbox(db, name)
    made.post(1, name)
    assert made.get(1) == name
    return made


def category(db: psync.PickleShareDB, name: str) -> str:
    db.hset(name, 1, name)
    assert db.hget(name, 1) == name
    return name


def value(db: psync.PickleShareDB, name: str) -> str:
    db[name] = name
    assert db[name] == name
    return name


def waiter(db: psync.PickleShareDB, name: str) -> psync.Event:
    made = psync.Event(db, name)
    assert not made.wait(0.0001)
    return made


KINDS = [queue, durable_queue, lock, event, counter, semaphore, barrier, mailbox, category, value, waiter]


def store(folder: Path, name: str) -> psync.PickleShareDB:
    """A directory of its own, in which this process becomes an owner."""
    made = psync.PickleShareDB(folder / name)
    lock(made, "door")
    event(made, "ready")
    return made


def open_now() -> int:
    return len(os.listdir("/proc/self/fd"))


def with_few(act: Callable[[], Any]) -> Any:
    """What `act` returns in a child with a small limit on descriptors."""

    def limited() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        return act()

    return in_child(limited)


@pytest.mark.parametrize("kept", [False, True], ids=["dropped", "kept"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_of_a_kind_one_after_another_stay_within_the_share(kind: Any, kept: bool, tmp_path: Path) -> None:
    def work() -> int:
        db, before, most, all_of_them = psync.PickleShareDB(tmp_path / "store"), open_now(), 0, []
        for number in range(MANY):
            made = kind(db, f"name {number}")
            if kept:
                all_of_them.append(made)
            if number % 10 == 0:
                with open(os.devnull):  # so can the rest of the program
                    most = max(most, open_now() - before)
        return most

    assert with_few(work) <= LIMIT * SHARE + OTHERS


def test_many_of_all_kinds_in_several_threads_stay_within_the_share(tmp_path: Path) -> None:
    def work() -> tuple[int, list[BaseException]]:
        db, before, failures, most = psync.PickleShareDB(tmp_path / "store"), open_now(), [], []

        def use(first: int) -> None:
            try:
                for number in range(first, first + scaled(40)):
                    for kind in KINDS:
                        kind(db, f"{kind.__name__} {number % 30}" if kind is event else f"{kind.__name__} {number}")
                    most.append(open_now() - before)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=use, args=(1000 * first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(most), failures

    most, failures = with_few(work)
    assert not failures
    assert most <= LIMIT * SHARE + 4 * OTHERS  # each thread may have a few in use


def test_many_directories_one_after_another_stay_within_the_limit(tmp_path: Path) -> None:
    def work() -> int:
        most = 0
        for number in range(MANY):
            store(tmp_path, str(number))
            with open(os.devnull):
                most = max(most, open_now())
        return most

    assert with_few(work) < LIMIT - OTHERS


def test_the_share_follows_the_limit_of_the_process(tmp_path: Path) -> None:
    def work() -> list[int]:
        db, found = psync.PickleShareDB(tmp_path / "store"), []
        kept = [event(db, str(number)) for number in range(200)]
        for limit in (512, 128):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 1024))
            event(db, f"new with {limit}")  # a new descriptor is the moment to look
            for one in kept:
                one.set()
                one.clear()
            found.append(open_now())
        return found

    more, fewer = in_child(work)
    assert 512 * SHARE - 10 < more < 512 * SHARE + OTHERS
    assert fewer <= max(128 * SHARE, MIN_DESCRIPTORS) + OTHERS


@pytest.mark.parametrize("kind", [lock, event, category, mailbox, queue])
def test_what_is_used_now_and_then_stays_open_while_others_come_and_go(kind: Any, tmp_path: Path) -> None:
    """Its files are not opened again: a second chance at least as often as others are opened."""

    def work() -> bool:
        db = psync.PickleShareDB(tmp_path / "store")
        made = kind(db, "mine")
        used = {
            lock: lambda: made.__enter__() and made.__exit__(None, None, None),
            event: getattr(made, "is_set", None),
            category: lambda: db.hget("mine", 1),
            mailbox: lambda: made.get(1),
            queue: lambda: made.put(1),
        }[kind]
        used()
        mine = {number: link for number, link in links(tmp_path).items() if "mine" in link and "/results/" not in link}
        assert mine
        others = []
        for number in range(300):
            others.append(event(db, f"other {number}"))
            used()
        now = links(tmp_path)
        return all(now.get(number) == link for number, link in mine.items())

    assert with_few(work)


def links(folder: Path) -> dict[int, str]:
    """The descriptors that lead to files in `folder`."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if link.startswith(str(folder)):
            found[int(number)] = link
    return found


@pytest.mark.parametrize("dropped", [False, True], ids=["kept", "dropped"])
def test_a_held_lock_stays_held_while_hundreds_of_others_are_used(dropped: bool, tmp_path: Path) -> None:
    """Also one to which nobody refers any more: only the end of its process, or of the store, releases it."""

    def work() -> list[bool]:
        db = psync.PickleShareDB(tmp_path / "store")
        held: psync.Lock | None = psync.Lock(db, "held")
        assert held is not None and held.acquire()
        token = held.token
        if dropped:
            held = None
            gc.collect()
        for number in range(300):
            lock(db, f"other {number}")
        gc.collect()
        elsewhere = in_child(lambda: psync.Lock(str(tmp_path / "store"), "held").acquire(timeout=0))
        again = psync.Lock(db, "held")
        seen = [elsewhere, again.token == token, again.locked()]
        again.release()
        return [*seen, again.acquire(timeout=0)]

    assert with_few(work) == [False, True, True, True]


def test_a_held_lock_that_nobody_refers_to_ends_with_its_store(tmp_path: Path) -> None:
    db = psync.PickleShareDB(tmp_path / "store")
    psync.Lock(db, "held").acquire()
    other = psync.Lock(str(tmp_path / "store"), "held")
    assert not other.acquire(timeout=0)
    del db
    gc.collect()
    assert other.acquire(timeout=0)
    other.release()


def test_a_claim_in_hand_is_answered_after_hundreds_of_others(tmp_path: Path) -> None:
    def work() -> list[Any]:
        db = psync.PickleShareDB(tmp_path / "store")
        jobs = psync.WorkQueue(db, "jobs")
        jobs.put("mine", id="mine")
        task = jobs.get()
        for number in range(100):
            queue(db, f"other {number}")
        task.done("answer")
        return [jobs.results.get("mine", timeout=1), jobs.qsize()]

    assert with_few(work) == ["answer", 0]


def test_without_a_free_descriptor_idle_ones_are_closed_before_anything_fails(tmp_path: Path) -> None:
    def work() -> list[Any]:
        db = psync.PickleShareDB(tmp_path / "store")
        for kind in KINDS:
            kind(db, f"{kind.__name__} before")  # all modules are loaded
        kept = [event(db, f"event {number}") for number in range(30)]
        others = []
        while True:
            try:
                others.append(os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                assert error.errno == errno.EMFILE
                break
        for kind in (event, lock, counter, category, mailbox, value, queue):
            kind(db, f"{kind.__name__} after")
        for number in others:
            os.close(number)
        return [one.is_set() for one in kept]

    assert with_few(work) == [True] * 30


def test_a_handle_that_nobody_refers_to_gives_its_memory_and_its_descriptors_back(tmp_path: Path) -> None:
    db = psync.PickleShareDB(tmp_path / "store")
    for number in range(50):
        queue(db, f"name {number}")
        lock(db, f"name {number}")
        event(db, f"name {number}")
    gc.collect()
    assert len(links(tmp_path)) < 60
    here = str(tmp_path)
    kinds = [type(each).__name__ for each in gc.get_objects() if here in str(getattr(each, "_path", here))]
    assert kinds.count("DirectoryLog") < 10 and kinds.count("DirectoryRegister") + kinds.count("DirectoryMutex") < 30


def test_a_forked_child_counts_its_own(tmp_path: Path) -> None:
    def work() -> bool:
        db = psync.PickleShareDB(tmp_path / "store")
        kept = [event(db, str(number)) for number in range(60)]

        def child() -> int:
            for one in kept:
                one.clear()
            for number in range(60):
                event(db, f"child {number}")
            return open_now()

        return bool(in_child(child) <= LIMIT * SHARE + OTHERS and all(not one.is_set() for one in kept))

    assert with_few(work)


def test_so_many_waiting_threads_leave_the_user_some_inotify_instances(tmp_path: Path) -> None:
    def work() -> int:
        warnings.simplefilter("error")
        ready = psync.Event(tmp_path / "store", "ready")
        waiting = [threading.Thread(target=ready.wait, args=(20,)) for _ in range(100)]
        for thread in waiting:
            thread.start()
        most = 0
        for _ in range(20):
            most = max(most, sum("inotify" in os.readlink(f"/proc/self/fd/{n}") for n in range(3, 250) if is_open(n)))
        ready.set()
        for thread in waiting:
            thread.join()
        return most

    assert with_few(work) <= 70  # threads that begin to wait at the same moment may be a few more


def is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
