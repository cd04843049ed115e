"""Store copy: copies a whole store to another place, of any kind, so that work can go on there.

A store consists of cells, buckets, registers and logs. Each is copied by its shape, so this module does not need to
know barriers or locks. (Logs belong to queues, whose task ids contain positions: see `sync.queue.migrate`.) Owners mean
nothing elsewhere: their holds are free at the destination, as if they had died. Values are not unpickled.

The copy first writes everything that is missing at the destination, or differs; then it compares everything. So a copy
that was killed goes on when it is begun again. The facts that decide stand in one cell of the destination,
``.psync/copy``: the source, the end of each queue when the copy was begun, and whether all is done. A place that holds
something else is refused.

Only one value at a time is in memory, and the ids of one queue; never a list of all names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from psync.engine import Engine, Serializer, open_engine
from psync.engine.admin import is_there, looking_engine
from psync.engine.contract.report import Shape
from psync.engine.contract.values import Alive
from psync.engine.serialization import agree
from psync.engine.store_marker import SERIALIZER_MARKER as SERIALIZER
from psync.errors import CorruptValue, InvalidKey, StoreFailed
from psync.store import PickleShareDB
from psync.store.codec import codec_of
from psync.store.foreign import ForeignNames
from psync.sync.primitive import Place, given_name
from psync.sync.queue.migrate import COPIED_CATEGORIES, Migration, QueuesDiffer

OWN = ".psync/"
QUEUES = f"{OWN}queue/"
NOTE = f"{OWN}copy"
"""The cell at the destination."""
ALONE = "copy/store"
"""The mutex that excludes other copies to the same place."""


class Difference(NamedTuple):
    """A difference between the two stores."""

    name: str
    why: str


class Copied(NamedTuple):
    """Progress of `copy_store`, or its result."""

    values: int = 0
    categories: int = 0
    """Hashed categories, and mailboxes."""
    primitives: int = 0
    queues: int = 0
    tasks: int = 0
    """Tasks that wait at the destination because of this call."""
    written: int = 0
    """Values, parts of categories and primitives that were missing at the destination, or differed."""
    compared: int = 0
    was_complete: bool = False
    """Whether an earlier call had copied everything. Then this one did nothing."""
    differences: tuple[Difference, ...] = ()
    """Empty if both stores have the same content."""


def copy_store(source: Place, destination: Place, *, progress: Callable[[Copied], object] | None = None) -> Copied:
    """Copy all that is in `source` to `destination`, an empty place, or one that an earlier call began to copy to.

    >>> import tempfile
    >>> from psync import MemoryEngine, WorkQueue
    >>> old, new = PickleShareDB(tempfile.mkdtemp()), PickleShareDB(MemoryEngine())
    >>> old["a"] = 1
    >>> id = WorkQueue(old, "jobs").put("work")
    >>> copied = copy_store(old, new)
    >>> copied.values, copied.tasks, copied.differences
    (1, 1, ())
    >>> new["a"], WorkQueue(new, "jobs").state(id)
    (1, 'waiting')

    Nobody may use either store meanwhile. If something changes all the same, or can't be read, `differences` names it.
    `progress` is called again and again. After a kill at any instant, the next call goes on. A source that is named by
    a path or URL is opened read-only. Its key is the one in PSYNC_KEY_FILE, and so is that of such a destination.

    Not copied are locks that are held, processes, and bytes that were set aside as damaged. Tokens of locks begin anew.
    Files that psync did not write are left out, and told in one RuntimeWarning.

    Raises ValueError if the two are the same place or the destination holds something else, `StoreFailed` and so on
    when one of them refuses.
    """
    with contextlib.ExitStack() as opened:
        here = _source(source, opened)
        agree(here, None, None)
        there = _destination(destination, here, opened)
        if here is there or _place(here) == _place(there):
            raise ValueError(f"{_place(here)} can't be copied to itself")
        if _serializer(here) != _serializer(there):
            what = f"{_place(here)} keeps values as {_serializer(here)}, {_place(there)} as {_serializer(there)}"
            raise ValueError(f"{what}: open both with the same serializer")
        opened.enter_context(_alone(there))
        return _Copying(here, there, progress or _nothing).run()


def _nothing(copied: Copied) -> None:
    """Report no progress."""


def _source(place: Place, opened: contextlib.ExitStack) -> Engine:
    if isinstance(place, PickleShareDB):
        return place.engine
    if isinstance(place, Engine):
        return open_engine(place)
    if not is_there(place):
        raise ValueError(f"{place} is not a directory")
    engine = looking_engine(place)
    opened.callback(engine.close)
    return engine


def _destination(place: Place, source: Engine, opened: contextlib.ExitStack) -> Engine:
    if isinstance(place, PickleShareDB):
        return place.engine
    if isinstance(place, Engine):
        return open_engine(place)
    engine = open_engine(place, serializer=_serializer(source))  # a new destination gets the serializer of the source
    opened.callback(engine.close)
    return engine


def _serializer(engine: Engine) -> Serializer:
    return engine.format.serializer if engine.format is not None else "pickle"


def _place(engine: Engine) -> str:
    return str(getattr(engine, "root", engine))


@contextlib.contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    mutex = engine.mutex(ALONE)
    if not mutex.acquire(timeout=0):
        holder = mutex.holder()
        who = engine.describe(holder) if holder and engine.alive(holder) is not Alive.NO else "somebody else"
        raise StoreFailed(f"{who} is copying to {_place(engine)} already", key=None)
    try:
        yield
    finally:
        mutex.release()


class _Copying:
    """One run of `copy_store`."""

    def __init__(self, source: Engine, destination: Engine, progress: Callable[[Copied], object]) -> None:
        self._from, self._to = source, destination
        self._codec = codec_of(destination.format)
        self._progress = progress
        self._so_far = Copied()
        self._note: dict[str, Any] = {}
        self._differences: list[Difference] = []
        self._unlike: set[str] = set()
        """Queues that can't be moved."""
        self._foreign = ForeignNames()

    def run(self) -> Copied:
        begun_before = self._begin()
        if self._note["complete"]:
            return Copied(was_complete=True)
        self._go_through(write=True)
        if begun_before:
            self._remove_others()
        self._differences = [each for each in self._differences if each.name in self._unlike]
        self._go_through(write=False)
        self._compare_others()
        if not self._differences:
            self._noted(complete=True)
        self._foreign.tell(stacklevel=3)
        return self._so_far._replace(differences=tuple(self._differences))

    def _begin(self) -> bool:
        """Tell whether this copy was begun before. Raises ValueError if the place holds something else."""
        cell = self._to.read(NOTE)
        if cell is None:
            found = next((each for each in self._to.walk() if each[1] != SERIALIZER), None)
            if found is not None:
                raise ValueError(
                    f"{_place(self._to)} holds {found[1]!r} already: a store is copied to an empty place, or to one "
                    "where a copy of it was begun"
                )
            self._noted(source=_place(self._from), complete=False, queues={})
            return False
        self._note = self._codec.loads(cell.payload)
        if self._note["source"] != _place(self._from):
            raise ValueError(f"{_place(self._to)} is a copy of {self._note['source']}, not of {_place(self._from)}")
        return True

    def _noted(self, **facts: Any) -> None:
        self._note |= facts
        self._to.write(NOTE, self._codec.dumps(self._note))

    def _count(self, **more: int) -> None:
        self._so_far = self._so_far._replace(**{name: getattr(self._so_far, name) + n for name, n in more.items()})
        self._progress(self._so_far)

    # -- the walk ----------------------------------------------------------------------------------------

    def _go_through(self, *, write: bool) -> None:
        folders: dict[str, None] = {}
        queues: dict[str, None] = {}
        for shape, name in self._from.walk():
            if name.startswith(QUEUES):
                queues[name[len(QUEUES) :].partition("/")[0]] = None
            if not _is_copied(name):
                continue
            if shape is Shape.BUCKET and not name.startswith(QUEUES):
                folders[name.rpartition("/")[0]] = None
            with self._told(name):
                same = self._bring(shape, name, write=write)
                if not (same or write):
                    self._differences.append(Difference(name, "it is not the same in both"))
                self._count(**(_kind(shape, name) | {"written": int(not same)} if write else {"compared": 1}))
        for queue in map(given_name, queues):
            with self._told(f"queue {queue}"):
                self._queue(queue, write=write)
        if write:
            self._count(categories=len(folders), queues=len(queues))

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Record a difference for a name that can't be read here, or can't stand there, and go on with the rest."""
        try:
            yield
        except (CorruptValue, InvalidKey, QueuesDiffer) as error:
            if isinstance(error, CorruptValue) and self._foreign.passes(error):
                return
            if isinstance(error, QueuesDiffer):
                self._unlike.add(name)
            self._differences.append(Difference(name, str(error)))
        except UnicodeEncodeError:
            self._differences.append(Difference(name, "its name holds bytes that are no text: it can't stand there"))

    # -- cells, buckets and registers --------------------------------------------------------------------

    def _bring(self, shape: Shape, name: str, *, write: bool) -> bool:
        """Tell whether the destination has the same at `name`; if not, write it there if `write`."""
        content = _content(self._from, shape, name)
        if content is None:
            return True  # it was removed since it was listed
        there = _content(self._to, shape, name)
        if content == there:
            return True
        if write:
            self._write(shape, name, *content, new=there is None)
        return False

    def _write(self, shape: Shape, name: str, payload: bytes, flags: int, *, new: bool) -> None:
        if shape is Shape.REGISTER:
            self._to.register(name).update(lambda old: payload)
            return
        if shape is Shape.CELL:
            self._to.write(name, payload)
            return
        bucket = self._to.bucket(name)
        if new and not flags and bucket.append(payload):
            return
        bucket.append(b"")
        with bucket.held() as held:
            if held is None:
                raise StoreFailed(f"{name!r} went away: somebody else uses {_place(self._to)}", key=name)
            held.replace(payload, flags=flags)

    def _remove_others(self) -> None:
        """Remove names of the destination that the source lost since the copy was begun."""
        for shape, name in self._others():
            if shape in (Shape.CELL, Shape.BUCKET):
                self._to.delete(name)

    def _compare_others(self) -> None:
        for _, name in self._others():
            self._differences.append(Difference(name, "it is only in the copy"))

    def _others(self) -> Iterator[tuple[Shape, str]]:
        for shape, name in self._to.walk():
            if _is_copied(name) and not self._is_here(shape, name):
                yield shape, name

    def _is_here(self, shape: Shape, name: str) -> bool:
        if shape is Shape.REGISTER:
            with contextlib.suppress(CorruptValue):
                return self._from.register(name).read() is not None
        return self._from.facts(name) is not None

    # -- queues ------------------------------------------------------------------------------------------

    def _queue(self, queue: str, *, write: bool) -> None:
        if f"queue {queue}" in self._unlike:
            return
        move = Migration(self._from, self._to, queue)
        if not write:
            self._differences += [Difference(f"queue {queue}", why) for why in move.differences()]
            return
        ends, then = move.ends(), self._note["queues"].get(queue)
        if then is None:
            # copy the ids as they are before the move begins: it gives them other locations
            for shape, name in self._from.walk(f"{move.where}/ids"):
                self._bring(shape, name, write=True)
            self._noted(queues={**self._note["queues"], queue: ends})
        elif then != ends:
            raise QueuesDiffer("it was used since the copy was begun: begin anew, with an empty destination")
        move.run(lambda added: self._count(tasks=added))


def _is_copied(name: str) -> bool:
    """Tell whether the bytes at `name` are copied as they are."""
    if name.startswith(QUEUES):
        _, _, rest = name[len(QUEUES) :].partition("/")
        return rest.partition("/")[0] in COPIED_CATEGORIES
    return name not in (NOTE, SERIALIZER)


def _content(engine: Engine, shape: Shape, name: str) -> tuple[bytes, int] | None:
    """Read the payload at `name`, and its flags; None if there is nothing of that shape."""
    if shape is Shape.REGISTER:
        payload = engine.register(name).read()
        return None if payload is None else (payload, 0)
    if shape is Shape.BUCKET:
        tail = engine.bucket(name).tail()
        return None if tail is None or tail.foreign else (tail.ops, tail.flags)
    cell = engine.read(name)
    return None if cell is None else (cell.payload, 0)


def _kind(shape: Shape, name: str) -> dict[str, int]:
    """Return the counter of `Copied` that the name belongs to."""
    if shape is Shape.REGISTER:
        return {"primitives": 1}
    return {} if name.startswith(OWN) or shape is Shape.BUCKET else {"values": 1}
