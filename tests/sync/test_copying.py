"""A whole store is copied: nothing is lost, doubled or changed, and one goes on working there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psync import Counter, Lock, MemoryEngine, PickleShareDB, WorkQueue, copy_store
from psync.errors import StoreFailed
from psync.store import pickles
from psync.work.admin.copy_store import NOTE, Copied
from tests.support import files
from tests.sync.full_store import contents, fill, work_off

pytestmark = files
"""From and to a server: tests/redis/test_redis_copy.py."""
KEYS = 100


@pytest.fixture
def old(root: Path) -> Any:
    with PickleShareDB(root / "old") as db:
        yield db


@pytest.fixture(params=["directory", "memory"])
def new(request: pytest.FixtureRequest, root: Path) -> Any:
    with PickleShareDB(MemoryEngine() if request.param == "memory" else root / "new") as db:
        yield db


def test_all_is_there_and_the_queue_is_worked_to_its_end(old: PickleShareDB, new: PickleShareDB) -> None:
    values = fill(old, KEYS)
    before = contents(old, values)
    copied = copy_store(old, new)
    assert copied.differences == () and copied.tasks == before["queue"][1] + before["queue"][2] > 0
    assert contents(new, values) == before == contents(old, values)
    queue = WorkQueue(new, "jobs", max_attempts=2)
    left = {id for id, state in before["states"].items() if state not in ("done", "dead")}
    attempts = work_off(queue)
    assert attempts.keys() == left
    results = dict(queue.results.collect(timeout=0))
    assert {id: results[id] for id in left} == {id: ["result of", values[id]] for id in left}
    assert {id: results[id] for id in before["results"]} == before["results"]
    tried = [id for id, history in before["histories"].items() if history and id in left]
    assert tried and all(attempts[id] == len(before["histories"][id]) + 1 for id in tried)


def test_what_was_held_is_free_there(old: PickleShareDB, new: PickleShareDB) -> None:
    fill(old, KEYS)
    with Lock(old, "door"):
        copy_store(old, new)
    assert Lock(new, "door").acquire(timeout=0)
    Lock(new, "door").release()


def test_new_tasks_there_have_ids_that_nobody_had(old: PickleShareDB, new: PickleShareDB) -> None:
    queue = WorkQueue(old, "jobs")
    ids = queue.put_many(range(50))
    work_off(queue)
    copy_store(old, new)
    there = WorkQueue(new, "jobs")
    fresh = there.put_many(["new"] * 50)
    assert not {*fresh} & {*ids}
    assert {there.state(id) for id in ids} == {"done"} and {there.state(id) for id in fresh} == {"waiting"}


def test_order_and_priorities_stay(old: PickleShareDB, new: PickleShareDB) -> None:
    queue = WorkQueue(old, "jobs")
    queue.put_many(["first", "second", "third"])
    queue.put("late", priority=-1)
    queue.put("urgent", priority=5)
    queue.get().retry()  # urgent
    copy_store(old, new)
    order = []
    for task in WorkQueue(new, "jobs"):
        with task:
            order.append(task.value)
    assert order == ["urgent", "first", "second", "third", "late"]


def test_a_closed_queue_is_closed_there(old: PickleShareDB, new: PickleShareDB) -> None:
    queue = WorkQueue(old, "jobs")
    queue.put("work")
    queue.close()
    copy_store(old, new)
    there = WorkQueue(new, "jobs")
    assert there.closed and there.get().value == "work"


def test_a_task_that_is_answered_but_not_marked_is_done_there(old: PickleShareDB, new: PickleShareDB) -> None:
    """Its worker was killed between the letter and the mark."""
    queue = WorkQueue(old, "jobs")
    id = queue.put("work")
    queue.get()
    queue.results._box.set_pickled(id, pickles.item(id, "the answer"))
    copied = copy_store(old, new)
    assert (copied.tasks, copied.differences) == (0, ())
    there = WorkQueue(new, "jobs")
    assert there.state(id) == "done" and there.results.get(id, timeout=0) == "the answer" and there.empty()
    assert there.statistics().put == 1


class Killed(BaseException):
    """The copy ends here."""


def killed_after(steps: int, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many more steps of `engine` are made; none after that."""
    left = iter(range(steps))

    def step(verb: str, name: str) -> None:
        if next(left, None) is None:
            raise Killed

    monkeypatch.setattr(engine.turns, "step", step)


