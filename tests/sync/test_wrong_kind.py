"""What is well formed and not what belongs there gives an error of psync's, from every verb; it hangs nobody."""

from __future__ import annotations

import math
import os
import queue
import shutil
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import psync
from psync.store.codec import codec_of
from tests.concurrency.simultaneous import together
from tests.reentry.operations import OPERATIONS, World, perform, store_of
from tests.support import ENGINE, SCALE, files

# -- states ------------------------------------------------------------------------------------------


def in_turn(lock: Any) -> None:
    assert lock.acquire(timeout=0)
    lock.release()


def notified(condition: psync.Condition) -> None:
    with condition:
        condition.notify()
        condition.wait(0)


Verb = Callable[[Any], object]
KINDS: dict[str, tuple[Callable[[Any], Any], dict[str, Verb]]] = {
    "event": (
        lambda db: psync.Event(db, "x"),
        {"is_set": lambda it: it.is_set(), "set": lambda it: it.set(), "wait": lambda it: it.wait(0)},
    ),
    "counter": (
        lambda db: psync.Counter(db, "x"),
        {"add": lambda it: it.add(), "value": lambda it: it.value, "wait_for": lambda it: it.wait_for(0, 0)},
    ),
    "latch": (
        lambda db: psync.Latch(db, "x", 2),
        {"count": lambda it: it.count, "count_down": lambda it: it.count_down(), "wait": lambda it: it.wait(0)},
    ),
    "semaphore": (
        lambda db: psync.Semaphore(db, "x", 2),
        {
            "acquire": lambda it: it.acquire(timeout=0),
            "release": lambda it: it.release(),
            "get_value": lambda it: it.get_value(),
        },
    ),
    "barrier": (
        lambda db: psync.Barrier(db, "x", 1),
        {"wait": lambda it: it.wait(0), "reset": lambda it: it.reset(), "statistics": lambda it: it.statistics()},
    ),
    "group": (
        lambda db: psync.Group(db, "x"),
        {"join": lambda it: it.join(), "members": lambda it: it.members()},
    ),
    "condition": (
        lambda db: psync.Condition(db, "x"),
        {"notify": notified, "statistics": lambda it: it.statistics()},
    ),
    "rwlock": (
        lambda db: psync.ReadWriteLock(db, "x"),
        {
            "reader": lambda it: in_turn(it.reader),
            "writer": lambda it: in_turn(it.writer),
            "statistics": lambda it: it.statistics(),
        },
    ),
}
SHAPES: dict[str, Any] = {
    "None": None,
    "a number": 7,
    "infinite": math.inf,
    "a text": "text",
    "bytes": b"bytes",
    "nothing": (),
    "a list": [1, 2, 3],
    "a dict": {"up": True, "raised": 1},
    "texts": ("a", "b"),
    "a wrong part": (0, {}, 1),
    "a wrong key": (0, {"a": 1}),
    "a wrong depth": (0, ((),), ()),
    "too long": (0, 1, (), (), None, False, (), False, (), 1),
}
VERBS = [(kind, verb) for kind, (_, verbs) in KINDS.items() for verb in verbs]


@pytest.fixture(params=[ENGINE] if ENGINE else ["directory", "network", "signed", "json", "memory"])
def db(request: pytest.FixtureRequest, root: Path | str) -> Iterator[psync.PickleShareDB]:
    store = psync.PickleShareDB(root) if ENGINE else store_of(request.param, root)
    yield store
    store.close()


@pytest.mark.parametrize(("kind", "verb"), VERBS, ids=[f"{kind} {verb}" for kind, verb in VERBS])
def test_a_state_of_another_shape_is_told_as_what_it_is_and_stays(
    db: psync.PickleShareDB, kind: str, verb: str
) -> None:
    make, verbs = KINDS[kind]
    shared = make(db)._shared
    codec = codec_of(db.engine.format)
    for what, shape in SHAPES.items():
        if what in ("bytes", "infinite") and not codec.objects:
            continue
        payload = codec.dump_state(shape)
        shared._register.update(lambda _, payload=payload: payload)
        with pytest.raises(psync.CorruptValue, match=f"{kind}.*was not written by psync.*remove its file"):
            verbs[verb](make(db))
        assert shared._register.read() == payload, what
    assert db.sweep() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_kind_is_told_as_what_it_is(db: psync.PickleShareDB, kind: str) -> None:
    make, verbs = KINDS[kind]
    mine = make(db)._shared
    for other, (make_other, _) in KINDS.items():
        empty = make_other(db)._shared._empty
        if len(empty) == len(mine._empty) and all(map(lambda a, b: type(a) is type(b), empty, mine._empty)):
            continue  # it means something here, too
        payload = codec_of(db.engine.format).dump_state(tuple(empty))
        mine._register.update(lambda _, payload=payload: payload)
        for verb in verbs.values():
            with pytest.raises(psync.CorruptValue):
                verb(make(db))
        assert other != kind


