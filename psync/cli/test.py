"""``psync test DIR``: test a directory, with several processes, in a new folder inside it."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable

from psync.cli import arguments
from psync.engine.admin import fresh_store
from psync.errors import PsyncError
from psync.store import PickleShareDB

STRESS_TIMEOUT_S = 60.0
"""A stress test that takes longer counts as hanging."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Try out a directory: values, hashed categories, waiting, and several processes that change the same keys at "
        "once. Works in a fresh folder inside it (or under a fresh prefix on the server), which is removed at the end. "
        "Exit code 0 means all went well."
    )
    arguments.directory(parser, made=False)
    parser.add_argument("--processes", type=arguments.count, default=4, metavar="N", help="how many processes (4)")
    parser.add_argument("--rounds", type=arguments.count, default=200, metavar="N", help="changes by each (200)")


def run(args: argparse.Namespace) -> int:
    tries: list[tuple[str, Callable[[PickleShareDB], str]]] = [
        ("values", values),
        ("hashed categories", categories),
        ("waiting", waiting),
        ("processes at once", lambda db: stress(db, args.processes, args.rounds)),
    ]
    failed = 0
    arguments.must_exist(args.directory)
    with fresh_store(args.directory) as place, PickleShareDB(place, trust_group=args.trust_group) as db:
        for name, attempt in tries:
            begin = db.engine.now()
            try:
                said = attempt(db)
            except (AssertionError, KeyError, PsyncError, OSError) as error:
                failed += 1
                print(f"FAILED  {name}: {type(error).__name__}: {error}")
            else:
                print(f"ok      {name}: {said} ({db.engine.now() - begin:.2f} s)")
    print(f"{arguments.where(args)}: {f'{failed} of {len(tries)} failed' if failed else 'all is well'}")
    return 1 if failed else 0


# -- what is tried ---------------------------------------------------------------------------------


def expect(right: bool, claim: str) -> None:
    if not right:
        raise AssertionError(claim)


def values(db: PickleShareDB) -> str:
    stored = {"hello": 15, "aku ankka": [1, 2, 313], "paths/are/ok/key": [1, (5, 46)], "large": b"x" * 1_000_000}
    db.update(stored)
    db.uncache()
    expect(dict(db) == stored, "the values that were stored do not come back")
    expect(db.keys("paths/are/ok/k*") == ["paths/are/ok/key"], "a glob does not find the key it describes")
    expect(not db.add("hello", 16) and db["hello"] == 15, "add replaced a value that was there")
    db.clear()
    expect(len(db) == 0, "something is left after clear")
    return f"{len(stored)} stored, read and removed"


def categories(db: PickleShareDB) -> str:
    pairs = {f"key {number}": number for number in range(300)}
    for key, value in pairs.items():
        db.hset("hashed", key, value)
    expect(db.hdict("hashed") == pairs, "hdict does not give what hset stored")
    db.hcompress("hashed")
    db.hset("hashed", "key 0", "new")
    expect(db.hget("hashed", "key 0") == "new", "hget does not give the newest value after hcompress")
    expect(db.hget("hashed", "key 299", fast_only=False) == 299, "hget does not find what hcompress moved")
    expect(db.hdict("hashed") == pairs | {"key 0": "new"}, "hcompress lost something")
    return f"{len(pairs)} items set, compressed and read"


def waiting(db: PickleShareDB) -> str:
    waiter = multiprocessing.get_context("spawn").Process(target=_answer, args=(db,))
    waiter.start()
    try:
        db["question"] = 41
        expect(db.waitget("answer", maxwaittime=STRESS_TIMEOUT_S) == 42, "another process saw a wrong value")
    finally:
        _end([waiter])
    return "another process answered"


def stress(db: PickleShareDB, processes: int, rounds: int) -> str:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_work, args=(db, number, rounds)) for number in range(processes)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(STRESS_TIMEOUT_S)
        expect(not any(worker.exitcode for worker in workers), "a process failed; its error is printed above")
        expect(all(worker.exitcode == 0 for worker in workers), f"a process is not done after {STRESS_TIMEOUT_S:.0f} s")
    finally:
        _end(workers)
    total = processes * rounds
    expect(db["counter"] == total, f"{total - db['counter']} of {total} changes of one value are lost")
    expect(len(db.hdict("stress")) == total, f"{total - len(db.hdict('stress'))} of {total} items are lost")
    return f"{processes} processes made {rounds} changes each of the same keys, none is lost"


def _answer(db: PickleShareDB) -> None:
    with db:
        db["answer"] = db.waitget("question", maxwaittime=STRESS_TIMEOUT_S) + 1


def _work(db: PickleShareDB, number: int, rounds: int) -> None:
    with db:
        for turn in range(rounds):
            db.modify("counter", lambda count: count + 1, default=0)
            db.hset("stress", (number, turn), turn)
            if turn == rounds // 2:
                db.hcompress("stress")


def _end(processes: list[multiprocessing.context.SpawnProcess]) -> None:
    for process in processes:
        process.join(STRESS_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