def test_killed_again_and_again_it_goes_on_and_doubles_nothing(
    old: PickleShareDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of many verbs, as a memory sees them."""
    values = fill(old, 60)
    before = contents(old, values)
    engine, killed = MemoryEngine(), 0
    for steps in range(1, 100_000, 7):
        other = engine.as_owner()
        with monkeypatch.context() as patch:
            killed_after(steps, other, patch)
            try:
                copied = copy_store(old, other)
                break
            except Killed:
                killed += 1
        other.die()
    assert killed > 10 and copied.differences == ()
    with PickleShareDB(engine) as new:
        assert contents(new, values) == before
        left = {id for id, state in before["states"].items() if state not in ("done", "dead")}
        assert work_off(WorkQueue(new, "jobs", max_attempts=2)).keys() == left


def test_a_copy_that_is_whole_is_left_alone(old: PickleShareDB, new: PickleShareDB) -> None:
    old["a"] = 1
    copy_store(old, new)
    new["a"] = 2
    assert copy_store(old, new) == Copied(was_complete=True)
    assert new["a"] == 2


def test_only_an_empty_place_is_copied_to(old: PickleShareDB, new: PickleShareDB) -> None:
    old["a"] = 1
    new["b"] = 2
    with pytest.raises(ValueError, match="holds 'b' already"):
        copy_store(old, new)
    assert dict(new) == {"b": 2}
    with pytest.raises(ValueError, match="to itself"):
        copy_store(old, old)


def test_the_copy_of_another_store_is_left_alone(old: PickleShareDB, new: PickleShareDB, root: Path) -> None:
    copy_store(old, new)
    with PickleShareDB(root / "third") as third, pytest.raises(ValueError, match="is a copy of"):
        copy_store(third, new)


def test_two_do_not_copy_to_one_place_at_once(old: PickleShareDB, root: Path) -> None:
    new = MemoryEngine()
    assert new.mutex("copy/store").acquire()
    with pytest.raises(StoreFailed, match="is copying to"):
        copy_store(old, new.as_owner())


def test_what_can_not_be_read_is_told_and_the_rest_is_copied(old: PickleShareDB, root: Path) -> None:
    old["good"], old["bad"] = 1, "x" * 100
    path = root / "old" / "bad"
    path.write_bytes(path.read_bytes()[:-3] + b"???")
    copied = copy_store(root / "old", root / "new")
    assert [each.name for each in copied.differences] == ["bad"] and "damaged" in copied.differences[0].why
    assert path.exists()  # it was only looked at
    with PickleShareDB(root / "new") as new:
        assert dict(new) == {"good": 1}
        old["bad"] = "good again"
        assert copy_store(old, new).differences == () and new["bad"] == "good again"


def test_what_changed_since_it_was_begun_is_brought_up_to_date(old: PickleShareDB, new: PickleShareDB) -> None:
    old.update({"gone": 1, "changed": 2})
    old.hset("c", "k", 1)
    _begin(old, new)
    del old["gone"]
    old["changed"] = 3
    old.hcompress("c")
    assert copy_store(old, new).differences == ()
    assert (new["changed"], "gone" in new, new.hdict("c")) == (3, False, {"k": 1})


def test_a_queue_that_was_used_since_it_was_begun_is_told(old: PickleShareDB, new: PickleShareDB) -> None:
    queue = WorkQueue(old, "jobs")
    queue.put_many([1, 2])
    _begin(old, new)
    queue.put(3)
    [difference] = copy_store(old, new).differences
    assert difference.name == "queue jobs" and "begin anew" in difference.why


def test_a_task_that_was_done_since_it_was_begun_is_told(old: PickleShareDB, new: PickleShareDB) -> None:
    queue = WorkQueue(old, "jobs")
    queue.put_many([1, 2])
    _begin(old, new)
    queue.get().done()
    assert [each.name for each in copy_store(old, new).differences] == ["queue jobs"]


def _begin(old: PickleShareDB, new: PickleShareDB) -> None:
    """As far as a copy comes that is killed just before it says that it is whole."""
    copy_store(old, new)
    new.engine.update(NOTE, lambda note: pickles.dumps(pickles.loads(note or b"") | {"complete": False}))


def test_sealed_stores_are_copied_with_the_key_of_either(root: Path) -> None:
    one, two = b"the key of the first store", b"the key of the second one"
    with PickleShareDB(root / "plain") as plain:
        values = fill(plain, 40)
        before = contents(plain, values)
        with PickleShareDB(root / "one", key=one) as sealed, PickleShareDB(root / "two", key=two) as other:
            assert copy_store(plain, sealed).differences == ()
            assert copy_store(sealed, other).differences == ()
            assert contents(other, values) == before
        with PickleShareDB(root / "two", key=two) as other, PickleShareDB(root / "open") as opened:
            assert copy_store(other, opened).differences == ()
            assert contents(opened, values) == before


def test_a_store_of_json_stays_one(root: Path) -> None:
    with PickleShareDB(root / "old", serializer="json") as old:
        old["a"] = {"b": [1]}
        queue = WorkQueue(old, "jobs")
        queue.put_many(["x", "y", "z"])
        queue.put("named", id="me")
        queue.get().done("result")
        queue.get().retry("once more")
        assert copy_store(root / "old", root / "new").differences == ()
        with PickleShareDB(MemoryEngine()) as pickles, pytest.raises(ValueError, match="the same serializer"):
            copy_store(old, pickles)
    with PickleShareDB(root / "new") as new:
        assert new.codec.objects is False and new["a"] == {"b": [1]}
        assert sorted(work_off(WorkQueue(new, "jobs")).values()) == [1, 1, 2]


def test_no_value_is_unpickled(root: Path) -> None:
    """Their classes may be missing here."""
    with PickleShareDB(root / "old") as old:
        old.engine.write("odd", b"\x80\x05cno_such_module\nKind\n.")
        queue = WorkQueue(old, "jobs")
        for payload in (
            b"\x80\x05Ncno_such_module\nKind\n\x86\x94.",
            b"\x80\x05\x8c\x02mecno_such_module\nKind\n\x86\x94.",
        ):
            old.engine.log(".psync/queue/jobs").append([payload])
        queue._index.set_location("me", type(queue._index.location("#0"))(0, 32))  # type: ignore[call-arg, arg-type]
        with PickleShareDB(root / "new") as new:
            assert copy_store(old, new).differences == ()
            assert WorkQueue(new, "jobs").qsize() == 2 and WorkQueue(new, "jobs").state("me") == "waiting"
            assert new.engine.read("odd") is not None


def test_progress_is_told(old: PickleShareDB, new: PickleShareDB) -> None:
    old.update({str(number): number for number in range(10)})
    Counter(old, "c").add(1)
    seen: list[Copied] = []
    copy_store(old, new, progress=seen.append)
    assert next(each.values for each in seen if each.values) == 1 and seen[-1].compared == 11


def test_a_source_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="is not a directory"):
        copy_store(root / "none", root / "new")
    assert not (root / "new").exists()
