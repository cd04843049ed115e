"""The engine on a server: cells, and the doors to the other shapes."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psync.engine.contract.bucket import Bucket, Position, Tail
from psync.engine.contract.engine import Engine, Mutex
from psync.engine.contract.log import Log
from psync.engine.contract.register import Register
from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive, Cell, Durability, Format, Update, Version
from psync.engine.redis import encoding, lua, scan
from psync.engine.redis.bucket import RedisBucket, tails
from psync.engine.redis.client import Server
from psync.engine.redis.locks import Hold, Holds
from psync.engine.redis.log import RedisLog
from psync.engine.redis.lua import Script
from psync.engine.redis.mutex import RedisMutex
from psync.engine.redis.pubsub import Channels, RedisWatch
from psync.engine.redis.register import RedisRegister
from psync.engine.redis.server_info import Premises
from psync.engine.redis.sessions import Owners
from psync.engine.redis.url import parse
from psync.engine.system import clock, exit_hooks, fork_hooks
from psync.errors import CorruptValue, InvalidKey

HIDDEN = ".psync"
SET_CLOCK = 10.0
"""Seconds after which the server is asked again what time it is."""


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
        self.owners = Owners(self.server)
        self.holds = Holds(self)
        self.channels = Channels(self.server)
        self.held_mutexes: dict[bytes, Hold] = {}
        self.sound: set[bytes] = set()
        """Buckets that this process has read since they were begun: their chunks are sound."""
        self._farewells = exit_hooks.CloseCallbacks()
        self._offset = self._asked = -math.inf
        fork_hooks.remember(self)

    def __repr__(self) -> str:
        return f"<RedisEngine {self.address.shown}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self.opened_with

    @property
    def opened_with(self) -> tuple[str, Durability, Format | None]:
        """What opens the same store in another process, its password included."""
        return self.address.whole, self.durability, self.format

    def look(self) -> Premises:
        """See what the server is like. Raises `StoreFailed` for one that can't keep psync's promises, `ValueError` for
        one that does not keep what `durability` promises; warns of one that does not tell."""
        found = self.server.premises()
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
        """Itself: what the server keeps is the same for all. Raises `ValueError` if that is less than `durability`."""
        if durability is not None:
            self.server.premises().check_level(durability, self.root)
        return self

    @property
    def root(self) -> str:
        """The URL without the password: what people are told."""
        return self.address.shown

    def after_fork(self) -> None:
        """A child holds nothing, and says nobody else's farewell."""
        self.held_mutexes = {}
        self._farewells.forget()

    # -- cells ---------------------------------------------------------------------------------------

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        data = self.server.get(b"n:", name.encode())
        if data is None:
            return None
        cell = self._cell(name, data)
        return known if known is not None and known.version == cell.version else cell

    def _cell(self, name: str, data: bytes) -> Cell:
        try:
            return Cell(*encoding.uncell(data))
        except encoding.Unreadable as error:
            raise self.damaged(name, str(error)) from error

    def damaged(self, name: str, reason: str) -> CorruptValue:
        """What to raise, once the bytes are in quarantine."""
        held = bool(self.holds.proof(b"n:" + name.encode()))
        refuge = self.set_aside(name, reason)
        text = f"the value of {name!r} is damaged ({reason}); its bytes are kept at {refuge}. Set the key again"
        return (
            CorruptValue(text, key=name, path=name, quarantine=refuge, reason=reason)
            if refuge or held
            else (CorruptValue(text, key=name, path=name, quarantine=None, reason=reason))
        )

    def put(self, script: Script, name: bytes, *arguments: Any) -> list[Any]:
        """Run a script that changes `name` once nobody keeps us out. Raises `InvalidKey` where no value can stand."""
        what = b"n:" + name
        return self.checked(what, self.holds.until_free(what, lambda: self.server.run(script, name, *arguments)))

    def checked(self, what: bytes, answer: list[Any]) -> list[Any]:
        if answer[0] == lua.NO_PLACE:
            name = what[2:].decode()
            why = "is a folder of values" if answer[1] == b"folder" else "lies below another value"
            raise InvalidKey(f"{name!r} can't hold a value: it {why}; use another key", key=name)
        if answer[0] == lua.LOST:
            raise self.holds.lost(what)
        return answer

    def write(self, name: str, payload: bytes) -> None:
        self.put(lua.WRITE, name.encode(), encoding.cell(payload), b"")

    def create(self, name: str, payload: bytes) -> bool:
        return bool(self.put(lua.CREATE, name.encode(), encoding.cell(payload))[1])

    def delete(self, name: str) -> bool:
        return bool(self.put(lua.REMOVE, name.encode(), b"", b"")[1])

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        key = name.encode()
        what = b"n:" + key
        with self.holds.held(what, what) as hold:
            if hold.value is None:
                return None
            cell = self._cell(name, hold.value)
            if before is not None:
                before(cell)
            self.put(lua.REMOVE, key, hold.proof, b"")
            return cell

    def move(self, name: str, new: str) -> bool:
        key, target = name.encode(), new.encode()
        while True:
            answer = self.server.run(lua.MOVE, key, target, b"", b"")
            if answer[0] != lua.BUSY:
                return bool(self.checked(b"n:" + target, answer)[1])
            for one in (key, target):
                self.until_let_go(b"n:" + one)

    def until_let_go(self, what: bytes) -> None:
        """Return once nobody else holds `what`, as far as one look tells."""

        def look() -> list[Any]:
            session = self.server.run(lua.HOLDER, what)[1]
            return [lua.OK] if session == b"0" else [lua.BUSY, session]

        if not self.holds.proof(what):
            self.holds.until_free(what, look)

    def update(self, name: str, function: Update) -> bytes | None:
        """Two round trips: take hold and read; write and let go."""
        key = name.encode()
        what = b"n:" + key
        with self.holds.held(what, what) as hold:
            if hold.value is not None:
                old: bytes | None = self._cell(name, hold.value).payload
            else:
                self.checked(what, self.server.run(lua.PLACE, key))
                old = None
            new = function(old)
            if new is None or new is old:
                return old
            self.checked(what, self.server.run(lua.PUT_HELD, what, hold.proof, key, encoding.cell(bytes(new))))
            self.holds.is_over(what, hold)
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
        return RedisBucket(self, name)

    def tails(self, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
        """All at one instant, in one round trip."""
        return tails(self, since)

    def append(self, parts: Sequence[tuple[bytes, bytes]], name: str, proof: bytes = b"") -> int:
        """Append items to buckets at one instant; about how large the last one is now, 0 if one of them is foreign."""
        arguments = [x for key, ops in parts for x in (key, encoding.bucket_head(), encoding.chunk(ops))]
        while True:
            answer = self.server.run(lua.APPEND, proof, *arguments)
            if answer[0] != lua.BUSY:
                return int(self.checked(b"n:" + name.encode(), answer)[1])
            for key, _ in parts:
                self.until_let_go(b"n:" + key)

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        for name in ops:
            if name.encode() not in self.sound:
                self.bucket(name).tail()
        if ops and not self.append([(name.encode(), more) for name, more in ops.items()], next(iter(ops))):
            raise ValueError(f"one of {', '.join(ops)} is one pickle of something else's; replace it first")

    def log(self, name: str) -> Log:
        return RedisLog(self, name)

    def register(self, name: str) -> Register:
        return RedisRegister(self, name)

    def mutex(self, name: str) -> Mutex:
        return RedisMutex(self, name)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        with self.holds.held(b"g:" + name.encode()):
            yield

    # -- waiting and time ----------------------------------------------------------------------------

    def watch(self, names: Sequence[str], taking: str | None = None) -> RedisWatch:
        return self.watching([name.encode() for name in (names if taking is None else [*names, taking])])

    def watching(self, names: Sequence[bytes]) -> RedisWatch:
        return RedisWatch(self.channels, names, self.grace)

    def announce(self, name: str) -> None:
        self.server.ask("PUBLISH", self.server.prefix + b"!" + name.encode(), b"")

    def now(self) -> float:
        return clock.monotonic()

    def due(self, seconds: float) -> int:
        """In milliseconds of the server's clock: hosts that share nothing else agree on it."""
        return math.ceil((self._server_time() + min(seconds, 1e9)) * 1000)

    def until(self, due: int) -> float | None:
        return due / 1000 - self._server_time()

    def _server_time(self) -> float:
        """Seconds on the server's clock, which is asked every few seconds; in between, on ours."""
        now = clock.monotonic()
        if now - self._asked > SET_CLOCK:
            seconds, micros = self.server.ask("TIME")
            now = self._asked = clock.monotonic()
            self._offset = int(seconds) + int(micros) / 1e6 - now
        return now + self._offset

    def give_way(self) -> None:
        """Nothing: who waits here sleeps."""

    # -- owners --------------------------------------------------------------------------------------

    def owner(self) -> int:
        before, number = self.owners.number, self.owners.mine()
        if number != before:
            exit_hooks.remember(self)
        return number

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._farewells.add(farewell)

    def alive(self, owner: int) -> Alive:
        return self.owners.alive(owner)

    def describe(self, owner: int) -> str:
        return self.owners.describe(owner)

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
        return scan.processes(self.server, self.owners)

    # -- housekeeping --------------------------------------------------------------------------------

    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        key = name.encode()
        data = self.server.get(b"n:", key)
        if data is None:
            return None
        if seen is None:
            try:
                encoding.uncell(data)
                return None
            except encoding.Unreadable:
                pass
        elif seen and int.from_bytes(data[1:9], "little") != seen[0]:
            return None
        refuge = f"{HIDDEN}/quarantine/{encoding.fresh().hex()}-{name.replace('/', '%2F')}"
        what = b"n:" + key
        proof = self.holds.proof(what)
        answer = self.holds.until_free(what, lambda: self.server.run(lua.MOVE, key, refuge.encode(), proof, data))
        return refuge if self.checked(what, answer)[1] else None

    def sweep(self) -> int:
        return self.owners.sweep()

    def remove(self) -> None:
        """The whole store is gone from the server: for who made it and knows that nobody else uses it."""
        for key in self.server.keys(b""):
            self.server.ask("UNLINK", self.server.prefix + key)

    def close(self) -> None:
        """Be nobody any more; connections are opened again if the engine is used. A mutex that is held stays so."""
        self._farewells.say()
        self.owners.close()
        self.channels.close()
        self.server.close()


def _reopen(url: str, durability: Durability, format: Format | None) -> RedisEngine:
    engine = RedisEngine(url, durability)
    engine.format = format
    return engine
