"""Client: sends each command to the server until it is answered; a script that changes something runs only once.

A connection is used by one thread at a time and never by a forked child. If an answer does not come, the client sends
the same request again, with the same number and from the same slot, to the host that is the server by then. The script
finds the answer that it had noted. Retries are at most a second apart; after `Address.patience` seconds `StoreFailed`
is raised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from psync.engine.redis.connections import Connections, is_refusal, no_answer, redis_py, socket_of
from psync.engine.redis.encoding import fresh
from psync.engine.redis.lua import Script
from psync.engine.redis.server_info import ServerInfo, fields, settings, told
from psync.engine.redis.url import Address
from psync.engine.system import clock, fork_hooks
from psync.errors import StoreFailed, StoreFull

KEYS_PER_SCAN = 1000
"""The COUNT of a SCAN."""
MAX_IDLE_CONNECTIONS = 64
"""Connections that are kept for the next requests: one for each thread that asks at the same time."""
NOTE_RENEWAL_S = 400.0
"""The interval at which a slot's notes get their full time to live (900 seconds) again."""
FIRST_RETRY_S, MAX_RETRY_S = 0.02, 1.0
"""The pauses between two tries: the first one, and the longest."""


class Line:
    """A connection, and the slot in which the server notes the answers to its requests."""

    def __init__(self, connections: Connections, slot: bytes) -> None:
        self._connections = connections
        self.connection = connections.new()
        self.slot = slot
        self._number = 0
        self._noted = -math.inf
        """When a note last got its full time."""

    def next_number(self) -> bytes:
        """Return the next request's number, larger than all before; every hundredth renews a note's full time."""
        now = clock.monotonic()
        self._number += 1
        if now - self._noted > NOTE_RENEWAL_S:
            self._number += -self._number % 100
        if not self._number % 100:
            self._noted = now
        return b"%016d" % self._number

    def ask(self, *command: Any) -> Any:
        if socket_of(self.connection) is None:
            self._connections.aim(self.connection)
        self.connection.send_command(*command)
        return self.connection.read_response()


