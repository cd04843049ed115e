"""What is left at the server, and here, of who was interrupted, forgotten or killed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest

from psync import Counter, Lock, PickleShareDB, RLock
from psync.engine.contract.values import Alive
from psync.engine.redis import lua
from psync.engine.redis.client import Line
from psync.engine.redis.engine import RedisEngine
from tests.redis_server import RedisServer, contents
from tests.sync.other_process import Channel, eventually, other_process
from tests.sync.test_interrupts import Struck, interrupt_holders


def test_a_request_that_arrives_behind_its_successor_is_not_done(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up and sent again; then what was on its way all the time arrives."""
    engine = RedisEngine(server.url("late"))
    log = engine.log("l")
    log.append([b"first"])
    (line,) = engine.server._lines
    sent = []
    monkeypatch.setattr(Line, "ask", lambda line, *command, ask=Line.ask: sent.append(command) or ask(line, *command))
    log.append([b"second"])
    late, again = sent[0], log.append([b"third"])
    assert (line.ask(*late), again, log.counts().appended) == ([lua.LATE], [2], 3)
    engine.close()


def test_an_answer_is_noted_for_longer_than_anybody_asks_again(server: RedisServer) -> None:
    engine = RedisEngine(server.url("noted"))
    for _ in range(250):
        engine.write("k", b"value")
    (line,) = engine.server._lines
    assert 800 < engine.server.ask("TTL", line.slot) <= 900
    engine.close()


@pytest.mark.parametrize("kind", [Lock, RLock], ids=lambda kind: kind.__name__)
def test_a_lock_whose_holder_was_interrupted_is_free_or_can_be_released(server: RedisServer, kind: type) -> None:
    """A handler may raise at any moment: before a request, while it becomes bytes, or before its answer is read."""
    interrupt_holders(kind, server.url("struck"), 40)


def test_a_change_that_a_handler_breaks_off_is_not_begun_anew(server: RedisServer) -> None:
    with PickleShareDB(server.url("broken")) as db, PickleShareDB(server.url("broken")) as other:
        counter = Counter(db, "c")
        counter.add()
        Counter(other, "c").add()  # so what `counter` knows is old

        def strike(payload: bytes | None) -> bytes:
            raise Struck

        with pytest.raises(Struck):
            counter._shared._register.update(strike)
        assert counter.value == 2


def test_a_process_may_make_as_many_connections_as_it_likes_one_after_the_other(server: RedisServer) -> None:
    engine = RedisEngine(server.url("many"))
    for number in range(120):
        with engine.watch([str(number)]):
            pass
    engine.close()


def test_the_thread_that_keeps_a_lease_ends_with_the_engine_that_nobody_has_any_more(server: RedisServer) -> None:
    engine = RedisEngine(server.url("forgotten", lease=600))
    engine.owner()
    keeper = engine.store.sessions._renewer
    del engine
    gc.collect()
    assert keeper is not None
    keeper.join(10)
    assert not keeper.is_alive() and keeper not in threading.enumerate()


def _die(talk: Channel, url: str) -> None:
    engine = RedisEngine(url)
    talk.say(engine.owner())
    talk.hear()


def test_to_ask_whether_somebody_lives_changes_nothing(server: RedisServer) -> None:
    url = server.url("asked", lease=600)
    engine = RedisEngine(url)
    ask: Callable[[int], Alive] = engine.alive
    with other_process(lambda talk: _die(talk, url)) as other:
        number = other.hear()
        assert ask(number) is Alive.YES
        before = contents(url)
        other.kill()
        eventually(lambda: ask(number) is Alive.NO)
        assert contents(url) == before
    engine.close()
