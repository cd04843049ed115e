"""More of what two processes may do at the same time: at barriers, with letters, tasks and items."""

from __future__ import annotations

import contextlib
import itertools
import queue as standard
from collections.abc import Callable
from typing import Any

from psync import Barrier, BrokenBarrierError, DoubleBarrier, Mailbox, PickleShareDB, WorkQueue
from psync.engine.directory import DirectoryEngine
from tests.crash.pairs import End, Pair, Side, Stage
from tests.crash.primitives import new_lock, on, said, waits, warm

# -- barriers --------------------------------------------------------------------------------------


def network(stage: Stage) -> DirectoryEngine:
    return DirectoryEngine(stage.path, sharing="network")


def meets(me: int, rounds: int = 1, action: Any = None, *, far: bool = False) -> Side:
    """Says its places; raises if it passes alone. `far`: as on a network file system."""

    def meet(found: tuple[Stage, Any]) -> list[int]:
        stage, barrier = found
        places = []
        for turn in range(1, rounds + 1):
            stage.numbers[me] = turn
            places.append(barrier.wait())
            assert stage.numbers[1 - me] >= turn, f"passed round {turn} alone"
        return places

    return Side(
        lambda stage: (stage, warm(Barrier(network(stage) if far else stage.path, "x", 2, action=action))), meet
    )


def far(act: Callable[[Barrier], Any]) -> Side:
    return Side(lambda stage: warm(Barrier(network(stage), "x", 2)), act)


def _until_it_is_broken(barrier: Barrier) -> int:
    for times in itertools.count():
        try:
            barrier.wait()
        except BrokenBarrierError:
            return times
    raise AssertionError


def _three_times_and_abort(barrier: Barrier) -> int:
    for _ in range(3):
        barrier.wait()
    barrier.abort()
    return 3


def _with_an_action_now_and_then(barrier: Barrier) -> list[int]:
    acting = Barrier(barrier.engine, "x", 2, action=int)
    return [each.wait() for each in (barrier, barrier, acting, barrier, barrier)]


def _five_times(barrier: Barrier) -> list[int]:
    return [barrier.wait() for _ in range(5)]


def _third_time(barrier: Barrier, timeout: float | None) -> int | None:
    barrier.wait()
    barrier.wait()
    try:
        return barrier.wait(timeout)
    except BrokenBarrierError:
        return None


def _both_or_none(end: End) -> bool:
    return end.said == [None, None] or sorted(end.said) == [0, 1]


def _opposite(end: End) -> bool:
    return all(sorted(places) == [0, 1] for places in zip(*end.said, strict=True))


def _wait_in_vain(barrier: Barrier) -> str:
    try:
        return f"passed at {barrier.wait()}"
    except BrokenBarrierError:
        return "broken"


def _wait_again_if_sent_away(barrier: Barrier) -> int:
    for _ in range(2):
        with contextlib.suppress(BrokenBarrierError):
            return barrier.wait()
    raise AssertionError("sent away twice")


def _reset_and_wait(barrier: Barrier) -> int:
    barrier.reset()
    return barrier.wait()


def _enter_and_leave(found: tuple[Stage, DoubleBarrier, int]) -> bool:
    stage, step, me = found
    stage.numbers[me] = 1
    step.enter()
    together = stage.numbers[1 - me] >= 1
    stage.numbers[me] = 2
    step.leave()
    return together and stage.numbers[1 - me] == 2


def _steps(me: int) -> Side:
    def ready(stage: Stage) -> Any:
        step = DoubleBarrier(stage.path, "x", 2)
        warm(step._barrier)
        return stage, step, me

    return Side(ready, _enter_and_leave)


