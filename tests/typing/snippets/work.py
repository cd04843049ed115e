"""Queues and calls."""

from concurrent import futures
from typing import assert_type

from psync import Executor, Task, Worker, WorkQueue

queue = WorkQueue("shared", "jobs", lease=30.0, max_attempts=5, maxsize=100)
assert_type(queue.put({"any": "value"}, id="mine", priority=3, delay=1.5), str)
assert_type(queue.put_many([1, 2, 3]), list[str])
task = queue.get(timeout=1)
assert_type(task, Task)
assert_type(task.attempt, int)
with task:
    task.touch()
    task.done(7)
for each in queue:
    assert_type(each, Task)
assert_type(queue.get_many(5), list[Task])
assert_type(queue.qsize(), int)
assert_type(queue.cancel("mine"), bool)
assert_type(queue.state("mine"), str | None)
queue.join(timeout=5)


def length(word: str) -> int:
    return len(word)


def takes_any_executor(executor: futures.Executor) -> None: ...


with Executor("shared", max_workers=2, queue="calls") as executor:
    takes_any_executor(executor)
    future = executor.submit(length, "word")
    assert_type(future.id, str)
    assert_type(future.result(), int)
    assert_type(executor.submit_as("once", length, word="word").result(), int)
    done, rest = futures.wait([future])
    for finished in futures.as_completed([future]):
        finished.result()
    assert_type(list(executor.map(length, ["a", "b"])), list[int])
    executor.attach("mine").result(timeout=1)

assert_type(Worker(queue).run(drain=True), int)

queue.put(1, priority="high")  # error: [arg-type]
queue.get(timeout="soon")  # error: [arg-type]
executor.submit(length, 7)  # error: [arg-type]
executor.submit(length, "word", "and more")  # error: [call-arg]
Executor("shared", max_workers="two")  # error: [arg-type]
