"""Engine on a server: does the verbs on cells, and composes the parts for all other verbs."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psync.engine.contract.bucket import Bucket, ForeignBucket, Position, Tail, is_bucket_name
from psync.engine.contract.engine import Engine, Mutex
from psync.engine.contract.log import Log
from psync.engine.contract.register import Register
from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive, Cell, Durability, Format, Update, Version
from psync.engine.redis import encoding, lua, scan
from psync.engine.redis.bucket import RedisBucket, tails
from psync.engine.redis.client import Server
from psync.engine.redis.log import RedisLog
from psync.engine.redis.mutex import RedisMutex
from psync.engine.redis.pubsub import RedisWatch
from psync.engine.redis.register import RedisRegister
from psync.engine.redis.server_info import ServerInfo
from psync.engine.redis.store import HIDDEN, RedisStore
from psync.engine.redis.url import parse
from psync.engine.system import clock, exit_hooks, fork_hooks

CLOCK_CHECK_S = 10.0
"""Seconds between two requests for the time of the server."""


class RedisEngine(Engine):
    """Bytes under names on the server that `url` names: ``redis://``, ``rediss://`` (TLS) or ``unix://``.

    Options in the URL: ``prefix`` (which store of that server; "psync" if none is given), ``lease`` (seconds after
    which a process that the server does not hear of counts as dead), ``patience`` (seconds for which a server that does
    not answer is tried again), and all of redis-py's. Nothing is sent before the first verb, or `look`.

    Raises `ValueError` for a URL that can't be, `ImportError` where redis-py is not installed, `StoreFailed` for a
    server that refuses or stays away.
    """

    spin = 0.0
    grace = 0.5
    remote = True
    serving: type[Server] = Server

    def __init__(self, url: str, durability: Durability = "process") -> None:
        self.address = parse(url)
        self.durability = durability
        self.server = self.serving(self.address)
        self.store = RedisStore(self.server, self.grace)
        self._farewells = exit_hooks.CloseCallbacks()
        self._offset = self._asked = -math.inf
        fork_hooks.remember(self)

    def __repr__(self) -> str:
        return f"<RedisEngine {self.address.shown}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self.opened_with

    @property
    def opened_with(self) -> tuple[str, Durability, Format | None]:
        """The arguments that open the same store in another process, its password included."""
        return self.address.whole, self.durability, self.format

    def look(self) -> ServerInfo:
        """Check what the server is like. Raises `StoreFailed` for one that can't keep psync's promises, `ValueError`
        for one that does not keep what `durability` promises; warns of one that does not tell."""
        found = self.server.info()
        found.check(self.root)
        found.check_level(self.durability, self.root)
        if found.policy is None:
            warnings.warn(
                f"the server of {self.root} does not tell its maxmemory-policy (INFO is forbidden): see that it is "
                "noeviction, or values, results and locks may vanish",
                RuntimeWarning,
                stacklevel=5,
            )
        return found

    def at(self, durability: Durability | None) -> RedisEngine:
        """Return itself: the server has one durability for all. Raises `ValueError` if that is less than
        `durability`."""
        if durability is not None:
            self.server.info().check_level(durability, self.root)
        return self

    @property
    def root(self) -> str:
        """The URL without the password, for people."""
        return self.address.shown

    def after_fork(self) -> None:
        """A child does not call the close callbacks of its parent."""
        self._farewells.forget()

    # -- cells ---------------------------------------------------------------------------------------

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        data = self.server.get(b"n:", name.encode())
        if data is None:
            return None
        cell = self.store.cell(name, data)
        return known if known is not None and known.version == cell.version else cell

    def write(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> None:
        self.store.put(lua.WRITE, name.encode(), encoding.cell(payload), b"", _spared(name, spare_bucket))

    def create(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> bool:
        spared = _spared(name, spare_bucket)
        return bool(self.store.put(lua.CREATE, name.encode(), encoding.cell(payload), spared)[1])

    def delete(self, name: str, *, spare_foreign: bool = False) -> bool:
        return bool(self.store.put(lua.REMOVE, name.encode(), b"", b"")[1])

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        key = name.encode()
        what = b"n:" + key
        with self.store.locks.held(what, what) as lock:
            if lock.value is None:
                return None
            cell = self.store.cell(name, lock.value)
            if before is not None:
                before(cell)
            self.store.put(lua.REMOVE, key, lock.proof, b"")
            return cell

    def move(self, name: str, new: str) -> bool:
        key, target = name.encode(), new.encode()
        while True:
            answer = self.server.run(lua.MOVE, key, target, b"", b"")
            if answer[0] != lua.BUSY:
                return bool(self.store.checked(b"n:" + target, answer)[1])
            for one in (key, target):
                self.store.until_let_go(b"n:" + one)

    def update(self, name: str, function: Update, *, spare_bucket: Callable[[], bool] | None = None) -> bytes | None:
        """Two round trips: one locks and reads, one writes and releases."""
        key = name.encode()
        what = b"n:" + key
        with self.store.locks.held(what, what) as lock:
            if lock.value is not None:
                old: bytes | None = self.store.cell(name, lock.value).payload
            else:
                self.store.checked(what, self.server.run(lua.PLACE, key))
                old = None
            new = function(old)
            if new is None or new is old:
                return old
            spared = _spared(name, spare_bucket is not None and spare_bucket())
            data = encoding.cell(bytes(new))
            self.store.checked(what, self.server.run(lua.PUT_HELD, what, lock.proof, key, data, spared))
            self.store.locks.ended(what, lock)
            return new

    def entries(self, folder: str = "") -> tuple[builtins.list[str], builtins.list[str]]:
        _, names, folders = self.server.run(lua.FOLDER, folder.encode())
        return [name.decode() for name in names], [name.decode() for name in folders]

    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        """One round trip a folder."""
        if not hidden and f"{folder}/".startswith(f"{HIDDEN}/"):
            return
        prefix = f"{folder}/" if folder else ""
        names, folders = self.entries(folder)
        yield from (prefix + name for name in names)
        for one in folders:
            yield from self.list(prefix + one, hidden=hidden)

    # -- the other shapes ----------------------------------------------------------------------------

    def bucket(self, name: str) -> Bucket:
        return RedisBucket(self.store, name)

    def tails(self, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
        """All at one instant, in one round trip."""
        return tails(self.store, since)

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        for name in ops:
            if name.encode() not in self.store.sound:
                self.bucket(name).tail()
        if ops and not self.store.append([(name.encode(), more) for name, more in ops.items()], next(iter(ops))):
            raise ForeignBucket(f"one of {', '.join(ops)}")

    def log(self, name: str) -> Log:
        return RedisLog(self.store, name)

    def register(self, name: str) -> Register:
        return RedisRegister(self.server, name)

    def mutex(self, name: str) -> Mutex:
        return RedisMutex(self.store.locks, name)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        with self.store.locks.held(b"g:" + name.encode()):
            yield

    # -- waiting and time ----------------------------------------------------------------------------

    def watch(self, names: Sequence[str], taking: str | None = None) -> RedisWatch:
        watched = [name.encode() for name in (names if taking is None else [*names, taking])]
        return RedisWatch(self.store.channels, watched, self.grace)

    def announce(self, name: str) -> None:
        self.server.ask("PUBLISH", self.server.prefix + b"!" + name.encode(), b"")

    def now(self) -> float:
        return clock.monotonic()

    def due(self, seconds: float) -> int:
        """Return milliseconds of the server's clock, on which all hosts agree."""
        return math.ceil((self._server_time() + min(seconds, 1e9)) * 1000)

    def until(self, due: int) -> float | None:
        return due / 1000 - self._server_time()

    def _server_time(self) -> float:
        """Return seconds on the server's clock, which is asked now and then; in between, our own clock counts on."""
        now = clock.monotonic()
        if now - self._asked > CLOCK_CHECK_S:
            seconds, micros = self.server.ask("TIME")
            now = self._asked = clock.monotonic()
            self._offset = int(seconds) + int(micros) / 1e6 - now
        return now + self._offset

    def give_way(self) -> None:
        """Do nothing: every waiter here sleeps."""

    # -- owners --------------------------------------------------------------------------------------

    def owner(self) -> int:
        before, number = self.store.sessions.number, self.store.sessions.mine()
        if number != before:
            exit_hooks.remember(self)
        return number

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._farewells.add(farewell)

    def alive(self, owner: int) -> Alive:
        return self.store.sessions.alive(owner)

    def describe(self, owner: int) -> str:
        return self.store.sessions.describe(owner)

    # -- looking at the whole ------------------------------------------------------------------------

    def is_used(self) -> bool:
        return scan.is_used(self.server)

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        return scan.walk(self.server, folder)

    def facts(self, name: str) -> Facts | None:
        return scan.facts(self.server, name)

    def mutexes(self) -> Sequence[str]:
        return scan.mutexes(self.server)

    def processes(self) -> Sequence[Process]:
        return scan.processes(self.server, self.store.sessions)

    # -- housekeeping --------------------------------------------------------------------------------

    def spare_damaged(self, when: Callable[[], bool]) -> None:
        self.store.spares = when

    def set_aside(self, name: str, reason: str, seen: Version | None = None, *, foreign: bool = False) -> str | None:
        return self.store.set_aside(name, reason, seen)

    def sweep(self) -> int:
        return self.store.sessions.sweep()

    def remove(self) -> None:
        """Remove the whole store from the server. The caller made it, and knows that nobody else uses it."""
        for key in self.server.keys(b""):
            self.server.ask("UNLINK", self.server.prefix + key)

    def close(self) -> None:
        """End the session; a later verb opens the connections again, as a new owner. A held mutex stays held."""
        self._farewells.run()
        self.store.close()


def _spared(name: str, spare_bucket: bool) -> bytes:
    return b"1" if spare_bucket and is_bucket_name(name) else b"0"


def _reopen(url: str, durability: Durability, format: Format | None) -> RedisEngine:
    engine = RedisEngine(url, durability)
    engine.format = format
    return engine
