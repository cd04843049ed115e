"""What the memory engine has beside the contract: a clock that tests own, owners that die, and steps to hook into."""

from __future__ import annotations

import pickle
import threading
import time

import pytest

from psync.engine import MemoryEngine
from psync.engine.contract.log import Mark, State
from psync.engine.contract.values import Alive
from psync.engine.memory import Died, ManualClock
from tests.contract.harness import threads
from tests.contract.payloads import item, pickled

# -- time ------------------------------------------------------------------------------------------


def test_time_stands_still_until_a_test_moves_it() -> None:
    clock = ManualClock(start=100.0)
    engine = MemoryEngine(clock=clock)
    assert engine.now() == 100.0
    time.sleep(0.01)
    assert engine.now() == 100.0
    clock.advance(3600.0)
    assert engine.now() == 3700.0
    with pytest.raises(ValueError):
        clock.advance(-1.0)


def test_a_pause_of_hours_ends_when_the_test_says_that_they_have_passed() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)
    engine.grace = 1e9
    ended = []

    def wait() -> None:
        with engine.watch(["a"]) as watch:
            watch.pause(7200.0)
        ended.append(engine.now())

    def turn_the_clock() -> None:
        clock.until_asleep()
        clock.advance(7199.0)
        clock.until_asleep()
        assert ended == []
        clock.advance(1.0)

    threads([wait, turn_the_clock])
    assert ended == [7200.0] and clock.sleepers == 0


def test_a_pause_ends_by_itself_after_the_grace() -> None:
    clock = ManualClock(autojump=0.001)
    engine = MemoryEngine(clock=clock)
    with engine.watch(["a"]) as watch:
        watch.pause(None)
    assert engine.now() == engine.grace


def test_a_change_ends_a_pause_though_time_stands_still() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)

    def wait() -> None:
        with engine.watch(["a"]) as watch:
            while engine.read("a") is None:
                watch.pause(None)

    def write() -> None:
        clock.until_asleep()
        engine.write("a", pickled(1))

    threads([wait, write])
    assert engine.now() == 0.0


def test_time_jumps_to_the_earliest_deadline_when_all_sleep() -> None:
    clock = ManualClock(autojump=0.02)
    engine = MemoryEngine(clock=clock)
    assert engine.mutex("m").acquire()
    order: list[tuple[float, float]] = []

    def wait(seconds: float) -> None:
        assert not engine.as_owner().mutex("m").acquire(seconds)
        order.append((seconds, engine.now()))

    threads([lambda seconds=seconds: wait(seconds) for seconds in (86_400.0, 60.0, 3600.0)])
    assert order == [(60.0, 60.0), (3600.0, 3600.0), (86_400.0, 86_400.0)]


def test_nobody_asleep_is_an_error_after_a_while() -> None:
    with pytest.raises(TimeoutError):
        ManualClock().until_asleep(patience=0.01)
    with pytest.raises(ValueError):
        ManualClock(autojump=0)


# -- owners that die -------------------------------------------------------------------------------


def test_owners_of_one_memory_see_the_same_names_and_are_different() -> None:
    engine = MemoryEngine()
    other = engine.as_owner()
    engine.write("a", pickled(1))
    assert other.read("a") == engine.read("a")
    assert other.owner() != engine.owner()
    assert other.as_owner().owner() not in (engine.owner(), other.owner())
    assert engine.alive(12345) is Alive.UNKNOWN


def test_what_is_dead_goes_no_further() -> None:
    engine = MemoryEngine()
    other = engine.as_owner()
    owner, mutex, log = other.owner(), other.mutex("m"), other.log("q")
    assert mutex.acquire()
    other.die()
    for verb in (
        lambda: other.read("a"),
        lambda: other.write("a", pickled(1)),
        lambda: other.update("a", lambda old: pickled(1)),
        lambda: other.bucket("c/0f").append(item(1, 1)),
        lambda: log.append([b"x"]),
        mutex.release,
        lambda: other.watch(["a"]).__enter__(),
    ):
        with pytest.raises(Died):
            verb()
    assert list(engine.list()) == [] and log._name not in engine.turns.state.logs
    assert engine.alive(owner) is Alive.NO and engine.mutex("m").acquire(0)


def test_who_dies_while_waiting_wakes_up_dead() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)
    other = engine.as_owner()
    assert engine.mutex("m").acquire()

    def wait() -> None:
        with pytest.raises(Died):
            other.mutex("m").acquire()

    def kill() -> None:
        clock.until_asleep()
        other.die()

    threads([wait, kill])


def test_who_dies_within_an_update_or_a_block_leaves_the_state_before() -> None:
    engine = MemoryEngine()
    for dying in (engine.as_owner(), engine.as_owner()):
        engine.write("a", pickled("before"))
        engine.bucket("c/0f").append(item(1, 1))

        def change(old: bytes | None, dying: MemoryEngine = dying) -> bytes:
            dying.die()
            engine.write("a", pickled("later"))  # free already
            return pickled("after")

        with pytest.raises(Died):
            dying.update("a", change)
        cell = engine.read("a")
        assert cell is not None and cell.payload == pickled("later")


