"""One letter per address, written once, read as often as you like.

A mailbox is a hashed category below ``.psync/mailbox/``. The fact that decides: the append to the address's
bucket, made while it is certain that neither the bucket nor what was compacted has a letter for the address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from psync.engine import Durability, Engine, rejoined
from psync.errors import WaitTimeout
from psync.store.category import COMPRESSED, Category
from psync.store.key_hash import gethashfile
from psync.store.sentinels import MISSING, NOT_YET
from psync.store.waiting import wait_for
from psync.sync.primitive import Place, engine_of, own_name


class MailboxStatistics(NamedTuple):
    """What `Mailbox.statistics` saw: how many letters there are."""

    letters: int


class Mailbox:
    """Letters by address (anything hashable), for any number of writers and readers, in any order of starting.

    >>> import tempfile
    >>> box = Mailbox(tempfile.mkdtemp(), "answers")
    >>> box.post("question 7", 42), box.post("question 7", 43)
    (True, False)
    >>> box.get("question 7")
    42

    `durability`: that of the letters posted through this handle, if it is not the store's (see `PickleShareDB`).
    """

    def __init__(self, db: Place, name: str = "mail", *, durability: Durability | None = None) -> None:
        self._setup(engine_of(db, durability), name, own_name("mailbox", name))

    def _setup(self, db: Place, name: str, where: str, place: Callable[[Any], str] = gethashfile) -> None:
        self.name = name
        self._where = where
        self._engine = engine_of(db)
        self._box = Category(self._engine, where, place)

    @property
    def _letters(self) -> Category:
        """What who asks for letters looks into."""
        return self._box

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._engine, self.name, self._where)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self)} letters>"

    def post(self, address: Any, value: Any) -> bool:
        """Leave a letter; True if it is the first for this address. A letter never changes: the first wins.

        4 system calls (flock stat pwrite flock).
        """
        return self._letters.add(address, value)

    def get(self, address: Any, timeout: float | None = None) -> Any:
        """The letter, as soon as there is one. `WaitTimeout` after `timeout` seconds (None: never; 0: look once).

        1 system call for a letter in memory (stat).
        """
        awaited = f"no letter for {address!r} came to {self.name!r}"
        return wait_for(self._engine, self._watched([address]), lambda: self._look(address), timeout, awaited)

    def _look(self, address: Any) -> Any:
        value = self._letters.get(address, fast_only=False)
        return self._without_letter(address) if value is MISSING else value

    def _without_letter(self, address: Any) -> Any:
        """What to answer for an address that has no letter: NOT_YET. (A queue's results know more.)"""
        return NOT_YET

    def _watched(self, addresses: Iterable[Any]) -> list[str]:
        return sorted({self._letters.bucket_name(address) for address in addresses})

    def collect(
        self, addresses: Iterable[Any] | None = None, timeout: float | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (address, letter) for each of `addresses` as the letters arrive, in the order in which they are seen.

        Raises `WaitTimeout` when a letter is still missing `timeout` seconds after the first look (None: never).
        Without `addresses`: every letter there is or will be; ends when `timeout` seconds have brought no new one.
        """
        if addresses is None:
            yield from self._collect_all(timeout)
            return
        missing = dict.fromkeys(addresses)
        arrivals = self.arrivals()
        buckets = arrivals.buckets_of(missing)
        begun = self._engine.now()
        with self._engine.watch(self._watched(missing)) as watch:
            while missing:
                found = [(address, value) for address, value in arrivals.new(buckets) if address in missing]
                found = found or self._settled(missing)
                for address, value in found:
                    if missing.pop(address, MISSING) is not MISSING:
                        yield address, value
                if missing and not found:
                    waited = self._engine.now() - begun
                    if timeout is not None and waited >= timeout:
                        raise WaitTimeout(
                            f"{len(missing)} letters did not come to {self.name!r} within {timeout:g} seconds, "
                            f"the first of them {next(iter(missing))!r}; are those who write them running?",
                            key=next(iter(missing)),
                            waited=waited,
                        )
                    watch.pause(None if timeout is None else timeout - waited)

    def _settled(self, missing: Iterable[Any]) -> list[tuple[Any, Any]]:
        """Of addresses without a letter, those for which there is an answer all the same."""
        return []

    def _collect_all(self, timeout: float | None) -> Iterator[tuple[Any, Any]]:
        buckets = [f"{self._where}/{number:02x}" for number in range(256)]
        arrivals = self.arrivals()
        seen = set()
        begun = self._engine.now()
        with self._engine.watch(buckets) as watch:
            while True:
                found = [(address, value) for address, value in arrivals.new() if address not in seen]
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
        """For who looks again and again: each look yields the letters that came since the last one."""
        return Arrivals(self._letters)

    def __contains__(self, address: Any) -> bool:
        return self._look(address) is not NOT_YET

    def __len__(self) -> int:
        return len(self._everything())

    def addresses(self) -> list[Any]:
        """All addresses that have a letter."""
        return list(self._everything())

    def _everything(self) -> dict[Any, Any]:
        return self._letters.everything(_refuse)

    def take(self, address: Any) -> Any:
        """Remove the letter and return it; one of several who take it at once gets it, the others a KeyError."""
        value = self._letters.pop(address)
        if value is MISSING:
            raise KeyError(address)
        return value

    def compact(self) -> None:
        """Move all letters to one file, so that reading all of them is fast. May run beside everything."""
        self._letters.compress()

    def statistics(self) -> MailboxStatistics:
        """A look that changes nothing; reads every letter."""
        return MailboxStatistics(len(self))


class Arrivals:
    """The letters of a mailbox, each seen once: only what was appended since is read."""

    def __init__(self, letters: Category) -> None:
        self._letters = letters
        self._all = [f"{letters.name}/{number:02x}" for number in range(256)]
        self._compressed = f"{letters.name}/{COMPRESSED}"
        self._positions: dict[str, Any] = {}

    def buckets_of(self, addresses: Iterable[Any]) -> set[str]:
        """What to look through for the letters of these."""
        return {self._letters.bucket_name(address) for address in addresses}

    def new(self, buckets: Iterable[str] | None = None) -> Iterator[tuple[Any, Any]]:
        """(address, letter) of what came since the last look into each of `buckets` (None: all), or before.

        An fstat a bucket, and a pread where something came. May repeat what was seen, after `compact`.
        """
        # A bucket that was compacted meanwhile is gone, but what it held is in the compressed file, which is looked at
        # last for that reason.
        names = (*(self._all if buckets is None else sorted(buckets)), self._compressed)
        for name, tail in self._letters.engine.tails({name: self._positions.get(name) for name in names}):
            if tail is None:
                self._positions.pop(name, None)
            elif tail.ops:
                self._positions[name] = tail.position
                yield from self._letters.appended(name, tail).items()


def _refuse(error: Exception) -> None:
    raise error


def _reopen(kind: type[Mailbox], engine: Engine, name: str, where: str) -> Mailbox:
    box = kind.__new__(kind)
    box._setup(rejoined(engine), name, where)
    return box
