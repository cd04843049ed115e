"""The contract of a mutex's token and holder: each holding has a larger number, and everybody can see whose it is."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

import pytest

from psync.engine import Engine
from psync.engine.contract.engine import Mutex
from psync.engine.directory.locks import mutex as mutex_module
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.contract.payloads import loaded, pickled
from tests.support import scaled


def held(mutex: Mutex) -> int:
    """The token of a holding that is over when this returns."""
    assert mutex.acquire(10.0)
    token = mutex.token
    mutex.release()
    return token


def test_a_token_is_there_while_the_mutex_is_held_and_grows_with_every_holding(harness: Harness) -> None:
    mine, theirs = harness.engine.mutex("m"), harness.other().mutex("m")
    assert mine.token == theirs.token == 0
    tokens = []
    for mutex in (mine, theirs, mine, mine, theirs):
        assert mutex.acquire()
        tokens.append(mutex.token)
        assert [other.token for other in (mine, theirs) if other is not mutex] == [0]
        mutex.release()
        assert mutex.token == 0
    assert tokens == sorted(set(tokens)) and tokens[0] > 0


def test_who_did_not_get_a_mutex_has_no_token(harness: Harness) -> None:
    mine, theirs = harness.engine.mutex("m"), harness.other().mutex("m")
    assert mine.acquire()
    token = mine.token
    for timeout in (0, 0.01):
        assert not theirs.acquire(timeout)
        assert theirs.token == 0
    mine.release()
    assert held(theirs) > token


def test_each_mutex_counts_by_itself(engine: Engine) -> None:
    first = [held(engine.mutex(name)) for name in "abab"]
    assert first[0] < first[2] and first[1] < first[3]


def test_tokens_grow_in_the_order_of_holding_among_all(harness: Harness) -> None:
    times = scaled(50)

    def work(engine: Engine) -> list[int]:
        mutex, mine = engine.mutex("m"), []
        for _ in range(times):
            assert mutex.acquire(30.0)
            cell = engine.read("last")
            last = loaded(cell.payload) if cell else 0
            assert mutex.token > last
            engine.write("last", pickled(mutex.token))
            mine.append(mutex.token)
            mutex.release()
        return mine

    tokens = [token for part in harness.crowd([work] * 3) for token in part]
    assert len(set(tokens)) == 3 * times


def test_a_dead_holders_token_is_never_given_again(harness: Harness) -> None:
    kept: list[Mutex] = []

    def hold(engine: Engine) -> int:
        kept.append(engine.mutex("m"))
        assert kept[-1].acquire()
        return kept[-1].token

    tokens = [
        harness.killed(hold),
        held(harness.engine.mutex("m")),
        harness.killed(hold),
        held(harness.other().mutex("m")),
    ]
    assert tokens == sorted(set(tokens))


def test_tokens_go_on_growing_after_the_engine_was_closed_and_swept(harness: Harness) -> None:
    tokens = []
    for _ in range(3):
        tokens.append(held(harness.engine.mutex("m")))
        harness.engine.close()
        harness.engine.sweep()
    tokens.append(held(harness.other().mutex("m")))
    assert tokens == sorted(set(tokens))


# -- the holder ------------------------------------------------------------------------------------


def test_everybody_sees_who_holds_a_mutex(harness: Harness) -> None:
    mine, theirs = harness.engine.mutex("m"), harness.other().mutex("m")
    assert mine.holder() == theirs.holder() == 0
    assert mine.acquire()
    assert mine.holder() == theirs.holder() == harness.engine.owner()
    assert harness.crowd([lambda engine: engine.mutex("m").holder()]) == [harness.engine.owner()]
    mine.release()
    assert mine.holder() == theirs.holder() == 0


def test_a_dead_holder_is_none(harness: Harness) -> None:
    kept: list[Mutex] = []

    def hold(engine: Engine) -> bool:
        kept.append(engine.mutex("m"))
        return kept[-1].acquire() and engine.mutex("m").holder() == engine.owner()

    for reaped in (True, False):
        assert harness.killed(hold, reaped=reaped)
        assert harness.engine.mutex("m").holder() == harness.other().mutex("m").holder() == 0


def test_to_look_who_holds_it_waits_for_nobody_and_takes_nothing(harness: Harness) -> None:
    mine, theirs = harness.engine.mutex("m"), harness.other().mutex("m")
    assert mine.acquire()
    token = mine.token
    begun = time.monotonic()
    assert threads([theirs.holder] * 4) == [harness.engine.owner()] * 4
    assert time.monotonic() - begun < 2.0
    assert mine.token == token
    mine.release()
    for _ in range(20):
        theirs.holder()
        assert mine.acquire(0)
        mine.release()


def test_a_release_is_refused_while_another_thread_of_the_process_only_waits(harness: Harness) -> None:
    mine, theirs = harness.engine.mutex("m"), harness.other().mutex("m")
    assert theirs.acquire()
    owner = theirs.holder()

    def refuse() -> bool:
        time.sleep(0.1)  # now the other one waits
        with pytest.raises(RuntimeError):
            mine.release()
        assert mine.holder() == theirs.holder() == owner
        theirs.release()
        return True

    assert threads([lambda: mine.acquire(20.0), refuse]) == [True, True]
    assert mine.token
    mine.release()


def test_who_looks_never_keeps_out_who_would_take_a_dead_holders_mutex(disk: DirectoryHarness) -> None:
    """`acquire(0)` looks once: it must not lose to somebody who only wants to know."""
    kept: list[Any] = []

    def hold(engine: Engine) -> bool:
        kept.append(engine.mutex("m"))
        return kept[-1].acquire()

    stop: list[int] = []

    def look() -> None:
        mutex = disk.other().mutex("m")
        while not stop:
            mutex.holder()

    def take() -> int:
        try:
            lost = 0
            for _ in range(scaled(20)):
                assert disk.killed(hold)
                time.sleep(0.002)  # let them look
                mine = disk.engine.mutex("m")
                lost += not mine.acquire(0)
                if mine.token:
                    mine.release()
            return lost
        finally:
            stop.append(1)

    assert threads([take, look, look], patience=60)[0] == 0


def test_a_dead_holder_s_lock_is_tried_once_by_who_looks(
    disk: DirectoryHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try keeps out, for a moment, a process that wants the mutex."""

    def hold(engine: Engine) -> bool:
        return engine.mutex("m").acquire()

    tried: list[int] = []
    lock = mutex_module.flock
    monkeypatch.setattr(mutex_module, "flock", lambda fd, how: (tried.append(how), lock(fd, how))[1])
    looking = disk.other().mutex("m")
    for deaths in (1, 2):
        assert disk.killed(hold)
        tried.clear()
        assert [looking.holder() for _ in range(5)] == [0] * 5, f"after {deaths} deaths"
        assert sum(how & fcntl.LOCK_SH for how in tried) == 1
    mine = disk.engine.mutex("m")
    assert mine.acquire(0)
    assert looking.holder() == disk.engine.owner()
    mine.release()


def test_a_forked_child_has_no_token_and_its_parent_is_the_holder(disk: DirectoryHarness) -> None:
    mutex = disk.engine.mutex("m")
    assert mutex.acquire()
    child = os.fork()
    if not child:
        fine = mutex.token == 0 and mutex.holder() not in (0, disk.engine.owner())
        try:
            mutex.release()
        except RuntimeError:
            os._exit(0 if fine else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mutex.token and mutex.holder() == disk.engine.owner()
    mutex.release()


@pytest.mark.parametrize("bytes_left", [0, 7])
def test_a_lock_file_that_was_never_finished_is_a_free_mutex(disk: DirectoryHarness, bytes_left: int) -> None:
    """As a full disk or an older version may have left it."""
    held(disk.engine.mutex("m"))
    disk.engine.close()
    (file,) = [path for path in (disk.root / ".psync" / "locks").iterdir() if path.name.endswith("m")]
    os.truncate(file, bytes_left)
    assert disk.other().mutex("m").holder() == 0
    assert held(disk.other().mutex("m")) > 0
