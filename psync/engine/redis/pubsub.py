"""A watch: the server tells this process which names have changed, on a connection that it keeps for that.

A connection that has watched some names goes on being told of them while it is not used, so that the next watch of the
same names begins without a round trip; what it was told meanwhile is read and forgotten then.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from psync.engine.contract.engine import Watch
from psync.engine.redis.client import Server
from psync.engine.redis.connections import lost, socket_of
from psync.engine.system import fork_hooks

KEPT = 8
"""Connections that are kept while nobody uses them."""


class Channels:
    """The connections on which this process is told of changes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[tuple[frozenset[bytes], Any]] = []
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._idle = []

    def take(self, names: frozenset[bytes]) -> Any:
        """A connection that is told of `names` from now on."""
        connection = self._kept(names)
        if connection is not None:
            try:
                drain(connection)
                return connection
            except lost():
                connection.disconnect()
        return self.subscribe(names)

    def _kept(self, names: frozenset[bytes]) -> Any:
        for one in self._idle[::-1]:
            if one[0] == names:
                try:
                    self._idle.remove(one)
                except ValueError:  # another thread was faster
                    continue
                return one[1]
        return None

    def subscribe(self, names: frozenset[bytes]) -> Any:
        """Raises `StoreFailed` if the server can't be reached."""
        self._server.ask("PING")  # waits, with all patience, until the server is there
        connection = self._server.connections.new()
        channels = [self._server.prefix + b"!" + name for name in names]
        for attempt in range(5):
            try:
                self._server.connections.aim(connection)
                connection.send_command("SUBSCRIBE", *channels)
                for _ in channels:
                    connection.read_response()
                return connection
            except lost():
                connection.disconnect()
                if attempt == 4:
                    raise
                self._server.ask("PING")
        raise AssertionError("unreachable")

    def give_back(self, names: frozenset[bytes], connection: Any) -> None:
        self._idle.append((names, connection))
        while len(self._idle) > KEPT:
            self._idle.pop(0)[1].disconnect()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].disconnect()


def drain(connection: Any) -> bool:
    """Read what has come; whether there was anything."""
    found = False
    while ready(connection, 0):
        connection.read_response()
        found = True
    return found


def ready(connection: Any, timeout: float) -> bool:
    """Whether something has come, or comes within `timeout` seconds."""
    if connection.can_read(0):
        return True
    if timeout <= 0:
        return False
    socket = socket_of(connection)
    return bool(select.select([socket], [], [], timeout)[0]) if socket.fileno() < 1024 else _poll(socket, timeout)


def _poll(socket: Any, timeout: float) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


class RedisWatch(Watch):
    """Its own context manager, so that it is told from the moment of entering on."""

    def __init__(self, channels: Channels, names: Sequence[bytes], grace: float) -> None:
        self._channels = channels
        self._names = frozenset((*names, b""))  # the empty one tells of deaths
        self._grace = grace
        self._connection: Any = None
        self._reading = False
        """Also when a signal's handler raised in the middle of a message."""
        self._pid = 0

    def __repr__(self) -> str:
        return f"<RedisWatch of {b', '.join(sorted(self._names - {b''})).decode() or 'nothing'}>"

    def __enter__(self) -> RedisWatch:
        self._connection, self._pid, self._reading = self._channels.take(self._names), os.getpid(), False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is None or self._pid != os.getpid():
            return
        if self._reading:
            connection.disconnect()
        else:
            self._channels.give_back(self._names, connection)

    def pause(self, timeout: float | None) -> None:
        seconds = self._grace if timeout is None else min(timeout, self._grace)
        if self._pid != os.getpid():  # a forked child is told on a connection of its own
            self.__enter__()
            return
        try:
            if ready(self._connection, max(0.0, seconds)):
                self._reading = True
                drain(self._connection)
                self._reading = False
        except lost():  # cut off: whatever happened meanwhile, look again
            self._connection.disconnect()
            self._connection = self._channels.subscribe(self._names)
            self._reading = False
