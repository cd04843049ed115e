"""Watches: subscribe to the names that may change, on connections that are kept for that.

A connection stays subscribed while it is not used, so that the next watch of the same names begins without a round
trip. The messages that came meanwhile are read and dropped then.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from psync.engine.contract.engine import Watch
from psync.engine.redis.client import Server
from psync.engine.redis.connections import no_answer, socket_of
from psync.engine.system import fork_hooks

MAX_IDLE_CONNECTIONS = 8
"""More connections than these are closed after use."""


class Channels:
    """The subscribed connections of this process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[tuple[frozenset[bytes], Any]] = []
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._idle = []

    def take(self, names: frozenset[bytes]) -> Any:
        """Return a connection that is subscribed to `names` from now on."""
        connection = self._kept(names)
        if connection is not None:
            try:
                drain(connection)
                return connection
            except no_answer():
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
        self._server.ask("PING")  # waits until the server is there, or its patience ends
        connection = self._server.connections.new()
        channels = [self._server.prefix + b"!" + name for name in names]
        for attempt in range(5):
            try:
                self._server.connections.aim(connection)
                connection.send_command("SUBSCRIBE", *channels)
                for _ in channels:
                    connection.read_response()
                return connection
            except no_answer():
                connection.disconnect()
                if attempt == 4:
                    raise
                self._server.ask("PING")
        raise AssertionError("unreachable")

    def give_back(self, names: frozenset[bytes], connection: Any) -> None:
        self._idle.append((names, connection))
        while len(self._idle) > MAX_IDLE_CONNECTIONS:
            self._idle.pop(0)[1].disconnect()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].disconnect()


def drain(connection: Any) -> bool:
    """Read all messages that have come; returns whether there were any."""
    found = False
    while ready(connection, 0):
        connection.read_response()
        found = True
    return found


def ready(connection: Any, timeout: float) -> bool:
    """Whether a message has come, or comes within `timeout` seconds."""
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
    """Its own context manager, so that it is subscribed from the moment of entering on."""

    def __init__(self, channels: Channels, names: Sequence[bytes], grace: float) -> None:
        self._channels = channels
        self._names = frozenset((*names, b""))  # a death is published on the empty name
        self._grace = grace
        self._connection: Any = None
        self._reading = False
        """Stays True if a signal's handler raises in the middle of a message."""
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
        if self._pid != os.getpid():  # a forked child subscribes on a connection of its own
            self.__enter__()
            return
        try:
            if ready(self._connection, max(0.0, seconds)):
                self._reading = True
                drain(self._connection)
                self._reading = False
        except no_answer():  # cut off: return, as the caller may have missed a change
            self._connection.disconnect()
            self._connection = self._channels.subscribe(self._names)
            self._reading = False
