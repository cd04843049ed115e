"""Locks, barriers and the like."""

from typing import Any, assert_type

from psync import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Counter,
    DoubleBarrier,
    Election,
    Event,
    Group,
    Latch,
    Lock,
    Mailbox,
    Member,
    PickleShareDB,
    ReadWriteLock,
    RLock,
    Semaphore,
    copy_store,
)

db = PickleShareDB("shared")
lock = Lock(db, "door")
assert_type(lock.acquire(timeout=1), bool)
assert_type(lock.locked(), bool)
with lock:
    pass
with RLock("shared", "door"):
    pass
both = ReadWriteLock(db, "both")
with both.reader:
    pass
with both.writer:
    pass
with Semaphore(db, "seats", 3) as seated, BoundedSemaphore(db, "chairs", value=2):
    pass
assert_type(Semaphore(db, "seats", 3).get_value(), int)

event = Event(db, "ready")
event.set()
assert_type(event.wait(timeout=60), bool)
assert_type(event.is_set(), bool)

condition = Condition(db, "news", lock=lock)
with condition:
    assert_type(condition.wait(timeout=1.0), bool)
    condition.notify_all()

barrier = Barrier(db, "epoch", parties=4, timeout=10)
assert_type(barrier.wait(), int)
assert_type(barrier.broken, bool)
assert_type(barrier.n_waiting, int)
with DoubleBarrier(db, "phase", 2):
    pass

latch = Latch(db, "gate", 3)
latch.count_down()
counter = Counter(db, "hits")
assert_type(counter.add(2), int)
assert_type(counter.value, int)

assert_type(Election(db, "boss").campaign(timeout=1), bool)
group = Group(db, "workers")
group.join({"gpu": 1})
for member in group.members():
    assert_type(member, Member)

box = Mailbox(db, "reports")
copied = copy_store(db, "redis://host/0?prefix=new", progress=print)
assert_type(copied.values, int)
for difference in copied.differences:
    assert_type(difference.why, str)
assert_type(box.post("monday", "rain"), bool)
for pair in box.collect(["monday"], timeout=1):
    assert_type(pair, tuple[Any, Any])

Lock(db)  # error: [call-arg]
Barrier(db, "epoch", parties="four")  # error: [arg-type]
event.wait(timeout="soon")  # error: [arg-type]
counter.add("one")  # error: [arg-type]