BARRIERS = [
    Pair("wait beside wait", meets(0), meets(1), _opposite),
    Pair("wait beside wait, twice", meets(0, 2), meets(1, 2), _opposite),
    Pair("wait beside wait, with an action", meets(0, 1, int), meets(1, 1, int), _opposite),
    Pair("wait beside wait, five times", meets(0, 5), meets(1, 5), _opposite),
    Pair("wait beside wait by slots", meets(0, 5, far=True), meets(1, 5, far=True), _opposite),
    Pair("wait by slots beside abort", far(_until_it_is_broken), far(_three_times_and_abort), said((3, 3))),
    Pair("wait by slots beside one that locks", far(_five_times), far(_with_an_action_now_and_then), _opposite),
    Pair(
        "wait by slots beside one that waits no longer",
        far(lambda barrier: _third_time(barrier, None)),
        far(lambda barrier: _third_time(barrier, 0.01)),
        _both_or_none,
    ),
    Pair("wait beside abort", on(Barrier, _wait_in_vain, 2), on(Barrier, Barrier.abort, 2), said(("broken", None))),
    Pair(
        "wait beside reset and wait",
        on(Barrier, _wait_again_if_sent_away, 2),
        on(Barrier, _reset_and_wait, 2),
        lambda end: sorted(end.said) == [0, 1],
    ),
    Pair("enter and leave beside the same", _steps(0), _steps(1), said((True, True))),
]

# -- letters, tasks and items ----------------------------------------------------------------------


def _letter_of_the_winner(end: End) -> bool:
    winner = [number for number, won in enumerate(end.said) if won]
    return len(winner) == 1 and Mailbox(end.path, "x").get("a", timeout=0) == f"letter {winner[0]}"


def posts(number: int) -> Side:
    return on(Mailbox, lambda box: box.post("a", f"letter {number}"))


def _get_or_none(jobs: WorkQueue) -> Any:
    try:
        return jobs.get(block=False).value
    except standard.Empty:
        return None


def _two_tasks(stage: Stage) -> None:
    WorkQueue(stage.path, "x").put_many(["first", "second"])


def store(act: Callable[[PickleShareDB], Any]) -> Side:
    return Side(lambda stage: warm(PickleShareDB(stage.path)), act)


def _items(stage: Stage) -> None:
    PickleShareDB(stage.path).hupdate("cat", {f"item {number}": number for number in range(4)})


def _all_items(end: End) -> bool:
    return PickleShareDB(end.path).hdict("cat") == {f"item {number}": number for number in range(5)}


def _takes_and_answers(jobs: WorkQueue) -> Any:
    task = jobs.get()
    task.done(task.value.upper())
    return task.value


_gets = on(Mailbox, lambda box: box.get("a"))
_modifies = store(lambda db: db.modify("x", lambda old: old + 1, default=0))
_sweeps = store(lambda db: db.sweep())

REST = [
    Pair("post beside post", posts(0), posts(1), _letter_of_the_winner),
    Pair("post beside one that waits for it", posts(0), _gets, said((True, "letter 0"))),
    Pair(
        "put beside one that waits for a task",
        on(WorkQueue, lambda jobs: bool(jobs.put("task"))),
        on(WorkQueue, lambda jobs: jobs.get().value),
        said((True, "task")),
    ),
    Pair(
        "get beside get",
        on(WorkQueue, _get_or_none),
        on(WorkQueue, _get_or_none),
        said(("first", "second"), ("second", "first")),
        prepare=_two_tasks,
    ),
    Pair(
        "done beside one that waits for the result",
        on(WorkQueue, _takes_and_answers),
        on(WorkQueue, lambda jobs: jobs.results.get("name")),
        said(("task", "TASK")),
        prepare=lambda stage: WorkQueue(stage.path, "x").put("task", id="name"),
    ),
    Pair(
        "hset beside hcompress",
        store(lambda db: db.hset("cat", "item 4", 4)),
        store(lambda db: db.hcompress("cat")),
        _all_items,
        prepare=_items,
    ),
    Pair("modify beside modify", _modifies, _modifies, said((1, 2), (2, 1))),
    Pair("a lock is had beside a sweep", waits(new_lock, timeout=0), _sweeps, lambda end: end.said[0] is True),
]
