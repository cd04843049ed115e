"""A handle that is shared by threads, or that a fork has copied, goes on working for everybody who has it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from psync import PickleShareDB
from tests.concurrency.simultaneous import FORK, in_threads, together
from tests.support import scaled


def count_up(db: PickleShareDB, times: int) -> None:
    for _ in range(times):
        db.modify("counter", lambda number: number + 1, default=0)


def test_parent_and_forked_children_go_on_with_one_handle_and_do_not_disturb_each_other(root: Path) -> None:
    times = scaled(300)
    with PickleShareDB(root) as db:
        db["counter"] = 0
        db["mine"] = "parent"
        db.hset("category", "parent", 1)

        def child(number: int) -> tuple[Any, Any]:
            count_up(db, times)
            db.hset("category", number, number)
            db[f"child/{number}"] = number
            before = db["mine"], db.hdict("category")["parent"]
            db.close()
            return before

        children = [FORK.Process(target=child, args=(number,)) for number in range(3)]
        for process in children:
            process.start()
        count_up(db, times)
        for process in children:
            process.join()
            assert process.exitcode == 0
            process.close()
        assert db["counter"] == 4 * times
        assert db.hdict("category") == {"parent": 1, 0: 0, 1: 1, 2: 2}
        assert sorted(key for key in db.keys() if key.startswith("child/")) == ["child/0", "child/1", "child/2"]
        db["mine"] = "still mine"
        assert PickleShareDB(root)["mine"] == "still mine"


def test_a_fork_while_other_threads_use_the_handle_leaves_the_child_a_working_one(root: Path) -> None:
    stop = threading.Event()
    with PickleShareDB(root) as db:
        db["counter"] = 0

        def use_all(db: PickleShareDB) -> None:
            count_up(db, 5)
            db.hset("category", "child", 1)
            assert db.hdict("category")["child"] == 1

        def keep_busy() -> int:
            times = 0
            while not stop.is_set():
                count_up(db, 1)
                db.hset("category", "busy", times)
                times += 1
            return times

        with ThreadPoolExecutor(3) as pool:
            busy = [pool.submit(keep_busy) for _ in range(3)]
            try:
                for _ in range(scaled(15)):
                    together([lambda: use_all(db)], patience=30)
            finally:
                stop.set()
        assert db["counter"] == sum(thread.result() for thread in busy) + 5 * scaled(15)


def test_a_child_that_is_killed_while_it_changes_a_key_does_not_block_the_parent(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["counter"] = 0

        def hold_for_ever() -> None:
            db.modify("counter", lambda number: time.sleep(100))

        child = FORK.Process(target=hold_for_ever)
        child.start()
        time.sleep(0.2)
        child.kill()
        child.join()
        child.close()
        begin = time.monotonic()
        count_up(db, 1)
        assert db["counter"] == 1
        assert time.monotonic() - begin < 1


def test_threads_that_share_a_handle_see_what_each_other_wrote(root: Path) -> None:
    rounds = scaled(200)
    with PickleShareDB(root) as db:

        def run(me: int) -> None:
            for number in range(rounds):
                db[f"own/{me}"] = (me, number)
                assert db[f"own/{me}"] == (me, number)
                db.hset("category", me, number)
                assert db.hget("category", me, fast_only=False) == number
                db["shared"] = (me, b"%d" % me * (10 if number % 2 else 5_000))
                who, ballast = db["shared"]
                assert set(ballast) == set(b"%d" % who)

        in_threads([partial(run, me) for me in range(8)])
        assert db.hdict("category") == dict.fromkeys(range(8), rounds - 1)
