"""Commands to one server: each is sent until it is answered, and a script that changes something is done only once.

A connection is used by one thread at a time and never by a forked child. When an answer does not come, the same
request goes out again, with the same number and from the same slot, to whoever is the server by then; the script
finds the answer that it had noted. Tries are at most a second apart; after `Address.patience` seconds: `StoreFailed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from psync.engine.redis.connections import Connections, client, is_refusal, lost, socket_of
from psync.engine.redis.encoding import fresh
from psync.engine.redis.lua import Script
from psync.engine.redis.server_info import Premises, fields, settings, told
from psync.engine.redis.url import Address
from psync.engine.system import clock, fork_hooks
from psync.errors import StoreFailed, StoreFull

AT_ONCE = 1000
"""Keys that are asked for at a time."""
RENEW_NOTES = 400.0
"""Seconds after which a slot's notes get their full time (900 seconds) again."""
FIRST_BREAK, LONGEST_BREAK = 0.02, 1.0
"""Seconds between two tries."""


class Line:
    """A connection, and the slot in which the server notes what was answered on it."""

    def __init__(self, connections: Connections, slot: bytes) -> None:
        self._connections = connections
        self.connection = connections.new()
        self.slot = slot
        self._number = 0
        self._noted = -math.inf
        """When a note last got its full time."""

    def next_number(self) -> bytes:
        """Of the next request: larger than all before, and now and then one with which a note gets its full time."""
        now = clock.monotonic()
        self._number += 1
        if now - self._noted > RENEW_NOTES:
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
        self._premises: Premises | None = None
        self.era = 0
        """Grows whenever the server may have forgotten something that it had answered: when it was restarted, unless
        all is always on its disk first, or when a replica took its place."""
        fork_hooks.remember(self)

    def __repr__(self) -> str:
        return f"<Server {self.address.shown}>"

    def after_fork(self) -> None:
        """A child's connections are its own; what its parent sent and got must not be mixed up with it."""
        self._lines = []

    # -- connections ---------------------------------------------------------------------------------

    def _line(self) -> Line:
        try:
            return self._lines.pop()
        except IndexError:
            return Line(self.connections, self.prefix + b"q:" + fresh().hex().encode())

    def _give_back(self, line: Line, closings: int) -> None:
        """For the next request; unless this was closed meanwhile, by another thread."""
        self._lines.append(line)
        if closings != self._closings:
            self._hang_up()

    def close(self) -> None:
        self._closings += 1  # before: who gives one back from now on closes it
        self._hang_up()

    def _hang_up(self) -> None:
        while self._lines:
            self._lines.pop().connection.disconnect()

    # -- requests ------------------------------------------------------------------------------------

    def ask(self, *command: Any) -> Any:
        """The answer to a command that may be done twice: a read."""
        return self._repeated(lambda line: line.ask(*command), str(command[0]))

    def get(self, kind: bytes, name: bytes) -> bytes | None:
        return self.ask("GET", self.prefix + kind + name)  # type: ignore[no-any-return]

    def keys(self, kind: bytes, begin: bytes = b"") -> Iterator[bytes]:
        """What stands behind `kind` in all keys that do, if it begins so; some of it twice. A pass over all keys of the
        server."""
        head = self.prefix + kind
        for key in self._scanned("SCAN", "MATCH", _literally(head + begin) + b"*"):
            yield key[len(head) :]

    def members(self, key: bytes) -> Iterator[bytes]:
        """Of a set; some of them twice."""
        return self._scanned("SSCAN", self.prefix + key)

    def _scanned(self, command: str, *arguments: Any) -> Iterator[bytes]:
        before, after = (arguments, ()) if command == "SSCAN" else ((), arguments)
        cursor = 0
        while True:
            found, some = self.ask(command, *before, cursor, *after, "COUNT", AT_ONCE)
            yield from some
            cursor = int(found)
            if not cursor:
                return

    def run(self, script: Script, *arguments: Any) -> list[Any]:
        """What the script answers; done once, however often it has to be sent."""
        line = self._line()
        call = (script.sha, 1, line.slot, self.prefix, line.next_number(), *arguments)
        return self._repeated(lambda line: self._evaluate(line, script, call), "a script", line)  # type: ignore[no-any-return]

    def _evaluate(self, line: Line, script: Script, call: tuple[Any, ...]) -> Any:
        try:
            return line.ask("EVALSHA", *call)
        except client().exceptions.NoScriptError:
            return line.ask("EVAL", script.source, *call[1:])

    def _repeated(self, request: Callable[[Line], Any], what: str, line: Line | None = None) -> Any:
        closings = self._closings
        line = line or self._line()
        try:
            answer = request(line)
        except lost() as error:
            answer = self._again(request, what, line, error)
        except client().exceptions.ResponseError as error:
            self._give_back(line, closings)
            raise self._refused(error) from error
        except BaseException:  # a signal's handler raised: the answer may still come, to whoever reads next
            line.connection.disconnect()
            raise
        self._give_back(line, closings)
        return answer

    def _again(self, request: Callable[[Line], Any], what: str, line: Line, error: Exception) -> Any:
        """After a request that had no answer, or one that says `later`, or `elsewhere`."""
        end, pause = clock.monotonic() + self.address.patience, FIRST_BREAK
        while True:
            line.connection.disconnect()
            if is_refusal(error):
                raise self._refused(error) from error
            if clock.monotonic() >= end:
                raise self._unreachable(what, error) from error
            self.connections.failed(line.connection, error)
            clock.sleep(pause)
            pause = min(2 * pause, LONGEST_BREAK)
            try:
                self._recognise(line)
                return request(line)
            except lost() as later:
                error = later
            except client().exceptions.ResponseError as refusal:
                raise self._refused(refusal) from refusal

    # -- what the server is like ---------------------------------------------------------------------

    def premises(self) -> Premises:
        """What the server is like; asked once, in one round trip or two."""
        if self._premises is None:
            self._premises = self._repeated(_premises, "INFO")
        return self._premises

    def _recognise(self, line: Line) -> None:
        """See on a new connection whether the server may have forgotten something since the last one was made."""
        known = self._premises
        if known is None or known.run is None:
            return
        try:
            run = fields(line.ask("INFO", "server")).get("run_id", known.run)
        except client().exceptions.ResponseError:
            return
        if run != known.run:
            self._premises = known._replace(run=run)
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
        if isinstance(error, client().exceptions.OutOfMemoryError):
            return StoreFull(
                f"the server of {self.address.shown} has no memory left ({text}): raise its "
                "maxmemory, or remove values",
                key=None,
            )
        remedy = ""
        if isinstance(error, client().exceptions.AuthenticationError):
            remedy = ". Give a user and password that it knows: redis://user:password@host:port/0"
        elif isinstance(error, client().exceptions.NoPermissionError):
            remedy = f". Its user needs: {self.needed_permissions}"
        elif is_refusal(error):
            remedy = ". Name the authority that signed its certificate: ssl_ca_certs=FILE in the URL"
        return StoreFailed(f"the server of {self.address.shown} refused: {text}{remedy}", key=None)

    @property
    def needed_permissions(self) -> str:
        """What ``ACL SETUSER name`` has to be told so that the user can use the store, and no other."""
        prefix = f"{{{self.address.prefix}}}:*"
        return f"~{prefix} &{prefix} +@all -@admin -@dangerous +info +config|get"


def _literally(text: bytes) -> bytes:
    """`text` as a pattern that matches nothing else."""
    return b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]^\\" else bytes((byte,)) for byte in text)


def _premises(line: Line) -> Premises:
    refusal = client().exceptions.ResponseError
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
