"""Hooks of the interpreter that call psync at each step of whatever they interrupt, psync's own steps included."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import psync
from psync.engine.system import reentry
from tests.reentry.operations import store_of
from tests.reentry.test_pairs import no_hang  # noqa: F401 (a fixture)
from tests.support import ENGINE, combined, files, scaled


@pytest.fixture
def db(request: pytest.FixtureRequest, root: Path | str) -> Iterator[psync.PickleShareDB]:
    store = psync.PickleShareDB(root) if ENGINE else store_of(request.param, root)
    yield store
    store.close()


@contextmanager
def hooked(call: Callable[[], object], install: Callable[[Any], None]) -> Iterator[None]:
    """Make `call` at each step, but not within itself: the usual guard of such a hook."""
    inside = False

    def hook(*arguments: Any) -> Any:
        nonlocal inside
        if not inside and threading.current_thread() is threading.main_thread():
            inside = True
            try:
                call()
            finally:
                inside = False
        return hook

    before = sys.gettrace() if install is sys.settrace else sys.getprofile()
    install(hook)
    try:
        yield
    finally:
        install(before)


def changes(db: psync.PickleShareDB) -> dict[str, Callable[[], object]]:
    numbers = iter(range(1_000_000_000))
    event, latch, box = psync.Event(db, "event"), psync.Latch(db, "latch", 1_000_000_000), psync.Mailbox(db, "box")
    return {
        "Event.set": event.set,
        "Event.set and clear": lambda: (event.set(), event.clear()),
        "Latch.count_down": latch.count_down,
        "assign": lambda: db.__setitem__("last", next(numbers)),
        "assign the same": lambda: db.__setitem__("last", 0),
        "hset": lambda: db.hset("items", "last", next(numbers)),
        "post": lambda: box.post(next(numbers), 0),
    }


def work(db: psync.PickleShareDB) -> None:
    event, counter, queue = psync.Event(db, "event"), psync.Counter(db, "counter"), psync.WorkQueue(db, "queue")
    for number in range(scaled(2)):
        db["last"] = number
        db.hset("items", number, number)
        event.set()
        counter.add()
        queue.put(number)
        queue.get(timeout=0).done(number)


NAMES = ["Event.set", "Event.set and clear", "Latch.count_down", "assign", "assign the same", "hset", "post"]


@pytest.mark.parametrize(
    ("name", "install", "db"),
    combined(NAMES, [sys.settrace, sys.setprofile], [ENGINE] if ENGINE else ["directory", "network", "memory"]),
    indirect=["db"],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_hook_that_changes_something_at_each_step_has_an_end(
    db: psync.PickleShareDB, name: str, install: Callable[[Any], None]
) -> None:
    change, calls = changes(db)[name], 0

    def counted() -> None:
        nonlocal calls
        calls += 1
        change()

    with hooked(counted, install):
        work(db)
    assert calls > 50
    if name == "Latch.count_down":
        assert psync.Latch(db, "latch", 1_000_000_000).count == 1_000_000_000 - calls
    if name == "post":
        assert len(psync.Mailbox(db, "box")) == calls
    assert psync.Counter(db, "counter").value == scaled(2) and not reentry.postponed


AUDITED = """
import sys, psync, faulthandler
faulthandler.dump_traceback_later(60, exit=True)
db = psync.PickleShareDB(sys.argv[1])
event, latch = psync.Event(db, "event"), psync.Latch(db, "latch", 1 << 40)
inside, working, calls = False, False, 0
changes = {"set": event.set, "assign": lambda: db.__setitem__("last", 0), "count": latch.count_down}
change = changes[sys.argv[2]]

def hook(name, arguments):
    global inside, calls
    if working and not inside:
        inside = True
        try:
            calls += 1
            change()
        finally:
            inside = False

sys.addaudithook(hook)
counter = psync.Counter(db, "counter")
working = True
try:
    for number in range(20):
        event.set(), counter.add(), db.__setitem__("last", number), latch.count_down()
    end = "done"
except RecursionError as error:
    end = str(error)
working = False
print(calls > 20, end)
"""


@files
@pytest.mark.parametrize(("change", "end"), [("set", "done"), ("assign", "done"), ("count", "for ever")])
def test_an_audit_hook_that_changes_something_has_an_end_or_is_told_that_it_has_none(
    root: Path, change: str, end: str
) -> None:
    """It can't be kept from seeing the calls that are made because of it, and so asks for more of them."""
    command = [sys.executable, "-c", AUDITED, str(root), change]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ran.stdout.startswith("True ") and end in ran.stdout, ran.stdout + ran.stderr
