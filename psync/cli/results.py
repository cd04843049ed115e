"""``psync results DIR QUEUE [ID...]``: print the results of tasks."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from psync.cli import arguments, text
from psync.cli.errors import TIMED_OUT, Failure
from psync.errors import TaskFailed, UnreadableValue, WaitTimeout
from psync.sync import WorkQueue
from psync.sync.queue.work_queue import internals_of
from psync.work import call

DEAD_WORKER_POLL_S = 1.0
"""The time between two checks for dead workers."""


class Answer(NamedTuple):
    id: str
    value: Any = None
    error: Exception | None = None
    """The reason if there is no value."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the results of the tasks with these ids, in that order, each on a line; without ids, those of all tasks "
        "that have a result, each behind its id and a tab. A task that failed or is not done is named on stderr, and "
        "the exit code is then 1. With --calls, QUEUE is the queue of an executor (jobs by default), and the command "
        "shows what its calls returned or raised. Results are unpickled: read only those of programs that you trust."
    )
    parser.epilog = (
        "exit codes: 0 done, 1 a task failed, is not done (without --wait) or was never put, 2 wrong use, 124 timed "
        "out, 130 interrupted"
    )
    arguments.anywhere(parser)
    arguments.directory(parser, made=False)
    parser.add_argument("queue", metavar="QUEUE", help="the name of the queue")
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("-w", "--wait", action="store_true", help="wait until these tasks, or all tasks, are done")
    arguments.timeout(parser, "wait (--wait is implied) at most S seconds")
    parser.add_argument("--calls", action="store_true", help="the tasks are the calls of an executor")
    parser.add_argument(
        "--json", action="store_true", help='print a line {"id": ..., "result" or "error": ...} for each task'
    )


def run(args: argparse.Namespace) -> int:
    code = 0
    with (arguments.existing if waits(args) else arguments.looked_at)(args) as db:
        queue = WorkQueue(db, args.queue)
        for answer in answers(queue, args):
            try:
                show(opened(answer, queue) if args.calls else answer, args)
            except (TaskFailed, UnreadableValue, Failure) as error:
                code = max(code, 1)
                complain(answer.id, one_line(error), args)
            except WaitTimeout as error:
                code = TIMED_OUT
                complain(answer.id, str(error), args)
    return code


def answers(queue: WorkQueue, args: argparse.Namespace) -> Iterator[Answer]:
    if not args.ids:
        return of_all(queue, args.timeout, waits(args))
    deadline = math.inf if args.timeout is None else queue.engine.now() + args.timeout
    return of_ids(queue, args.ids, deadline if waits(args) else None)


def waits(args: argparse.Namespace) -> bool:
    return args.wait or args.timeout is not None


def show(answer: Answer, args: argparse.Namespace) -> None:
    if answer.error is not None:
        raise answer.error
    what = f"the result of {answer.id!r}"
    if args.json:
        print(text.as_json({"id": answer.id, "result": answer.value}, what))
    elif len(args.ids) == 1:
        text.show(answer.value, what, text.PLAIN)
    else:
        before = "" if args.ids else f"{answer.id}\t"
        text.say(before + text.shown(answer.value, what, text.PLAIN), what)


def complain(id: str, error: str, args: argparse.Namespace) -> None:
    print(f"psync results: {error}", file=sys.stderr)
    if args.json and id:
        print(json.dumps({"id": id, "error": error}))


def of_ids(queue: WorkQueue, ids: list[str], deadline: float | None) -> Iterator[Answer]:
    for id in ids:
        try:
            with text.unpickled(f"the result of {id!r}"):
                yield Answer(id, letter_of(queue, id, deadline))
        except (TaskFailed, WaitTimeout, UnreadableValue, Failure) as error:
            yield Answer(id, error=error)


def letter_of(queue: WorkQueue, id: str, deadline: float | None) -> Any:
    """Return the result once it is there. Raises `Failure`; `WaitTimeout` if it may still come."""
    if queue.state(id) is None:
        raise Failure(f"no task {id!r} was ever put into the queue {queue.name!r}")
    while True:
        left = 0.0 if deadline is None else max(0.0, deadline - queue.engine.now())
        try:
            return queue.results.get(id, timeout=min(left, DEAD_WORKER_POLL_S))
        except WaitTimeout:
            if left <= DEAD_WORKER_POLL_S:
                kind = Failure if deadline is None else WaitTimeout
                raise kind(f"the task {id!r} is not done: it is {queue.state(id)}") from None
        queue.recover()  # a task whose last worker died is dead as soon as somebody looks


def of_all(queue: WorkQueue, timeout: float | None, wait: bool) -> Iterator[Answer]:
    late: WaitTimeout | None = None
    if wait:
        try:
            queue.join(timeout)
        except WaitTimeout as error:
            late = error
    unreadable: list[UnreadableValue] = []
    with text.unpickled("a result"):
        for id, letter in dict(queue.results.arrivals().new(unreadable=unreadable.append)).items():
            yield Answer(id, letter)
    for reason in unreadable:
        yield Answer(reason.key, error=reason)
    for dead in queue.dead():
        try:
            queue.results.get(dead.id, timeout=0)
        except TaskFailed as error:
            yield Answer(dead.id, error=error)
        except WaitTimeout:
            continue  # revived since
    if late is not None:
        yield Answer("", error=late)


def opened(answer: Answer, queue: WorkQueue) -> Answer:
    """Return what the call returned or raised, read from its result."""
    if answer.error is not None:
        return answer
    if not isinstance(answer.value, bytes):
        return answer._replace(error=Failure(f"the result of {answer.id!r} is not that of a call: leave out --calls"))
    outcome = call.unseal(answer.value, internals_of(queue).priorities.codec.loads)
    if outcome.error is None:
        return answer._replace(value=outcome.value)
    return answer._replace(error=Failure(f"the call {answer.id!r} raised {outcome.error!r} ({outcome.worker})"))


def one_line(error: Exception) -> str:
    """Return the error on one line, with only the last line of its traceback: the exception."""
    begin, then, last = str(error).partition("; the last time: ")
    return " ".join(f"{begin}{then}{last.strip().rpartition(chr(10))[2]}".split())
