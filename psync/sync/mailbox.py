"""Mailbox: one message per address, written once and read any number of times.

On disk, a mailbox is a hashed category below ``.psync/mailbox/``. The fact that decides: the append to the bucket of
the address, made under a lock while neither the bucket nor the compacted file has a message for the address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from psync.engine import Durability, Engine, rejoined
from psync.engine.contract.bucket import COMPRESSED
from psync.engine.system.reentry import finish_later
from psync.errors import ReentrantCall, UnreadableValue, WaitTimeout
from psync.store.category import Category
from psync.store.sentinels import MISSING, NOT_YET
from psync.store.unreadable import warn_unreadable
from psync.store.waiting import wait_for, watched
from psync.sync.primitive import Place, engine_of, own_name


class MailboxStatistics(NamedTuple):
    """Snapshot of a mailbox: see `Mailbox.statistics`."""

    letters: int


class Mailbox:
    """Messages by address (anything hashable), for any number of writers and readers, in any order of starting.

    >>> import tempfile
    >>> box = Mailbox(tempfile.mkdtemp(), "answers")
    >>> box.post("question 7", 42), box.post("question 7", 43)
    (True, False)
    >>> box.get("question 7")
    42

    `durability`: that of the messages posted through this handle, if it is not the store's (see `PickleShareDB`).
    """

    def __init__(self, db: Place, name: str = "mail", *, durability: Durability | None = None) -> None:
        self._set_up(engine_of(db, durability), name, own_name("mailbox", name))

    def _set_up(self, engine: Engine, name: str, where: str, box: Category | None = None) -> None:
        self.name = name
        self._where = where
        self._engine = engine
        self._box = box or Category(engine, where, shown=f"the mailbox {name!r}", item="the message for")

    @property
    def _messages(self) -> Category:
        """Return the category that readers use."""
        return self._box

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._engine, self.name, self._where)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self)} messages>"

    def post(self, address: Any, value: Any) -> bool:
        """Post a message; True if it is the first for this address. A message never changes: the first one wins.

        5 system calls (stat flock stat pwrite flock). A call that interrupts a change of the same bucket (see
        `psync.ReentrantCall`) posts right after that, unless another message came first; it returns True.
        """
        ops = self._messages.codec.item(address, value)
        try:
            return self._messages.add_pickled(address, ops)
        except ReentrantCall:
            finish_later(lambda: self._messages.add_pickled(address, ops), (self._engine, self._messages.name, ops))
            return True

    def get(self, address: Any, timeout: float | None = None) -> Any:
        """Wait for the message and return it. `WaitTimeout` after `timeout` seconds (None: never; 0: look once);
        `UnreadableValue` for one that can't be unpickled here.

        2 system calls for a message in memory (stat stat).
        """
        awaited = f"no message for {address!r} came to {self.name!r}"
        return wait_for(self._engine, self._watched([address]), lambda: self._look(address), timeout, awaited)

    def _look(self, address: Any) -> Any:
        value = self._messages.get(address, fast_only=False)
        return self._without_message(address) if value is MISSING else value

    def _without_message(self, address: Any) -> Any:
        """Return the answer for an address without a message: NOT_YET. The results of a queue override this."""
        return NOT_YET

    def _watched(self, addresses: Iterable[Any]) -> list[str]:
        return sorted({self._messages.bucket_name(address) for address in addresses})

    def collect(
        self, addresses: Iterable[Any] | None = None, timeout: float | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (address, message) for each of `addresses` as the messages arrive, in the order in which they are seen.

        Raises `WaitTimeout` when a message is still missing `timeout` seconds after the first look (None: never).
        Without `addresses` it yields every message, present and future; it ends when no new one came for `timeout`
        seconds. It passes over a message that can't be unpickled here, with a RuntimeWarning."""
        if addresses is None:
            yield from self._collect_all(timeout)
            return
        missing = dict.fromkeys(addresses)
        unreadable: list[UnreadableValue] = []
        arrivals = self.arrivals()
        buckets = arrivals.buckets_of(missing)
        begun = self._engine.now()
        with watched(self._engine, self._watched(missing), timeout) as watch:
            while missing:
                new = arrivals.new(buckets, unreadable.append)
                found = [(address, value) for address, value in new if address in missing]
                while unreadable:
                    if missing.pop((error := unreadable.pop()).key, MISSING) is not MISSING:
                        warn_unreadable(error, stacklevel=2)
                found = found or self._settled(missing)
                for address, value in found:
                    if missing.pop(address, MISSING) is not MISSING:
                        yield address, value
                if missing and not found:
                    waited = self._engine.now() - begun
                    if timeout is not None and waited >= timeout:
                        raise WaitTimeout(
                            f"{len(missing)} messages did not come to {self.name!r} within {timeout:g} seconds, "
                            f"the first of them {next(iter(missing))!r}; are their writers running?",
                            key=next(iter(missing)),
                            waited=waited,
                        )
                    watch.pause(None if timeout is None else timeout - waited)

    def _settled(self, missing: Iterable[Any]) -> list[tuple[Any, Any]]:
        """Return the answers for those of `missing` that need no message. The results of a queue override this."""
        return []

    def _collect_all(self, timeout: float | None) -> Iterator[tuple[Any, Any]]:
        buckets = [f"{self._where}/{number:02x}" for number in range(256)]
        arrivals = self.arrivals()
        seen = set()
        unreadable: list[UnreadableValue] = []
        begun = self._engine.now()
        with watched(self._engine, buckets, timeout) as watch:
            while True:
                new = arrivals.new(unreadable=unreadable.append)
                found = [(address, value) for address, value in new if address not in seen]
                while unreadable:
                    if (error := unreadable.pop()).key not in seen:
                        seen.add(error.key)
                        warn_unreadable(error, stacklevel=3)
                for address, value in found:
                    seen.add(address)
                    yield address, value
                now = self._engine.now()
                if found:
                    begun = now
                elif timeout is not None and now - begun >= timeout:
                    return
                else:
                    watch.pause(None if timeout is None else timeout - (now - begun))

    def arrivals(self) -> Arrivals:
        """Return a reader that polls: each call of `new` yields the messages that came since the last one."""
        return Arrivals(self._messages)

    def __contains__(self, address: Any) -> bool:
        return self._messages.has(address) or self._without_message(address) is not NOT_YET

    def __len__(self) -> int:
        return len(self.addresses())

    def addresses(self) -> list[Any]:
        """List all addresses that have a message, one that can't be unpickled here, too."""
        return self._messages.keys(_refuse)

    def discard(self, address: Any) -> bool:
        """Remove the message without reading it; True for the one caller that removed it."""
        return self._messages.remove(address)

    def take(self, address: Any) -> Any:
        """Remove the message and return it. One of several concurrent callers gets it, the others get a KeyError.

        `UnreadableValue`, with nothing removed, if it can't be unpickled here: see `discard`.
        """
        value = self._messages.pop(address)
        if value is MISSING:
            raise KeyError(address)
        return value

    def compact(self) -> None:
        """Move all messages to one file, so that reading all of them is fast. Other calls may run at the same time."""
        self._messages.compress()

    def statistics(self) -> MailboxStatistics:
        """Return a snapshot; reads every message, changes nothing."""
        return MailboxStatistics(len(self))


