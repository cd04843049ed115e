"""What may befall a store on a server: it dies, forgets, is full or cut off, and answers are lost on their way."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from psync import Lock, Mailbox, PickleShareDB, StaleClaim, WorkQueue
from psync.engine import open_engine
from psync.engine.redis import lua
from psync.engine.redis.lua import Script
from psync.engine.system import clock
from psync.errors import StoreFailed, StoreFull
from tests.redis.proxy import Proxy
from tests.redis_server import AOF, WHOLE, RedisServer, only_when_asked
from tests.sync.other_process import Channel, eventually, other_process, others

EVERY_SECOND = ("--appendonly", "yes", "--appendfsync", "everysec")


# -- the server dies -------------------------------------------------------------------------------


def test_a_server_that_dies_and_comes_back_is_used_on(server: RedisServer) -> None:
    with PickleShareDB(server.url("back")) as db:
        db["k"] = 1
        server.kill()
        again = threading.Timer(0.5, server.start)
        again.start()
        db["l"] = 2
        again.join()
        assert (db["k"], db["l"]) == (1, 2)


def _work(url: str) -> None:
    with PickleShareDB(url) as db:
        for task in WorkQueue(db, "jobs", max_attempts=9):
            time.sleep(0.01)  # so that the work outlasts two deaths of the server
            task.done(task.value * 2)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [AOF, pytest.param(EVERY_SECOND, marks=only_when_asked)], ids=["always", "everysec"])
def test_a_server_killed_under_six_workers_loses_and_doubles_no_result(
    start: Callable[..., RedisServer], kept: tuple[str, ...]
) -> None:
    server, count = start(*kept), 2000 if WHOLE else 150
    url = server.url("crash")
    with PickleShareDB(url) as db, others(*[lambda talk: _work(url)] * 6) as workers:
        queue = WorkQueue(db, "jobs")
        queue.put_many(range(count))
        queue.close()
        server.settle()  # what was answered to others than the workers must not be forgotten
        for part in (1, 2):
            left = count - count * part // 3
            eventually(lambda left=left: queue.qsize() <= left)
            assert queue.qsize()
            server.kill()
            server.start()
        queue.join(200)
        for one in workers:
            one.join()
        assert sorted(value for _, value in queue.results.collect(timeout=0)) == [2 * n for n in range(count)]


@pytest.fixture
def forgetful(start: Callable[..., RedisServer]) -> RedisServer:
    return start(*EVERY_SECOND)


def _forget_since(server: RedisServer, size: int) -> None:
    """The server dies, and of its log on the disk the end is lost, as after a power cut."""
    server.kill()
    os.truncate(server.log, size)
    server.start()


def _size(server: RedisServer) -> int:
    server.settle()
    return server.log.stat().st_size


def test_a_task_whose_end_the_server_forgot_is_done_again(forgetful: RedisServer) -> None:
    with PickleShareDB(forgetful.url("memory")) as db:
        queue = WorkQueue(db, "jobs")
        queue.put_many(["one", "two"])
        task = queue.get(timeout=10)
        size = _size(forgetful)
        task.done("forgotten")
        _forget_since(forgetful, size)
        again = [queue.get(timeout=30) for _ in range(2)]
        assert sorted(one.value for one in again) == ["one", "two"]
        for one in again:
            one.done("right")
        queue.join(10)
        assert [value for _, value in queue.results.collect(timeout=0)] == ["right"] * 2


def test_a_claim_that_the_server_forgot_is_refused_when_it_comes_to_be_settled(forgetful: RedisServer) -> None:
    with PickleShareDB(forgetful.url("memory")) as db, PickleShareDB(forgetful.url("memory")) as other:
        queue, theirs = WorkQueue(db, "jobs"), WorkQueue(other, "jobs")
        theirs.put("first")
        size = _size(forgetful)
        queue.put("second")  # at the place where after the loss something else will stand
        mine = [queue.get(timeout=10) for _ in range(2)]
        _forget_since(forgetful, size)
        theirs.put("another")
        assert [theirs.get(timeout=30).value for _ in range(2)] == ["first", "another"]
        for task in mine:
            with pytest.raises(StaleClaim):
                task.done("late")
        assert not list(queue.results.addresses())


def test_items_that_the_server_forgot_are_not_served_from_memory(forgetful: RedisServer) -> None:
    url = forgetful.url("memory")
    with PickleShareDB(url) as db, PickleShareDB(url) as other:
        db.hset("c", "a", 1)
        size = _size(forgetful)
        db.hset("c", "b", "forgotten")
        assert db.hdict("c") == {"a": 1, "b": "forgotten"}
        _forget_since(forgetful, size)
        other.hset("c", "d", "x" * 100)
        assert db.hdict("c") == {"a": 1, "d": "x" * 100} == other.hdict("c")


def test_a_token_is_never_given_twice_though_the_server_forgets(forgetful: RedisServer) -> None:
    with PickleShareDB(forgetful.url("memory")) as db:
        size = _size(forgetful)
        lock = Lock(db, "door")
        assert lock.acquire()
        before = lock.token
        _forget_since(forgetful, size)
        again = Lock(db, "door")
        assert again.acquire(timeout=30) and again.token > before
        again.release()


# -- answers are lost ------------------------------------------------------------------------------


def _append(db: PickleShareDB) -> object:
    queue = WorkQueue(db, "jobs")
    queue.put("task")
    return queue.qsize()


def _claim(db: PickleShareDB) -> object:
    queue = WorkQueue(db, "claims")
    queue.put_many(["one", "two"])
    task = queue.get(timeout=5)
    return task.value, task.attempt, queue.statistics().running, queue.qsize()


def _done(db: PickleShareDB) -> object:
    queue = WorkQueue(db, "ends")
    queue.put("task")
    queue.get(timeout=5).done("result")
    return [value for _, value in queue.results.collect(timeout=0)]


def _post(db: PickleShareDB) -> object:
    box = Mailbox(db, "box")
    return box.post("a", 1), len(box)


def _acquire(db: PickleShareDB) -> object:
    lock = Lock(db, "door")
    return lock.acquire(timeout=5), lock.release(), lock.locked()


def _update(db: PickleShareDB) -> object:
    db["n"] = 1
    return db.modify("n", lambda n: n + 1), db["n"]


def _pop(db: PickleShareDB) -> object:
    db["k"] = "v"
    return db.pop("k"), "k" in db


LOST: dict[str, tuple[Callable[[PickleShareDB], object], Script, object]] = {
    "append": (_append, lua.LOG_APPEND, 1),
    "claim": (_claim, lua.LOG_TAKE, ("one", 1, 1, 1)),
    "done": (_done, lua.LOG_ANSWER, ["result"]),
    "post": (_post, lua.APPEND, (True, 1)),
    "create": (lambda db: db.add("new", 1), lua.CREATE, True),
    "write": (lambda db: db.__setitem__("k", 1), lua.WRITE, None),
    "delete": (_pop, lua.REMOVE, ("v", False)),
    "hold": (_update, lua.HOLD, (2, 2)),
    "update": (_update, lua.PUT_HELD, (2, 2)),
    "acquire": (_acquire, lua.HOLD, (True, None, False)),
    "release": (_acquire, lua.RELEASE, (True, None, False)),
}


@pytest.mark.parametrize("verb", LOST)
def test_what_was_done_though_its_answer_was_lost_is_not_done_twice(
    server: RedisServer, line: Proxy, verb: str
) -> None:
    job, script, wanted = LOST[verb]
    with PickleShareDB(server.url("warm")) as warm:
        job(warm)  # so that the server knows the script
    with PickleShareDB(line.url("cold")) as db:
        line.lose_the_answer_to(script.sha)
        assert job(db) == wanted
        assert line.lost == 1


# -- a worker is cut off ---------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_worker_that_is_cut_off_has_claimed_goes_to_others_and_its_late_answer_is_refused(
    server: RedisServer, line: Proxy
) -> None:
    """It goes on when it is back."""
    lease, seconds = (3.0, 10.0) if WHOLE else (0.6, 1.5)

    def cut_off(talk: Channel) -> None:
        with PickleShareDB(line.url("cut", lease=lease, socket_timeout=1)) as db:
            queue = WorkQueue(db, "jobs")
            task = queue.get(timeout=20)
            talk.say(task.value)
            talk.hear()
            try:
                task.done("late")
            except StaleClaim as refused:
                talk.say(str(refused))
            queue.get(timeout=30).done("on again")

    with PickleShareDB(server.url("cut", lease=lease)) as db, other_process(cut_off) as other:
        queue = WorkQueue(db, "jobs")
        queue.put("work")
        assert other.hear() == "work"
        line.cut()
        began = time.monotonic()
        other.tell("answer")
        task = queue.get(timeout=30)
        assert (task.value, task.attempt) == ("work", 2)
        task.done("right")
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        line.mend()
        assert "given to" in other.hear()
        queue.put("more")
        other.join()
        assert sorted(value for _, value in queue.results.collect(timeout=0)) == ["on again", "right"]


def test_who_was_stopped_for_longer_than_its_lease_has_lost_its_lock_and_learns_it(server: RedisServer) -> None:
    url = server.url("stop", lease=0.6)

    def sleeper(talk: Channel) -> None:
        with PickleShareDB(url) as db:
            lock = Lock(db, "door")
            lock.acquire()
            talk.say(lock.token)
            talk.hear()
            try:
                lock.release()
                talk.say("released")
            except RuntimeError as error:
                talk.say((str(error), lock.token))

    with PickleShareDB(url) as db, other_process(sleeper) as other:
        token = other.hear()
        other.stop()
        mine = Lock(db, "door")
        assert mine.acquire(timeout=30) and mine.token > token
        other.go_on()
        other.tell("release")
        said, theirs = other.hear()
        assert "lease" in said and theirs == 0
        assert mine.locked() and mine.token
        mine.release()


# -- the memory is full ----------------------------------------------------------------------------


def test_a_server_that_is_full_refuses_what_is_new_and_keeps_what_it_has(start: Callable[..., RedisServer]) -> None:
    server = start("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with PickleShareDB(server.url("full")) as db:
        queue = WorkQueue(db, "jobs")
        queue.put("before")
        stored = []
        with pytest.raises(StoreFull, match=r"no memory left.*maxmemory"):
            for number in range(20):
                db[f"k{number}"] = os.urandom(1 << 19)
                stored.append(f"k{number}")

        def fill() -> None:
            """What is still free goes for small things: the server gives memory of its own back now and then."""
            with contextlib.suppress(StoreFull):
                while True:
                    db[f"s{len(stored)}"] = os.urandom(4000)
                    stored.append(f"s{len(stored)}")

        new = os.urandom(1 << 18)
        for change in (
            lambda: db.__setitem__("new", new), lambda: db.add("new", new), lambda: db.hset("c", "k", new),
            lambda: queue.put(new), lambda: Mailbox(db, "box").post("a", new),
        ):  # fmt: skip
            fill()
            with pytest.raises(StoreFull):
                change()
        assert sorted(db.keys("[ks]*")) == sorted(stored) and "new" not in db
        for key in stored:
            del db[key]
        db["new"] = 1
        assert queue.get(timeout=5).value == "before"


# -- the server is away ----------------------------------------------------------------------------


def test_an_error_says_which_server_is_away_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"unix://.*nobody\?prefix=psync did not answer .* See that the server runs"):
        PickleShareDB(f"unix://{tmp_path}/nobody?patience=0.1")


def test_a_server_that_is_away_is_asked_ever_less_often_and_not_for_ever(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    engine = open_engine(server.url("away"))
    server.kill()
    monkeypatch.setattr(clock, "sleep", sleep)
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    with pytest.raises(StoreFailed, match="for 30 seconds"):
        engine.read("k")
    assert pauses[:3] == [0.02, 0.04, 0.08] and max(pauses) == 1.0 and 30 <= sum(pauses) < 31.1
    assert all(later in (2 * sooner, 1.0) for sooner, later in itertools.pairwise(pauses))
    monkeypatch.undo()
    server.start()
    assert engine.read("k") is None
    engine.close()
