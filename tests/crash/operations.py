"""What the store can do, as operations to be struck: each with what is there before and how to look at it."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import queue
from pathlib import Path
from typing import Any

import filelock  # noqa: F401  so that nobody is struck while a compaction imports it
import pickleshare

from psync import Mailbox, PickleShareDB, WorkQueue, gethashfile
from psync.engine.contract.log import State
from psync.errors import QueueClosed
from tests.crash.children import in_child
from tests.crash.harness import PROBE, Operation
from tests.support import SCALE

PAGE = 4096
IN_ONE_BUCKET = [key for key in (f"key-{number}" for number in range(12_000)) if gethashfile(key) == "0a"]
APART = [f"item-{number}" for number in range(8)]
assert len({gethashfile(key) for key in APART}) > 4


def text(letter: str, size: int) -> str:
    return letter * size


# -- plain values ------------------------------------------------------------------------------


def put(name: str, old: Any, new: Any) -> Operation:
    """`old` at the key "box/value" becomes `new`; a neighbour is there to be harmed."""

    def prepare(db: Any) -> None:
        db["box/neighbour"] = {"of": "the value"}
        if old is not None:
            db["box/value"] = old

    return Operation(name, prepare=prepare, act=lambda db: db.__setitem__("box/value", new), says="box/value")


SETTING = [
    put("set a new key", None, text("n", 20)),
    put("set a new key to a big value", None, text("n", 70_000)),
    put("overwrite in place", text("o", 20), text("n", 20)),
    put("overwrite by a smaller value", text("o", 3000), text("n", 20)),
    put("overwrite by a larger value", text("o", 20), text("n", 3000)),
    put("grow past a page", text("o", 20), text("n", 5000)),
    put("shrink from more than a page", text("o", 9000), text("n", 20)),
    put("overwrite more than a page", text("o", 9000), text("n", 9001)),
    put("overwrite more than 64 KB", text("o", 70_000), text("n", 70_001)),
]


def _first_in_new_folder(db: Any) -> None:
    db["new/folder/value"] = 1


def _two(db: Any) -> None:
    db["box/value"], db["box/neighbour"] = 1, 2


def _one(db: Any) -> None:
    db["box/value"] = 1


PLAIN = [
    *SETTING,
    Operation("set a key in a new folder", _first_in_new_folder, _two, says="new/folder/value"),
    Operation("add", lambda db: db.add("box/value", 1), lambda db: db.update({"box/neighbour": 2}), says="box/value"),
    Operation("modify", lambda db: db.modify("box/value", lambda old: old + 1), _two, says="box/value"),
    Operation(
        "modify by a default", lambda db: db.modify("box/value", lambda old: old + 1, default=5), says="box/value"
    ),
    Operation("setdefault", lambda db: db.setdefault("box/value", 7), says="box/value"),
    Operation("del", lambda db: db.__delitem__("box/value"), _two, says="box/value"),
    Operation("pop", lambda db: db.pop("box/value"), _two, says="box/value"),
    Operation("popitem", lambda db: db.popitem(), _one),
]

# -- hashed categories -------------------------------------------------------------------------


def category(db: Any) -> dict[str, Any]:
    return {key: value for key, value in db.hdict("cat").items() if key != PROBE}


def use_bucket(db: Any) -> None:
    """The very bucket that was hit goes on."""
    other = IN_ONE_BUCKET[-1]
    db.hset("cat", other, "alive")
    assert db.hget("cat", other) == "alive", "a bucket that was hit does not keep a new item"
    db.hdel("cat", other)


def use_category(db: Any) -> None:
    db.hset("cat", PROBE, "alive")
    assert db.hget("cat", PROBE) == "alive", "a category that was hit does not keep a new item"
    db.hdel("cat", PROBE)


def _some(db: Any) -> None:
    for key in IN_ONE_BUCKET[:3]:
        db.hset("cat", key, f"value of {key}")


def _scattered(db: Any) -> None:
    db.hupdate("cat", dict.fromkeys(APART, "old"))


def _nearly_a_page(db: Any) -> None:
    """The bucket's file ends so near to a page's end that the next item stands on both sides of it."""
    file = Path(db.root) / "cat" / "0a"
    for key in IN_ONE_BUCKET[:-2]:
        room = PAGE - file.stat().st_size if file.exists() else PAGE
        if room < 200:
            break
        db.hset("cat", key, text("v", min(room - 120, 600)))
    assert PAGE - 200 < file.stat().st_size < PAGE, file.stat()


def hashed(name: str, act: Any, prepare: Any = _some, **more: Any) -> Operation:
    return Operation(name, act, prepare, **({"look": category, "use": use_bucket, "says": "cat"} | more))


_new = IN_ONE_BUCKET[5]
HSET = [
    hashed("hset into a new category", lambda db: db.hset("cat", _new, "new"), lambda db: db.update(a=1)),
    hashed("hset into a new bucket", lambda db: db.hset("cat", _new, "new"), _scattered),
    hashed("hset of a new item", lambda db: db.hset("cat", _new, "new")),
    hashed(
        "hset of a new item across a page",
        lambda db: db.hset("cat", IN_ONE_BUCKET[-2], text("n", 900)),
        _nearly_a_page,
    ),
    hashed("hset of a big new item", lambda db: db.hset("cat", _new, text("n", 9000))),
    hashed("hset of an old item", lambda db: db.hset("cat", IN_ONE_BUCKET[1], "new")),
]
HASHED = [
    *HSET,
    hashed("hadd", lambda db: db.hadd("cat", _new, "new")),
    hashed("hdel", lambda db: db.hdel("cat", IN_ONE_BUCKET[1])),
    hashed("hdel of the last item", lambda db: db.hdel("cat", _new), lambda db: db.hset("cat", _new, 1)),
    hashed("hpop", lambda db: db.hpop("cat", IN_ONE_BUCKET[1])),
    hashed(
        "hupdate of one bucket",
        lambda db: db.hupdate("cat", dict.fromkeys(IN_ONE_BUCKET[1:6], "new")),
    ),
    hashed(
        "hupdate over several buckets",
        lambda db: db.hupdate("cat", dict.fromkeys(APART[2:], "new")),
        lambda db: db.hupdate("cat", dict.fromkeys(APART[:5], "old")),
        use=use_category,
    ),
    hashed("hcompress", lambda db: db.hcompress("cat"), _scattered, use=use_category, silent=True),
]

# -- queues ------------------------------------------------------------------------------------


def jobs(db: Any) -> WorkQueue:
    return WorkQueue(db, "jobs")


def drained(db: Any, *, spare: int = 0) -> Any:
    """All that can be had from the queue: jobs with their attempts, the results so far, and the dead.

    `spare`: so many records at most were said to wait, and are thrown away when they are claimed.
    """
    work = jobs(db)
    results = [work.results.get(id, timeout=0) for id in work.results.addresses()]
    dead = sorted(str(task.value) for task in work.dead())
    counted = work.statistics().waiting
    waiting = []
    with contextlib.suppress(queue.Empty, QueueClosed):
        while True:
            task = work.get(block=False)
            waiting.append((str(task.value)[:20], task.attempt))
            task.done()
    assert work.empty(), f"{work!r} is not empty although nothing can be had"
    assert len(waiting) <= counted <= len(waiting) + spare, f"{counted} were said to wait, not {len(waiting)}"
    return [job for job in waiting if job[0] != PROBE], sorted(results), dead


drained_with_spare = functools.partial(drained, spare=1)


def use_queue(db: Any) -> None:
    jobs(db).put(PROBE, id=PROBE)


def recover_queue(db: Any) -> None:
    jobs(db).recover()
    db.sweep()


def _two_jobs(db: Any) -> None:
    jobs(db).put_many(["first", "second"])


def _first(db: Any) -> Any:
    return jobs(db).get(block=False)


def _done(task: Any) -> None:
    """Without a result that is a store into memory: so that a kill, say, can come after it, there is a call more."""
    task.done()
    with contextlib.suppress(OSError):
        os.stat("/")


def _again(db: Any) -> None:
    """Putting once more under the same id: whether the first time came through or not, there is one job."""
    jobs(db).put("named", id="name")
    use_queue(db)


def _named(db: Any) -> None:
    jobs(db).put("named", id="name")


def queued(name: str, act: Any, ready: Any = jobs, **more: Any) -> Operation:
    common = {"look": drained, "use": use_queue, "recover": recover_queue, "looking_changes": True, "says": "jobs"}
    return Operation(name, act, ready=ready, **({"prepare": _two_jobs} | common | more))


QUEUE = [
    queued("put", lambda work: work.put("third")),
    queued("put of a big job", lambda work: work.put(text("b", 9000))),
    queued("put_many", lambda work: work.put_many([text(letter, 1500) for letter in "abcdef"])),
    queued(
        "put with an id, twice",
        lambda work: work.put("named", id="name"),
        use=_again,
        silent=True,
        look=drained_with_spare,
    ),
    queued("get", lambda work: work.get(block=False), says=""),  # an error may be about this process as an owner
    queued("get of a job with an id", lambda work: work.get(block=False), prepare=_named, says=""),
    queued("done", _done, _first),
    queued("done with a result", lambda task: task.done(result="answer"), _first),
    queued("retry", lambda task: task.retry(), _first, silent=True),
    queued("fail", lambda task: task.fail("hopeless"), _first),
]


def with_the_rest(db: Any, *, spare: int = 0) -> Any:
    """What `drained` shows, and what is not to be had now."""
    work = jobs(db)
    return drained(db, spare=spare), work.statistics().delayed, work.closed


all_with_spare = functools.partial(with_the_rest, spare=1)


def use_behind(db: Any) -> None:
    """What is put where a killed one left its traces is not delayed, and tells whether the queue was closed."""
    work = jobs(db)
    with contextlib.suppress(QueueClosed):
        id = work.put(PROBE)
        assert work._index.state(id) is State.WAITING, "what was put later is delayed, too"


def leased(db: Any) -> WorkQueue:
    return WorkQueue(db, "jobs", lease=1000)


def _first_leased(db: Any) -> Any:
    return leased(db).get(block=False)


def _two_dead(db: Any) -> None:
    jobs(db).put("mine", id="name")
    _two_jobs(db)
    for _ in range(2):
        jobs(db).get(block=False).fail("hopeless")
    with db.engine.guard(".psync/queue/jobs/dead"):
        pass  # its file stays: who looks at the graves may have to keep others out


def _two_and_all_files(db: Any) -> None:
    """Both kinds of hints were used before."""
    _two_jobs(db)
    jobs(db).put("early", delay=1e6)
    _first(db).retry()


def rare(name: str, act: Any, ready: Any = jobs, **more: Any) -> Operation:
    return queued(name, act, ready, **({"look": with_the_rest, "use": use_behind} | more))


RARE = [
    rare("put of a first priority", lambda work: work.put("third", priority=5)),
    rare("put with a delay", lambda work: work.put("third", delay=1e6)),
    rare("put_many with a delay", lambda work: work.put_many([text(letter, 1500) for letter in "abcd"], delay=1e6)),
    rare("retry with a delay", lambda task: task.retry(delay=1e6), _first, prepare=_two_and_all_files),
    rare("get_many", lambda work: work.get_many(2, block=False), silent=True, says=""),
    rare("touch of a lease", lambda task: task.touch(), _first_leased, silent=True),
    rare("done with a lease", lambda task: task.done("answer"), _first_leased),
    rare(
        "revive of a job with an id",
        lambda work: work.revive(["name"]),
        prepare=_two_dead,
        look=all_with_spare,
    ),
    rare("revive", lambda work: work.revive(["#40"]), prepare=_two_dead, look=all_with_spare),
    rare("close", lambda work: work.close()),
]


def _claimed_by_the_dead(db: Any) -> None:
    """Of two tasks one is held by a process that is gone."""
    _two_jobs(db)
    in_child(lambda: jobs(PickleShareDB(db.root)).get(block=False).id)


RARE.append(rare("recover", lambda work: work.recover(), prepare=_claimed_by_the_dead, silent=True, says=""))


def _seven_jobs(db: Any) -> None:
    jobs(db).put_many(range(7))


def _four_to_claim(db: Any) -> Any:
    """A loop whose tasks were short so far: it claims what is left at once."""
    loop = iter(jobs(db))
    for _ in range(3):
        task = next(loop)
        task.done(task.value)
    return loop


def _work_off(loop: Any) -> None:
    for task in loop:
        task.done(task.value)


def _each_once(db: Any) -> Any:
    """Every task was answered, or is to be had with an attempt left: never both, and never neither."""
    work = jobs(db)
    answered = [value for _, value in work.results.collect(timeout=0)]
    waiting = []
    with contextlib.suppress(queue.Empty):
        while True:
            task = work.get(block=False)
            assert task.attempt <= 2
            waiting.append(task.value)
    return sorted(value for value in (*answered, *waiting) if value != PROBE)


IN_A_LOOP = queued(
    "answers in a loop where others may be on other hosts",
    _work_off,
    _four_to_claim,
    prepare=_seven_jobs,
    look=_each_once,
    silent=True,
    spare=4,  # the histories of those that were claimed
    open=functools.partial(PickleShareDB, sharing="network"),
)

# -- letters -----------------------------------------------------------------------------------


def letters(db: Any) -> dict[str, Any]:
    box = Mailbox(db, "box")
    return {address: box.get(address, timeout=0) for address in box.addresses() if address != PROBE}


def _two_letters(db: Any) -> None:
    box = Mailbox(db, "box")
    box.post("a", "first")
    box.compact()
    box.post("b", "second")


def posted(name: str, act: Any, **more: Any) -> Operation:
    common = {"look": letters, "use": lambda db: Mailbox(db, "box").post(PROBE, "alive"), "says": "box"}
    return Operation(name, act, prepare=_two_letters, ready=lambda db: Mailbox(db, "box"), **(common | more))


LETTERS = [
    posted("post", lambda box: box.post("c", "third")),
    posted("take of a letter", lambda box: box.take("a")),
    posted("compact", lambda box: box.compact(), silent=True),
]

OPERATIONS = [*PLAIN, *HASHED, *QUEUE, *RARE, *LETTERS]
LONG_ONES = [IN_A_LOOP] if SCALE > 1 else []
"""They have so many calls that an ordinary run strikes them by kills only."""

# -- opening -----------------------------------------------------------------------------------


def _close(db: Any) -> str:
    db.close()
    return str(db.root)


OPENING = Operation("open", PickleShareDB, _two, ready=_close, silent=True)


# -- what the old program reads -----------------------------------------------------------------


def read_by_pickleshare(db: Any) -> Any:
    """The same directory through PickleShare 0.7.5, which says so and deletes what it can't read."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        found = category(pickleshare.PickleShareDB(str(db.root)))
    assert "Corrupt" not in said.getvalue()
    return found
