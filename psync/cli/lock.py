"""``psync lock DIR NAME -- command``: run a command while holding a lock, as flock(1) does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from psync.cli import arguments
from psync.cli.errors import WrongUse
from psync.errors import LockTimeout
from psync.store import PickleShareDB
from psync.sync import Lock, ReadWriteLock
from psync.work.shell.exec import run as run_program

TAKES_COMMAND = True


def options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [-h] [--timeout S] [--shared] DIR NAME -- command [argument ...]"
    parser.description = (
        "Run a command while nobody else holds the lock NAME: no other psync lock, and no psync.Lock of a Python "
        "program. With --shared: beside others that are --shared (and psync.ReadWriteLock readers). Signals are passed "
        "on to the command. The lock is free when the command ends, whatever that left running; if this process is "
        "killed, the lock is free at once, and the command is killed. PSYNC_TOKEN in the command's environment is a "
        "number larger than that of every holder before (not with --shared)."
    )
    parser.epilog = (
        "exit codes: 0 to 255 that of the command (128 + n if the signal n ended it, 127 if there is no such command, "
        "126 if it can't be run); 124 the lock was not free in time (stderr names its holder), 1 psync failed, 2 "
        "wrong use, 130 interrupted while it waited"
    )
    arguments.directory(parser, made=True)
    parser.add_argument("name", metavar="NAME", help="the name of the lock")
    arguments.timeout(parser, "wait at most S seconds for the lock; 0 does not wait")
    parser.add_argument("-s", "--shared", action="store_true", help="hold it together with others that share it")


def run(args: argparse.Namespace) -> int:
    if not args.command:
        raise WrongUse("write the command behind --, as in: psync lock DIR NAME -- command argument")
    with arguments.opened(args) as db, (shared if args.shared else alone)(db, args.name, args.timeout) as token:
        return run_program(args.command, {"PSYNC_TOKEN": str(token)} if token else {})


@contextmanager
def alone(db: PickleShareDB, name: str, timeout: float | None) -> Iterator[int]:
    """Hold the lock for the block, and keep those out who share it. Raises `LockTimeout`."""
    deadline = None if timeout is None else db.engine.now() + timeout
    with Lock(db, name).hold(-1 if timeout is None else timeout) as token:
        left = None if deadline is None else max(0.0, deadline - db.engine.now())
        writer = ReadWriteLock(db, name)
        if not writer.writer.acquire(timeout=left):
            raise not_had(writer, timeout)
        try:
            yield token
        finally:
            writer.writer.release()


@contextmanager
def shared(db: PickleShareDB, name: str, timeout: float | None) -> Iterator[int]:
    lock = ReadWriteLock(db, name)
    if not lock.reader.acquire(timeout=timeout):
        raise not_had(lock, timeout)
    try:
        yield 0
    finally:
        lock.reader.release()


def not_had(lock: ReadWriteLock, timeout: float | None) -> LockTimeout:
    seen = lock.statistics()
    holders = [seen.writer] if seen.writer else [*seen.readers]
    who = "; ".join(holders[:3]) + (f" and {len(holders) - 3} more" if len(holders) > 3 else "")
    return LockTimeout(
        f"the lock {lock.name!r} was not free within {timeout or 0:g} seconds; it is held by "
        f"{who or 'somebody who has just let go'}. Wait longer, or look at what that one does",
        lock=lock.name,
        waited=timeout,
        holder=who or None,
    )