class Arrivals:
    """Reads the messages of a mailbox as they come: every `new` reads only the bytes that were appended since."""

    def __init__(self, messages: Category) -> None:
        self._messages = messages
        self._all = [f"{messages.name}/{number:02x}" for number in range(256)]
        self._compressed = f"{messages.name}/{COMPRESSED}"
        self._positions: dict[str, Any] = {}

    def buckets_of(self, addresses: Iterable[Any]) -> set[str]:
        """Return the buckets that hold the messages of these addresses."""
        return {self._messages.bucket_name(address) for address in addresses}

    def new(
        self, buckets: Iterable[str] | None = None, unreadable: Callable[[UnreadableValue], object] | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (address, message) for messages that came since the last call, to each of `buckets` (None: all).

        `unreadable` is called with the error for each that can't be unpickled here, which is passed over.
        An fstat for each bucket, and a pread for each that grew. After `compact` it may repeat messages.
        """
        # the compressed file comes last, because a bucket that was compacted meanwhile is gone, and its messages are
        # there
        names = (*(self._all if buckets is None else sorted(buckets)), self._compressed)
        for name, tail in self._messages.engine.tails({name: self._positions.get(name) for name in names}):
            if tail is None:
                self._positions.pop(name, None)
            elif tail.ops:
                self._positions[name] = tail.position
                yield from self._messages.appended(name, tail, unreadable or _ignore)


def _ignore(error: Exception) -> None:
    """Pass over a message."""


def _refuse(error: Exception) -> None:
    raise error


def _reopen(kind: type[Mailbox], engine: Engine, name: str, where: str) -> Mailbox:
    box = kind.__new__(kind)
    box._set_up(rejoined(engine), name, where)
    return box