# -- files -------------------------------------------------------------------------------------------


def full_folder(path: str) -> None:
    os.mkdir(path)
    Path(path, "file").touch()


PUT: dict[str, Callable[[str], object]] = {
    "a folder": os.mkdir,
    "a full folder": full_folder,
    "a link": lambda path: os.symlink("/etc/hostname", path),
    "a link to nothing": lambda path: os.symlink("nowhere", path),
    "a link to itself": lambda path: os.symlink(os.path.basename(path), path),
    "a FIFO": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "nothing in it": lambda path: Path(path).touch(),
    "a text": lambda path: Path(path).write_text(200 * "no file of psync's\n"),
}
OWN = [
    "event/event",
    "counter/counter",
    "barrier/barrier",
    "locks/lock%2Flock",
    "queue/queue/log/front",
    "queue/queue/log/tail",
    "queue/queue/log/*",
    "queue/queue/results/*",
    "mailbox/box/*",
    "wake/armed",
    "format",
    "owners",
]
"""Files of each kind among psync's own; the name of one, or of the first in its folder."""


def use_everything(root: Path, options: dict[str, Any]) -> list[str]:
    """What is wrong with what the verbs say, in a process that never hangs."""
    wrong = []

    def hangs(number: int, frame: Any) -> None:
        raise TimeoutError("it hangs")

    def use(what: str, verb: Callable[[], object]) -> None:
        signal.setitimer(signal.ITIMER_REAL, 20)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                verb()
        except (psync.PsyncError, KeyError, IndexError, queue.Empty):
            pass  # something is gone, and that is said
        except AssertionError:
            pass  # the world is not what it was before
        except BaseException as error:
            if "'World' object" not in str(error):  # it could not be made whole
                wrong.append(f"{what}: {error!r}")
        signal.setitimer(signal.ITIMER_REAL, 0)

    signal.signal(signal.SIGALRM, hangs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            db = psync.PickleShareDB(root, **options)
    except psync.PsyncError:
        return []
    world = World.__new__(World)
    use("opening", lambda: world.__init__(db))  # type: ignore[misc]
    for name in OPERATIONS:
        use(name, lambda name=name: perform(world, name))  # type: ignore[misc]
    use("sweep", db.sweep)
    use("items", lambda: list(db.items()))
    use("dead", lambda: psync.WorkQueue(db, "queue").dead())
    use("recover", lambda: psync.WorkQueue(db, "queue").recover())
    use("compact", lambda: psync.Mailbox(db, "box").compact())
    use("clear", db.clear)
    use("close", db.close)
    return wrong


@files
@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("place", ["directory", "network", "signed", "json"] if SCALE >= 5 else ["directory"])
def test_another_kind_of_file_among_psyncs_own_is_an_error_of_its_own(root: Path, own: str, place: str) -> None:
    options: dict[str, Any] = {
        "directory": {},
        "network": {"sharing": "network"},
        "signed": {"key": b"k" * 32},
        "json": {"serializer": "json"},
    }[place]

    def prepare() -> None:
        world = World(psync.PickleShareDB(root, **options))
        for name in OPERATIONS:
            perform(world, name)
            world.fill()
        world.db.close()

    together([prepare])
    good = root.with_name(f"{root.name}-good")
    shutil.copytree(root, good)
    try:
        for what, put in PUT.items():
            shutil.rmtree(root)
            shutil.copytree(good, root)
            path = next(iter(sorted(root.glob(f".psync/{own}"))), None)
            if path is None:
                pytest.skip("such a store has none")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            put(str(path))
            (wrong,) = together([lambda: use_everything(root, options)])
            assert wrong == [], f"{what} at {path}"
    finally:
        shutil.rmtree(good)