def test_a_death_ends_every_pause() -> None:
    """Who waits for what somebody else has to do looks whether that one still lives."""
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)
    other = engine.as_owner()
    owner = other.owner()

    def wait() -> None:
        with engine.watch(["a"]) as watch:
            while engine.alive(owner) is Alive.YES:
                watch.pause(None)

    def kill() -> None:
        clock.until_asleep()
        other.die()

    threads([wait, kill])
    assert engine.now() == 0.0


# -- steps -----------------------------------------------------------------------------------------


class Recording(MemoryEngine):
    """Writes down every step before it is made; refuses the one named `refuse`."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, str, str]] = []
        self.refuse = ""
        self.turns.step = self.step  # type: ignore[method-assign]

    def step(self, verb: str, name: str) -> None:
        assert not self.turns.state.condition._is_owned()
        self.steps.append((threading.get_ident(), verb, name))
        if verb == self.refuse:
            raise OSError("no room")


def test_every_verb_is_a_step_that_a_scheduler_sees_coming() -> None:
    engine = Recording()
    engine.write("a", pickled(1))
    engine.read("a")
    engine.as_owner().create("b", pickled(1))
    with engine.bucket("c/0f").held():
        pass
    engine.bucket("c/0f").append(item(1, 1))
    engine.log("q").append([b"x"])
    record = engine.log("q").take(1)[0]
    engine.log("q").settle(record.position, record.mark, Mark(State.DONE, 1))
    with engine.watch(["a"]) as watch:
        watch.pause(0)
    verbs = [verb for _, verb, _ in engine.steps]
    assert verbs[:5] == ["write", "read", "create", "held", "append"]
    assert verbs[5:] == ["append", "take", "hold", "read record", "settle", "watch", "pause"]


@pytest.mark.parametrize("verb", ["write", "create", "delete", "pop", "move", "update", "append"])
def test_a_step_that_is_refused_changes_nothing(verb: str) -> None:
    engine = Recording()
    engine.write("a", pickled(1))
    engine.refuse = verb
    change = {
        "write": lambda: engine.write("a", pickled(2)),
        "create": lambda: engine.create("b", pickled(2)),
        "delete": lambda: engine.delete("a"),
        "pop": lambda: engine.pop("a"),
        "move": lambda: engine.move("a", "b"),
        "update": lambda: engine.update("a", lambda old: pickled(2)),
        "append": lambda: engine.bucket("c/0f").append(item(1, 1)),
    }
    with pytest.raises(OSError):
        change[verb]()
    cell = engine.read("a")
    assert cell is not None and cell.payload == pickled(1) and list(engine.list()) == ["a"]
    engine.refuse = ""
    change[verb]()


# -- misuse ----------------------------------------------------------------------------------------


def test_a_thread_that_would_wait_for_itself_is_told() -> None:
    engine = MemoryEngine()
    engine.bucket("c/0f").append(item(1, 1))
    with engine.bucket("c/0f").held(), pytest.raises(RuntimeError):
        engine.bucket("c/0f").append(item(2, 2))
    with engine.guard("g"), pytest.raises(RuntimeError), engine.guard("g"):
        pass
    with pytest.raises(RuntimeError):
        engine.update("a", lambda old: engine.update("a", lambda older: pickled(1)))
    with engine.log("q").held(), pytest.raises(RuntimeError):
        engine.as_owner().log("q").append([b"x"])
    with engine.log("q").held(), engine.log("q").held():
        engine.log("q").append([b"x"])


def test_a_bucket_is_held_only_in_its_block() -> None:
    engine = MemoryEngine()
    engine.bucket("c/0f").append(item(1, 1))
    with engine.bucket("c/0f").held() as held:
        assert held is not None
    with pytest.raises(RuntimeError):
        held.append(item(2, 2))


def test_marks_that_the_contract_forbids_are_refused() -> None:
    log = MemoryEngine().log("q")
    position = log.append([b"x"])[0]
    with pytest.raises(ValueError):
        log.take(0)
    claim = log.take(1)[0].mark
    for new in (Mark(State.DONE, 0), Mark(State.DONE, 1, 1), Mark(State.CLAIMED, 1, 0), Mark(State.WAITING, 1, 1)):
        with pytest.raises(ValueError):
            log.settle(position, claim, new)


def test_a_memory_stays_in_its_process() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(MemoryEngine())


def test_final_records_are_cleared_in_runs() -> None:
    """Both answers of `Log.read` occur, so that nobody comes to rely on one."""
    log = MemoryEngine().log("q")
    positions = log.append([b"x"] * 100)
    for record in log.take(1, 100):
        assert log.settle(record.position, record.mark, Mark(State.DONE, 1))
    found = [log.read(position) is None for position in positions]
    assert True in found and False in found