class Server:
    read_only = False
    """Whether every change is refused."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.prefix = b"{%s}:" % address.prefix.encode()
        self.connections = Connections(address)
        self._lines: list[Line] = []  # taken and given back by single calls, so threads need no lock
        self._closings = 0
        self._info: ServerInfo | None = None
        self.era = 0
        """Grows whenever the server may have lost a change that it had answered: after a restart, unless every change
        is on its disk first, and when a replica has taken its place."""
        fork_hooks.remember(self)

    def __repr__(self) -> str:
        return f"<Server {self.address.shown}>"

    def after_fork(self) -> None:
        """A child's connections are its own; requests and replies of its parent must not be mixed up with them."""
        self._lines = []

    # -- connections ---------------------------------------------------------------------------------

    def _line(self) -> Line:
        try:
            return self._lines.pop()
        except IndexError:
            return Line(self.connections, self.prefix + b"q:" + fresh().hex().encode())

    def _give_back(self, line: Line, closings: int) -> None:
        """Keep the connection for the next request, unless another thread has closed this client meanwhile."""
        if len(self._lines) >= MAX_IDLE_CONNECTIONS:
            line.connection.disconnect()
            return
        self._lines.append(line)
        if closings != self._closings:
            self._hang_up()

    def close(self) -> None:
        self._closings += 1  # first, so that a thread that gives one back from now on closes it
        self._hang_up()

    def _hang_up(self) -> None:
        while self._lines:
            self._lines.pop().connection.disconnect()

    # -- requests ------------------------------------------------------------------------------------

    def ask(self, *command: Any) -> Any:
        """Return the answer to a command that may run twice: a read."""
        return self._repeated(lambda line: line.ask(*command), str(command[0]))

    def get(self, kind: bytes, name: bytes) -> bytes | None:
        return self.ask("GET", self.prefix + kind + name)  # type: ignore[no-any-return]

    def keys(self, kind: bytes, begin: bytes = b"") -> Iterator[bytes]:
        """Yield the names of all keys of a kind that begin with `begin`; some of them twice. A pass over all keys of
        the server."""
        head = self.prefix + kind
        for key in self._scanned("SCAN", "MATCH", _literally(head + begin) + b"*"):
            yield key[len(head) :]

    def members(self, key: bytes) -> Iterator[bytes]:
        """Yield the members of a set; some of them twice."""
        return self._scanned("SSCAN", self.prefix + key)

    def _scanned(self, command: str, *arguments: Any) -> Iterator[bytes]:
        before, after = (arguments, ()) if command == "SSCAN" else ((), arguments)
        cursor = 0
        while True:
            found, some = self.ask(command, *before, cursor, *after, "COUNT", KEYS_PER_SCAN)
            yield from some
            cursor = int(found)
            if not cursor:
                return

    def run(self, script: Script, *arguments: Any) -> list[Any]:
        """Run a script once, however often it has to be sent; returns its answer."""
        line = self._line()
        call = (script.sha, 1, line.slot, self.prefix, line.next_number(), *arguments)
        return self._repeated(lambda line: self._evaluate(line, script, call), "a script", line)  # type: ignore[no-any-return]

    def _evaluate(self, line: Line, script: Script, call: tuple[Any, ...]) -> Any:
        try:
            return line.ask("EVALSHA", *call)
        except redis_py().exceptions.NoScriptError:
            return line.ask("EVAL", script.source, *call[1:])

    def _repeated(self, request: Callable[[Line], Any], what: str, line: Line | None = None) -> Any:
        closings = self._closings
        line = line or self._line()
        try:
            answer = request(line)
        except no_answer() as error:
            answer = self._again(request, what, line, error)
        except redis_py().exceptions.ResponseError as error:
            self._give_back(line, closings)
            raise self._refused(error) from error
        except BaseException:  # a signal's handler raised: the next request would read this one's answer
            line.connection.disconnect()
            raise
        self._give_back(line, closings)
        return answer

    def _again(self, request: Callable[[Line], Any], what: str, line: Line, error: Exception) -> Any:
        """Repeat a request that had no answer, or one that says `later` or `elsewhere`."""
        end, pause = clock.monotonic() + self.address.patience, FIRST_RETRY_S
        while True:
            line.connection.disconnect()
            if is_refusal(error):
                raise self._refused(error) from error
            if clock.monotonic() >= end:
                raise self._unreachable(what, error) from error
            self.connections.failed(line.connection, error)
            clock.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_S)
            try:
                self._recognise(line)
                return request(line)
            except no_answer() as later:
                error = later
            except redis_py().exceptions.ResponseError as refusal:
                raise self._refused(refusal) from refusal

    # -- what the server is like ---------------------------------------------------------------------

    def info(self) -> ServerInfo:
        """Return the settings of the server; it is asked once, in one round trip or two."""
        if self._info is None:
            self._info = self._repeated(_info, "INFO")
        return self._info

    def _recognise(self, line: Line) -> None:
        """Check on a new connection whether the server may have lost changes since the last one was made."""
        known = self._info
        if known is None or known.run is None:
            return
        try:
            run = fields(line.ask("INFO", "server")).get("run_id", known.run)
        except redis_py().exceptions.ResponseError:
            return
        if run != known.run:
            self._info = known._replace(run=run)
            if known.persistence != "always" or self.address.sentinel or self.connections.moves:
                self.era += 1

    # -- errors --------------------------------------------------------------------------------------

    def _unreachable(self, what: str, error: Exception) -> StoreFailed:
        return StoreFailed(
            f"the server of {self.address.shown} did not answer {what} for {self.address.patience:g} seconds "
            f"({error}); whether it was done is not known. See that the server runs and can be reached, and go on",
            key=None,
        )

    def _refused(self, error: Exception) -> StoreFailed | StoreFull:
        text = str(error)
        if isinstance(error, redis_py().exceptions.OutOfMemoryError):
            return StoreFull(
                f"the server of {self.address.shown} has no memory left ({text}): raise its "
                "maxmemory, or remove values",
                key=None,
            )
        remedy = ""
        if isinstance(error, redis_py().exceptions.AuthenticationError):
            remedy = ". Give a user and password that it knows: redis://user:password@host:port/0"
        elif isinstance(error, redis_py().exceptions.NoPermissionError):
            remedy = f". Its user needs: {self.needed_permissions}"
        elif is_refusal(error):
            remedy = ". Name the authority that signed its certificate: ssl_ca_certs=FILE in the URL"
        return StoreFailed(f"the server of {self.address.shown} refused: {text}{remedy}", key=None)

    @property
    def needed_permissions(self) -> str:
        """The rules for ``ACL SETUSER name`` with which that user can use this store, and no other."""
        prefix = f"{{{self.address.prefix}}}:*"
        return f"~{prefix} &{prefix} +@all -@admin -@dangerous +info +config|get"


def _literally(text: bytes) -> bytes:
    """Return `text` as a pattern that matches nothing else."""
    return b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]^\\" else bytes((byte,)) for byte in text)


def _info(line: Line) -> ServerInfo:
    refusal = redis_py().exceptions.ResponseError
    try:
        information = fields(line.ask("INFO"))
    except refusal:
        information = None
    configured: dict[str, str] = {}
    for name in ("appendfsync", "save"):
        try:
            configured |= settings(line.ask("CONFIG", "GET", name))
        except refusal:
            break
    return told(information, configured)
