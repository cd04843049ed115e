"""The store, its primitives and the executor on a server: the same code, another string."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from psync import Barrier, Counter, Executor, Lock, PickleShareDB, WorkQueue
from psync.engine import Engine, open_engine
from psync.engine.redis.address import parse
from psync.errors import StoreFailed
from tests.redis_server import RedisServer


def test_a_url_is_all_that_changes(server: RedisServer) -> None:
    url = server.url("run1")
    with PickleShareDB(url) as db, PickleShareDB(url) as other:
        db["a/b"] = [1, 2]
        db.hset("c", "k", "v")
        assert (other["a/b"], set(other.keys()), other.hget("c", "k")) == ([1, 2], {"a/b", *other.keys("c/*")}, "v")
        assert other.modify("n", lambda n: n + 1, default=0) == 1
        assert other.hdict("c") == {"k": "v"}
        other.hcompress("c")
        assert db.hdict("c") == {"k": "v"} and db.hget("c", "k", None, fast_only=False) == "v"
        assert pickle.loads(pickle.dumps(db))["a/b"] == [1, 2]
        assert db.add("a/b", 0) is False and db.pop("a/b") == [1, 2] and "a/b" not in other


def test_stores_of_other_prefixes_on_one_server_know_nothing_of_each_other(server: RedisServer) -> None:
    with PickleShareDB(server.url("one")) as one, PickleShareDB(server.url("two")) as two:
        one["k"] = 1
        assert (list(one), list(two)) == (["k"], [])


def test_who_waits_is_woken_by_the_server(server: RedisServer) -> None:
    with PickleShareDB(server.url("w")) as db, PickleShareDB(server.url("w")) as other:
        late = threading.Timer(0.2, lambda: other.__setitem__("late", 5))
        late.start()
        assert db.waitget("late", 20) == 5
        late.join()


def _add(url: str) -> int:
    with PickleShareDB(url) as db:
        Barrier(db, "start", 3).wait(30)
        for _ in range(20):
            with Lock(db, "door"):
                db["n"] = db.get("n", 0) + 1
            Counter(db, "c").add(1)
    return 1


def test_primitives_hold_among_processes(server: RedisServer) -> None:
    url = server.url("p")
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        assert sum(pool.map(_add, [url] * 3)) == 3
    with PickleShareDB(url) as db:
        assert db["n"] == 60 == Counter(db, "c").value


def test_an_executor_works_on_a_server(server: RedisServer) -> None:
    with PickleShareDB(server.url("x")) as db, Executor(db, max_workers=2) as executor:
        assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ("prefix=", "prefix"),
        ("prefix=a{b", "prefix"),
        ("lease=no", "lease"),
        ("lease=0.1", "lease"),
        ("patience=-1", "p"),
    ],
)
def test_an_option_that_can_not_be_is_refused_with_its_name(options: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse(f"redis://localhost/0?{options}")


def test_no_message_shows_the_password() -> None:
    engine = open_engine("redis://:secret@localhost:1/0?prefix=a&patience=0")
    assert "secret" not in repr(engine)
    with pytest.raises(StoreFailed, match=r"localhost:1/0\?prefix=a did not answer") as caught:
        engine.read("a")
    assert "secret" not in str(caught.value)


def test_psync_without_a_url_never_imports_redis() -> None:
    code = "import sys, psync; psync.PickleShareDB; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_durability_that_only_a_disk_has_is_refused() -> None:
    with pytest.raises(ValueError, match="appendfsync"):
        open_engine("redis://localhost/0", durability="power")


# -- a server that goes away -----------------------------------------------------------------------


def test_a_request_whose_answer_was_lost_is_done_once(server: RedisServer) -> None:
    """The same script with the same number, from the same slot, as it is sent again after a cut."""
    from psync.engine.redis import scripts
    from psync.engine.redis.engine import RedisEngine

    engine = RedisEngine(server.url("once"))
    engine.server.run(scripts.LOG_APPEND, b"log", b"", "0 0 0 0 0.0", 1, b"x")
    line = engine.server._lines[-1]
    call = (1, line.slot, engine.server.prefix, line.number, b"log", b"", "0 0 0 0 0.0", 1, b"x")
    assert line.ask("EVALSHA", scripts.LOG_APPEND.sha, *call) == [0, 0]
    assert engine.log("log").counts()[:2] == (1, 1)
    engine.close()


def test_a_server_that_dies_and_comes_back_is_used_on(server: RedisServer) -> None:
    with PickleShareDB(server.url("back")) as db:
        db["k"] = 1
        server.kill()
        again = threading.Timer(0.5, server.start)
        again.start()
        db["l"] = 2
        again.join()
        assert (db["k"], db["l"]) == (1, 2)


def _work(url: str) -> list[int]:
    mine = []
    with PickleShareDB(url) as db:
        for task in WorkQueue(db, "jobs"):
            mine.append(task.value)
            task.done(task.value * 2)
    return mine


@pytest.mark.slow
def test_a_server_killed_under_six_workers_loses_and_doubles_no_result(server: RedisServer) -> None:
    url, count = server.url("crash"), 2000 if os.environ.get("PSYNC_TEST_REDIS") == "all" else 500
    with PickleShareDB(url) as db, ProcessPoolExecutor(6, get_context("spawn")) as pool:
        queue = WorkQueue(db, "jobs")
        queue.put_many(range(count))
        queue.close()
        working = [pool.submit(_work, url) for _ in range(6)]
        for part in (1, 2):
            while queue.qsize() > count - count * part // 3:
                threading.Event().wait(0.02)
            assert queue.qsize()
            server.kill()
            server.start()
        for one in working:
            one.result(timeout=200)
        queue.join(60)
        assert sorted(value for _, value in queue.results.collect(timeout=5)) == [2 * n for n in range(count)]


def test_what_is_claimed_by_who_is_cut_off_goes_to_others_and_its_late_answer_is_refused(server: RedisServer) -> None:
    """A worker whose keeper can't reach the server for longer than its lease."""
    from psync.engine.redis.engine import RedisEngine

    lost: Engine = RedisEngine(server.url("cut", lease=0.6))
    with PickleShareDB(lost) as theirs, PickleShareDB(server.url("cut", lease=0.6)) as ours:
        mine = WorkQueue(ours, "jobs")
        mine.put("work")
        late = WorkQueue(theirs, "jobs").get(timeout=10)
        lost.owners.renew = lambda: True  # type: ignore[attr-defined]
        task = mine.get(timeout=30)
        assert task.value == "work" and task.attempt == 2
        with pytest.raises(Exception, match="given to"):
            late.done("late")
        task.done("right")
        assert [value for _, value in mine.results.collect(timeout=5)] == ["right"]
