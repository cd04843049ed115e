"""The store, its primitives and the executor on a server: the same code, another string."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from psync import Barrier, Counter, Executor, Group, Lock, PickleShareDB, pickleshare
from psync.engine import open_engine, shared_engine
from psync.engine.contract.values import Alive
from psync.engine.redis.engine import RedisEngine
from psync.engine.redis.url import parse
from psync.errors import StoreFailed
from tests.redis_server import RedisServer
from tests.sync.other_process import Channel, other_process


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


def test_the_drop_in_keeps_its_habits_there_as_far_as_they_are_not_about_paths(server: RedisServer) -> None:
    with pickleshare.PickleShareDB(server.url("old")) as db:
        value = db["a/b"] = [1]
        assert db["a/b"] is value and list(db.cache) == [Path("a/b")]
        del db["never"]
        db.hset("c", "k", 1)
        assert db.hdict("c") == {"k": 1} and "prefix=old" in repr(db)


def test_who_was_killed_is_still_named(server: RedisServer) -> None:
    def hold(talk: Channel) -> None:
        Lock(server.url("names"), "door").acquire()
        talk.say(shared_engine(server.url("names")).owner())
        talk.hear()

    with other_process(hold) as other, PickleShareDB(server.url("names")) as db:
        owner = other.hear()
        other.kill()
        assert db.engine.alive(owner) is Alive.NO
        assert db.engine.describe(owner).startswith(f"pid {other.pid} on ")


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
    url = "redis://:secret@localhost:1/0?prefix=a&patience=0"
    assert "secret" not in repr(RedisEngine(url))
    with pytest.raises(StoreFailed, match=r"localhost:1/0\?prefix=a did not answer") as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)


def test_psync_without_a_url_never_imports_redis() -> None:
    code = "import sys, psync; psync.PickleShareDB; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_handle_that_knows_an_old_state_does_not_take_the_membership_of_another(server: RedisServer) -> None:
    with PickleShareDB(server.url("crew")) as db:
        first, second = Group(db, "x"), Group(db, "x")
        first.join()
        first.leave()
        assert second.join("second").number == 2  # which is what `first` would be, as far as it knows
        assert first.join("first").number == 3
        assert [member.information for member in first.members()] == ["second", "first"]
