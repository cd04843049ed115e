"""Connections to whoever serves the store: one server, the node of a cluster that has its slot, a sentinels' master.

A cluster's node that has not the slot says who has (MOVED), and is believed; of several hosts in the URL the next one
is tried when one does not answer. All keys of a store carry the tag ``{prefix}``, so they are in one slot, on one node.
"""

from __future__ import annotations

import threading
from typing import Any

from psync.engine import forks
from psync.engine.redis.address import Address

ANSWER = 5.0
"""Seconds within which an answer comes; for a server that is busy for longer, give ``socket_timeout`` in the URL."""


class Connections:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.moves = 0
        """How often another server took the place of the one before, as far as this process has seen."""
        self._place: tuple[str, int] | None = address.hosts[0] if address.hosts else None
        """Where the next connection leads; None where redis-py knows it: a socket, or whom the sentinels name."""
        if address.sentinel:
            self._place = None
        self._pool: Any = None
        self._made = threading.Lock()
        forks.remember(self)

    def after_fork(self) -> None:
        self._pool, self._made = None, threading.Lock()

    def new(self) -> Any:
        """A connection, not yet used."""
        with self._made:
            if self._pool is None:
                self._pool = self._open_pool()
        connection = self._pool.make_connection()
        self.aim(connection)
        return connection

    def aim(self, connection: Any) -> None:
        """Let a connection that is not open lead to where the server is now."""
        if self._place is not None:
            connection.host, connection.port = self._place

    def failed(self, connection: Any, error: Exception) -> None:
        """What to make of `error`: is somebody else asked from now on?"""
        if self._place is None:
            return
        if isinstance(error, client().exceptions.MovedError):
            self._go_to((error.host or self._place[0], error.port))
        elif not isinstance(error, client().exceptions.ResponseError) and self._place == _place_of(connection):
            hosts = self.address.hosts
            at = hosts.index(self._place) + 1 if self._place in hosts else 0
            self._go_to(hosts[at % len(hosts)])

    def _go_to(self, place: tuple[str, int]) -> None:
        if place != self._place:
            self._place = place
            self.moves += 1

    def _open_pool(self) -> Any:
        redis = client()
        # RESP 2: in RESP 3 redis-py passes over what is pushed, and reads on.
        options: dict[str, Any] = {"socket_timeout": ANSWER, "socket_connect_timeout": ANSWER, "protocol": 2}
        try:
            if self.address.sentinel:
                return self._open_sentinels(redis, options)
            return redis.ConnectionPool.from_url(self.address.to(0), **options)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.address.shown} can't be opened: {error}") from error

    def _open_sentinels(self, redis: Any, options: dict[str, Any]) -> Any:
        """TLS and its options hold for the sentinels too; user and password are the server's."""
        given = {**options, **redis.connection.parse_url(self.address.to(0))}
        for name in ("host", "port", "connection_class"):
            given.pop(name, None)
        safe = {"ssl": True} if self.address.url.startswith("rediss") else {}
        secrets = ("username", "password", "db", "protocol")
        theirs = {name: value for name, value in given.items() if name not in secrets}
        sentinels = redis.sentinel.Sentinel(self.address.hosts, sentinel_kwargs={**theirs, **safe}, **given, **safe)
        return sentinels.master_for(self.address.sentinel).connection_pool


def _place_of(connection: Any) -> tuple[str, int]:
    return connection.host, connection.port


def client() -> Any:
    """redis-py, which is there only for who installed it."""
    try:
        import redis  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError("a store on a server needs redis-py: pip install 'psync[redis]'") from error
    return redis


def lost() -> tuple[type[Exception], ...]:
    """What says that there was no answer, or that it is worth while to ask again, here or elsewhere."""
    errors = client().exceptions
    return (
        errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, errors.BusyLoadingError,
        errors.TryAgainError, errors.ClusterDownError, errors.MasterDownError, errors.AskError, OSError,
    )  # fmt: skip


def is_refusal(error: Exception) -> bool:
    """Whether asking again changes nothing: wrong password, wrong certificate."""
    if isinstance(error, client().exceptions.AuthenticationError):
        return True
    return isinstance(error.__context__ or error.__cause__, OSError) and "CERTIFICATE" in str(error)
