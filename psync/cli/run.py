"""``psync run DIR -j 8 -- command {}``: run a command for each line of input, shared by all runs over DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from psync.cli.arguments import above, count, directory, opened, where
from psync.cli.errors import Failure

if TYPE_CHECKING:
    from psync.store import PickleShareDB
    from psync.sync import Group, WorkQueue
    from psync.work.shell.runner import Outcome, Runner
    from psync.work.shell.template import Jobs, Template

TAKES_COMMAND = True
MAX_ATTEMPTS = 3
"""A job is dead after this many of its runs were killed."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [-h] DIR [options] -- command {{}}"
    parser.description = (
        "Run a command for each line of the standard input, several at a time. {} stands for the line, {.} for the "
        "line without its extension, {/} for its last part, {//} for its folder, {/.} for the last part without its "
        "extension, {#} for its number; without any of these the line is appended. A command that is one word with "
        "blanks in it (quote it) is run by the shell; without a command, each line is one. The output of a job is kept "
        "in DIR with its exit code, and printed when the job ends. Any number of these commands may run at the same "
        "time, on all hosts that see DIR, with the same input: each line is run once."
    )
    parser.epilog = (
        "exit codes: 0 all commands succeeded, 1 one failed (or another error occurred: stderr tells), 2 wrong use, "
        "130 interrupted: running commands were told to end (SIGTERM; a second Ctrl-C kills them), and are given back"
    )
    directory(parser, made=True)
    parser.add_argument(
        "-j", "--jobs", type=count, metavar="N", help="jobs at a time (default: one for each processor)"
    )
    parser.add_argument("-a", "--arg-file", metavar="FILE", help="read the lines from FILE")
    parser.add_argument(
        "--resume", action="store_true", help="run the lines that were not done before, and those that failed"
    )
    parser.add_argument(
        "--retries", type=_number, default=0, metavar="N", help="run a failed command again, up to N times (default: 0)"
    )
    parser.add_argument("-k", "--keep-order", action="store_true", help="print in the order of the input")
    parser.add_argument("--timeout", type=above(0), metavar="S", help="end a command that runs longer than S seconds")
    parser.add_argument("--queue", default="run", metavar="NAME", help="the queue in DIR (default: run)")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def run(args: argparse.Namespace) -> int:
    from psync.work.shell.child_group import find_program
    from psync.work.shell.template import Template

    template = Template(args.command)
    if (program := template.program) is not None and find_program(program) is None:
        raise Failure(f"there is no command {program!r} here")
    with opened(args) as db:
        return _run(db, args, template)


def _run(db: PickleShareDB, args: argparse.Namespace, template: Template) -> int:
    from psync.sync import Group, WorkQueue
    from psync.sync.queue.work_queue import internals_of
    from psync.work.shell.child_group import processors
    from psync.work.shell.runner import Runner

    begun = db.engine.now()
    queue = WorkQueue(db, args.queue, max_attempts=max(MAX_ATTEMPTS, args.retries + 1))
    if not internals_of(queue).priorities.codec.objects:
        raise Failure(
            f"{args.directory} was begun with serializer='json', for writers who are not trusted; the commands stand "
            "there, so they would decide what runs here. Use another directory"
        )
    jobs = template.named(_lines(args.arg_file))
    crew = Group(db, f"run/{args.queue}")
    _admit(db, where(args), queue, crew, jobs, resume=args.resume)
    runner = Runner(
        queue,
        lambda line: template.command(line, 0),
        slots=args.jobs or processors(),
        retries=args.retries,
        limit=args.timeout,
    )
    show = Printer(jobs, queue.state) if args.keep_order else None
    for outcome in runner.outcomes():
        if show is None:
            _print(outcome)
        else:
            show.add(outcome)
    if show is not None:
        show.close()
    crew.leave()
    return _sum_up(runner, queue, jobs, db.engine.now() - begun)


def _lines(file: str | None) -> list[str]:
    data = sys.stdin.buffer.read() if file is None else Path(file).read_bytes()
    if b"\0" in data:
        raise Failure(f"line {data[: data.index(0)].count(10) + 1} has a NUL byte in it, which no command can be given")
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.decode("utf-8", "surrogateescape") for line in lines]


def _admit(db: PickleShareDB, place: str, queue: WorkQueue, crew: Group, jobs: Jobs, *, resume: bool) -> None:
    """Join the runs on the queue and put the new lines. Raises `Failure` if it was used before, and no run uses it
    now."""
    from psync.sync import Lock
    from psync.sync.queue.work_queue import internals_of

    with Lock(db, f"run/{queue.name}"):
        alone = not crew.members()
        used = queue.statistics().put
        if used and alone and jobs and not resume:
            raise Failure(
                f"the queue {queue.name!r} in {place} was used before, for {used} jobs, and nobody works on it now: "
                "--resume runs what was not done, --queue NAME begins another one"
            )
        crew.join()
        new = internals_of(queue).producer.put_new(jobs)
        if resume and alone and len(new) < len(jobs):
            queue.revive(jobs)


def _print(outcome: Outcome) -> None:
    for stream, what in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        if text := outcome.result[what]:
            stream.flush()
            stream.buffer.write(text.encode("utf-8", "surrogateescape"))
            stream.buffer.flush()


class Printer:
    """Prints in the order of `ids`: a job that ends early waits for those before it, unless they run elsewhere."""

    def __init__(self, ids: Iterable[str], state: Callable[[str], str | None]) -> None:
        self._order = [*ids]
        self._state = state
        self._next = 0
        self._waiting: dict[str, Outcome] = {}

    def add(self, outcome: Outcome) -> None:
        self._waiting[outcome.id] = outcome
        while self._waiting and self._next < len(self._order):
            id = self._order[self._next]
            if (ready := self._waiting.pop(id, None)) is not None:
                _print(ready)
            elif self._state(id) not in ("done", "dead"):
                return
            self._next += 1
        self.close()

    def close(self) -> None:
        """Print the outcomes that have no order, or that follow one that never came."""
        for id in self._order[self._next :]:
            if (ready := self._waiting.pop(id, None)) is not None:
                _print(ready)
        for ready in self._waiting.values():
            _print(ready)
        self._waiting.clear()


def _sum_up(runner: Runner, queue: WorkQueue, jobs: Jobs, seconds: float) -> int:
    parts = [f"{runner.done} done", f"{runner.failed} failed"]
    dead = {task.id for task in queue.dead()} & jobs.keys() if not runner.interrupted else set()
    if runner.interrupted:
        parts.append(f"{runner.given_back} interrupted and given back, {queue.qsize()} waiting")
    else:
        elsewhere = len(jobs) - runner.done - runner.failed
        parts.append(f"{max(0, elsewhere)} skipped (done before, or by others)")
    if len(dead) > runner.failed:
        parts.append(f"{len(dead) - runner.failed} failed elsewhere")
    sys.stderr.write(f"psync run: {', '.join(parts)}, {seconds:.2f} s\n")  # at once: others may write there, too
    if runner.interrupted:
        return 130
    return 1 if runner.failed or dead else 0
