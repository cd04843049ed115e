"""What a server is asked when a store on it is opened, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import redis

from psync import PickleShareDB, UnsafeStore, WorkQueue
from psync.engine import Durability
from psync.engine.redis.engine import RedisEngine
from psync.engine.redis.server_info import told
from psync.errors import CorruptValue, StoreFailed
from tests.redis_server import RedisServer

KEY = b"a key of sixteen bytes or more"


def tell(server: RedisServer, *command: str) -> None:
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.execute_command(*command)


def user(server: RedisServer, name: str, *rules: str) -> str:
    """The URL of a store for a new user with that password."""
    tell(server, "ACL", "SETUSER", name, "on", ">secret", *rules)
    return server.url("mine", username=name, password="secret")


def test_a_server_that_removes_keys_when_it_is_full_is_refused_with_the_remedy(
    start: Callable[..., RedisServer],
) -> None:
    server = start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    for policy in ("allkeys-lru", "volatile-ttl"):
        tell(server, "CONFIG", "SET", "maxmemory-policy", policy)
        with pytest.raises(StoreFailed, match=rf"maxmemory-policy {policy}.*CONFIG SET maxmemory-policy noeviction"):
            PickleShareDB(server.url("a"))
    tell(server, "CONFIG", "SET", "maxmemory", "0")  # then it never removes anything
    PickleShareDB(server.url("a")).close()
    tell(server, "CONFIG", "SET", "maxmemory", "100mb")
    tell(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    PickleShareDB(server.url("a")).close()


@pytest.mark.parametrize("level", ["file", "power"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "forgets everything when it dies"),
        (("--save", "60 1"), "forgets all since its last snapshot"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "may forget the last second"),
        (("--appendonly", "yes", "--appendfsync", "no"), "may forget what it did lately"),
    ],
)
def test_a_durability_that_the_server_does_not_keep_is_refused_and_says_what_to_do(
    start: Callable[..., RedisServer], options: tuple[str, ...], says: str, level: Durability
) -> None:
    server = start(*options)
    with pytest.raises(ValueError, match=rf"{says}.*appendonly yes.*appendfsync always"):
        PickleShareDB(server.url("a"), durability=level)
    with pytest.raises(ValueError, match=says):
        PickleShareDB(server.url("a"), categories={"accounts": level})
    with PickleShareDB(server.url("a")) as db, pytest.raises(ValueError, match=says):
        WorkQueue(db, "jobs", durability=level)


def test_a_durability_that_the_server_keeps_is_had_and_travels(server: RedisServer) -> None:
    with PickleShareDB(server.url("a"), durability="power", categories={"accounts": "file"}) as db:
        db.hset("accounts", "a", 1)
        assert pickle.loads(pickle.dumps(db)).engine.durability == db.engine.durability == "power"


def test_a_user_with_the_permissions_that_are_named_can_do_everything_but_in_other_stores(server: RedisServer) -> None:
    needed = RedisEngine(server.url("mine")).server.needed_permissions.split()
    url = user(server, "worker", *needed)
    with PickleShareDB(url, durability="power") as db:
        queue = WorkQueue(db, "jobs")
        queue.put("task")
        queue.get(timeout=5).done("result")
        assert queue.results.get("#0", timeout=5) == "result"
        assert db.modify("n", lambda n: n + 1, 0) == 1 and db.keys() == ["n"]
        assert db.engine.sweep() == 0
    with pytest.raises(StoreFailed, match=r"no permissions.*Its user needs: ~\{other\}:\*"):
        PickleShareDB(url.replace("prefix=mine", "prefix=other"))


def test_a_server_that_does_not_let_us_look_is_used_with_a_warning(server: RedisServer) -> None:
    rules = ("~*", "&*", "+@all", "-config", "-info")
    with pytest.warns(RuntimeWarning, match="does not tell its maxmemory-policy"):
        db = PickleShareDB(user(server, "blind", *rules))
    db["k"] = 1
    assert db["k"] == 1
    db.close()
    with pytest.raises(ValueError, match=r"does not tell.*forbidden"):
        PickleShareDB(user(server, "blinder", *rules), durability="power")


def test_a_version_that_is_too_old_is_refused() -> None:
    about = {"redis_version": "5.0.14", "run_id": "a", "maxmemory": "0", "maxmemory_policy": "noeviction"}
    with pytest.raises(StoreFailed, match=r"of version 5.0.14, and psync needs 6.0 or later"):
        told(about, {}).check("redis://host/0")
    told({**about, "redis_version": "6.0.0"}, {}).check("redis://host/0")
    told(None, {}).check("redis://host/0")


# -- sealed ----------------------------------------------------------------------------------------


def test_a_sealed_store_is_opened_with_its_key_only(server: RedisServer) -> None:
    with PickleShareDB(server.url("sealed"), key=KEY) as db:
        db["k"] = {"a": 1}
        db.hset("c", "k", 2)
        queue = WorkQueue(db, "jobs")
        queue.put(3)
        queue.get(timeout=5).done(4)
    with PickleShareDB(server.url("sealed"), key=KEY) as db:
        assert (db["k"], db.hget("c", "k"), WorkQueue(db, "jobs").results.get("#0", 0)) == ({"a": 1}, 2, 4)
    for wrong in (None, b"another key, of the same length"):
        with pytest.raises(UnsafeStore, match="is sealed"):
            PickleShareDB(server.url("sealed"), key=wrong)
    PickleShareDB(server.url("open")).close()


def _stored(engine: Any, name: str) -> tuple[RedisEngine, bytes]:
    inner = engine.inner
    return inner, inner.server.prefix + b"n:" + name.encode()


def test_a_value_that_somebody_without_the_key_wrote_is_never_unpickled(server: RedisServer) -> None:
    with PickleShareDB(server.url("sealed"), key=KEY) as db, PickleShareDB(server.url("plain")) as plain:
        db["k"], db["l"], plain["k"] = "right", "other", "forged"
        inner, key = _stored(db.engine, "k")
        forged = inner.server.ask("GET", b"{plain}:n:k")
        moved = inner.server.ask("GET", inner.server.prefix + b"n:l")
        for bytes_there in (forged, moved):
            inner.server.ask("SET", key, bytes_there)
            with pytest.raises(CorruptValue, match="was not unpickled"):
                db["k"]
            db["k"] = "right"
        assert db["k"] == "right" and db["l"] == "other"
