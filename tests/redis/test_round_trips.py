"""What each operation costs: round trips to the server, as the server counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from psync import Counter, Event, Lock, Mailbox, PickleShareDB, Semaphore, WorkQueue
from tests.redis_server import RedisServer


class Uses:
    """What is asked, of one store; each is done twice before it is counted."""

    def __init__(self, db: PickleShareDB) -> None:
        self.db = db
        self.queue, self.lock, self.box = WorkQueue(db, "jobs"), Lock(db, "door"), Mailbox(db, "box")
        self.counter, self.event, self.slots = Counter(db, "c"), Event(db, "e"), Semaphore(db, "s", 2)
        self.queue.put_many(range(20))
        self.tasks = self.queue.get_many(9)
        db["k"] = db["n"] = 0
        db.hset("c", "k", 1)

    def turn(self) -> None:
        self.lock.acquire()
        self.lock.release()


COSTS: dict[str, tuple[Callable[[Uses], object], int]] = {
    "read a value": (lambda u: u.db["k"], 1),
    "write a value": (lambda u: u.db.__setitem__("k", 1), 1),
    "add a value": (lambda u: u.db.add("k", 1), 1),
    "modify a value": (lambda u: u.db.modify("n", lambda n: n + 1), 2),
    "set an item": (lambda u: u.db.hset("c", "k", 2), 1),
    "get an item": (lambda u: u.db.hget("c", "k"), 1),
    "put a task": (lambda u: u.queue.put(1), 1),
    "put many": (lambda u: u.queue.put_many(range(5)), 1),
    "get a task": (lambda u: u.queue.get(timeout=0), 1),
    "done": (lambda u: u.tasks.pop().done(), 1),
    "done with a result": (lambda u: u.tasks.pop(0).done(1), 1),
    "take and release a lock": (Uses.turn, 2),
    "count": (lambda u: u.counter.add(1), 1),
    "look at an event": (lambda u: u.event.is_set(), 1),
    "look at a semaphore": (lambda u: u.slots.get_value(), 1),
    "look for a letter": (lambda u: "nobody" in u.box, 2),
}


@pytest.fixture
def uses(server: RedisServer) -> Any:
    with PickleShareDB(server.url("count", lease=600)) as db:
        yield Uses(db)


@pytest.mark.parametrize("what", COSTS)
def test_what_an_operation_costs(server: RedisServer, uses: Uses, what: str) -> None:
    use, most = COSTS[what]
    use(uses)
    use(uses)
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        before = reads(client)
        use(uses)
        assert reads(client) - before - 1 == most  # its own is among them


def reads(client: redis.Redis) -> int:
    """How often the server has read something from somebody until now: a request is read at once."""
    about: Any = client.info("stats")
    return int(about["total_reads_processed"])
